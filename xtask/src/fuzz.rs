//! `cargo xtask fuzz`: runs the fuzz targets of `crates/disk-image/fuzz`, each over its corpus and then over new inputs.
//!
//! The targets are those of cargo-fuzz, which runs them as well; this builds them with coverage alone, which the stable compiler has
//! (cargo-fuzz adds AddressSanitizer, for which there is nothing to find in crates without unsafe code). Seeds: `testdata/`, and
//! small images of every kind that qemu-img writes. What is found lies in `target/fuzz/artifacts`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, ensure};
use clap::Args;
use sha2::{Digest, Sha256};

use crate::repo::{Repo, run};

/// What gives the fuzzer its coverage: edges and comparisons, as cargo-fuzz asks for them.
const INSTRUMENTATION: &str = "--cfg fuzzing -Ccodegen-units=1 -Cpasses=sancov-module \
    -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares";

/// Memory of a target: the 256 MiB that an image's metadata may take, twice, and the program.
const MEMORY_MIB: u32 = 768;

/// No input may take longer, seconds.
const TIMEOUT: u32 = 10;

/// Targets whose inputs are no images.
const WITHOUT_IMAGES: [&str; 2] = ["decode", "layout"];

/// Images to begin with, made by qemu-img from one small disk.
const SEEDS: [&str; 18] = [
    "-O qcow2 -o cluster_size=512",
    "-c -O qcow2 -o cluster_size=512",
    "-O qcow2 -o cluster_size=4k",
    "-c -O qcow2 -o cluster_size=4k",
    "-c -O qcow2 -o cluster_size=4k,compression_type=zstd",
    "-O qcow2 -o compat=0.10,cluster_size=4k",
    "-O qcow2 -o extended_l2=on,cluster_size=16k",
    "-O qcow2 -o refcount_bits=64,cluster_size=4k",
    "-O vmdk -o subformat=monolithicSparse",
    "-O vmdk -o subformat=streamOptimized",
    "-O vmdk -o subformat=monolithicFlat",
    "-O vmdk -o subformat=twoGbMaxExtentFlat",
    "-O vmdk -o subformat=twoGbMaxExtentSparse",
    "-O vmdk -o subformat=monolithicSparse,zeroed_grain=on",
    "-O vpc -o subformat=fixed",
    "-O vpc -o subformat=dynamic",
    "-O vhdx -o subformat=fixed,block_size=1M",
    "-O vhdx -o subformat=dynamic,block_size=1M",
];

#[derive(Debug, Args)]
pub(crate) struct FuzzArgs {
    /// Targets to run; all if none is named
    #[arg(value_name = "TARGET")]
    targets: Vec<String>,

    /// Inputs for each target, besides its corpus
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    runs: u64,

    /// Run each target for so long instead
    #[arg(long, value_name = "SECONDS", conflicts_with = "runs")]
    seconds: Option<u64>,
}

/// Builds and runs.
pub(crate) fn fuzz(repo: &Repo, args: &FuzzArgs) -> Result<ExitCode> {
    let folder = repo.path("crates/disk-image/fuzz");
    let all = targets(&folder)?;
    for target in &args.targets {
        ensure!(all.contains(target), "no fuzz target {target}; there are {}", all.join(", "));
    }
    let targets = if args.targets.is_empty() { &all } else { &args.targets };

    let scratch = repo.target().join("fuzz");
    let seeds = scratch.join("seeds");
    make_seeds(repo, &seeds)?;
    let triple = host_triple()?;
    let mut build = repo.cargo();
    build.current_dir(&folder).env("RUSTFLAGS", INSTRUMENTATION).env("CARGO_TARGET_DIR", &scratch);
    // With a target named, build scripts and macros are left without instrumentation.
    build.args(["build", "--quiet", "--locked", "--release", "--target", &triple]);
    run(&mut build)?;

    let mut failed = Vec::new();
    for target in targets {
        println!("== {target}");
        let corpus = scratch.join("corpus").join(target);
        let artifacts = scratch.join("artifacts").join(target);
        fs::create_dir_all(&corpus)?;
        fs::create_dir_all(&artifacts)?;
        let mut fuzzer = Command::new(scratch.join(&triple).join("release").join(target));
        fuzzer.arg(&corpus);
        if !WITHOUT_IMAGES.contains(&target.as_str()) {
            fuzzer.arg(&seeds);
        }
        match args.seconds {
            Some(seconds) => fuzzer.arg(format!("-max_total_time={seconds}")),
            None => fuzzer.arg(format!("-runs={}", args.runs + corpus_len(&corpus)? + corpus_len(&seeds)?)),
        };
        fuzzer.arg(format!("-artifact_prefix={}/", artifacts.display()));
        fuzzer.args([
            format!("-rss_limit_mb={MEMORY_MIB}"),
            format!("-timeout={TIMEOUT}"),
            "-max_len=400000".to_owned(),
            "-print_final_stats=1".to_owned(),
            "-verbosity=0".to_owned(),
        ]);
        if let Err(error) = run(&mut fuzzer) {
            eprintln!("{error:#}");
            failed.push(target.clone());
        }
    }
    if failed.is_empty() {
        println!("{} targets, no finding", targets.len());
        return Ok(ExitCode::SUCCESS);
    }
    println!("findings in {}; see {}", failed.join(", "), scratch.join("artifacts").display());
    Ok(ExitCode::FAILURE)
}

/// The names of the targets, by their files.
fn targets(folder: &Path) -> Result<Vec<String>> {
    let files = fs::read_dir(folder.join("fuzz_targets"))?;
    let names =
        files.map(|file| Ok(PathBuf::from(file?.file_name()).with_extension("").display().to_string()));
    let mut names = names.collect::<Result<Vec<_>>>()?;
    names.sort();
    Ok(names)
}

fn corpus_len(folder: &Path) -> Result<u64> {
    Ok(fs::read_dir(folder)?.count() as u64)
}

/// `testdata/`, and what qemu-img makes of a disk with a little of everything.
fn make_seeds(repo: &Repo, folder: &Path) -> Result<()> {
    let _ = fs::remove_dir_all(folder);
    fs::create_dir_all(folder)?;
    for file in fs::read_dir(repo.path("testdata"))? {
        let file = file?;
        fs::copy(file.path(), folder.join(file.file_name()))?;
    }
    let mut disk = vec![0; 256 << 10];
    // What does not compress, what does, and what ends inside a sector.
    for (number, hash) in (0_u32..128).map(|n| Sha256::digest(n.to_le_bytes())).enumerate() {
        disk[number * 32..][..32].copy_from_slice(&hash);
    }
    disk[100_000..140_000].fill(7);
    disk[200_000..200_700].fill(9);
    fs::write(folder.join("disk.raw"), &disk)?;
    for (number, arguments) in SEEDS.iter().enumerate() {
        let mut make = Command::new("qemu-img");
        make.arg("convert").args(arguments.split(' ')).args(["disk.raw", &format!("seed-{number}")]);
        run(make.current_dir(folder))?;
    }
    // An OVA is a tar of a descriptor and a stream.
    fs::write(folder.join("disk.ovf"), "<Envelope/>\n")?;
    fs::copy(repo.path("testdata/disk-stream.vmdk"), folder.join("disk.vmdk"))?;
    // And a raw disk in every sparse format.
    for (name, arguments) in [
        ("disk.ova", "--format=ustar disk.ovf disk.vmdk"),
        ("plain.tar", "--format=ustar disk.raw"),
        ("oldgnu.tar", "--format=oldgnu -S --hole-detection=raw disk.raw"),
        ("pax-0.0.tar", "--format=posix -S --hole-detection=raw --sparse-version=0.0 disk.raw"),
        ("pax-0.1.tar", "--format=posix -S --hole-detection=raw --sparse-version=0.1 disk.raw"),
        ("pax-1.0.tar", "--format=posix -S --hole-detection=raw --sparse-version=1.0 disk.raw"),
    ] {
        let mut tar = Command::new("tar");
        run(tar.args(["-cf", name]).args(arguments.split(' ')).current_dir(folder))?;
    }
    for name in ["disk.raw", "seed-0", "oldgnu.tar"] {
        run(Command::new("gzip").args(["--keep", "--force", name]).current_dir(folder))?;
    }
    make_guest_seed(folder)
}

/// Files of a system, each of which something is looked for in.
const SYSTEM: [(&str, &str); 12] = [
    ("usr/lib/os-release", "ID=debian\nVERSION_ID=\"13\"\nPRETTY_NAME='Debian'\n"),
    (
        "etc/fstab",
        "UUID=11111111-2222-4333-8444-555555555555 / ext4 defaults 0 1\n/dev/sda2 /x ext4 nofail 0 0\n",
    ),
    ("etc/default/grub", "GRUB_CMDLINE_LINUX=\"console=ttyS0,115200\"\n"),
    ("boot/grub/grub.cfg", "linux /vmlinuz root=UUID=1 console=tty0\n"),
    ("boot/initrd.img-6.1", "x"),
    (
        "usr/lib/modules/6.1/modules.dep",
        "kernel/virtio_blk.ko:\nkernel/virtio-net.ko.xz: a\nkernel/virtio_pci.ko:\n",
    ),
    ("etc/dracut.conf.d/a.conf", "hostonly=\"no\"\n"),
    ("etc/cloud/cloud.cfg", "datasource_list:\n - Ec2\n"),
    ("etc/netplan/a.yaml", "dhcp4: true\n"),
    ("usr/sbin/sshd", "x"),
    ("usr/lib/systemd/systemd", "\x7fELF\x02\x01\x01"),
    ("etc/runlevels/default/sshd", "x"),
];

/// A small disk with a partition table and an installed system: what only the target `guest` looks into.
fn make_guest_seed(folder: &Path) -> Result<()> {
    let (tree, volume, disk) = (folder.join("system"), "system.ext4", folder.join("system.raw"));
    for (path, text) in SYSTEM {
        let path = tree.join(path);
        fs::create_dir_all(path.parent().context("a path has a folder")?)?;
        fs::write(path, text)?;
    }
    let mut make = Command::new("mkfs.ext4");
    make.args([
        "-q",
        "-F",
        "-b",
        "1024",
        "-N",
        "64",
        "-O",
        "^has_journal,^metadata_csum,^resize_inode",
        "-d",
    ]);
    run(make.arg(&tree).args([volume, "256"]).current_dir(folder))?;
    fs::remove_dir_all(&tree)?;
    let mut bytes = vec![0; 4096];
    bytes[..3].copy_from_slice(b"\xeb\x63\x90");
    // One active partition of type 83, from sector 8 on, and the signature.
    bytes[446..462].copy_from_slice(b"\x80\0\0\0\x83\0\0\0\x08\0\0\0\0\x02\0\0");
    bytes[510..512].copy_from_slice(b"\x55\xaa");
    bytes.extend(fs::read(folder.join(volume))?);
    fs::write(disk, bytes)?;
    Ok(())
}

/// The triple that this machine's compiler builds for.
fn host_triple() -> Result<String> {
    let about = crate::repo::output(Command::new("rustc").arg("-vV"))?;
    let host = about.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).context("rustc -vV names no host")
}
