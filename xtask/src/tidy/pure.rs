//! `disk-image` does no I/O, spawns nothing and reads no clock.
//!
//! Proved from two sides: everything that it links is on a short list of crates that compute and do nothing else, and none of its
//! sources names a part of the standard library that reaches the system. A list of what is allowed cannot go stale the way a
//! list of what is forbidden does.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, Result};
use cargo_metadata::{DependencyKind, Metadata, TargetKind};

use super::Violations;
use crate::repo::Repo;

/// The crate that is pure.
const PURE: &str = "disk-image";

/// What it may link, directly or not. Procedural macros and build scripts run on the developer's machine and are not counted.
const COMPUTES_ONLY: [&str; 12] = [
    "adler2",
    "bytes",
    "crc",
    "crc-catalog",
    "libdeflater",
    "libdeflate-sys",
    "miniz_oxide",
    // Not ours: a peer in `benches` asks miniz_oxide for it, and features count for the whole workspace here.
    "simd-adler32",
    "thiserror",
    "zstd",
    "zstd-safe",
    "zstd-sys",
];

/// The modules of `std` that reach the system.
const SYSTEM: [&str; 7] = ["env", "fs", "net", "os", "process", "thread", "time"];

/// Walks what [`PURE`] links and compares it with [`COMPUTES_ONLY`].
pub(super) fn check_dependencies(metadata: &Metadata, found: &mut Violations) -> Result<()> {
    let resolve = metadata.resolve.as_ref().context("cargo metadata without a dependency graph")?;
    let root =
        metadata.packages.iter().find(|package| package.name == PURE).context("no crate disk-image")?;
    let mut seen = BTreeSet::new();
    let mut queue = vec![&root.id];
    while let Some(id) = queue.pop() {
        let package = &metadata[id];
        let is_macro = package.targets.iter().any(|target| target.kind.contains(&TargetKind::ProcMacro));
        if is_macro || !seen.insert(id) {
            continue;
        }
        if package.name != PURE {
            check_dependency(&package.name, found);
        }
        let node = resolve.nodes.iter().find(|node| node.id == *id).context("a package outside the graph")?;
        let normal =
            node.deps.iter().filter(|d| d.dep_kinds.iter().any(|kind| kind.kind == DependencyKind::Normal));
        queue.extend(normal.map(|dependency| &dependency.pkg));
    }
    Ok(())
}

fn check_dependency(name: &str, found: &mut Violations) {
    if !COMPUTES_ONLY.contains(&name) {
        found.add(PURE, format_args!("links {name}, which is not on the list of crates that only compute"));
    }
}

/// What makes the compiler refuse arithmetic and indexing that input could make fail.
const CHECKED: &str = "#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]";

/// Modules that see no byte of an image: types, texts, and what was checked already.
const WITHOUT_INPUT: [&str; 26] = [
    "crc32c",
    "encode",
    "error",
    "extent",
    "gce",
    "gce/header",
    "gce/layout",
    "guid",
    "image",
    "lib",
    "limits",
    "map",
    "object",
    "open",
    "packed",
    "plan",
    "qcow2",
    "qcow2/layout",
    "qcow2/packed",
    "qcow2/placement",
    "qcow2/ranks",
    "reference",
    "span",
    "testing",
    "varint",
    "vmdk/create_type",
];

/// Looks for a module that reads images without the lints. A module's lints hold for those inside of it.
pub(super) fn check_lints(repo: &Repo, file: &Path, source: &str, found: &mut Violations) {
    let Ok(inside) = file.strip_prefix("crates/disk-image/src") else { return };
    let module = inside.with_extension("");
    let is_test = module.components().any(|part| part.as_os_str() == "tests");
    if is_test || WITHOUT_INPUT.iter().any(|name| module == Path::new(name)) || source.contains(CHECKED) {
        return;
    }
    let covered = module.ancestors().skip(1).filter(|outer| !outer.as_os_str().is_empty()).any(|outer| {
        let outer = Path::new("crates/disk-image/src").join(outer).with_extension("rs");
        repo.read(outer).is_ok_and(|source| source.contains(CHECKED))
    });
    if !covered {
        found.add(file.display(), format_args!("reads images without `{CHECKED}`"));
    }
}

/// Looks for parts of `std` that reach the system. Tests may use them.
pub(super) fn check_source(file: &Path, source: &str, found: &mut Violations) {
    if !file.starts_with("crates/disk-image/src") || file.ends_with("tests.rs") {
        return;
    }
    let shipped = source.split("#[cfg(test)]\nmod tests {").next().unwrap_or(source);
    let code: String = shipped.lines().map(|line| line.split("//").next().unwrap_or(line)).collect();
    for (at, _) in code.match_indices("std::") {
        let rest = &code[at + "std::".len()..];
        for module in first_segments(rest) {
            if SYSTEM.contains(&module) {
                found.add(file.display(), format_args!("names std::{module}; {PURE} does no I/O"));
            }
        }
    }
}

/// The first path segments of what follows `std::`: one, or those of a group in braces.
fn first_segments(rest: &str) -> Vec<&str> {
    let Some(group) = rest.trim_start().strip_prefix('{') else { return vec![identifier(rest)] };
    let mut depth = 0;
    let mut segments = vec![identifier(group)];
    for (at, symbol) in group.char_indices() {
        match symbol {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => segments.push(identifier(&group[at + 1..])),
            _ => {}
        }
    }
    segments
}

fn identifier(text: &str) -> &str {
    let text = text.trim_start();
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn violations(source: &str) -> usize {
        let mut found = Violations::default();
        check_source(Path::new("crates/disk-image/src/raw.rs"), source, &mut found);
        found.lines().len()
    }

    #[test]
    fn the_system_is_out_of_reach() {
        assert_eq!(violations("use std::fs::File;"), 1);
        assert_eq!(violations("use std::{collections::{BTreeMap, BTreeSet}, process::Command, time};"), 2);
        assert_eq!(violations("let now = ::std::time::Instant::now();"), 1);
        assert_eq!(violations("use std::{\n    sync::Arc,\n    net,\n};"), 1);
    }

    #[test]
    fn computing_is_not() {
        assert_eq!(violations("use std::sync::Arc;\nuse std::{fmt, ops::Range};"), 0);
        assert_eq!(
            violations("// not std::fs\nfn f() {}\n#[cfg(test)]\nmod tests {\n    use std::fs;\n}"),
            0
        );
    }

    #[test]
    fn a_reader_without_lints_is_found() {
        let check = |file: &str, source: &str| {
            let mut found = Violations::default();
            check_lints(&Repo::here(), &Path::new("crates/disk-image/src").join(file), source, &mut found);
            found.lines().len()
        };
        assert_eq!(check("new.rs", "fn parse() {}"), 1);
        assert_eq!(check("new.rs", CHECKED), 0);
        assert_eq!(check("qcow2/new.rs", "fn parse() {}"), 1);
        // The lints of vmdk.rs hold for its modules.
        assert_eq!(check("vmdk/new.rs", "fn parse() {}"), 0);
        assert_eq!(check("error.rs", "enum Error {}"), 0);
        assert_eq!(check("qcow2/tests/new.rs", "fn test() {}"), 0);
    }

    #[test]
    fn only_known_crates_are_linked() {
        let mut found = Violations::default();
        for name in ["bytes", "tokio", "rustix", "zstd-sys", "mio"] {
            check_dependency(name, &mut found);
        }
        assert_eq!(found.lines().len(), 3, "{found:?}");
    }
}
