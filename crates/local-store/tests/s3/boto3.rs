//! boto3 as judge: another implementation of the client, with its own defaults (CRC32 trailers, URL-encoded
//! listings).

use std::process::Command;

use crate::harness::{ACCESS, REGION, SECRET, Server};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn boto3_agrees() {
    let importable = Command::new("python3").args(["-c", "import boto3"]).output();
    if !importable.is_ok_and(|output| output.status.success()) {
        assert!(std::env::var_os("CI").is_none(), "CI must have python3 with boto3 (pip install boto3)");
        eprintln!("NOT JUDGED BY BOTO3: python3 with boto3 is not on this machine");
        return;
    }
    let (server, _dir) = Server::with_bucket().await;
    let addr = server.addr;
    let judged = tokio::task::spawn_blocking(move || {
        Command::new("python3")
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/boto3_judge.py"))
            .arg(format!("http://{addr}"))
            .env("AWS_ACCESS_KEY_ID", ACCESS)
            .env("AWS_SECRET_ACCESS_KEY", SECRET)
            .env("AWS_DEFAULT_REGION", REGION)
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .env_remove("AWS_PROFILE")
            .env("AWS_CONFIG_FILE", "/dev/null")
            .env("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
            .output()
    });
    let judged = judged.await.unwrap().unwrap();
    let said = String::from_utf8_lossy(&judged.stderr);
    assert!(judged.status.success(), "{said}");
    server.stop().await;
}
