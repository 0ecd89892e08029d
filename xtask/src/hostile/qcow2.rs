//! Hostile QCOW2 images, made from a good one by changing what is attacked.

use super::case::{Case, Content, put};
use crate::seed::Seed;

const CLUSTER: usize = 64 << 10;
const REFCOUNT_TABLE: usize = CLUSTER;
const REFCOUNT_BLOCK: usize = 2 * CLUSTER;
const L1: usize = 3 * CLUSTER;
const L2: usize = 4 * CLUSTER;
const DATA: usize = 5 * CLUSTER;
const COPIED: u64 = 1 << 63;
const COMPRESSED: u64 = 1 << 62;
/// Clusters of guest data in the good image, and its virtual size.
const STORED: usize = 4;
const SIZE: u64 = 16 << 16;

const REFERENCES: &str = "names a file";
const LOOP: &str = "endless chain";
const FIELDS: &str = "header fields";
const MAPPING: &str = "mapping lies";
const BOMB: &str = "exhaustion";

/// Any of the attacks on this format.
pub(super) fn cases() -> Vec<Case> {
    [references(), loops(), fields(), mapping(), bombs()].concat()
}

/// A good image: 64 KiB clusters, version 3, one L2 table, four clusters of data.
pub(super) fn good() -> Vec<u8> {
    let mut image = vec![0; DATA + STORED * CLUSTER];
    put(&mut image, 0, b"QFI\xfb\0\0\0\x03");
    be32(&mut image, 20, 16);
    be64(&mut image, 24, SIZE);
    be32(&mut image, 36, 1);
    be64(&mut image, 40, L1 as u64);
    be64(&mut image, 48, REFCOUNT_TABLE as u64);
    be32(&mut image, 56, 1);
    be32(&mut image, 96, 4);
    be32(&mut image, 100, 112);
    be64(&mut image, REFCOUNT_TABLE, REFCOUNT_BLOCK as u64);
    for cluster in 0..5 + STORED {
        put(&mut image, REFCOUNT_BLOCK + 2 * cluster, &[0, 1]);
    }
    be64(&mut image, L1, L2 as u64 | COPIED);
    for cluster in 0..STORED {
        be64(&mut image, L2 + 8 * cluster, (DATA + cluster * CLUSTER) as u64 | COPIED);
    }
    put(&mut image, DATA, &content());
    image
}

/// What the good image holds, from the start of the disk.
pub(super) fn content() -> Vec<u8> {
    let mut content = vec![0; STORED * CLUSTER];
    for cluster in 0..STORED {
        put(&mut content, cluster * CLUSTER, &Seed::new(cluster as u64, "content").bytes(4096));
    }
    content
}

fn be32(image: &mut Vec<u8>, at: usize, value: u32) {
    put(image, at, &value.to_be_bytes());
}

fn be64(image: &mut Vec<u8>, at: usize, value: u64) {
    put(image, at, &value.to_be_bytes());
}

fn changed(change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut image = good();
    change(&mut image);
    image
}

/// The good image on a backing file.
pub(super) fn over(name: &str, format: Option<&str>) -> Vec<u8> {
    changed(|image| {
        be64(image, 8, 512);
        be32(image, 16, u32::try_from(name.len()).unwrap_or(0));
        put(image, 512, name.as_bytes());
        if let Some(format) = format {
            be32(image, 112, 0xe279_2aca);
            be32(image, 116, u32::try_from(format.len()).unwrap_or(0));
            put(image, 120, format.as_bytes());
        }
    })
}

fn with_data_file(name: &str) -> Vec<u8> {
    changed(|image| {
        be64(image, 72, 1 << 2);
        be32(image, 112, 0x4441_5441);
        be32(image, 116, u32::try_from(name.len()).unwrap_or(0));
        put(image, 120, name.as_bytes());
    })
}

fn references() -> Vec<Case> {
    let mut cases = Vec::new();
    let names = [
        ("/etc/passwd", "outside of the folder"),
        ("../../../../../../../../../../etc/passwd", "outside of the folder"),
        ("json:{\"driver\":\"file\",\"filename\":\"/etc/passwd\"}", "not the path of a file"),
        ("file:/etc/passwd", "not the path of a file"),
        ("nbd://127.0.0.1:1/x", "not the path of a file"),
        ("/dev/zero", "outside of the folder"),
        ("link", "outside of the folder"),
        ("fifo", "not a regular file"),
        ("/proc/self/environ", "outside of the folder"),
    ];
    for (name, says) in names {
        for (role, image) in [("backing file", over(name, Some("raw"))), ("data file", with_data_file(name))]
        {
            let short: String = name.chars().rev().take(24).collect::<Vec<_>>().into_iter().rev().collect();
            let case = |text: &str, says| {
                Case::new(REFERENCES, &format!("{role} {short}{text}"), &image, &[says])
                    .with("link", Content::Link("/etc/passwd"))
                    .with("fifo", Content::Fifo)
            };
            cases.push(case("", "names the"));
            cases.push(case(", allowed", says).allowed());
        }
    }
    let undeclared = |name: &str, format| {
        // What lies beneath is an image that names a file itself.
        let base = over("/etc/passwd", Some("raw"));
        Case::new(
            REFERENCES,
            name,
            &over("base", format),
            &["does not say which format", "outside of the folder"],
        )
        .with("base", Content::bytes(&base))
        .allowed()
    };
    cases.push(undeclared("backing format not declared", None));
    cases.push(undeclared("two layers down", Some("qcow2")));
    // As raw, as it is declared to be, it names nothing.
    let base = over("/etc/passwd", Some("raw"));
    let mut disk = base.clone();
    put(&mut disk, 0, &content());
    disk.resize(usize::try_from(SIZE).unwrap_or(0), 0);
    cases.push(undeclared("backing format is raw, content qcow2", Some("raw")).or_disk(&disk, SIZE));
    cases
}

fn loops() -> Vec<Case> {
    let itself = |name: &str, says| Case::new(LOOP, name, &over("image", Some("qcow2")), &[says]);
    let two = |name: &str, link: &str| {
        let other = over(link, Some("qcow2"));
        Case::new(LOOP, name, &over("other", Some("qcow2")), &["in use by this image already"])
            .with("other", Content::bytes(&other))
            .allowed()
    };
    let mut long =
        Case::new(LOOP, "70 layers", &over("1", Some("qcow2")), &["depth of the backing chain is 65"])
            .allowed();
    for layer in 1..70 {
        let image = over(&(layer + 1).to_string(), Some("qcow2"));
        long = long.with(&layer.to_string(), Content::bytes(&image));
    }
    vec![
        itself("on itself", "names the"),
        itself("on itself, allowed", "in use by this image already").allowed(),
        Case::new(
            LOOP,
            "on itself by another name",
            &over("alias", Some("qcow2")),
            &["in use by this image already"],
        )
        .with("alias", Content::SameAsImage)
        .allowed(),
        two("two files", "image"),
        two("two files, a path with dots", "./../case/image"),
        long,
    ]
}

fn fields() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut add = |name: &str, says: &'static str, change: &dyn Fn(&mut Vec<u8>)| {
        cases.push(Case::new(FIELDS, name, &changed(|image| change(image)), &[says, "0x"]));
    };
    for bits in [0, 8, 22, 63, u32::MAX] {
        add(&format!("cluster_bits {bits:#x}"), "cluster_bits", &|image| be32(image, 20, bits));
    }
    for size in [0, 1 << 50, 1 << 63, u64::MAX, u64::MAX - 511] {
        add(&format!("size {size:#x}"), "size", &|image| be64(image, 24, size));
    }
    for entries in [0, (32 << 20) / 8 + 1, u32::MAX] {
        add(&format!("l1_size {entries:#x}"), "l1_size", &|image| be32(image, 36, entries));
    }
    for at in [1, 512, 1 << 40, u64::MAX - 0xffff, 1 << 63] {
        add(&format!("l1_table_offset {at:#x}"), "L1 table", &|image| be64(image, 40, at));
    }
    for len in [0, 71, 106, 1 << 20, 0xffff_fff8] {
        add(&format!("header_length {len:#x}"), "header_length", &|image| be32(image, 100, len));
    }
    for len in [0x8000_0000, u32::MAX, 60_000] {
        add(&format!("extension of {len:#x} bytes"), "extension", &|image| {
            be32(image, 112, 0x1234_5678);
            be32(image, 116, len.saturating_add(10_000));
        });
    }
    for len in [1024, u32::MAX] {
        add(&format!("backing name of {len:#x} bytes"), "backing_file_size", &|image| {
            be64(image, 8, 512);
            be32(image, 16, len);
        });
    }
    add("backing name past the first cluster", "backing file", &|image| {
        be64(image, 8, u64::MAX - 4);
        be32(image, 16, 8);
    });
    for bit in [5, 40, 63] {
        add(&format!("incompatible bit {bit}"), "incompatible feature", &|image| be64(image, 72, 1 << bit));
    }
    add("compression type without its bit", "compression", &|image| put(image, 104, &[1]));
    // What reading does not need may be passed over as well as refused.
    let mut add = |name: &str, says: &'static str, change: &dyn Fn(&mut Vec<u8>)| {
        let case = Case::new(FIELDS, name, &changed(|image| change(image)), &[says, "0x"]);
        cases.push(case.or_disk(&content(), SIZE));
    };
    for order in [7, 0xff, u32::MAX] {
        add(&format!("refcount_order {order:#x}"), "refcount", &|image| be32(image, 96, order));
    }
    add("refcount table of 2^32 clusters", "refcount", &|image| be32(image, 56, u32::MAX));
    add("refcount table past the end", "refcount", &|image| be64(image, 48, 1 << 50));
    for snapshots in [65537, u32::MAX] {
        add(&format!("{snapshots} snapshots"), "snapshot", &|image| {
            be32(image, 60, snapshots);
            be64(image, 64, DATA as u64);
        });
    }
    add("snapshot table past the end", "snapshot", &|image| {
        be32(image, 60, 3);
        be64(image, 64, u64::MAX - 0xffff);
    });
    cases
}

fn mapping() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut add = |name: &str, change: &dyn Fn(&mut Vec<u8>)| {
        let says = ["L2 table", "L1 table", "compressed cluster", "data cluster", "refcount"];
        cases.push(Case::new(MAPPING, name, &changed(|image| change(image)), &says));
    };
    add("L2 table is the L1 table", &|image| be64(image, L1, L1 as u64 | COPIED));
    add("L1 table is the L2 table", &|image| {
        be64(image, 40, L2 as u64);
        be64(image, L2, L2 as u64 | COPIED);
    });
    add("L2 table past the end", &|image| be64(image, L1, (1 << 40) | COPIED));
    add("L2 table half past the end", &|image| {
        let last = image.len() - CLUSTER;
        be64(image, L1, last as u64 | COPIED);
        image.truncate(last + CLUSTER / 2);
    });
    add("L2 table not aligned", &|image| be64(image, L1, (L2 as u64 + 512) | COPIED));
    add("reserved bits of an L1 entry", &|image| be64(image, L1, L2 as u64 | 0x1ff));
    add("two L1 entries, one table", &|image| {
        be64(image, 24, 1 << 30);
        be32(image, 36, 2);
        be64(image, L1 + 8, L2 as u64 | COPIED);
    });
    for (name, at) in [
        ("the refcount table", REFCOUNT_TABLE),
        ("a refcount block", REFCOUNT_BLOCK),
        ("the L1 table", L1),
        ("the L2 table", L2),
        ("data of another cluster", DATA + CLUSTER),
    ] {
        add(&format!("data is {name}"), &|image| be64(image, L2, at as u64 | COPIED));
    }
    for (name, entry) in [
        ("past the end", 1 << 40),
        ("far past the end", 0x00ff_ffff_ffff_0000),
        ("not aligned", DATA as u64 + 512),
    ] {
        add(&format!("data {name}"), &|image| be64(image, L2, entry | COPIED));
    }
    add("reserved bits of an L2 entry", &|image| be64(image, L2, DATA as u64 | 0x1fe | COPIED));
    add("data half past the end", &|image| image.truncate(DATA + STORED * CLUSTER - CLUSTER / 2));
    // 64 KiB clusters: 54 bits of offset, 8 of sectors.
    add("compressed past the end", &|image| be64(image, L2, COMPRESSED | (3 << 54) | 0x3f_ffff_ff00));
    add("compressed over data", &|image| {
        be64(image, L2, COMPRESSED | (127 << 54) | (DATA as u64 + CLUSTER as u64))
    });
    add("compressed over the L1 table", &|image| be64(image, L2, COMPRESSED | (3 << 54) | L1 as u64));
    let mut add = |name: &str, change: &dyn Fn(&mut Vec<u8>)| {
        let case = Case::new(MAPPING, name, &changed(|image| change(image)), &["corrupt", "refcount"]);
        cases.push(case.or_disk(&content(), SIZE));
    };
    add("marked corrupt", &|image| be64(image, 72, 2));
    add("refcounts are zero", &|image| put(image, REFCOUNT_BLOCK, &[0; 64]));
    cases
}

/// Small files that become large disks, if one lets them.
fn bombs() -> Vec<Case> {
    let shared = |name: &str, size: u64, tables: usize, says: &[&'static str]| {
        let image = changed(|image| {
            be64(image, 24, size);
            be32(image, 36, u32::try_from(size >> 29).unwrap_or(0));
            // Each table of its own, and every entry of every table at one cluster.
            for table in 0..tables {
                let at = if table == 0 { L2 } else { DATA + (STORED + table - 1) * CLUSTER };
                be64(image, L1 + 8 * table, at as u64 | COPIED);
                for entry in 0..CLUSTER / 8 {
                    be64(image, at + 8 * entry, DATA as u64 | COPIED);
                }
            }
            for entry in tables..usize::try_from(size >> 29).unwrap_or(0) {
                be64(image, L1 + 8 * entry, L2 as u64 | COPIED);
            }
        });
        Case::new(BOMB, name, &image, says)
    };
    let compressed = |name: &str, stream: Vec<u8>| {
        let image = changed(|image| {
            be64(image, 24, 512 << 20);
            put(image, DATA, &stream);
            for entry in 0..CLUSTER / 8 {
                be64(image, L2 + 8 * entry, COMPRESSED | (7 << 54) | DATA as u64);
            }
        });
        Case::new(BOMB, name, &image, &["L2 table", "compressed cluster"])
    };
    let one = |name: &str, stream: Vec<u8>| {
        let image = changed(|image| {
            put(image, DATA, &stream);
            be64(image, L2, COMPRESSED | (255 << 54) | DATA as u64);
            for entry in 1..STORED {
                be64(image, L2 + 8 * entry, 0);
            }
        });
        Case::new(BOMB, name, &image, &["cannot decode", "caused by"])
    };
    let empty = |name: &str, size: u64| {
        let image = changed(|image| {
            let entries = size >> 29;
            be64(image, 24, size);
            be32(image, 36, u32::try_from(entries).unwrap_or(0));
            be64(image, 40, image.len() as u64);
            let end = image.len() + usize::try_from(entries * 8).unwrap_or(0).next_multiple_of(CLUSTER);
            image.resize(end, 0);
        });
        Case::new(BOMB, name, &image, &["size"]).or_disk(&[], size)
    };
    vec![
        shared("1 GiB of one cluster", 1 << 30, 2, &["L2 table"]),
        shared("512 GiB of one table", 512 << 30, 1, &["L1 table", "L2 table"]),
        compressed("512 MiB of one compressed cluster", stored_deflate(CLUSTER)),
        // What goes on behind the cluster is not of it: QEMU reads no further either.
        one("a stream of two clusters", stored_deflate(2 * CLUSTER))
            .or_disk(&noise(2 * CLUSTER)[..CLUSTER], SIZE),
        one("a stream of half a cluster", stored_deflate(CLUSTER / 2)),
        one("a stream of noise", Seed::new(4, "noise").bytes(CLUSTER)),
        // Nothing but its size is large, so it may be what it says.
        empty("4 TiB of nothing", 4 << 40),
        empty("12 TiB of nothing", 12 << 40),
    ]
}

fn noise(len: usize) -> Vec<u8> {
    Seed::new(5, "deflate").bytes(len)
}

/// A deflate stream of so many bytes, stored (RFC 1951, section 3.2.4).
pub(super) fn stored_deflate(len: usize) -> Vec<u8> {
    let mut stream = Vec::new();
    let bytes = noise(len);
    let mut pieces = bytes.chunks(32 << 10).peekable();
    while let Some(piece) = pieces.next() {
        let len = u16::try_from(piece.len()).unwrap_or(0);
        stream.push(u8::from(pieces.peek().is_none()));
        stream.extend_from_slice(&len.to_le_bytes());
        stream.extend_from_slice(&(!len).to_le_bytes());
        stream.extend_from_slice(piece);
    }
    stream
}
