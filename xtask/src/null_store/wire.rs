//! HTTP/1.1 as far as uploaders speak it: bodies with a length, one request after the other on a connection.

use std::io::{self, BufRead, BufReader, Read as _, Write as _};
use std::net::TcpStream;

use super::COUNTS;
use super::objects::{Answer, Body, Objects, Source, Target};

/// Bytes of a body that are read at a time: what stays in a core's cache until its CRC32 is taken.
const CHUNK: usize = 256 << 10;

/// A longer head is not sent by any client that is measured.
const MAX_HEAD: u64 = 64 << 10;

/// The head of a request.
pub(crate) struct Head {
    pub(crate) method: String,
    pub(crate) target: String,
    headers: Vec<(String, String)>,
}

impl Head {
    /// The value of a header, by its name in lower case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    fn number(&self, name: &str) -> Option<u64> {
        self.header(name)?.parse().ok()
    }
}

/// Answers requests until the client hangs up.
pub(super) fn converse(stream: &TcpStream, objects: &Objects) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::with_capacity(CHUNK, stream);
    let mut chunk = vec![0; CHUNK];
    while let Some(head) = read_head(&mut reader)? {
        if head.header("transfer-encoding").is_some() {
            // Nobody who is measured does; a length is what S3 wants too.
            return respond(stream, &head.method, &Answer::error(411, "MissingContentLength"));
        }
        if head.header("expect").is_some() {
            (&*stream).write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        let range = head.header("x-amz-copy-source-range");
        let copy = head.header("x-amz-copy-source").map(|source| Source::parse(source, range));
        let target = Target::parse(&head.method, &head.target, copy);
        let arriving = objects.arriving(&target);
        let body = read_body(&mut reader, &head, &mut chunk)?;
        drop(arriving);
        let answer = match (&*head.method, &*head.target) {
            ("GET", COUNTS) => Answer::json(&objects.counts()),
            ("POST", COUNTS) => {
                objects.reset();
                Answer::empty(200)
            }
            _ => objects.answer(&target, body),
        };
        respond(stream, &head.method, &answer)?;
        if head.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close")) {
            return Ok(());
        }
    }
    Ok(())
}

/// The next request, unless the client has hung up.
pub(crate) fn read_head(reader: &mut impl BufRead) -> io::Result<Option<Head>> {
    let mut lines = reader.take(MAX_HEAD);
    let mut line = || {
        let mut line = String::new();
        lines.read_line(&mut line).map(|_| line)
    };
    let first = line()?;
    let mut words = first.split(' ').map(str::to_owned);
    let (Some(method), Some(target)) = (words.next(), words.next()) else { return Ok(None) };
    let mut headers = Vec::new();
    loop {
        let line = line()?;
        match line.trim_end().split_once(':') {
            Some((name, value)) => headers.push((name.to_ascii_lowercase(), value.trim().to_owned())),
            None if line == "\r\n" => return Ok(Some(Head { method, target, headers })),
            None => return Err(io::ErrorKind::InvalidData.into()),
        }
    }
}

fn read_body(reader: &mut BufReader<&TcpStream>, head: &Head, chunk: &mut [u8]) -> io::Result<Body> {
    let sent = head.number("content-length").unwrap_or(0);
    let decoded = head.number("x-amz-decoded-content-length");
    let mut crc32 = crc32fast::Hasher::new();
    let mut is_zero = decoded.is_none();
    let mut left = sent;
    while left > 0 {
        let most = usize::try_from(left).unwrap_or(usize::MAX).min(chunk.len());
        let piece = chunk.get_mut(..most).unwrap_or_default();
        let len = reader.read(piece)?;
        if len == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if decoded.is_none() {
            let piece = piece.get(..len).unwrap_or_default();
            crc32.update(piece);
            // Over with the first byte that is not.
            is_zero = is_zero && piece.iter().all(|byte| *byte == 0);
        }
        left -= len as u64;
    }
    let crc32 = decoded.is_none().then(|| crc32.finalize());
    Ok(Body { sent, len: decoded.unwrap_or(sent), crc32, is_zero })
}

fn respond(mut stream: &TcpStream, method: &str, answer: &Answer) -> io::Result<()> {
    // What an object's length says in the answer to a HEAD is not that of a body.
    let len = answer.object_len.unwrap_or(answer.body.len() as u64);
    let mut text = format!("HTTP/1.1 {} -\r\ncontent-length: {len}\r\n", answer.status);
    for (name, value) in &answer.headers {
        text += &format!("{name}: {value}\r\n");
    }
    text += "\r\n";
    if method != "HEAD" {
        text += &answer.body;
    }
    stream.write_all(text.as_bytes())
}
