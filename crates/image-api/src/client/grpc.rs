//! One attempt of a call, over gRPC.
//!
//! Source: <https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>. The details of an error are the
//! `google.rpc.Status` in `grpc-status-details-bin`.

use std::{error::Error as _, time::Duration};

use prost::{Message as _, Name};
use tonic::{
    codegen::http::uri::PathAndQuery,
    metadata::{AsciiMetadataValue, MetadataMap},
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint},
};
use tonic_prost::ProstCodec;
use url::Url;

use super::{
    ANSWER_MAX, ApiError, Call, ClientOptions, IDEMPOTENCY_KEY, StatusError, TransportError, USER_AGENT,
    Uuid,
    endpoints::{Endpoints, is_of_operations, server_of},
};
use crate::{Token, rpc::Status};

/// The connections.
#[derive(Clone, Debug)]
pub(super) struct Grpc {
    images: Peer,
    operations: Peer,
    attempt_timeout: Duration,
}

/// A server, connected when it is used.
#[derive(Clone, Debug)]
struct Peer {
    channel: Channel,
    url: Url,
}

impl Grpc {
    pub(super) fn new(endpoints: &Endpoints, options: &ClientOptions) -> Result<Self, ApiError> {
        let images = Peer::new(&endpoints.base, options)?;
        let operations = if endpoints.operations == endpoints.base {
            images.clone()
        } else {
            Peer::new(&endpoints.operations, options)?
        };
        Ok(Self { images, operations, attempt_timeout: options.attempt_timeout })
    }

    pub(super) async fn attempt<Q, M>(
        &self,
        call: &Call,
        request: &Q,
        token: Option<&Token>,
        key: Option<Uuid>,
    ) -> Result<M, ApiError>
    where
        Q: Name + Clone + 'static,
        M: Name + Default + 'static,
    {
        let peer = if is_of_operations(call) { &self.operations } else { &self.images };
        let unreachable =
            |source| ApiError::Transport { call: call.name, server: server_of(&peer.url), source };
        let mut message = tonic::Request::new(request.clone());
        let metadata = message.metadata_mut();
        if let Some(token) = token
            && let Ok(mut value) = AsciiMetadataValue::try_from(format!("Bearer {}", token.expose()))
        {
            value.set_sensitive(true);
            metadata.insert("authorization", value);
        }
        if let Some(key) = key
            && let Ok(value) = AsciiMetadataValue::try_from(key.to_string())
        {
            metadata.insert(IDEMPOTENCY_KEY, value);
        }
        let mut grpc = tonic::client::Grpc::new(peer.channel.clone()).max_decoding_message_size(ANSWER_MAX);
        let exchange = async {
            grpc.ready().await.map_err(|source| unreachable(TransportError::Grpc(source)))?;
            let path = PathAndQuery::from_static(call.path);
            match grpc.unary(message, path, ProstCodec::<Q, M>::default()).await {
                Ok(answer) => Ok(answer.into_inner()),
                // With a source it was made here, by what broke; without one the server said it.
                Err(status) if status.source().is_some() => {
                    Err(unreachable(TransportError::Call(Box::new(status))))
                }
                Err(status) => Err(ApiError::Status(Box::new(read_error(&status)))),
            }
        };
        let after = self.attempt_timeout;
        let late = |_| unreachable(TransportError::TimedOut { after });
        tokio::time::timeout(after, exchange).await.map_err(late)?
    }
}

impl Peer {
    fn new(url: &Url, options: &ClientOptions) -> Result<Self, ApiError> {
        let setup = |source| ApiError::Setup { source: TransportError::Grpc(source) };
        // What is left of a URL without a path: gRPC has paths of its own.
        let endpoint = Endpoint::from_shared(url.as_str().to_owned()).map_err(setup)?;
        let endpoint =
            endpoint.user_agent(USER_AGENT).map_err(setup)?.connect_timeout(options.connect_timeout);
        let endpoint = if url.scheme() == "https" {
            let extra = ClientTlsConfig::new()
                .ca_certificates(options.extra_roots_pem.iter().map(Certificate::from_pem));
            match endpoint.clone().tls_config(extra.clone().with_native_roots()) {
                // A system that trusts nobody, and a caller who names whom to trust.
                Err(_) if options.extra_roots_pem.is_some() => endpoint.tls_config(extra),
                done => done,
            }
            .map_err(setup)?
        } else {
            endpoint
        };
        Ok(Self { channel: endpoint.connect_lazy(), url: url.clone() })
    }
}

fn read_error(status: &tonic::Status) -> StatusError {
    let request_id = text(status.metadata(), "x-request-id");
    let told =
        Status { code: status.code().into(), message: status.message().to_owned(), details: Vec::new() };
    // Details of a Status that speaks of something else are none.
    let detailed = Status::decode(status.details()).ok().filter(|detailed| detailed.code == told.code);
    StatusError::of_status(detailed.unwrap_or(told), request_id)
}

fn text(metadata: &MetadataMap, name: &str) -> Option<String> {
    metadata.get(name)?.to_str().ok().map(str::to_owned)
}
