//! Stands between a command and a store: counts what goes to the store, and breaks when it is told to.
#![allow(dead_code, reason = "each test file uses some of it")]

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// The part that was last sent on a connection, until it is answered. Both directions share it.
type Asked = Mutex<Option<u32>>;

/// A running proxy; loopback, two threads a connection, until dropped. It passes on what it gets, byte for byte: the store
/// checks signatures against the host that the command named.
pub(crate) struct Proxy {
    state: Arc<State>,
    address: SocketAddr,
}

struct State {
    to: SocketAddr,
    stopped: AtomicBool,
    broken: AtomicBool,
    /// Bytes that went to the store.
    bytes: AtomicU64,
    /// Bytes that came from it.
    answered: AtomicU64,
    /// The requests that were made, by their methods.
    methods: Mutex<Vec<String>>,
    /// The part numbers that were sent, repeated ones too.
    parts: Mutex<Vec<u32>>,
    /// Those that the store answered with 200, in the order of the answers.
    answered_parts: Mutex<Vec<u32>>,
    /// Those that were sent although they had been answered.
    sent_again: Mutex<Vec<u32>>,
    /// How often it was counted from the beginning. A connection of before can still have answers coming to a client that was
    /// killed: they say nothing of the client that comes after.
    resets: AtomicU64,
    connections: Mutex<Vec<TcpStream>>,
    /// How late an answer is, in milliseconds.
    delay: AtomicU64,
    /// The method whose first request is the last one to be answered.
    held: Mutex<Option<&'static str>>,
    /// That request has come: answers wait.
    holding: AtomicBool,
}

impl Proxy {
    pub(crate) fn start(to: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State {
            to,
            stopped: AtomicBool::new(false),
            broken: AtomicBool::new(false),
            bytes: AtomicU64::new(0),
            answered: AtomicU64::new(0),
            methods: Mutex::default(),
            parts: Mutex::default(),
            answered_parts: Mutex::default(),
            sent_again: Mutex::default(),
            resets: AtomicU64::new(0),
            connections: Mutex::default(),
            delay: AtomicU64::new(0),
            held: Mutex::default(),
            holding: AtomicBool::new(false),
        });
        let shared = state.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if shared.stopped.load(Ordering::Relaxed) {
                    break;
                }
                // What is broken accepts and hangs up, as a gateway does.
                if !shared.broken.load(Ordering::Relaxed) {
                    let _ = connect(&shared, stream);
                }
            }
        });
        Self { state, address }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Bytes that went to the store since the last reset.
    pub(crate) fn bytes(&self) -> u64 {
        self.state.bytes.load(Ordering::Relaxed)
    }

    /// Bytes that came from the store since the last reset.
    pub(crate) fn answered(&self) -> u64 {
        self.state.answered.load(Ordering::Relaxed)
    }

    /// Requests of a method since the last reset.
    pub(crate) fn requests(&self, method: &str) -> usize {
        self.state.methods.lock().unwrap().iter().filter(|found| *found == method).count()
    }

    /// Numbers of the parts that were sent since the last reset, sorted, repeated ones too.
    pub(crate) fn parts(&self) -> Vec<u32> {
        let mut parts = self.state.parts.lock().unwrap().clone();
        parts.sort_unstable();
        parts
    }

    /// Numbers of the parts that the store answered with 200 since the last reset, in the order of the answers.
    pub(crate) fn answered_parts(&self) -> Vec<u32> {
        self.state.answered_parts.lock().unwrap().clone()
    }

    /// Numbers of the parts that were sent since the last reset although the store had answered them since then.
    pub(crate) fn sent_again(&self) -> Vec<u32> {
        self.state.sent_again.lock().unwrap().clone()
    }

    /// Counts from the beginning.
    pub(crate) fn reset(&self) {
        self.state.resets.fetch_add(1, Ordering::SeqCst);
        self.state.bytes.store(0, Ordering::Relaxed);
        self.state.answered.store(0, Ordering::Relaxed);
        self.state.methods.lock().unwrap().clear();
        self.state.parts.lock().unwrap().clear();
        self.state.answered_parts.lock().unwrap().clear();
        self.state.sent_again.lock().unwrap().clear();
    }

    /// From now on answers come so much later.
    pub(crate) fn set_delay(&self, delay: Duration) {
        self.state.delay.store(u64::try_from(delay.as_millis()).unwrap(), Ordering::Relaxed);
    }

    /// From the next request of this method on no answer gets through, until [`Self::release`].
    pub(crate) fn hold(&self, method: &'static str) {
        *self.state.held.lock().unwrap() = Some(method);
    }

    /// Answers get through again.
    pub(crate) fn release(&self) {
        *self.state.held.lock().unwrap() = None;
        self.state.holding.store(false, Ordering::SeqCst);
    }

    /// From now on nobody gets through, and who was getting through is cut off; or everybody does again.
    pub(crate) fn set_broken(&self, broken: bool) {
        self.state.broken.store(broken, Ordering::Relaxed);
        if broken {
            for stream in self.state.connections.lock().unwrap().drain(..) {
                let _ = stream.shutdown(Shutdown::Both);
            }
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.state.stopped.store(true, Ordering::Relaxed);
        self.set_broken(true);
        // Wakes the thread that accepts.
        let _ = TcpStream::connect(self.address);
    }
}

fn connect(state: &Arc<State>, client: TcpStream) -> std::io::Result<()> {
    let server = TcpStream::connect(state.to)?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    state.connections.lock().unwrap().extend([client.try_clone()?, server.try_clone()?]);
    let (answers, back) = (server.try_clone()?, client.try_clone()?);
    let asked = Arc::new(Asked::default());
    let since = state.resets.load(Ordering::SeqCst);
    let (counting, answering) = (state.clone(), asked.clone());
    std::thread::spawn(move || {
        let _ = pass_back(&counting, since, &answering, &answers, &back);
        let _ = back.shutdown(Shutdown::Both);
    });
    let state = state.clone();
    std::thread::spawn(move || {
        let _ = pass(&state, since, &asked, &client, &server);
        // Who has hung up, because it waited long enough, gets no answer.
        *asked.lock().unwrap() = None;
        let _ = server.shutdown(Shutdown::Both);
    });
    Ok(())
}

/// Passes answers on, and counts their bytes, and the parts that they are about, before the client can have them.
fn pass_back(
    state: &State,
    since: u64,
    asked: &Asked,
    mut server: &TcpStream,
    mut client: &TcpStream,
) -> std::io::Result<()> {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let len = server.read(&mut buffer)?;
        if len == 0 {
            return Ok(());
        }
        state.answered.fetch_add(len as u64, Ordering::Relaxed);
        if buffer[..len].starts_with(b"HTTP/1.1 200")
            && let Some(part) = asked.lock().unwrap().take()
        {
            let mut parts = state.answered_parts.lock().unwrap();
            if state.resets.load(Ordering::SeqCst) == since {
                parts.push(part);
            }
        }
        if buffer[..len].starts_with(b"HTTP/1.1 ") {
            std::thread::sleep(Duration::from_millis(state.delay.load(Ordering::Relaxed)));
        }
        while state.holding.load(Ordering::SeqCst) && !state.stopped.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(5));
        }
        client.write_all(&buffer[..len])?;
    }
}

/// Passes requests on and reads their heads.
fn pass(
    state: &State,
    since: u64,
    asked: &Asked,
    mut client: &TcpStream,
    mut server: &TcpStream,
) -> std::io::Result<()> {
    let mut buffer = vec![0; 64 << 10];
    let (mut head, mut body) = (Vec::new(), 0_u64);
    loop {
        let len = client.read(&mut buffer)?;
        if len == 0 {
            return Ok(());
        }
        for byte in &buffer[..len] {
            // One by one is fast enough, and cannot be wrong at a boundary.
            if body > 0 {
                body -= 1;
                continue;
            }
            head.push(*byte);
            if head.ends_with(b"\r\n\r\n") {
                let text = String::from_utf8_lossy(&head).to_lowercase();
                let number = |(_, rest): (&str, &str)| {
                    let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
                    rest[..digits].parse::<u64>().ok()
                };
                body = text.split_once("content-length: ").and_then(number).unwrap_or_default();
                let part = text.starts_with("put ").then(|| text.split_once("partnumber=").and_then(number));
                let method = text.split(' ').next().unwrap_or_default().to_uppercase();
                if *state.held.lock().unwrap() == Some(method.as_str()) {
                    state.holding.store(true, Ordering::SeqCst);
                }
                state.methods.lock().unwrap().push(method);
                let part = part.flatten().map(|part| u32::try_from(part).unwrap());
                if let Some(part) = part {
                    state.parts.lock().unwrap().push(part);
                    let answered = state.answered_parts.lock().unwrap();
                    if answered.contains(&part) && state.resets.load(Ordering::SeqCst) == since {
                        state.sent_again.lock().unwrap().push(part);
                    }
                }
                *asked.lock().unwrap() = part;
                head.clear();
            }
        }
        // Only now: what is sent is known before it can be answered.
        server.write_all(&buffer[..len])?;
        state.bytes.fetch_add(len as u64, Ordering::Relaxed);
    }
}
