//! One attempt of a call, as JSON over HTTP.

use std::time::Duration;

use prost::Name;
use reqwest::header;
use url::Url;

use super::{
    ANSWER_MAX, ApiError, CREATE_IAM_TOKEN, Call, ClientOptions, IDEMPOTENCY_KEY, LONG_CALL, StatusError,
    TransportError, USER_AGENT, Uuid,
    endpoints::{Endpoints, is_loopback, server_of},
    google,
};
use crate::{Method, Token, from_json_lenient, rpc::Status};

/// The connections.
#[derive(Clone, Debug)]
pub(super) struct Rest {
    http: reqwest::Client,
    endpoints: Endpoints,
}

impl Rest {
    pub(super) fn new(endpoints: Endpoints, options: &ClientOptions) -> Result<Self, ApiError> {
        Ok(Self { http: http_client(&endpoints, options)?, endpoints })
    }

    pub(super) async fn attempt<Q, M>(
        &self,
        call: &Call,
        request: &Q,
        token: Option<&Token>,
        key: Option<Uuid>,
    ) -> Result<M, ApiError>
    where
        Q: Name,
        M: Name + Default,
    {
        let method = Method::at(call.path).expect("every call is a method of `proto/`");
        let written = method.request_to_http(request);
        let written = written.map_err(|source| ApiError::Request { call: call.name, source })?;
        let base = self.endpoints.of(call);
        let url = below(base, &written.target);
        let verb = reqwest::Method::from_bytes(written.verb.as_bytes()).unwrap_or_default();
        let unreachable = |source: reqwest::Error| ApiError::Transport {
            call: call.name,
            server: server_of(base),
            source: TransportError::Http(source.without_url()),
        };
        let mut http = self.http.request(verb, url).header(header::ACCEPT, "application/json");
        if let Some(token) = token {
            http = http.bearer_auth(token.expose());
        }
        if let Some(key) = key {
            http = http.header(IDEMPOTENCY_KEY, key.to_string());
        }
        if call.is_long {
            http = http.timeout(LONG_CALL);
        }
        if let Some(body) = written.body {
            http = http.header(header::CONTENT_TYPE, "application/json").body(body);
        } else if written.verb == "POST" {
            // Google's front end wants a length even of nothing.
            http = http.header(header::CONTENT_LENGTH, "0");
        }
        let mut response = http.send().await.map_err(unreachable)?;
        let mut body = Vec::new();
        while let Some(bytes) = response.chunk().await.map_err(unreachable)? {
            body.extend_from_slice(&bytes);
            if body.len() > ANSWER_MAX {
                return Err(ApiError::AnswerTooLong { call: call.name, limit: ANSWER_MAX });
            }
        }
        read_answer(call, &response, &body)
    }
}

/// Connections to one address, which may have a path.
pub(crate) fn http_client_of(url: &str, options: &ClientOptions) -> Result<(Url, reqwest::Client), ApiError> {
    let endpoints = Endpoints::new(url, options)?;
    let _ = rustls::crypto::ring::default_provider().install_default();
    Ok((endpoints.base.clone(), http_client(&endpoints, options)?))
}

/// Connections to those endpoints.
pub(super) fn http_client(
    endpoints: &Endpoints,
    options: &ClientOptions,
) -> Result<reqwest::Client, ApiError> {
    let setup = |source| ApiError::Setup { source: TransportError::Http(source) };
    let mut http = reqwest::Client::builder()
        .user_agent(USER_AGENT)
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(options.connect_timeout)
        .timeout(options.attempt_timeout);
    if is_loopback(&endpoints.base) && is_loopback(&endpoints.operations) {
        // A proxy of the environment has another loopback, and no business with our token.
        http = http.no_proxy();
    }
    if let Some(pem) = &options.extra_roots_pem {
        http = http.tls_certs_merge(reqwest::Certificate::from_pem_bundle(pem).map_err(setup)?);
    }
    http.build().map_err(setup)
}

fn read_answer<M: Name + Default>(
    call: &Call,
    response: &reqwest::Response,
    body: &[u8],
) -> Result<M, ApiError> {
    let http_status = response.status().as_u16();
    if response.status().is_success() {
        return from_json_lenient(body).map_err(|source| ApiError::Answer {
            call: call.name,
            http_status,
            source,
        });
    }
    let header =
        |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let retry_after = header("retry-after").and_then(|seconds| seconds.parse().ok()).map(Duration::from_secs);
    if google::is_of_google(call) {
        return Err(ApiError::Status(Box::new(google::read_error(http_status, body, retry_after))));
    }
    let is_status = || from_json_lenient::<Status>(body).is_ok_and(|status| status.code != 0);
    // A page may repeat what was sent, and that was a secret.
    let shown = if call.path == CREATE_IAM_TOKEN.path && !is_status() { &[] } else { body };
    let error = StatusError::read(http_status, shown, header("x-request-id"), retry_after);
    Err(ApiError::Status(Box::new(error)))
}

/// A target of the service, below whatever path its endpoint has.
fn below(base: &Url, target: &str) -> Url {
    let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
    let mut url = base.clone();
    url.set_path(&format!("{}{path}", base.path().trim_end_matches('/')));
    url.set_query(query);
    url
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_stand_below_the_path_of_the_endpoint() {
        let base = |text| Url::parse(text).unwrap();
        assert_eq!(below(&base("https://h"), "/a/b?c=d").as_str(), "https://h/a/b?c=d");
        assert_eq!(
            below(&base("http://h:1/prefix/"), "/a%2Fb:cancel").as_str(),
            "http://h:1/prefix/a%2Fb:cancel"
        );
    }
}
