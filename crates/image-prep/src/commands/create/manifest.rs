//! The file of `create --manifest`: which images, and what each Image is to be.
//!
//! TOML, or JSON where the first character is `{`:
//!
//! ```toml
//! [[images]]
//! path = "web.qcow2"              # relative to this file; or an https URL
//! name = "web"                    # where it is not said, after the file
//! labels = { tier = "front" }
//! min-disk-size = "20GiB"         # or bytes
//! ```
//!
//! The keys are the options of `create` that say something about one Image. A key that is not known here, or a value that the option
//! would not take, is refused with its line.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use clap::ValueEnum;
use serde::de::{Error as _, Visitor};
use serde::{Deserialize, Deserializer};

use crate::args::values::{Label, Size};
use crate::args::{CreateArgs, FormatName, HardwareGeneration, OsType};
use crate::error::Error;
use crate::url_policy::is_url;

/// Longest manifest in bytes: some ten thousand entries, with all that can be said of an Image.
const MAX_LEN: u64 = 16 << 20;

/// Standard input, by the name that every command of a shell has for it.
const STDIN: &str = "-";

/// Why a manifest is none.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ManifestError {
    /// It breaks a rule of its language, or of its keys and their values.
    #[error("line {line}: {}", message.trim_end())]
    Line {
        /// From 1.
        line: usize,
        /// The parser's sentence.
        message: String,
    },
    /// It is no text.
    #[error("it is not UTF-8")]
    NotText,
    /// It is longer than any.
    #[error("it is longer than {}", Size(MAX_LEN))]
    TooLong,
    /// There is nothing to do.
    #[error("it lists no images")]
    Empty,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    images: Vec<Entry>,
}

/// What an entry says.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Entry {
    path: String,
    name: Option<String>,
    folder_id: Option<String>,
    description: Option<String>,
    family: Option<String>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default, deserialize_with = "size")]
    min_disk_size: Option<Size>,
    product_ids: Option<Vec<String>>,
    #[serde(default, deserialize_with = "choice")]
    os: Option<OsType>,
    nvidia_driver: Option<String>,
    pooled: Option<bool>,
    #[serde(default, deserialize_with = "choice")]
    hardware_generation: Option<HardwareGeneration>,
    licenses: Option<Vec<String>>,
    guest_os_features: Option<Vec<String>>,
    architecture: Option<String>,
    storage_locations: Option<Vec<String>>,
    #[serde(default, deserialize_with = "choice")]
    format: Option<FormatName>,
    snapshot: Option<String>,
    member: Option<String>,
}

/// Reads a manifest, which may come from a pipe that says nothing for long.
pub(super) fn read(path: &Path) -> Result<String, Error> {
    let failed = |source| Error::File { action: "read the manifest", path: path.to_owned(), source };
    let wrong = |source| Error::Manifest { path: path.to_owned(), source };
    let bytes = match is_stdin(path) {
        true => limited(io::stdin().lock()),
        false => std::fs::File::open(path).and_then(limited),
    };
    let bytes = bytes.map_err(failed)?;
    if bytes.len() as u64 > MAX_LEN {
        return Err(wrong(ManifestError::TooLong));
    }
    String::from_utf8(bytes).map_err(|_| wrong(ManifestError::NotText))
}

/// The command for each image of a manifest: what was typed, and over it what its entry says.
pub(super) fn entries(path: &Path, text: &str, typed: &CreateArgs) -> Result<Vec<CreateArgs>, Error> {
    let entries = parse(text).map_err(|source| Error::Manifest { path: path.to_owned(), source })?;
    let folder = path.parent().filter(|_| !is_stdin(path)).unwrap_or(Path::new(""));
    Ok(entries.into_iter().map(|entry| entry.over(typed, folder)).collect())
}

fn is_stdin(path: &Path) -> bool {
    path == Path::new(STDIN)
}

fn limited(from: impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(MAX_LEN + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn parse(text: &str) -> Result<Vec<Entry>, ManifestError> {
    // No TOML begins with a brace.
    let file: File = match text.trim_start().starts_with('{') {
        true => serde_json::from_str(text).map_err(|error| of_json(&error))?,
        false => toml::from_str(text).map_err(|error| of_toml(&error, text))?,
    };
    if file.images.is_empty() { Err(ManifestError::Empty) } else { Ok(file.images) }
}

fn of_json(error: &serde_json::Error) -> ManifestError {
    let text = error.to_string();
    // The place stands first, as in TOML.
    let place = format!(" at line {} column {}", error.line(), error.column());
    let message = text.strip_suffix(&place).unwrap_or(&text).to_owned();
    ManifestError::Line { line: error.line().max(1), message }
}

fn of_toml(error: &toml::de::Error, text: &str) -> ManifestError {
    let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
    ManifestError::Line { line: before.matches('\n').count() + 1, message: error.message().to_owned() }
}

impl Entry {
    fn over(self, typed: &CreateArgs, folder: &Path) -> CreateArgs {
        let path = match is_url(&self.path) {
            true => self.path,
            // A path that is no UTF-8 came from the manifest's own, and is told by opening it.
            false => folder.join(PathBuf::from(self.path)).to_string_lossy().into_owned(),
        };
        let mut args = typed.of_image(&path);
        let fields = &mut args.fields;
        fields.name = self.name;
        or_typed(&mut fields.folder_id, self.folder_id.map(Some));
        or_typed(&mut fields.description, self.description);
        or_typed(&mut fields.family, self.family);
        fields.labels.retain(|label| !self.labels.contains_key(&label.key));
        fields.labels.extend(self.labels.into_iter().map(|(key, value)| Label { key, value }));
        or_typed(&mut fields.min_disk_size, self.min_disk_size.map(Some));
        or_typed(&mut fields.product_ids, self.product_ids);
        or_typed(&mut fields.os, self.os.map(Some));
        or_typed(&mut fields.nvidia_driver, self.nvidia_driver.map(Some));
        or_typed(&mut fields.pooled, self.pooled);
        or_typed(&mut fields.hardware_generation, self.hardware_generation.map(Some));
        or_typed(&mut fields.licenses, self.licenses);
        or_typed(&mut fields.guest_os_features, self.guest_os_features);
        or_typed(&mut fields.architecture, self.architecture.map(Some));
        or_typed(&mut fields.storage_locations, self.storage_locations);
        or_typed(&mut args.open.format, self.format.map(Some));
        args.open.snapshot = self.snapshot;
        args.open.member = self.member;
        args
    }
}

/// Sets what the entry says.
fn or_typed<T>(typed: &mut T, said: Option<T>) {
    if let Some(said) = said {
        *typed = said;
    }
}

/// A value of an option that has a list of them.
fn choice<'de, D: Deserializer<'de>, T: ValueEnum>(from: D) -> Result<Option<T>, D::Error> {
    let text = String::deserialize(from)?;
    T::from_str(&text, false).map(Some).map_err(|_| {
        let values = T::value_variants().iter().filter_map(ValueEnum::to_possible_value);
        let names: Vec<_> = values.map(|value| value.get_name().to_owned()).collect();
        D::Error::custom(format_args!(
            "found `{}`, expected one of {}",
            text.escape_debug(),
            names.join(", ")
        ))
    })
}

/// Bytes, or text as the option takes it.
fn size<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Size>, D::Error> {
    struct SizeVisitor;

    impl Visitor<'_> for SizeVisitor {
        type Value = Size;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a size")
        }

        fn visit_u64<E: serde::de::Error>(self, bytes: u64) -> Result<Size, E> {
            Ok(Size(bytes))
        }

        fn visit_i64<E: serde::de::Error>(self, bytes: i64) -> Result<Size, E> {
            u64::try_from(bytes).map(Size).map_err(|_| E::custom("a size is not negative"))
        }

        fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Size, E> {
            Size::from_str(text)
                .map_err(|error| E::custom(format_args!("found `{}`, {error}", text.escape_debug())))
        }
    }

    from.deserialize_any(SizeVisitor).map(Some)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::{Cli, Command};

    fn typed(more: &[&str]) -> CreateArgs {
        let base = ["image-prep", "create", "--manifest", "m.toml", "--local"];
        match Cli::try_parse_from([&base, more].concat()).unwrap().command {
            Command::Create(args) => *args,
            other => panic!("{other:?}"),
        }
    }

    fn over(text: &str, more: &[&str]) -> Vec<CreateArgs> {
        let entries = parse(text).unwrap();
        entries.into_iter().map(|entry| entry.over(&typed(more), Path::new("dir"))).collect()
    }

    #[test]
    fn an_entry_wins_over_what_was_typed() {
        let toml = "[[images]]\npath = \"a\"\nname = \"n\"\nfamily = \"mine\"\nlabels = { a = \"2\" }\n\
                    min-disk-size = \"8GiB\"\nos = \"windows\"\npooled = false\nformat = \"raw\"\n\
                    hardware-generation = \"legacy-v2\"\n[[images]]\npath = \"https://h/b\"\nmin-disk-size = 4194304\n";
        let json = r#"{"images": [{"path": "a", "name": "n", "family": "mine", "labels": {"a": "2"}, "min-disk-size": "8GiB",
            "os": "windows", "pooled": false, "format": "raw", "hardware-generation": "legacy-v2"},
            {"path": "https://h/b", "min-disk-size": 4194304}]}"#;
        for text in [toml, json] {
            let more =
                ["--family=all", "--label=a=1", "--label=b=1", "--pooled", "--description=d", "--os=linux"];
            let args = over(text, &more);
            let (first, second) = (&args[0], &args[1]);
            assert_eq!((first.images[0].as_str(), second.images[0].as_str()), ("dir/a", "https://h/b"));
            let labels = |args: &CreateArgs| -> Vec<String> {
                args.fields.labels.iter().map(|label| format!("{}={}", label.key, label.value)).collect()
            };
            assert_eq!(
                (labels(first), labels(second)),
                (vec!["b=1".to_owned(), "a=2".to_owned()], vec!["a=1".to_owned(), "b=1".to_owned()])
            );
            let said = |args: &CreateArgs| {
                let fields = args.fields.clone();
                (
                    fields.name,
                    fields.family,
                    fields.description,
                    fields.min_disk_size,
                    fields.os,
                    fields.pooled,
                )
            };
            let (d, linux, windows) = ("d".to_owned(), Some(OsType::Linux), Some(OsType::Windows));
            assert_eq!(
                said(first),
                (Some("n".to_owned()), "mine".to_owned(), d.clone(), Some(Size(8 << 30)), windows, false)
            );
            assert_eq!(said(second), (None, "all".to_owned(), d, Some(Size(4 << 20)), linux, true));
            assert_eq!(first.fields.hardware_generation, Some(HardwareGeneration::LegacyV2));
            assert_eq!((first.open.format, second.open.format), (Some(FormatName::Raw), None));
        }
    }

    #[test]
    fn what_is_wrong_has_its_line() {
        for (text, line, part) in [
            ("[[images]]\npath = \"a\"\nnmae = \"n\"\n", 3, "unknown field `nmae`"),
            (
                "[[images]]\npath = \"a\"\n\nos = \"beos\"\n",
                4,
                "found `beos`, expected one of linux, windows",
            ),
            ("[[images]]\npath = \"a\"\nmin-disk-size = \"1.5G\"\n", 3, "expected bytes, or a number"),
            ("[[images]]\npath = \"a\"\nmin-disk-size = -1\n", 3, "not negative"),
            ("[[images]]\npath = \"a\"\nlabels = { a = 1 }\n", 3, "invalid type"),
            ("[[images]]\npath = \"a\n", 2, ""),
            ("[[images]]\npath = \"a\"\n[[images]]\nname = \"n\"\n", 3, "missing field `path`"),
            ("image = []\n", 1, "unknown field `image`"),
            ("{\"images\": [\n{\"path\": \"a\",\n\"nmae\": \"n\"}]}", 3, "unknown field `nmae`"),
            ("{\"images\": [\n{\"path\": \"a\",\n\"os\": \"beos\"}]}", 3, "found `beos`"),
        ] {
            match parse(text).unwrap_err() {
                ManifestError::Line { line: found, message } => {
                    assert!(found == line && message.contains(part), "{text}: {found}: {message}");
                    assert!(!message.contains(" at line "), "{message}");
                }
                other => panic!("{other}"),
            }
        }
        for empty in ["", "{}", "images = []\n", "{\"images\": []}"] {
            assert!(matches!(parse(empty), Err(ManifestError::Empty)), "{empty}");
        }
    }
}
