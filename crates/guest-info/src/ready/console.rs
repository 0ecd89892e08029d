//! The kernel's console: what the boot loader tells the kernel.

use super::{Finding, Parts, Point};
use crate::source::Trouble;
use crate::system::System;
use crate::tree::Tree;

/// What GRUB reads, made of settings by a command.
const GRUB: [&str; 3] = ["/boot/grub/grub.cfg", "/boot/grub2/grub.cfg", "/boot/efi/EFI/grub.cfg"];

/// What other loaders read, and what they say stands for.
const OTHERS: [&str; 6] = [
    "/boot/grub2/grubenv",
    "/boot/grub/grubenv",
    "/boot/extlinux/extlinux.conf",
    "/boot/extlinux.conf",
    "/boot/syslinux/syslinux.cfg",
    "/etc/kernel/cmdline",
];

/// Settings from which all that is made.
const SETTINGS: &str = "/etc/default/grub";

const MEND: &str = "add console=ttyS0 to GRUB_CMDLINE_LINUX in /etc/default/grub and run update-grub (or grub2-mkconfig -o \
    /boot/grub2/grub.cfg)";

pub(super) fn check(parts: &Parts<'_>, tree: &Tree<'_>) -> Result<Finding, Trouble> {
    let wanted = match parts.system.and_then(|System { architecture, .. }| *architecture) {
        Some("aarch64") => "console=ttyAMA0",
        _ => "console=ttyS0",
    };
    let mut told = tree.texts(&GRUB)?;
    told.extend(tree.parts(&["/boot/loader/entries"], ".conf")?);
    told.extend(tree.texts(&OTHERS)?);
    if let Some(line) = told.iter().find_map(|text| text.find(|line| is_command(line) && has(line, wanted))) {
        return Ok(Finding::pass(Point::Console, format!("the kernel is told {wanted}"), [line]));
    }
    let mut settings = tree.texts(&[SETTINGS])?;
    settings.extend(tree.parts(&["/etc/default/grub.d"], ".cfg")?);
    let set = settings
        .iter()
        .find_map(|text| text.find(|line| line.starts_with("GRUB_CMDLINE") && has(line, wanted)));
    let command = told.iter().find_map(|text| text.find(is_command));
    Ok(match (set, command) {
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

/// A line that a kernel is started with, whatever loader it is for.
fn is_command(line: &str) -> bool {
    let first = line.split_whitespace().next().unwrap_or_default();
    matches!(first, "linux" | "linux16" | "linuxefi" | "options" | "append" | "APPEND")
        || line.starts_with("kernelopts=")
        || line.starts_with("root=")
        || line.starts_with("set kernelopts=")
}

/// The option, with or without a speed.
fn has(line: &str, option: &str) -> bool {
    let mut words = line.split(|c: char| c.is_whitespace() || matches!(c, '"' | '\''));
    words.any(|word| word.strip_prefix(option).is_some_and(|rest| rest.is_empty() || rest.starts_with(',')))
}
