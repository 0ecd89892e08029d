//! `ImageService`, but for the access bindings.

use std::sync::Arc;

use image_api::{
    Code, CreateImageRequest, Image, Operation, Validate as _, Violations,
    compute::{
        DeleteImageRequest, GetImageLatestByFamilyRequest, GetImageRequest, ListImageOperationsRequest,
        ListImageOperationsResponse, ListImagesRequest, ListImagesResponse, Os, UpdateImageRequest,
        create_image_request::Source, image, os,
    },
    google,
    rpc::Status,
};
use image_ingest::min_disk_size;
use object_io::without_signature;
use url::Url;

use super::{Call, Caller, Refusal, Service, listing, paging, rights::Right};
use crate::{
    catalog::{
        Admission, Asked, CatalogError, IdempotencyKey, ImageEdit, NewImage, OperationRecord, SeenOperation,
    },
    content::Form,
};

impl Service {
    pub(super) async fn get_image(
        self: Arc<Self>,
        call: Call,
        request: GetImageRequest,
    ) -> Result<Image, Refusal> {
        request.validate()?;
        self.image_for(&call.caller, &request.image_id, Right::Read).await
    }

    pub(super) async fn get_latest_image(
        self: Arc<Self>,
        call: Call,
        request: GetImageLatestByFamilyRequest,
    ) -> Result<Image, Refusal> {
        request.validate()?;
        let GetImageLatestByFamilyRequest { folder_id, family } = &request;
        if let Some(shown) = self.catalog.latest_of_family(folder_id, family).await?
            && self.may_read(&call.caller, &shown.image).await?
        {
            return Ok(shown.image);
        }
        let message = format!("no image of family {family:?} is READY in folder {folder_id:?}");
        Err(Status::new(Code::NotFound, message).into())
    }

    pub(super) async fn list_images(
        self: Arc<Self>,
        call: Call,
        request: ListImagesRequest,
    ) -> Result<ListImagesResponse, Refusal> {
        request.validate()?;
        let query = listing::plan(&request)?;
        self.check_folder(&call.caller, &request.folder_id, Right::Read)?;
        let images = self.catalog.images(&query).await?;
        Ok(listing::page(images, &query))
    }

    pub(super) async fn create_image(
        self: Arc<Self>,
        call: Call,
        request: CreateImageRequest,
    ) -> Result<Operation, Refusal> {
        let key = call.key_for(&without_signature_of(&request));
        let record = self.create(&call.caller, request, google::Image::default(), key).await?;
        Ok(record.into_message())
    }

    /// Accepts an image, and what Compute Engine's API keeps of it besides.
    pub(super) async fn create(
        self: Arc<Self>,
        caller: &Caller,
        request: CreateImageRequest,
        google: google::Image,
        key: Option<IdempotencyKey>,
    ) -> Result<OperationRecord, Refusal> {
        request.validate()?;
        self.check_folder(caller, &request.folder_id, Right::Write)?;
        let accepted = match self.accept_source(caller, &request).await {
            Ok(accepted) => accepted,
            // What it was made of may be gone since the operation that the key stands for was accepted.
            Err(refusal) => return self.catalog.known(key.as_ref()).await?.ok_or(refusal),
        };
        let new = NewImage {
            wanted_disk_size: request.min_disk_size,
            image: image_of(accepted.fill(request)),
            google,
            source: accepted.source,
            created_by: caller.name(),
            key,
            limits: self.queue,
        };
        let catalog = self.catalog.clone();
        self.accept(async move { catalog.admit_create(new).await }).await
    }

    pub(super) async fn update_image(
        self: Arc<Self>,
        call: Call,
        request: UpdateImageRequest,
    ) -> Result<Operation, Refusal> {
        request.validate()?;
        let key = call.key_for(&request);
        let image_id = request.image_id.clone();
        let edit = match self.accept_edit(&call.caller, request).await {
            Ok(edit) => edit,
            // The image may be gone since the change that the key stands for.
            Err(refusal) => return self.catalog.known_change(key.as_ref()).await?.ok_or(refusal),
        };
        let asked = Asked { by: &call.caller.name(), key: key.as_ref() };
        Ok(self.catalog.update_image(&image_id, edit, asked).await?)
    }

    /// What an Update changes, if the caller may change it and it can be.
    async fn accept_edit(&self, caller: &Caller, request: UpdateImageRequest) -> Result<ImageEdit, Refusal> {
        let image = self.image_for(caller, &request.image_id, Right::Write).await?;
        if image.status() != image::Status::Ready {
            let status = image.status().as_str_name();
            return Err(CatalogError::NotChangeable { id: image.id, status }.into());
        }
        let mut edit = edit_of(request);
        // Upwards nothing can be wrong; downwards the content has a say.
        edit.min_disk_size = match edit.min_disk_size {
            Some(wanted) if wanted < image.min_disk_size => {
                Some(self.smallest_disk(&image.id, wanted).await?)
            }
            other => other,
        };
        Ok(edit)
    }

    pub(super) async fn delete_image(
        self: Arc<Self>,
        call: Call,
        request: DeleteImageRequest,
    ) -> Result<Operation, Refusal> {
        request.validate()?;
        let key = call.key_for(&request);
        let record = self.delete(&call.caller, &request.image_id, key).await?;
        Ok(record.into_message())
    }

    /// Accepts the removal of an image.
    pub(super) async fn delete(
        self: Arc<Self>,
        caller: &Caller,
        image_id: &str,
        key: Option<IdempotencyKey>,
    ) -> Result<OperationRecord, Refusal> {
        match self.catalog.image(image_id).await {
            Ok(image) => self.check_image(caller, &image, Right::Write).await?,
            // It may be gone by the very operation that the key stands for: the catalog looks at the key first.
            Err(CatalogError::NoImage { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        let (catalog, by, id) = (self.catalog.clone(), caller.name(), image_id.to_owned());
        self.accept(async move { catalog.admit_delete(&id, &by, key.as_ref()).await }).await
    }

    pub(super) async fn list_image_operations(
        self: Arc<Self>,
        call: Call,
        request: ListImageOperationsRequest,
    ) -> Result<ListImageOperationsResponse, Refusal> {
        request.validate()?;
        let after = match request.page_token.split_once(':') {
            Some((id, at)) => at.parse().ok().map(|at| (at, id.to_owned())),
            None => None,
        };
        if after.is_none() && !request.page_token.is_empty() {
            return Err(Violations::one("page_token", "not a token of this server").into());
        }
        self.image_for(&call.caller, &request.image_id, Right::Read).await?;
        let limit = paging::limit(request.page_size);
        let mut page = self.catalog.operations_of(&request.image_id, after, limit).await?;
        let more = paging::cut(&mut page, request.page_size);
        let token = |last: &SeenOperation| format!("{}:{}", last.message.id, last.created_at);
        let next_page_token = page.last().filter(|_| more).map(token).unwrap_or_default();
        let operations = page.into_iter().map(|operation| operation.message).collect();
        Ok(ListImageOperationsResponse { operations, next_page_token })
    }

    /// What `minDiskSize` becomes if the caller wants this; 0 means what the content needs.
    async fn smallest_disk(&self, image_id: &str, wanted: i64) -> Result<i64, Refusal> {
        let virtual_size = self.open_content(image_id, Form::Raw).await?.source.len();
        let size = min_disk_size(virtual_size, u64::try_from(wanted).unwrap_or_default())
            .map_err(|error| Violations::one("min_disk_size", error.to_string()))?;
        Ok(i64::try_from(size).unwrap_or(i64::MAX))
    }

    /// Puts an operation into the catalog and into the worker's hands, both or neither: a caller that hangs up in between
    /// drops the handler, so the two steps are a task of their own.
    async fn accept(
        self: Arc<Self>,
        admit: impl Future<Output = Result<Admission, CatalogError>> + Send + 'static,
    ) -> Result<OperationRecord, Refusal> {
        let task = tokio::spawn(async move {
            Ok(match admit.await? {
                Admission::New(record) => {
                    self.worker.wake();
                    record
                }
                Admission::Known(record) => record,
            })
        });
        let done: Result<_, CatalogError> = task.await.map_err(|_| Refusal::internal())?;
        Ok(done?)
    }
}

/// The fields that an Update changes: those of its mask, all without one.
fn edit_of(request: UpdateImageRequest) -> ImageEdit {
    let mask = request.update_mask.unwrap_or_default().paths;
    let changes = |field: &str| mask.is_empty() || mask.iter().any(|path| path == field);
    ImageEdit {
        name: changes("name").then_some(request.name),
        description: changes("description").then_some(request.description),
        labels: changes("labels").then_some(request.labels),
        min_disk_size: changes("min_disk_size").then_some(request.min_disk_size),
        ..ImageEdit::default()
    }
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

/// What the caller asked for, by which a repetition is known. The signature of the URI is left out: it differs from signing
/// to signing.
fn without_signature_of(request: &CreateImageRequest) -> CreateImageRequest {
    let mut request = request.clone();
    if let Some(Source::Uri(uri)) = &mut request.source {
        // Whatever is no URL was refused before.
        *uri = Url::parse(uri).map_or_else(|_| uri.clone(), |url| without_signature(&url).into());
    }
    request
}
