//! Documents that repeat what the code says: README's help text, and the list of crates.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use cargo_metadata::Metadata;

use super::Violations;
use crate::repo::output;

/// What stands around the help text in README.md.
const BEGIN: &str = "<!-- image-prep --help -->\n```text\n";
const END: &str = "```\n<!-- end of help -->";

/// What `image-prep --help` prints where there is no terminal.
pub(super) fn help(image_prep: &Path) -> Result<String> {
    output(Command::new(image_prep).arg("--help").env("COLUMNS", "100").env_remove("CLICOLOR_FORCE"))
}

/// README with this help text in its place.
pub(super) fn with_help(readme: &str, help: &str) -> Result<String> {
    let (before, rest) = readme.split_once(BEGIN).context("README.md has no place for the help text")?;
    let (_, after) = rest.split_once(END).context("README.md has no end of the help text")?;
    Ok(format!("{before}{BEGIN}{help}{END}{after}"))
}

/// Compares the help text in README with the real one.
pub(super) fn check_help(readme: &str, help: &str, found: &mut Violations) {
    match with_help(readme, help) {
        Ok(expected) if expected == readme => {}
        Ok(_) => found.add(
            "README.md",
            "the help text is not that of image-prep; `cargo xtask tidy --bless` writes it",
        ),
        Err(error) => found.add("README.md", error),
    }
}

/// Compares the list of crates in `crates/README.md` with the manifests' descriptions.
pub(super) fn check_crates(readme: &str, metadata: &Metadata, found: &mut Violations) {
    let crates = metadata.workspace_packages().into_iter().filter(|package| {
        package
            .manifest_path
            .parent()
            .and_then(|folder| folder.parent())
            .is_some_and(|f| f.ends_with("crates"))
    });
    for package in crates {
        check_crate(readme, &package.name, package.description.as_deref().unwrap_or_default(), found);
    }
}

fn check_crate(readme: &str, name: &str, description: &str, found: &mut Violations) {
    let line = format!("| `{name}` | {description} |");
    if !readme.lines().any(|found| found == line) {
        found.add("crates/README.md", format_args!("has no line `{line}`"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_help_text_is_found_and_replaced() {
        let readme = format!("# Title\n\n{BEGIN}old\n{END}\n\nmore\n");
        let mut found = Violations::default();
        check_help(&readme, "old\n", &mut found);
        assert!(found.lines().is_empty());
        check_help(&readme, "new\n", &mut found);
        check_help("no place", "new\n", &mut found);
        assert_eq!(found.lines().len(), 2);
        assert_eq!(with_help(&readme, "new\n").unwrap(), readme.replace("old", "new"));
    }

    #[test]
    fn another_description_is_found() {
        let readme = "| crate | one sentence |\n| `a` | Does a. |\n";
        let mut found = Violations::default();
        check_crate(readme, "a", "Does a.", &mut found);
        assert!(found.lines().is_empty());
        check_crate(readme, "a", "Does b.", &mut found);
        check_crate(readme, "b", "Does b.", &mut found);
        assert_eq!(found.lines().len(), 2);
    }
}
