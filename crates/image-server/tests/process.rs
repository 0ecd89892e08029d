//! The program itself: its first line, its log, its exit, and what a SIGKILL leaves.

// Clippy takes only `#[test]` functions for tests.
#![allow(clippy::unwrap_used)]

mod support;

use std::{
    io::{BufRead as _, BufReader, Read as _},
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use image_api::{Client, OperationOutcome, Uuid, WaitOptions};
use support::{SlowSource, disk, request};
use tokio_util::sync::CancellationToken;

const MIB: usize = 1 << 20;

struct Process {
    child: Child,
    client: Client,
}

impl Process {
    fn start(dir: &Path, arguments: &[String]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_image-server"))
            .args(["serve", "--listen", "127.0.0.1:0", "--data-dir"])
            .arg(dir)
            .args(arguments)
            .env_remove("RUST_LOG")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let endpoint = line.trim().strip_prefix("listening on ");
        let client = Client::new(endpoint.unwrap_or_else(|| panic!("no address in {line:?}")), None).unwrap();
        Self { child, client }
    }

    /// Sends a signal and waits; gives the status and the log.
    fn end(mut self, signal: &str) -> (ExitStatus, String) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args([signal, &id]).status().unwrap().success());
        let mut log = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut log).unwrap();
        (self.child.wait().unwrap(), log)
    }
}

/// A test that fails in between leaves no process.
impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_server_continues_and_a_stopped_one_exits_with_0() {
    let (dir, cancel) = (tempfile::tempdir().unwrap(), CancellationToken::new());
    let slow = SlowSource::start(disk(16 * MIB, &[(0, 16 * MIB)])).await;
    let arguments = ["--allow-http".to_owned(), "--allow-uri-host".to_owned(), slow.host()];

    let first = Process::start(dir.path(), &arguments);
    let request = request("web", &slow.url());
    let operation = first.client.create_image(&request, Uuid::new_v4(), &cancel).await.unwrap();
    slow.until_reading().await;
    let (_, log) = first.end("-KILL");
    assert!(!log.contains("secret"), "{log}");

    slow.hurry();
    let second = Process::start(dir.path(), &arguments);
    let options = WaitOptions::default();
    let wait = second.client.wait_operation(&operation.id, &options, |_| {}, &cancel);
    let done = tokio::time::timeout(Duration::from_secs(60), wait).await.expect("it ends").unwrap();
    assert!(matches!(done.outcome(), OperationOutcome::Succeeded(_)), "{done:?}");

    let (status, log) = second.end("-TERM");
    assert!(status.success(), "{status}\n{log}");
    assert!(log.contains("image ready") && log.contains("guest_digest="), "{log}");
    assert!(!log.contains("secret"), "{log}");
}

#[test]
fn a_failed_start_says_why_and_what_would_help() {
    let dir = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_image-server"))
        .args(["serve", "--listen", "0.0.0.0:0", "--data-dir"])
        .arg(dir.path())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stdout.is_empty());
    let error = String::from_utf8(output.stderr).unwrap();
    let expected = "error: listening on 0.0.0.0:0 without a token would be open to the network\n\
                    hint: give --token, or listen on 127.0.0.1\n";
    assert_eq!(error, expected);
}

#[test]
fn what_is_no_token_is_not_printed() {
    let dir = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_image-server"))
        .args(["serve", "--listen", "127.0.0.1:0", "--data-dir"])
        .arg(dir.path())
        .env("IMAGE_SERVER_TOKEN", "two secret words")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.contains("IMAGE_SERVER_TOKEN") && !error.contains("secret"), "{error}");
}
