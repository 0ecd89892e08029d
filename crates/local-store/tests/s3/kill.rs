//! kill -9 of a real process, again and again, in the middle of writes.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_sdk_s3::Client;
use local_store::serve;
use tokio_util::sync::CancellationToken;

use crate::harness::{BUCKET, MIB, REGION, SECRET, Server, client, config, files, noise};

const DIR: &str = "LOCAL_STORE_KILL_TEST_DIR";
const ROUNDS: u64 = 6;
const WRITERS: u64 = 4;

/// Not a test: the process that [`survives`] starts and kills.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child() {
    let Some(dir) = std::env::var_os(DIR) else { return };
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    println!("\nADDR {}", listener.local_addr().unwrap());
    serve(listener, config(Path::new(&dir)), CancellationToken::new()).await.unwrap();
}

fn start(dir: &Path) -> (Child, SocketAddr) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "kill::child", "--nocapture"])
        .env(DIR, dir)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let addr = lines.map_while(Result::ok).find_map(|line| line.strip_prefix("ADDR ")?.parse().ok()).unwrap();
    (child, addr)
}

/// The version of each key that was acknowledged, and the one that was under way.
#[derive(Clone, Copy, Default)]
struct Versions {
    acknowledged: u64,
    sent: u64,
}

type Ledger = Arc<Mutex<BTreeMap<String, Versions>>>;

fn content(version: u64) -> Vec<u8> {
    // Whole parts, or small objects, by turns.
    let size = if version.is_multiple_of(3) { 5 * MIB + 11 } else { 100_000 };
    noise(size, version)
}

/// Writes version after version under one key, until the server is gone.
async fn write(client: Client, key: String, ledger: Ledger) {
    loop {
        let version = {
            let mut ledger = ledger.lock().unwrap();
            let versions = ledger.entry(key.clone()).or_default();
            versions.sent += 1;
            versions.sent
        };
        let body = content(version);
        let written = if version.is_multiple_of(3) {
            upload(&client, &key, &body).await
        } else {
            client.put_object().bucket(BUCKET).key(&key).body(body.into()).send().await.is_ok()
        };
        if !written {
            return;
        }
        ledger.lock().unwrap().get_mut(&key).unwrap().acknowledged = version;
    }
}

async fn upload(client: &Client, key: &str, body: &[u8]) -> bool {
    let Ok(created) = client.create_multipart_upload().bucket(BUCKET).key(key).send().await else {
        return false;
    };
    let id = created.upload_id.unwrap();
    let mut parts = Vec::new();
    for (number, body) in (1..).zip(body.chunks(5 * MIB)) {
        let part = client
            .upload_part()
            .bucket(BUCKET)
            .key(key)
            .upload_id(&id)
            .part_number(number)
            .body(body.to_vec().into());
        let Ok(part) = part.send().await else { return false };
        let done = aws_sdk_s3::types::CompletedPart::builder().part_number(number).set_e_tag(part.e_tag);
        parts.push(done.set_checksum_crc32(part.checksum_crc32).build());
    }
    let list = aws_sdk_s3::types::CompletedMultipartUpload::builder().set_parts(Some(parts)).build();
    let complete =
        client.complete_multipart_upload().bucket(BUCKET).key(key).upload_id(id).multipart_upload(list);
    complete.send().await.is_ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn survives() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = Ledger::default();
    for round in 0..ROUNDS {
        let (mut child, addr) = start(dir.path());
        let client = client(addr, SECRET, REGION);
        if round == 0 {
            client.create_bucket().bucket(BUCKET).send().await.unwrap();
        }
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| tokio::spawn(write(client.clone(), format!("key/{writer}"), Arc::clone(&ledger))))
            .collect();
        tokio::time::sleep(Duration::from_millis(150 + 97 * round)).await;
        child.kill().unwrap();
        child.wait().unwrap();
        for writer in writers {
            writer.await.unwrap();
        }

        let server = Server::start(dir.path()).await;
        let ledger = ledger.lock().unwrap().clone();
        let mut kept = 0;
        for (key, Versions { acknowledged, sent }) in &ledger {
            let found = server.client.get_object().bucket(BUCKET).key(key).send().await;
            let Ok(found) = found else {
                assert_eq!(*acknowledged, 0, "{key} is lost");
                continue;
            };
            let found = found.body.collect().await.unwrap().to_vec();
            let version = (*acknowledged..=*sent).find(|version| content(*version) == found);
            let version =
                version.unwrap_or_else(|| panic!("{key} is neither version {acknowledged} nor {sent}"));
            kept += if version.is_multiple_of(3) { 2 } else { 1 };
        }
        // No file but those of the objects and of the uploads that were under way.
        let mut uploaded = 0;
        for upload in server.client.list_multipart_uploads().bucket(BUCKET).send().await.unwrap().uploads() {
            let (key, id) = (upload.key().unwrap(), upload.upload_id().unwrap());
            let parts =
                server.client.list_parts().bucket(BUCKET).key(key).upload_id(id).send().await.unwrap();
            uploaded += parts.parts().len();
            server
                .client
                .abort_multipart_upload()
                .bucket(BUCKET)
                .key(key)
                .upload_id(id)
                .send()
                .await
                .unwrap();
        }
        server.stop().await;
        let server = Server::start(dir.path()).await;
        let data = files(&dir.path().join("buckets").join(BUCKET).join("data")).len();
        assert_eq!(data, kept, "after {uploaded} parts were aborted");
        assert!(files(&dir.path().join("tmp")).is_empty());
        server.stop().await;
    }
    let ledger = ledger.lock().unwrap();
    assert!(
        ledger.values().all(|versions| versions.acknowledged > 0),
        "the server was killed before it did anything"
    );
}
