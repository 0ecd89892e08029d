//! What is made of a disk: the form of an output and its layout, for `convert`, `upload` and `create`.

use disk_convert::{ConvertError, Disk, Options, Packed, Sink, convert, pack, scan};
use disk_image::{Codec, Format, ObjectMap, PackedLayout, gce, qcow2, raw, vmdk};
use tokio_util::sync::CancellationToken;

use crate::args::{Compression, Form, LayoutArgs, OpenArgs};
use crate::context::Context;
use crate::error::Error;

/// Changes whenever the bytes of a form do: what a version of this program sent that made others is not continued.
pub(crate) const LAYOUT: u32 = 1;

/// A disk, and the output that is made of it.
pub(crate) struct Product {
    /// Where the bytes come from.
    pub(crate) disk: Disk,
    /// What fills the output.
    pub(crate) layout: Layout,
}

/// What fills an output.
pub(crate) enum Layout {
    /// Known byte by byte.
    Map(ObjectMap),
    /// Known when everything was compressed.
    Packed(Box<dyn PackedLayout>),
}

impl Layout {
    /// Length of the output in bytes; the most that it can be, if that is not known yet.
    pub(crate) fn max_len(&self) -> u64 {
        match self {
            Self::Map(map) => map.len(),
            Self::Packed(layout) => layout.max_len(),
        }
    }

    /// True if the length is known.
    pub(crate) fn is_exact(&self) -> bool {
        matches!(self, Self::Map(_))
    }
}

impl Product {
    /// Makes the output, and gives it to `sink`.
    pub(crate) async fn make<S: Sink>(
        self,
        sink: S,
        options: &Options,
        cancel: &CancellationToken,
    ) -> Result<Packed<S::Output>, ConvertError> {
        match self.layout {
            Layout::Map(map) => {
                let output = convert(&self.disk, &map, sink, options, cancel).await?;
                Ok(Packed { output, len: map.len() })
            }
            Layout::Packed(layout) => pack(&self.disk, layout, sink, options, cancel).await,
        }
    }
}

/// Refuses to make an object of a file that is not, alone, what was asked for.
pub(crate) fn check_form(disk: &Disk, form: Form, how: &OpenArgs, layout: &LayoutArgs) -> Result<(), Error> {
    check_layout(form, layout)?;
    if form != Form::Source {
        return Ok(());
    }
    if how.snapshot.is_some() {
        return Err(Error::SnapshotOfSource);
    }
    match disk.image().references().first() {
        None => Ok(()),
        Some(reference) => Err(Error::NotWhole {
            name: disk.source().name().into(),
            role: reference.role,
            file: reference.name.clone(),
        }),
    }
}

/// Refuses options that only a qcow2 has.
pub(crate) fn check_layout(form: Form, layout: &LayoutArgs) -> Result<(), Error> {
    match form {
        Form::Qcow2 => Ok(()),
        form if layout.compress.is_some() => {
            Err(Error::OptionUnused { option: "--compress", form: form.name() })
        }
        form if layout.cluster_size.is_some() => {
            Err(Error::OptionUnused { option: "--cluster-size", form: form.name() })
        }
        _ => Ok(()),
    }
}

/// Lays out `disk` in `form`. A raw disk is scanned for zeroes first, unless that was declined, where the layout cannot leave out
/// those that are found later.
pub(crate) async fn prepare(
    context: &Context,
    disk: &Disk,
    form: Form,
    how: &LayoutArgs,
) -> Result<Product, Error> {
    match form {
        Form::Raw => {
            let layout = Layout::Map(ObjectMap::raw(disk.image().virtual_size()));
            Ok(Product { disk: disk.clone(), layout })
        }
        Form::Vmdk => {
            let layout = vmdk::Stream::new(disk.image().map())?;
            Ok(Product { disk: disk.clone(), layout: Layout::Packed(Box::new(layout)) })
        }
        Form::Gce => {
            let disk = without_zeroes(context, disk, how).await?;
            let layout = gce::Archive::new(disk.image().map())?;
            Ok(Product { disk, layout: Layout::Packed(Box::new(layout)) })
        }
        Form::Source => {
            let source = disk.source().clone();
            let allocation = source.allocation().await?;
            // The file's own bytes are a raw disk, whatever they mean.
            let image = raw::open(source.len(), allocation.as_deref())
                .map_err(|error| ConvertError::Open { name: source.name().into(), source: error })?;
            let layout = Layout::Map(ObjectMap::raw(source.len()));
            Ok(Product { disk: Disk::new(image, source), layout })
        }
        Form::Qcow2 => {
            let cluster_size = cluster_size(how);
            // Said before the disk is read: whatever the map, these clusters do not exist.
            if !is_cluster_size(cluster_size) {
                return Err(qcow2::LayoutError::ClusterSize(cluster_size).into());
            }
            if let Some(compression) = how.compress {
                let codec = match compression {
                    Compression::Zlib => Codec::Deflate,
                    Compression::Zstd => Codec::Zstd,
                };
                // Zeroes are seen before they are compressed: no pass over the disk has to find them.
                let options = qcow2::PackedOptions { cluster_size, codec };
                let layout = qcow2::Packed::new(disk.image().map(), &options)?;
                return Ok(Product { disk: disk.clone(), layout: Layout::Packed(Box::new(layout)) });
            }
            let options = qcow2::LayoutOptions { cluster_size };
            let disk = without_zeroes(context, disk, how).await?;
            let layout = Layout::Map(ObjectMap::qcow2(qcow2::Layout::new(disk.image().map(), &options)?));
            Ok(Product { disk, layout })
        }
    }
}

/// The form of an object of `disk`, and what it depends on.
pub(crate) fn form_name(disk: &Disk, form: Form, how: &LayoutArgs) -> String {
    match (form, how.compress) {
        (Form::Qcow2, None) => format!("qcow2-{}", cluster_size(how)),
        (Form::Qcow2, Some(compression)) => format!("qcow2-{}-{}", cluster_size(how), compression.name()),
        (Form::Source, _) => source_form(disk),
        (Form::Raw | Form::Vmdk | Form::Gce, _) => form.name().to_owned(),
    }
}

/// The form of an object that is the file of `disk`, as it is. The same disk in another format is another object, and so is an
/// archive with a file of that format, and either of them compressed.
pub(crate) fn source_form(disk: &Disk) -> String {
    let compression = disk.compression().map(|compression| format!("{compression}-")).unwrap_or_default();
    let archive = if disk.image().member().is_some() { "archive-" } else { "" };
    format!("{}-{compression}{archive}{}", Form::Source.name(), disk.image().format())
}

/// The cluster size of a qcow2 output.
pub(crate) fn cluster_size(how: &LayoutArgs) -> u64 {
    let default = match how.compress {
        Some(_) => qcow2::DEFAULT_PACKED_CLUSTER_SIZE,
        None => qcow2::DEFAULT_CLUSTER_SIZE,
    };
    how.cluster_size.map_or(default, |size| size.0)
}

fn is_cluster_size(bytes: u64) -> bool {
    bytes.is_power_of_two() && (512..=2 << 20).contains(&bytes)
}

/// The disk with the zeroes marked that a raw image stores.
async fn without_zeroes(context: &Context, disk: &Disk, how: &LayoutArgs) -> Result<Disk, Error> {
    if disk.image().format() != Format::Raw || how.no_scan {
        return Ok(disk.clone());
    }
    let pass = context.pass("scanning");
    let scanned = scan(disk, &pass.options, &context.cancel).await?;
    pass.end();
    Ok(scanned)
}
