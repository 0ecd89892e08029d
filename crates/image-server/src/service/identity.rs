//! Who calls.
//!
//! A bearer token is one of the static ones, which may do everything and are for development and for a server inside another
//! program, or one that was given out for a JWT. Where neither is configured everybody may call, which only a loopback
//! address allows, and then no web page may: a browser says by `Origin` that one asks, and by `Host` what it took us for.

use std::net::IpAddr;

use axum::http::{HeaderMap, Uri, header, uri::Authority};
use image_api::{Code, Token, rpc::Status};

use super::{Accounts, Refusal};
use crate::{catalog::Catalog, limits};

/// Who calls. Its name is an operation's `createdBy`, and the subject of rights.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Caller {
    /// Whoever calls a method that is open to everybody.
    Nobody,
    /// Somebody on this machine, where no token is asked for.
    Local,
    /// Whoever has the static token of this number, from 1.
    Token(usize),
    /// A service account.
    Account(String),
}

impl Caller {
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Nobody => "nobody".to_owned(),
            Self::Local => "anonymous".to_owned(),
            Self::Token(number) => format!("token-{number}"),
            Self::Account(id) => id.clone(),
        }
    }
}

/// Where a call comes from, as both transports tell it.
pub(crate) struct Origin<'a> {
    pub(crate) headers: &'a HeaderMap,
    pub(crate) uri: &'a Uri,
}

impl Origin<'_> {
    /// Host and port by which the caller found us.
    pub(crate) fn authority(&self) -> Option<String> {
        let header = || self.headers.get(header::HOST).map(|host| host.to_str().unwrap_or_default());
        self.uri.authority().map(Authority::as_str).or_else(header).map(str::to_owned)
    }

    /// The `Idempotency-Key`, as a header or as metadata: they are the same to HTTP/2.
    pub(crate) fn idempotency_key(&self) -> Result<Option<String>, Refusal> {
        let Some(value) = self.headers.get("idempotency-key") else { return Ok(None) };
        let key = value.to_str().ok().filter(|key| (1..=limits::IDEMPOTENCY_KEY).contains(&key.len()));
        let expected = "the Idempotency-Key header is not 1 to 128 ASCII characters";
        key.map(|key| Some(key.to_owned())).ok_or_else(|| Status::new(Code::InvalidArgument, expected).into())
    }

    /// True unless the request asks for a host by another name than `localhost`. An address is nobody's name.
    fn is_of_this_machine(&self) -> bool {
        let Some(asked) = self.authority() else { return true };
        asked.parse::<Authority>().is_ok_and(|authority| {
            let host = authority.host();
            let address = host.trim_start_matches('[').trim_end_matches(']');
            host.eq_ignore_ascii_case("localhost") || address.parse::<IpAddr>().is_ok()
        })
    }
}

/// Knows the callers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Identity {
    /// Whoever shows one of these may do everything.
    pub(crate) tokens: Vec<Token>,
    /// Service accounts, whose tokens are in the catalog.
    pub(crate) accounts: Accounts,
}

impl Identity {
    /// Whether everybody may call.
    pub(crate) fn is_open(&self) -> bool {
        self.tokens.is_empty() && self.accounts.is_empty()
    }

    pub(super) async fn of(&self, origin: &Origin<'_>, catalog: &Catalog) -> Result<Caller, Refusal> {
        if self.is_open() {
            return Self::of_this_machine(origin);
        }
        let token = bearer(origin.headers)?;
        if let Some(at) = self.tokens.iter().position(|ours| ours.matches(token)) {
            return Ok(Caller::Token(at + 1));
        }
        let account = catalog.account_of_token(&super::tokens::digest(token)).await?;
        // An account whose keys were taken away has no token any more.
        match account.filter(|account| self.accounts.has(account)) {
            Some(account) => Ok(Caller::Account(account)),
            None => Err(unauthenticated("the token is not known, or has expired")),
        }
    }

    /// An open server listens on loopback only, where a web page that a local browser shows can reach it too.
    fn of_this_machine(origin: &Origin<'_>) -> Result<Caller, Refusal> {
        let denied = |message| Err(Status::new(Code::PermissionDenied, message).into());
        if origin.headers.contains_key(header::ORIGIN) {
            return denied("requests of web pages are not served without a token");
        }
        // A browser says `Origin` only of requests to others: a page of a name that was made to lead here asks its own.
        if !origin.is_of_this_machine() {
            return denied("without a token this server has no name but localhost");
        }
        Ok(Caller::Local)
    }
}

fn bearer(headers: &HeaderMap) -> Result<&str, Refusal> {
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
    Ok(token.trim())
}

fn unauthenticated(message: &str) -> Refusal {
    Status::new(Code::Unauthenticated, message).into()
}
