//! The kinds of every other format that qemu-img writes.

use super::kind::Kind;

/// Guest writes that formats without commands for zeroes can have too.
const EDITS: [&str; 4] =
    ["write -P 0xcd 1000k 70k", "write -z 3M 1M", "write -P 0xce 12M 300k", "write -P 0 5M 64k"];

/// Writes to a disk of 5 GiB: at its ends, and around 2 and 4 GiB.
const FAR: [&str; 6] = [
    "write -P 0x01 0 64k",
    "write -P 0x02 2147418112 128k",
    "write -P 0x03 3G 4k",
    "write -P 0x04 4294901760 128k",
    "write -z 4400M 1M",
    "write -P 0x05 5368643584 64k",
];

/// All of them, or some of each.
pub(super) fn all(quick: bool) -> Vec<Kind> {
    let mut kinds = raw();
    let groups = [vmdk(), vmdk_backing(), vpc(), vhdx(), refused(), large()];
    for group in groups {
        // Every third of many still has every option of its group.
        let step = if quick && group.len() > 16 { 3 } else { 1 };
        kinds.extend(group.into_iter().step_by(step));
    }
    kinds
}

fn converted(family: &'static str, format: &'static str, options: &str) -> Kind {
    let name = if options.is_empty() { "default" } else { options };
    let with = if options.is_empty() { String::new() } else { format!(" -o {options}") };
    Kind::new(family, name, format).step(&format!("qemu-img convert -f raw -O {format}{with} DISK image"))
}

fn raw() -> Vec<Kind> {
    let made = |name: &str, options: &str| {
        Kind::new("raw", name, "raw").step(&format!("qemu-img convert -f raw -O raw {options} DISK image"))
    };
    vec![
        made("sparse", ""),
        made("full", "-S 0 -o preallocation=full"),
        made("falloc", "-o preallocation=falloc"),
        // A length that is not a whole number of sectors.
        made("odd length", "").step("truncate -s 15000001 image"),
        // A guest that encrypts its disk: to everybody else these are bytes.
        Kind::new("raw", "luks of a guest", "raw")
            .step("qemu-img create -q -f luks --object secret,id=s,data=123456 -o key-secret=s,iter-time=10 image 4M"),
    ]
}

fn vmdk() -> Vec<Kind> {
    let mut kinds = Vec::new();
    for adapter in ["ide", "lsilogic", "buslogic", "legacyESX"] {
        for subformat in [
            "monolithicSparse",
            "monolithicFlat",
            "twoGbMaxExtentSparse",
            "twoGbMaxExtentFlat",
            "streamOptimized",
        ] {
            let flat = subformat.ends_with("Flat");
            for more in ["", ",zeroed_grain=on", ",compat6=on"] {
                if flat && more.contains("zeroed") {
                    continue;
                }
                let mut kind =
                    converted("vmdk", "vmdk", &format!("subformat={subformat},adapter_type={adapter}{more}"));
                if subformat != "streamOptimized" {
                    kind = kind.edit(&EDITS);
                }
                kinds.push(if subformat.starts_with("mono") && !flat || subformat == "streamOptimized" {
                    kind
                } else {
                    kind.with_references()
                });
            }
        }
    }
    kinds
}

fn vmdk_backing() -> Vec<Kind> {
    let mut kinds = Vec::new();
    for base in ["monolithicSparse", "twoGbMaxExtentSparse", "monolithicFlat", "streamOptimized"] {
        for (top, grain) in
            [("monolithicSparse", "off"), ("monolithicSparse", "on"), ("twoGbMaxExtentSparse", "on")]
        {
            let options = format!("subformat={top},zeroed_grain={grain}");
            let layer = |below: &str, name: &str| {
                format!("qemu-img create -q -f vmdk -F vmdk -b {below} -o {options} {name}")
            };
            let kind =
                Kind::new("vmdk chain", format!("{top} zeroed_grain={grain} twice over {base}"), "vmdk")
                    .step(&format!("qemu-img convert -f raw -O vmdk -o subformat={base} DISK base.vmdk"))
                    .step(&layer("base.vmdk", "middle.vmdk"))
                    .edit_file("vmdk", "middle.vmdk", &["write -P 0xaa 2M 700k", "write -z 4M 1M"])
                    .step(&layer("middle.vmdk", "image"))
                    .edit(&["write -P 0xbb 2500k 5k", "write -z 4500k 100k", "write -P 0xbc 9M 1M"]);
            kinds.push(kind.with_references());
        }
    }
    kinds
}

fn vpc() -> Vec<Kind> {
    let mut kinds = Vec::new();
    for subformat in ["dynamic", "fixed"] {
        for force in ["off", "on"] {
            let options = format!("subformat={subformat},force_size={force}");
            let kind = converted("vhd", "vpc", &options).edit(&EDITS);
            // A disk with a footer behind it is a fixed VHD, or a raw disk: only the user knows.
            kinds.push(if subformat == "fixed" { kind.ours(&["--format", "vhd"]) } else { kind });
        }
    }
    kinds
}

fn vhdx() -> Vec<Kind> {
    let mut kinds = Vec::new();
    for subformat in ["dynamic", "fixed"] {
        for block in ["0", "1M", "2M", "4M", "8M", "16M", "32M", "64M", "128M", "256M"] {
            for log in ["1M", "4M"] {
                let options = format!("subformat={subformat},block_size={block},log_size={log}");
                kinds.push(converted("vhdx", "vhdx", &options).edit(&EDITS));
            }
        }
    }
    kinds.push(
        Kind::new("vhdx", "dynamic, block_state_zero=off", "vhdx")
            .step("qemu-img create -q -f vhdx -o block_state_zero=off image 15207936")
            .edit(&EDITS),
    );
    kinds
}

/// Kinds whose refusal is the policy: what is encrypted, and what nobody exports.
fn refused() -> Vec<Kind> {
    let secret = "--object secret,id=s,data=123456";
    let encrypted = |family: &'static str, format: &'static str, how: &str, says: &'static str| {
        let options = format!("{how},encrypt.key-secret=s");
        Kind::new(family, format!("{how}, encrypted"), format)
            .step(&format!("qemu-img create -q {secret} -f {format} -o {options} image 4M"))
            .refused(says)
    };
    let mut kinds = vec![
        encrypted("qcow2 encrypted", "qcow2", "encrypt.format=aes", "AES encryption"),
        encrypted("qcow2 encrypted", "qcow2", "encrypt.format=luks,encrypt.iter-time=10", "LUKS encryption"),
        encrypted("qcow", "qcow", "encrypt.format=aes", "QCOW version 1"),
        converted("qcow", "qcow", "").refused("QCOW version 1"),
        converted("vdi", "vdi", "").refused("the VDI format"),
        converted("vdi", "vdi", "static=on").refused("the VDI format"),
        converted("parallels", "parallels", "").refused("the Parallels format"),
        converted("parallels", "parallels", "cluster_size=64k").refused("the Parallels format"),
        Kind::new("qed", "over raw", "qed")
            .step("cp DISK base")
            .step("qemu-img create -q -f qed -F raw -b base image")
            .refused("the QED format"),
    ];
    for options in ["", "cluster_size=4k", "cluster_size=1M,table_size=16"] {
        kinds.push(converted("qed", "qed", options).refused("the QED format"));
    }
    kinds
}

/// Disks of 5 GiB with little in them: more than one table of each kind, more than one extent file, offsets above 32 bits.
fn large() -> Vec<Kind> {
    let made = |format: &'static str, options: &str| {
        let name = format!("5 GiB {format} {options}");
        let with = if options.is_empty() { String::new() } else { format!("-o {options}") };
        Kind::new("5 GiB", name, format)
            .step(&format!("qemu-img create -q -f {format} {with} image 5G"))
            .edit(&FAR)
    };
    vec![
        made("raw", "").edit(&["write -P 0x55 510 1", "write -P 0xaa 511 1"]),
        made("qcow2", ""),
        made("qcow2", "cluster_size=4k"),
        made("qcow2", "extended_l2=on"),
        made("qcow2", "data_file=data,data_file_raw=on").with_references(),
        made("vmdk", ""),
        made("vmdk", "zeroed_grain=on"),
        made("vmdk", "subformat=monolithicFlat").with_references(),
        made("vmdk", "subformat=twoGbMaxExtentFlat").with_references(),
        made("vmdk", "subformat=twoGbMaxExtentSparse").with_references(),
        made("vpc", "force_size=on"),
        made("vpc", ""),
        made("vpc", "subformat=fixed,force_size=on").ours(&["--format", "vhd"]),
        // A bitmap block stands among the entries of the table every 4 GiB, with blocks of 1 MiB.
        made("vhdx", "block_size=1M"),
        made("vhdx", ""),
        made("vhdx", "subformat=fixed"),
    ]
}
