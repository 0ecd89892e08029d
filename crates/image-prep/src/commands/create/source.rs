//! What a command is about: what the Image is made from, where its object goes, and whose it is to be.

use std::io::Read as _;

use disk_convert::Disk;
use guest_info::Guest;
use object_io::{BucketUri, ObjectError, ObjectUri, Scheme};
use url::Url;

use super::request;
use crate::args::{CreateArgs, Form, IfExists};
use crate::context::Context;
use crate::error::Error;
use crate::open::open;
use crate::product::check_form;
use crate::service::{self, Request};
use crate::sizes::min_disk_size;
use crate::{guest, transfer, url_policy};

/// Where `--local` puts objects.
const LOCAL_BUCKET: &str = "uploads";

/// Folder of what `--local` makes, unless told otherwise.
const LOCAL_FOLDER: &str = "local";

/// Longest URL that is read from a file: S3 signatures with a session token reach 3 KiB.
const URI_MAX: u64 = 64 << 10;

/// Whether the Image is to be one of Compute Engine.
pub(super) fn is_google(args: &CreateArgs, context: &Context) -> Result<bool, Error> {
    Ok(args.local.local.is_none() && service::is_google(&args.api, context)?)
}

/// The command with what its cloud implies: Compute Engine takes one form of an object, and no other.
pub(super) fn for_cloud(args: &CreateArgs, context: &Context) -> Result<CreateArgs, Error> {
    let mut args = args.clone();
    if !is_google(&args, context)? {
        return match args.api.project {
            Some(_) => Err(Error::OtherCloud { what: "--project", cloud: Error::YANDEX }),
            None => Ok(args),
        };
    }
    service::check_transport(&args.api)?;
    if args.uri.is_some() && args.if_exists == Some(IfExists::Replace) {
        return Err(Error::ReplaceByUri);
    }
    transfer::check_store(&args.store, &args.api, context)?;
    match args.upload.to.replace(Form::Gce) {
        None | Some(Form::Gce) => Ok(args),
        Some(_) => Err(Error::OtherCloud { what: "a form other than gce", cloud: Error::COMPUTE_ENGINE }),
    }
}

/// Whose the Image is to be: a folder, or a project.
pub(super) fn owner(args: &CreateArgs, context: &Context) -> Result<String, Error> {
    if is_google(args, context)? {
        return service::project(&args.api, context);
    }
    match (&args.fields.folder_id, &args.local.local) {
        (None, Some(_)) => Ok(LOCAL_FOLDER.to_owned()),
        (typed, _) => service::folder_id(&args.api, typed.as_deref(), context),
    }
}

/// What the Image is made from.
pub(super) enum Source {
    /// A disk image to upload, and what is known to be in it.
    Disk(Disk, Option<Box<Guest>>),
    /// A URL that the service reads for itself.
    Uri(Url),
}

impl Source {
    /// Opens the image, or checks the URL.
    pub(super) async fn of(args: &CreateArgs, context: &Context) -> Result<Self, Error> {
        let is_google = is_google(args, context)?;
        if let Some(typed) = &args.uri {
            return Ok(Self::Uri(source_uri(typed, is_google, args.open.allow_http)?));
        }
        let image = args.image();
        let disk = open(context, image, &args.open).await?;
        check_form(&disk, args.upload.form(), &args.open, &args.layout)?;
        let guest = guest::look(context, &disk).await?;
        if let Some(found) = &guest {
            guest::advise(context, image, found, args, is_google)?;
        }
        let needed = min_disk_size(disk.image().virtual_size());
        match args.fields.min_disk_size.filter(|size| size.0 < needed) {
            Some(found) => Err(Error::MinDiskSize { found: found.0, needed }),
            None => Ok(Self::Disk(disk, guest.map(Box::new))),
        }
    }

    /// Adds to a request what the disk tells and nobody typed, where the cloud wants to be told.
    pub(super) fn fit(&self, request: &mut Request, args: &CreateArgs) {
        if let Self::Disk(_, guest) = self {
            request::fit(request, &args.fields, guest.as_deref());
        }
    }
}

/// Where to upload; of no meaning for a URL, of which nothing is uploaded.
pub(super) fn bucket(args: &CreateArgs, context: &Context) -> Result<BucketUri, Error> {
    let is_google = is_google(args, context)?;
    let at_home = if is_google { Scheme::Gs } else { Scheme::S3 };
    let uri = match &args.bucket {
        Some(bucket) => bucket.uri(at_home),
        None if args.local.local.is_some() || args.uri.is_some() => at_home.place(LOCAL_BUCKET, "").parse(),
        None => service::own_bucket(&args.api, context)?.ok_or(Error::NoBucket)?.uri(at_home),
    };
    let uri = uri.map_err(ObjectError::from)?;
    match is_google && uri.scheme() != Scheme::Gs {
        true => Err(Error::OtherCloud { what: "a bucket of s3://", cloud: Error::COMPUTE_ENGINE }),
        false => Ok(uri),
    }
}

/// The URL of `--uri`: as typed, or read from `@FILE` or `@-`.
fn source_uri(typed: &str, is_google: bool, allow_http: bool) -> Result<Url, Error> {
    let file = typed.strip_prefix('@');
    let text = file.map_or_else(|| Ok(typed.to_owned()), read_uri)?;
    let text = text.trim();
    match text.parse::<ObjectUri>() {
        // By its name, as Compute Engine reads whatever is there.
        Ok(object) if is_google && object.scheme() == Scheme::Gs => {
            url_policy::check(&request::location(&object), false)
        }
        _ => url_policy::check(text, allow_http).map_err(|error| match (error, file) {
            // Any file can be named here by mistake, and most hold no URL.
            (Error::Scheme { .. }, Some(path)) => Error::NoUrl { path: path.into() },
            (error, _) => error,
        }),
    }
}

fn read_uri(path: &str) -> Result<String, Error> {
    let mut text = String::new();
    let read = match path {
        "-" => std::io::stdin().lock().take(URI_MAX).read_to_string(&mut text),
        path => std::fs::File::open(path).and_then(|file| file.take(URI_MAX).read_to_string(&mut text)),
    };
    read.map_err(|source| Error::File { action: "read the URL in", path: path.into(), source })?;
    Ok(text)
}
