//! Opens IMAGE: a path, a block device, or a URL.

use std::path::Path;
use std::sync::Arc;

use disk_convert::{ByteSource, Disk, FileSource, References, open_image};
use disk_image::{Format, OpenOptions};
use object_io::{HttpOptions, HttpSource};

use crate::args::OpenArgs;
use crate::context::Context;
use crate::error::Error;
use crate::url_policy;

/// Opens and checks the disk image, and tells what is odd about it.
pub(crate) async fn open(context: &Context, image: &str, how: &OpenArgs) -> Result<Disk, Error> {
    open_as(context, image, how.format.map(Format::from), how.allow_http).await
}

/// The same, for a command that opens two.
pub(crate) async fn open_as(
    context: &Context,
    image: &str,
    format: Option<Format>,
    allow_http: bool,
) -> Result<Disk, Error> {
    let source: Arc<dyn ByteSource> = if url_policy::is_url(image) {
        let url = url_policy::check(image, allow_http)?;
        Arc::new(HttpSource::open(url.as_str(), &HttpOptions::default(), &context.cancel).await?)
    } else {
        Arc::new(FileSource::open(Path::new(image))?)
    };
    let how = OpenOptions { format, ..OpenOptions::default() };
    let disk = open_image(source, &how, &References::Deny, &context.options(), &context.cancel).await?;
    context.warn_of(&disk);
    Ok(disk)
}
