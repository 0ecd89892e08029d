//! A folder behind URLs: files by ranges over HTTP/1.1, plain or with TLS, as an object store serves them to whoever has a pre-signed URL.
//!
//! RFC 9110, sections 13.1.1 (`If-Match`) and 14 (ranges). It runs as a process of its own, this program again, with a thread for
//! each connection, so that a reader's processor time is the reader's alone. Each answer may come late by a fixed time, which
//! is what a distant store looks like. What it has sent is counted: a reader may say what it likes about what it read.
//!
//! Queries are not looked at.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek as _, SeekFrom, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde::{Deserialize, Serialize};

use crate::garage::process::Process;
use crate::null_store::wire::{Head, read_head};
use crate::rest::Client;

/// The first argument of the process that serves.
pub(crate) const SERVE: &str = "origin";

/// Where it tells what it counted, and forgets that; no file has such a name.
const COUNTS: &str = "/-/counts";

/// What was sent since the last reset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Fetched {
    /// Bytes of files.
    pub(crate) bytes: u64,
    /// Requests about files.
    pub(crate) requests: u64,
}

/// A folder that is being served.
#[derive(Debug)]
pub(crate) struct Origin {
    /// Where it is asked what it counted, and files too.
    address: SocketAddr,
    /// Where it serves the same over TLS.
    tls: Option<SocketAddr>,
    /// Ends with us.
    _process: Process,
}

impl Origin {
    /// Serves a folder on a free port of loopback, each answer late by `delay`.
    pub(crate) fn start(folder: &Path, delay: Duration) -> Result<Self> {
        Self::listen(folder, delay, &[])
    }

    /// The same with URLs of `https`, for a certificate (PEM) of loopback and its key.
    pub(crate) fn start_tls(folder: &Path, certificate: &Path, key: &Path) -> Result<Self> {
        Self::listen(folder, Duration::ZERO, &[certificate, key])
    }

    fn listen(folder: &Path, delay: Duration, identity: &[&Path]) -> Result<Self> {
        // Not the path of this program: what lies there may have been built anew meanwhile.
        let mut command = Command::new("/proc/self/exe");
        command.arg(SERVE).arg(folder).arg(delay.as_millis().to_string()).args(identity);
        let mut process = Process::start(command.stdout(Stdio::piped()))?;
        let line = process.first_line().context("the origin ended before it listened")?;
        let mut addresses = line.split_whitespace().map(str::parse);
        let mut next = || addresses.next().transpose().with_context(|| format!("the origin said {line:?}"));
        let address = next()?.with_context(|| format!("the origin said {line:?}"))?;
        Ok(Self { address, tls: next()?, _process: process })
    }

    /// Host and port.
    pub(crate) fn host(&self) -> String {
        self.address.to_string()
    }

    /// Where a file is, by its path in the folder.
    pub(crate) fn url(&self, file: &str) -> String {
        match self.tls {
            Some(address) => format!("https://{address}/{file}"),
            None => format!("http://{}/{file}", self.address),
        }
    }

    /// What was sent so far.
    pub(crate) fn fetched(&self) -> Result<Fetched> {
        let answer = Client::new(self.address).get(COUNTS)?;
        Ok(serde_json::from_value(answer.body)?)
    }

    /// Counts from nothing.
    pub(crate) fn reset(&self) -> Result<()> {
        let answer = Client::new(self.address).post(COUNTS, &serde_json::Value::Null)?;
        ensure!(answer.status == 200, "the origin answered {}", answer.status);
        Ok(())
    }
}

/// What the process does that serves: says where it listens, and answers until it is ended.
pub(crate) fn serve() -> ExitCode {
    let served = || -> Result<()> {
        let mut words = std::env::args_os().skip(2);
        let (Some(folder), Some(delay)) = (words.next(), words.next()) else {
            anyhow::bail!("expected a folder and milliseconds")
        };
        let delay = Duration::from_millis(delay.to_string_lossy().parse()?);
        let shared = Arc::new(Shared::new(folder.into(), delay));
        let plain = TcpListener::bind(("127.0.0.1", 0))?;
        let mut said = plain.local_addr()?.to_string();
        if let (Some(certificate), Some(key)) = (words.next(), words.next()) {
            let config = identity(certificate.as_ref(), key.as_ref())?;
            let listener = TcpListener::bind(("127.0.0.1", 0))?;
            said += &format!(" {}", listener.local_addr()?);
            let shared = Arc::clone(&shared);
            let accept = move |stream: TcpStream| -> Result<()> {
                stream.set_nodelay(true)?;
                let connection = ServerConnection::new(Arc::clone(&config))?;
                Ok(shared.converse(StreamOwned::new(connection, stream))?)
            };
            std::thread::spawn(move || each(&listener, accept));
        }
        println!("{said}");
        each(&plain, move |stream| {
            stream.set_nodelay(true)?;
            Ok(shared.converse(stream)?)
        })
    };
    match served() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: the origin: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// A thread for each connection. A client that hangs up ends its own.
fn each(
    listener: &TcpListener,
    converse: impl Fn(TcpStream) -> Result<()> + Send + Sync + 'static,
) -> Result<()> {
    let converse = Arc::new(converse);
    for stream in listener.incoming() {
        let (stream, converse) = (stream?, Arc::clone(&converse));
        std::thread::spawn(move || converse(stream));
    }
    Ok(())
}

fn identity(certificate: &Path, key: &Path) -> Result<Arc<ServerConfig>> {
    let chain = CertificateDer::pem_file_iter(certificate).and_then(Iterator::collect);
    let chain: Vec<_> = chain.with_context(|| certificate.display().to_string())?;
    let key = PrivateKeyDer::from_pem_file(key).with_context(|| key.display().to_string())?;
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    Ok(Arc::new(config))
}

/// What all connections share.
struct Shared {
    folder: PathBuf,
    delay: Duration,
    bytes: AtomicU64,
    requests: AtomicU64,
}

/// A range of a file that is asked for, or all of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wanted {
    All,
    /// First byte and the one behind the last.
    Range(u64, u64),
    /// No byte of the file.
    Beyond,
}

impl Shared {
    fn new(folder: PathBuf, delay: Duration) -> Self {
        Self { folder, delay, bytes: AtomicU64::new(0), requests: AtomicU64::new(0) }
    }

    /// Answers requests until the client hangs up.
    fn converse(&self, stream: impl Read + Write) -> io::Result<()> {
        let mut reader = BufReader::new(stream);
        while let Some(head) = read_head(&mut reader)? {
            let len = head.header("content-length").and_then(|len| len.parse().ok()).unwrap_or(0);
            io::copy(&mut (&mut reader).take(len), &mut io::sink())?;
            let stream = reader.get_mut();
            match (head.method.as_str(), head.target.as_str()) {
                ("GET", COUNTS) => self.tell(stream)?,
                ("POST", COUNTS) => {
                    self.bytes.store(0, Ordering::SeqCst);
                    self.requests.store(0, Ordering::SeqCst);
                    respond(stream, 200, &[], 4)?;
                    stream.write_all(b"null")?;
                }
                _ => {
                    self.requests.fetch_add(1, Ordering::SeqCst);
                    std::thread::sleep(self.delay);
                    self.answer(stream, &head)?;
                }
            }
            stream.flush()?;
            if head.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close")) {
                return Ok(());
            }
        }
        Ok(())
    }

    fn tell(&self, stream: &mut impl Write) -> io::Result<()> {
        let load = |count: &AtomicU64| count.load(Ordering::SeqCst);
        let fetched = Fetched { bytes: load(&self.bytes), requests: load(&self.requests) };
        let text = serde_json::to_string(&fetched)?;
        respond(stream, 200, &[], text.len() as u64)?;
        stream.write_all(text.as_bytes())
    }

    fn answer(&self, stream: &mut impl Write, head: &Head) -> io::Result<()> {
        let path = head.target.split('?').next().unwrap_or_default().trim_start_matches('/');
        let is_inside = Path::new(path).components().all(|part| matches!(part, Component::Normal(_)));
        let path = self.folder.join(path);
        let is_served = is_inside && path.is_file() && matches!(head.method.as_str(), "GET" | "HEAD");
        let Some(mut file) = is_served.then(|| File::open(path).ok()).flatten() else {
            return respond(stream, 404, &[], 0);
        };
        let metadata = file.metadata()?;
        let len = metadata.len();
        let etag = format!("\"{:x}-{:x}-{:x}\"", metadata.ino(), len, metadata.mtime());
        if head.header("if-match").is_some_and(|wanted| wanted != etag && wanted != "*") {
            return respond(stream, 412, &[], 0);
        }
        let common = [("accept-ranges", "bytes".to_owned()), ("etag", etag)];
        let (first, end) = match wanted(head.header("range"), len) {
            Wanted::Beyond => return respond(stream, 416, &[("content-range", format!("bytes */{len}"))], 0),
            Wanted::All => {
                respond(stream, 200, &common, len)?;
                (0, len)
            }
            Wanted::Range(first, end) => {
                let range = ("content-range", format!("bytes {first}-{}/{len}", end - 1));
                respond(stream, 206, &[&common[..], &[range]].concat(), end - first)?;
                (first, end)
            }
        };
        if head.method == "HEAD" {
            return Ok(());
        }
        file.seek(SeekFrom::Start(first))?;
        let mut left = end - first;
        while left > 0 {
            // Before they are sent: who has read them finds them counted. Of an answer that nobody reads to its end this many are
            // too many at most.
            let piece = left.min(CHUNK);
            self.bytes.fetch_add(piece, Ordering::SeqCst);
            if io::copy(&mut (&file).take(piece), stream)? < piece {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            left -= piece;
        }
        Ok(())
    }
}

/// Bytes that are counted at once.
const CHUNK: u64 = 64 << 10;

fn respond(
    stream: &mut impl Write,
    status: u16,
    headers: &[(&'static str, String)],
    len: u64,
) -> io::Result<()> {
    let mut text = format!("HTTP/1.1 {status} -\r\ncontent-length: {len}\r\n");
    for (name, value) in headers {
        text += &format!("{name}: {value}\r\n");
    }
    text += "\r\n";
    stream.write_all(text.as_bytes())
}

/// Of a header `Range`. What has several ranges, or counts from the end, is not understood, which RFC 9110 allows: all is sent.
fn wanted(range: Option<&str>, len: u64) -> Wanted {
    let Some((first, last)) =
        range.and_then(|range| range.strip_prefix("bytes=")).and_then(|range| range.split_once('-'))
    else {
        return Wanted::All;
    };
    let (Ok(first), Ok(last)) = (first.parse::<u64>(), last.parse::<u64>().or(Ok::<_, ()>(u64::MAX))) else {
        return Wanted::All;
    };
    if first >= len || last < first {
        return Wanted::Beyond;
    }
    Wanted::Range(first, last.saturating_add(1).min(len))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_those_of_the_file() {
        assert_eq!(wanted(None, 10), Wanted::All);
        assert_eq!(wanted(Some("bytes=0-0"), 10), Wanted::Range(0, 1));
        assert_eq!(wanted(Some("bytes=4-"), 10), Wanted::Range(4, 10));
        assert_eq!(wanted(Some("bytes=4-99"), 10), Wanted::Range(4, 10));
        assert_eq!(wanted(Some("bytes=10-11"), 10), Wanted::Beyond);
        assert_eq!(wanted(Some("bytes=-5"), 10), Wanted::All);
    }

    #[test]
    fn files_by_ranges_of_one_version_and_what_was_sent() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("disk"), b"0123456789").unwrap();
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Shared::new(folder.path().to_owned(), Duration::ZERO);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let _ = shared.converse(stream.unwrap());
            }
        });
        let ask = |request: &str| {
            let mut stream = TcpStream::connect(address).unwrap();
            write!(stream, "{request}\r\nConnection: close\r\n\r\n").unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            answer
        };
        let part = ask("GET /disk?X-Amz-Signature=x HTTP/1.1\r\nRange: bytes=2-4");
        assert!(part.starts_with("HTTP/1.1 206") && part.ends_with("\r\n\r\n234"), "{part}");
        assert!(part.contains("content-range: bytes 2-4/10\r\n"), "{part}");
        let head = ask("HEAD /disk HTTP/1.1");
        assert!(head.contains("content-length: 10\r\n") && head.ends_with("\r\n\r\n"), "{head}");
        assert!(ask("GET /disk HTTP/1.1\r\nIf-Match: \"other\"").starts_with("HTTP/1.1 412"));
        for outside in ["/../disk", "//etc/passwd", "/other", "/"] {
            assert!(ask(&format!("GET {outside} HTTP/1.1")).starts_with("HTTP/1.1 404"), "{outside}");
        }
        assert!(ask("GET /-/counts HTTP/1.1").ends_with(r#"{"bytes":3,"requests":7}"#));
    }
}
