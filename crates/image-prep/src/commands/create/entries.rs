//! What a command that makes several Images is to make: each one's request, checked before the first is begun.

use std::collections::BTreeMap;
use std::path::Path;

use guest_info::image_name;
use url::Url;

use super::{is_google, manifest, owner, request};
use crate::args::CreateArgs;
use crate::context::Context;
use crate::error::Error;
use crate::open;
use crate::product::check_layout;
use crate::report::Failure;
use crate::service::Request;
use crate::url_policy::{self, is_url};

/// What the names of disk images end with, and the names of Images do not.
const SUFFIXES: [&str; 13] = [
    ".gz", ".tar", ".qcow2", ".qcow", ".raw", ".img", ".image", ".vmdk", ".vhd", ".vpc", ".vhdx", ".ova",
    ".bin",
];

/// One Image to be made.
pub(super) struct Entry {
    /// The command that would make it alone.
    pub(super) args: CreateArgs,
    /// Its request, but for the source.
    pub(super) fields: Request,
}

impl Entry {
    /// The disk image, without what may be secret in its name.
    pub(super) fn image(&self) -> String {
        url_policy::name_of(self.args.image())
    }
}

/// What the command line or the text of the manifest lists. Every mistake is told that can be seen without opening an image; the last one is
/// returned.
pub(super) fn read(
    args: &CreateArgs,
    manifest: Option<(&Path, String)>,
    context: &Context,
) -> Result<Vec<Entry>, Error> {
    let list = match manifest {
        Some((path, text)) => manifest::entries(path, &text, args)?,
        None => args.images.iter().map(|image| args.of_image(image)).collect(),
    };
    check_layout(args.upload.form(), &args.layout)?;
    let (mut entries, mut wrong) = (Vec::with_capacity(list.len()), Vec::new());
    let mut names = BTreeMap::new();
    for (at, args) in list.into_iter().enumerate() {
        let place = format!("entry {}, `{}`", at + 1, url_policy::name_of(args.image()));
        match checked(args, context) {
            Ok(entry) => {
                let key = (entry.fields.owner().to_owned(), entry.fields.name().to_owned());
                if let Some(first) = names.insert(key, at + 1) {
                    let name = entry.fields.name().to_owned();
                    wrong.push(Error::Entry { place, source: Error::SameName { name, first }.into() });
                }
                entries.push(entry);
            }
            Err(error) => wrong.push(Error::Entry { place, source: error.into() }),
        }
    }
    let Some(last) = wrong.pop() else { return Ok(entries) };
    for error in &wrong {
        context.report.error(&Failure::new(error, error.exit()));
    }
    Err(last)
}

fn checked(mut args: CreateArgs, context: &Context) -> Result<Entry, Error> {
    if args.fields.name.is_none() {
        args.fields.name = Some(name_of(args.image())?);
    }
    let fields = request::of(&args.fields, owner(&args, context)?, is_google(&args, context)?)?;
    open::check(args.image(), &args.open)?;
    Ok(Entry { args, fields })
}

/// The name of an Image whose file is all that is known of it.
fn name_of(image: &str) -> Result<String, Error> {
    let of_url = is_url(image).then(|| Url::parse(image).ok()).flatten();
    let path = of_url.as_ref().map_or(image, |url| url.path());
    let file = Path::new(path).file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
    let mut stem = &*file;
    // `disk.raw.tar.gz` has three.
    while let Some(rest) = without_suffix(stem) {
        stem = rest;
    }
    image_name(&[stem]).ok_or_else(|| Error::NoNameIn { file: file.into_owned() })
}

fn without_suffix(name: &str) -> Option<&str> {
    SUFFIXES.iter().find_map(|suffix| {
        let (stem, end) = name.split_at_checked(name.len().checked_sub(suffix.len())?)?;
        (end.eq_ignore_ascii_case(suffix) && !stem.is_empty()).then_some(stem)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_from_files() {
        for (image, name) in [
            ("web.qcow2", "web"),
            ("/srv/Web_1.QCOW2", "web-1"),
            ("disk.raw.tar.gz", "disk"),
            ("debian-12.5", "debian-12-5"),
            ("https://h/images/noble.img?X-Amz-Signature=SECRET", "noble"),
            (".qcow2", "qcow2"),
        ] {
            assert_eq!(name_of(image).unwrap(), name, "{image}");
        }
        for image in ["10.qcow2", "/", "..", "__.img", "https://h/"] {
            assert!(matches!(name_of(image), Err(Error::NoNameIn { .. })), "{image}");
        }
    }
}
