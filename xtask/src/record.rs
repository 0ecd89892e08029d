//! `cargo xtask record`: runs the commands of README's recordings, and writes what they print below them.
//!
//! A recording is a block of `$ ` lines between [`BEGIN`] and [`END`]. Its commands run at the root, one after the other, as somebody who
//! has nothing yet would run them: without settings, with a cloud of their own for `--local`. One that fails ends it.

use std::fmt::Write as _;
use std::fs;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, ensure};
use clap::Args;

use crate::repo::{Profile, Repo, output};

/// What stands around a recording in README.md.
const BEGIN: &str = "<!-- cargo xtask record -->\n```console\n";
const END: &str = "```\n<!-- end of record -->";

/// Arguments of `record`.
#[derive(Debug, Args)]
pub(crate) struct RecordArgs {
    /// Run the development build
    #[arg(long)]
    debug: bool,
}

/// Records all of them.
pub(crate) fn record(repo: &Repo, args: &RecordArgs) -> Result<ExitCode> {
    let profile = if args.debug { Profile::Dev } else { Profile::Release };
    let image_prep = repo.build("image-prep", profile)?;
    let folder = image_prep.parent().context("a binary lies in a folder")?;
    let home = repo.target().join("record");
    if home.exists() {
        fs::remove_dir_all(&home)?;
    }
    fs::create_dir_all(&home)?;
    let path = std::env::var("PATH").unwrap_or_default();
    let run = |command: &str| -> Result<String> {
        let mut shell = Command::new("bash");
        // What is to be typed builds the release first; whether that is the one that runs is for `--debug` to say.
        let command =
            if args.debug { command.replace("cargo run --release", "cargo run") } else { command.to_owned() };
        shell.args(["-c", &command]).current_dir(repo.path(""));
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy().into_owned();
            if ["AWS_", "YC_", "IMAGE_PREP_", "CLICOLOR"].iter().any(|prefix| name.starts_with(prefix)) {
                shell.env_remove(name);
            }
        }
        for name in ["XDG_DATA_HOME", "XDG_CACHE_HOME", "XDG_STATE_HOME", "XDG_CONFIG_HOME"] {
            shell.env(name, &home);
        }
        output(shell.env("PATH", format!("{}:{path}", folder.display())))
    };
    let recorded = with_recordings(&repo.read("README.md")?, run)?;
    fs::write(repo.path("README.md"), recorded)?;
    Ok(ExitCode::SUCCESS)
}

/// The text with what `run` makes of each command below it.
fn with_recordings(text: &str, mut run: impl FnMut(&str) -> Result<String>) -> Result<String> {
    let (mut recorded, mut rest, mut count) = (String::new(), text, 0);
    while let Some((before, after)) = rest.split_once(BEGIN) {
        let (block, after) = after.split_once(END).context("a recording without an end")?;
        write!(recorded, "{before}{BEGIN}")?;
        for command in block.lines().filter_map(|line| line.strip_prefix("$ ")) {
            let printed = run(command)?;
            // Spaces at the ends of lines are no part of what is seen.
            let printed: String = printed.lines().map(|line| format!("{}\n", line.trim_end())).collect();
            write!(recorded, "$ {command}\n{printed}")?;
            count += 1;
        }
        recorded.push_str(END);
        rest = after;
    }
    ensure!(count > 0, "README.md has no recording");
    recorded.push_str(rest);
    Ok(recorded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_takes_the_place_of_what_was() {
        let text = format!("head\n{BEGIN}$ one\nold\n$ two\n{END}\nbetween\n{BEGIN}$ three\n{END}\ntail\n");
        let recorded = with_recordings(&text, |command| Ok(format!("{command}! \n"))).unwrap();
        let expected = format!(
            "head\n{BEGIN}$ one\none!\n$ two\ntwo!\n{END}\nbetween\n{BEGIN}$ three\nthree!\n{END}\ntail\n"
        );
        assert_eq!(recorded, expected);
        assert!(with_recordings("nothing", |_| Ok(String::new())).is_err());
        assert!(with_recordings(&format!("{BEGIN}$ one\n"), |_| Ok(String::new())).is_err());
    }
}
