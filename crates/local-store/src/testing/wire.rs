//! As much of HTTP/1.1 as the proxy needs: requests with `Content-Length`, one a connection, and answers taken as they are.

use std::io;
use std::net::SocketAddr;

use s3s::crypto::{Checksum as _, Md5};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Longer heads are not sent by the clients that are tested.
const MAX_HEAD: usize = 64 << 10;

/// What a request is about, as far as faults tell them apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Verb {
    CreateUpload,
    UploadPart,
    CopyPart,
    ListParts,
    Complete,
    Abort,
    Other,
}

/// A request.
pub(super) struct Message {
    head: String,
    body: Vec<u8>,
}

impl Message {
    /// Reads up to the end of the headers, and as much of the body as came along; `None` if the client only hung up.
    pub(super) async fn read_head(client: &mut TcpStream) -> io::Result<Option<Self>> {
        let mut bytes = Vec::new();
        loop {
            if let Some(end) = find(&bytes, b"\r\n\r\n") {
                let body = bytes.split_off(end + 4);
                let head = String::from_utf8(bytes).map_err(io::Error::other)?;
                return Ok(Some(Self { head, body }));
            }
            if bytes.len() > MAX_HEAD {
                return Err(io::Error::other("the head of a request is too long"));
            }
            if client.read_buf(&mut bytes).await? == 0 {
                return Ok(None);
            }
        }
    }

    /// Reads the body, or its first `some` bytes.
    pub(super) async fn read_body(&mut self, client: &mut TcpStream, some: Option<usize>) -> io::Result<()> {
        if self.header("expect").is_some() {
            client.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
        }
        let len = some.unwrap_or_else(|| self.content_length());
        self.body.reserve(len.saturating_sub(self.body.len()));
        while self.body.len() < len {
            if client.read_buf(&mut self.body).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(())
    }

    pub(super) fn content_length(&self) -> usize {
        self.header("content-length").and_then(|len| len.parse().ok()).unwrap_or_default()
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    fn query(&self) -> impl Iterator<Item = (&str, &str)> {
        let target = self.head.split(' ').nth(1).unwrap_or_default();
        let query = target.split_once('?').map_or("", |(_, query)| query);
        query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")))
    }

    /// The number of the part that it is about, empty where it is about none.
    pub(super) fn part(&self) -> &str {
        self.query().find(|(name, _)| *name == "partNumber").map_or("", |(_, value)| value)
    }

    pub(super) fn verb(&self) -> Verb {
        let has = |wanted| self.query().any(|(name, _)| name == wanted);
        let method = self.head.split(' ').next().unwrap_or_default();
        match method {
            "PUT" if has("partNumber") && self.header("x-amz-copy-source").is_some() => Verb::CopyPart,
            "PUT" if has("partNumber") => Verb::UploadPart,
            "POST" if has("uploadId") => Verb::Complete,
            "POST" if has("uploads") => Verb::CreateUpload,
            "GET" if has("uploadId") => Verb::ListParts,
            "DELETE" if has("uploadId") => Verb::Abort,
            _ => Verb::Other,
        }
    }

    /// Sends it to the store, over a connection of its own; gives the answer, byte by byte as it came.
    pub(super) async fn forward(&self, upstream: SocketAddr) -> io::Result<Vec<u8>> {
        let mut store = TcpStream::connect(upstream).await?;
        // Not covered by any signature, unlike the rest.
        let head = self.head.trim_end();
        store.write_all(format!("{head}\r\nconnection: close\r\n\r\n").as_bytes()).await?;
        store.write_all(&self.body).await?;
        let mut answer = Vec::new();
        store.read_to_end(&mut answer).await?;
        while answer.starts_with(b"HTTP/1.1 100") {
            let end = find(&answer, b"\r\n\r\n").map_or(answer.len(), |end| end + 4);
            answer.drain(..end);
        }
        Ok(answer)
    }
}

pub(super) async fn send(client: &mut TcpStream, answer: &[u8]) -> io::Result<()> {
    client.write_all(answer).await?;
    client.flush().await
}

/// Says that nothing follows, and waits for the client to have read it.
pub(super) async fn close(mut client: TcpStream) -> io::Result<()> {
    client.shutdown().await?;
    let mut rest = [0; 1024];
    while client.read(&mut rest).await? > 0 {}
    Ok(())
}

fn answer(status: &str, headers: &str, body: &str) -> Vec<u8> {
    let len = body.len();
    format!("HTTP/1.1 {status}\r\n{headers}content-length: {len}\r\nconnection: close\r\n\r\n{body}")
        .into_bytes()
}

pub(super) fn refusal(status: &str, code: &str, headers: &str) -> Vec<u8> {
    answer(status, headers, &format!("<Error><Code>{code}</Code><Message>a fault</Message></Error>"))
}

/// What a store would say of the part.
pub(super) fn as_if_stored(request: &Message) -> Vec<u8> {
    let mut headers = format!("etag: \"{}\"\r\n", hex::encode(Md5::checksum(&request.body)));
    if let Some(crc32) = request.header("x-amz-checksum-crc32") {
        headers += &format!("x-amz-checksum-crc32: {crc32}\r\n");
    }
    answer("200 OK", &headers, "")
}

pub(super) fn as_if_copied() -> Vec<u8> {
    let etag = hex::encode(Md5::checksum(b""));
    answer("200 OK", "", &format!("<CopyPartResult><ETag>\"{etag}\"</ETag></CopyPartResult>"))
}

/// Another digit in the ETag of an answer's head.
pub(super) fn change_etag(answer: &mut [u8]) {
    let end = find(answer, b"\r\n\r\n").unwrap_or(answer.len());
    let head: Vec<u8> = answer.iter().take(end).map(u8::to_ascii_lowercase).collect();
    let Some(etag) = find(&head, b"\r\netag: \"") else { return };
    if let Some(digit) = answer.get_mut(etag + b"\r\netag: \"".len()) {
        *digit = if *digit == b'0' { b'1' } else { b'0' };
    }
}

/// Takes the last `<Part>` out of a listing, and puts the length right.
pub(super) fn drop_last_part(answer: &mut Vec<u8>) {
    let text = String::from_utf8_lossy(answer);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return };
    let (Some(from), Some(to)) = (body.rfind("<Part>"), body.rfind("</Part>")) else { return };
    let body = [body.get(..from), body.get(to + "</Part>".len()..)].map(Option::unwrap_or_default).concat();
    let head: Vec<&str> =
        head.split("\r\n").filter(|line| !line.to_ascii_lowercase().starts_with("content-length:")).collect();
    let edited = format!("{}\r\ncontent-length: {}\r\n\r\n{body}", head.join("\r\n"), body.len());
    *answer = edited.into_bytes();
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_told_apart() {
        let verb = |line: &str, headers: &str| {
            Message { head: format!("{line} HTTP/1.1\r\nHost: h\r\n{headers}\r\n"), body: Vec::new() }.verb()
        };
        assert_eq!(verb("PUT /b/k?partNumber=3&uploadId=u", ""), Verb::UploadPart);
        assert_eq!(verb("PUT /b/k?partNumber=3&uploadId=u", "X-Amz-Copy-Source: b/z\r\n"), Verb::CopyPart);
        assert_eq!(verb("POST /b/k?uploads", ""), Verb::CreateUpload);
        assert_eq!(verb("POST /b/k?uploadId=u", ""), Verb::Complete);
        assert_eq!(verb("GET /b/k?uploadId=u&max-parts=2", ""), Verb::ListParts);
        assert_eq!(verb("DELETE /b/k?uploadId=u", ""), Verb::Abort);
        assert_eq!(verb("GET /b/k?partNumber=3", ""), Verb::Other);
    }

    #[test]
    fn answers_are_changed_where_they_should_be() {
        let mut changed = answer("200 OK", "ETag: \"abc\"\r\n", "\r\netag: \"abc\"");
        change_etag(&mut changed);
        assert_eq!(changed, answer("200 OK", "ETag: \"0bc\"\r\n", "\r\netag: \"abc\""));
        let mut listing = answer("200 OK", "", "<L><Part>1</Part><Part>2</Part></L>");
        drop_last_part(&mut listing);
        let text = String::from_utf8(listing).unwrap();
        assert!(
            text.ends_with("\r\n\r\n<L><Part>1</Part></L>") && text.contains("content-length: 21"),
            "{text}"
        );
    }
}
