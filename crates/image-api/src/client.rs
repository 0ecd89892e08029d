//! The REST calls of the contract.
//!
//! Every attempt has its own time-out; 429, 5xx and connections that fail are tried again, with growing pauses and
//! jitter, a bounded number of times. That is safe because each changing call carries an `Idempotency-Key`, which stays
//! the same over its attempts. Waiting for an operation has no deadline: it ends with the operation, with the token, or
//! when the server could not be reached for as long as [`WaitOptions::patience`].
//!
//! Redirects are not followed (the bearer token would go with them), and an answer of more than [`ANSWER_MAX`] bytes is
//! not read to its end.

mod error;
mod retry;

use std::time::Duration;

use prost::Name;
use reqwest::{Method, header};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use url::{Host, Url};
pub use uuid::Uuid;

use crate::{
    CreateImageRequest, Image, Operation, Token,
    compute::{ListImagesRequest, ListImagesResponse},
    from_json_lenient, to_json,
};
pub use error::{ApiError, StatusError};
pub use retry::{Retry, WaitOptions};

/// The header that makes a repeated call give the same Operation.
const IDEMPOTENCY_KEY: &str = "idempotency-key";
/// Most bytes of an answer: a page of 1000 images with full labels is below 16 MiB.
const ANSWER_MAX: usize = 32 << 20;

/// How a [`Client`] talks.
#[derive(Clone, Debug)]
pub struct ClientOptions {
    /// Where operations are asked for, if not at the endpoint itself. The cloud has a host of its own for them, which
    /// is found without this: `compute.api.X` goes with `operation.api.X`.
    pub operation_endpoint: Option<String>,
    /// Longest time to a connection.
    pub connect_timeout: Duration,
    /// Longest time of one attempt, answer included.
    pub attempt_timeout: Duration,
    /// How often a failed attempt is repeated.
    pub retry: Retry,
    /// Certificates (PEM) to trust besides those of the system.
    pub extra_roots_pem: Option<Vec<u8>>,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            operation_endpoint: None,
            connect_timeout: Duration::from_secs(10),
            attempt_timeout: Duration::from_secs(60),
            retry: Retry::default(),
            extra_roots_pem: None,
        }
    }
}

/// A client of the image service; a clone shares its connections.
#[derive(Clone, Debug)]
pub struct Client {
    http: reqwest::Client,
    images: Url,
    operations: Url,
    token: Option<Token>,
    retry: Retry,
}

impl Client {
    /// A client of the service at `endpoint`, such as `https://compute.api.cloud.yandex.net`. Connects when it is used.
    pub fn new(endpoint: &str, token: Option<Token>) -> Result<Self, ApiError> {
        Self::with_options(endpoint, token, &ClientOptions::default())
    }

    /// A client with other time-outs, retries or roots of trust.
    pub fn with_options(
        endpoint: &str,
        token: Option<Token>,
        options: &ClientOptions,
    ) -> Result<Self, ApiError> {
        let base = parse_endpoint(endpoint)?;
        let operations = match &options.operation_endpoint {
            Some(endpoint) => parse_endpoint(endpoint)?,
            None => operation_host(&base),
        };
        // reqwest asks for the process's provider; whoever comes first has set the same one.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut http = reqwest::Client::builder()
            .user_agent(concat!("image-prep/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(options.connect_timeout)
            .timeout(options.attempt_timeout);
        if is_loopback(&base) && is_loopback(&operations) {
            // A proxy of the environment has another loopback, and no business with our token.
            http = http.no_proxy();
        }
        if let Some(pem) = &options.extra_roots_pem {
            let roots =
                reqwest::Certificate::from_pem_bundle(pem).map_err(|source| ApiError::Setup { source })?;
            http = http.tls_certs_merge(roots);
        }
        Ok(Self {
            http: http.build().map_err(|source| ApiError::Setup { source })?,
            images: extend(&base, &["compute", "v1", "images"]),
            operations: extend(&operations, &["operations"]),
            token,
            retry: options.retry,
        })
    }

    /// Asks for a new image. The same key with the same request gives the same Operation, so a call may be repeated
    /// after a crash by whoever kept the key.
    pub async fn create_image(
        &self,
        request: &CreateImageRequest,
        idempotency_key: Uuid,
        cancel: &CancellationToken,
    ) -> Result<Operation, ApiError> {
        let body = to_json(request).map_err(|source| ApiError::Request { call: "create image", source })?;
        let call = Call::new("create image", Method::POST, self.images.clone());
        self.send(&Call { body: Some(body), key: Some(idempotency_key), ..call }, cancel).await
    }

    /// Shows an image.
    pub async fn get_image(&self, image_id: &str, cancel: &CancellationToken) -> Result<Image, ApiError> {
        self.send(&Call::new("get image", Method::GET, extend(&self.images, &[image_id])), cancel).await
    }

    /// Lists images of a folder, one page.
    pub async fn list_images(
        &self,
        request: &ListImagesRequest,
        cancel: &CancellationToken,
    ) -> Result<ListImagesResponse, ApiError> {
        let mut url = self.images.clone();
        let page_size = request.page_size.to_string();
        let pairs = [
            ("folderId", request.folder_id.as_str()),
            ("pageSize", if request.page_size == 0 { "" } else { &page_size }),
            ("pageToken", &request.page_token),
            ("filter", &request.filter),
            ("orderBy", &request.order_by),
        ];
        url.query_pairs_mut().extend_pairs(pairs.iter().filter(|(_, value)| !value.is_empty()));
        self.send(&Call::new("list images", Method::GET, url), cancel).await
    }

    /// Asks for the removal of an image.
    pub async fn delete_image(
        &self,
        image_id: &str,
        idempotency_key: Uuid,
        cancel: &CancellationToken,
    ) -> Result<Operation, ApiError> {
        let call = Call::new("delete image", Method::DELETE, extend(&self.images, &[image_id]));
        self.send(&Call { key: Some(idempotency_key), ..call }, cancel).await
    }

    /// Shows an operation.
    pub async fn get_operation(&self, id: &str, cancel: &CancellationToken) -> Result<Operation, ApiError> {
        self.send(&self.operation_call(id), cancel).await
    }

    /// Asks an operation to stop. It has stopped only when it says `done`; it may still succeed.
    pub async fn cancel_operation(
        &self,
        id: &str,
        cancel: &CancellationToken,
    ) -> Result<Operation, ApiError> {
        let url = extend(&self.operations, &[&format!("{id}:cancel")]);
        self.send(&Call::new("cancel operation", Method::POST, url), cancel).await
    }

    /// Polls an operation until it is done and returns it, whether it succeeded or failed; `on_progress` sees every
    /// answer, the last one included. When `cancel` fires only the waiting ends: the operation goes on.
    pub async fn wait_operation(
        &self,
        id: &str,
        options: &WaitOptions,
        mut on_progress: impl FnMut(&Operation),
        cancel: &CancellationToken,
    ) -> Result<Operation, ApiError> {
        let call = self.operation_call(id);
        let mut interval = options.first_interval;
        let mut last_answer = Instant::now();
        loop {
            let pause = match self.attempt::<Operation>(&call, cancel).await {
                Ok(operation) => {
                    on_progress(&operation);
                    if operation.done {
                        return Ok(operation);
                    }
                    last_answer = Instant::now();
                    interval
                }
                Err(error) if error.is_retryable() && last_answer.elapsed() < options.patience => {
                    error.retry_after().unwrap_or_default().max(interval)
                }
                Err(error) => return Err(error),
            };
            retry::pause(retry::jittered(pause), cancel).await?;
            interval = options.next_interval(interval);
        }
    }

    fn operation_call(&self, id: &str) -> Call {
        Call::new("get operation", Method::GET, extend(&self.operations, &[id]))
    }

    async fn send<M: Name + Default>(&self, call: &Call, cancel: &CancellationToken) -> Result<M, ApiError> {
        let mut failures = 0;
        loop {
            match self.attempt(call, cancel).await {
                Err(error) if error.is_retryable() && failures + 1 < self.retry.attempts => {
                    failures += 1;
                    retry::pause(self.retry.pause_after(failures, error.retry_after()), cancel).await?;
                }
                done => return done,
            }
        }
    }

    async fn attempt<M: Name + Default>(
        &self,
        call: &Call,
        cancel: &CancellationToken,
    ) -> Result<M, ApiError> {
        let exchange = async {
            let mut request = self
                .http
                .request(call.method.clone(), call.url.clone())
                .header(header::ACCEPT, "application/json");
            if let Some(token) = &self.token {
                request = request.bearer_auth(token.expose());
            }
            if let Some(key) = call.key {
                request = request.header(IDEMPOTENCY_KEY, key.to_string());
            }
            if let Some(body) = &call.body {
                request = request.header(header::CONTENT_TYPE, "application/json").body(body.clone());
            }
            let response = request.send().await.map_err(|source| call.unreachable(source))?;
            read_answer(call, response).await
        };
        // First of all the token: a call that is not wanted any more is not started.
        tokio::select! {
            biased;
            () = cancel.cancelled() => Err(ApiError::Cancelled),
            answer = exchange => answer,
        }
    }
}

/// One call, as often as it is attempted.
struct Call {
    name: &'static str,
    method: Method,
    url: Url,
    body: Option<String>,
    key: Option<Uuid>,
}

impl Call {
    fn new(name: &'static str, method: Method, url: Url) -> Self {
        Self { name, method, url, body: None, key: None }
    }

    fn unreachable(&self, source: reqwest::Error) -> ApiError {
        let host = self.url.host_str().unwrap_or_default();
        let server = self.url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
        ApiError::Transport { call: self.name, server, source: source.without_url() }
    }
}

async fn read_answer<M: Name + Default>(call: &Call, mut response: reqwest::Response) -> Result<M, ApiError> {
    let mut body = Vec::new();
    while let Some(bytes) = response.chunk().await.map_err(|source| call.unreachable(source))? {
        body.extend_from_slice(&bytes);
        if body.len() > ANSWER_MAX {
            return Err(ApiError::AnswerTooLong { call: call.name, limit: ANSWER_MAX });
        }
    }
    if response.status().is_success() {
        return from_json_lenient(&body).map_err(|source| ApiError::Answer {
            call: call.name,
            http_status: response.status().as_u16(),
            source,
        });
    }
    let header =
        |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let retry_after = header("retry-after").and_then(|seconds| seconds.parse().ok()).map(Duration::from_secs);
    let error = StatusError::read(response.status().as_u16(), &body, header("x-request-id"), retry_after);
    Err(ApiError::Status(Box::new(error)))
}

fn parse_endpoint(endpoint: &str) -> Result<Url, ApiError> {
    let usable = |url: &Url| {
        matches!(url.scheme(), "http" | "https")
            && url.has_host()
            && url.username().is_empty()
            && url.password().is_none()
            && url.query().is_none()
            && url.fragment().is_none()
    };
    Url::parse(endpoint).ok().filter(usable).ok_or(ApiError::Endpoint)
}

/// True if the URL leads to this machine. `localhost` is this machine by RFC 6761, section 6.3.
fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

fn operation_host(base: &Url) -> Url {
    let mut url = base.clone();
    if let Some(rest) = base.host_str().and_then(|host| host.strip_prefix("compute.api.")) {
        // A host that was one stays one with another first label.
        let _ = url.set_host(Some(&format!("operation.api.{rest}")));
    }
    url
}

/// `base` with further segments of its path, each percent-encoded.
fn extend(base: &Url, segments: &[&str]) -> Url {
    let mut url = base.clone();
    // Only `mailto:` and its like have no segments, and an endpoint has a host.
    if let Ok(mut path) = url.path_segments_mut() {
        path.pop_if_empty().extend(segments);
    }
    url
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints() {
        let client = Client::new("https://compute.api.cloud.yandex.net", None).unwrap();
        assert_eq!(client.images.as_str(), "https://compute.api.cloud.yandex.net/compute/v1/images");
        assert_eq!(client.operations.as_str(), "https://operation.api.cloud.yandex.net/operations");
        let client = Client::new("http://127.0.0.1:8080/prefix/", None).unwrap();
        assert_eq!(client.operations.as_str(), "http://127.0.0.1:8080/prefix/operations");
        for wrong in ["", "compute.api", "ftp://a/", "https://user@a/", "https://a/?q"] {
            assert!(matches!(Client::new(wrong, None), Err(ApiError::Endpoint)), "{wrong}");
        }
    }

    #[test]
    fn an_id_stays_one_segment() {
        let base = Url::parse("http://h/operations").unwrap();
        assert_eq!(extend(&base, &["a/../b?c"]).as_str(), "http://h/operations/a%2F..%2Fb%3Fc");
        assert_eq!(extend(&base, &["fd8x:cancel"]).as_str(), "http://h/operations/fd8x:cancel");
    }
}
