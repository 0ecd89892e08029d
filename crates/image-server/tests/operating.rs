//! What an operator sees: the file of options, the log, health and metrics.

// Clippy takes only `#[test]` functions for tests.
#![allow(clippy::unwrap_used)]

mod support;

use std::{
    io::{BufRead as _, BufReader, Read as _},
    path::Path,
    process::{Child, Command, Stdio},
};

use support::{Fixture, disk};

const MIB: usize = 1 << 20;

struct Process(Child);

/// A test that fails in between leaves no process.
impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn serve(dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_image-server"));
    command
        .arg("serve")
        .current_dir(dir)
        .env_remove("RUST_LOG")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

#[test]
fn a_file_the_environment_and_the_command_line_are_one_table() {
    let dir = tempfile::tempdir().unwrap();
    let config = "listen = \"0.0.0.0:0\"\ndata-dir = \"from-file\"\nlog-format = \"json\"\n\
                  token = [\"hunter2\"]\nfolder-quota = \"10G\"\ningest-time = \"2h\"\n";
    std::fs::write(dir.path().join("server.toml"), config).unwrap();
    let mut command = serve(dir.path());
    command.args(["--config", "server.toml", "--data-dir", "from-line"]);
    command.env("IMAGE_SERVER_LISTEN", "127.0.0.1:0").env("IMAGE_SERVER_DATA_DIR", "from-environment");
    let mut process = Process(command.spawn().unwrap());
    let mut line = String::new();
    BufReader::new(process.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert!(line.starts_with("listening on http://127.0.0.1:"), "{line}");
    assert!(dir.path().join("from-line/catalog.sqlite").exists());
    assert!(!dir.path().join("from-file").exists() && !dir.path().join("from-environment").exists());
    let id = process.0.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
    let mut log = String::new();
    process.0.stderr.take().unwrap().read_to_string(&mut log).unwrap();
    assert!(process.0.wait().unwrap().success(), "{log}");
    assert!(!log.contains("hunter2"), "{log}");
    let events: Vec<serde_json::Value> =
        log.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"))).collect();
    assert!(events.iter().any(|event| event["message"] == "listening" && event["level"] == "INFO"), "{log}");
}

#[test]
fn a_wrong_file_is_told_without_its_secrets() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("server.toml"), "data-dir = \"d\"\ntokenn = \"hunter2\"\n").unwrap();
    let output = serve(dir.path()).args(["--config", "server.toml"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(
        error.starts_with("error: cannot use `server.toml`\n  caused by: unknown key `tokenn`"),
        "{error}"
    );
    assert!(!error.contains("hunter2"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn health_and_metrics() {
    let fixture = Fixture::start_with(|config| {
        config.tokens = vec!["token".parse().unwrap()];
        config.metrics = Some("127.0.0.1:0".parse().unwrap());
    })
    .await;
    fixture.ready("web", &disk(5 * MIB, &[(0, MIB)])).await;
    let get = async |url: String| {
        let answer = reqwest::get(url).await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    };
    let metrics = format!("http://{}", fixture.metrics().unwrap());
    for at in [fixture.endpoint(), metrics.as_str()] {
        for path in ["/healthz", "/readyz"] {
            assert_eq!(get(format!("{at}{path}")).await, (200, "ok\n".to_owned()), "{at}{path}");
        }
    }
    // Numbers of everybody's images are not for callers, nor for strangers.
    assert_eq!(get(format!("{}/metrics", fixture.endpoint())).await.0, 404);
    assert_eq!(get(format!("{metrics}/compute/v1/images?folderId=f")).await.0, 404);
    let (status, text) = get(format!("{metrics}/metrics")).await;
    assert_eq!(status, 200);
    for line in [
        "image_server_operations{kind=\"CREATE\",state=\"SUCCEEDED\"} 1",
        "image_server_images 1",
        "image_server_storage_bytes 4194304",
        "image_server_ingest_memory_bytes 0",
        "image_server_source_bytes_read_total 5242880",
        "image_server_ingest_seconds_count 1",
        "image_server_answers_total{status=\"4xx\"} 1",
        "# TYPE image_server_answers_total counter",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}\n{text}");
    }
    // Each line is a comment, or a name with labels and one number.
    let is_sample = |line: &str| {
        line.rsplit_once(' ')
            .is_some_and(|(name, value)| name.starts_with("image_server_") && value.parse::<f64>().is_ok())
    };
    assert!(text.lines().all(|line| line.starts_with("# ") || is_sample(line)), "{text}");
    fixture.stop().await;
}
