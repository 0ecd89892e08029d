//! `info`: what an image is.

mod details;

use disk_convert::{Disk, Summary, storage_bound};
use disk_image::{Image, Role};
use guest_info::Guest;
use schemars::JsonSchema;
use serde::Serialize;

use crate::args::InfoArgs;
use crate::args::values::Size;
use crate::context::Context;
use crate::error::Error;
use crate::exit::Exit;
use crate::guest;
use crate::open::{Listed, list, open};
use crate::pass::Counted;
use crate::sizes::min_disk_size;
use crate::transfer;
use details::Of;

/// What is known of an image; sizes in bytes.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Info {
    /// Path or URL, the latter without its query.
    image: String,
    format: String,
    /// The member of an archive that it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    member: Option<String>,
    /// How its file is compressed as a whole, if it has to be unpacked to be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    compression: Option<String>,
    /// What only its format has; a raw disk has nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    details: Option<Of>,
    #[serde(skip)]
    details_text: String,
    virtual_size: u64,
    /// Of the image's own file.
    file_size: u64,
    /// Guest bytes that are stored, compressed or not.
    allocated_size: u64,
    /// What the cloud would store, at most unless it is exact.
    storage_size: u64,
    storage_size_exact: bool,
    /// The smallest disk that can be made of it.
    min_disk_size: u64,
    /// SHA-256 of the disk, the same for every format; with --digest.
    #[serde(skip_serializing_if = "Option::is_none")]
    guest_digest: Option<String>,
    /// Files that it names.
    references: Vec<Named>,
    /// The sizes do not cover what the references hold.
    partial: bool,
    /// With --check, `ok`: what is wrong is an error.
    #[serde(skip_serializing_if = "Option::is_none")]
    check: Option<&'static str>,
    /// What is odd about it.
    warnings: Vec<String>,
    /// What is inside of the disk, if that could be seen.
    #[serde(skip_serializing_if = "Option::is_none")]
    guest: Option<Guest>,
    /// What reading the content took, if it was read.
    #[serde(skip_serializing_if = "Option::is_none")]
    counters: Option<Counted>,
}

/// A file that the image names, or that one of these names.
#[derive(Debug, Serialize, JsonSchema)]
struct Named {
    role: NamedAs,
    /// As it is written: hostile.
    name: String,
    /// The format that it is declared to have.
    #[serde(skip_serializing_if = "Option::is_none")]
    format: Option<String>,
    /// The file that names it.
    file: String,
}

/// What a file is for.
#[derive(Debug, Clone, Copy, Serialize, JsonSchema)]
enum NamedAs {
    #[serde(rename = "backingFile")]
    Backing,
    #[serde(rename = "dataFile")]
    Data,
    #[serde(rename = "extentFile")]
    Extent,
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
    info.compression = disk.compression().map(|compression| compression.to_string());
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
        let (details, details_text) = details::of(image);
        Self {
            image: name.to_owned(),
            format: image.format().to_string(),
            member: image.member().map(str::to_owned),
            compression: None,
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
            fields.push((named.role.text(), format!("`{}` ({format}){by}", named.name.escape_debug())));
        }
        fields.extend(self.member.iter().map(|name| ("member", name.escape_debug().to_string())));
        fields.extend(self.compression.iter().map(|compression| ("compression", compression.clone())));
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

impl NamedAs {
    /// As people read it.
    fn text(self) -> &'static str {
        match self {
            Self::Backing => "backing file",
            Self::Data => "data file",
            Self::Extent => "extent file",
        }
    }
}

impl From<Role> for NamedAs {
    fn from(role: Role) -> Self {
        match role {
            Role::BackingFile => Self::Backing,
            Role::DataFile => Self::Data,
            Role::ExtentFile => Self::Extent,
        }
    }
}

/// The files that the image names, and those that they name.
fn references(disk: &Disk, formats_declared: bool) -> Vec<Named> {
    let files: Vec<&str> = disk.sources().iter().map(|file| file.name()).collect();
    let named = disk.image().references().iter().map(|reference| Named {
        role: reference.role.into(),
        name: reference.name.clone(),
        format: (formats_declared || reference.role != Role::BackingFile)
            .then(|| reference.format.to_string()),
        file: files.get(usize::from(reference.by.0)).copied().unwrap_or_default().to_owned(),
    });
    named.collect()
}
