//! Peers that read a URL: looked for, not installed. `apt-get install qemu-block-extra nbdkit nbdkit-plugin-curl libnbd-bin`.

use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use super::Found;
use crate::repo::output;

/// `$0` is nbdkit, then format, URL and output. nbdkit ends with the command that it runs, and tells its socket as `$uri`.
pub(super) const NBDKIT: &str = "export format=\"$1\" out=\"$3\"\n\
    case \"$1\" in\n\
    raw) copy='nbdcopy \"$uri\" \"$out\"' ;;\n\
    *) copy='nbdcopy -- [ qemu-nbd -r -f \"$format\" \"$uri\" ] \"$out\"' ;;\n\
    esac\n\
    exec \"$0\" -U - curl url=\"$2\" --run \"$copy\"";

/// qemu-img, if it has a driver for URLs.
pub(super) fn qemu_curl() -> Result<Found> {
    let version = first_line("qemu-img", "--version")?;
    // Nobody listens there. A driver says that, in words of curl; where there is none, the protocol is not known.
    let asked = Command::new("qemu-img").args(["info", "http://127.0.0.1:1/disk"]).output()?;
    let said = String::from_utf8_lossy(&asked.stderr).into_owned();
    ensure!(said.contains("CURL"), "qemu-img has no curl driver (Debian package qemu-block-extra): {said}");
    Ok(Found { program: "qemu-img".into(), version })
}

/// nbdkit, if it has its curl plugin, and nbdcopy and qemu-nbd are beside it.
pub(super) fn nbdkit() -> Result<Found> {
    let nbdkit = first_line("nbdkit", "--version").context("Debian package nbdkit")?;
    first_line("nbdkit", "curl --version").context("Debian package nbdkit-plugin-curl")?;
    let nbdcopy = first_line("nbdcopy", "--version").context("Debian package libnbd-bin")?;
    first_line("qemu-nbd", "--version").context("Debian package qemu-utils")?;
    Ok(Found { program: "nbdkit".into(), version: format!("{nbdkit}, {nbdcopy}") })
}

fn first_line(program: &str, words: &str) -> Result<String> {
    let said = output(Command::new(program).args(words.split(' ')))?;
    Ok(said.lines().next().unwrap_or_default().to_owned())
}
