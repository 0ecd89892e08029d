//! A disk into an object store, for `upload` and `create`.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use disk_convert::{
    ConvertError, Disk, GuestDigest, Packed, Sink, Summary, digest, least_memory, least_memory_to_pack,
};
use object_io::limits::PART_LEN;
use object_io::{
    Journal, MultipartOptions, MultipartSink, ObjectError, ObjectInfo, ObjectUri, PartPlan, Resumed, Scheme,
    Store, StoreConfig, UploadOf, UploadedObject,
};
use tokio_util::sync::CancellationToken;

use crate::args::{ApiArgs, Form, IfExists, LayoutArgs, StoreArgs};
use crate::cloud::{self, Cloud};
use crate::context::Context;
use crate::credentials::{By, Told, variable};
use crate::error::Error;
use crate::product::{LAYOUT, Layout, Product, form_name, prepare};
use crate::{folders, resume, service};

/// Metadata of an object: the guest digest of the disk in it.
pub(crate) const GUEST_DIGEST: &str = "guest-digest";
/// Metadata of an object: its form, and what the form depends on.
pub(crate) const FORM: &str = "form";

/// What the keys begin with that are made here.
pub(crate) const KEY_PREFIX: &str = "image-prep/";

/// The store that stands in for Google's.
const EMULATOR_VARIABLE: &str = "STORAGE_EMULATOR_HOST";

/// Key of an upload that is begun and aborted, and of a URL that is signed and thrown away.
const PROBE: &str = "image-prep/probe";

/// What is in the store after an upload.
#[derive(Debug)]
pub(crate) struct Uploaded {
    /// Bytes of the object.
    pub(crate) size: u64,
    /// Its ETag.
    pub(crate) etag: String,
    /// This command made it, now or in a run before.
    pub(crate) ours: bool,
}

/// Connects to the store that the command line, the environment and the profile name. A cloud that was chosen has one of its own, and so
/// have names in Google Cloud Storage: what is set for other stores is not theirs.
pub(crate) async fn connect(
    args: &StoreArgs,
    scheme: Scheme,
    api: Option<&ApiArgs>,
    context: &Context,
) -> Result<Store, Error> {
    let own = context.profile()?;
    // What the environment says is read where the store is connected to, and comes before the profile.
    let own_unless = |variables: &[&str], value: &Option<String>| {
        value.clone().filter(|_| variables.iter().all(|name| variable(name).is_none()))
    };
    let endpoints = ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "YC_STORAGE_ENDPOINT_URL"];
    // Keys too: a profile that is named comes before them.
    let keys = ["AWS_PROFILE", "AWS_ACCESS_KEY_ID", "YC_STORAGE_ACCESS_KEY"];
    let cloud = api.and_then(|api| api.cloud).or(own.cloud);
    let typed = |value: &Option<String>, or: Option<String>| value.clone().or(or);
    // Where there are keys nobody minds what is wrong with tokens.
    let (endpoint_url, default_endpoint_url, tokens) = match scheme {
        Scheme::Gs => {
            let endpoint = google_endpoint(args);
            let tokens = service::store_tokens(api, &endpoint, context);
            (Some(endpoint.value), None, tokens)
        }
        Scheme::S3 => {
            let cloud = cloud.filter(|cloud| *cloud != Cloud::Gcp);
            let default = cloud.map(|cloud| Cloud::storage_url(cloud).to_owned());
            (typed(&args.endpoint_url, own_unless(&endpoints, &own.storage_endpoint_url)), default, Ok(None))
        }
    };
    // A profile is about the store of its own cloud, and its keys are no business of another's.
    let is_at_home = (scheme == Scheme::Gs) == (own.cloud == Some(Cloud::Gcp));
    let own_aws_profile = own.aws_profile.clone().filter(|_| is_at_home);
    let (tokens, without) = match tokens {
        Ok(tokens) => (tokens, Error::NoStorageCredentials { source: None }),
        Err(error) => (None, error),
    };
    let config = StoreConfig {
        scheme,
        tokens,
        endpoint_url,
        default_endpoint_url,
        region: typed(&args.region, own_unless(&["AWS_REGION", "AWS_DEFAULT_REGION"], &own.region)),
        profile: typed(&args.aws_profile, own_unless(&keys, &own_aws_profile)),
        store_profile: args.store_profile.unwrap_or_default(),
        limit_rate: args.limit_rate.map(|size| size.0),
        memory: folders::of_user("XDG_CACHE_HOME", ".cache").map(|cache| cache.join("stores")),
        ..StoreConfig::default()
    };
    match Store::connect(config).await {
        Err(ObjectError::NoCredentials) if scheme == Scheme::Gs => Err(without),
        Err(ObjectError::Credentials { source }) if scheme == Scheme::Gs => {
            Err(Error::NoStorageCredentials { source: Some(source) })
        }
        connected => Ok(connected?),
    }
}

/// The store of what is known by an endpoint, or of the cloud that was chosen: Google's, or another.
pub(crate) fn scheme_at(endpoint: &str, api: &ApiArgs, context: &Context) -> Result<Scheme, Error> {
    match service::is_google(api, context)? {
        true => Ok(Scheme::Gs),
        false => Ok(Scheme::of_endpoint(endpoint)),
    }
}

/// Google's store, or what was named in its place.
fn google_endpoint(args: &StoreArgs) -> Told<String> {
    match (&args.endpoint_url, emulator()) {
        (Some(typed), _) => Told { value: typed.clone(), by: By::Option("--endpoint-url") },
        (None, Some(url)) => Told { value: url, by: By::Variable(EMULATOR_VARIABLE) },
        (None, None) => Told { value: Cloud::Gcp.storage_url().to_owned(), by: By::Default },
    }
}

/// Fails where Google's own Compute Engine would be told of an object by its name, and the object would be in another store.
pub(crate) fn check_store(args: &StoreArgs, api: &ApiArgs, context: &Context) -> Result<(), Error> {
    let Told { value, by } = google_endpoint(args);
    let is_its_own = cloud::parse(&value, "https", true).is_ok_and(|url| Cloud::Gcp.has(&url));
    match is_its_own || !service::is_googles_own(api, context)? {
        true => Ok(()),
        false => Err(Error::StoreElsewhere { by: by.to_string() }),
    }
}

/// The store that stands in for Google's, by the name that Google's own clients have for it: a URL, or host and port, which stand for plain
/// http.
fn emulator() -> Option<String> {
    let host = variable(EMULATOR_VARIABLE)?;
    Some(if host.contains("://") { host } else { format!("http://{host}") })
}

/// Finds out what can fail without reading the disk: whether the bucket is there, may be written, and URLs may live so long.
pub(crate) async fn check(
    context: &Context,
    store: &Store,
    bucket: &str,
    lifetime: Duration,
) -> Result<(), Error> {
    let cancel = &context.cancel;
    if !store.is_bearer() {
        store.presign_get(bucket, PROBE, lifetime, cancel).await?;
    }
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
    let pass = context.pass("reading");
    let summary = digest(disk, &pass.options, &context.cancel).await?;
    pass.end();
    Ok(summary)
}

/// What becomes of an object that has the key already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Existing {
    /// It stays, and that is an error.
    Fail,
    /// It will do if it is what an upload would make; else that is an error.
    Reuse,
    /// It will do if it is what an upload would make; else it is replaced.
    ReuseOrReplace,
    /// It is replaced, whatever it is.
    Replace,
}

impl Existing {
    /// As typed.
    pub(crate) fn typed(what: Option<IfExists>, default: Self) -> Self {
        match what {
            None => default,
            Some(IfExists::Fail) => Self::Fail,
            Some(IfExists::Reuse) => Self::Reuse,
            Some(IfExists::Replace) => Self::Replace,
        }
    }
}

/// A disk that was laid out as an object, and how the object will be cut.
pub(crate) struct Prepared {
    /// The disk and the layout.
    pub(crate) product: Product,
    /// The parts.
    pub(crate) plan: PartPlan,
}

/// Lays the disk out, and finds out whether the object fits an upload, to `store` if it is known, and two of its parts the memory.
pub(crate) async fn lay_out(
    context: &Context,
    store: Option<&Store>,
    disk: &Disk,
    place: &str,
    form: Form,
    layout: &LayoutArgs,
) -> Result<Prepared, Error> {
    let memory = context.memory();
    let enough = |needed| match memory < needed {
        true => Err(ConvertError::Budget { memory, needed }),
        false => Ok(()),
    };
    // Before anything is read for it: no part is smaller.
    enough(least_memory(disk, PART_LEN))?;
    let product = prepare(context, disk, form, layout).await?;
    let len = product.layout.max_len();
    let plan = store.map_or_else(|| PartPlan::new(place, len), |store| store.plan(place, len))?;
    enough(match &product.layout {
        Layout::Map(_) => least_memory(&product.disk, plan.part_len),
        Layout::Packed(layout) => least_memory_to_pack(&product.disk, layout, plan.part_len),
    })?;
    Ok(Prepared { product, plan })
}

/// An upload.
pub(crate) struct Put<'a> {
    /// Where to.
    pub(crate) to: &'a ObjectUri,
    /// What is recorded with the object.
    pub(crate) metadata: BTreeMap<String, String>,
    /// What becomes of an object that is there.
    pub(crate) existing: Existing,
    /// Where the upload is noted, if it may be continued.
    pub(crate) journal: Option<&'a Arc<Journal>>,
    /// The object is removed when it has served its purpose.
    pub(crate) temporary: bool,
}

impl Put<'_> {
    fn of(&self, disk: &Disk) -> UploadOf {
        UploadOf {
            form: self.metadata.get(FORM).cloned().unwrap_or_default(),
            layout: LAYOUT,
            guest_digest: self.metadata.get(GUEST_DIGEST).cloned(),
            sources: resume::sources(disk),
            temporary: self.temporary,
        }
    }

    /// True if an object is what this upload would make.
    fn is_made(&self, found: &ObjectInfo) -> bool {
        self.metadata.iter().all(|(name, value)| found.metadata.get(name) == Some(value))
    }
}

/// Fails if there is an object that was not made here, and there should be none.
pub(crate) async fn refuse_existing(
    context: &Context,
    store: &Store,
    to: &ObjectUri,
    existing: Existing,
    journal: Option<&Arc<Journal>>,
) -> Result<(), Error> {
    match existing {
        Existing::Fail => match find(context, store, to).await? {
            Some(found) if !made_here(journal, &found) => Err(Error::Exists { place: to.to_string() }),
            _ => Ok(()),
        },
        _ => Ok(()),
    }
}

/// The object at `to`.
pub(crate) async fn find(
    context: &Context,
    store: &Store,
    to: &ObjectUri,
) -> Result<Option<ObjectInfo>, Error> {
    match store.head(to.bucket(), to.key(), &context.cancel).await {
        Ok(found) => Ok(Some(found)),
        // A store may hide what is not there from whoever may not list the bucket.
        Err(ObjectError::AccessDenied { .. }) => Ok(None),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn made_here(journal: Option<&Arc<Journal>>, found: &ObjectInfo) -> bool {
    journal.zip(found.etag.as_deref()).is_some_and(|(journal, etag)| journal.made(etag))
}

/// What is recorded with an object.
pub(crate) fn metadata(
    disk: &Disk,
    digest: Option<GuestDigest>,
    form: Form,
    layout: &LayoutArgs,
) -> BTreeMap<String, String> {
    let form = (FORM.to_owned(), form_name(disk, form, layout));
    let digest = digest.map(|digest| (GUEST_DIGEST.to_owned(), digest.to_string()));
    digest.into_iter().chain([form]).collect()
}

/// Uploads the disk, or what is missing of it. After a cancellation no part of it is left in the store; after a failure that
/// may pass, upload and journal are, if there is a journal.
pub(crate) async fn put(
    context: &Context,
    store: &Store,
    prepared: Prepared,
    put: Put<'_>,
) -> Result<Uploaded, Error> {
    let Prepared { product, plan } = prepared;
    let (to, journal) = (put.to, put.journal);
    if let Some(journal) = journal.filter(|_| !put.temporary) {
        // Whatever an earlier run wanted it for: `cleanup` would remove it.
        journal.keep_object();
    }
    let found = find(context, store, to).await?;
    let ours = found.as_ref().is_some_and(|found| made_here(journal, found));
    if let Some(found) = found {
        let place = || to.to_string();
        match (put.existing, put.is_made(&found)) {
            (Existing::Reuse | Existing::ReuseOrReplace, true) => {
                tracing::info!("{to} holds this disk already");
                // What was begun in its place is of no more use.
                if let Some(journal) = journal.filter(|_| !ours) {
                    journal.give_up(store).await;
                }
                return Ok(Uploaded { size: found.size, etag: found.etag.unwrap_or_default(), ours });
            }
            (Existing::Fail, _) if !ours => return Err(Error::Exists { place: place() }),
            (Existing::Reuse, false) if !ours => return Err(Error::ExistsOther { place: place() }),
            _ => {}
        }
    }
    let if_none_match = matches!(put.existing, Existing::Fail | Existing::Reuse) && !ours;
    let of = put.of(&product.disk);
    let upload = MultipartOptions {
        metadata: put.metadata,
        if_none_match,
        copy_holes: true,
        may_be_shorter: !product.layout.is_exact(),
        ..MultipartOptions::default()
    };
    let (bucket, key, len) = (to.bucket(), to.key(), plan.len);
    let sink = match journal {
        None => {
            let created = MultipartSink::create(store, bucket, key, len, upload, &context.cancel);
            match in_time(context, context.grace.abort_upload(), Box::pin(created)).await {
                Some(sink) => sink?,
                None => return Err(left(context, to, None)),
            }
        }
        Some(journal) => {
            let resumed =
                MultipartSink::resume(store, bucket, key, len, upload, journal, of, &context.cancel);
            let Some(resumed) = in_time(context, context.grace.abort_upload(), Box::pin(resumed)).await
            else {
                return Err(left(context, to, Some(journal)));
            };
            match resumed? {
                Resumed::Sink(sink, progress) => {
                    resume::tell(context, progress, product.disk.source().name(), to);
                    resume::warn_of_failure(context, journal);
                    *sink
                }
                Resumed::Done(UploadedObject { size, etag, .. }) => {
                    context.note(&format!("{to} was whole already"));
                    return Ok(Uploaded { size, etag, ours: true });
                }
            }
        }
    };
    let told = journal.is_some_and(|journal| journal.failure().is_some());
    let pass = context.pass("uploading");
    let made = product.make(sink, &pass.options, &context.cancel);
    let Some(result) = in_time(context, context.grace.abort_upload(), Box::pin(made)).await else {
        return Err(left(context, to, journal));
    };
    if let Some(journal) = journal.filter(|_| !told) {
        resume::warn_of_failure(context, journal);
    }
    match (result, journal) {
        (Ok(Packed { output: UploadedObject { size, etag, .. }, .. }), _) => {
            pass.end();
            Ok(Uploaded { size, etag, ours: true })
        }
        (Err(error), Some(journal)) if !context.cancel.is_cancelled() => {
            Err(resume::after_failure(store, journal, error).await)
        }
        // What the store would not abort is still in the journal.
        (Err(_), Some(journal)) if journal.begun().is_some() => Err(left(context, to, Some(journal))),
        (Err(error), _) => Err(error.into()),
    }
}

/// What becomes of an upload that was cancelled, if it is known in time. It lies on the heap: it is large, and would be copied from frame to
/// frame of a small stack.
async fn in_time<F: Future>(context: &Context, grace: Duration, upload: Pin<Box<F>>) -> Option<F::Output> {
    tokio::select! {
        done = upload => Some(done),
        () = context.interrupted_for(grace) => None,
    }
}

/// Tells that an upload was cancelled and may not have been aborted.
fn left(context: &Context, to: &ObjectUri, journal: Option<&Arc<Journal>>) -> Error {
    let helps = match journal.is_some_and(|journal| journal.begun().is_some()) {
        true => "`image-prep cleanup` removes it".to_owned(),
        // Only the store can know of it.
        false => format!("`image-prep cleanup {to}` removes it"),
    };
    context.warn(&format!(
        "the upload to {to} may be left in the store, with the zeroes that it copies; {helps}"
    ));
    Error::Interrupted
}

/// Deletes an object, if it is the one of that ETag where one is named; false if another has its place by now.
pub(crate) async fn delete_if(
    store: &Store,
    bucket: &str,
    key: &str,
    etag: Option<&str>,
    cancel: &CancellationToken,
) -> Result<bool, ObjectError> {
    if let Some(etag) = etag {
        match store.head(bucket, key, cancel).await {
            Ok(found) if found.etag.as_deref().is_some_and(|found| found != etag) => return Ok(false),
            Err(error) if error.is_not_found() => return Ok(true),
            // Who may delete need not be allowed to look.
            Ok(_) | Err(ObjectError::AccessDenied { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    store.delete(bucket, key, cancel).await.map(|()| true)
}

/// Removes an uploaded object, if it is the one of that ETag where one is named: what was put in its place since is somebody
/// else's. A failure is told, not returned as an error: what the command was for has succeeded or failed already. False if the
/// object may still be there.
pub(crate) async fn remove(context: &Context, store: &Store, object: &ObjectUri, etag: Option<&str>) -> bool {
    let forever = CancellationToken::new();
    let removal = delete_if(store, object.bucket(), object.key(), etag, &forever);
    let removed = match in_time(context, context.grace.delete_object(), Box::pin(removal)).await {
        Some(removed) => removed.map_err(|error| error.to_string()),
        None => Err("no answer in time".to_owned()),
    };
    match removed {
        Ok(true) => true,
        Ok(false) => {
            context.warn(&format!("{object} is left in the store: it is another one by now"));
            // Not ours any more.
            true
        }
        Err(error) => {
            context.warn(&format!("{object} is left in the store: {error}"));
            false
        }
    }
}
