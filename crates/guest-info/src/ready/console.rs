//! The kernel's console: what the boot loader tells the kernel.

use super::kernel::{commands, words};
use super::{Finding, Parts, Point};
use crate::source::Trouble;
use crate::system::System;
use crate::tree::Tree;

/// Settings from which all that is made.
const SETTINGS: &str = "/etc/default/grub";

const MEND: &str = "add console=ttyS0 to GRUB_CMDLINE_LINUX in /etc/default/grub and run update-grub (or grub2-mkconfig -o \
    /boot/grub2/grub.cfg)";

pub(super) fn check(parts: &Parts<'_>, tree: &Tree<'_>) -> Result<Finding, Trouble> {
    let wanted = match parts.system.and_then(|System { architecture, .. }| *architecture) {
        Some("aarch64") => "console=ttyAMA0",
        _ => "console=ttyS0",
    };
    let told = commands(tree)?;
    let first = told.iter().next().map(|command| command.place());
    if let Some(command) = told.iter().find(|command| command.words().any(|word| is(word, wanted))) {
        return Ok(Finding::pass(Point::Console, format!("the kernel is told {wanted}"), [command.place()]));
    }
    let mut settings = tree.texts(&[SETTINGS])?;
    settings.extend(tree.parts(&["/etc/default/grub.d"], ".cfg")?);
    let set = settings
        .iter()
        .find_map(|text| text.find(|line| line.starts_with("GRUB_CMDLINE") && sets(line, wanted)));
    Ok(match (set, first) {
        (Some(set), Some(command)) => Finding::warn(
            Point::Console,
            format!("{wanted} is set for GRUB, and not in what GRUB reads"),
            [set, command],
            "run update-grub (or grub2-mkconfig -o /boot/grub2/grub.cfg)",
        ),
        (Some(set), None) => Finding::pass(Point::Console, format!("{wanted} is set for GRUB"), [set]),
        (None, Some(command)) => {
            Finding::warn(Point::Console, format!("the kernel is not told {wanted}"), [command], MEND)
        }
        (None, None) => Finding::unknown(Point::Console, "no boot loader's settings were found"),
    })
}

/// A setting of GRUB with this option among its words.
fn sets(line: &str, option: &str) -> bool {
    line.split_once('=').is_some_and(|(_, value)| words(value).any(|word| is(word, option)))
}

/// The option, with or without a speed.
fn is(word: &str, option: &str) -> bool {
    word.strip_prefix(option).is_some_and(|rest| rest.is_empty() || rest.starts_with(','))
}
