//! `/compute/v1/images`.

use std::sync::Arc;

use axum::{
    Extension,
    body::Bytes,
    extract::{RawQuery, State, rejection::BytesRejection},
    http::HeaderMap,
};
use image_api::{
    Code, CreateImageRequest, Image, Operation, Validate as _,
    compute::{
        DeleteImageRequest, GetImageRequest, ListImagesResponse, Os, create_image_request::Source, os,
    },
    from_json,
    rpc::Status,
    to_json,
};
use object_io::without_signature;
use sha2::{Digest as _, Sha256};
use url::Url;

use super::{
    App, AppState,
    answer::{Id, Json, Refusal},
    auth::Caller,
    listing, origin,
};
use crate::{
    catalog::{Admission, CatalogError, IdempotencyKey, NewImage},
    limits,
};

pub(super) async fn create(
    State(app): AppState,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Operation>, Refusal> {
    let body = body.map_err(|error| Status::new(Code::InvalidArgument, error.body_text()))?;
    let request: CreateImageRequest = from_json(&body).map_err(|error| {
        let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
        Status::new(Code::InvalidArgument, format!("{error}: {cause}"))
    })?;
    request.validate()?;
    if request.pooled {
        return Err(Refusal::unimplemented("pooled"));
    }
    let accepted = origin::accept(&app, &request).await?;
    let key = idempotency_key(&headers)?
        .map(|key| request_digest(&request).map(|request_digest| IdempotencyKey { key, request_digest }))
        .transpose()?;
    let new = NewImage {
        wanted_disk_size: request.min_disk_size,
        image: image_of(accepted.fill(request)),
        source: accepted.source,
        created_by: caller.0,
        key,
        limits: app.queue,
    };
    let catalog = app.catalog.clone();
    accept(app, async move { catalog.admit_create(new).await }).await
}

pub(super) async fn get(State(app): AppState, Id(image_id): Id) -> Result<Json<Image>, Refusal> {
    let request = GetImageRequest { image_id };
    request.validate()?;
    Ok(Json(app.catalog.image(&request.image_id).await?))
}

pub(super) async fn list(
    State(app): AppState,
    RawQuery(query): RawQuery,
) -> Result<Json<ListImagesResponse>, Refusal> {
    let request = listing::read_request(query.as_deref().unwrap_or_default())?;
    request.validate()?;
    let query = listing::plan(&request)?;
    let images = app.catalog.images(&query).await?;
    Ok(Json(listing::page(images, &query)))
}

pub(super) async fn delete(
    State(app): AppState,
    Extension(caller): Extension<Caller>,
    Id(image_id): Id,
    headers: HeaderMap,
) -> Result<Json<Operation>, Refusal> {
    let request = DeleteImageRequest { image_id };
    request.validate()?;
    let key = idempotency_key(&headers)?;
    let request_digest = hex::encode(Sha256::digest(format!("delete\n{}", request.image_id)));
    let key = key.map(|key| IdempotencyKey { key, request_digest });
    let catalog = app.catalog.clone();
    accept(app, async move { catalog.admit_delete(&request.image_id, &caller.0, key.as_ref()).await }).await
}

/// Puts an operation into the catalog and into the worker's hands, both or neither: a caller that hangs up in between
/// drops the handler, so the two steps are a task of their own.
async fn accept(
    app: Arc<App>,
    admit: impl Future<Output = Result<Admission, CatalogError>> + Send + 'static,
) -> Result<Json<Operation>, Refusal> {
    let task = tokio::spawn(async move {
        Ok(match admit.await? {
            Admission::New(record) => {
                app.worker.submit(record.id.clone());
                record
            }
            Admission::Known(record) => record,
        })
    });
    let done: Result<_, CatalogError> =
        task.await.map_err(|_| Status::new(Code::Internal, "internal error"))?;
    Ok(Json(done?.into_message()))
}

fn image_of(request: CreateImageRequest) -> Image {
    let mut os = request.os.unwrap_or_default();
    if os.r#type() == os::Type::Unspecified {
        os = Os { r#type: os::Type::Linux.into(), ..os };
    }
    Image {
        folder_id: request.folder_id,
        name: request.name,
        description: request.description,
        labels: request.labels,
        family: request.family,
        product_ids: request.product_ids,
        os: Some(os),
        pooled: request.pooled,
        hardware_generation: request.hardware_generation,
        ..Image::default()
    }
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Refusal> {
    let Some(value) = headers.get("idempotency-key") else { return Ok(None) };
    let key = value.to_str().ok().filter(|key| (1..=limits::IDEMPOTENCY_KEY).contains(&key.len()));
    let expected = "the Idempotency-Key header is not 1 to 128 ASCII characters";
    key.map(|key| Some(key.to_owned())).ok_or_else(|| Status::new(Code::InvalidArgument, expected).into())
}

/// Digest of what the caller asked for. The signature of the URI is left out: it differs from signing to signing.
fn request_digest(request: &CreateImageRequest) -> Result<String, Refusal> {
    let mut request = request.clone();
    if let Some(Source::Uri(uri)) = &mut request.source {
        // Whatever is no URL was refused before.
        *uri = Url::parse(uri).map_or_else(|_| uri.clone(), |url| without_signature(&url).into());
    }
    Ok(hex::encode(Sha256::digest(format!("create\n{}", to_json(&request)?))))
}
