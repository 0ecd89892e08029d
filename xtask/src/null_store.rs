//! A store that keeps nothing: it answers what an upload asks, reads the bodies, and counts.
//!
//! As much of the S3 API as uploaders use, over plain HTTP/1.1 with a thread for each connection. Signatures are not looked at. Of a
//! body the length, the CRC32 and whether it is zero throughout are kept, which is what it takes to list the parts, to copy
//! parts from an object of zeroes, to make an object of them and to prove it; the bytes are gone. It runs as a process of its own, this program again, so that a client's processor time is the client's alone.
//!
//! Cost: reading a body and its CRC32, some 10 GB/s a core on loopback.

mod objects;
pub(crate) mod wire;

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::garage::process::Process;
use crate::rest::Client;
use objects::Objects;

/// The first argument of the process that serves.
pub(crate) const SERVE: &str = "null-store";

/// Where the store tells what it counted, and forgets everything; no bucket has such a name.
const COUNTS: &str = "/-/counts";

/// What came in since the last reset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Counts {
    /// Bytes of bodies of parts and objects, as they were on the wire.
    pub(crate) sent: u64,
    /// Parts that came whole, repeated ones too.
    pub(crate) parts: u64,
    /// Parts that were made of an object that was there, repeated ones too.
    pub(crate) copied: u64,
    /// Parts that came, or were copied, again.
    pub(crate) repeated: u64,
    /// Parts that were coming at the same time, at most.
    pub(crate) in_flight: u64,
    /// Requests of all kinds.
    pub(crate) requests: u64,
    /// Objects that are there.
    pub(crate) objects: u64,
    /// Uploads that are open.
    pub(crate) uploads: u64,
    /// Length of the object that was made last, bytes.
    pub(crate) len: u64,
    /// Its CRC32, where its parts came as they are, not in the framing of aws-chunked.
    pub(crate) crc32: Option<u32>,
}

/// A store that is running.
#[derive(Debug)]
pub(crate) struct NullStore {
    address: SocketAddr,
    state: PathBuf,
    /// Ends with us.
    _process: Process,
}

impl NullStore {
    /// Starts one on a free port of loopback. What clients remember of it goes beneath `state`.
    pub(crate) fn start(state: &Path) -> Result<Self> {
        // Not the path of this program: what lies there may have been built anew meanwhile.
        let mut command = Command::new("/proc/self/exe");
        let mut process = Process::start(command.arg(SERVE).stdout(Stdio::piped()))?;
        let line = process.first_line().context("the null store ended before it listened")?;
        let address = line.trim().parse().with_context(|| format!("the null store said {line:?}"))?;
        Ok(Self { address, state: state.to_owned(), _process: process })
    }

    /// Where it listens, as a URL.
    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What a client of it finds in its environment. Nobody's keys are wanted, and any will do.
    pub(crate) fn environment(&self, command: &mut Command) {
        let nowhere = self.state.join("nowhere");
        for (name, value) in [
            ("AWS_ACCESS_KEY_ID", "anybody"),
            ("AWS_SECRET_ACCESS_KEY", "anything"),
            ("AWS_REGION", "us-east-1"),
            ("AWS_EC2_METADATA_DISABLED", "true"),
        ] {
            command.env(name, value);
        }
        for name in ["AWS_ENDPOINT_URL", "S3_ENDPOINT_URL"] {
            command.env(name, self.endpoint());
        }
        for name in ["AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"] {
            command.env(name, &nowhere);
        }
        for name in ["AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL_S3"] {
            command.env_remove(name);
        }
        command.env("XDG_STATE_HOME", &self.state).env("XDG_CACHE_HOME", &self.state);
    }

    /// What came in so far.
    pub(crate) fn counts(&self) -> Result<Counts> {
        let counts = Client::new(self.address).get(COUNTS)?.right()?;
        serde_json::from_value(counts).context("the null store's counts")
    }

    /// Forgets everything.
    pub(crate) fn reset(&self) -> Result<()> {
        Client::new(self.address).post(COUNTS, &Value::Null)?.right().map(drop)
    }
}

/// What the process does that serves: says where it listens, and answers until it is ended.
pub(crate) fn serve() -> ExitCode {
    let served = || -> std::io::Result<()> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        println!("{}", listener.local_addr()?);
        let objects = Arc::new(Objects::default());
        for stream in listener.incoming() {
            let (stream, objects) = (stream?, Arc::clone(&objects));
            // A client that hangs up ends its thread.
            std::thread::spawn(move || wire::converse(&stream, &objects));
        }
        Ok(())
    };
    match served() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: the null store: {error}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader, Read as _, Write as _};
    use std::net::TcpStream;
    use std::time::Duration;

    use super::*;

    /// For an answer.
    const PATIENCE: Duration = Duration::from_secs(10);

    /// One connection to a store in this process.
    struct Connection {
        stream: BufReader<TcpStream>,
    }

    impl Connection {
        fn new() -> Self {
            let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
            let address = listener.local_addr().unwrap();
            std::thread::spawn(move || wire::converse(&listener.accept().unwrap().0, &Objects::default()));
            let stream = TcpStream::connect(address).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            Self { stream: BufReader::new(stream) }
        }

        /// Status, head and body of an answer.
        fn ask(&mut self, request: &str, headers: &str, body: &[u8]) -> (u16, String, String) {
            let len = body.len();
            let head = format!("{request} HTTP/1.1\r\nHost: h\r\nContent-Length: {len}\r\n{headers}\r\n");
            self.stream.get_mut().write_all(head.as_bytes()).unwrap();
            self.stream.get_mut().write_all(body).unwrap();
            let mut head = String::new();
            while !head.ends_with("\r\n\r\n") {
                assert!(self.stream.read_line(&mut head).unwrap() > 0, "{head}");
            }
            let len = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
            let len = if request.starts_with("HEAD ") { 0 } else { len.parse().unwrap() };
            let mut answer = vec![0; len];
            self.stream.read_exact(&mut answer).unwrap();
            (head[9..12].parse().unwrap(), head, String::from_utf8(answer).unwrap())
        }

        fn counts(&mut self) -> Counts {
            serde_json::from_str(&self.ask("GET /-/counts", "", b"").2).unwrap()
        }
    }

    #[test]
    fn parts_become_an_object_that_can_be_proved() {
        let mut client = Connection::new();
        assert_eq!(client.ask("HEAD /bucket", "", b"").0, 200);
        assert_eq!(client.ask("HEAD /bucket/a/key", "", b"").0, 404);
        let (_, _, created) = client.ask("POST /bucket/a/key?uploads", "", b"");
        let id = created.split_once("<UploadId>").unwrap().1.split_once('<').unwrap().0.to_owned();
        let part = |number: u32| format!("PUT /bucket/a/key?partNumber={number}&uploadId={id}");
        // In any order, one of them twice, and one in a framing that hides its bytes from a CRC32.
        for (number, body) in [(2, &b"second"[..]), (1, b"wrong"), (1, b"first ")] {
            let (status, head, _) = client.ask(&part(number), "", body);
            assert_eq!(status, 200);
            assert!(head.contains("x-amz-checksum-crc32: ") && head.contains("etag: \""), "{head}");
        }
        let (_, _, listed) = client.ask(&format!("GET /bucket/a/key?uploadId={id}"), "", b"");
        assert!(
            listed.contains("<PartNumber>1</PartNumber>") && listed.contains("<Size>6</Size>"),
            "{listed}"
        );
        assert_eq!(listed.matches("<Part>").count(), 2);
        let (status, _, made) = client.ask(&format!("POST /bucket/a/key?uploadId={id}"), "", b"<parts/>");
        assert!(status == 200 && made.contains("<ETag>"), "{made}");
        assert_eq!(client.ask(&format!("POST /bucket/a/key?uploadId={id}"), "", b"").0, 404);
        let (status, head, _) = client.ask("HEAD /bucket/a/key", "", b"");
        assert!(status == 200 && head.contains("content-length: 12\r\n"), "{head}");
        assert!(head.contains("x-amz-checksum-type: FULL_OBJECT"), "{head}");

        let crc32 = Some(crc32fast::hash(b"first second"));
        let counts = client.counts();
        assert_eq!((counts.sent, counts.parts, counts.repeated, counts.in_flight), (17, 3, 1, 1));
        assert_eq!((counts.objects, counts.len, counts.crc32), (1, 12, crc32));
        client.ask("POST /-/counts", "", b"");
        assert_eq!(client.counts(), Counts { requests: 1, ..Counts::default() });
        assert_eq!(client.ask("HEAD /bucket/a/key", "", b"").0, 404);
    }

    #[test]
    fn one_request_may_be_an_object_and_what_is_framed_has_no_checksum() {
        let mut client = Connection::new();
        client.ask("PUT /bucket/k", "", b"abc");
        assert_eq!(client.counts().crc32, Some(crc32fast::hash(b"abc")));
        client.ask("PUT /bucket/k", "X-Amz-Decoded-Content-Length: 3\r\n", b"3\r\nabc\r\n0\r\n\r\n");
        let counts = client.counts();
        // Another in the place of the first.
        assert_eq!((counts.objects, counts.len, counts.crc32, counts.sent), (1, 3, None, 3 + 13));
        client.ask("DELETE /bucket/k", "", b"");
        assert_eq!(client.counts().objects, 0);
    }

    #[test]
    fn parts_are_copied_from_what_is_known() {
        let mut client = Connection::new();
        client.ask("PUT /bucket/some/zeroes", "", &[0; 100]);
        client.ask("PUT /bucket/k", "", b"bytes");
        let (_, _, created) = client.ask("POST /bucket/object?uploads", "", b"");
        let id = created.split_once("<UploadId>").unwrap().1.split_once('<').unwrap().0.to_owned();
        let part = |number: u32| format!("PUT /bucket/object?partNumber={number}&uploadId={id}");
        let from = |source: &str, range: &str| {
            format!("x-amz-copy-source: {source}\r\nx-amz-copy-source-range: bytes={range}\r\n")
        };
        for (number, source, range, status) in [
            (1, "bucket/k", "0-4", 200),
            (2, "/bucket/some%2Fzeroes", "0-99", 200),
            (3, "bucket/some/zeroes", "10-19", 200),
            (4, "bucket/some/zeroes", "10-100", 400),
            (4, "bucket/nothing", "0-4", 404),
            (4, "bucket/k", "1-4", 501),
            (4, "bucket/k", "all", 501),
        ] {
            let (found, _, answer) = client.ask(&part(number), &from(source, range), b"");
            assert_eq!(found, status, "{source} {range}: {answer}");
            assert_eq!(
                answer.contains("<CopyPartResult") && answer.contains("<ChecksumCRC32>"),
                found == 200
            );
        }
        assert_eq!(client.ask(&part(5), "x-amz-copy-source: bucket/k\r\n", b"").0, 200);
        client.ask(&format!("POST /bucket/object?uploadId={id}"), "", b"");
        let whole = [b"bytes", &[0; 110][..], b"bytes"].concat();
        let counts = client.counts();
        assert_eq!((counts.len, counts.crc32), (120, Some(crc32fast::hash(&whole))));
        assert_eq!((counts.sent, counts.parts, counts.copied), (105, 0, 4));
        assert_eq!((counts.objects, counts.uploads), (3, 0));
    }

    #[test]
    fn what_is_not_known_is_refused() {
        let mut client = Connection::new();
        assert_eq!(client.ask("GET /bucket/k", "", b"").0, 501);
        assert_eq!(client.ask("PUT /bucket/k?partNumber=1&uploadId=u", "", b"x").0, 404);
        // Of a whole object, and of none.
        assert_eq!(client.ask("PUT /bucket/k", "x-amz-copy-source: bucket/a\r\n", b"").0, 501);
        let part = "PUT /bucket/k?partNumber=1&uploadId=u";
        assert_eq!(client.ask(part, "x-amz-copy-source: a\r\n", b"").0, 501);
        assert_eq!(client.ask("DELETE /bucket/k", "", b"").0, 204);
    }
}
