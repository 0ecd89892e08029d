//! What is made of a disk: the form of an output and its layout, for `convert`, `upload` and `create`.

use disk_convert::{ConvertError, Disk, scan};
use disk_image::{Format, ObjectMap, qcow2, raw};

use crate::args::{Form, LayoutArgs, OpenArgs};
use crate::context::Context;
use crate::error::Error;

/// Changes whenever the bytes of a form do: what a version of this program sent that made others is not continued.
pub(crate) const LAYOUT: u32 = 1;

/// A disk, and the output that is made of it.
pub(crate) struct Product {
    /// Where the bytes come from.
    pub(crate) disk: Disk,
    /// What fills the output.
    pub(crate) layout: ObjectMap,
}

/// Refuses to make an object of a file that is not, alone, what was asked for.
pub(crate) fn check_form(disk: &Disk, form: Form, how: &OpenArgs) -> Result<(), Error> {
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

/// Lays out `disk` in `form`. A raw disk that becomes a qcow2 is scanned for zeroes first, unless that was declined.
pub(crate) async fn prepare(
    context: &Context,
    disk: &Disk,
    form: Form,
    how: &LayoutArgs,
) -> Result<Product, Error> {
    match form {
        Form::Raw => {
            let layout = ObjectMap::raw(disk.image().virtual_size());
            Ok(Product { disk: disk.clone(), layout })
        }
        Form::Source => {
            let source = disk.source().clone();
            let allocation = source.allocation().await?;
            // The file's own bytes are a raw disk, whatever they mean.
            let image = raw::open(source.len(), allocation.as_deref())
                .map_err(|error| ConvertError::Open { name: source.name().into(), source: error })?;
            let layout = ObjectMap::raw(source.len());
            Ok(Product { disk: Disk::new(image, source), layout })
        }
        Form::Qcow2 => {
            let options = qcow2::LayoutOptions { cluster_size: cluster_size(how) };
            // Said before the disk is read: whatever the map, these clusters do not exist.
            if !is_cluster_size(options.cluster_size) {
                return Err(qcow2::LayoutError::ClusterSize(options.cluster_size).into());
            }
            let disk = if disk.image().format() == Format::Raw && !how.no_scan {
                scanned(context, disk).await?
            } else {
                disk.clone()
            };
            let layout = ObjectMap::qcow2(qcow2::Layout::new(disk.image().map(), &options)?);
            Ok(Product { disk, layout })
        }
    }
}

/// The cluster size of a qcow2 output.
pub(crate) fn cluster_size(how: &LayoutArgs) -> u64 {
    how.cluster_size.map_or(qcow2::DEFAULT_CLUSTER_SIZE, |size| size.0)
}

fn is_cluster_size(bytes: u64) -> bool {
    bytes.is_power_of_two() && (512..=2 << 20).contains(&bytes)
}

async fn scanned(context: &Context, disk: &Disk) -> Result<Disk, Error> {
    let options = context.options();
    let _shown = context.progress.bytes("scanning", options.counters.clone());
    Ok(scan(disk, &options, &context.cancel).await?)
}
