//! `upload`: an image into an object store, and a URL to read it by.

use disk_convert::{Disk, GuestDigest};
use image_api::Transport;
use object_io::Store;
use schemars::JsonSchema;
use serde::Serialize;

use crate::args::{IfExists, UploadArgs};
use crate::context::Context;
use crate::error::Error;
use crate::exit::Exit;
use crate::forecast::Forecast;
use crate::local::Local;
use crate::open::open;
use crate::pass::Counted;
use crate::product::{check_form, form_name};
use crate::transfer::{Existing, Put};
use crate::{resume, times, transfer};

/// The object that was made.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Uploaded<'a> {
    bucket: &'a str,
    key: &'a str,
    /// Bytes of the object.
    size: u64,
    etag: &'a str,
    /// Of the disk in it, unless none was wanted.
    guest_digest: Option<String>,
    /// Pre-signed, for GET: a secret. Where a token takes the place of keys that sign, without a signature.
    url: &'a str,
    /// When the URL ends, if it is signed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "date-time"))]
    expires_at: Option<String>,
    /// How much work that was, pass by pass.
    counters: Counted,
}

/// Uploads, and prints the URL: the secret is the result here.
pub(crate) async fn run(args: &UploadArgs, context: &Context) -> Result<Exit, Error> {
    let disk = open(context, &args.image, &args.open).await?;
    check_form(&disk, args.upload.form(), &args.open, &args.layout)?;
    if args.no_digest && args.if_exists == Some(IfExists::Reuse) {
        return Err(Error::ReuseWithoutDigest);
    }
    if args.resume.dry_run {
        return forecast(args, &disk, context).await;
    }
    match &args.local.local {
        None => {
            let store = transfer::connect(&args.store, args.to_url.scheme(), None, context).await?;
            upload(args, &disk, &store, context).await
        }
        Some(dir) => {
            let local = Local::start(dir.as_deref(), Transport::default(), context).await?;
            let result = match local.bucket(args.to_url.bucket(), context).await {
                Ok(()) => upload(args, &disk, local.store(), context).await,
                Err(error) => Err(error),
            };
            local.stop(context).await;
            result
        }
    }
}

async fn upload(args: &UploadArgs, disk: &Disk, store: &Store, context: &Context) -> Result<Exit, Error> {
    let (to, form, lifetime) = (&args.to_url, args.upload.form(), args.upload.expires.0);
    transfer::check(context, store, to.bucket(), lifetime).await?;
    let journal = match args.resume.no_resume {
        true => None,
        false => resume::journal(context, store, to)?,
    };
    let existing = Existing::typed(args.if_exists, Existing::Replace);
    transfer::refuse_existing(context, store, to, existing, journal.as_ref()).await?;
    let prepared = transfer::lay_out(context, Some(store), disk, &to.to_string(), form, &args.layout).await?;
    let digest = digest(args, disk, context).await?;
    let metadata = transfer::metadata(disk, digest, form, &args.layout);
    let put = Put { to, metadata, existing, journal: journal.as_ref(), temporary: false };
    let uploaded = transfer::put(context, store, prepared, put).await?;
    let (url, expires_at) = match store.is_bearer() {
        true => {
            context.note("the URL is not signed: only HMAC keys sign");
            (store.url(to.bucket(), to.key(), &context.cancel).await?.to_string(), None)
        }
        false => {
            let url = store.presign_get(to.bucket(), to.key(), lifetime, &context.cancel).await?;
            (url.expose().to_owned(), Some(times::rfc3339(url.expires_at())))
        }
    };
    if let Some(journal) = &journal {
        journal.remove();
    }
    if context.output.is_json() {
        context.output.json(&Uploaded {
            bucket: to.bucket(),
            key: to.key(),
            size: uploaded.size,
            etag: &uploaded.etag,
            guest_digest: digest.map(|digest| digest.to_string()),
            url: &url,
            expires_at,
            counters: context.counters(),
        })?;
    } else {
        context.output.line(&url)?;
    }
    Ok(Exit::Done)
}

/// What would be uploaded.
async fn forecast(args: &UploadArgs, disk: &Disk, context: &Context) -> Result<Exit, Error> {
    let (to, form) = (args.to_url.to_string(), args.upload.form());
    let prepared = transfer::lay_out(context, None, disk, &to, form, &args.layout).await?;
    let digest = digest(args, disk, context).await?;
    let form = form_name(disk, form, &args.layout);
    Forecast::new(to, &form, digest, &prepared).print(context)?;
    Ok(Exit::Done)
}

/// The guest digest, which takes a pass over the disk, unless it was declined.
async fn digest(args: &UploadArgs, disk: &Disk, context: &Context) -> Result<Option<GuestDigest>, Error> {
    match args.no_digest {
        true => Ok(None),
        false => Ok(Some(transfer::read(context, disk).await?.guest_digest)),
    }
}
