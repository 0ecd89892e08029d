//! The client against servers that fail in the ways servers do.

// Clippy takes only `#[test]` functions for tests.
#![allow(clippy::unwrap_used)]

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::State,
    http::{HeaderMap, Response, Uri},
};
use image_api::{
    ApiError, Client, ClientOptions, Code, ComputeEngine, CreateImageRequest, OperationOutcome, Retry, Uuid,
    WaitOptions,
};
use tokio_util::sync::CancellationToken;

/// One answer: status, headers, body; `None` hangs.
type Answer = Option<(u16, &'static [(&'static str, &'static str)], &'static str)>;

/// A request as it arrived.
#[derive(Clone, Debug)]
struct Seen {
    path: String,
    key: Option<String>,
    authorization: Option<String>,
    body: String,
}

struct Script {
    /// Given in turn; the last one again and again.
    answers: Vec<Answer>,
    seen: Mutex<Vec<Seen>>,
}

struct Server {
    endpoint: String,
    script: Arc<Script>,
}

impl Server {
    async fn start(answers: &[Answer]) -> Self {
        let script = Arc::new(Script { answers: answers.to_vec(), seen: Mutex::default() });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let routes = Router::new().fallback(answer).with_state(Arc::clone(&script));
        // Ends with the test's runtime.
        tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
        Self { endpoint, script }
    }

    fn client(&self) -> Client {
        client(&self.endpoint)
    }

    fn seen(&self) -> Vec<Seen> {
        self.script.seen.lock().unwrap().clone()
    }
}

async fn answer(
    State(script): State<Arc<Script>>,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response<Body> {
    let header = |name: &str| headers.get(name).map(|value| value.to_str().unwrap().to_owned());
    let seen = Seen {
        path: uri.to_string(),
        key: header("idempotency-key"),
        authorization: header("authorization"),
        body: String::from_utf8(body.to_vec()).unwrap(),
    };
    let turn = {
        let mut all = script.seen.lock().unwrap();
        all.push(seen);
        all.len() - 1
    };
    let answer = script.answers.get(turn).or(script.answers.last()).unwrap();
    let Some((status, headers, body)) = answer else { return std::future::pending().await };
    let mut response = Response::builder().status(*status);
    for (name, value) in *headers {
        response = response.header(*name, *value);
    }
    response.body(Body::from(*body)).unwrap()
}

fn client(endpoint: &str) -> Client {
    let options = ClientOptions {
        attempt_timeout: Duration::from_millis(300),
        retry: Retry {
            attempts: 4,
            first_pause: Duration::from_millis(5),
            max_pause: Duration::from_millis(20),
        },
        ..ClientOptions::default()
    };
    Client::with_options(endpoint, image_api::Token::new("t0ken"), &options).unwrap()
}

fn quick() -> WaitOptions {
    WaitOptions {
        first_interval: Duration::from_millis(5),
        max_interval: Duration::from_millis(10),
        patience: Duration::from_millis(200),
    }
}

fn never() -> CancellationToken {
    CancellationToken::new()
}

const RUNNING: Answer = Some((200, &[], r#"{"id":"op"}"#));
const DONE: Answer =
    Some((200, &[], r#"{"id":"op","done":true,"response":{"@type":"t/google.protobuf.Empty","value":{}}}"#));
const ROLLING_BACK: Answer = Some((200, &[], r#"{"id":"op","error":{"code":3,"message":"bad"}}"#));
const BUSY: Answer = Some((503, &[], r#"{"code":14,"message":"later"}"#));
const PAGE: Answer = Some((502, &[("content-type", "text/html")], "<h1>Bad Gateway</h1>"));

#[tokio::test]
async fn a_call_is_repeated_with_the_same_key() {
    let server = Server::start(&[BUSY, PAGE, Some((429, &[], "")), RUNNING]).await;
    let key = Uuid::new_v4();
    let request = CreateImageRequest { folder_id: "f".to_owned(), ..CreateImageRequest::default() };
    let operation = server.client().create_image(&request, key, &never()).await.unwrap();
    assert_eq!(operation.id, "op");
    let seen = server.seen();
    assert_eq!(seen.len(), 4);
    for call in seen {
        assert_eq!(call.path, "/compute/v1/images");
        assert_eq!(call.key, Some(key.to_string()));
        assert_eq!(call.authorization.as_deref(), Some("Bearer t0ken"));
        assert_eq!(call.body, r#"{"folderId":"f"}"#);
    }
}

#[tokio::test]
async fn attempts_are_bounded() {
    let server = Server::start(&[BUSY]).await;
    let error = server.client().get_image("fd8", &never()).await.unwrap_err();
    assert_eq!((error.code(), error.status().unwrap().http_status), (Code::Unavailable, 503));
    assert_eq!(server.seen().len(), 4);
}

#[tokio::test]
async fn what_cannot_work_is_not_repeated() {
    for (status, code) in [
        (400, Code::InvalidArgument),
        (401, Code::Unauthenticated),
        (403, Code::PermissionDenied),
        (404, Code::NotFound),
        (501, Code::Unimplemented),
    ] {
        let server = Server::start(&[Some((status, &[("x-request-id", "r7")], "no"))]).await;
        let error = server.client().get_image("fd8", &never()).await.unwrap_err();
        assert_eq!(error.code(), code);
        assert_eq!(error.to_string(), format!("{code}: no (request r7)"));
        assert_eq!(server.seen().len(), 1, "{status}");
    }
}

#[tokio::test]
async fn the_server_says_how_long_to_wait() {
    let later: Answer = Some((429, &[("retry-after", "1")], r#"{"code":8,"message":"queue"}"#));
    let server = Server::start(&[later, RUNNING]).await;
    let asked = Instant::now();
    server.client().get_operation("op", &never()).await.unwrap();
    assert!(asked.elapsed() >= Duration::from_secs(1));
}

#[tokio::test]
async fn redirects_are_not_followed() {
    let server = Server::start(&[Some((302, &[("location", "http://127.0.0.1:9/")], ""))]).await;
    let error = server.client().get_image("fd8", &never()).await.unwrap_err();
    assert_eq!(error.status().unwrap().http_status, 302);
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test]
async fn success_that_is_no_message_is_an_error() {
    let server = Server::start(&[Some((200, &[], "<html>login</html>"))]).await;
    let error = server.client().get_image("fd8", &never()).await.unwrap_err();
    assert!(matches!(error, ApiError::Answer { http_status: 200, .. }), "{error:?}");
}

#[tokio::test]
async fn nobody_listens() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let error = client(&endpoint).get_image("fd8?secret", &never()).await.unwrap_err();
    assert!(matches!(error, ApiError::Transport { .. }), "{error:?}");
    assert!(error.is_retryable());
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    assert!(!text.contains("secret"), "{text}");
}

#[tokio::test]
async fn an_attempt_has_a_time_out_and_the_call_a_token() {
    let server = Server::start(&[None, RUNNING]).await;
    server.client().get_operation("op", &never()).await.unwrap();
    assert_eq!(server.seen().len(), 2, "the first attempt was given up");

    let (server, cancel) = (Server::start(&[None]).await, CancellationToken::new());
    let (client, token) = (server.client(), cancel.clone());
    let call = tokio::spawn(async move { client.get_operation("op", &token).await });
    while server.seen().is_empty() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    cancel.cancel();
    // Not by its time-out, which is followed by three more attempts.
    assert!(matches!(call.await.unwrap(), Err(ApiError::Cancelled)));
}

#[tokio::test]
async fn waiting_ends_with_done_and_not_with_an_error_before_it() {
    let server = Server::start(&[RUNNING, BUSY, ROLLING_BACK, PAGE, DONE]).await;
    let mut shown = Vec::new();
    let progress = |operation: &image_api::Operation| shown.push(operation.result.is_some());
    let done = server.client().wait_operation("op", &quick(), progress, &never()).await.unwrap();
    assert!(matches!(done.outcome(), OperationOutcome::Succeeded(_)));
    assert_eq!(shown, [false, true, true]);
}

#[tokio::test]
async fn waiting_has_patience_and_an_end() {
    let server = Server::start(&[RUNNING, BUSY]).await;
    let asked = Instant::now();
    let error = server.client().wait_operation("op", &quick(), |_| {}, &never()).await.unwrap_err();
    assert_eq!(error.code(), Code::Unavailable);
    assert!(asked.elapsed() >= Duration::from_millis(200));

    let server = Server::start(&[RUNNING, Some((404, &[], r#"{"code":5,"message":"gone"}"#))]).await;
    let error = server.client().wait_operation("op", &quick(), |_| {}, &never()).await.unwrap_err();
    assert_eq!((error.code(), server.seen().len()), (Code::NotFound, 2));
}

#[tokio::test]
async fn waiting_ends_with_its_token() {
    let (server, cancel) = (Server::start(&[RUNNING]).await, CancellationToken::new());
    let (client, token) = (server.client(), cancel.clone());
    let wait = tokio::spawn(async move { client.wait_operation("op", &quick(), |_| {}, &token).await });
    tokio::time::sleep(Duration::from_millis(60)).await;
    cancel.cancel();
    assert!(matches!(wait.await.unwrap(), Err(ApiError::Cancelled)));
}

#[tokio::test]
async fn cancel_is_posted() {
    let server = Server::start(&[RUNNING]).await;
    server.client().cancel_operation("op", &never()).await.unwrap();
    assert_eq!(server.seen()[0].path, "/operations/op:cancel");
}

#[tokio::test]
async fn a_wait_that_fails_is_no_silence_where_the_operation_is_seen() {
    // Longer than the patience, which is long for a machine that is busy.
    let (held, patience) = (Duration::from_secs(11), Duration::from_secs(10));
    let is_over = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let routes = Router::new().fallback(move |uri: Uri| {
        let is_over = Arc::clone(&is_over);
        async move {
            let mut answer = Response::builder();
            let status =
                match (uri.path().ends_with("/wait"), is_over.load(std::sync::atomic::Ordering::SeqCst)) {
                    (true, false) => {
                        tokio::time::sleep(held).await;
                        is_over.store(true, std::sync::atomic::Ordering::SeqCst);
                        answer = answer.status(503);
                        "RUNNING"
                    }
                    (_, false) => "RUNNING",
                    (_, true) => "DONE",
                };
            answer.body(Body::from(format!(r#"{{"name":"op","status":"{status}"}}"#))).unwrap()
        }
    });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
    let engine = ComputeEngine::new(Client::new(&endpoint, None).unwrap(), "p");
    let options = WaitOptions {
        first_interval: Duration::from_millis(5),
        max_interval: Duration::from_millis(100),
        patience,
    };
    assert!(engine.wait("op", &options, |_| {}, &never()).await.unwrap().is_done());
}
