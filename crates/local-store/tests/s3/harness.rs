//! A server, a client, and what the tests have in common.

use std::fmt::Debug;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use aws_sdk_s3::Client;
use aws_sdk_s3::config::{
    BehaviorVersion, Credentials, Region, RequestChecksumCalculation, retry::RetryConfig,
    timeout::TimeoutConfig,
};
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::operation::complete_multipart_upload::builders::CompleteMultipartUploadFluentBuilder;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart};
use local_store::{Config, Error, serve};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub(crate) const ACCESS: &str = "local-access";
pub(crate) const SECRET: &str = "local-secret-of-the-tests";
pub(crate) const REGION: &str = "local-1";
pub(crate) const BUCKET: &str = "bucket";
pub(crate) const MIB: usize = 1 << 20;

pub(crate) struct Server {
    pub(crate) addr: SocketAddr,
    pub(crate) client: Client,
    shutdown: CancellationToken,
    task: JoinHandle<Result<(), Error>>,
}

pub(crate) fn config(dir: &Path) -> Config {
    let credentials = local_store::Credentials { access_key: ACCESS.into(), secret_key: SECRET.into() };
    Config { dir: dir.to_owned(), region: REGION.into(), credentials }
}

impl Server {
    /// On a new folder with one bucket; the folder lives as long as what is returned.
    pub(crate) async fn with_bucket() -> (Self, tempfile::TempDir) {
        let dir = tempfile::tempdir().unwrap();
        let server = Self::start(dir.path()).await;
        server.client.create_bucket().bucket(BUCKET).send().await.unwrap();
        (server, dir)
    }

    pub(crate) async fn start(dir: &Path) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let task = tokio::spawn(serve(listener, config(dir), shutdown.clone()));
        let client = client(addr, SECRET, REGION);
        // Answered when the folder is open.
        client.list_buckets().send().await.unwrap();
        Self { addr, client, shutdown, task }
    }

    /// The way of a service manager.
    pub(crate) async fn stop(self) {
        self.shutdown.cancel();
        tokio::time::timeout(Duration::from_secs(20), self.task).await.unwrap().unwrap().unwrap();
    }

    /// As near to `kill -9` as a thread can come: nothing is finished, nothing is tidied.
    pub(crate) async fn kill(self) {
        self.task.abort();
        assert!(self.task.await.unwrap_err().is_cancelled());
    }

    pub(crate) async fn put(&self, key: &str, body: impl Into<Vec<u8>>) -> String {
        let body = ByteStream::from(body.into());
        self.client.put_object().bucket(BUCKET).key(key).body(body).send().await.unwrap().e_tag.unwrap()
    }

    pub(crate) async fn get(&self, key: &str) -> Vec<u8> {
        let output = self.client.get_object().bucket(BUCKET).key(key).send().await.unwrap();
        output.body.collect().await.unwrap().to_vec()
    }

    pub(crate) async fn create_upload(&self, key: &str) -> String {
        self.client.create_multipart_upload().bucket(BUCKET).key(key).send().await.unwrap().upload_id.unwrap()
    }

    /// Uploads a part with the SDK's own checksum and returns its line in a Complete.
    pub(crate) async fn put_part(
        &self,
        key: &str,
        id: &str,
        number: i32,
        body: impl Into<Vec<u8>>,
    ) -> CompletedPart {
        let body = ByteStream::from(body.into());
        let request =
            self.client.upload_part().bucket(BUCKET).key(key).upload_id(id).part_number(number).body(body);
        let output = request.send().await.unwrap();
        CompletedPart::builder()
            .part_number(number)
            .set_e_tag(output.e_tag)
            .set_checksum_crc32(output.checksum_crc32)
            .build()
    }

    pub(crate) fn complete(
        &self,
        key: &str,
        id: &str,
        parts: &[CompletedPart],
    ) -> CompleteMultipartUploadFluentBuilder {
        let list = CompletedMultipartUpload::builder().set_parts(Some(parts.to_vec())).build();
        self.client.complete_multipart_upload().bucket(BUCKET).key(key).upload_id(id).multipart_upload(list)
    }
}

/// A client that adds no checksum of its own unless an operation needs one, and never tries twice.
pub(crate) fn plain_client(addr: SocketAddr) -> Client {
    let config = client(addr, SECRET, REGION).config().to_builder();
    Client::from_conf(config.request_checksum_calculation(RequestChecksumCalculation::WhenRequired).build())
}

/// A client with the SDK's defaults, but for retries.
pub(crate) fn client(addr: SocketAddr, secret: &str, region: &str) -> Client {
    let config = aws_sdk_s3::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .credentials_provider(Credentials::new(ACCESS, secret, None, None, "test"))
        .region(Region::new(region.to_owned()))
        .endpoint_url(format!("http://{addr}"))
        .force_path_style(true)
        .retry_config(RetryConfig::disabled())
        .timeout_config(TimeoutConfig::builder().operation_timeout(Duration::from_secs(60)).build())
        .http_client(aws_smithy_http_client::Builder::new().build_http());
    Client::from_conf(config.build())
}

/// Status and code of a refused request; a HEAD has no body to say the code in.
pub(crate) fn refusal<T: Debug, E: ProvideErrorMetadata + Debug>(
    result: Result<T, SdkError<E>>,
) -> (u16, String) {
    let error = result.expect_err("the request should have been refused");
    let status = error.raw_response().unwrap_or_else(|| panic!("no response: {error:?}")).status().as_u16();
    (status, error.code().unwrap_or_default().to_owned())
}

#[track_caller]
pub(crate) fn assert_refused<T: Debug, E: ProvideErrorMetadata + Debug>(
    result: Result<T, SdkError<E>>,
    status: u16,
    code: &str,
) {
    assert_eq!(refusal(result), (status, code.to_owned()));
}

/// Bytes that are not alike anywhere.
pub(crate) fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// The regular files under a folder.
pub(crate) fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut left = vec![dir.to_owned()];
    while let Some(dir) = left.pop() {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { left.push(path) } else { found.push(path) }
        }
    }
    found
}

/// How many data files there are, once the reaper has done its work.
pub(crate) async fn assert_data_files(dir: &Path, expected: usize) {
    let count = || files(&dir.join("buckets").join(BUCKET).join("data")).len();
    for _ in 0..3000 {
        if count() == expected {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(count(), expected);
}

pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

/// One request as it is written here, on a connection of its own.
pub(crate) async fn raw(
    addr: SocketAddr,
    method: &str,
    uri: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Answer {
    let target = uri.strip_prefix(&format!("http://{addr}")).unwrap_or(uri);
    let mut request = format!("{method} {target} HTTP/1.1\r\nhost: {addr}\r\nconnection: close\r\n");
    for (name, value) in headers {
        request += &format!("{name}: {value}\r\n");
    }
    if !body.is_empty() {
        request += &format!("content-length: {}\r\n", body.len());
    }
    request += "\r\n";
    request += body;
    let exchange = async {
        let mut stream = TcpStream::connect(addr).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        String::from_utf8_lossy(&answer).into_owned()
    };
    let answer = tokio::time::timeout(Duration::from_secs(20), exchange).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { status, head: head.to_ascii_lowercase(), body: body.to_owned() }
}

/// Stands between a client and the server for one request whose body ends in trailers, and changes it on the
/// way.
pub(crate) async fn tamper(server: SocketAddr, from: &'static str, to: &'static str) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut client, _) = listener.accept().await.unwrap();
        let mut request = Vec::new();
        let ended = |request: &[u8]| {
            let text = String::from_utf8_lossy(request);
            text.contains("\r\nx-amz-checksum-crc32:") && text.ends_with("\r\n\r\n")
        };
        while !ended(&request) {
            assert_ne!(client.read_buf(&mut request).await.unwrap(), 0);
        }
        let text = String::from_utf8(request).unwrap();
        assert!(text.contains(from), "{text}");
        let mut stream = TcpStream::connect(server).await.unwrap();
        stream.write_all(text.replace(from, to).as_bytes()).await.unwrap();
        tokio::io::copy(&mut stream, &mut client).await.ok();
    });
    addr
}
