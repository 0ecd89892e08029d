//! Who calls.

use std::{net::IpAddr, sync::Arc};

use axum::{
    extract::{Request, State},
    http::{header, uri::Authority},
    middleware::Next,
    response::Response,
};
use image_api::{Code, rpc::Status};

use super::{App, answer::Refusal};

/// The caller, as an operation's `createdBy` names it.
#[derive(Clone, Debug)]
pub(super) struct Caller(pub(super) String);

/// Lets the request pass if it shows one of the tokens, or if none is asked for.
pub(super) async fn check(
    State(app): State<Arc<App>>,
    mut request: Request,
    next: Next,
) -> Result<Response, Refusal> {
    let caller = identify(&app, &request)?;
    request.extensions_mut().insert(caller);
    Ok(next.run(request).await)
}

fn identify(app: &App, request: &Request) -> Result<Caller, Status> {
    let headers = request.headers();
    if app.tokens.is_empty() {
        // An open server listens on loopback only, where a web page that a local browser shows can reach it too; a
        // browser says so.
        if headers.contains_key(header::ORIGIN) {
            let message = "requests of web pages are not served without a token";
            return Err(Status::new(Code::PermissionDenied, message));
        }
        // It says so only of requests to others: a page of a name that was made to lead here asks its own origin.
        if !is_of_this_machine(request) {
            let message = "without a token this server has no name but localhost";
            return Err(Status::new(Code::PermissionDenied, message));
        }
        return Ok(Caller("anonymous".to_owned()));
    }
    let unauthenticated = |message: &str| Status::new(Code::Unauthenticated, message);
    let presented =
        headers.get(header::AUTHORIZATION).ok_or_else(|| unauthenticated("a bearer token is needed"))?;
    let (scheme, token) = presented
        .to_str()
        .ok()
        .and_then(|value| value.split_once(' '))
        .ok_or_else(|| unauthenticated("the authorization header is not `Bearer TOKEN`"))?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(unauthenticated("the authorization scheme is not Bearer"));
    }
    let at = app.tokens.iter().position(|ours| ours.matches(token.trim()));
    at.map(|at| Caller(format!("token-{}", at + 1))).ok_or_else(|| unauthenticated("the token is not known"))
}

/// True unless the request asks for a host by another name than `localhost`. An address is nobody's name.
fn is_of_this_machine(request: &Request) -> bool {
    let header = request.headers().get(header::HOST).map(|host| host.to_str().unwrap_or_default());
    let Some(asked) = request.uri().authority().map(Authority::as_str).or(header) else { return true };
    let authority = asked.parse::<Authority>();
    authority.is_ok_and(|authority| {
        let host = authority.host();
        let address = host.trim_start_matches('[').trim_end_matches(']');
        host.eq_ignore_ascii_case("localhost") || address.parse::<IpAddr>().is_ok()
    })
}
