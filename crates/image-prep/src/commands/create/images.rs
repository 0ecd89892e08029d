//! Images that have the name already: whether one of them is the one that is wanted.
//!
//! The contract has no place for a guest digest, so it is kept in a label. A label has 63 characters, a digest 64: the last
//! one is left out, which leaves 252 bits of it.

use std::sync::atomic::Ordering;
use std::time::Duration;

use disk_convert::GuestDigest;
use image_api::compute::UpdateImageRequest;
use image_api::{ApiError, Client, Code, FieldMask, Operation, Uuid, WaitOptions};
use object_io::{ObjectUri, Store};
use tokio_util::sync::CancellationToken;

use super::{ATTEMPTS, Create, request};
use crate::args::IfExists;
use crate::error::Error;
use crate::notes::Object;
use crate::service::{Found, id_of_image};
use crate::{service, transfer};

/// For a name to be given back after a failure: longer than a service takes to restart.
const RENAME_TIME: Duration = Duration::from_secs(60);

/// Longest name.
const NAME_LEN: usize = 63;

/// The label that says what an Image holds.
const LABEL: &str = "image-prep-digest";

/// Characters of a label's value.
const LABEL_LEN: usize = 63;

/// What has the name already.
pub(super) enum Standing {
    /// Nothing, or nobody asked.
    Free,
    /// An Image that is what is wanted, as the operation that would have made it.
    WillDo(Box<Operation>),
    /// Another one, which is to be replaced.
    InTheWay(Box<Found>),
}

/// What an Image is called while another takes its place: by its identifier, so that two never meet.
fn aside(image: &Found) -> String {
    let suffix = format!("-replaced-{}", image.id);
    let kept = NAME_LEN.saturating_sub(suffix.len());
    format!("{}{suffix}", image.name.chars().take(kept).collect::<String>())
}

fn label_of(digest: GuestDigest) -> String {
    let mut text = digest.to_string();
    text.truncate(LABEL_LEN);
    text
}

impl Create<'_> {
    /// The Images that are there already. Where nothing was said of such Images, the service decides.
    pub(super) async fn existing_image(&self, digest: Option<GuestDigest>) -> Result<Standing, Error> {
        let Some(what) = self.args.if_exists else { return Ok(Standing::Free) };
        let Some(image) = self.find_image().await? else { return Ok(Standing::Free) };
        let (name, id) = (image.name.clone(), image.id.clone());
        if what == IfExists::Fail {
            return Err(Error::ImageExists { name, id });
        }
        if image.is_being_made() {
            // Being made by an earlier run, which the idempotency key finds; or by somebody else, which the service says.
            return Ok(Standing::Free);
        }
        match objection(&image, digest) {
            Some(_) if what == IfExists::Replace => Ok(Standing::InTheWay(Box::new(image))),
            Some(why) => Err(Error::ImageOther { name, id, why }),
            None => {
                self.context.note(&format!("the Image `{name}` holds this disk already"));
                Ok(Standing::WillDo(Box::new(image.into_operation())))
            }
        }
    }

    /// The operation by which the same command has made the Image already: then there is nothing to upload.
    ///
    /// Only asked for where there is an Image of the name, and no object. A Create call can then begin nothing: its idempotency key stands
    /// for an operation, or the name is taken, which is told before an upload and not after it.
    pub(super) async fn made_before(
        &self,
        store: &Store,
        object: &ObjectUri,
        content: &str,
    ) -> Result<Option<Operation>, Error> {
        let (context, args) = (self.context, self.args);
        if args.keep_object || self.fields.name().is_empty() {
            return Ok(None);
        }
        // Who may create need not be allowed to list.
        let Ok(Some(image)) = self.find_image().await else { return Ok(None) };
        if !image.is_ready() || transfer::find(context, store, object).await?.is_some() {
            return Ok(None);
        }
        let request = self.fields.with_uri(&self.location(store, object).await?);
        for attempt in 0..ATTEMPTS {
            let operation = self.ask(&request, request::key(&self.fields, content, attempt)?).await?;
            if is_of(&operation, &image) {
                if !operation.done || service::failure(&operation).is_some() {
                    return Ok(None);
                }
                tracing::info!("operation {} has made the Image {} already", operation.id, image.id);
                self.forget(&operation.id);
                return Ok(Some(operation));
            }
            if !self.is_over(&operation, None).await? {
                // The Image has gone since it was looked for, and this operation has nothing to read.
                service::cancel_now(self.context, &self.cloud.images, &operation.id).await;
                return Ok(None);
            }
            self.forget(&operation.id);
        }
        Ok(None)
    }

    /// Makes the Image, in the place of another where there is one: that one gives its name away, is deleted when the new
    /// Image is READY, and gets the name back if there is none. Where no Image can be renamed see `supplant`.
    pub(super) async fn make(
        &self,
        content: &str,
        uri: &str,
        object: Option<Object>,
        replaced: Option<Box<Found>>,
    ) -> Result<Operation, Error> {
        let Some(old) = replaced.as_deref() else { return self.create(content, uri, object, None).await };
        let Some(client) = self.cloud.images.yandex() else {
            return self.supplant(content, uri, object, old).await;
        };
        let aside = aside(old);
        if let Err(error) = self.rename(client, old, &aside, &self.context.cancel).await {
            // Without an answer nobody knows whether it was done.
            if !is_refusal(&error) {
                self.give_back(client, old, &aside).await;
            }
            return Err(error);
        }
        let result = self.create(content, uri, object, Some(old)).await;
        let is_new = |operation: &Operation| id_of_image(operation).is_some_and(|id| id != old.id);
        match &result {
            Ok(operation) if !operation.done && is_new(operation) => {
                self.context
                    .warn(&format!("the Image that had the name is now `{aside}`, and is not deleted"));
            }
            Err(error) if error.may_go_on() => {
                self.context.warn(&format!("the Image that had the name is now `{aside}`"));
            }
            Ok(operation) if service::failure(operation).is_none() && is_new(operation) => {
                self.delete(old).await;
            }
            _ => self.give_back(client, old, &aside).await,
        }
        result
    }

    /// The same where no Image can be renamed: the old one is deleted before. But not before the service was asked for the new one
    /// and had nothing against it but the name; and not if that is another Image's by now.
    async fn supplant(
        &self,
        content: &str,
        uri: &str,
        object: Option<Object>,
        old: &Found,
    ) -> Result<Operation, Error> {
        // A key of its own: nothing comes of this call, unless the name is free.
        match self.ask(&self.fields.with_uri(uri), Uuid::new_v4()).await {
            Ok(operation) => return self.follow(operation, object).await,
            Err(Error::Api(error)) if error.code() == Code::AlreadyExists => {}
            Err(error) => return Err(error),
        }
        match self.find_image().await? {
            None => return self.create(content, uri, object, None).await,
            Some(found) if found.id != old.id => {
                let why = format!("it has taken the place of {} since", old.id);
                return Err(Error::ImageOther { name: found.name, id: found.id, why });
            }
            Some(_) => {}
        }
        self.remove(old).await?;
        self.context.note(&format!("the Image `{}` that had the name, {}, is deleted", old.name, old.id));
        let result = self.create(content, uri, object, None).await;
        if result.as_ref().map_or(true, |operation| service::failure(operation).is_some()) {
            self.without_image(old);
        }
        result
    }

    /// Deletes an Image, and waits until it has gone. Where that is not known it is told.
    async fn remove(&self, image: &Found) -> Result<(), Error> {
        let cancel = &self.context.cancel;
        if cancel.is_cancelled() {
            return Err(Error::Interrupted);
        }
        let deleted = match self.cloud.images.delete(image, cancel).await {
            // Here a refusal is one to look at the operation, which goes on.
            Ok(operation) => match self.end(operation, cancel).await {
                Err(error @ Error::Operation { .. }) => Err((error, true)),
                Err(error) => Err((error, false)),
                Ok(()) => return Ok(()),
            },
            Err(Error::Api(error)) if error.code() == Code::NotFound => return Ok(()),
            Err(error) => {
                let is_there = is_refusal(&error);
                Err((error, is_there))
            }
        };
        deleted.map_err(|(error, is_there)| {
            if !is_there {
                self.without_image(image);
            }
            error
        })
    }

    /// Tells that an Image has gone and nothing has come in its place. What was uploaded for that stays.
    fn without_image(&self, old: &Found) {
        self.is_bereft.store(true, Ordering::Relaxed);
        self.context.warn(&format!(
            "the Image `{}`, {}, is deleted or may be, and no other is known to have its place; the same command again makes one",
            old.name, old.id
        ));
    }

    /// Gives an Image that was set aside its name back. Not to succeed is told.
    async fn give_back(&self, client: &Client, old: &Found, aside: &str) {
        let forever = CancellationToken::new();
        let renamed = self.rename(client, old, &old.name, &forever);
        let back = tokio::time::timeout(self.back_grace(), renamed).await;
        if !matches!(back, Ok(Ok(()))) {
            self.context.warn(&format!("the Image that had the name may still be called `{aside}`"));
        }
    }

    /// For an Image to get its name back.
    fn back_grace(&self) -> Duration {
        if self.context.cancel.is_cancelled() { self.context.grace.rename() } else { RENAME_TIME }
    }

    async fn rename(
        &self,
        client: &Client,
        image: &Found,
        name: &str,
        cancel: &CancellationToken,
    ) -> Result<(), Error> {
        let request = UpdateImageRequest {
            image_id: image.id.clone(),
            update_mask: Some(FieldMask { paths: vec!["name".to_owned()] }),
            name: name.to_owned(),
            ..UpdateImageRequest::default()
        };
        let operation = client.update_image(&request, Uuid::new_v4(), cancel).await?;
        self.end(operation, cancel).await
    }

    /// The new Image is there: whatever becomes of the old one is told, and is no failure.
    async fn delete(&self, image: &Found) {
        let forever = CancellationToken::new();
        let deleted = async {
            let operation = self.cloud.images.delete(image, &forever).await?;
            self.end(operation, &self.context.cancel).await
        };
        let late = self.context.interrupted_for(self.context.grace.rename());
        let error = tokio::select! {
            deleted = deleted => match deleted {
                // Who was asked for it does it.
                Ok(()) | Err(Error::Api(ApiError::Cancelled)) => return,
                Err(error) => error.to_string(),
            },
            () = late => "no answer in time".to_owned(),
        };
        self.context.warn(&format!("the Image {} that was replaced is not deleted: {error}", image.id));
    }

    /// Waits for a small operation.
    async fn end(&self, operation: Operation, cancel: &CancellationToken) -> Result<(), Error> {
        let done = match operation.done {
            true => operation,
            false => {
                let options = WaitOptions::default();
                self.cloud.images.wait(&operation.id, &options, |_| {}, cancel).await?
            }
        };
        service::failure(&done).map_or(Ok(()), Err)
    }

    /// Has the Image say what it holds, so that the next run can reuse it.
    pub(super) fn label(&mut self, digest: GuestDigest) {
        if matches!(self.args.if_exists, Some(IfExists::Reuse | IfExists::Replace)) {
            self.fields.set_label(LABEL, label_of(digest));
        }
    }

    async fn find_image(&self) -> Result<Option<Found>, Error> {
        self.cloud.images.find(&self.fields, &self.context.cancel).await
    }
}

/// True if the operation is the one that makes this Image.
fn is_of(operation: &Operation, image: &Found) -> bool {
    id_of_image(operation).is_some_and(|id| id == image.id)
}

/// True if the service said that it does not do it. A busy server, or a gateway before it, says nothing of the kind.
fn is_refusal(error: &Error) -> bool {
    match error {
        Error::Operation { .. } => true,
        Error::Api(error) => service::is_refused(error),
        _ => false,
    }
}

/// What speaks against taking an Image for one of this disk.
fn objection(image: &Found, digest: Option<GuestDigest>) -> Option<String> {
    let Some(digest) = digest else { return Some("what a URL holds is not known here".to_owned()) };
    match image.labels.get(LABEL) {
        _ if !image.is_ready() => Some(format!("it is {}", image.status)),
        None => Some(format!("it has no label {LABEL} to tell what it holds")),
        Some(label) if *label != label_of(digest) => {
            Some(format!("by its label {LABEL} it holds another disk"))
        }
        Some(_) => None,
    }
}
