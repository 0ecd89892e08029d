//! A server of HTTP/1.1 that does what a test tells it to, right or wrong, and remembers what it was asked.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::{CancellationToken, DropGuard};

/// A request, without its body.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    /// Request line and headers; names in lower case.
    pub(crate) head: String,
}

impl Request {
    pub(crate) fn method(&self) -> &str {
        self.head.split(' ').next().unwrap()
    }

    pub(crate) fn target(&self) -> &str {
        self.head.split(' ').nth(1).unwrap()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }

    /// The bytes that were asked for, first and last.
    pub(crate) fn range(&self) -> (usize, usize) {
        let (first, last) =
            self.header("range").unwrap().strip_prefix("bytes=").unwrap().split_once('-').unwrap();
        (first.parse().unwrap(), last.parse().unwrap())
    }
}

/// What to answer.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    with_length: bool,
    cut: Option<usize>,
    held: Duration,
    pace: Option<(usize, Duration)>,
    endless: bool,
}

impl Answer {
    pub(crate) fn new(status: u16) -> Self {
        let (headers, body) = (Vec::new(), Vec::new());
        let held = Duration::ZERO;
        Self { status, headers, body, with_length: true, cut: None, held, pace: None, endless: false }
    }

    pub(crate) fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    pub(crate) fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// Leaves `Content-Length` to `headers`.
    pub(crate) fn no_length(mut self) -> Self {
        self.with_length = false;
        self
    }

    /// Closes the connection after so many bytes of the body.
    pub(crate) fn cut(mut self, after: usize) -> Self {
        self.cut = Some(after);
        self
    }

    /// Says nothing for so long first.
    pub(crate) fn held(mut self, time: Duration) -> Self {
        self.held = time;
        self
    }

    /// Sends the body again and again, until nobody listens any more.
    pub(crate) fn endless(mut self) -> Self {
        self.endless = true;
        self
    }

    /// Sends so many bytes of the body at a time, with a pause after each.
    pub(crate) fn slowly(mut self, bytes: usize, pause: Duration) -> Self {
        self.pace = Some((bytes, pause));
        self
    }
}

/// Answers requests until it is dropped.
pub(crate) struct Hostile {
    /// Scheme, host and port.
    pub(crate) origin: String,
    seen: Arc<Mutex<Vec<Request>>>,
    _end: DropGuard,
}

impl Hostile {
    /// `answer` gets the request and how many were seen before it.
    pub(crate) async fn start(answer: impl Fn(&Request, usize) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let origin = format!("http://{}", listener.local_addr().unwrap());
        let seen: Arc<Mutex<Vec<Request>>> = Arc::default();
        let end = CancellationToken::new();
        let (answer, log, ended) = (Arc::new(answer), seen.clone(), end.clone());
        tokio::spawn(ended.clone().run_until_cancelled_owned(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (answer, log) = (answer.clone(), log.clone());
                let talk = async move {
                    // A client that goes away is part of the tests.
                    let _ = talk(stream, &*answer, &log).await;
                };
                tokio::spawn(ended.clone().run_until_cancelled_owned(talk));
            }
        }));
        Self { origin, seen, _end: end.drop_guard() }
    }

    pub(crate) fn count(&self, which: impl Fn(&Request) -> bool) -> usize {
        self.seen.lock().unwrap().iter().filter(|request| which(request)).count()
    }
}

async fn talk(
    mut stream: TcpStream,
    answer: &(dyn Fn(&Request, usize) -> Answer + Send + Sync),
    log: &Mutex<Vec<Request>>,
) -> std::io::Result<()> {
    loop {
        let Some(request) = receive(&mut stream).await? else { return Ok(()) };
        let before = {
            let mut log = log.lock().unwrap();
            log.push(request.clone());
            log.len() - 1
        };
        let answer = answer(&request, before);
        tokio::time::sleep(answer.held).await;
        let mut head = format!("HTTP/1.1 {} X\r\n", answer.status);
        for (name, value) in &answer.headers {
            head += &format!("{name}: {value}\r\n");
        }
        if answer.with_length && answer.status != 204 {
            head += &format!("content-length: {}\r\n", answer.body.len());
        }
        stream.write_all((head + "\r\n").as_bytes()).await?;
        let body = &answer.body[..answer.cut.unwrap_or(answer.body.len())];
        let (step, pause) = answer.pace.unwrap_or((usize::MAX, Duration::ZERO));
        loop {
            for piece in body.chunks(step) {
                stream.write_all(piece).await?;
                stream.flush().await?;
                tokio::time::sleep(pause).await;
            }
            if !answer.endless {
                break;
            }
        }
        if answer.cut.is_some() {
            return Ok(());
        }
    }
}

/// Reads a request; its body is counted and dropped.
async fn receive(stream: &mut TcpStream) -> std::io::Result<Option<Request>> {
    let (mut bytes, mut buffer) = (Vec::new(), vec![0; 64 << 10]);
    let end = loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break end;
        }
        match stream.read(&mut buffer).await? {
            0 => return Ok(None),
            n => bytes.extend_from_slice(&buffer[..n]),
        }
    };
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
    let head: String = head
        .lines()
        .enumerate()
        .map(|(n, line)| match line.split_once(": ") {
            Some((name, value)) if n > 0 => format!("{}: {value}\n", name.to_ascii_lowercase()),
            _ => format!("{line}\n"),
        })
        .collect();
    let request = Request { head };
    if request.header("expect").is_some() {
        stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
    }
    let body: usize = request.header("content-length").map_or(0, |len| len.parse().unwrap());
    let mut left = body.saturating_sub(bytes.len() - end - 4);
    while left > 0 {
        match stream.read(&mut buffer).await? {
            0 => return Ok(None),
            n => left = left.saturating_sub(n),
        }
    }
    Ok(Some(request))
}
