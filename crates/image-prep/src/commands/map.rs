//! `map`: which guest bytes are data, zero, compressed, as `qemu-img map` says it, or as a [`picture`].
//!
//! Source: QEMU `qemu-img.c`, `dump_map_entry` and `entry_mergeable`. Entries with the same flags and contiguous storage are one
//! entry; compressed ones have no offset, so they merge whatever lies between them. A raw disk is always present, and its
//! holes have offsets like its data, if it is a file of its own. Written as it is made: cost by the number of extents, not by the size of the disk.

mod picture;

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use anstream::{AutoStream, ColorChoice};
use disk_convert::Disk;
use disk_image::{Extent, ExtentMap, FileId, Format, Span, State, Stored};
use rustix::termios::tcgetwinsize;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Serializer;
use serde_json::ser::Formatter;

use super::convert::is_same_file;
use crate::args::MapArgs;
use crate::args::values::Size;
use crate::context::Context;
use crate::error::Error;
use crate::exit::Exit;
use crate::guest;
use crate::open::open;
use picture::{Picture, svg};

/// Cells in a line where there is no terminal, as wide as help is.
const DEFAULT_COLUMNS: usize = 100;

/// A terminal that says it is narrower says nothing that can be used.
const MIN_COLUMNS: usize = 20;

/// Prints the map.
pub(crate) async fn run(args: &MapArgs, context: &Context) -> Result<Exit, Error> {
    let disk = open(context, &args.image, &args.open).await?;
    let image = disk.image();
    match &args.picture {
        Some(Some(file)) => {
            let picture = draw(context, &disk, svg::COLUMNS).await?;
            return write_svg(&picture, &disk, file);
        }
        Some(None) => {
            let picture = draw(context, &disk, columns()).await?;
            let in_colour = AutoStream::choice(&io::stdout()) != ColorChoice::Never;
            context.output.write(|out| picture.write_text(out, in_colour))?;
            return Ok(Exit::Done);
        }
        None => {}
    }
    // A raw disk inside of an archive may be sparse there.
    let is_compressed = disk.compression().is_some();
    let flat = image.format() == Format::Raw && image.member().is_none() && !is_compressed;
    let entries = Entries { is_compressed, ..Entries::new(image.map(), flat) };
    let names: Vec<&str> = disk.sources().iter().map(|file| file.name()).collect();
    context.output.write(|out| match context.output.is_json() {
        true => write_json(out, entries, &names),
        false => write_table(out, entries, &names),
    })?;
    Ok(Exit::Done)
}

/// A picture of a disk, by the partitions that are seen in it.
async fn draw(context: &Context, disk: &Disk, columns: usize) -> Result<Picture, Error> {
    let guest = guest::look(context, disk).await?;
    let partitions = guest.as_ref().map(|guest| &guest.partitions[..]).unwrap_or_default();
    let (name, image) = (disk.source().name(), disk.image());
    let title = format!("{name}: {}, {}", image.format(), Size(image.virtual_size()));
    Ok(Picture::new(title, image.map(), partitions, columns))
}

/// How many cells a line has room for.
fn columns() -> usize {
    let terminal = tcgetwinsize(io::stdout()).ok().map(|size| usize::from(size.ws_col));
    terminal.filter(|columns| *columns >= MIN_COLUMNS).unwrap_or(DEFAULT_COLUMNS)
}

fn write_svg(picture: &Picture, disk: &Disk, path: &Path) -> Result<Exit, Error> {
    // A slip of the finger is no reason to lose an image.
    if disk.sources().iter().any(|source| is_same_file(Path::new(source.name()), path)) {
        return Err(Error::SameFile { path: path.to_owned() });
    }
    let written = File::create(path).and_then(|file| {
        let mut out = BufWriter::new(file);
        picture.write_svg(&mut out).and_then(|()| out.flush())
    });
    written.map_err(|source| Error::File { action: "write", path: path.to_owned(), source })?;
    Ok(Exit::Done)
}

fn write_json(out: &mut dyn Write, entries: Entries<'_>, names: &[&str]) -> io::Result<()> {
    out.write_all(b"[")?;
    for (at, entry) in entries.enumerate() {
        let Entry { guest: Span { start, len }, kind, offset, file } = entry;
        let zero = matches!(kind, Kind::Absent | Kind::Zero);
        let run = Run {
            start,
            length: len,
            depth: 0,
            present: kind != Kind::Absent,
            zero,
            data: !zero,
            compressed: kind == Kind::Compressed,
            offset,
            filename: (file != FileId::IMAGE).then(|| name_of(names, file)),
        };
        out.write_all(if at == 0 { b"" } else { b",\n" })?;
        run.serialize(&mut Serializer::with_formatter(&mut *out, AsQemu))?;
    }
    out.write_all(b"]\n")
}

fn write_table(out: &mut dyn Write, entries: Entries<'_>, names: &[&str]) -> io::Result<()> {
    writeln!(out, "{:<16}{:<16}{:<16}File", "Offset", "Length", "Mapped to")?;
    for Entry { guest, kind, offset, file } in entries {
        let mapped_to = match (kind, offset) {
            (Kind::Data, Some(offset)) => hex(offset),
            (Kind::Compressed, _) => "compressed".to_owned(),
            _ => continue,
        };
        // Paths of files that an image names come from the image, and must not steer a terminal.
        let name = name_of(names, file);
        let name = if file == FileId::IMAGE { name.to_owned() } else { name.escape_debug().to_string() };
        writeln!(out, "{:<16}{:<16}{mapped_to:<16}{name}", hex(guest.start), hex(guest.len))?;
    }
    Ok(())
}

fn name_of<'a>(names: &[&'a str], file: FileId) -> &'a str {
    names.get(usize::from(file.0)).copied().unwrap_or_default()
}

/// As `%#x` of C has it: no prefix for zero.
fn hex(number: u64) -> String {
    if number == 0 { "0".to_owned() } else { format!("{number:#x}") }
}

/// A run of guest bytes; offsets and lengths in bytes.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Run<'a> {
    start: u64,
    length: u64,
    /// The layers are one map here.
    depth: u8,
    /// Stored somewhere.
    present: bool,
    /// Reads as zero.
    zero: bool,
    /// Does not read as zero, as far as the map tells.
    data: bool,
    compressed: bool,
    /// Where in the file it lies, where that can be said.
    #[serde(skip_serializing_if = "Option::is_none")]
    offset: Option<u64>,
    /// The file, where it is another one than the image itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    filename: Option<&'a str>,
}

/// Spaces where qemu-img has them, so that its output and this can be compared as text.
struct AsQemu;

impl Formatter for AsQemu {
    fn begin_object<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        out.write_all(b"{ ")
    }

    fn begin_object_key<W: ?Sized + Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        out.write_all(if first { b"" } else { b", " })
    }

    fn begin_object_value<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        out.write_all(b": ")
    }
}

/// One line of the map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entry {
    guest: Span,
    kind: Kind,
    /// Where in the file it lies, where that can be said.
    offset: Option<u64>,
    /// The file.
    file: FileId,
}

/// What the guest bytes of an entry are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Nowhere; they read as zero.
    Absent,
    Zero,
    Data,
    Compressed,
}

impl Entry {
    fn new(Extent { guest, state }: Extent, flat: bool) -> Self {
        let (kind, offset, file) = match state {
            State::Hole | State::Zero if flat => (Kind::Zero, Some(guest.start), FileId::IMAGE),
            State::Hole => (Kind::Absent, None, FileId::IMAGE),
            State::Zero => (Kind::Zero, None, FileId::IMAGE),
            State::Data(Stored { span, file }) => (Kind::Data, Some(span.start), file),
            State::Encoded { stored, .. } => (Kind::Compressed, None, stored.file),
        };
        Self { guest, kind, offset, file }
    }

    /// The same of an image whose file is compressed as a whole: nothing of it lies anywhere as it is.
    fn compressed(self) -> Self {
        match self.kind {
            Kind::Data if self.file == FileId::IMAGE => Self { kind: Kind::Compressed, offset: None, ..self },
            _ => self,
        }
    }

    /// This entry and the next as one, if that is more of the same.
    fn joined(&self, next: &Self) -> Option<Self> {
        let contiguous = next.offset == self.offset.map(|offset| offset + self.guest.len);
        let guest = Span::new(self.guest.start, self.guest.len + next.guest.len);
        let alike = (self.kind, self.file) == (next.kind, next.file);
        (alike && contiguous).then_some(Self { guest, ..*self })
    }
}

/// Merged entries of a map.
struct Entries<'a> {
    extents: disk_image::Extents<'a>,
    /// The disk is the file, holes and all.
    flat: bool,
    /// The file is compressed as a whole.
    is_compressed: bool,
    pending: Option<Entry>,
}

impl<'a> Entries<'a> {
    fn new(map: &'a ExtentMap, flat: bool) -> Self {
        Self { extents: map.iter(), flat, is_compressed: false, pending: None }
    }
}

impl Iterator for Entries<'_> {
    type Item = Entry;

    fn next(&mut self) -> Option<Entry> {
        for extent in self.extents.by_ref() {
            let next = Entry::new(extent, self.flat);
            let next = if self.is_compressed { next.compressed() } else { next };
            let joined = self.pending.and_then(|entry| entry.joined(&next));
            let done = self.pending.replace(joined.unwrap_or(next));
            if joined.is_none() && done.is_some() {
                return done;
            }
        }
        self.pending.take()
    }
}

#[cfg(test)]
mod tests {
    use disk_image::{Encoding, ExtentMapBuilder};

    use super::*;

    fn json(map: &ExtentMap, flat: bool) -> String {
        let mut out = Vec::new();
        write_json(&mut out, Entries::new(map, flat), &["top", "base\"\u{1b}"]).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn compressed_runs_merge_and_data_only_where_contiguous() {
        let mut map = ExtentMapBuilder::new();
        for at in [1000, 9000] {
            let stored = Stored::image(at, 500);
            map.push(65536, State::Encoded { stored, encoding: Encoding::Zstd, unit_len: 65536, skip: 0 });
        }
        map.push(512, State::Data(Stored::image(4096, 512)));
        map.push(512, State::Data(Stored::image(8192, 512)));
        map.push(1024, State::Zero);
        let map = map.finish(65536 * 2 + 3072);
        let expected = "\
[{ \"start\": 0, \"length\": 131072, \"depth\": 0, \"present\": true, \"zero\": false, \"data\": true, \"compressed\": true},
{ \"start\": 131072, \"length\": 512, \"depth\": 0, \"present\": true, \"zero\": false, \"data\": true, \"compressed\": false, \"offset\": 4096},
{ \"start\": 131584, \"length\": 512, \"depth\": 0, \"present\": true, \"zero\": false, \"data\": true, \"compressed\": false, \"offset\": 8192},
{ \"start\": 132096, \"length\": 1024, \"depth\": 0, \"present\": true, \"zero\": true, \"data\": false, \"compressed\": false},
{ \"start\": 133120, \"length\": 1024, \"depth\": 0, \"present\": false, \"zero\": true, \"data\": false, \"compressed\": false}]
";
        assert_eq!(json(&map, false), expected);
        assert!(serde_json::from_str::<serde_json::Value>(expected).is_ok());
    }

    #[test]
    fn the_table_lists_what_is_stored() {
        let mut map = ExtentMapBuilder::new();
        map.push(1 << 20, State::Hole);
        map.push(4096, State::Data(Stored::image(1 << 20, 4096)));
        let map = map.finish(2 << 20);
        let mut out = Vec::new();
        write_table(&mut out, Entries::new(&map, true), &["a.raw"]).unwrap();
        let expected = "Offset          Length          Mapped to       File\n\
                        0x100000        0x1000          0x100000        a.raw\n";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn runs_of_other_files_have_their_name_and_stay_apart() {
        let mut map = ExtentMapBuilder::new();
        map.push(512, State::Data(Stored::image(0, 512)));
        map.push(512, State::Data(Stored { file: FileId(1), span: Span::new(512, 512) }));
        let map = map.finish(1024);
        let found: serde_json::Value = serde_json::from_str(&json(&map, false)).unwrap();
        assert_eq!(found[0].get("filename"), None);
        assert_eq!((&found[1]["offset"], &found[1]["filename"]), (&512.into(), &"base\"\u{1b}".into()));
        let mut out = Vec::new();
        write_table(&mut out, Entries::new(&map, false), &["top", "base\u{1b}"]).unwrap();
        let table = String::from_utf8(out).unwrap();
        assert!(table.ends_with("0x200           base\\u{1b}\n"), "{table}");
    }
}
