//! Hostile VMDK images: descriptors that lie, and sparse extents whose tables do.

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use super::case::{Case, Content, little, put};
use crate::repo::output;
use crate::seed::Seed;

const REFERENCES: &str = "names a file";
const DESCRIPTOR: &str = "descriptor lies";
const FIELDS: &str = "header fields";
const MAPPING: &str = "mapping lies";

/// Length of the disk, and of what it holds.
const LEN: usize = 1 << 20;

/// Any of the attacks on this format. Good images are made in `folder`.
pub(super) fn cases(folder: &Path) -> Result<Vec<Case>> {
    std::fs::write(folder.join("disk.raw"), content())?;
    let made = |subformat: &str| {
        let options = format!("subformat={subformat}");
        let mut convert = Command::new("qemu-img");
        convert.args(["convert", "-f", "raw", "-O", "vmdk", "-o", &options, "disk.raw", "good.vmdk"]);
        output(convert.current_dir(folder))?;
        anyhow::Ok(std::fs::read(folder.join("good.vmdk"))?)
    };
    let (sparse, stream) = (made("monolithicSparse")?, made("streamOptimized")?);
    Ok([references(&sparse), descriptors(), fields(&sparse), mapping(&sparse)?, streams(&stream)?].concat())
}

fn content() -> Vec<u8> {
    let mut content = vec![0; LEN];
    for grain in 0..LEN >> 16 {
        put(&mut content, grain << 16, &Seed::new(grain as u64, "vmdk").bytes(4096));
    }
    content
}

fn text(create_type: &str, parent: &str, lines: &str) -> Vec<u8> {
    format!(
        "# Disk DescriptorFile\nversion=1\nCID=12345678\nparentCID={}\ncreateType=\"{create_type}\"\n{parent}\n\
         # Extent description\n{lines}\n\n# The Disk Data Base\nddb.adapterType = \"ide\"\n",
        if parent.is_empty() { "ffffffff" } else { "87654321" },
    )
    .into_bytes()
}

fn references(sparse: &[u8]) -> Vec<Case> {
    let mut cases = Vec::new();
    let outside =
        ["outside of the folder", "not the path of a file", "not a regular file", "VMDK descriptor"];
    let mut both = |name: &str, image: Vec<u8>| {
        let case = |name: &str, says: &[&'static str]| {
            Case::new(REFERENCES, name, &image, says).with("link", Content::Link("/etc/passwd"))
        };
        cases.push(case(name, &["names the", "VMDK descriptor", "createType", "extent files"]));
        cases.push(
            case(&format!("{name}, allowed"), &[&outside[..], &["createType", "extent files"]].concat())
                .allowed(),
        );
    };
    for name in ["/etc/passwd", "../../../../../../../../etc/passwd", "link", "json:{}", "/dev/zero"] {
        both(&format!("flat extent {name}"), text("monolithicFlat", "", &format!("RW 2 FLAT \"{name}\" 0")));
    }
    both("vmfs extent", text("vmfs", "", "RW 2 VMFS \"/etc/passwd\""));
    both("sparse extent", text("twoGbMaxExtentSparse", "", "RW 2 SPARSE \"/etc/passwd\""));
    both("device extent", text("fullDevice", "", "RW 2 FLAT \"/dev/zero\" 0"));
    both("raw device mapping", text("vmfsRawDeviceMap", "", "RW 2 VMFSRDM \"/dev/zero\""));
    both("parent", {
        let mut image = sparse.to_vec();
        let parent =
            text("monolithicSparse", "parentFileNameHint=\"/etc/passwd\"", "RW 2048 SPARSE \"good.vmdk\"");
        set_descriptor(&mut image, &parent);
        image
    });
    both("extents in the text of a sparse file", {
        let mut image = sparse.to_vec();
        set_descriptor(&mut image, &text("monolithicFlat", "", "RW 2048 FLAT \"/etc/passwd\" 0"));
        image
    });
    cases
}

fn set_descriptor(image: &mut Vec<u8>, text: &[u8]) {
    // qemu puts it into sectors 1 to 20.
    put(image, 512, &[0; 20 * 512]);
    put(image, 512, text);
}

/// Descriptors over one flat file. What is true of them is given where there is a truth.
fn descriptors() -> Vec<Case> {
    let data = content();
    let half = LEN / 2;
    let case = |name: &str, create_type: &str, lines: &str| {
        let says = ["VMDK descriptor", "createType", "extent", "descriptor", "virtual size"];
        Case::new(DESCRIPTOR, name, &text(create_type, "", lines), &says)
            .with("flat", Content::bytes(&data))
            .with("other", Content::bytes(&data))
            .allowed()
            .told("vmdk")
    };
    let flat = |name: &str, lines: &str| case(name, "monolithicFlat", lines);
    // The first half from one file, the second from the other: the same disk again where both halves are read.
    let two = |name: &str, first: &str, second: &str| {
        case(
            name,
            "twoGbMaxExtentFlat",
            &format!("{first} 1024 FLAT \"flat\" 0\n{second} 1024 FLAT \"other\" 1024"),
        )
    };
    let mut with_hole = data[..half].to_vec();
    with_hole.resize(half + (64 << 10), 0);
    with_hole.extend_from_slice(&data[..half]);
    let len = with_hole.len() as u64;
    let zero = "RW 1024 FLAT \"flat\" 0\nRW 128 ZERO\nRW 1024 FLAT \"other\" 0";
    vec![
        two("first extent RDONLY", "RDONLY", "RW").or_disk(&data, LEN as u64),
        two("second extent NOACCESS", "RW", "NOACCESS"),
        two("first extent in lower case", "rw", "RW").or_disk(&data, LEN as u64),
        two("first extent of unknown access", "WO", "RW"),
        case("an extent of zeroes between two", "twoGbMaxExtentFlat", zero).or_disk(&with_hole, len),
        case("createType in a comment", "custom\"\n# createType=\"monolithicFlat", "RW 2048 FLAT \"flat\" 0")
            .or_disk(&data, LEN as u64),
        case("two createTypes", "monolithicFlat\"\ncreateType=\"vmfs", "RW 2048 FLAT \"flat\" 0"),
        flat("offset that wraps", "RW 2048 FLAT \"flat\" 36028797018963968"),
        flat("offset past the end", "RW 2048 FLAT \"flat\" 1"),
        flat("offset below zero", "RW 2048 FLAT \"flat\" -1"),
        flat("longer than its file", "RW 4096 FLAT \"flat\" 0"),
        flat("of 2^63 sectors", "RW 9223372036854775808 FLAT \"flat\" 0"),
        flat("of 2^64 sectors", "RW 18446744073709551616 FLAT \"flat\" 0"),
        flat("of no sectors", "RW 0 FLAT \"flat\" 0"),
        flat("no extent at all", ""),
        flat("no closing quote", "RW 2048 FLAT \"flat 0"),
        flat("unknown type", "RW 2048 MAGIC \"flat\" 0"),
        flat("10000 extents", &"RW 1 FLAT \"flat\" 0\n".repeat(10_000)),
        flat("one extent twice", "RW 1024 FLAT \"flat\" 0\nRW 1024 FLAT \"flat\" 0"),
        flat("2 MiB of text", &"# nothing\n".repeat(200_000)),
        flat("the descriptor as its own extent", "RW 1 FLAT \"image\" 0"),
    ]
}

fn fields(sparse: &[u8]) -> Vec<Case> {
    let mut cases = Vec::new();
    let mut add = |name: String, says: &'static str, at: usize, bytes: &[u8]| {
        let mut image = sparse.to_vec();
        put(&mut image, at, bytes);
        let case =
            Case::new(FIELDS, &name, &image, &[says, "0x", "capacity", "names the extent file"]).told("vmdk");
        // A flag that nothing here depends on may be passed over, and the directory has a copy.
        let may_be_read = ["flags", "grain directory"].contains(&says);
        cases.push(if may_be_read { case.or_disk(&content(), LEN as u64) } else { case });
    };
    for version in [0_u32, 4, u32::MAX] {
        add(format!("VMDK version {version:#x}"), "version", 4, &version.to_le_bytes());
    }
    for flags in [1_u32 << 5, 1 << 16, 1 << 31] {
        add(format!("VMDK flags {flags:#x}"), "flags", 8, &flags.to_le_bytes());
    }
    for capacity in [0_u64, 1 << 55, u64::MAX, 4096] {
        add(format!("VMDK capacity {capacity:#x}"), "virtual size", 12, &capacity.to_le_bytes());
    }
    for grain in [0_u64, 3, 4, 1 << 32, 1 << 63] {
        add(format!("VMDK grain size {grain:#x}"), "grainSize", 20, &grain.to_le_bytes());
    }
    for at in [u64::MAX - 1, 1 << 40] {
        add(format!("VMDK descriptor at {at:#x}"), "descriptor", 28, &at.to_le_bytes());
        add(format!("VMDK grain directory at {at:#x}"), "grain directory", 56, &at.to_le_bytes());
    }
    add("VMDK descriptor of 2^64 sectors".to_owned(), "descriptor", 36, &u64::MAX.to_le_bytes());
    for entries in [0_u32, 511, u32::MAX] {
        add(format!("VMDK {entries:#x} entries a table"), "numGTEsPerGT", 44, &entries.to_le_bytes());
    }
    add("VMDK after a text transfer".to_owned(), "newline", 73, b"\n\n\r\n");
    add("VMDK unknown compression".to_owned(), "compress", 77, &2_u16.to_le_bytes());
    cases
}

fn mapping(sparse: &[u8]) -> Result<Vec<Case>> {
    let directory = usize::try_from(little::<8>(sparse, 56)?)? * 512;
    let table = usize::try_from(little::<4>(sparse, directory)?)? * 512;
    let entry = |number: usize| little::<4>(sparse, table + 4 * number);
    let (first, second) = (entry(0)?, entry(1)?);
    let copy = usize::try_from(little::<8>(sparse, 48)?)? * 512;
    let copy_table = usize::try_from(little::<4>(sparse, copy)?)? * 512;
    let mut cases = Vec::new();
    let mut add = |name: &str, places: [usize; 2], sector: u64| -> Result<()> {
        for (both, text) in [(false, ""), (true, ", in both copies")] {
            let mut image = sparse.to_vec();
            for at in places.iter().take(1 + usize::from(both)) {
                put(&mut image, *at, &u32::try_from(sector)?.to_le_bytes());
            }
            let says = ["grain table", "grain directory"];
            let case = Case::new(MAPPING, &format!("VMDK {name}{text}"), &image, &says).told("vmdk");
            // Where only one copy lies, the other still says what the disk is.
            cases.push(if both { case } else { case.or_disk(&content(), LEN as u64) });
        }
        Ok(())
    };
    let (tables, directories) = ([table, copy_table], [directory, copy]);
    add("two entries, one grain", tables, second)?;
    add("grains that overlap", tables, first + 1)?;
    add("grain past the end", tables, 0x00ff_ffff)?;
    add("grain far past the end", tables, 0xffff_fff0)?;
    add("grain in the header", tables, 1)?;
    add("grain is the grain directory", tables, (directory / 512) as u64)?;
    add("grain is the grain table", tables, (table / 512) as u64)?;
    add("table past the end", directories, 0x00ff_ffff)?;
    add("table is the directory", directories, (directory / 512) as u64)?;
    add("table is a grain", directories, first)?;
    let mut image = sparse.to_vec();
    image.truncate(usize::try_from(entry(15)?)? * 512 + 4096);
    cases.push(Case::new(MAPPING, "VMDK last grain half there", &image, &["grain table"]).told("vmdk"));
    Ok(cases)
}

fn streams(stream: &[u8]) -> Result<Vec<Case>> {
    let directory = usize::try_from(little::<8>(stream, 56)?)? * 512;
    let table = usize::try_from(little::<4>(stream, directory)?)? * 512;
    let grain = usize::try_from(little::<4>(stream, table)?)? * 512;
    let mut cases = Vec::new();
    let mut add = |name: &str, at: usize, bytes: &[u8]| {
        let mut image = stream.to_vec();
        put(&mut image, at, bytes);
        let says = ["grain", "cannot decode", "marker"];
        cases.push(Case::new(MAPPING, &format!("VMDK stream: {name}"), &image, &says).told("vmdk"));
    };
    add("a grain of another place", grain, &(5_u64 * 128).to_le_bytes());
    add("a grain of 2^32 bytes", grain + 8, &u32::MAX.to_le_bytes());
    add("a grain of no bytes", grain + 8, &0_u32.to_le_bytes());
    add(
        "a checksum that is wrong",
        grain + 12 + usize::try_from(little::<4>(stream, grain + 8)?)? - 1,
        &[0x5a],
    );
    add("a stream of noise", grain + 12, &Seed::new(7, "noise").bytes(1000));
    let second = little::<4>(stream, table + 4)?;
    // A stream of three grains in the place of one: stored, behind a zlib header, and cut off by its own length.
    let bomb = [&[0x78, 0x01][..], &super::qcow2::stored_deflate(3 << 16)].concat();
    let room = (usize::try_from(second)? * 512 - grain - 12).min(bomb.len());
    add("a stream that does not end", grain + 12, &bomb[..room]);
    Ok(cases)
}
