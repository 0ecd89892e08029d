//! `info`: what an image is.

use disk_convert::{Disk, Summary, storage_bound};
use disk_image::qcow2::Snapshot;
use disk_image::{Details, Encoding, Image, Role};
use guest_info::Guest;
use serde::{Serialize, Serializer};
use serde_json::{Value, json};

use crate::args::InfoArgs;
use crate::args::values::Size;
use crate::context::Context;
use crate::error::Error;
use crate::exit::Exit;
use crate::guest;
use crate::open::{Listed, list, open};
use crate::sizes::min_disk_size;
use crate::transfer;

/// What is known of an image; sizes in bytes.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Info {
    image: String,
    format: String,
    /// The member of an archive that it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    member: Option<String>,
    #[serde(skip_serializing_if = "Value::is_null")]
    details: Value,
    #[serde(skip)]
    details_text: String,
    virtual_size: u64,
    file_size: u64,
    allocated_size: u64,
    storage_size: u64,
    storage_size_exact: bool,
    min_disk_size: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    guest_digest: Option<String>,
    references: Vec<Named>,
    /// The sizes do not cover what the references hold.
    partial: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    check: Option<&'static str>,
    warnings: Vec<String>,
    /// What is inside of the disk, if that could be seen.
    #[serde(skip_serializing_if = "Option::is_none")]
    guest: Option<Guest>,
    /// What reading the content took, if it was read.
    #[serde(skip_serializing_if = "Option::is_none")]
    counters: Option<Value>,
}

/// A file that the image names, or that one of these names.
#[derive(Debug, Serialize)]
struct Named {
    #[serde(serialize_with = "role")]
    role: Role,
    /// As it is written: hostile.
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    format: Option<String>,
    /// The file that names it.
    file: String,
}

/// What is said of sizes that do not cover the whole disk.
const PARTIAL: &str = "sizes cover only the file itself, not the files that it names";

/// Prints what is known.
pub(crate) async fn run(args: &InfoArgs, context: &Context) -> Result<Exit, Error> {
    let Listed { disk, formats_declared } = if args.digest || args.check {
        Listed { disk: open(context, &args.image, &args.open).await?, formats_declared: true }
    } else {
        list(context, &args.image, &args.open).await?
    };
    let mut summary = None;
    if args.digest {
        summary = Some(transfer::read(context, &disk).await?);
    }
    let mut info = Info::new(disk.source().name(), disk.source().len(), disk.image(), summary);
    // What the files that were passed over hold would be missing.
    if !info.partial {
        info.guest = guest::look(context, &disk).await?;
    }
    info.references = references(&disk, formats_declared);
    // Whatever a lookup can reach was checked when the image was opened.
    info.check = args.check.then_some("ok");
    info.counters = args.digest.then(|| context.counters());
    if info.partial {
        context.warn(&format!("`{}`: {PARTIAL}", info.image));
        info.warnings.push(PARTIAL.to_owned());
    }
    if context.output.is_json() {
        context.output.json(&info)?;
    } else {
        context.output.fields(&info.fields())?;
    }
    Ok(Exit::Done)
}

impl Info {
    fn new(name: &str, file_size: u64, image: &Image, summary: Option<Summary>) -> Self {
        let stats = image.map().stats();
        let (details, details_text) = details(image);
        Self {
            image: name.to_owned(),
            format: image.format().to_string(),
            member: image.member().map(str::to_owned),
            details,
            details_text,
            virtual_size: image.virtual_size(),
            file_size,
            allocated_size: stats.data + stats.encoded,
            storage_size: summary.map_or_else(|| storage_bound(image.map()), |summary| summary.storage_size),
            storage_size_exact: summary.is_some(),
            min_disk_size: min_disk_size(image.virtual_size()),
            guest_digest: summary.map(|summary| summary.guest_digest.to_string()),
            references: Vec::new(),
            partial: image.is_partial(),
            check: None,
            warnings: image.warnings().iter().map(ToString::to_string).collect(),
            guest: None,
            counters: None,
        }
    }

    fn fields(&self) -> Vec<(&'static str, String)> {
        let size = |bytes| format!("{} ({bytes} bytes)", Size(bytes));
        let bound = match (self.storage_size_exact, self.partial) {
            (true, _) => "",
            // Of this file: what lies beneath may add to it.
            (false, true) => "of this file at most ",
            (false, false) => "at most ",
        };
        let mut fields = vec![
            ("image", self.image.clone()),
            ("format", format!("{}{}", self.format, self.details_text)),
            ("virtual size", size(self.virtual_size)),
            ("file size", size(self.file_size)),
            ("allocated", size(self.allocated_size)),
            ("storage", format!("{bound}{}", size(self.storage_size))),
            ("minimum disk", size(self.min_disk_size)),
        ];
        for named in &self.references {
            let format = named.format.as_deref().unwrap_or("format not declared");
            let by = if named.file == self.image {
                ""
            } else {
                &format!(", named by `{}`", named.file.escape_debug())
            };
            fields.push((role_name(named.role), format!("`{}` ({format}){by}", named.name.escape_debug())));
        }
        fields.extend(self.member.iter().map(|name| ("member", name.escape_debug().to_string())));
        fields.extend(self.guest_digest.iter().map(|digest| ("guest digest", digest.clone())));
        fields.extend(self.check.map(|found| ("check", self.checked(found))));
        fields.extend(self.guest.iter().flat_map(guest::fields));
        fields
    }

    fn checked(&self, found: &str) -> String {
        let count = |number: usize, one: &str| match number {
            0 => format!("no {one}s"),
            1 => format!("1 {one}"),
            number => format!("{number} {one}s"),
        };
        let (references, warnings) = (self.references.len(), self.warnings.len());
        format!(
            "{found}: everything reachable was checked; {}, {}",
            count(references, "reference"),
            count(warnings, "warning"),
        )
    }
}

/// As people read it.
fn role_name(role: Role) -> &'static str {
    match role {
        Role::BackingFile => "backing file",
        Role::DataFile => "data file",
        Role::ExtentFile => "extent file",
    }
}

/// As programs read it.
fn role<S: Serializer>(role: &Role, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(match role {
        Role::BackingFile => "backingFile",
        Role::DataFile => "dataFile",
        Role::ExtentFile => "extentFile",
    })
}

/// The files that the image names, and those that they name.
fn references(disk: &Disk, formats_declared: bool) -> Vec<Named> {
    let files: Vec<&str> = disk.sources().iter().map(|file| file.name()).collect();
    let named = disk.image().references().iter().map(|reference| Named {
        role: reference.role,
        name: reference.name.clone(),
        format: (formats_declared || reference.role != Role::BackingFile)
            .then(|| reference.format.to_string()),
        file: files.get(usize::from(reference.by.0)).copied().unwrap_or_default().to_owned(),
    });
    named.collect()
}

/// What only this format has: for programs, and for people in parentheses.
fn details(image: &Image) -> (Value, String) {
    match image.details() {
        Details::Raw => (Value::Null, String::new()),
        Details::Qcow2(details) => {
            let compression = if details.compression == Encoding::Zstd { "zstd" } else { "zlib" };
            let (version, clusters) = (details.version, Size(details.cluster_size));
            let value = json!({
                "version": version,
                "clusterSize": details.cluster_size,
                "compressionType": compression,
                "refcountBits": details.refcount_bits,
                "lazyRefcounts": details.lazy_refcounts,
                "subclusters": details.subclusters,
                "dataFile": details.data_file,
                "snapshots": details.snapshots.iter().map(snapshot).collect::<Vec<_>>(),
                "bitmaps": details.bitmaps,
            });
            let is_compressed = image.map().stats().encoded > 0;
            let compressed = if is_compressed { format!(", {compression}") } else { String::new() };
            (value, format!(" (version {version}, clusters of {clusters}{compressed})"))
        }
        Details::Vmdk(details) => {
            let (kind, sparse) = (details.create_type, details.sparse);
            let value = json!({
                "createType": kind.to_string(),
                "extents": details.extents,
                "version": sparse.map(|sparse| sparse.version),
                "grainSize": sparse.map(|sparse| sparse.grain_size),
                "compressed": sparse.is_some_and(|sparse| sparse.compressed),
            });
            let extents =
                if details.extents > 1 { format!(", {} extents", details.extents) } else { String::new() };
            let grains = sparse.map(|sparse| format!(", grains of {}", Size(sparse.grain_size)));
            (value, format!(" ({kind}{extents}{})", grains.unwrap_or_default()))
        }
        Details::Vhd(details) => {
            let (kind, creator) = (details.disk_type, &details.creator);
            let value = json!({
                "diskType": kind.to_string(),
                "creator": creator,
                "blockSize": details.block_size,
                "id": details.id.to_string(),
            });
            let blocks = details.block_size.map(|size| format!(", blocks of {}", Size(size)));
            (value, format!(" ({kind}{}, made by {creator})", blocks.unwrap_or_default()))
        }
        Details::Vhdx(details) => {
            let (kind, blocks) = (details.disk_type, Size(details.block_size));
            let value = json!({
                "diskType": kind.to_string(),
                "blockSize": details.block_size,
                "logicalSectorSize": details.logical_sector_size,
                "physicalSectorSize": details.physical_sector_size,
                "id": details.id.to_string(),
                "dataWriteId": details.data_write_id.to_string(),
            });
            let sectors = match details.logical_sector_size {
                512 => String::new(),
                size => format!(", sectors of {size} bytes"),
            };
            (value, format!(" ({kind}, blocks of {blocks}{sectors})"))
        }
    }
}

fn snapshot(snapshot: &Snapshot) -> Value {
    json!({
        "id": snapshot.id,
        "name": snapshot.name,
        "virtualSize": snapshot.virtual_size,
        "vmStateSize": snapshot.vm_state_size,
        "dateSeconds": snapshot.date_seconds,
    })
}
