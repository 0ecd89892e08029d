//! The drivers for the cloud's disk and network: in the kernel, or as modules that are there in time.
//!
//! What the root file system is read with has to be in the kernel or in the initramfs; a network driver may come later. The initramfs
//! itself is not unpacked: what made it says what it holds.

use super::{Finding, Parts, Point};
use crate::source::{Trouble, printable};
use crate::system::newest_kernel;
use crate::tree::{Evidence, Text, Tree};

/// Name of the module, name in the kernel's configuration, and whether the root file system needs it.
const DRIVERS: [(&str, &str, bool); 3] = [
    ("virtio_pci", "CONFIG_VIRTIO_PCI", true),
    ("virtio_blk", "CONFIG_VIRTIO_BLK", true),
    ("virtio_net", "CONFIG_VIRTIO_NET", false),
];

const MEND_KERNEL: &str = "install a kernel with virtio_blk, virtio_net and virtio_pci, for example the distribution's cloud kernel";

const MEND_INITRAMFS: &str = "put virtio_blk and virtio_pci into the initramfs: MODULES=most in /etc/initramfs-tools/initramfs.conf and \
    update-initramfs -u; or dracut --force --add-drivers 'virtio_blk virtio_pci'";

pub(super) fn check(_: &Parts<'_>, tree: &Tree<'_>) -> Result<Finding, Trouble> {
    let Some((version, folder)) = newest_kernel(tree)? else {
        return Ok(Finding::unknown(Point::Virtio, "no kernel with modules was found"));
    };
    let builtin = tree.text(&format!("{folder}/modules.builtin"))?;
    let config = tree.texts(&[&format!("/boot/config-{version}"), &format!("{folder}/config")])?;
    let modules = tree.text(&format!("{folder}/modules.dep"))?;
    if builtin.is_none() && config.is_empty() && modules.is_none() {
        let found = format!("neither modules nor configuration of kernel {} were found", printable(&version));
        return Ok(Finding::unknown(Point::Virtio, found));
    }
    let (mut evidence, mut early) = (Vec::new(), Vec::new());
    for (name, key, is_early) in DRIVERS {
        let is_module = |line: &str| names_module(line, name);
        let inside = builtin.as_ref().and_then(|text| text.find(is_module));
        let inside =
            inside.or_else(|| config.iter().find_map(|text| text.find(|line| line == format!("{key}=y"))));
        let module = || modules.as_ref().and_then(|text| text.find(is_module));
        match (inside, module()) {
            (Some(inside), _) => evidence.push(inside),
            (None, Some(module)) => {
                evidence.push(module);
                if is_early {
                    early.push(name);
                }
            }
            (None, None) => {
                let kernel = printable(&version);
                let where_looked = modules.iter().chain(&builtin).chain(&config).next();
                let looked = where_looked.map(|text| text.path().to_owned()).unwrap_or_default();
                let found = format!("kernel {kernel} has no {name}, by {looked}");
                return Ok(Finding::warn(Point::Virtio, found, evidence, MEND_KERNEL));
            }
        }
    }
    let kernel = printable(&version);
    if early.is_empty() {
        return Ok(Finding::pass(Point::Virtio, format!("built into kernel {kernel}"), evidence));
    }
    Ok(initramfs(tree, &version, &early.join(", "))?.with(evidence))
}

impl Finding {
    /// What was found before comes first.
    fn with(mut self, mut before: Vec<Evidence>) -> Self {
        before.append(&mut self.evidence);
        self.evidence = before;
        self
    }
}

/// `kernel/drivers/block/virtio_blk.ko.xz: ...` for `virtio_blk`.
fn names_module(line: &str, name: &str) -> bool {
    let path = line.split(':').next().unwrap_or_default();
    let file = path.rsplit('/').next().unwrap_or_default();
    file.split_once(".ko").is_some_and(|(stem, _)| stem.replace('-', "_") == name)
}

/// What the maker of the initramfs was told.
fn initramfs(tree: &Tree<'_>, version: &str, drivers: &str) -> Result<Finding, Trouble> {
    let names = [
        format!("/boot/initrd.img-{version}"),
        format!("/boot/initramfs-{version}.img"),
        format!("/boot/initrd-{version}"),
        "/boot/initramfs-linux.img".to_owned(),
        "/boot/initramfs-lts".to_owned(),
        "/boot/initramfs-virt".to_owned(),
    ];
    let Some(image) = tree.any(&names.each_ref().map(String::as_str))? else {
        let found = format!("{drivers}: only as modules, and there is no initramfs to load them from");
        return Ok(Finding::warn(Point::Virtio, found, None, MEND_INITRAMFS));
    };
    let pass = |why: &str, line: Evidence| {
        Ok(Finding::pass(Point::Virtio, format!("{drivers} as modules; {why}"), [image.clone(), line]))
    };
    let has_driver =
        |line: &str| line.contains("virtio_blk") || line.contains("virtio-blk") || line == "virtio";

    let listed = tree.texts(&["/etc/initramfs-tools/modules"])?;
    if let Some(line) = listed.iter().find_map(|text| text.find(has_driver)) {
        return pass("the initramfs is told to hold them", line);
    }
    let dracut = ["/usr/lib/dracut/dracut.conf.d", "/etc/dracut.conf.d"];
    let mut told = tree.parts(&dracut, ".conf")?;
    told.extend(tree.texts(&["/etc/dracut.conf"])?);
    let adds = |line: &str| line.contains("drivers") && has_driver(line);
    if let Some(line) = told.iter().find_map(|text| text.find(adds)) {
        return pass("the initramfs is told to hold them", line);
    }
    if let Some(line) = last(&told, |line| setting(line, "hostonly")) {
        return match setting(&line.text.clone().unwrap_or_default(), "hostonly").as_deref() {
            Some("no") => pass("the initramfs holds every driver", line),
            _ => Ok(only_of_host(drivers, image, line)),
        };
    }
    let mut debian = tree.texts(&["/etc/initramfs-tools/initramfs.conf"])?;
    debian.extend(tree.parts(&["/etc/initramfs-tools/conf.d"], "")?);
    if let Some(line) = last(&debian, |line| setting(line, "MODULES")) {
        return match setting(&line.text.clone().unwrap_or_default(), "MODULES").as_deref() {
            Some("most") => pass("the initramfs holds most drivers", line),
            Some("dep") => Ok(only_of_host(drivers, image, line)),
            _ => Ok(unknown(drivers)),
        };
    }
    let alpine = tree.texts(&["/etc/mkinitfs/mkinitfs.conf"])?;
    if let Some(line) = alpine.iter().find_map(|text| text.find(|line| line.contains("virtio"))) {
        return pass("the initramfs is told to hold them", line);
    }
    let arch = tree.texts(&["/etc/mkinitcpio.conf"])?;
    let (modules, hooks) = ("MODULES", "HOOKS");
    if let Some(line) = arch.iter().find_map(|text| text.find(|l| l.starts_with(modules) && has_driver(l))) {
        return pass("the initramfs is told to hold them", line);
    }
    match arch.iter().find_map(|text| text.find(|line| line.starts_with(hooks))) {
        Some(line) if line.text.as_ref().is_some_and(|text| text.contains("autodetect")) => {
            Ok(only_of_host(drivers, image, line))
        }
        Some(line) => pass("the initramfs holds every driver", line),
        None => Ok(unknown(drivers)),
    }
}

fn unknown(drivers: &str) -> Finding {
    let found = format!("{drivers}: modules, and whether the initramfs holds them is not known");
    Finding { mend: Some(MEND_INITRAMFS), ..Finding::unknown(Point::Virtio, found) }
}

fn only_of_host(drivers: &str, image: Evidence, line: Evidence) -> Finding {
    let found =
        format!("{drivers}: modules, and the initramfs holds only what the machine needed that made it");
    Finding::warn(Point::Virtio, found, [image, line], MEND_INITRAMFS)
}

/// The last line that sets something, as later files win.
fn last(texts: &[Text], is_set: impl Fn(&str) -> Option<String>) -> Option<Evidence> {
    texts.iter().rev().find_map(|text| {
        let line = text.settings().filter(|(_, line)| is_set(line).is_some()).last()?;
        Some(text.at(line.0, line.1))
    })
}

/// The value of `key=value`, without quotes.
fn setting(line: &str, key: &str) -> Option<String> {
    let (found, value) = line.split_once('=')?;
    (found.trim() == key).then(|| value.trim().trim_matches(['"', '\'', ' ']).to_owned())
}
