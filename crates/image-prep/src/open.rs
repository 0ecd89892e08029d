//! Opens IMAGE: a path, a block device, a URL, an object or an Image, and the files that it names, where the user allows it.

use std::collections::BTreeMap;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use disk_convert::{ByteSource, ConvertError, Disk, FileSource, ReferenceFolder, References, open_image};
use disk_image::{Format, OpenError, OpenOptions};
use object_io::{HttpOptions, HttpSource};
use tokio::time::timeout;

use crate::args::{FormatName, OpenArgs, ReferenceArgs};
use crate::context::Context;
use crate::error::Error;
use crate::remote::{Remote, image_id};
use crate::url_policy;

/// What takes less to open shows no progress: it would flash by.
const BEFORE_PROGRESS: Duration = Duration::from_millis(500);

/// How an image is opened, whichever command says so.
#[derive(Clone, Copy)]
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
    /// Where Images and objects are read from, in commands that read some.
    pub(crate) remote: Option<&'a Remote>,
}

impl<'a> From<&'a OpenArgs> for How<'a> {
    fn from(args: &'a OpenArgs) -> Self {
        Self {
            format: args.format,
            snapshot: args.snapshot.as_deref(),
            member: args.member.as_deref(),
            references: &args.references,
            allow_http: args.allow_http,
            remote: None,
        }
    }
}

impl<'a> How<'a> {
    /// The same, where Images and objects may be read from there.
    pub(crate) fn with_remote(self, remote: &'a Remote) -> Self {
        Self { remote: Some(remote), ..self }
    }

    fn options(&self, image: &str) -> OpenOptions {
        // What a guest has written must not choose the format.
        let stored = self.remote.and_then(|_| image_id(image)).map(|_| Format::Qcow2);
        OpenOptions {
            format: stored.or(self.format.map(Format::from)),
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

/// Finds out without reading anything whether there is such a file, or whether such a URL may be read.
pub(crate) fn check(image: &str, how: &OpenArgs) -> Result<(), Error> {
    policy(image, &how.references)?;
    match url_policy::is_url(image) {
        true => url_policy::check(image, how.allow_http).map(drop),
        false => Ok(FileSource::open(Path::new(image)).map(drop)?),
    }
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
    let disk = read(context, source, &how.options(image), &policy).await?;
    context.warn_of(&disk);
    Ok((disk, metadata))
}

/// What an object says about itself; nothing, of what is no object.
pub(crate) type Metadata = BTreeMap<String, String>;

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
    let mut options = how.options(image);
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

/// A file that is compressed as a whole is read through: that is shown, if it takes a while.
async fn read(
    context: &Context,
    source: Arc<dyn ByteSource>,
    how: &OpenOptions,
    policy: &References,
) -> Result<Disk, ConvertError> {
    let options = context.options();
    let mut opening = pin!(open_image(source, how, policy, &options, &context.cancel));
    if let Ok(opened) = timeout(BEFORE_PROGRESS, &mut opening).await {
        return opened;
    }
    let is_counted = options.counters.total() > 0;
    let _shown = is_counted.then(|| context.progress.bytes("unpacking", options.counters.clone()));
    opening.await
}

async fn source(
    context: &Context,
    image: &str,
    how: How<'_>,
) -> Result<(Arc<dyn ByteSource>, Metadata), Error> {
    let remote = match how.remote {
        Some(remote) => remote.open(image, context).await?,
        None => None,
    };
    let source = match remote {
        Some(source) => source,
        None if url_policy::is_url(image) => {
            let url = url_policy::check(image, how.allow_http)?;
            HttpSource::open(url.as_str(), &HttpOptions::default(), &context.cancel).await?
        }
        None => return Ok((Arc::new(FileSource::open(Path::new(image))?), Metadata::new())),
    };
    let metadata = source.metadata().clone();
    Ok((Arc::new(source), metadata))
}

/// What the user lets an image open.
fn policy(image: &str, how: &ReferenceArgs) -> Result<References, Error> {
    match &how.allow_references {
        None => Ok(References::Deny),
        // The content of an Image names nothing.
        Some(_) if image_id(image).is_some() => Ok(References::Deny),
        Some(_) if url_policy::is_url(image) => Err(Error::RemoteReferences),
        Some(folder) => Ok(References::Beneath(ReferenceFolder::new(Path::new(image), folder.as_deref())?)),
    }
}
