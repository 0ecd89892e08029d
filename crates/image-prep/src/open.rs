//! Opens IMAGE: a path, a block device, a URL, or an object, and the files that it names, where the user allows it.
//!
//! An object is read as everybody else would read it: by ranges, through a URL that is signed here and never shown.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use disk_convert::{ByteSource, ConvertError, Disk, FileSource, ReferenceFolder, References, open_image};
use disk_image::{Format, OpenError, OpenOptions};
use object_io::limits::MAX_EXPIRY;
use object_io::{HttpOptions, HttpSource, ObjectError, ObjectUri, Store};

use crate::args::{FormatName, OpenArgs, ReferenceArgs};
use crate::context::Context;
use crate::error::Error;
use crate::url_policy;

/// How an image is opened, whichever command says so.
#[derive(Debug, Clone, Copy)]
pub(crate) struct How<'a> {
    /// `--format`.
    pub(crate) format: Option<FormatName>,
    /// `--snapshot`.
    pub(crate) snapshot: Option<&'a str>,
    /// `--member`.
    pub(crate) member: Option<&'a str>,
    /// `--allow-references` and `--backing-format`.
    pub(crate) references: &'a ReferenceArgs,
    /// `--allow-http`.
    pub(crate) allow_http: bool,
    /// Where objects are, for commands that read `s3://BUCKET/KEY`.
    pub(crate) store: Option<&'a Store>,
}

impl<'a> From<&'a OpenArgs> for How<'a> {
    fn from(args: &'a OpenArgs) -> Self {
        Self {
            format: args.format,
            snapshot: args.snapshot.as_deref(),
            member: args.member.as_deref(),
            references: &args.references,
            allow_http: args.allow_http,
            store: None,
        }
    }
}

impl How<'_> {
    fn options(&self) -> OpenOptions {
        OpenOptions {
            format: self.format.map(Format::from),
            snapshot: self.snapshot.map(str::to_owned),
            member: self.member.map(str::to_owned),
            backing_format: self.references.backing_format.map(Format::from),
        }
    }
}

/// Opens and checks the disk image, whole, and tells what is odd about it.
pub(crate) async fn open(context: &Context, image: &str, how: impl Into<How<'_>>) -> Result<Disk, Error> {
    Ok(open_told(context, image, how).await?.0)
}

/// As [`open`]; gives too what an object says about itself.
pub(crate) async fn open_told(
    context: &Context,
    image: &str,
    how: impl Into<How<'_>>,
) -> Result<(Disk, Metadata), Error> {
    let how = how.into();
    let policy = policy(image, how.references)?;
    let (source, metadata) = source(context, image, how).await?;
    let disk = read(context, source, &how.options(), &policy).await?;
    context.warn_of(&disk);
    Ok((disk, metadata))
}

/// What an object says about itself; nothing, of what is no object.
pub(crate) type Metadata = BTreeMap<String, String>;

/// True if this names an object in a store.
pub(crate) fn is_object(image: &str) -> bool {
    image.starts_with("s3://")
}

/// A disk image of which only what its own file says may be known.
pub(crate) struct Listed {
    /// The disk: partial if it names other files, and none may be opened.
    pub(crate) disk: Disk,
    /// False if a format is listed for a backing file that nothing declares it for.
    pub(crate) formats_declared: bool,
}

/// Opens the disk image for information: files that it names are passed over, unless references are allowed.
pub(crate) async fn list(context: &Context, image: &str, how: impl Into<How<'_>>) -> Result<Listed, Error> {
    let how = how.into();
    let policy = match policy(image, how.references)? {
        References::Deny => References::List,
        policy => policy,
    };
    let (source, _) = source(context, image, how).await?;
    let mut options = how.options();
    let mut formats_declared = true;
    let disk = match read(context, source.clone(), &options, &policy).await {
        Err(ConvertError::Open { source: OpenError::Undeclared { .. }, .. })
            if matches!(policy, References::List) =>
        {
            // The file is passed over, so any format will do.
            options.backing_format = Some(Format::Raw);
            formats_declared = false;
            read(context, source, &options, &policy).await?
        }
        disk => disk?,
    };
    context.warn_of(&disk);
    Ok(Listed { disk, formats_declared })
}

async fn read(
    context: &Context,
    source: Arc<dyn ByteSource>,
    options: &OpenOptions,
    policy: &References,
) -> Result<Disk, ConvertError> {
    open_image(source, options, policy, &context.options(), &context.cancel).await
}

async fn source(
    context: &Context,
    image: &str,
    how: How<'_>,
) -> Result<(Arc<dyn ByteSource>, Metadata), Error> {
    let (options, cancel) = (HttpOptions::default(), &context.cancel);
    let source = match how.store {
        Some(store) if is_object(image) => {
            let object: ObjectUri = image.parse().map_err(ObjectError::from)?;
            // As long as every store lets a URL live: it ends with this process anyway.
            let url = store.presign_get(object.bucket(), object.key(), MAX_EXPIRY, cancel).await?;
            HttpSource::open(url.expose(), &options, cancel).await?
        }
        _ if url_policy::is_url(image) => {
            let url = url_policy::check(image, how.allow_http)?;
            HttpSource::open(url.as_str(), &options, cancel).await?
        }
        _ => return Ok((Arc::new(FileSource::open(Path::new(image))?), Metadata::new())),
    };
    let metadata = source.metadata().clone();
    Ok((Arc::new(source), metadata))
}

/// What the user lets an image open.
fn policy(image: &str, how: &ReferenceArgs) -> Result<References, Error> {
    match &how.allow_references {
        None => Ok(References::Deny),
        Some(_) if url_policy::is_url(image) => Err(Error::RemoteReferences),
        Some(folder) => Ok(References::Beneath(ReferenceFolder::new(Path::new(image), folder.as_deref())?)),
    }
}
