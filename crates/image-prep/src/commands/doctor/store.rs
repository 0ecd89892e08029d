//! The steps that are about the bucket, with an object of a name that nobody else has. It is removed whatever happens, after
//! Ctrl-C too.

use std::time::Duration;

use disk_convert::ByteSource as _;
use image_api::Uuid;
use object_io::{
    HttpOptions, HttpSource, MultipartOptions, MultipartSink, ObjectError, ObjectUri, PutOptions, Store,
    Stored,
};

use super::Findings;
use crate::error::Error;
use crate::transfer::{KEY_PREFIX, remove};

/// What is written.
const PROBE: &[u8] = b"image-prep doctor: this may be removed\n";

/// For a URL that is used at once.
const LIFETIME: Duration = Duration::from_secs(300);

/// All steps, from the bucket to the removal of the probe.
pub(super) async fn check(
    findings: &mut Findings<'_>,
    store: &Store,
    bucket: Option<&str>,
) -> Result<(), Error> {
    let cancel = &findings.context.cancel;
    findings.ok("store", &store.endpoint())?;
    let Some(bucket) = bucket else {
        return findings.skip("bucket", "none is named: --bucket, IMAGE_PREP_BUCKET or a profile does");
    };
    match store.head_bucket(bucket, cancel).await {
        Ok(()) => findings.ok("bucket", &format!("`{bucket}` is there"))?,
        // Who may write objects need not be allowed to ask for the bucket.
        Err(error @ ObjectError::AccessDenied { .. }) => findings.warn("bucket", &error.to_string(), None)?,
        Err(error) => return findings.failed_with("bucket", &error.into(), None),
    }
    let key = format!("{KEY_PREFIX}doctor-{}", Uuid::new_v4().simple());
    let object: ObjectUri = store.place(bucket, &key).parse().map_err(ObjectError::from)?;
    let put = store.put(bucket, object.key(), PROBE.into(), &PutOptions::default(), cancel).await;
    let tried = objects(findings, store, &object, &put).await;
    // Before anything of the above is returned. What was denied is not there.
    let is_denied = matches!(&put, Err(ObjectError::AccessDenied { .. }));
    let removed = is_denied || remove(findings.context, store, &object, None).await;
    tried?;
    if put.is_err() {
        return Ok(());
    }
    if !removed {
        return findings.fail(
            "delete",
            "the probe is left in the store",
            "allow deleting objects in the bucket",
        );
    }
    match store.head(object.bucket(), object.key(), &findings.context.cancel).await {
        Ok(_) => {
            let fix = "switch off versions and locks in the bucket, or remove it by hand";
            findings.fail("delete", &format!("{object} is still there"), fix)
        }
        // A store may hide what is not there from whoever may not list the bucket.
        Err(error) if error.is_not_found() => findings.ok("delete", "the probe is gone again"),
        Err(ObjectError::AccessDenied { .. }) => findings.ok("delete", "the probe is gone again"),
        Err(error) => findings.failed_with("delete", &error.into(), None),
    }
}

/// The steps between.
async fn objects(
    findings: &mut Findings<'_>,
    store: &Store,
    object: &ObjectUri,
    put: &Result<Stored, ObjectError>,
) -> Result<(), Error> {
    let cancel = &findings.context.cancel;
    let (bucket, key) = (object.bucket(), object.key());
    match put {
        Ok(_) => {
            findings.ok("put", "an object can be written")?;
            match store.is_bearer() {
                true => findings.skip("signed URL", "only HMAC keys sign; Compute Engine needs none")?,
                false => read_back(findings, store, object).await?,
            }
        }
        Err(error) => {
            let fix = "give the account the role storage.uploader on the bucket";
            findings.fail("put", &super::told(error), error.hint().unwrap_or(fix))?;
        }
    }
    match MultipartSink::create(store, bucket, key, 0, MultipartOptions::default(), cancel).await {
        Ok(upload) => {
            disk_convert::Sink::abort(&upload).await;
            // Who may upload need not be allowed to list.
            match store.list_uploads(bucket, key, cancel).await {
                Ok(left) if !left.is_empty() => {
                    let fix = "`image-prep cleanup` removes it; allow aborting uploads in the bucket";
                    findings.fail("multipart", "an upload can be begun, and not aborted", fix)?;
                }
                _ => findings.ok("multipart", "an upload can be begun and aborted")?,
            }
        }
        Err(error) => findings.failed_with("multipart", &error.into(), None)?,
    }
    Ok(())
}

/// The way that the image service takes.
async fn read_back(findings: &mut Findings<'_>, store: &Store, object: &ObjectUri) -> Result<(), Error> {
    let cancel = &findings.context.cancel;
    let url = match store.presign_get(object.bucket(), object.key(), LIFETIME, cancel).await {
        Ok(url) => url,
        Err(error) => return findings.failed_with("signed URL", &error.into(), None),
    };
    match HttpSource::open(url.expose(), &HttpOptions::default(), cancel).await {
        Ok(source) if source.len() == PROBE.len() as u64 => {
            findings.ok("signed URL", "the object can be read by ranges")
        }
        Ok(source) => {
            let text = format!("the object has {} bytes there, not {}", source.len(), PROBE.len());
            findings.fail("signed URL", &text, "look for a proxy before the store")
        }
        Err(error) => {
            let fix = "give the account whose keys sign the role storage.viewer on the bucket";
            findings.failed_with("signed URL", &error.into(), Some(fix))
        }
    }
}
