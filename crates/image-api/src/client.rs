//! The calls of the contract, over REST or gRPC.
//!
//! Every attempt has its own time-out; 429, 5xx and connections that fail are tried again, with growing pauses and
//! jitter, a bounded number of times. That is safe because each changing call carries an `Idempotency-Key`, which stays
//! the same over its attempts. Waiting for an operation has no deadline: it ends with the operation, with the token, or
//! when the server could not be reached for as long as [`WaitOptions::patience`].
//!
//! Redirects are not followed (the bearer token would go with them), and an answer of more than [`ANSWER_MAX`] bytes is
//! not read to its end. A server's error is the same [`StatusError`] over both transports.

mod endpoints;
mod error;
mod exchange;
mod google;
mod grpc;
mod reach;
mod rest;
mod retry;

use std::time::Duration;

use prost::Name;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
pub use uuid::Uuid;

use crate::{
    Code, CreateImageRequest, Credentials, Image, Operation, Token,
    compute::{
        DeleteImageRequest, GetImageLatestByFamilyRequest, GetImageRequest, ListImageOperationsRequest,
        ListImageOperationsResponse, ListImagesRequest, ListImagesResponse, UpdateImageRequest,
    },
    endpoint::{ListApiEndpointsRequest, ListApiEndpointsResponse},
    iam::{CreateIamTokenRequest, CreateIamTokenResponse},
    operation::{CancelOperationRequest, GetOperationRequest},
};
use endpoints::Endpoints;
pub(crate) use endpoints::{is_loopback, server_of};
pub use error::{ApiError, StatusError, TransportError};
pub(crate) use exchange::Exchange;
pub use google::ComputeEngine;
pub use reach::{Skew, reach};
pub(crate) use rest::http_client_of;
pub use retry::{Retry, WaitOptions};

/// The header, or gRPC metadata, that makes a repeated call give the same Operation.
const IDEMPOTENCY_KEY: &str = "idempotency-key";
/// Most bytes of an answer: a page of 1000 images with full labels is below 16 MiB.
const ANSWER_MAX: usize = 32 << 20;
/// Longest time of an attempt that the server holds open: Compute Engine says two minutes for its `wait`, and an answer takes its time.
const LONG_CALL: Duration = Duration::from_secs(150);
/// How we call ourselves.
const USER_AGENT: &str = concat!("image-prep/", env!("CARGO_PKG_VERSION"));

/// What a [`Client`] speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Transport {
    /// JSON over HTTP.
    #[default]
    Rest,
    /// gRPC; goes to the server directly, without a proxy of the environment.
    Grpc,
}

/// How a [`Client`] talks.
#[derive(Clone, Debug)]
pub struct ClientOptions {
    /// What to speak.
    pub transport: Transport,
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
            transport: Transport::default(),
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
    channel: Channel,
    credentials: Option<Credentials>,
    retry: Retry,
}

/// The transport in use.
#[derive(Clone, Debug)]
enum Channel {
    Rest(rest::Rest),
    Grpc(grpc::Grpc),
}

impl Client {
    /// A client of the service at `endpoint`, such as `https://compute.api.cloud.yandex.net`. Connects when it is used.
    pub fn new(endpoint: &str, token: Option<Token>) -> Result<Self, ApiError> {
        Self::with_options(endpoint, token, &ClientOptions::default())
    }

    /// A client with another transport, other time-outs, retries or roots of trust.
    ///
    /// # Panics
    /// Over gRPC, outside of a tokio runtime.
    pub fn with_options(
        endpoint: &str,
        token: Option<Token>,
        options: &ClientOptions,
    ) -> Result<Self, ApiError> {
        let endpoints = Endpoints::new(endpoint, options)?;
        // Both transports ask for the process's provider; whoever comes first has set the same one.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let channel = match options.transport {
            Transport::Rest => Channel::Rest(rest::Rest::new(endpoints, options)?),
            Transport::Grpc => Channel::Grpc(grpc::Grpc::new(&endpoints, options)?),
        };
        Ok(Self { channel, credentials: token.map(Credentials::token), retry: options.retry })
    }

    /// The same, with credentials from which each call has its token.
    #[must_use]
    pub fn with_credentials(self, credentials: Credentials) -> Self {
        Self { credentials: Some(credentials), ..self }
    }

    /// Asks for a new image. The same key with the same request gives the same Operation, so a call may be repeated
    /// after a crash by whoever kept the key.
    pub async fn create_image(
        &self,
        request: &CreateImageRequest,
        idempotency_key: Uuid,
        cancel: &CancellationToken,
    ) -> Result<Operation, ApiError> {
        self.send(&CREATE_IMAGE, request, Some(idempotency_key), cancel).await
    }

    /// Shows an image.
    pub async fn get_image(&self, image_id: &str, cancel: &CancellationToken) -> Result<Image, ApiError> {
        let request = GetImageRequest { image_id: image_id.to_owned() };
        self.send(&GET_IMAGE, &request, None, cancel).await
    }

    /// Shows the newest image of a family that is READY.
    pub async fn get_image_latest_by_family(
        &self,
        folder_id: &str,
        family: &str,
        cancel: &CancellationToken,
    ) -> Result<Image, ApiError> {
        let request =
            GetImageLatestByFamilyRequest { folder_id: folder_id.to_owned(), family: family.to_owned() };
        self.send(&GET_IMAGE_LATEST, &request, None, cancel).await
    }

    /// Lists images of a folder, one page.
    pub async fn list_images(
        &self,
        request: &ListImagesRequest,
        cancel: &CancellationToken,
    ) -> Result<ListImagesResponse, ApiError> {
        self.send(&LIST_IMAGES, request, None, cancel).await
    }

    /// Changes what an image is called; the operation is done at once.
    pub async fn update_image(
        &self,
        request: &UpdateImageRequest,
        idempotency_key: Uuid,
        cancel: &CancellationToken,
    ) -> Result<Operation, ApiError> {
        self.send(&UPDATE_IMAGE, request, Some(idempotency_key), cancel).await
    }

    /// Asks for the removal of an image.
    pub async fn delete_image(
        &self,
        image_id: &str,
        idempotency_key: Uuid,
        cancel: &CancellationToken,
    ) -> Result<Operation, ApiError> {
        let request = DeleteImageRequest { image_id: image_id.to_owned() };
        self.send(&DELETE_IMAGE, &request, Some(idempotency_key), cancel).await
    }

    /// Lists the operations on an image, one page, the newest first.
    pub async fn list_image_operations(
        &self,
        request: &ListImageOperationsRequest,
        cancel: &CancellationToken,
    ) -> Result<ListImageOperationsResponse, ApiError> {
        self.send(&LIST_IMAGE_OPERATIONS, request, None, cancel).await
    }

    /// Exchanges proof of an identity for a token.
    pub async fn create_iam_token(
        &self,
        request: &CreateIamTokenRequest,
        cancel: &CancellationToken,
    ) -> Result<CreateIamTokenResponse, ApiError> {
        self.send(&CREATE_IAM_TOKEN, request, None, cancel).await
    }

    /// Lists where the services are. Open to everybody.
    pub async fn list_endpoints(
        &self,
        cancel: &CancellationToken,
    ) -> Result<ListApiEndpointsResponse, ApiError> {
        self.send(&LIST_ENDPOINTS, &ListApiEndpointsRequest::default(), None, cancel).await
    }

    /// Any call of the contract, by its gRPC path, such as `/yandex.cloud.compute.v1.ImageService/SetAccessBindings`.
    /// `call` is what errors say was tried.
    ///
    /// # Panics
    /// Where there is no such method.
    pub async fn call<Q, M>(
        &self,
        call: &'static str,
        grpc_path: &'static str,
        request: &Q,
        idempotency_key: Option<Uuid>,
        cancel: &CancellationToken,
    ) -> Result<M, ApiError>
    where
        Q: Name + Clone + 'static,
        M: Name + Default + 'static,
    {
        self.send(&Call::new(call, grpc_path), request, idempotency_key, cancel).await
    }

    /// Shows an operation.
    pub async fn get_operation(&self, id: &str, cancel: &CancellationToken) -> Result<Operation, ApiError> {
        let request = GetOperationRequest { operation_id: id.to_owned() };
        self.send(&GET_OPERATION, &request, None, cancel).await
    }

    /// Asks an operation to stop. It has stopped only when it says `done`; it may still succeed.
    pub async fn cancel_operation(
        &self,
        id: &str,
        cancel: &CancellationToken,
    ) -> Result<Operation, ApiError> {
        let request = CancelOperationRequest { operation_id: id.to_owned() };
        self.send(&CANCEL_OPERATION, &request, None, cancel).await
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
        let request = GetOperationRequest { operation_id: id.to_owned() };
        let mut interval = options.first_interval;
        let mut last_answer = Instant::now();
        loop {
            let pause = match self.attempt::<_, Operation>(&GET_OPERATION, &request, None, cancel).await {
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

    async fn send<Q, M>(
        &self,
        call: &Call,
        request: &Q,
        key: Option<Uuid>,
        cancel: &CancellationToken,
    ) -> Result<M, ApiError>
    where
        Q: Name + Clone + 'static,
        M: Name + Default + 'static,
    {
        let mut failures = 0;
        loop {
            match self.attempt(call, request, key, cancel).await {
                Err(error) if error.is_retryable() && failures + 1 < self.retry.attempts => {
                    failures += 1;
                    retry::pause(self.retry.pause_after(failures, error.retry_after()), cancel).await?;
                }
                done => return done,
            }
        }
    }

    /// One attempt; two where the first one's token is refused and another can be got.
    async fn attempt<Q, M>(
        &self,
        call: &Call,
        request: &Q,
        key: Option<Uuid>,
        cancel: &CancellationToken,
    ) -> Result<M, ApiError>
    where
        Q: Name + Clone + 'static,
        M: Name + Default + 'static,
    {
        let Some(credentials) = &self.credentials else {
            return self.attempt_as(call, request, None, key, cancel).await;
        };
        let token = credentials.get(cancel).await?;
        match self.attempt_as(call, request, Some(&token), key, cancel).await {
            Err(error) if error.code() == Code::Unauthenticated && credentials.refused(&token).await => {
                let token = credentials.get(cancel).await?;
                self.attempt_as(call, request, Some(&token), key, cancel).await
            }
            done => done,
        }
    }

    async fn attempt_as<Q, M>(
        &self,
        call: &Call,
        request: &Q,
        token: Option<&Token>,
        key: Option<Uuid>,
        cancel: &CancellationToken,
    ) -> Result<M, ApiError>
    where
        Q: Name + Clone + 'static,
        M: Name + Default + 'static,
    {
        let exchange = async {
            match &self.channel {
                Channel::Rest(rest) => rest.attempt(call, request, token, key).await,
                Channel::Grpc(grpc) => grpc.attempt(call, request, token, key).await,
            }
        };
        // First of all the token: a call that is not wanted any more is not started.
        tokio::select! {
            biased;
            () = cancel.cancelled() => Err(ApiError::Cancelled),
            answer = exchange => answer,
        }
    }
}

/// A method, and what errors call it.
struct Call {
    name: &'static str,
    /// Over gRPC; the descriptors know the rest.
    path: &'static str,
    /// The server answers when something has happened, or when [`LONG_CALL`] is nearly over.
    is_long: bool,
}

impl Call {
    const fn new(name: &'static str, path: &'static str) -> Self {
        Self { name, path, is_long: false }
    }

    const fn long(name: &'static str, path: &'static str) -> Self {
        Self { name, path, is_long: true }
    }
}

const CREATE_IMAGE: Call = Call::new("create image", "/yandex.cloud.compute.v1.ImageService/Create");
const GET_IMAGE: Call = Call::new("get image", "/yandex.cloud.compute.v1.ImageService/Get");
const GET_IMAGE_LATEST: Call =
    Call::new("get the latest image", "/yandex.cloud.compute.v1.ImageService/GetLatestByFamily");
const LIST_IMAGES: Call = Call::new("list images", "/yandex.cloud.compute.v1.ImageService/List");
const UPDATE_IMAGE: Call = Call::new("update image", "/yandex.cloud.compute.v1.ImageService/Update");
const DELETE_IMAGE: Call = Call::new("delete image", "/yandex.cloud.compute.v1.ImageService/Delete");
const LIST_IMAGE_OPERATIONS: Call =
    Call::new("list operations", "/yandex.cloud.compute.v1.ImageService/ListOperations");
const GET_OPERATION: Call = Call::new("get operation", "/yandex.cloud.operation.OperationService/Get");
const CANCEL_OPERATION: Call =
    Call::new("cancel operation", "/yandex.cloud.operation.OperationService/Cancel");
const LIST_ENDPOINTS: Call = Call::new("list endpoints", "/yandex.cloud.endpoint.ApiEndpointService/List");
const CREATE_IAM_TOKEN: Call = Call::new("create token", "/yandex.cloud.iam.v1.IamTokenService/Create");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_call_is_a_method() {
        for call in [
            CREATE_IMAGE,
            GET_IMAGE,
            GET_IMAGE_LATEST,
            LIST_IMAGES,
            UPDATE_IMAGE,
            DELETE_IMAGE,
            LIST_IMAGE_OPERATIONS,
            GET_OPERATION,
            CANCEL_OPERATION,
            LIST_ENDPOINTS,
            CREATE_IAM_TOKEN,
        ]
        .iter()
        .chain(&google::CALLS)
        {
            assert!(crate::Method::at(call.path).is_some(), "{}", call.path);
        }
    }
}
