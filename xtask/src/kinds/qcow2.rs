//! The kinds of QCOW2, by all pairs of the options of `qemu-img create`, and its backing chains.

use super::axes::{Cover, Row, cover, every};
use super::kind::Kind;
use super::sample::LEN;

const CLUSTERS: [&str; 13] =
    ["512", "1k", "2k", "4k", "8k", "16k", "32k", "64k", "128k", "256k", "512k", "1M", "2M"];
const COMPATS: [&str; 2] = ["0.10", "1.1"];
/// Clusters as they are, or compressed.
const CONTENTS: [&str; 3] = ["plain", "zlib", "zstd"];
const REFCOUNTS: [&str; 7] = ["1", "2", "4", "8", "16", "32", "64"];
const DEFAULT_REFCOUNT: usize = 4;
const EXTENDED: [&str; 2] = ["off", "on"];
const LAZY: [&str; 2] = ["off", "on"];
const PREALLOCATIONS: [&str; 4] = ["off", "metadata", "falloc", "full"];
const DATA_FILES: [&str; 3] = ["inside", "data file", "raw data file"];
/// None; there are two, and the current state is read; one of them is read.
const SNAPSHOTS: [&str; 3] = ["none", "beside", "read"];

/// What a guest does after the image was made: data across clusters, zeroes in all ways, and a cluster given back.
const EDITS: [&str; 6] = [
    "write -P 0xcd 1000k 70k",
    "write -z 3M 1M",
    "write -z -u 5M 192k",
    "discard 8M 1M",
    "write -P 0x11 8200k 4k",
    "write -P 0xee 14M 300k",
];

/// What shapes the map, in all combinations, and every pair of all options; quickly, every option once.
pub(super) fn single(quick: bool) -> Vec<Kind> {
    let sizes = [
        CLUSTERS.len(),
        COMPATS.len(),
        CONTENTS.len(),
        REFCOUNTS.len(),
        EXTENDED.len(),
        LAZY.len(),
        PREALLOCATIONS.len(),
        DATA_FILES.len(),
        SNAPSHOTS.len(),
    ];
    if quick {
        return cover(&sizes, is_possible, Cover::Values).iter().map(kind).collect();
    }
    let is_plain = |row: &Row| row[3] == DEFAULT_REFCOUNT && row[5..].iter().all(|value| *value == 0);
    let mut rows = every(&sizes, |row: &Row| is_possible(row) && is_plain(row));
    rows.extend(cover(&sizes, is_possible, Cover::Pairs).into_iter().filter(|row| !is_plain(row)));
    rows.iter().map(kind).collect()
}

/// Whether qemu-img makes it.
fn is_possible(row: &Row) -> bool {
    let &[cluster, compat, content, refcount, extended, lazy, preallocation, data_file, snapshot] = &row[..]
    else {
        return false;
    };
    let (v3, default_refcount) = (compat == 1, refcount == DEFAULT_REFCOUNT);
    // What version 2 has no field for.
    (v3 || (content < 2 && default_refcount && extended == 0 && lazy == 0 && data_file == 0))
        // Subclusters are 1/32 of a cluster and at least 512 bytes.
        && (extended == 0 || cluster >= 5)
        // Compressed clusters lie in the file itself, where nothing is yet.
        && (content == 0 || (preallocation == 0 && data_file == 0))
        // A snapshot's clusters are counted once more, and another file has no counts.
        && (snapshot == 0 || (refcount > 0 && data_file == 0))
        // Compressed clusters share one of the file, which is counted for each.
        && (snapshot == 0 || content == 0 || refcount >= DEFAULT_REFCOUNT)
}

fn kind(row: &Row) -> Kind {
    let value = |axis: usize, values: &[&'static str]| values[row[axis]];
    let (cluster, compat, content) = (value(0, &CLUSTERS), value(1, &COMPATS), value(2, &CONTENTS));
    let (refcount, extended, lazy) = (value(3, &REFCOUNTS), value(4, &EXTENDED), value(5, &LAZY));
    let (preallocation, data, snapshot) =
        (value(6, &PREALLOCATIONS), value(7, &DATA_FILES), value(8, &SNAPSHOTS));
    let mut options = format!("cluster_size={cluster},compat={compat},preallocation={preallocation}");
    let mut name = format!("{cluster} v{} {content}", row[1] + 2);
    let mut option = |text: String, is_default: bool| {
        if !is_default {
            options.push(',');
            options.push_str(&text);
            name.push(' ');
            name.push_str(&text);
        }
    };
    option("compression_type=zstd".to_owned(), content != "zstd");
    option(format!("refcount_bits={refcount}"), refcount == "16");
    option(format!("extended_l2={extended}"), extended == "off");
    option(format!("lazy_refcounts={lazy}"), lazy == "off");
    option("data_file=data".to_owned(), data == "inside");
    option("data_file_raw=on".to_owned(), data != "raw data file");
    if preallocation != "off" {
        name.push_str(&format!(" preallocation={preallocation}"));
    }
    if snapshot != "none" {
        name.push_str(&format!(" snapshot {snapshot}"));
    }
    let family = match (data, snapshot, content) {
        ("inside", "none", "plain") => "qcow2",
        ("inside", "none", _) => "qcow2 compressed",
        ("inside", ..) => "qcow2 snapshots",
        _ => "qcow2 data file",
    };
    let mut kind = Kind::new(family, name, "qcow2")
        .step(&format!("qemu-img create -q -f qcow2 -o {options} image {LEN}"));
    let compressed = if content == "plain" { "" } else { "-c " };
    kind = kind.step(&format!("qemu-img convert -n {compressed}-f raw -O qcow2 DISK image"));
    if snapshot != "none" {
        kind = kind
            .step("qemu-img snapshot -c first image")
            .edit(&["write -P 0x44 2M 1500k", "write -z 9M 64k"])
            .step("qemu-img snapshot -c second image");
    }
    kind = kind.edit(&EDITS);
    if content != "plain" && extended == "off" {
        kind = kind.edit(&["write -c -P 0x77 10M 2M"]);
    }
    if data != "inside" {
        kind = kind.with_references();
    }
    if snapshot == "read" {
        kind = kind.ours(&["--snapshot", "first"]);
        kind.theirs = ["-l", "snapshot.name=first"].map(str::to_owned).to_vec();
    }
    kind
}

/// What lies at the bottom of a chain: its format, how it is made, and whether it is read.
const BASES: [(&str, &str, bool); 12] = [
    ("raw", "", true),
    ("qcow2", "", true),
    ("qcow2", "-c -o compression_type=zstd", true),
    ("qcow2", "-o extended_l2=on", true),
    ("vmdk", "", true),
    ("vmdk", "-o subformat=streamOptimized", true),
    ("vmdk", "-o subformat=twoGbMaxExtentSparse", true),
    ("vpc", "-o force_size=on", true),
    ("vhdx", "", true),
    ("qed", "", false),
    ("vdi", "", false),
    ("parallels", "", false),
];

/// What lies on it: options of the two layers above.
const LAYERS: [(&str, &str); 5] = [
    ("", ""),
    ("cluster_size=512", "cluster_size=2M"),
    ("extended_l2=on", "extended_l2=on,cluster_size=128k"),
    ("compat=0.10", "compression_type=zstd"),
    ("data_file=middle.data", "cluster_size=4k"),
];

/// Chains of three files.
pub(super) fn chains(quick: bool) -> Vec<Kind> {
    let mut kinds = Vec::new();
    for (at, (base, made, read)) in BASES.into_iter().enumerate() {
        for (number, (middle, top)) in LAYERS.into_iter().enumerate() {
            // Another pair of layers for each base.
            if quick && number != at % LAYERS.len() {
                continue;
            }
            let kind = chain(base, made, middle, top);
            kinds.push(if read { kind } else { kind.refused("a backing file of another format") });
        }
    }
    // The layer above sees what the one beneath it ends in: zeroes, whatever lies further down.
    for (name, middle, top) in
        [("grown", "9M", "20M"), ("shrunk", "20M", "9M"), ("not aligned", "9999872", "15M")]
    {
        let kind = Kind::new("qcow2 chain", format!("{name}: {middle} and {top} over raw"), "qcow2")
            .step("cp DISK base")
            .step(&format!("qemu-img create -q -f qcow2 -F raw -b base middle {middle}"))
            .edit_file("qcow2", "middle", &["write -P 0x31 8M 512k"])
            .step(&format!("qemu-img create -q -f qcow2 -F qcow2 -b middle image {top}"));
        kinds.push(kind.edit(&["write -P 0x32 4M 100k", "write -z 6M 1M"]).with_references());
    }
    kinds
}

fn chain(base: &str, made: &str, middle: &str, top: &str) -> Kind {
    let options = |text: &str| if text.is_empty() { String::new() } else { format!("-o {text} ") };
    let name = format!("{top} over {middle} over {base} {made}");
    Kind::new("qcow2 chain", name.replace("  ", " default "), "qcow2")
        .step(&format!("qemu-img convert -f raw -O {base} {made} DISK base"))
        .step(&format!("qemu-img create -q -f qcow2 -F {base} -b base {}middle", options(middle)))
        .edit_file("qcow2", "middle", &["write -P 0xaa 2M 700k", "write -z 4M 1M", "write -P 0xab 6000k 3k"])
        .step(&format!("qemu-img create -q -f qcow2 -F qcow2 -b middle {}image", options(top)))
        .edit(&["write -P 0xbb 2500k 5k", "write -z -u 4500k 100k", "discard 7M 1M", "write -P 0xbc 9M 1M"])
        .with_references()
}
