//! What boot loaders tell the kernel.
//!
//! GRUB's own menu, the entries of the Boot Loader Specification, GRUB's environment where distributions keep such lines, extlinux and
//! syslinux, and what `kernel-install` makes entries of.

use crate::source::Trouble;
use crate::tree::{Evidence, Text, Tree};

/// What GRUB reads, made of settings by a command.
const GRUB: [&str; 3] = ["/boot/grub/grub.cfg", "/boot/grub2/grub.cfg", "/boot/efi/EFI/grub.cfg"];

/// Entries of the Boot Loader Specification.
const ENTRIES: &str = "/boot/loader/entries";

/// What other loaders read, and what they say stands for.
const OTHERS: [&str; 5] = [
    "/boot/grub2/grubenv",
    "/boot/grub/grubenv",
    "/boot/extlinux/extlinux.conf",
    "/boot/extlinux.conf",
    "/boot/syslinux/syslinux.cfg",
];

/// A file that is nothing but such a line.
const BARE: &str = "/etc/kernel/cmdline";

/// The words before what a kernel is told, whatever loader they are for.
const COMMANDS: [&str; 6] = ["linux", "linux16", "linuxefi", "options", "append", "APPEND"];

/// The same where it is the value of a name.
const NAMES: [&str; 2] = ["kernelopts=", "set kernelopts="];

/// What boot loaders read.
pub(super) struct Commands {
    /// Files with such lines among others.
    texts: Vec<Text>,
    /// Files that are nothing but such a line.
    bare: Vec<Text>,
}

/// A line that a kernel is started with. Nothing of it is a copy: a file may consist of hundreds of thousands of such lines.
pub(super) struct Command<'a> {
    /// What it is told, with what else the loader wants to know.
    told: &'a str,
    text: &'a Text,
    number: usize,
    line: &'a str,
}

impl Command<'_> {
    /// The options, one after the other.
    pub(super) fn words(&self) -> impl Iterator<Item = &str> {
        words(self.told)
    }

    /// Where that stands.
    pub(super) fn place(&self) -> Evidence {
        self.text.at(self.number, self.line)
    }
}

impl Commands {
    /// Every line that a kernel may be started with.
    pub(super) fn iter(&self) -> impl Iterator<Item = Command<'_>> {
        let among_others = self.texts.iter().flat_map(|text| {
            text.settings()
                .filter_map(move |(number, line)| Some(Command { told: told(line)?, text, number, line }))
        });
        let bare = self.bare.iter().flat_map(|text| {
            text.settings().map(move |(number, line)| Command { told: line, text, number, line })
        });
        among_others.chain(bare)
    }
}

/// Reads what boot loaders read.
pub(super) fn commands(tree: &Tree<'_>) -> Result<Commands, Trouble> {
    let mut texts = tree.texts(&GRUB)?;
    texts.extend(tree.parts(&[ENTRIES], ".conf")?);
    texts.extend(tree.texts(&OTHERS)?);
    Ok(Commands { texts, bare: tree.texts(&[BARE])? })
}

fn told(line: &str) -> Option<&str> {
    let first = line.split_whitespace().next().unwrap_or_default();
    if COMMANDS.contains(&first) {
        return line.get(first.len()..);
    }
    NAMES.iter().find_map(|name| line.strip_prefix(name))
}

/// The words of a line, without quotes.
pub(super) fn words(line: &str) -> impl Iterator<Item = &str> {
    line.split(|c: char| c.is_whitespace() || matches!(c, '"' | '\'')).filter(|word| !word.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_every_loader() {
        for (line, expected) in [
            ("linux /vmlinuz root=UUID=1 ro", Some("/vmlinuz root=UUID=1 ro")),
            ("options root=/dev/sda1", Some("root=/dev/sda1")),
            ("kernelopts=root=/dev/sda1 ro", Some("root=/dev/sda1 ro")),
            ("set kernelopts=\"root=/dev/sda1 ro\"", Some("root=/dev/sda1 ro")),
            ("APPEND root=LABEL=x", Some("root=LABEL=x")),
            ("set root='hd0,msdos1'", None),
            ("linuxrc root=/dev/sda1", None),
        ] {
            let found = told(line).map(|told| words(told).collect::<Vec<_>>().join(" "));
            assert_eq!(found.as_deref(), expected, "{line}");
        }
    }
}
