//! `upload`: an image into an object store, and a URL to read it by.

use std::time::SystemTime;

use disk_convert::Disk;
use object_io::Store;
use serde_json::json;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::args::UploadArgs;
use crate::context::Context;
use crate::error::Error;
use crate::exit::Exit;
use crate::local::Local;
use crate::open::open;
use crate::product::check_form;
use crate::transfer;

/// Uploads, and prints the URL: the secret is the result here.
pub(crate) async fn run(args: &UploadArgs, context: &Context) -> Result<Exit, Error> {
    let disk = open(context, &args.image, &args.open).await?;
    check_form(&disk, args.upload.to, &args.open, &args.layout)?;
    match &args.local.local {
        None => upload(args, &disk, &transfer::connect(&args.store).await?, context).await,
        Some(dir) => {
            let local = Local::start(dir.as_deref(), context).await?;
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
    let (to, form, lifetime) = (&args.to_url, args.upload.to, args.upload.expires.0);
    transfer::check(context, store, to.bucket(), lifetime).await?;
    let summary = transfer::read(context, disk).await?;
    let metadata = transfer::metadata(summary.guest_digest, form, &args.layout);
    let uploaded = transfer::put(context, store, disk, to, form, &args.layout, metadata).await?;
    let url = store.presign_get(to.bucket(), to.key(), lifetime, &context.cancel).await?;
    if context.output.is_json() {
        context.output.json(&json!({
            "bucket": to.bucket(),
            "key": to.key(),
            "size": uploaded.size,
            "etag": uploaded.etag,
            "guestDigest": summary.guest_digest.to_string(),
            "url": url.expose(),
            "expiresAt": rfc3339(url.expires_at()),
            "counters": context.counters(),
        }))?;
    } else {
        context.output.line(url.expose())?;
    }
    Ok(Exit::Done)
}

/// In UTC, to the second.
fn rfc3339(time: SystemTime) -> String {
    let time = OffsetDateTime::from(time);
    // Only years past 9999 have no such text, and URLs live 30 days.
    time.replace_nanosecond(0).ok().and_then(|time| time.format(&Rfc3339).ok()).unwrap_or_default()
}
