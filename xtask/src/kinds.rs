//! `cargo xtask kinds`: every kind of image that qemu-img writes, read here and by qemu-img.
//!
//! One small disk in every format, with all pairs of the options that qemu-img has for it, and chains of files. Each kind must come
//! out of `image-prep convert` with the bytes that `qemu-img convert` gives, or be refused by name where refusing it is the policy.
//! With `--second-opinion` imago reads them too, as far as it can: qemu-img wrote the images, so that only another reader can
//! see a mistake that it makes both ways.
//! Formats that qemu-img lists and that are not known here are tried too, so that a newer qemu-img fails this before it surprises
//! a user. The table of README.md is what comes out: `--bless` writes it, every whole run compares it.

mod axes;
mod kind;
mod others;
mod qcow2;
mod sample;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use serde::Serialize;

use crate::repo::{Profile, Repo, output};
use crate::sparse;
use crate::watch::{Ended, Eyes, GENEROUS, Limits, Watched, fresh, parallel, watch};
pub(crate) use kind::{IMAGE, Kind};

/// What stands around the table in README.md.
const BEGIN: &str = "<!-- cargo xtask kinds -->\n";
const END: &str = "<!-- end of kinds -->";

/// Arguments of `kinds`.
#[derive(Debug, Args)]
pub(crate) struct KindsArgs {
    /// Every option once instead of every pair of options
    #[arg(long)]
    quick: bool,
    /// Only the kinds whose family or name contains this; may be repeated
    #[arg(long, value_name = "TEXT")]
    only: Vec<String>,
    /// Check the build for users: it is there later, and runs faster
    #[arg(long)]
    release: bool,
    /// Write the table of README.md
    #[arg(long, conflicts_with_all = ["quick", "only"])]
    bless: bool,
    /// Ask imago too, with a program of benches/peers, which is built for it; that it disagrees is no failure
    #[arg(long)]
    second_opinion: bool,
    /// Keep the folders of the kinds that are wrong
    #[arg(long)]
    keep: bool,
}

/// What came of a kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
enum Verdict {
    /// The bytes that qemu-img gives.
    Exact,
    /// Refused by name, which is the policy.
    Refused,
    /// Anything else.
    Wrong,
}

/// What imago makes of a kind that came out exact.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
enum Second {
    /// It was not asked.
    Unasked,
    /// The same bytes.
    Same,
    /// It does not read this kind.
    Unread,
    /// Other bytes.
    Differs,
}

/// A line of the report.
#[derive(Debug, Serialize)]
struct Judged {
    family: &'static str,
    name: String,
    verdict: Verdict,
    /// The digest, the refusal, or what is wrong.
    said: String,
    second: Second,
}

/// Makes every kind and judges it.
pub(crate) fn run(repo: &Repo, args: &KindsArgs) -> Result<ExitCode> {
    let profile = if args.release { Profile::Release } else { Profile::Dev };
    let image_prep = repo.build("image-prep", profile)?;
    let imago = match args.second_opinion {
        true => Some(repo.build_of("peers", "peer-imago", profile)?),
        false => None,
    };
    let home = repo.target().join("kinds");
    let work = fresh(home.join("work"))?;
    let disk = sample(&work)?;
    let mut kinds = all(args.quick);
    kinds.extend(unknown_formats(&work)?);
    let wanted = |text: &String, kind: &Kind| kind.family.contains(text) || kind.name.contains(text);
    kinds.retain(|kind| args.only.is_empty() || args.only.iter().any(|text| wanted(text, kind)));
    ensure!(!kinds.is_empty(), "no kind has such a name");
    let judged = parallel(&kinds, |number, kind| {
        let folder = work.join(number.to_string());
        let (verdict, said) = match judge(kind, &folder, &disk, &image_prep) {
            Ok(judged) => judged,
            Err(error) => (Verdict::Wrong, format!("{error:#}")),
        };
        let second = match &imago {
            Some(imago) if verdict == Verdict::Exact => second(kind, &folder, imago, &said),
            _ => Ok(Second::Unasked),
        };
        // What cannot be run at all reads nothing.
        let second = second.unwrap_or(Second::Unread);
        if !(args.keep && (verdict == Verdict::Wrong || second == Second::Differs)) {
            let _ = fs::remove_dir_all(&folder);
        }
        Judged { family: kind.family, name: kind.name.clone(), verdict, said, second }
    });
    if !args.keep {
        fs::remove_dir_all(&work)?;
    }
    fs::write(home.join("kinds.json"), serde_json::to_vec_pretty(&judged)?)?;
    let families = count(&judged);
    let mut code = report(&judged, &families);
    if args.second_opinion {
        report_second(&judged);
    }
    if !args.quick && args.only.is_empty() {
        let readme = repo.read("README.md")?;
        let expected = with_table(&readme, &families)?;
        if args.bless {
            fs::write(repo.path("README.md"), expected)?;
        } else if expected != readme {
            println!("\nthe table in README.md is not this one; `cargo xtask kinds --bless` writes it");
            code = ExitCode::FAILURE;
        }
    }
    Ok(code)
}

/// README with the counts in their place.
fn with_table(readme: &str, families: &Families) -> Result<String> {
    let (before, rest) = readme.split_once(BEGIN).context("README.md has no place for the table of kinds")?;
    let (_, after) = rest.split_once(END).context("README.md has no end of the table of kinds")?;
    let mut table = String::from(
        "| kinds of image that qemu-img writes | made | converted to its bytes | refused by name |\n|---|---|---|---|\n",
    );
    for (family, [made, exact, refused, _]) in families {
        let family = if *family == ALL { "all" } else { family };
        writeln!(table, "| {family} | {made} | {exact} | {refused} |")?;
    }
    Ok(format!("{before}{BEGIN}{table}{END}{after}"))
}

/// All kinds that are known.
fn all(quick: bool) -> Vec<Kind> {
    [qcow2::single(quick), qcow2::chains(quick), others::all(quick)].concat()
}

/// The raw disk that all kinds are made from.
pub(crate) fn sample(folder: &Path) -> Result<PathBuf> {
    let disk = folder.join("disk.raw");
    sample::make(folder, &disk)?;
    Ok(disk)
}

/// Makes a kind in a folder of its own.
pub(crate) fn make(kind: &Kind, folder: &Path, disk: &Path) -> Result<()> {
    fresh(folder.to_owned())?;
    for step in &kind.steps {
        let words = Kind::words(step, disk);
        let (program, arguments) = words.split_first().context("a step without words")?;
        output(Command::new(program).args(arguments).current_dir(folder))?;
    }
    Ok(())
}

/// Runs `image-prep convert` of a made kind into `ours.raw`, beside the image.
pub(crate) fn convert(kind: &Kind, folder: &Path, image_prep: &Path, limits: Limits) -> Result<Watched> {
    let program = image_prep.to_string_lossy();
    let mut words = vec![program.as_ref(), "convert", "--quiet"];
    words.extend(kind.ours.iter().map(String::as_str));
    words.extend([IMAGE, "ours.raw"]);
    watch(&words, folder, &folder.join("notes"), limits, Eyes::Shut)
}

/// Runs `qemu-img convert` of a made kind into `theirs.raw`, beside the image.
pub(crate) fn convert_theirs(kind: &Kind, folder: &Path, limits: Limits) -> Result<Watched> {
    let mut words = vec!["qemu-img", "convert", "-f", kind.format, "-O", "raw"];
    words.extend(kind.theirs.iter().map(String::as_str));
    words.extend([IMAGE, "theirs.raw"]);
    watch(&words, folder, &folder.join("notes"), limits, Eyes::Shut)
}

fn judge(kind: &Kind, folder: &Path, disk: &Path, image_prep: &Path) -> Result<(Verdict, String)> {
    make(kind, folder, disk).context("it cannot be made")?;
    let ours = convert(kind, folder, image_prep, GENEROUS)?;
    let said = ours.said.trim_end().replace('\n', "; ");
    match (ours.ended, kind.refusal) {
        (Ended::Exit(3), Some(refusal)) if said.contains(refusal) => return Ok((Verdict::Refused, said)),
        (Ended::Exit(3), Some(refusal)) => bail!("refused, but not for `{refusal}`: {said}"),
        (Ended::Exit(3), None) => bail!("refused: {said}"),
        (Ended::Exit(0), Some(_)) => bail!("not refused"),
        (Ended::Exit(0), None) => {}
        (ended, _) => bail!("{ended}: {said}"),
    }
    let theirs = convert_theirs(kind, folder, GENEROUS)?;
    ensure!(theirs.ended == Ended::Exit(0), "qemu-img: {}: {}", theirs.ended, theirs.said.trim_end());
    let (found, expected) =
        (sparse::digest(&folder.join("ours.raw"))?, sparse::digest(&folder.join("theirs.raw"))?);
    ensure!(found == expected, "not the bytes that qemu-img gives");
    Ok((Verdict::Exact, found))
}

/// Has imago convert a made kind, whose disk has this digest.
fn second(kind: &Kind, folder: &Path, imago: &Path, digest: &str) -> Result<Second> {
    // It knows no internal snapshots, and no other format that says anything.
    let is_asked =
        ["qcow2", "vmdk"].contains(&kind.format) && !kind.ours.iter().any(|word| word == "--snapshot");
    if !is_asked {
        return Ok(Second::Unasked);
    }
    let program = imago.to_string_lossy();
    let words = [program.as_ref(), "--any", IMAGE, "second.raw"];
    let done = watch(&words, folder, &folder.join("notes"), GENEROUS, Eyes::Shut)?;
    if done.ended != Ended::Exit(0) {
        return Ok(Second::Unread);
    }
    let found = sparse::digest(&folder.join("second.raw"))?;
    Ok(if found == digest { Second::Same } else { Second::Differs })
}

/// Prints what imago says, and where it disagrees with both others.
fn report_second(judged: &[Judged]) {
    println!("\n{:18}{:>8}{:>8}{:>9}", "imago", "same", "unread", "differs");
    let count = |family: &str, second: Second| {
        let of = |one: &&Judged| (one.family == family || family == ALL) && one.second == second;
        judged.iter().filter(of).count()
    };
    let families: BTreeSet<&str> =
        judged.iter().filter(|one| one.second != Second::Unasked).map(|one| one.family).collect();
    for family in families.into_iter().chain([ALL]) {
        let [same, unread, differs] =
            [Second::Same, Second::Unread, Second::Differs].map(|second| count(family, second));
        let name = if family == ALL { "all" } else { family };
        println!("{name:18}{same:>8}{unread:>8}{differs:>9}");
    }
    for one in judged.iter().filter(|one| one.second == Second::Differs) {
        println!("\n{}: {}\n  imago reads another disk than image-prep and qemu-img", one.family, one.name);
    }
}

/// A kind for each format that qemu-img lists, can make, and that is not among ours.
fn unknown_formats(folder: &Path) -> Result<Vec<Kind>> {
    let help = output(Command::new("qemu-img").arg("--help"))?;
    // "Supported formats: a b c" up to version 9, a heading and lines of their own since.
    let (_, formats) = help.split_once("Supported").context("qemu-img lists no formats")?;
    let (_, formats) = formats.split_once(':').context("qemu-img lists no formats")?;
    let formats = formats.trim_start().split("\n\n").next().unwrap_or_default();
    let listed: BTreeSet<&str> = formats.split_whitespace().collect();
    ensure!(
        listed.contains("qcow2") && listed.contains("vmdk"),
        "qemu-img lists formats in another way: {formats}"
    );
    let known: BTreeSet<&str> = all(true).iter().map(|kind| kind.format).collect();
    let mut kinds = Vec::new();
    for format in listed.difference(&known) {
        let mut create = Command::new("qemu-img");
        create.args(["create", "-q", "-f", format, "unknown", "1M"]).current_dir(folder);
        // What it does not make is a protocol, a filter, or a format that it only reads; LUKS wants a key.
        if output(&mut create).is_ok() && *format != "luks" {
            let kind = Kind::new("unknown", *format, "raw")
                .step(&format!("qemu-img create -q -f {format} image 1M"));
            kinds.push(kind.refused("no known disk image format"));
        }
        let _ = fs::remove_file(folder.join("unknown"));
    }
    Ok(kinds)
}

/// Made, exact, refused and wrong kinds of each family.
type Families = BTreeMap<&'static str, [usize; 4]>;

/// The family of all kinds: comes last in the alphabet.
const ALL: &str = "~";

fn count(judged: &[Judged]) -> Families {
    let mut families = Families::new();
    for one in judged {
        for family in [one.family, ALL] {
            let counts = families.entry(family).or_default();
            counts[0] += 1;
            counts[1 + one.verdict as usize] += 1;
        }
    }
    families
}

/// Prints the table and what is wrong.
fn report(judged: &[Judged], families: &Families) -> ExitCode {
    println!("{:18}{:>8}{:>8}{:>19}{:>8}", "family", "kinds", "exact", "refused by policy", "wrong");
    for (family, [kinds, exact, refused, wrong]) in families {
        let family = if *family == ALL { "all" } else { family };
        println!("{family:18}{kinds:>8}{exact:>8}{refused:>19}{wrong:>8}");
    }
    let wrong: Vec<&Judged> = judged.iter().filter(|one| one.verdict == Verdict::Wrong).collect();
    for one in &wrong {
        println!("\n{}: {}\n  {}", one.family, one.name, one.said.replace('\n', "\n  "));
    }
    if wrong.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_the_quick_list_is_short() {
        for quick in [false, true] {
            let kinds = all(quick);
            let names: BTreeSet<_> = kinds.iter().map(|kind| (kind.family, &kind.name)).collect();
            assert_eq!(names.len(), kinds.len());
        }
        assert!(all(true).len() * 2 < all(false).len());
        assert!(all(false).len() > 250);
    }
}
