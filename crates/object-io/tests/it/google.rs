//! Google's dialect: bearer tokens instead of signatures, spoken to a front that takes nothing else and signs for a store that takes
//! nothing of it.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use aws_sigv4::http_request::{
    PayloadChecksumKind, PercentEncodingMode, SignableBody, SignableRequest, SigningSettings,
    UriPathNormalizationMode, sign,
};
use aws_sigv4::sign::v4;
use bytes::Bytes;
use disk_convert::Sink as _;
use object_io::{
    MultipartOptions, MultipartSink, ObjectError, ObjectUri, PutOptions, Scheme, Store, StoreConfig,
    TokenFuture, Tokens,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use crate::local::{BUCKET, Local, metadata, noise};
use crate::multipart::parts;

/// Gives a token, and counts how often it was asked.
#[derive(Debug, Default)]
struct Given(AtomicU32);

impl Tokens for Given {
    fn token(&self) -> TokenFuture<'_> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Box::pin(async { Ok("ya29.token".to_owned()) })
    }

    fn refused(&self) {}
}

/// The requests that the front has seen, and what was wrong with them.
type Seen = Arc<Mutex<Vec<String>>>;

/// One request a connection: that is all it has to be.
async fn front(store: SocketAddr) -> (String, Seen) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let seen = Seen::default();
    let shared = seen.clone();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let seen = shared.clone();
            tokio::spawn(async move {
                // A client that hangs up ends its task.
                let _ = pass(client, store, &seen).await;
            });
        }
    });
    (endpoint, seen)
}

async fn head_of(stream: &mut TcpStream) -> std::io::Result<(String, Vec<u8>)> {
    let mut bytes = Vec::new();
    loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            let rest = bytes.split_off(end + 4);
            return Ok((String::from_utf8_lossy(&bytes).into_owned(), rest));
        }
        if stream.read_buf(&mut bytes).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
}

async fn pass(mut client: TcpStream, store: SocketAddr, seen: &Seen) -> std::io::Result<()> {
    let (head, mut body) = head_of(&mut client).await?;
    let mut lines = head.trim_end().lines();
    let first = lines.next().unwrap();
    let (method, target) = (first.split(' ').next().unwrap(), first.split(' ').nth(1).unwrap());
    let headers: Vec<(String, String)> = lines
        .map(|line| line.split_once(": ").unwrap())
        .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
        .collect();
    let of = |name: &str| headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str());
    let is_right = of("authorization") == Some("Bearer ya29.token")
        && !headers.iter().any(|(name, _)| name.starts_with("x-amz-"))
        && !target.contains("x-id=");
    seen.lock().unwrap().push(format!("{} {first} {headers:?}", if is_right { "ok" } else { "WRONG" }));
    let len: usize = of("content-length").map_or(0, |len| len.parse().unwrap());
    while body.len() < len {
        client.read_buf(&mut body).await?;
    }

    let mut passed = vec![
        ("host".to_owned(), store.to_string()),
        ("x-amz-content-sha256".to_owned(), "UNSIGNED-PAYLOAD".to_owned()),
    ];
    for (name, value) in &headers {
        match name.strip_prefix("x-goog-meta-") {
            Some(of) => passed.push((format!("x-amz-meta-{of}"), value.clone())),
            None if ["content-md5", "content-type", "range"].contains(&name.as_str()) => {
                passed.push((name.clone(), value.clone()));
            }
            None => {}
        }
    }
    let mut settings = SigningSettings::default();
    settings.percent_encoding_mode = PercentEncodingMode::Single;
    settings.payload_checksum_kind = PayloadChecksumKind::NoHeader;
    settings.uri_path_normalization_mode = UriPathNormalizationMode::Disabled;
    let identity =
        aws_credential_types::Credentials::new("test-access-key", "test-secret-key", None, None, "test");
    let identity = identity.into();
    let params = v4::SigningParams::builder().identity(&identity).region("here").name("s3");
    let params = params.time(SystemTime::now()).settings(settings).build().unwrap().into();
    let url = format!("http://{store}{target}");
    let signed = passed.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let request = SignableRequest::new(method, &url, signed, SignableBody::UnsignedPayload).unwrap();
    let (instructions, _) = sign(request, &params).unwrap().into_parts();
    passed.extend(instructions.headers().map(|(name, value)| (name.to_owned(), value.to_owned())));
    let mut out = format!("{method} {target} HTTP/1.1\r\nconnection: close\r\ncontent-length: {len}\r\n");
    for (name, value) in passed {
        out += &format!("{name}: {value}\r\n");
    }
    let mut server = TcpStream::connect(store).await?;
    server.write_all(format!("{out}\r\n").as_bytes()).await?;
    server.write_all(&body).await?;
    let (head, rest) = head_of(&mut server).await?;
    client.write_all(head.replace("x-amz-meta-", "x-goog-meta-").as_bytes()).await?;
    client.write_all(&rest).await?;
    tokio::io::copy(&mut server, &mut client).await?;
    client.shutdown().await
}

fn config(endpoint: &str, tokens: &Arc<Given>) -> StoreConfig {
    StoreConfig {
        scheme: Scheme::Gs,
        endpoint_url: Some(endpoint.to_owned()),
        tokens: Some(tokens.clone()),
        // As at Google's own host.
        store_profile: "gcs".parse().unwrap(),
        ..StoreConfig::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_takes_the_place_of_a_signature() {
    let local = Local::start().await;
    let (endpoint, seen) = front(local.address()).await;
    let tokens = Arc::new(Given::default());
    let store = Store::connect(config(&endpoint, &tokens)).await.unwrap();
    assert!(store.is_bearer() && store.bearer().await.unwrap().is_some());
    let never = &local.never;
    store.head_bucket(BUCKET, never).await.unwrap();
    let body = Bytes::from(noise(100_001));
    let options = PutOptions { metadata: metadata(), ..PutOptions::default() };
    store.put(BUCKET, "a/b c", body.clone(), &options, never).await.unwrap();
    assert_eq!(store.head(BUCKET, "a/b c", never).await.unwrap().metadata, metadata());
    assert_eq!(store.get(BUCKET, "a/b c", None, never).await.unwrap(), body);
    let missing = store.head(BUCKET, "missing", never).await.unwrap_err();
    assert!(missing.is_not_found() && missing.to_string().contains("`gs://images/missing`"), "{missing}");

    let object: ObjectUri = "gs://images/large".parse().unwrap();
    let large = Bytes::from(noise(20 << 20));
    let options = MultipartOptions { metadata: metadata(), copy_holes: true, ..MultipartOptions::default() };
    let sink = MultipartSink::create(&store, BUCKET, object.key(), large.len() as u64, options, never)
        .await
        .unwrap();
    for part in parts(&large) {
        sink.put(part).await.unwrap();
    }
    let made = sink.finish(large.len() as u64).await.unwrap();
    let found = local.store.head(BUCKET, object.key(), never).await.unwrap();
    assert_eq!((made.size, found.size, found.metadata), (large.len() as u64, large.len() as u64, metadata()));
    assert_eq!(local.store.get(BUCKET, object.key(), None, never).await.unwrap(), large);
    assert!(store.list_uploads(BUCKET, "", never).await.unwrap().is_empty());
    store.delete(BUCKET, object.key(), never).await.unwrap();

    let signed = store.presign_get(BUCKET, "a/b c", std::time::Duration::from_secs(60), never).await;
    assert!(matches!(signed, Err(ObjectError::CannotSign { .. })), "{signed:?}");
    let url = store.url(BUCKET, "a/b c", never).await.unwrap();
    assert_eq!(url.as_str(), format!("{endpoint}/images/a/b%20c"));
    let seen = seen.lock().unwrap().clone();
    let wrong: Vec<_> = seen.iter().filter(|line| !line.starts_with("ok ")).collect();
    assert!(wrong.is_empty() && seen.len() > 8, "{wrong:?}");
    drop(store);
    local.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_pair_comes_before_tokens() {
    let local = Local::start().await;
    let tokens = Arc::new(Given::default());
    let signing = local.config_by(&local.endpoint);
    let store = Store::connect(StoreConfig { scheme: Scheme::Gs, tokens: Some(tokens.clone()), ..signing });
    let store = store.await.unwrap();
    assert!(!store.is_bearer() && store.bearer().await.unwrap().is_none());
    // The SDK's own parameter is not among what is signed.
    store
        .put(BUCKET, "k", Bytes::from_static(b"content"), &PutOptions::default(), &local.never)
        .await
        .unwrap();
    assert_eq!(store.get(BUCKET, "k", None, &local.never).await.unwrap(), &b"content"[..]);
    assert_eq!(tokens.0.load(Ordering::Relaxed), 0);
    drop(store);
    local.stop().await;
}

#[tokio::test]
async fn a_token_goes_by_no_open_wire() {
    let tokens = Arc::new(Given::default());
    // Not known to be this machine.
    let connected = Store::connect(config("http://0.0.0.0:1", &tokens)).await;
    assert!(matches!(connected, Err(ObjectError::NoCredentials)), "{connected:?}");
    assert_eq!(tokens.0.load(Ordering::Relaxed), 0);
}

/// Gives the first of its tokens until it is refused, then the next.
#[derive(Debug, Default)]
struct Renewed(AtomicU32);

impl Tokens for Renewed {
    fn token(&self) -> TokenFuture<'_> {
        Box::pin(async { Ok(format!("ya29.{}", self.0.load(Ordering::Relaxed))) })
    }

    fn refused(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// Knows one token; one request a connection.
async fn gate(known: &'static str) -> (String, Arc<AtomicU32>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let asked = Arc::new(AtomicU32::new(0));
    let shared = asked.clone();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let (head, _) = head_of(&mut client).await.unwrap();
            shared.fetch_add(1, Ordering::Relaxed);
            let status = if head.contains(known) { "200 OK" } else { "401 Unauthorized" };
            let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
            client.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    (endpoint, asked)
}

#[tokio::test]
async fn a_token_that_is_refused_is_renewed_once() {
    for (known, asks, is_known) in [("ya29.0", 1, true), ("ya29.1", 2, true), ("ya29.2", 2, false)] {
        let (endpoint, asked) = gate(known).await;
        let config = StoreConfig {
            tokens: Some(Arc::new(Renewed::default())),
            ..config(&endpoint, &Arc::new(Given::default()))
        };
        let store = Store::connect(config).await.unwrap();
        let answer = store.head_bucket(BUCKET, &CancellationToken::new()).await;
        assert_eq!((answer.is_ok(), asked.load(Ordering::Relaxed)), (is_known, asks), "{known}: {answer:?}");
    }
}
