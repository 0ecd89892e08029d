//! `convert`: an image into a file or onto a block device.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use disk_convert::{DeviceSink, FileSink, Sink};
use schemars::JsonSchema;
use serde::Serialize;

use crate::args::{ConvertArgs, ConvertTo, Form};
use crate::context::Context;
use crate::error::Error;
use crate::exit::Exit;
use crate::open::{How, open};
use crate::pass::Counted;
use crate::product::{Product, check_layout, prepare};
use crate::remote::Remote;
use crate::url_policy;

/// What was made; sizes in bytes.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Converted<'a> {
    /// The file or block device.
    output: &'a str,
    /// Its format.
    format: &'a str,
    /// Of the disk in it.
    virtual_size: u64,
    /// Of the file.
    file_size: u64,
    /// How much work that was, pass by pass.
    counters: Counted,
}

/// Converts; says nothing unless asked for JSON.
pub(crate) async fn run(args: &ConvertArgs, context: &Context) -> Result<Exit, Error> {
    let images = [args.image.as_str()];
    let remote = Remote::connect(&images, &args.stored, None, args.open.allow_http, context).await?;
    let converted = with(args, &remote, context).await;
    remote.stop(context).await;
    converted
}

async fn with(args: &ConvertArgs, remote: &Remote, context: &Context) -> Result<Exit, Error> {
    let form = match args.to {
        ConvertTo::Qcow2 => Form::Qcow2,
        ConvertTo::Raw => Form::Raw,
        ConvertTo::Vmdk => Form::Vmdk,
        ConvertTo::Gce => Form::Gce,
    };
    check_layout(form, &args.layout)?;
    if !url_policy::is_url(&args.image) && is_same_file(Path::new(&args.image), &args.out) {
        return Err(Error::SameFile { path: args.out.clone() });
    }
    let disk = open(context, &args.image, How::from(&args.open).with_remote(remote)).await?;
    let files = disk.sources().iter().skip(1);
    if files.map(|file| Path::new(file.name())).any(|file| is_same_file(file, &args.out)) {
        return Err(Error::SameFile { path: args.out.clone() });
    }
    let product = prepare(context, &disk, form, &args.layout).await?;
    // What is not known yet is checked as it is written.
    let known = if product.layout.is_exact() { product.layout.max_len() } else { 0 };
    let len = if DeviceSink::is_device(&args.out) {
        make(context, product, DeviceSink::open(&args.out, known)?).await?
    } else {
        make(context, product, FileSink::create(&args.out, known)?).await?
    };
    if context.output.is_json() {
        context.output.json(&Converted {
            output: &args.out.to_string_lossy(),
            format: form.name(),
            virtual_size: disk.image().virtual_size(),
            file_size: len,
            counters: context.counters(),
        })?;
    }
    Ok(Exit::Done)
}

/// Makes the output, and tells its length.
async fn make<S: Sink>(context: &Context, product: Product, sink: S) -> Result<u64, Error> {
    let pass = context.pass("converting");
    let made = product.make(sink, &pass.options, &context.cancel).await?;
    pass.end();
    Ok(made.len)
}

/// True if both names lead to one file or one device, through links too.
pub(super) fn is_same_file(a: &Path, b: &Path) -> bool {
    let (Ok(a), Ok(b)) = (fs::metadata(a), fs::metadata(b)) else { return false };
    let devices = a.file_type().is_block_device() && b.file_type().is_block_device();
    (a.dev(), a.ino()) == (b.dev(), b.ino()) || (devices && a.rdev() == b.rdev())
}
