//! The REST face: JSON over HTTP onto the methods of [`crate::service`].
//!
//! Source: `api.md`, "HTTP". Which method a verb and a path call, and which of its fields stand where, the descriptors say
//! ([`image_api::Method`]). Every answer is canonical proto3 JSON; an error is a bare `google.rpc.Status` with the HTTP status
//! of its code; below the paths of Compute Engine's API it has Google's shape. A verb that a path does not have is UNIMPLEMENTED and
//! 405, a path that nobody has NOT_FOUND.

use std::sync::{Arc, LazyLock};

use axum::{
    body::{self, Body, Bytes},
    extract::Request,
    http::{HeaderName, HeaderValue, Method as Verb, StatusCode, header, request::Parts},
    response::{IntoResponse as _, Response},
};
use image_api::{Code, HttpRequest, Method, Route, rpc::Status, to_json};
use tokio::time::timeout;
use url::form_urlencoded;

use crate::{
    limits,
    service::{Origin, Refusal, Service, error_reply, is_google, is_open, retry_after},
};

static OPENAPI: LazyLock<String> = LazyLock::new(|| {
    image_api::openapi("Image service", env!("CARGO_PKG_VERSION"), |method| is_open(method.grpc_path()))
        .to_string()
});

const JSON: (HeaderName, HeaderValue) = (header::CONTENT_TYPE, HeaderValue::from_static("application/json"));

/// The OpenAPI document of this face, for anybody.
pub(crate) async fn openapi() -> Response {
    ([JSON], OPENAPI.as_str()).into_response()
}

/// A call of one of the methods, or of one that there is not.
pub(crate) async fn serve(service: &Arc<Service>, id: &str, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let shape = if is_google(parts.uri.path()) { Shape::Google } else { Shape::Own };
    // HEAD is GET whose body nobody sends.
    let verb = if parts.method == Verb::HEAD { "GET" } else { parts.method.as_str() };
    let answer = match Method::route(verb, parts.uri.path()) {
        Route::Method(method, http) => call(service, shape, &parts, body, method, &http).await,
        Route::OtherVerb(verbs) => {
            // UNIMPLEMENTED, with the HTTP status that says the same of a path that has other verbs (RFC 9110, section 15.5.6).
            let status = Refusal::no_such_method().into_status(id);
            let mut response = shape.refuse(&status, Some(StatusCode::METHOD_NOT_ALLOWED));
            if let Ok(verbs) = HeaderValue::from_str(&verbs.join(", ")) {
                response.headers_mut().insert(header::ALLOW, verbs);
            }
            return response;
        }
        Route::Nothing => Err(Refusal::no_such_path()),
    };
    match answer {
        Ok(body) => (StatusCode::OK, [JSON], body).into_response(),
        Err(refusal) => shape.refuse(&refusal.into_status(id), None),
    }
}

async fn call(
    service: &Arc<Service>,
    shape: Shape,
    parts: &Parts,
    body: Body,
    method: &Method,
    http: &HttpRequest<'_>,
) -> Result<String, Refusal> {
    let origin = Origin { headers: &parts.headers, uri: &parts.uri };
    let prepared = service.prepare(method.grpc_path(), &origin).await?;
    let body = read(body).await?;
    let query = parts.uri.query().unwrap_or_default();
    let message = match shape {
        Shape::Own => method.request_from_http(http, query, &body)?,
        Shape::Google => method.request_from_http(http, &without_system_parameters(query), &body)?,
    };
    let answer = prepared.run(message.into()).await?;
    Ok(method.response_to_json(&answer)?)
}

/// A query without what Google's clients may say of every answer and what holds of ours: that it is JSON, for whoever reads it.
fn without_system_parameters(query: &str) -> String {
    let said = form_urlencoded::parse(query.as_bytes());
    let others = said.filter(|(name, value)| !(name == "alt" && value == "json" || name == "prettyPrint"));
    form_urlencoded::Serializer::new(String::new()).extend_pairs(others).finish()
}

/// The body of a request, if it is of ordinary size and comes soon.
pub(crate) async fn read(body: Body) -> Result<Bytes, Refusal> {
    let read = timeout(limits::REQUEST_HEAD, body::to_bytes(body, limits::REQUEST_BODY)).await;
    read.ok().and_then(Result::ok).ok_or_else(|| {
        let message =
            format!("the body broke off, came too slowly, or is longer than {} bytes", limits::REQUEST_BODY);
        Status::new(Code::InvalidArgument, message).into()
    })
}

/// The answer that a refused call gets.
pub(crate) fn refuse(status: &Status) -> Response {
    Shape::Own.refuse(status, None)
}

/// Whose calls these are, and so what errors look like.
#[derive(Clone, Copy)]
enum Shape {
    /// A bare status.
    Own,
    /// As Compute Engine's clients read them.
    Google,
}

impl Shape {
    /// The answer to a refused call; with another HTTP status than that of its code where one is given.
    fn refuse(self, status: &Status, http: Option<StatusCode>) -> Response {
        let http = http.map(|http| http.as_u16());
        let (http, body) = match self {
            // A Status without JSON form would be one with a detail that we did not make.
            Self::Own => {
                let of_code = status.canonical_code().http_status();
                (http.unwrap_or(of_code), to_json(status).unwrap_or_default())
            }
            Self::Google => error_reply(status, http),
        };
        let http = StatusCode::from_u16(http).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (http, [JSON], body).into_response();
        if let Some(seconds) = retry_after(status) {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if http == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}
