//! The API without a transport: a method's path, a caller and a message in, a message or a `google.rpc.Status` out.
//!
//! REST and gRPC are thin faces on this: both find the method, prepare the call (who calls, with which key) before they
//! read the message, and run it on the bytes of the message. What a method does, refuses and says is here alone, so the two
//! faces cannot differ. Every error carries its details (`BadRequest` with every violation, `RetryInfo` where a repeat helps).

mod bindings;
mod cursor;
mod directory;
mod google;
mod identity;
mod images;
mod jwt;
mod listing;
mod operations;
mod paging;
mod reading;
mod refusal;
mod rights;
mod sources;
mod tokens;

use std::{collections::HashMap, future::Future, sync::Arc, sync::LazyLock};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use image_api::{Code, rpc::Status};
use image_ingest::UriPolicy;
use prost::{Message, Name};
use sha2::{Digest as _, Sha256};
use tokio::sync::Semaphore;

use crate::{
    buckets::SourceBuckets,
    catalog::{Catalog, IdempotencyKey, QueueLimits},
    volumes::VolumeSources,
    worker::{Content, Worker},
};
pub(crate) use directory::Directory;
pub(crate) use google::{error_reply, is_google};
pub(crate) use identity::{Caller, Identity, Origin};
pub(crate) use refusal::{Refusal, retry_after};
pub(crate) use rights::Rights;
pub use rights::{Grant, GrantError};
pub use tokens::AccountKeyError;
pub(crate) use tokens::Accounts;

/// What the methods share.
pub(crate) struct Service {
    pub(crate) catalog: Catalog,
    pub(crate) worker: Worker,
    pub(crate) content: Arc<dyn Content>,
    /// Places for those who read the content of images.
    pub(crate) readers: Arc<Semaphore>,
    pub(crate) uris: UriPolicy,
    /// Buckets whose objects may be named.
    pub(crate) buckets: SourceBuckets,
    /// Where the server stores: the region of its store.
    pub(crate) place: String,
    /// Images that a filter of Google's list looks at for one answer.
    pub(crate) scan: usize,
    /// Places for those who wait for operations.
    pub(crate) waiters: Semaphore,
    pub(crate) volumes: VolumeSources,
    /// Whether there is room for pooled images at all.
    pub(crate) has_pool: bool,
    pub(crate) queue: QueueLimits,
    pub(crate) identity: Identity,
    pub(crate) rights: Rights,
    pub(crate) directory: Directory,
}

/// What a method knows of a call besides its message.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    caller: Caller,
    /// As the caller wrote it.
    key: Option<String>,
    /// Host and port by which the caller found us.
    authority: Option<String>,
}

/// A call that may be made, before its message is read.
pub(crate) struct Prepared {
    service: Arc<Service>,
    method: &'static Method,
    call: Call,
}

struct Method {
    /// Whether it is served to callers who show no token.
    is_open: bool,
    run: Run,
}

type Run =
    Box<dyn Fn(Arc<Service>, Call, Bytes) -> BoxFuture<'static, Result<Vec<u8>, Refusal>> + Send + Sync>;

static METHODS: LazyLock<HashMap<&'static str, Method>> = LazyLock::new(|| {
    HashMap::from([
        ("/yandex.cloud.compute.v1.ImageService/Get", closed(Service::get_image)),
        ("/yandex.cloud.compute.v1.ImageService/GetLatestByFamily", closed(Service::get_latest_image)),
        ("/yandex.cloud.compute.v1.ImageService/List", closed(Service::list_images)),
        ("/yandex.cloud.compute.v1.ImageService/Create", closed(Service::create_image)),
        ("/yandex.cloud.compute.v1.ImageService/Update", closed(Service::update_image)),
        ("/yandex.cloud.compute.v1.ImageService/Delete", closed(Service::delete_image)),
        ("/yandex.cloud.compute.v1.ImageService/ListOperations", closed(Service::list_image_operations)),
        ("/yandex.cloud.compute.v1.ImageService/ListAccessBindings", closed(Service::list_bindings)),
        ("/yandex.cloud.compute.v1.ImageService/SetAccessBindings", closed(Service::set_bindings)),
        ("/yandex.cloud.compute.v1.ImageService/UpdateAccessBindings", closed(Service::update_bindings)),
        ("/yandex.cloud.operation.OperationService/Get", closed(Service::get_operation)),
        ("/yandex.cloud.operation.OperationService/Cancel", closed(Service::cancel_operation)),
        ("/yandex.cloud.endpoint.ApiEndpointService/Get", open(Service::get_endpoint)),
        ("/yandex.cloud.endpoint.ApiEndpointService/List", open(Service::list_endpoints)),
        ("/yandex.cloud.iam.v1.IamTokenService/Create", open(Service::create_token)),
        ("/google.cloud.compute.v1.Images/Insert", closed(Service::google_insert)),
        ("/google.cloud.compute.v1.Images/Get", closed(Service::google_get)),
        ("/google.cloud.compute.v1.Images/GetFromFamily", closed(Service::google_latest)),
        ("/google.cloud.compute.v1.Images/List", closed(Service::google_list)),
        ("/google.cloud.compute.v1.Images/Delete", closed(Service::google_delete)),
        ("/google.cloud.compute.v1.Images/Patch", closed(Service::google_patch)),
        ("/google.cloud.compute.v1.Images/SetLabels", closed(Service::google_set_labels)),
        ("/google.cloud.compute.v1.GlobalOperations/Get", closed(Service::google_operation)),
        ("/google.cloud.compute.v1.GlobalOperations/Wait", closed(Service::google_wait)),
    ])
});

/// A method for known callers.
fn closed<Q, M, F>(method: impl Fn(Arc<Service>, Call, Q) -> F + Copy + Send + Sync + 'static) -> Method
where
    Q: Message + Default + 'static,
    M: Message,
    F: Future<Output = Result<M, Refusal>> + Send + 'static,
{
    let run = move |service: Arc<Service>, call: Call, request: Bytes| -> BoxFuture<'static, _> {
        let decoded = Q::decode(request);
        Box::pin(async move {
            let unreadable =
                |error| Status::new(Code::InvalidArgument, format!("not the bytes of the request: {error}"));
            let answer = method(service, call, decoded.map_err(unreadable)?).await?;
            Ok(answer.encode_to_vec())
        })
    };
    Method { is_open: false, run: Box::new(run) }
}

/// A method for everybody.
fn open<Q, M, F>(method: impl Fn(Arc<Service>, Call, Q) -> F + Copy + Send + Sync + 'static) -> Method
where
    Q: Message + Default + 'static,
    M: Message,
    F: Future<Output = Result<M, Refusal>> + Send + 'static,
{
    Method { is_open: true, ..closed(method) }
}

/// Whether a method is served to callers who show no token.
pub(crate) fn is_open(grpc_path: &str) -> bool {
    METHODS.get(grpc_path).is_some_and(|method| method.is_open)
}

impl Service {
    /// Finds out who calls, and whether there is such a method for them.
    pub(crate) async fn prepare(
        self: &Arc<Self>,
        grpc_path: &str,
        origin: &Origin<'_>,
    ) -> Result<Prepared, Refusal> {
        let method = METHODS.get(grpc_path).ok_or_else(Refusal::no_such_method)?;
        let caller =
            if method.is_open { Caller::Nobody } else { self.identity.of(origin, &self.catalog).await? };
        let call = Call { caller, key: origin.idempotency_key()?, authority: origin.authority() };
        Ok(Prepared { service: Arc::clone(self), method, call })
    }
}

impl Prepared {
    /// Makes the call.
    pub(crate) async fn run(self, request: Bytes) -> Result<Vec<u8>, Refusal> {
        (self.method.run)(self.service, self.call, request).await
    }
}

impl Call {
    /// The caller's key with the digest of what it was sent with. A key is one caller's own: another one's is another key.
    fn key_for<M: Name>(&self, request: &M) -> Option<IdempotencyKey> {
        let digest =
            || hex::encode(Sha256::digest([M::full_name().as_bytes(), &request.encode_to_vec()].concat()));
        let key = self.key.as_ref()?;
        Some(IdempotencyKey { key: format!("{}/{key}", self.caller.name()), request_digest: digest() })
    }
}

#[cfg(test)]
pub(crate) mod testing {
    /// A JWT by the key of `tests/iam`.
    pub(crate) fn sign_ps256(header: &serde_json::Value, claims: &serde_json::Value) -> String {
        super::jwt::tests::sign(header, claims, &ring::signature::RSA_PSS_SHA256)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A method of the contract that nobody serves, or one that is served under a wrong name, is a defect.
    #[test]
    fn every_method_of_the_contract_is_served() {
        let mut served: Vec<_> = METHODS.keys().copied().collect();
        let mut contract: Vec<_> =
            image_api::Method::all().iter().map(image_api::Method::grpc_path).collect();
        served.sort_unstable();
        contract.sort_unstable();
        assert_eq!(served, contract);
    }
}
