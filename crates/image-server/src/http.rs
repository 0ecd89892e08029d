//! Both faces on one port, over HTTP/1 and HTTP/2, the content of images beside them, and what every request gets: a name.
//!
//! The name stands in the log, in the header or metadata `x-request-id` of the answer, and in the details of an error.

mod content;
mod range;

use std::{convert::Infallible, sync::Arc};

use axum::{
    Router,
    extract::{FromRequestParts, Request, State},
    http::{HeaderName, HeaderValue, request::Parts},
    middleware::{self, Next},
    response::Response,
    routing::get,
};
use tracing::{Instrument as _, info_span};

use crate::{ServerError, grpc, rest, service::Service};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Where the OpenAPI document of the REST face is.
pub(crate) const OPENAPI: &str = "/openapi.json";

/// All routes.
pub(crate) async fn router(service: Arc<Service>) -> Result<Router, ServerError> {
    let calls = Router::new()
        .route("/images/{id}/{file}", get(content::serve).fallback(serve))
        .fallback(serve)
        .with_state(service);
    let router = grpc::router().await?;
    Ok(router.route(OPENAPI, get(rest::openapi)).fallback_service(calls).layer(middleware::from_fn(identify)))
}

async fn serve(State(service): State<Arc<Service>>, RequestId(id): RequestId, request: Request) -> Response {
    if grpc::is_grpc(request.headers()) {
        grpc::serve(&service, id, request).await
    } else {
        rest::serve(&service, &id, request).await
    }
}

/// The name of a request.
#[derive(Clone, Debug)]
pub(crate) struct RequestId(pub(crate) String);

impl<S: Send + Sync> FromRequestParts<S> for RequestId {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(parts.extensions.get::<Self>().cloned().unwrap_or_else(|| Self(String::new())))
    }
}

/// Gives the request a name, in the log and in the answer.
async fn identify(mut request: Request, next: Next) -> Response {
    let id = uuid::Uuid::new_v4().to_string();
    request.extensions_mut().insert(RequestId(id.clone()));
    let span = info_span!("request", id = %id, method = %request.method(), path = %request.uri().path());
    let mut response = next.run(request).instrument(span).await;
    if let Ok(value) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    response
}

#[cfg(test)]
mod tests;
