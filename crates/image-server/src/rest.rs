//! The REST face: paths, JSON and codes of the contract.
//!
//! Source: `api.md`, "HTTP". Every answer is canonical proto3 JSON; an error is a bare `google.rpc.Status` with the HTTP
//! status of its code. Every answer carries an `x-request-id`, which the log has too. Methods that are
//! not served yet (Update) are UNIMPLEMENTED, paths (ListOperations, access bindings) NOT_FOUND.

mod answer;
mod auth;
mod content;
mod images;
mod listing;
mod operations;
mod origin;
mod range;

use std::sync::Arc;

use axum::{
    Router,
    extract::{DefaultBodyLimit, Request, State},
    http::{HeaderName, HeaderValue},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::get,
};
use image_api::{Code, Token, rpc::Status};
use tokio::sync::Semaphore;
use tracing::{Instrument as _, info_span};

use crate::{
    catalog::{Catalog, QueueLimits},
    limits,
    uri::UriPolicy,
    volumes::VolumeSources,
    worker::{Content, Worker},
};
use answer::Refusal;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// What the handlers share.
pub(crate) struct App {
    pub(crate) catalog: Catalog,
    pub(crate) worker: Worker,
    pub(crate) content: Arc<dyn Content>,
    /// Places for those who read the content of images.
    pub(crate) readers: Arc<Semaphore>,
    pub(crate) uris: UriPolicy,
    pub(crate) volumes: VolumeSources,
    pub(crate) queue: QueueLimits,
    /// Whoever shows one of these may do everything. None: everyone may, which only a loopback address allows.
    pub(crate) tokens: Vec<Token>,
}

/// The routes.
pub(crate) fn router(app: Arc<App>) -> Router {
    Router::new()
        .route("/compute/v1/images", get(images::list).post(images::create))
        // `fd8...`, or a verb after a colon: axum has no patterns for suffixes.
        .route("/compute/v1/images/{id}", get(images::get).delete(images::delete))
        .route("/images/{id}/{file}", get(content::serve))
        .route("/operations/{id}", get(operations::get).post(operations::post))
        .fallback(unknown_path)
        .method_not_allowed_fallback(unknown_method)
        .layer(middleware::from_fn_with_state(Arc::clone(&app), auth::check))
        .layer(middleware::from_fn(identify))
        .layer(DefaultBodyLimit::max(limits::REQUEST_BODY))
        .with_state(app)
}

type AppState = State<Arc<App>>;

async fn unknown_path() -> Refusal {
    Refusal::from(Status::new(Code::NotFound, "no such path"))
}

async fn unknown_method() -> Refusal {
    Refusal::from(Status::new(Code::Unimplemented, "this server does not serve that method here"))
}

/// Gives the request a name, in the log and in the answer.
async fn identify(request: Request, next: Next) -> Response {
    let id = uuid::Uuid::new_v4().to_string();
    let span = info_span!("request", id = %id, method = %request.method(), path = %request.uri().path());
    let mut response = next.run(request).instrument(span).await.into_response();
    if let Ok(value) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    response
}

#[cfg(test)]
mod tests;
