//! What a restart finds, after a stop and after a kill.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use aws_sdk_s3::primitives::ByteStream;
use local_store::{Error, LocalStore, serve};
use tokio::io::AsyncWriteExt as _;
use tokio_util::sync::CancellationToken;

use crate::harness::{BUCKET, MIB, Server, assert_data_files, assert_refused, config, files, noise};

#[tokio::test]
async fn a_restart_changes_nothing() {
    let (server, dir) = Server::with_bucket().await;
    server.put("put", noise(MIB, 1)).await;
    let done = server.create_upload("done").await;
    let parts = [
        server.put_part("done", &done, 1, noise(5 * MIB, 2)).await,
        server.put_part("done", &done, 2, noise(9, 3)).await,
    ];
    let etag = server.complete("done", &done, &parts).send().await.unwrap().e_tag;
    let open = server.create_upload("open").await;
    let early = server.put_part("open", &open, 1, noise(5 * MIB, 4)).await;
    server.stop().await;

    let server = Server::start(dir.path()).await;
    assert!(server.get("put").await == noise(MIB, 1));
    assert!(server.get("done").await == [noise(5 * MIB, 2), noise(9, 3)].concat());
    // Completed by the process before; the answer is the same.
    assert_eq!(server.complete("done", &done, &parts).send().await.unwrap().e_tag, etag);
    let late = server.put_part("open", &open, 2, noise(7, 5)).await;
    let listed = server.client.list_parts().bucket(BUCKET).key("open").upload_id(&open).send().await.unwrap();
    assert_eq!(
        listed.parts().iter().filter_map(|part| part.e_tag()).collect::<Vec<_>>(),
        [early.e_tag().unwrap(), late.e_tag().unwrap()]
    );
    server.complete("open", &open, &[early, late]).send().await.unwrap();
    assert!(server.get("open").await == [noise(5 * MIB, 4), noise(7, 5)].concat());
    assert_data_files(dir.path(), 5).await;
    server.stop().await;
}

#[tokio::test]
async fn a_kill_in_the_middle_of_a_body_leaves_nothing() {
    let (server, dir) = Server::with_bucket().await;
    server.put("k", "old").await;
    // Half of what was announced, and then silence.
    let presigning = aws_sdk_s3::presigning::PresigningConfig::expires_in(Duration::from_secs(60)).unwrap();
    let put = crate::harness::plain_client(server.addr)
        .put_object()
        .bucket(BUCKET)
        .key("k")
        .presigned(presigning)
        .await
        .unwrap();
    let target = put.uri().split_once(&server.addr.to_string()).unwrap().1.to_owned();
    let mut stream = tokio::net::TcpStream::connect(server.addr).await.unwrap();
    let head =
        format!("PUT {target} HTTP/1.1\r\nhost: {}\r\ncontent-length: {}\r\n\r\n", server.addr, 8 * MIB);
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(&noise(4 * MIB, 1)).await.unwrap();
    assert_data_files(dir.path(), 2).await;
    server.kill().await;

    let server = Server::start_when_free(dir.path()).await;
    assert_eq!(server.get("k").await, b"old");
    assert_data_files(dir.path(), 1).await;
    server.stop().await;
}

#[tokio::test]
async fn leftovers_of_every_kind_are_swept() {
    let (server, dir) = Server::with_bucket().await;
    server.put("k", "kept").await;
    let id = server.create_upload("up").await;
    let part = server.put_part("up", &id, 1, "part").await;
    server.stop().await;

    let bucket = dir.path().join("buckets").join(BUCKET);
    let data = bucket.join("data");
    // A body that no record came to name.
    fs::write(data.join(format!("{:032x}", 0xaa)), vec![0; MIB]).unwrap();
    // A record, and a bucket, that were not yet moved into place.
    fs::write(dir.path().join("tmp").join("1"), "{\"key\":").unwrap();
    fs::create_dir(dir.path().join("tmp").join("2")).unwrap();
    // An upload whose end began.
    fs::create_dir(bucket.join("uploads").join("00")).unwrap();
    fs::write(bucket.join("uploads").join("00").join("00001.json"), "{}").unwrap();
    // A part's record that lost its bytes with the power.
    fs::write(bucket.join("uploads").join(&id).join("00002.json"), "").unwrap();
    let before = files(dir.path()).len();

    let server = Server::start(dir.path()).await;
    assert_eq!(server.get("k").await, b"kept");
    assert_eq!(files(dir.path()).len(), before - 4);
    assert!(!bucket.join("uploads").join("00").exists());
    server.complete("up", &id, &[part]).send().await.unwrap();
    server.stop().await;
}

#[tokio::test]
async fn a_kill_between_the_commit_and_the_end_of_an_upload() {
    let (server, dir) = Server::with_bucket().await;
    let id = server.create_upload("k").await;
    let part = server.put_part("k", &id, 1, "body").await;
    let uploads = dir.path().join("buckets").join(BUCKET).join("uploads").join(&id);
    let records: Vec<(PathBuf, Vec<u8>)> =
        files(&uploads).into_iter().map(|path| (path.clone(), fs::read(path).unwrap())).collect();
    let etag = server.complete("k", &id, std::slice::from_ref(&part)).send().await.unwrap().e_tag;
    server.stop().await;
    fs::create_dir(&uploads).unwrap();
    for (path, bytes) in records {
        fs::write(path, bytes).unwrap();
    }

    let server = Server::start(dir.path()).await;
    assert!(!uploads.exists());
    assert_eq!(server.get("k").await, b"body");
    assert_eq!(server.complete("k", &id, &[part]).send().await.unwrap().e_tag, etag);
    let listed = server.client.list_multipart_uploads().bucket(BUCKET).send().await.unwrap();
    assert!(listed.uploads().is_empty());
    server.stop().await;
}

#[tokio::test]
async fn one_process_at_a_time() {
    let (server, dir) = Server::with_bucket().await;
    // Served for sure: the bucket was made.
    let error = LocalStore::open(dir.path(), "r").unwrap_err();
    assert!(matches!(error, Error::Locked { .. }), "{error:?}");
    assert!(error.to_string().contains("in use by another process"), "{error}");
    server.stop().await;
    drop(LocalStore::open(dir.path(), "r").unwrap());
}

#[tokio::test]
async fn what_cannot_be_opened_says_why() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("layout.json"), "{\"layout\":99}").unwrap();
    let error = LocalStore::open(dir.path(), "r").unwrap_err();
    assert!(error.to_string().ends_with("has layout 99, expected 1"), "{error}");

    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    assert!(matches!(LocalStore::open(&file, "r").unwrap_err(), Error::Io { .. }));

    let (server, dir) = Server::with_bucket().await;
    server.put("k", "x").await;
    server.stop().await;
    let record = files(&dir.path().join("buckets").join(BUCKET).join("objects")).remove(0);
    fs::write(&record, "torn").unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let error = serve(listener, config(dir.path()), CancellationToken::new()).await.unwrap_err();
    assert!(matches!(&error, Error::Record { path, .. } if *path == record), "{error:?}");
}

#[tokio::test]
async fn a_lost_data_file_is_an_error_not_an_empty_body() {
    let (server, dir) = Server::with_bucket().await;
    server.put("k", noise(MIB, 1)).await;
    let data = files(&dir.path().join("buckets").join(BUCKET).join("data")).remove(0);
    fs::File::options().write(true).open(&data).unwrap().set_len(600_000).unwrap();
    let broken = server.client.get_object().bucket(BUCKET).key("k").send().await.unwrap();
    assert!(broken.body.collect().await.is_err());
    fs::remove_file(data).unwrap();
    assert_refused(server.client.get_object().bucket(BUCKET).key("k").send().await, 500, "InternalError");
    server.stop().await;
}

#[tokio::test]
async fn a_stop_lets_a_request_in_flight_end() {
    let (server, dir) = Server::with_bucket().await;
    let (sender, receiver) = tokio::sync::mpsc::channel::<Vec<u8>>(1);
    let put = slow_put(&server, receiver);
    sender.send(noise(MIB, 1)).await.unwrap();
    assert_data_files(dir.path(), 1).await;
    let stopping = tokio::spawn(server.stop());
    tokio::time::sleep(Duration::from_millis(100)).await;
    sender.send(noise(MIB, 2)).await.unwrap();
    drop(sender);
    assert_eq!(put.await.unwrap(), 200);
    stopping.await.unwrap();
    let server = Server::start(dir.path()).await;
    assert!(server.get("k").await == [noise(MIB, 1), noise(MIB, 2)].concat());
    server.stop().await;
}

/// A PUT of two MiB that sends what it is given when it is given; its status.
fn slow_put(
    server: &Server,
    mut bodies: tokio::sync::mpsc::Receiver<Vec<u8>>,
) -> tokio::task::JoinHandle<u16> {
    let (addr, client) = (server.addr, crate::harness::plain_client(server.addr));
    tokio::spawn(async move {
        let presigning =
            aws_sdk_s3::presigning::PresigningConfig::expires_in(Duration::from_secs(60)).unwrap();
        let put = client.put_object().bucket(BUCKET).key("k").presigned(presigning).await.unwrap();
        let target = put.uri().split_once(&addr.to_string()).unwrap().1.to_owned();
        let mut stream = tokio::net::TcpStream::connect(addr).await.unwrap();
        let head = format!("PUT {target} HTTP/1.1\r\nhost: {addr}\r\ncontent-length: {}\r\n\r\n", 2 * MIB);
        stream.write_all(head.as_bytes()).await.unwrap();
        while let Some(body) = bodies.recv().await {
            stream.write_all(&body).await.unwrap();
        }
        let mut answer = [0; 12];
        tokio::io::AsyncReadExt::read_exact(&mut stream, &mut answer).await.unwrap();
        String::from_utf8_lossy(&answer[9..]).parse().unwrap()
    })
}

#[tokio::test]
async fn the_object_of_a_wrong_body_does_not_replace() {
    let (server, dir) = Server::with_bucket().await;
    server.put("k", "old").await;
    let put = server
        .client
        .put_object()
        .bucket(BUCKET)
        .key("k")
        .body(ByteStream::from_static(b"new"))
        .checksum_crc32("AAAAAA==");
    assert_refused(put.send().await, 400, "BadDigest");
    assert_eq!(server.get("k").await, b"old");
    assert_data_files(dir.path(), 1).await;
    server.stop().await;
}

/// A store that was dropped gives its folder back when its reaper is done.
async fn until_free(dir: &Path) {
    let lock = fs::File::open(dir.join("lock")).unwrap();
    for _ in 0..3000 {
        if lock.try_lock().is_ok() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the folder is still locked after two seconds");
}

impl Server {
    /// After a kill inside this process, jobs on the blocking pool may hold the lock for a moment more.
    async fn start_when_free(dir: &Path) -> Self {
        until_free(dir).await;
        Self::start(dir).await
    }
}
