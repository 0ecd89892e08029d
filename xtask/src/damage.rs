//! `cargo xtask damage`: what becomes of images that are cut short, or have a bit flipped.
//!
//! Every format and subformat that is read, cut at every hundredth of its length, then with seeded flips, half of them where tables
//! lie. Each damaged image goes through `image-prep convert` and `qemu-img convert`, and ends in one of three ways: refused, exact
//! (no guest byte depended on what is gone), or another disk without a word. The last is a defect here for a cut. For a flip it is
//! counted, as most formats have no checksum of their data: the guest digest is what shows it. A raw disk has no length of its
//! own, so that nobody can see that it was cut.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use clap::Args;
use serde::Serialize;

use crate::kinds::{self, IMAGE, Kind};
use crate::repo::{Profile, Repo};
use crate::seed::Seed;
use crate::sparse;
use crate::watch::{Ended, Limits, Watched, fresh, parallel};

/// Arguments of `damage`.
#[derive(Debug, Args)]
pub(crate) struct DamageArgs {
    /// Cuts in every image, evenly spread
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..))]
    cuts: u64,
    /// Flips in every image
    #[arg(long, default_value_t = 40)]
    flips: u64,
    /// Another number makes other flips
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Only the images whose names contain this; may be repeated
    #[arg(long, value_name = "TEXT")]
    only: Vec<String>,
    /// Check the build for users: it is there later, and runs faster
    #[arg(long)]
    release: bool,
}

/// An image, and which of its files is damaged.
#[derive(Debug)]
struct Victim {
    kind: Kind,
    file: &'static str,
    /// The format knows how long it is.
    has_length: bool,
}

/// How often what became of damaged images.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Counts {
    refused: u64,
    exact: u64,
    /// Another disk, and exit 0.
    silent: u64,
    /// A crash, or no end.
    broken: u64,
}

/// A line of the report.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Judged {
    name: String,
    has_length: bool,
    /// It was not read before it was damaged, so there is nothing to see.
    unread: Option<String>,
    cuts: [Counts; 2],
    flips: [Counts; 2],
    /// What was silent or broken here.
    wrong: Vec<String>,
}

/// Damages every image and says what became of it.
pub(crate) fn run(repo: &Repo, args: &DamageArgs) -> Result<ExitCode> {
    let profile = if args.release { Profile::Release } else { Profile::Dev };
    let image_prep = repo.build("image-prep", profile)?;
    let home = repo.target().join("damage");
    let work = fresh(home.join("work"))?;
    let disk = kinds::sample(&work)?;
    let mut victims = victims();
    victims.retain(|victim| {
        args.only.is_empty() || args.only.iter().any(|text| victim.kind.name.contains(text))
    });
    ensure!(!victims.is_empty(), "no image has such a name");
    let judged = parallel(&victims, |number, victim| {
        let folder = work.join(number.to_string());
        let judged =
            judge(victim, &folder, &disk, &image_prep, args).with_context(|| victim.kind.name.clone());
        let _ = fs::remove_dir_all(&folder);
        judged
    });
    let judged = judged.into_iter().collect::<Result<Vec<_>>>()?;
    fs::remove_dir_all(&work)?;
    fs::write(home.join("damage.json"), serde_json::to_vec_pretty(&judged)?)?;
    Ok(report(&judged))
}

/// Every format and subformat, and each file of those that have several.
fn victims() -> Vec<Victim> {
    let victim = |name: &str, format: &'static str, file: &'static str, options: &str| {
        let kind = Kind::new("damage", name, format);
        let kind = kind.step(&format!("qemu-img convert -f raw -O {format} {options} DISK image"));
        Victim { kind, file, has_length: true }
    };
    let with_references = |mut victim: Victim| {
        victim.kind = victim.kind.with_references();
        victim
    };
    let chain = |name: &str, format: &'static str, file: &'static str, base: &str| {
        let kind = Kind::new("damage", name, format)
            .step(&format!("qemu-img convert -f raw -O {base} DISK base"))
            .step(&format!("qemu-img create -q -f {format} -F {base} -b base image"))
            .edit(&["write -P 0xaa 2M 1M"])
            .with_references();
        Victim { kind, file, has_length: true }
    };
    let data_file = |file| {
        let kind = Kind::new("damage", format!("qcow2 data file: {file}"), "qcow2")
            .step("qemu-img create -q -f qcow2 -o data_file=data image 15207936")
            .step("qemu-img convert -n -f raw -O qcow2 DISK image")
            .with_references();
        Victim { kind, file, has_length: true }
    };
    let mut vhd_fixed = victim("vhd fixed", "vpc", IMAGE, "-o subformat=fixed,force_size=on");
    // Without its footer it is a raw disk, unless the user says what it was.
    vhd_fixed.kind = vhd_fixed.kind.ours(&["--format", "vhd"]);
    vec![
        Victim { has_length: false, ..victim("raw", "raw", IMAGE, "") },
        victim("qcow2", "qcow2", IMAGE, ""),
        victim("qcow2 version 2", "qcow2", IMAGE, "-o compat=0.10"),
        victim("qcow2 512", "qcow2", IMAGE, "-o cluster_size=512"),
        victim("qcow2 2M", "qcow2", IMAGE, "-o cluster_size=2M"),
        victim("qcow2 zlib", "qcow2", IMAGE, "-c"),
        victim("qcow2 zstd", "qcow2", IMAGE, "-c -o compression_type=zstd"),
        victim("qcow2 extended L2", "qcow2", IMAGE, "-o extended_l2=on"),
        victim("qcow2 extended zstd", "qcow2", IMAGE, "-c -o extended_l2=on,compression_type=zstd"),
        data_file(IMAGE),
        data_file("data"),
        chain("qcow2 over qcow2: base", "qcow2", "base", "qcow2"),
        chain("qcow2 over vmdk: base", "qcow2", "base", "vmdk"),
        victim("vmdk sparse", "vmdk", IMAGE, ""),
        victim("vmdk stream", "vmdk", IMAGE, "-o subformat=streamOptimized"),
        with_references(victim("vmdk flat: extent", "vmdk", "image-flat", "-o subformat=monolithicFlat")),
        with_references(victim("vmdk flat: text", "vmdk", IMAGE, "-o subformat=monolithicFlat")),
        with_references(victim(
            "vmdk 2gb sparse: extent",
            "vmdk",
            "image-s001",
            "-o subformat=twoGbMaxExtentSparse",
        )),
        with_references(victim(
            "vmdk 2gb flat: extent",
            "vmdk",
            "image-f001",
            "-o subformat=twoGbMaxExtentFlat",
        )),
        chain("vmdk over vmdk: base", "vmdk", "base", "vmdk"),
        victim("vhd dynamic", "vpc", IMAGE, "-o force_size=on"),
        vhd_fixed,
        victim("vhdx dynamic", "vhdx", IMAGE, "-o block_size=1M"),
        victim("vhdx fixed", "vhdx", IMAGE, "-o subformat=fixed,block_size=1M"),
    ]
}

fn judge(
    victim: &Victim,
    folder: &Path,
    disk: &Path,
    image_prep: &Path,
    args: &DamageArgs,
) -> Result<Judged> {
    let kind = &victim.kind;
    kinds::make(kind, folder, disk)?;
    let mut judged = Judged { name: kind.name.clone(), has_length: victim.has_length, ..Judged::default() };
    let theirs = kinds::convert_theirs(kind, folder, LIMITS)?;
    ensure!(theirs.ended == Ended::Exit(0), "qemu-img: {}", theirs.said);
    let expected = sparse::digest(&folder.join("theirs.raw"))?;
    let whole = kinds::convert(kind, folder, image_prep, LIMITS)?;
    if whole.ended != Ended::Exit(0) {
        judged.unread = Some(whole.said);
        return Ok(judged);
    }
    if sparse::digest(&folder.join("ours.raw"))? != expected {
        let what = "whole, it does not become the disk".to_owned();
        judged.wrong.push(what.clone());
        judged.unread = Some(what);
        return Ok(judged);
    }

    let both = |counts: &mut [Counts; 2], what: String, wrong: &mut Vec<String>| -> Result<()> {
        let ours = kinds::convert(kind, folder, image_prep, LIMITS)?;
        let became = became(&ours, &folder.join("ours.raw"), &expected, &[1, 3])?;
        if became == "silent" || became == "broken" {
            wrong.push(format!("{what}: {became}: {} {}", ours.ended, ours.said.trim_end()));
        }
        counts[0].add(became);
        let theirs = kinds::convert_theirs(kind, folder, LIMITS)?;
        counts[1].add(self::became(&theirs, &folder.join("theirs.raw"), &expected, &[1])?);
        Ok(())
    };
    let path = folder.join(victim.file);
    flips(&path, args, &kind.name, |at, bit| {
        let mut seen = Vec::new();
        both(&mut judged.flips, format!("bit {bit} of byte {at:#x} flipped"), &mut seen)?;
        // What a format cannot see is no defect.
        judged.wrong.extend(seen.into_iter().filter(|text| text.contains(": broken:")));
        Ok(())
    })?;
    cuts(&path, args.cuts, |len, whole| {
        both(&mut judged.cuts, format!("cut to {len} of {whole} bytes"), &mut judged.wrong)
    })?;
    if !victim.has_length {
        judged.wrong.retain(|text| !text.contains(": silent:"));
    }
    Ok(judged)
}

/// A damaged image may make either program work hard, not for long.
const LIMITS: Limits =
    Limits { wall: std::time::Duration::from_secs(60), cpu_seconds: Some(10), address_space: Some(4 << 30) };

fn became(run: &Watched, raw: &Path, expected: &str, refusals: &[i32]) -> Result<&'static str> {
    let became = match run.ended {
        Ended::Exit(0) if sparse::digest(raw)? == expected => "exact",
        Ended::Exit(0) => "silent",
        Ended::Exit(code) if refusals.contains(&code) => "refused",
        _ => "broken",
    };
    if raw.exists() {
        fs::remove_file(raw)?;
    }
    Ok(became)
}

impl Counts {
    fn add(&mut self, became: &str) {
        *match became {
            "refused" => &mut self.refused,
            "exact" => &mut self.exact,
            "silent" => &mut self.silent,
            _ => &mut self.broken,
        } += 1;
    }
}

/// Cuts a file ever shorter, by equal steps, down to nothing.
fn cuts(path: &Path, steps: u64, mut each: impl FnMut(u64, u64) -> Result<()>) -> Result<()> {
    let file = File::options().write(true).open(path)?;
    let whole = file.metadata()?.len();
    for step in (0..steps).rev() {
        let len = whole * step / steps;
        file.set_len(len)?;
        each(len, whole)?;
    }
    Ok(())
}

/// Flips one bit at a time, and back: half of them anywhere, half where tables are likely to be.
fn flips(
    path: &Path,
    args: &DamageArgs,
    name: &str,
    mut each: impl FnMut(u64, u32) -> Result<()>,
) -> Result<()> {
    let file = File::options().read(true).write(true).open(path)?;
    let len = file.metadata()?.len();
    let mut seed = Seed::new(args.seed, name);
    for number in 0..args.flips {
        let head = len.min(256 << 10);
        let tail = len.min(2048);
        let at = match number % 4 {
            0 | 1 => seed.below(len),
            2 => seed.below(head),
            _ if number % 8 == 3 => len - 1 - seed.below(tail),
            _ => seed.below(len.min(1024)),
        };
        let bit = u32::try_from(seed.below(8))?;
        let mut byte = [0];
        file.read_exact_at(&mut byte, at)?;
        file.write_all_at(&[byte[0] ^ (1 << bit)], at)?;
        each(at, bit)?;
        file.write_all_at(&byte, at)?;
    }
    Ok(())
}

/// Prints the matrix, ours beside qemu-img's, and what is wrong.
fn report(judged: &[Judged]) -> ExitCode {
    let counts = |Counts { refused, exact, silent, broken }: &Counts| {
        let broken = if *broken == 0 { String::new() } else { format!("+{broken}") };
        format!("{refused:>8}{exact:>6}{:>7}", format!("{silent}{broken}"))
    };
    println!("{:24}  {:^45}  {:^45}", "", "cut short", "one bit flipped");
    println!("{:24}{:^23}{:^24}{:^23}{:^24}", "", "image-prep", "qemu-img", "image-prep", "qemu-img");
    let head = format!("{:>8}{:>6}{:>7}", "refused", "exact", "silent");
    println!("{:24}{head}  {head}  {head}  {head}", "image");
    let mut wrong = Vec::new();
    for one in judged {
        wrong.extend(one.wrong.iter().map(|text| format!("{}: {text}", one.name)));
        if one.unread.is_some() {
            println!("{:24}{:>8}", one.name, "not read");
            continue;
        }
        let cells = [one.cuts[0], one.cuts[1], one.flips[0], one.flips[1]].map(|cell| counts(&cell));
        let note = if one.has_length { "" } else { "  (has no length of its own)" };
        println!("{:24}{}{note}", one.name, cells.join("  "));
    }
    println!(
        "silent: another disk, and exit 0. +n: crashed, or did not end. A flip that no format sees shows in the guest digest."
    );
    for text in &wrong {
        println!("\n{text}");
    }
    if wrong.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(bytes: &[u8]) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), bytes).unwrap();
        file
    }

    #[test]
    fn cuts_go_down_to_nothing_in_equal_steps() {
        let file = file(&[7; 1000]);
        let mut lens = Vec::new();
        cuts(file.path(), 4, |len, whole| {
            assert_eq!((whole, fs::metadata(file.path())?.len()), (1000, len));
            lens.push(len);
            Ok(())
        })
        .unwrap();
        assert_eq!(lens, [750, 500, 250, 0]);
    }

    #[test]
    fn one_bit_differs_and_then_none() {
        let before = vec![0x5a; 5000];
        let file = file(&before);
        let args = DamageArgs { cuts: 1, flips: 16, seed: 1, only: Vec::new(), release: false };
        let mut places = std::collections::BTreeSet::new();
        flips(file.path(), &args, "name", |at, bit| {
            let mut expected = before.clone();
            expected[usize::try_from(at)?] ^= 1 << bit;
            assert!(fs::read(file.path())? == expected);
            places.insert(at);
            Ok(())
        })
        .unwrap();
        assert!(fs::read(file.path()).unwrap() == before);
        assert!(places.len() > 10);
    }

    #[test]
    fn victims_have_names_of_their_own() {
        let names: std::collections::BTreeSet<_> =
            victims().into_iter().map(|victim| victim.kind.name).collect();
        assert_eq!(names.len(), victims().len());
    }
}
