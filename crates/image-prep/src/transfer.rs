//! A disk into an object store, for `upload` and `create`.

use std::collections::BTreeMap;
use std::env;
use std::path::PathBuf;
use std::time::Duration;

use disk_convert::{Disk, GuestDigest, Sink, Summary, convert, digest};
use object_io::{MultipartOptions, MultipartSink, ObjectError, ObjectUri, Store, StoreConfig};
use tokio_util::sync::CancellationToken;

use crate::args::{Form, LayoutArgs, StoreArgs};
use crate::context::Context;
use crate::error::Error;
use crate::product::{cluster_size, prepare};

/// Metadata of an object: the guest digest of the disk in it.
const GUEST_DIGEST: &str = "guest-digest";
/// Metadata of an object: its form, and what the form depends on.
const FORM: &str = "form";

/// Key of an upload that is begun and aborted, and of a URL that is signed and thrown away.
const PROBE: &str = "image-prep/probe";

/// For an object to be removed after Ctrl-C: what the end of the process leaves.
const DELETE_GRACE: Duration = Duration::from_millis(300);

/// What is in the store after an upload.
#[derive(Debug)]
pub(crate) struct Uploaded {
    /// Bytes of the object.
    pub(crate) size: u64,
    /// Its ETag.
    pub(crate) etag: String,
}

/// Connects to the store that the command line and the environment name.
pub(crate) async fn connect(args: &StoreArgs) -> Result<Store, Error> {
    let config = StoreConfig {
        endpoint_url: args.endpoint_url.clone(),
        region: args.region.clone(),
        profile: args.aws_profile.clone(),
        store_profile: args.store_profile.unwrap_or_default(),
        limit_rate: args.limit_rate.map(|size| size.0),
        memory: store_memory(),
        ..StoreConfig::default()
    };
    Ok(Store::connect(config).await?)
}

/// `$XDG_CACHE_HOME/image-prep/stores`, or beneath `~/.cache`; a relative path there counts as none.
fn store_memory() -> Option<PathBuf> {
    let folder = |name: &str| env::var_os(name).map(PathBuf::from).filter(|folder| folder.is_absolute());
    let cache = folder("XDG_CACHE_HOME").or_else(|| folder("HOME").map(|home| home.join(".cache")));
    cache.map(|cache| cache.join("image-prep/stores"))
}

/// Finds out what can fail without reading the disk: whether the bucket is there, may be written, and URLs may live so long.
pub(crate) async fn check(
    context: &Context,
    store: &Store,
    bucket: &str,
    lifetime: Duration,
) -> Result<(), Error> {
    let cancel = &context.cancel;
    store.presign_get(bucket, PROBE, lifetime, cancel).await?;
    match store.head_bucket(bucket, cancel).await {
        // Who may write objects need not be allowed to ask for the bucket: only an upload that begins shows it.
        Err(ObjectError::AccessDenied { .. }) => {
            let upload = MultipartOptions::default();
            MultipartSink::create(store, bucket, PROBE, 0, upload, cancel).await?.abort().await;
            Ok(())
        }
        answer => Ok(answer?),
    }
}

/// Reads the whole disk: proves that it can be read and decoded, and says what it holds.
pub(crate) async fn read(context: &Context, disk: &Disk) -> Result<Summary, Error> {
    let options = context.options();
    let _shown = context.progress.bytes("reading", options.counters.clone());
    Ok(digest(disk, &options, &context.cancel).await?)
}

/// The object at `to`, if it is what an upload would make: nothing has to be sent then.
pub(crate) async fn present(
    context: &Context,
    store: &Store,
    to: &ObjectUri,
    wanted: &BTreeMap<String, String>,
) -> Result<Option<Uploaded>, Error> {
    match store.head(to.bucket(), to.key(), &context.cancel).await {
        Ok(found) if wanted.iter().all(|(name, value)| found.metadata.get(name) == Some(value)) => {
            Ok(Some(Uploaded { size: found.size, etag: found.etag.unwrap_or_default() }))
        }
        Ok(_) => Ok(None),
        // A store may hide what is not there from whoever may not list the bucket.
        Err(ObjectError::AccessDenied { .. }) => Ok(None),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// What is recorded with an object.
pub(crate) fn metadata(digest: GuestDigest, form: Form, layout: &LayoutArgs) -> BTreeMap<String, String> {
    let form = match form {
        Form::Qcow2 => format!("qcow2-{}", cluster_size(layout)),
        Form::Raw | Form::Source => form.name().to_owned(),
    };
    BTreeMap::from([(GUEST_DIGEST.to_owned(), digest.to_string()), (FORM.to_owned(), form)])
}

/// Uploads the disk. After an error or a cancellation no part of it is left in the store.
pub(crate) async fn put(
    context: &Context,
    store: &Store,
    disk: &Disk,
    to: &ObjectUri,
    form: Form,
    layout: &LayoutArgs,
    metadata: BTreeMap<String, String>,
) -> Result<Uploaded, Error> {
    let product = prepare(context, disk, form, layout).await?;
    let options = context.options();
    let upload = MultipartOptions { metadata, ..MultipartOptions::default() };
    let len = product.layout.len();
    let sink = MultipartSink::create(store, to.bucket(), to.key(), len, upload, &context.cancel).await?;
    let _shown = context.progress.bytes("uploading", options.counters.clone());
    let uploaded = convert(&product.disk, &product.layout, sink, &options, &context.cancel).await?;
    Ok(Uploaded { size: uploaded.size, etag: uploaded.etag })
}

/// Removes an uploaded object. A failure is told, not returned: what the command was for has succeeded or failed already.
pub(crate) async fn remove(context: &Context, store: &Store, object: &ObjectUri) {
    let forever = CancellationToken::new();
    let removal = store.delete(object.bucket(), object.key(), &forever);
    let removed = tokio::select! {
        removed = removal => removed.map_err(|error| error.to_string()),
        () = late(&context.cancel) => Err("no answer in time".to_owned()),
    };
    if let Err(error) = removed {
        context.warn(&format!("{object} is left in the store: {error}"));
    }
}

async fn late(cancel: &CancellationToken) {
    cancel.cancelled().await;
    tokio::time::sleep(DELETE_GRACE).await;
}
