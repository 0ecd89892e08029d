//! A client for JSON over plain HTTP/1.1 on loopback: one connection, kept, one call after the other.
//!
//! Not the client of `image-api`, which waits and tries again where a server refuses: here a refusal is a result, and the time of a
//! call that of the call alone.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

/// For an answer; every server that is asked is on this machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A client of one server.
#[derive(Debug)]
pub(crate) struct Client {
    address: SocketAddr,
    stream: Option<BufReader<TcpStream>>,
}

/// What a server said.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Seconds to wait, where it says so.
    pub(crate) retry_after: Option<u64>,
    /// The version of what it gives, quotes included.
    pub(crate) etag: Option<String>,
    pub(crate) body: Value,
}

impl Answer {
    /// The body, if the call was right.
    pub(crate) fn right(self) -> Result<Value> {
        ensure!(self.status == 200, "the server answered {}: {}", self.status, self.body);
        Ok(self.body)
    }
}

impl Client {
    /// A client that has not called yet.
    pub(crate) fn new(address: SocketAddr) -> Self {
        Self { address, stream: None }
    }

    /// Asks for a resource.
    pub(crate) fn get(&mut self, target: &str) -> Result<Answer> {
        self.call(&format!("GET {target}"), "")
    }

    /// Sends a message.
    pub(crate) fn post(&mut self, target: &str, message: &Value) -> Result<Answer> {
        self.call(&format!("POST {target}"), &message.to_string())
    }

    /// Asks what a resource is, without its bytes.
    pub(crate) fn head(&mut self, target: &str) -> Result<Answer> {
        let what = format!("HEAD {target}");
        let mut stream = self.send(&what, "")?;
        // The length is that of what does not come.
        let head = read_head(&mut stream).with_context(|| what)?;
        self.stream = Some(stream);
        Ok(Answer { status: head.status, retry_after: head.retry_after, etag: head.etag, body: Value::Null })
    }

    /// The bytes of a resource, to `each` as they come; gives the status.
    pub(crate) fn read(&mut self, target: &str, mut each: impl FnMut(&[u8]) -> Result<()>) -> Result<u16> {
        let mut stream = self.send(&format!("GET {target}"), "")?;
        let head = read_head(&mut stream)?;
        let mut body = (&mut stream).take(head.len);
        let mut chunk = vec![0; 1 << 20];
        loop {
            let len = body.read(&mut chunk)?;
            if len == 0 {
                break;
            }
            each(chunk.get(..len).unwrap_or_default())?;
        }
        ensure!(body.limit() == 0, "{target}: the answer ended {} bytes too soon", body.limit());
        self.stream = Some(stream);
        Ok(head.status)
    }

    fn call(&mut self, what: &str, body: &str) -> Result<Answer> {
        let mut stream = self.send(what, body)?;
        let head = read_head(&mut stream).with_context(|| what.to_owned())?;
        let mut answer = vec![0; usize::try_from(head.len)?];
        stream.read_exact(&mut answer)?;
        // A connection that failed in between is not used again.
        self.stream = Some(stream);
        let body = if answer.is_empty() { Value::Null } else { serde_json::from_slice(&answer)? };
        Ok(Answer { status: head.status, retry_after: head.retry_after, etag: head.etag, body })
    }

    fn send(&mut self, what: &str, body: &str) -> Result<BufReader<TcpStream>> {
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => {
                let stream = TcpStream::connect(self.address).with_context(|| what.to_owned())?;
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(PATIENCE))?;
                BufReader::new(stream)
            }
        };
        let (host, len) = (self.address, body.len());
        // At once: a head on its own would wait for its acknowledgement.
        let request = format!("{what} HTTP/1.1\r\nhost: {host}\r\ncontent-length: {len}\r\n\r\n{body}");
        stream.get_mut().write_all(request.as_bytes())?;
        Ok(stream)
    }
}

struct Head {
    status: u16,
    len: u64,
    retry_after: Option<u64>,
    etag: Option<String>,
}

fn read_head(stream: &mut BufReader<TcpStream>) -> Result<Head> {
    let mut text = String::new();
    while !text.ends_with("\r\n\r\n") {
        ensure!(stream.read_line(&mut text)? > 0, "the server hung up");
    }
    let header = |name: &str| {
        let of = |line: &'_ str| -> Option<String> {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
        };
        text.lines().find_map(of)
    };
    let number = |name: &str| -> Option<u64> { header(name)?.parse().ok() };
    let status = text.split(' ').nth(1).and_then(|status| status.parse().ok()).context("no status")?;
    let len = number("content-length").context("an answer without a length")?;
    Ok(Head { status, len, retry_after: number("retry-after"), etag: header("etag") })
}
