//! An HTTP server that serves one object, or misbehaves as it is told to. Loopback, one thread a connection, until dropped.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

/// What the server does.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Behaviour {
    /// Serves ranges.
    Serves,
    /// Answers with this status.
    Status(u16),
    /// Serves this many requests, then another object under the same URL.
    ChangesAfter(u32),
    /// Serves this many requests, and takes this long for each of the others.
    WaitsAfter(u32, Duration),
}

/// A running server.
pub(crate) struct Server {
    url: String,
    stop: Arc<AtomicBool>,
    address: std::net::SocketAddr,
}

impl Server {
    pub(crate) fn start(object: Vec<u8>, behaviour: Behaviour) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, object, served) =
            (Arc::new(AtomicBool::new(false)), Arc::new(object), Arc::new(AtomicU32::new(0)));
        let stopped = stop.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stopped.load(Ordering::Relaxed) {
                    break;
                }
                let (object, served) = (object.clone(), served.clone());
                // A client that hangs up ends its thread.
                std::thread::spawn(move || {
                    stream.and_then(|stream| serve(&stream, &object, behaviour, &served))
                });
            }
        });
        Self { url: format!("http://{address}/bucket/disk.img?X-Amz-Signature=SECRET"), stop, address }
    }

    /// The URL of the object; its query is a secret.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // Wakes the thread that accepts.
        let _ = TcpStream::connect(self.address);
    }
}

fn serve(stream: &TcpStream, object: &[u8], behaviour: Behaviour, served: &AtomicU32) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream).lines();
    let mut out = stream;
    loop {
        let mut head = Vec::new();
        for line in lines.by_ref() {
            let line = line?;
            if line.is_empty() {
                break;
            }
            head.push(line.to_ascii_lowercase());
        }
        if head.is_empty() {
            return Ok(());
        }
        let header = |name: &str| head.iter().find_map(|line| line.strip_prefix(name)).map(str::trim);
        let number = served.fetch_add(1, Ordering::Relaxed);
        let etag = match behaviour {
            Behaviour::Status(status) => {
                write!(out, "HTTP/1.1 {status} No\r\ncontent-length: 0\r\n\r\n")?;
                continue;
            }
            Behaviour::WaitsAfter(limit, time) if number >= limit => {
                std::thread::sleep(time);
                "\"one\""
            }
            Behaviour::ChangesAfter(limit) if number >= limit => "\"two\"",
            _ => "\"one\"",
        };
        if header("if-match:").is_some_and(|wanted| wanted != etag) {
            write!(out, "HTTP/1.1 412 Precondition Failed\r\ncontent-length: 0\r\n\r\n")?;
            continue;
        }
        let range = header("range:").and_then(|range| range.strip_prefix("bytes=")).and_then(|range| {
            let (first, last) = range.split_once('-')?;
            Some((first.parse::<usize>().ok()?, last.parse::<usize>().ok()?.min(object.len() - 1)))
        });
        let (first, last) = range.unwrap_or((0, object.len() - 1));
        write!(
            out,
            "HTTP/1.1 206 Partial Content\r\netag: {etag}\r\ncontent-length: {}\r\ncontent-range: bytes {first}-{last}/{}\r\n\r\n",
            last + 1 - first,
            object.len()
        )?;
        out.write_all(&object[first..=last])?;
    }
}
