//! `create`: from a disk image to a READY Image.
//!
//! In this order: the fields, the image's metadata, credentials and bucket, one pass over the image
//! that decodes all of it and gives its digest, the upload, the Create call, the operation. What Ctrl-C finds done is taken back:
//! the upload is aborted, the operation cancelled, the object deleted. After a kill the same command finds the upload by its
//! journal, the object by its metadata and the operation by its idempotency key, and goes on from there; after a success it finds
//! the operation, and sends nothing.

mod entries;
pub(super) mod forecast;
mod images;
mod manifest;
pub(super) mod many;
mod place;
mod preflight;
mod request;

use std::io::Read;

use disk_convert::{Disk, GuestDigest};
use image_api::{
    ApiError, Code, CreateImageRequest, Image, Operation, OperationOutcome, TransportError, unpack,
};
use object_io::{ObjectUri, Store, without_signature};
use tokio_util::sync::CancellationToken;
use url::Url;

use crate::args::{CreateArgs, Form};
use crate::context::Context;
use crate::error::Error;
use crate::exit::Exit;
use crate::open::open;
use crate::product::{check_form, form_name};
use crate::sizes::min_disk_size;
use crate::transfer::{Existing, KEY_PREFIX, Put};
use crate::{guest, notes, resume, service, show, transfer, url_policy};
use images::Standing;
pub(crate) use manifest::ManifestError;
use place::{Cloud, Place};

/// Where `--local` puts objects.
const LOCAL_BUCKET: &str = "uploads";

/// Folder of what `--local` makes, unless told otherwise.
const LOCAL_FOLDER: &str = "local";

/// Idempotency keys that are tried until one stands for an operation that has not failed long ago.
const ATTEMPTS: u32 = 8;

/// Longest URL that is read from a file: S3 signatures with a session token reach 3 KiB.
const URI_MAX: u64 = 64 << 10;

/// Creates an Image, or several, and prints what came of it.
pub(crate) async fn run(args: &CreateArgs, context: &Context) -> Result<Exit, Error> {
    if args.manifest.is_some() || args.images.len() > 1 {
        return many::run(args, context).await;
    }
    let fields = request::fields(&args.fields, folder_id(args, context)?)?;
    let bucket = bucket(args, context)?;
    let source = Source::of(args, context).await?;
    if args.resume.dry_run {
        return forecast::run(args, context, &fields, bucket, &source).await;
    }
    let place = Place::open(args, context, [fields.folder_id.as_str()], bucket).await?;
    let create = Create { args, context, fields, cloud: &place.cloud };
    let operation = create.of(&source).await;
    place.close(context).await;
    let operation = operation?;
    let failure = service::failure(&operation);
    if failure.is_none() || context.output.is_json() {
        show::operation(context, &operation)?;
    }
    failure.map_or(Ok(Exit::Done), Err)
}

/// The folder of the Image.
fn folder_id(args: &CreateArgs, context: &Context) -> Result<String, Error> {
    match (&args.fields.folder_id, &args.local.local) {
        (None, Some(_)) => Ok(LOCAL_FOLDER.to_owned()),
        (typed, _) => service::folder_id(&args.api, typed.as_deref(), context),
    }
}

/// What the Image is made from.
enum Source {
    /// A disk image to upload.
    Disk(Disk),
    /// A URL that the service reads for itself.
    Uri(Url),
}

impl Source {
    /// Opens the image, or checks the URL.
    async fn of(args: &CreateArgs, context: &Context) -> Result<Self, Error> {
        if let Some(typed) = &args.uri {
            return Ok(Self::Uri(source_uri(typed, args.open.allow_http)?));
        }
        let image = args.image();
        let disk = open(context, image, &args.open).await?;
        check_form(&disk, args.upload.to, &args.open, &args.layout)?;
        if let Some(found) = guest::look(context, &disk).await? {
            guest::advise(context, image, &found, args)?;
        }
        let needed = min_disk_size(disk.image().virtual_size());
        match args.fields.min_disk_size.filter(|size| size.0 < needed) {
            Some(found) => Err(Error::MinDiskSize { found: found.0, needed }),
            None => Ok(Self::Disk(disk)),
        }
    }
}

/// Where to upload; of no meaning for a URL, of which nothing is uploaded.
fn bucket<'a>(args: &'a CreateArgs, context: &'a Context) -> Result<&'a str, Error> {
    match &args.bucket {
        Some(bucket) => Ok(bucket),
        None if args.local.local.is_some() || args.uri.is_some() => Ok(LOCAL_BUCKET),
        None => context.profile()?.bucket.as_deref().ok_or(Error::NoBucket),
    }
}

/// The URL of `--uri`: as typed, or read from `@FILE` or `@-`.
fn source_uri(typed: &str, allow_http: bool) -> Result<Url, Error> {
    let Some(path) = typed.strip_prefix('@') else { return url_policy::check(typed, allow_http) };
    let mut text = String::new();
    let read = match path {
        "-" => std::io::stdin().lock().take(URI_MAX).read_to_string(&mut text),
        path => std::fs::File::open(path).and_then(|file| file.take(URI_MAX).read_to_string(&mut text)),
    };
    read.map_err(|source| Error::File { action: "read the URL in", path: path.into(), source })?;
    url_policy::check(text.trim(), allow_http).map_err(|error| match error {
        // Any file can be named here by mistake, and most hold no URL.
        Error::Scheme { .. } => Error::NoUrl { path: path.into() },
        error => error,
    })
}

/// What an idempotency key stands for, beside the fields: the disk, and the form that it is given in.
fn content(digest: GuestDigest, form: Form) -> String {
    format!("{digest} {}", form.name())
}

/// The object, by what it is for: the same command again finds it, and no other command deletes it.
fn object(
    args: &CreateArgs,
    bucket: &str,
    fields: &CreateImageRequest,
    content: &str,
    disk: &Disk,
) -> Result<ObjectUri, Error> {
    let key = match &args.key {
        Some(key) => key.clone(),
        None => {
            // Clusters and compression too: an operation may still read what an earlier command made with others.
            let made = format!("{content} {}", form_name(disk, args.upload.to, &args.layout));
            let (digest, request) = (&content[..16], request::key(fields, &made, 0)?.simple().to_string());
            let suffix = match args.upload.to {
                Form::Qcow2 => "qcow2".to_owned(),
                Form::Raw => "raw".to_owned(),
                Form::Vmdk => "vmdk".to_owned(),
                Form::Gce => "tar.gz".to_owned(),
                Form::Source => disk.image().format().to_string(),
            };
            format!("{KEY_PREFIX}{digest}-{}.{suffix}", &request[..8])
        }
    };
    Ok(ObjectUri::new(bucket, key).map_err(object_io::ObjectError::from)?)
}

/// One run of the command.
struct Create<'a> {
    args: &'a CreateArgs,
    context: &'a Context,
    fields: CreateImageRequest,
    cloud: &'a Cloud,
}

impl Create<'_> {
    async fn of(mut self, source: &Source) -> Result<Operation, Error> {
        match (source, &self.cloud.store) {
            (Source::Uri(uri), _) => self.of_url(uri).await,
            (Source::Disk(disk), Some(store)) => self.of_disk(store, disk).await,
            // A cloud is opened with a store unless the command names a URL.
            (Source::Disk(_), None) => Err(Error::NoBucket),
        }
    }

    async fn of_url(&self, uri: &Url) -> Result<Operation, Error> {
        let replaced = match self.existing_image(None).await? {
            Standing::WillDo(operation) => return Ok(*operation),
            Standing::InTheWay(image) => Some(image),
            Standing::Free => None,
        };
        preflight::check(self.context, uri.as_str(), preflight::Url::Typed).await?;
        // A new signature is the same object.
        let content = without_signature(uri);
        self.make(content.as_str(), uri.as_str(), None, replaced.as_deref()).await
    }

    async fn of_disk(&mut self, store: &Store, disk: &Disk) -> Result<Operation, Error> {
        let Self { args, context, cloud: Cloud { bucket, .. }, .. } = *self;
        let (form, lifetime) = (args.upload.to, args.upload.expires.0);
        transfer::check(context, store, bucket, lifetime).await?;
        let prepared = transfer::lay_out(context, Some(store), disk, bucket, form, &args.layout).await?;
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
        let result = match store.presign_get(object.bucket(), object.key(), lifetime, &context.cancel).await {
            Ok(url) => match preflight::check(context, url.expose(), preflight::Url::Ours).await {
                Ok(()) => {
                    let object = (ours && !args.keep_object).then(|| notes::Object {
                        store: store.endpoint(),
                        bucket: object.bucket().to_owned(),
                        key: object.key().to_owned(),
                        etag: uploaded.etag.clone(),
                    });
                    self.make(&content, url.expose(), object, replaced.as_deref()).await
                }
                Err(error) => Err(error),
            },
            Err(error) => Err(error.into()),
        };
        let is_needed = match &result {
            Ok(operation) => !operation.done,
            Err(error) => error.may_go_on(),
        };
        // Another operation, of an earlier run.
        let reader = || notes::reader(&store.endpoint(), object.bucket(), object.key());
        let is_gone = if is_needed {
            if result.is_err() {
                context.warn(&format!("{object} is kept: an operation may still read it"));
            }
            false
        } else if args.keep_object || !ours {
            true
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
        replaced: Option<&Image>,
    ) -> Result<Operation, Error> {
        let request = request::with_uri(&self.fields, uri);
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
        tracing::info!("operation {}", operation.id);
        if operation.done {
            // An earlier run may have noted it, and would keep the object for it.
            self.forget(&operation.id);
            return Ok(operation);
        }
        let id = operation.id.clone();
        if let Some(endpoint) = &self.cloud.endpoint {
            let (endpoint, name) = (endpoint.clone(), self.fields.name.clone());
            let note = notes::Note { id: id.clone(), endpoint, name, object, given_up: false };
            notes::write(self.context, &note);
        }
        if self.args.detach {
            return Ok(operation);
        }
        let result = match service::wait(self.context, &self.cloud.client, &id).await {
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
        match service::cancel_now(self.context, &self.cloud.client, id).await {
            Some(operation) if matches!(operation.outcome(), OperationOutcome::Succeeded(_)) => Ok(operation),
            Some(_) => Err(Error::Interrupted),
            None => {
                let note = self.cloud.endpoint.as_ref().and_then(|endpoint| notes::of(id, endpoint));
                let helps = if note.is_some() { "; `image-prep cleanup` ends it" } else { "" };
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
    async fn ask(&self, request: &CreateImageRequest, key: image_api::Uuid) -> Result<Operation, Error> {
        let forever = CancellationToken::new();
        if self.context.cancel.is_cancelled() {
            return Err(Error::Interrupted);
        }
        let grace = self.context.grace.create_call();
        tokio::select! {
            answer = self.cloud.client.create_image(request, key, &forever) => Ok(answer?),
            () = self.context.interrupted_for(grace) => {
                let name = &request.name;
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
    async fn is_over(&self, operation: &Operation, replaced: Option<&Image>) -> Result<bool, Error> {
        let response = match operation.outcome() {
            OperationOutcome::Running => return Ok(false),
            OperationOutcome::Failed(_) => return Ok(true),
            OperationOutcome::Succeeded(response) => response,
        };
        let Some(Ok(image)) = response.as_ref().map(unpack::<Image>) else { return Ok(false) };
        match self.cloud.client.get_image(&image.id, &self.context.cancel).await {
            // Under another name it is not what was asked for; the one that was set aside just now is itself.
            Ok(found) => Ok(found.name != self.fields.name && replaced.is_none_or(|old| old.id != found.id)),
            Err(error) if error.code() == Code::NotFound => Ok(true),
            Err(error) => Err(error.into()),
        }
    }
}
