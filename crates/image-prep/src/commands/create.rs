//! `create`: from a disk image to a READY Image.
//!
//! In this order: the fields, the image's metadata, credentials and bucket, one pass over the image
//! that decodes all of it and gives its digest, the upload, the Create call, the operation. What Ctrl-C finds done is taken back:
//! the upload is aborted, the operation cancelled, the object deleted. After a kill the same command finds the upload by its
//! journal, the object by its metadata and the operation by its idempotency key, and goes on from there; after a success it finds
//! the operation, and sends nothing.
//!
//! It is the same way for both clouds; where they differ asks [`Images`](crate::service::Images). Compute Engine reads the object with the
//! rights of the caller, so no URL is signed for it, and it cancels nothing: after Ctrl-C its operation goes on, and is noted.

mod entries;
pub(super) mod forecast;
mod images;
mod manifest;
pub(super) mod many;
mod place;
mod preflight;
mod request;
mod source;

use std::sync::atomic::{AtomicBool, Ordering};

use disk_convert::{Disk, GuestDigest};
use image_api::{ApiError, Code, Operation, OperationOutcome, TransportError};
use object_io::{BucketUri, ObjectError, ObjectUri, Store, without_signature};
use tokio_util::sync::CancellationToken;
use url::Url;

use crate::args::{CreateArgs, Form};
use crate::context::Context;
use crate::error::Error;
use crate::exit::Exit;
use crate::product::form_name;
use crate::service::{Found, Request, id_of_image};
use crate::transfer::{Existing, KEY_PREFIX, Put};
use crate::{notes, resume, service, show, transfer};
use images::Standing;
pub(crate) use manifest::ManifestError;
use place::{Cloud, Place};
use source::{Source, bucket, for_cloud, is_google, owner};

/// Idempotency keys that are tried until one stands for an operation that has not failed long ago.
const ATTEMPTS: u32 = 8;

/// Creates an Image, or several, and prints what came of it.
pub(crate) async fn run(args: &CreateArgs, context: &Context) -> Result<Exit, Error> {
    let args = &for_cloud(args, context)?;
    if args.manifest.is_some() || args.images.len() > 1 {
        return many::run(args, context).await;
    }
    let mut fields = request::of(&args.fields, owner(args, context)?, is_google(args, context)?)?;
    let bucket = bucket(args, context)?;
    let source = Source::of(args, context).await?;
    source.fit(&mut fields, args);
    if args.resume.dry_run {
        return forecast::run(args, context, &fields, &bucket, &source).await;
    }
    let place = Place::open(args, context, [fields.owner()], bucket).await?;
    let create = Create { args, context, fields, cloud: &place.cloud, is_bereft: AtomicBool::new(false) };
    let operation = create.of(&source).await;
    place.close(context).await;
    let operation = operation?;
    let failure = service::failure(&operation);
    if failure.is_none() || context.output.is_json() {
        show::operation(context, &operation)?;
    }
    failure.map_or(Ok(Exit::Done), Err)
}

/// What an idempotency key stands for, beside the fields: the disk, and the form that it is given in.
fn content(digest: GuestDigest, form: Form) -> String {
    format!("{digest} {}", form.name())
}

/// The object, by what it is for: the same command again finds it, and no other command deletes it.
fn object(
    args: &CreateArgs,
    bucket: &BucketUri,
    fields: &Request,
    content: &str,
    disk: &Disk,
) -> Result<ObjectUri, Error> {
    let key = match &args.key {
        Some(key) => key.clone(),
        None => {
            // Clusters and compression too: an operation may still read what an earlier command made with others.
            let made = format!("{content} {}", form_name(disk, args.upload.form(), &args.layout));
            let (digest, request) = (&content[..16], request::key(fields, &made, 0)?.simple().to_string());
            let suffix = match args.upload.form() {
                Form::Qcow2 => "qcow2".to_owned(),
                Form::Raw => "raw".to_owned(),
                Form::Vmdk => "vmdk".to_owned(),
                Form::Gce => "tar.gz".to_owned(),
                Form::Source => disk.image().format().to_string(),
            };
            format!("{KEY_PREFIX}{digest}-{}.{suffix}", &request[..8])
        }
    };
    Ok(ObjectUri::new(bucket.scheme(), bucket.bucket(), key).map_err(ObjectError::from)?)
}

/// One run of the command.
struct Create<'a> {
    args: &'a CreateArgs,
    context: &'a Context,
    fields: Request,
    cloud: &'a Cloud,
    /// The Image that had the name is deleted, and there is none in its place.
    is_bereft: AtomicBool,
}

impl Create<'_> {
    async fn of(mut self, source: &Source) -> Result<Operation, Error> {
        match (source, &self.cloud.store) {
            (Source::Uri(uri), _) => self.of_url(uri).await,
            (Source::Disk(disk, _), Some(store)) => self.of_disk(store, disk).await,
            // A cloud is opened with a store unless the command names a URL.
            (Source::Disk(..), None) => Err(Error::NoBucket),
        }
    }

    async fn of_url(&self, uri: &Url) -> Result<Operation, Error> {
        let replaced = match self.existing_image(None).await? {
            Standing::WillDo(operation) => return Ok(*operation),
            Standing::InTheWay(image) => Some(image),
            Standing::Free => None,
        };
        // What Compute Engine reads with the caller's rights cannot be read here without them.
        if !self.is_google() {
            preflight::check(self.context, uri.as_str(), preflight::Url::Typed).await?;
        }
        // A new signature is the same object.
        let content = without_signature(uri);
        self.make(content.as_str(), uri.as_str(), None, replaced).await
    }

    fn is_google(&self) -> bool {
        matches!(self.fields, Request::Google(_))
    }

    /// How the service is told of an object: by a URL that is signed for it; or by name, where it reads with the rights of the caller.
    async fn location(&self, store: &Store, object: &ObjectUri) -> Result<String, Error> {
        if self.is_google() {
            return Ok(request::location(object));
        }
        let (lifetime, cancel) = (self.args.upload.expires.0, &self.context.cancel);
        let url = store.presign_get(object.bucket(), object.key(), lifetime, cancel).await?;
        Ok(url.expose().to_owned())
    }

    /// The same of an object that is there; a URL is read first.
    async fn readable(&self, store: &Store, object: &ObjectUri) -> Result<String, Error> {
        let uri = self.location(store, object).await?;
        if !self.is_google() {
            preflight::check(self.context, &uri, preflight::Url::Ours).await?;
        }
        Ok(uri)
    }

    async fn of_disk(&mut self, store: &Store, disk: &Disk) -> Result<Operation, Error> {
        let Self { args, context, cloud: Cloud { bucket, .. }, .. } = *self;
        let form = args.upload.form();
        // The service reads by a URL, and a token signs none.
        if !self.is_google() && store.is_bearer() {
            return Err(ObjectError::CannotSign { place: bucket.to_string().into() }.into());
        }
        transfer::check(context, store, bucket.bucket(), args.upload.expires.0).await?;
        let prepared =
            transfer::lay_out(context, Some(store), disk, bucket.bucket(), form, &args.layout).await?;
        let digest = transfer::read(context, disk).await?.guest_digest;
        let replaced = match self.existing_image(Some(digest)).await? {
            Standing::WillDo(operation) => return Ok(*operation),
            Standing::InTheWay(image) => Some(image),
            Standing::Free => None,
        };
        self.label(digest);
        let content = content(digest, form);
        let object = object(args, bucket, &self.fields, &content, disk)?;
        let journal = match args.resume.no_resume {
            true => None,
            false => resume::journal_when_free(context, store, &object).await?,
        };
        if replaced.is_none()
            && let Some(operation) = self.made_before(store, &object, &content).await?
        {
            if let Some(journal) = journal {
                journal.give_up(store).await;
                journal.remove();
            }
            return Ok(operation);
        }
        let put = Put {
            to: &object,
            metadata: transfer::metadata(disk, Some(digest), form, &args.layout),
            existing: Existing::typed(args.if_exists, Existing::ReuseOrReplace),
            journal: journal.as_ref(),
            temporary: !args.keep_object,
        };
        let uploaded = transfer::put(context, store, prepared, put).await?;
        // A key that was not typed is of this command alone, and so is what has it.
        let ours = uploaded.ours || args.key.is_none();
        let result = match self.readable(store, &object).await {
            Ok(uri) => {
                let object = (ours && !args.keep_object).then(|| notes::Object {
                    store: store.endpoint(),
                    bucket: object.bucket().to_owned(),
                    key: object.key().to_owned(),
                    etag: uploaded.etag.clone(),
                });
                self.make(&content, &uri, object, replaced).await
            }
            Err(error) => Err(error),
        };
        let is_needed = match &result {
            Ok(operation) => !operation.done,
            Err(error) => error.may_go_on() || self.is_read_by_another(error).await,
        };
        let is_bereft = self.is_bereft.load(Ordering::Relaxed);
        // Another operation, of an earlier run.
        let reader = || notes::reader(&store.endpoint(), object.bucket(), object.key());
        let is_gone = if is_needed {
            if result.is_err() {
                context.warn(&format!("{object} is kept: an operation may still read it"));
            }
            false
        } else if args.keep_object || !ours {
            true
        } else if is_bereft {
            context.warn(&format!("{object} is kept: the Image can be made of it"));
            false
        } else if let Some(notes::Note { id, .. }) = reader() {
            context.warn(&format!("{object} is kept: operation {id} may still read it"));
            false
        } else {
            transfer::remove(context, store, &object, Some(&uploaded.etag)).await
        };
        // As long as the object is there and should not be, `cleanup` has to know of it.
        if let Some(journal) = journal.filter(|_| is_gone || args.keep_object) {
            journal.remove();
        }
        result
    }

    /// Asks for the Image and, unless that was declined, waits for it. `object` is what is to be removed when it is done,
    /// `replaced` the Image that was set aside for it.
    async fn create(
        &self,
        content: &str,
        uri: &str,
        object: Option<notes::Object>,
        replaced: Option<&Found>,
    ) -> Result<Operation, Error> {
        let request = self.fields.with_uri(uri);
        let mut attempt = 0;
        let operation = loop {
            if attempt == ATTEMPTS {
                // All the others stand for what is over: this one has to be new, even if no later run finds it.
                break self.ask(&request, image_api::Uuid::new_v4()).await?;
            }
            let operation = self.ask(&request, request::key(&self.fields, content, attempt)?).await?;
            if !self.is_over(&operation, replaced).await? {
                break operation;
            }
            self.forget(&operation.id);
            attempt += 1;
        };
        self.follow(operation, object).await
    }

    /// Notes an operation that makes the Image and, unless that was declined, waits for it.
    async fn follow(&self, operation: Operation, object: Option<notes::Object>) -> Result<Operation, Error> {
        tracing::info!("operation {}", operation.id);
        if operation.done {
            // An earlier run may have noted it, and would keep the object for it.
            self.forget(&operation.id);
            return Ok(operation);
        }
        let id = operation.id.clone();
        if let Some(endpoint) = &self.cloud.endpoint {
            let (endpoint, name) = (endpoint.clone(), self.fields.name().to_owned());
            let note = notes::Note { id: id.clone(), endpoint, name, object, given_up: false };
            notes::write(self.context, &note);
        }
        if self.args.detach {
            return Ok(operation);
        }
        let result = match service::wait(self.context, &self.cloud.images, &id).await {
            Err(_) if self.context.cancel.is_cancelled() => self.stop(&id).await,
            Err(Error::Api(source)) => Err(Error::LostOperation { id: id.clone(), source }),
            result => result,
        };
        if !result.as_ref().is_err_and(Error::may_go_on) {
            self.forget(&id);
        }
        result
    }

    /// After Ctrl-C: an operation that is as good as done is done.
    async fn stop(&self, id: &str) -> Result<Operation, Error> {
        match service::cancel_now(self.context, &self.cloud.images, id).await {
            Some(operation) if matches!(operation.outcome(), OperationOutcome::Succeeded(_)) => Ok(operation),
            Some(_) => Err(Error::Interrupted),
            None => {
                let note = self.cloud.endpoint.as_ref().and_then(|endpoint| notes::of(id, endpoint));
                let helps = match (&note, self.is_google()) {
                    (None, _) => "",
                    (Some(_), false) => "; `image-prep cleanup` ends it",
                    (Some(_), true) => {
                        ", as Compute Engine cancels nothing, and make the Image; `image-prep cleanup --cloud gcp` removes what it reads"
                    }
                };
                self.context.warn(&format!("operation {id} may still be running{helps}"));
                if let Some(note) = note {
                    notes::write(self.context, &notes::Note { given_up: true, ..note });
                }
                Err(Error::LostOperation { id: id.to_owned(), source: ApiError::Cancelled })
            }
        }
    }

    /// Removes the note of an operation that is done.
    fn forget(&self, id: &str) {
        if let Some(endpoint) = &self.cloud.endpoint {
            notes::remove(id, endpoint);
        }
    }

    /// The Create call. Ctrl-C does not stop it at once.
    async fn ask(&self, request: &Request, key: image_api::Uuid) -> Result<Operation, Error> {
        let forever = CancellationToken::new();
        if self.context.cancel.is_cancelled() {
            return Err(Error::Interrupted);
        }
        let grace = self.context.grace.create_call();
        tokio::select! {
            answer = self.cloud.images.create(request, key, &forever) => answer,
            () = self.context.interrupted_for(grace) => {
                let name = request.name();
                self.context.warn(&format!(
                    "the service has not answered: there may come to be an Image `{name}`, and the same command again finds it"
                ));
                let source = TransportError::TimedOut { after: grace };
                let server = self.cloud.endpoint.clone().unwrap_or_default();
                Err(ApiError::Transport { call: "create image", server, source }.into())
            }
        }
    }

    /// True if the operation belongs to an earlier run and is of no use to this one: it failed, or its Image has been
    /// deleted or given another name since.
    async fn is_over(&self, operation: &Operation, replaced: Option<&Found>) -> Result<bool, Error> {
        match operation.outcome() {
            OperationOutcome::Running => return Ok(false),
            OperationOutcome::Failed(_) => return Ok(true),
            OperationOutcome::Succeeded(_) => {}
        }
        let Some(image) = Found::made_by(operation) else {
            return match self.is_google() {
                true => self.has_gone(operation).await,
                false => Ok(false),
            };
        };
        match self.cloud.images.again(&image, &self.context.cancel).await? {
            // Under another name it is not what was asked for; the one that was set aside just now is itself.
            Some(found) => {
                Ok(found.name != self.fields.name() && replaced.is_none_or(|old| old.id != found.id))
            }
            None => Ok(true),
        }
    }

    /// True if the name is taken by an Image of Compute Engine that is being made: maybe by this command on another machine, or long
    /// ago, from the same object.
    async fn is_read_by_another(&self, error: &Error) -> bool {
        let is_taken = matches!(error, Error::Api(error) if error.code() == Code::AlreadyExists);
        if !self.is_google() || !is_taken {
            return false;
        }
        let found = self.cloud.images.find(&self.fields, &self.context.cancel).await;
        matches!(found, Ok(Some(image)) if image.is_being_made())
    }

    /// True if what an operation of Compute Engine has made is not there any more. Who may make Images need not be allowed to look.
    async fn has_gone(&self, operation: &Operation) -> Result<bool, Error> {
        match self.cloud.images.find(&self.fields, &self.context.cancel).await {
            Ok(found) => {
                Ok(found.is_none_or(|found| id_of_image(operation).is_some_and(|id| id != found.id)))
            }
            Err(Error::Api(error)) if service::is_refused(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }
}
