//! The gRPC face: the bytes of messages onto the methods of [`crate::service`].
//!
//! Source: <https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>. A method is its path, a message its bytes, so no code
//! is generated for a service; `tonic` frames. An error carries its `google.rpc.Status` in `grpc-status-details-bin`.
//! Unary calls only, uncompressed. `grpc.health.v1` and reflection (v1, and v1alpha for older tools) ask for no token: the
//! one says that we serve, the other what is in public descriptors.

use std::{
    sync::Arc,
    task::{Context, Poll},
};

use axum::{
    Router,
    body::Bytes,
    extract::Request,
    http::{HeaderMap, header},
    response::Response,
};
use futures_util::future::BoxFuture;
use image_api::{DESCRIPTORS, Method, rpc};
use prost::Message as _;
use tonic::{
    Status,
    body::Body,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    service::Routes,
};
use tonic_health::{ServingStatus, server::health_reporter};

use crate::{
    ServerError, rest,
    service::{Origin, Prepared, Refusal, Service},
};

/// The routes of health and reflection.
pub(crate) async fn router() -> Result<Router, ServerError> {
    let (reporter, health) = health_reporter();
    for method in Method::all() {
        reporter.set_service_status(method.service(), ServingStatus::Serving).await;
    }
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let broken = |source| ServerError::Descriptors { source };
    let others = Routes::new(health)
        .add_service(reflection().build_v1().map_err(broken)?)
        .add_service(reflection().build_v1alpha().map_err(broken)?);
    Ok(others.into_axum_router())
}

/// A call of one of the methods, or of one that there is not.
pub(crate) async fn serve(service: &Arc<Service>, id: String, request: Request) -> Response {
    let origin = Origin { headers: request.headers(), uri: request.uri() };
    let prepared = service.prepare(request.uri().path(), &origin).await;
    let answer = match whole(prepared, request).await {
        Ok((prepared, request)) => {
            tonic::server::Grpc::new(Raw).unary(Unary { prepared: Some(prepared), id }, request).await
        }
        Err(refusal) => refuse(refusal, &id).into_http::<Body>(),
    };
    answer.map(axum::body::Body::new)
}

/// The call together with all of its body.
async fn whole(
    prepared: Result<Prepared, Refusal>,
    request: Request,
) -> Result<(Prepared, Request), Refusal> {
    let prepared = prepared?;
    let (parts, body) = request.into_parts();
    let body = rest::read(axum::body::Body::new(body)).await?;
    Ok((prepared, Request::from_parts(parts, body.into())))
}

/// Whether a request is a call by gRPC: its content type says so.
pub(crate) fn is_grpc(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    kind == "application/grpc" || kind.starts_with("application/grpc+proto")
}

fn refuse(refusal: Refusal, request_id: &str) -> Status {
    let status: rpc::Status = refusal.into_status(request_id);
    let details = Bytes::from(status.encode_to_vec());
    Status::with_details(status.code.into(), status.message, details)
}

/// One call, which tonic asks for once.
struct Unary {
    prepared: Option<Prepared>,
    id: String,
}

impl tonic::codegen::Service<tonic::Request<Bytes>> for Unary {
    type Response = tonic::Response<Bytes>;
    type Error = Status;
    type Future = BoxFuture<'static, Result<Self::Response, Status>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: tonic::Request<Bytes>) -> Self::Future {
        let (prepared, id) = (self.prepared.take(), self.id.clone());
        Box::pin(async move {
            let prepared = prepared.ok_or_else(|| Status::internal("called twice"))?;
            let answer = prepared.run(request.into_inner()).await;
            answer.map(|bytes| tonic::Response::new(bytes.into())).map_err(|refusal| refuse(refusal, &id))
        })
    }
}

/// A codec that leaves the bytes of a message as they are.
#[derive(Clone, Copy)]
pub(crate) struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, message: Bytes, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        bytes::BufMut::put(to, message);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        let whole = bytes::Buf::remaining(from);
        Ok(Some(bytes::Buf::copy_to_bytes(from, whole)))
    }
}
