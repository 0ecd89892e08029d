//! Compute Engine's images, on the same core: what is Google's about a call is translated here, and made by our own methods.
//!
//! Source: <https://cloud.google.com/compute/docs/reference/rest/v1/images> and `.../globalOperations`, and the messages of the official
//! client, whose names and numbers `image-api/proto/google/cloud/compute` has. A project is a folder, a name of an image is its
//! path; an image without a name, which only the other API makes, is shown by its id. Numbers (`id`, `targetId`) are the first 63 bits
//! of the SHA-256 of our ids: stable, and unique as far as anybody will see; nothing is looked up by them.
//!
//! Served: insert, get, getFromFamily, list, delete, patch (description, family), setLabels of images, get and wait of global operations.
//! Not served: deprecate, IAM policies, lists of operations, and whatever has no meaning in one store without instances: encryption keys,
//! resource manager tags, shielded instance state, checksums of archives. A field that is not in the messages is refused by
//! name, also one that the server sets: nothing is dropped. `forceCreate` changes nothing of what is done, as no disk is locked here, and is
//! refused where there is no disk; a list is whole or refused, also for who would take a part (`returnPartialSuccess`).
//! `storageLocations` may name the one place that there is.
//!
//! Differs from Google's: a `requestId` whose operation failed stands for a new attempt, as idempotency keys do here; families have three
//! characters at least; label keys and values are ASCII; a failed creation leaves no image; a filter that few images pass gives
//! short pages with a token, as each request looks at a bounded number of images, for a bounded time; `operations.wait` may end before the
//! operation does, as Google's may, and does so at once where too many wait already.
//!
//! - [`source`]: what `rawDisk.source`, `sourceImage`, `sourceSnapshot`, `sourceDisk` name.
//! - [`image`], [`operation`], [`error`], [`links`]: from ours to Google's and back, pure.
//! - [`filter`]: the language of `filter`, on the JSON of an image.

mod error;
mod filter;
mod image;
mod links;
mod operation;
mod source;

use std::{mem, sync::Arc, time::Duration};

use image_api::{
    Code, Image, Validate as _, Violations,
    compute::create_image_request::Source,
    google::{
        DeleteImageRequest, GetFromFamilyImageRequest, GetGlobalOperationRequest, GetImageRequest, ImageList,
        InsertImageRequest, ListImagesRequest, NewImage, Operation, PatchImageRequest, SetLabelsImageRequest,
        WaitGlobalOperationRequest, new_image,
    },
    rpc::Status,
    to_json_value,
};
use object_io::without_signature;
use tokio::{
    task::yield_now,
    time::{Instant, sleep},
};
use url::Url;

use super::{Call, Caller, Refusal, Service, listing, rights::Right};
use crate::{
    catalog::{Asked, CatalogError, Column, Direction, ImageEdit, ListQuery, SeenOperation, Shown},
    limits,
};
pub(crate) use error::{error_reply, is_google};
use filter::Filter;
use links::Links;
use source::Named;

impl Service {
    pub(super) async fn google_insert(
        self: Arc<Self>,
        call: Call,
        request: InsertImageRequest,
    ) -> Result<Operation, Refusal> {
        request.validate()?;
        let call = call.with_request_id(&request.request_id)?;
        let InsertImageRequest { project, image_resource, .. } = &request;
        self.check_folder(&call.caller, project, Right::Write)?;
        let new = image_resource.clone().unwrap_or_default();
        self.check_place(&new)?;
        if request.force_create && !matches!(new.source, Some(new_image::Source::SourceDisk(_))) {
            return Err(Violations::one("force_create", "of use with sourceDisk only").into());
        }
        let key = call.key_for(&without_signature_of(&request));
        let (source, from) = match self.google_source(&call.caller, project, &new).await {
            Ok(found) => found,
            // It may be gone since the operation that the key stands for was accepted.
            Err(refusal) => {
                let known = self.catalog.known(key.as_ref()).await?.ok_or(refusal)?;
                return self.show_operation(&call, known.into()).await;
            }
        };
        let google = image::kept(&new, project, from.as_ref());
        let request = image::request_of(project, new, source, from.as_ref().map(|from| &from.image));
        let record = Arc::clone(&self).create(&call.caller, request, google, key).await?;
        self.show_operation(&call, record.into()).await
    }

    pub(super) async fn google_get(
        self: Arc<Self>,
        call: Call,
        request: GetImageRequest,
    ) -> Result<image_api::google::Image, Refusal> {
        request.validate()?;
        let shown = self.named(&call.caller, &request.project, &request.image).await?;
        Ok(self.show_image(&call, &shown))
    }

    pub(super) async fn google_latest(
        self: Arc<Self>,
        call: Call,
        request: GetFromFamilyImageRequest,
    ) -> Result<image_api::google::Image, Refusal> {
        request.validate()?;
        let GetFromFamilyImageRequest { project, family } = &request;
        match self.catalog.latest_of_family(project, family).await? {
            Some(shown) if self.may_read(&call.caller, &shown.image).await? => {
                Ok(self.show_image(&call, &shown))
            }
            _ => Err(not_found(project, "images/family", family)),
        }
    }

    pub(super) async fn google_list(
        self: Arc<Self>,
        call: Call,
        request: ListImagesRequest,
    ) -> Result<ImageList, Refusal> {
        request.validate()?;
        self.check_folder(&call.caller, &request.project, Right::Read)?;
        let filter =
            Filter::parse(&request.filter).map_err(|error| Violations::one("filter", error.to_string()))?;
        let (order, direction) = match request.order_by.as_str() {
            "" | "name" => (Column::Name, Direction::Ascending),
            "creationTimestamp desc" => (Column::CreatedAt, Direction::Descending),
            _ => {
                let expected = "expected name, or creationTimestamp desc";
                return Err(Violations::one("order_by", expected).into());
            }
        };
        let size = usize::try_from(request.max_results).ok().filter(|size| *size > 0);
        let size = size.unwrap_or(limits::GOOGLE_PAGE);
        let batch = if filter.is_empty() { size + 1 } else { self.scan.min(limits::GOOGLE_PAGE) };
        let mut query = ListQuery {
            folder_id: request.project.clone(),
            conditions: Vec::new(),
            order,
            direction,
            after: listing::read_token(&request.page_token)?,
            limit: i64::try_from(batch).unwrap_or(i64::MAX),
        };
        let links = self.links(&call);
        let (mut items, mut scanned, mut last, mut spent) = (Vec::new(), 0, None, Duration::ZERO);
        let more = 'pages: loop {
            let page = self.catalog.images_shown(&query).await?;
            let is_last_page = page.len() < batch;
            scanned += page.len();
            for shown in page {
                if items.len() == size || spent >= limits::GOOGLE_FILTER_TIME {
                    break 'pages true;
                }
                let begun = Instant::now();
                let item = image::show(&shown, &links, &self.place);
                if filter.is_empty() || filter.passes(&to_json_value(&item)?) {
                    items.push(item);
                }
                last = Some(shown.image);
                if !filter.is_empty() {
                    // Only what the filter itself takes: a slow catalog or a busy server does not make pages of one image.
                    spent += begun.elapsed();
                    // A filter is a caller's, and others have their turn on this thread.
                    yield_now().await;
                }
            }
            if is_last_page {
                break false;
            }
            if !filter.is_empty() && scanned >= self.scan {
                break true;
            }
            query.after = listing::read_token(&token_after(last.as_ref(), order))?;
        };
        let next_page_token = more.then(|| token_after(last.as_ref(), order));
        Ok(ImageList {
            id: Some(format!("projects/{}/global/images", request.project)),
            kind: Some("compute#imageList".to_owned()),
            items,
            next_page_token,
            self_link: Some(links.images(&request.project)),
        })
    }

    pub(super) async fn google_delete(
        self: Arc<Self>,
        call: Call,
        mut request: DeleteImageRequest,
    ) -> Result<Operation, Refusal> {
        request.validate()?;
        // The key itself is another matter than what it was sent with.
        let call = call.with_request_id(&mem::take(&mut request.request_id))?;
        let key = call.key_for(&request);
        let shown = match self.named(&call.caller, &request.project, &request.image).await {
            Ok(shown) => shown,
            // It may be gone by the very operation that the key stands for.
            Err(refusal) => {
                let known = self.catalog.known(key.as_ref()).await?.ok_or(refusal)?;
                return self.show_operation(&call, known.into()).await;
            }
        };
        let record = Arc::clone(&self).delete(&call.caller, &shown.image.id, key).await?;
        self.show_operation(&call, record.into()).await
    }

    pub(super) async fn google_patch(
        self: Arc<Self>,
        call: Call,
        mut request: PatchImageRequest,
    ) -> Result<Operation, Refusal> {
        request.validate()?;
        // The key itself is another matter than what it was sent with.
        let call = call.with_request_id(&mem::take(&mut request.request_id))?;
        let key = call.key_for(&request);
        let shown = match self.named(&call.caller, &request.project, &request.image).await {
            Ok(shown) => shown,
            Err(refusal) => {
                let known = self.catalog.known_change(key.as_ref()).await?.ok_or(refusal)?;
                return self.show_change(&call, &known.id).await;
            }
        };
        self.check_image(&call.caller, &shown.image, Right::Write).await?;
        let patch = request.image_resource.unwrap_or_default();
        let edit = ImageEdit { description: patch.description, family: patch.family, ..ImageEdit::default() };
        let asked = Asked { by: &call.caller.name(), key: key.as_ref() };
        let done = self.catalog.update_image(&shown.image.id, edit, asked).await?;
        self.show_change(&call, &done.id).await
    }

    pub(super) async fn google_set_labels(
        self: Arc<Self>,
        call: Call,
        request: SetLabelsImageRequest,
    ) -> Result<Operation, Refusal> {
        request.validate()?;
        let Image { id, labels, .. } = {
            let shown = self.named(&call.caller, &request.project, &request.resource).await?;
            self.check_image(&call.caller, &shown.image, Right::Write).await?;
            shown.image
        };
        let asked_for = request.global_set_labels_request_resource.unwrap_or_default();
        if asked_for.label_fingerprint != image::fingerprint(&labels) {
            return Err(CatalogError::Changed { id }.into());
        }
        let edit =
            ImageEdit { labels: Some(asked_for.labels), labels_were: Some(labels), ..ImageEdit::default() };
        let asked = Asked { by: &call.caller.name(), key: None };
        let done = self.catalog.update_image(&id, edit, asked).await?;
        self.show_change(&call, &done.id).await
    }

    pub(super) async fn google_operation(
        self: Arc<Self>,
        call: Call,
        request: GetGlobalOperationRequest,
    ) -> Result<Operation, Refusal> {
        request.validate()?;
        let seen = self.seen(&call.caller, &request.project, &request.operation).await?;
        self.show_operation(&call, seen).await
    }

    pub(super) async fn google_wait(
        self: Arc<Self>,
        call: Call,
        request: WaitGlobalOperationRequest,
    ) -> Result<Operation, Refusal> {
        request.validate()?;
        // Whoever waits asks again while the operation is not DONE: where there is no place, that is no error.
        let place = self.waiters.try_acquire();
        let time = if place.is_ok() { limits::GOOGLE_WAIT } else { Duration::ZERO };
        let seen = self.wait_for(&call.caller, &request, time).await?;
        self.show_operation(&call, seen).await
    }

    /// The operation when it is done, when the time is over, or when the server stops. The catalog is asked, as another server may
    /// have it.
    pub(crate) async fn wait_for(
        &self,
        caller: &Caller,
        request: &WaitGlobalOperationRequest,
        time: Duration,
    ) -> Result<SeenOperation, Refusal> {
        let end = Instant::now() + time;
        let mut pause = limits::GOOGLE_WAIT_POLL / 16;
        loop {
            let seen = self.seen(caller, &request.project, &request.operation).await?;
            if seen.message.done || Instant::now() >= end {
                return Ok(seen);
            }
            tokio::select! {
                biased;
                () = self.worker.stopping().cancelled() => return Ok(seen),
                () = sleep(pause.min(end - Instant::now())) => {}
            }
            pause = (pause * 2).min(limits::GOOGLE_WAIT_POLL);
        }
    }

    /// The image of a name, if the caller may see it.
    async fn named(&self, caller: &Caller, project: &str, name: &str) -> Result<Shown, Refusal> {
        match self.catalog.image_named(project, name).await? {
            Some(shown) if self.may_read(caller, &shown.image).await? => Ok(shown),
            _ => Err(not_found(project, "images", name)),
        }
    }

    /// An operation of a project, if the caller may see it.
    async fn seen(&self, caller: &Caller, project: &str, id: &str) -> Result<SeenOperation, Refusal> {
        let nothing = || not_found(project, "operations", id);
        let seen = match self.catalog.any_operation(id).await {
            Ok(seen) if seen.about.folder_id == project => seen,
            Ok(_) | Err(CatalogError::NoOperation { .. }) => return Err(nothing()),
            Err(error) => return Err(error.into()),
        };
        let allowed = self.check_operation(caller, &seen, Right::Read).await;
        match allowed {
            Ok(()) => Ok(seen),
            // What one may not see is not there, in the very words.
            Err(refusal) if refusal.is_not_found() => Err(nothing()),
            Err(refusal) => Err(refusal),
        }
    }

    /// What a new image is made of, as our own API says it; and the image, where it is one.
    async fn google_source(
        &self,
        caller: &Caller,
        project: &str,
        new: &NewImage,
    ) -> Result<(Source, Option<Shown>), Refusal> {
        Ok(match source::named(new)? {
            Named::Uri(uri) => (Source::Uri(uri), None),
            Named::Snapshot(id) => (Source::SnapshotId(id), None),
            Named::Disk(id) => (Source::DiskId(id), None),
            Named::Image { project: of, name } => {
                let shown = self.named(caller, of.as_deref().unwrap_or(project), &name).await?;
                (Source::ImageId(shown.image.id.clone()), Some(shown))
            }
        })
    }

    /// Fails where the image is to be stored elsewhere than here.
    fn check_place(&self, new: &NewImage) -> Result<(), Refusal> {
        match new.storage_locations.iter().find(|place| **place != self.place) {
            None => Ok(()),
            Some(_) => {
                let description = format!("this server stores in {:?} only", self.place);
                Err(Violations::one("image_resource.storage_locations", description).into())
            }
        }
    }

    fn links(&self, call: &Call) -> Links {
        Links::new(&self.directory.base(call.authority.as_deref()))
    }

    fn show_image(&self, call: &Call, shown: &Shown) -> image_api::google::Image {
        image::show(shown, &self.links(call), &self.place)
    }

    async fn show_operation(&self, call: &Call, seen: SeenOperation) -> Result<Operation, Refusal> {
        let progress = self.catalog.progress(&seen).await?;
        Ok(operation::show(&seen, progress, &self.links(call)))
    }

    async fn show_change(&self, call: &Call, id: &str) -> Result<Operation, Refusal> {
        let seen = self.catalog.any_operation(id).await?;
        self.show_operation(call, seen).await
    }
}

impl Call {
    /// The call with the `requestId` of its message for a key.
    fn with_request_id(self, id: &str) -> Result<Self, Refusal> {
        if !id.is_empty() && id.bytes().all(|byte| matches!(byte, b'0' | b'-')) {
            return Err(Violations::one("request_id", "the zero UUID is not supported").into());
        }
        // A UUID is the same in capitals.
        let id = (!id.is_empty()).then(|| id.to_ascii_lowercase());
        Ok(Self { key: id.or(self.key), ..self })
    }
}

fn token_after(last: Option<&Image>, order: Column) -> String {
    last.map(|image| listing::token(image, order)).unwrap_or_default()
}

fn not_found(project: &str, collection: &str, name: &str) -> Refusal {
    let message = format!("The resource 'projects/{project}/global/{collection}/{name}' was not found");
    Status::new(Code::NotFound, message).into()
}

/// What the caller asked for, by which a repetition is known: without the signature of a URL.
fn without_signature_of(request: &InsertImageRequest) -> InsertImageRequest {
    let mut request = request.clone();
    // The key itself is another matter than what it was sent with.
    request.request_id.clear();
    if let Some(NewImage { source: Some(new_image::Source::RawDisk(raw)), .. }) = &mut request.image_resource
        && let Ok(url) = Url::parse(&raw.source)
    {
        raw.source = without_signature(&url).into();
    }
    request
}
