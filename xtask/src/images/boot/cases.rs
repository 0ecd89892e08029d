//! The disks, and what is to be said of each.
//!
//! Of Windows, XFS and Btrfs the files are not read, and of LUKS they cannot be: what would rest on them is unknown there.

use std::path::PathBuf;

use anyhow::Result;

use super::debian::{EFI, Tree, VERSION};
use super::disk::{BIOS_BOOT, BOOT_ID, ESP_ID, Lab, MIB, Part, RESERVED, ROOT_ID, Volume, WINDOWS_DATA};

/// Makes a disk.
type Make = Box<dyn Fn(&Lab) -> Result<()>>;

/// A disk, and what is known of it.
pub(super) struct Case {
    pub(super) name: &'static str,
    pub(super) make: Make,
    pub(super) expected: Expected,
}

/// What `info` has to say.
pub(super) struct Expected {
    /// The kind of table.
    pub(super) table: &'static str,
    /// What each partition holds; a dash where that is nothing.
    pub(super) volumes: &'static [&'static str],
    /// Family, id, version, and processor; a dash for each that cannot be known.
    pub(super) system: String,
    /// Number of its partition.
    pub(super) place: u64,
    /// How it starts, and the hardware for that.
    pub(super) boot: &'static str,
    /// The points that do not pass: verdict, and a part of the reason or of the place that it rests on.
    pub(super) points: Vec<(&'static str, &'static str, &'static str)>,
}

/// The points that files tell of.
const OF_FILES: [&str; 6] = ["virtio", "console", "cloud-init", "mounts", "dhcp", "ssh"];

/// A disk of Debian's that lacks something: what to do to its files, and what is said then.
type Broken = (&'static str, fn(&Tree) -> Result<()>, (&'static str, &'static str, &'static str));

const BROKEN: [Broken; 9] = [
    (
        "no virtio in initramfs",
        |tree| tree.write("etc/initramfs-tools/conf.d/driver-policy", "# small\nMODULES=dep\n"),
        ("virtio", "warn", "/etc/initramfs-tools/conf.d/driver-policy:2"),
    ),
    ("no virtio driver", without_driver, ("virtio", "warn", "has no virtio_blk")),
    (
        "no serial console",
        |tree| {
            tree.menu(&format!("root=UUID={ROOT_ID} ro quiet"))?;
            tree.write("etc/default/grub", "GRUB_CMDLINE_LINUX=\"\"\n")
        },
        ("console", "warn", "/boot/grub/grub.cfg:4"),
    ),
    (
        "another cloud's",
        |tree| tree.write("etc/cloud/cloud.cfg.d/90_dpkg.cfg", "datasource_list: [ Azure, None ]\n"),
        ("cloud-init", "warn", "/etc/cloud/cloud.cfg.d/90_dpkg.cfg:1"),
    ),
    (
        "mounts by device",
        |tree| tree.write("etc/fstab", "# by hand\n/dev/sda1 / ext4 defaults 0 1\n"),
        ("mounts", "warn", "/etc/fstab:2"),
    ),
    (
        "mounts what is gone",
        |tree| {
            let gone = "11111111-2222-4333-8444-555555555555";
            tree.write(
                "etc/fstab",
                &format!("UUID={ROOT_ID} / ext4 ro 0 1\nUUID={gone} /srv xfs defaults 0 2\n"),
            )
        },
        ("mounts", "warn", "/etc/fstab:2"),
    ),
    (
        "fixed address",
        |tree| {
            let text = "auto ens3\niface ens3 inet static\n\taddress 192.0.2.10/24\n";
            tree.write("etc/network/interfaces.d/ens3", text)
        },
        ("dhcp", "warn", "/etc/network/interfaces.d/ens3:2"),
    ),
    (
        "ssh not enabled",
        |tree| tree.remove("etc/systemd/system/multi-user.target.wants/ssh.service"),
        ("ssh", "warn", "/usr/sbin/sshd"),
    ),
    (
        "ssh masked",
        |tree| tree.link("etc/systemd/system/ssh.service", "/dev/null"),
        ("ssh", "warn", "/etc/systemd/system/ssh.service"),
    ),
];

/// A kernel that was built without virtio_blk has no such module in its list.
fn without_driver(tree: &Tree) -> Result<()> {
    let path = format!("usr/lib/modules/{}/modules.dep", tree.kernel()?);
    let list = tree.read(&path)?;
    let rest: Vec<&str> = list.lines().filter(|line| !line.contains("/virtio_blk.ko")).collect();
    tree.write(&path, &rest.join("\n"))
}

/// All of them, in the order of the table.
pub(super) fn all() -> Vec<Case> {
    let mut cases = vec![
        case(
            "debian bios",
            |lab| bios(lab, &lab.debian, Volume::Swap),
            debian("mbr", &["ext4", "swap"], 1, "bios legacy-v1"),
        ),
        case("debian uefi", |lab| uefi(lab, REMOVABLE), debian("gpt", &["fat32", "ext4"], 2, "uefi gen2")),
        case("debian both", both, debian("gpt", &["-", "fat32", "ext4"], 3, "both gen2")),
        case("no partitions", whole, {
            let expected = debian("none", &["ext4"], 0, "none -");
            expected.but(&[("boot", "warn", "no partition table")])
        }),
    ];
    cases.extend(BROKEN.map(|(name, change, point)| {
        let make = move |lab: &Lab| bios(lab, &lab.changed(change)?, Volume::Swap);
        case(name, make, debian("mbr", &["ext4", "swap"], 1, "bios legacy-v1").but(&[point]))
    }));
    cases.extend([
        case("encrypted data", |lab| bios(lab, &lab.debian, Volume::Luks), {
            let expected = debian("mbr", &["ext4", "luks2"], 1, "bios legacy-v1");
            expected.but(&[("encryption", "warn", "partition 2 is encrypted")])
        }),
        case("no loader for bios", |lab| lab.parted("dos", &bios_parts(&lab.debian, Volume::Swap)), {
            let expected = debian("mbr", &["ext4", "swap"], 1, "none -");
            expected.but(&[("boot", "warn", "neither boot code nor an EFI loader")])
        }),
        case("no loader for uefi", |lab| uefi(lab, "EFI/debian/grubx64.efi"), {
            let expected = debian("gpt", &["fat32", "ext4"], 2, "none -");
            expected.but(&[("boot", "warn", "without an entry in firmware")])
        }),
        case(
            "windows uefi",
            windows_uefi,
            unread("windows", "gpt", &["fat32", "-", "ntfs", "ntfs"], "Windows", 3),
        ),
        case(
            "windows bios",
            windows_bios,
            Expected {
                boot: "bios legacy-v1",
                system: "windows - - -".to_owned(),
                ..unread("windows", "mbr", &["ntfs", "ntfs"], "Windows", 2)
            },
        ),
        case("luks", |lab| apart(lab, |_| Volume::Luks), {
            let mut expected = unread("linux", "gpt", &["fat32", "ext4", "luks2"], "encrypted", 3);
            // What the kernel is told lies in /boot.
            expected.points.retain(|point| point.0 != "console");
            expected.but(&[("encryption", "warn", "partition 3 is encrypted")])
        }),
        case(
            "lvm",
            |lab| apart(lab, |tree| Volume::Lvm { tree: tree.path() }),
            debian("gpt", &["fat32", "ext4", "lvm-pv"], 3, "uefi gen2"),
        ),
        case("xfs", |lab| rooted(lab, Volume::Xfs), unread("linux", "gpt", &["fat32", "xfs"], "xfs", 2)),
        case(
            "btrfs",
            |lab| rooted(lab, Volume::Btrfs { tree: &lab.debian.path().join("etc") }),
            unread("linux", "gpt", &["fat32", "btrfs"], "btrfs", 2),
        ),
    ]);
    cases
}

fn case(name: &'static str, make: impl Fn(&Lab) -> Result<()> + 'static, expected: Expected) -> Case {
    Case { name, make: Box::new(make), expected }
}

/// A Debian that is ready in every point.
fn debian(table: &'static str, volumes: &'static [&'static str], place: u64, boot: &'static str) -> Expected {
    let system = format!("linux debian {VERSION} x86_64");
    Expected { table, volumes, system, place, boot, points: Vec::new() }
}

/// A system that UEFI starts, and of which no file is read for a reason.
fn unread(
    family: &str,
    table: &'static str,
    volumes: &'static [&'static str],
    why: &'static str,
    place: u64,
) -> Expected {
    let system = format!("{family} - - x86_64");
    let points = OF_FILES.map(|point| (point, "unknown", why)).to_vec();
    Expected { table, volumes, system, place, boot: "uefi gen2", points }
}

impl Expected {
    fn but(mut self, points: &[(&'static str, &'static str, &'static str)]) -> Self {
        self.points.extend(points);
        self
    }
}

/// The loader that firmware starts without an entry of its own.
const REMOVABLE: &str = "EFI/BOOT/BOOTX64.EFI";

fn root<'a>(tree: &'a Tree) -> Volume<'a> {
    Volume::Ext4 { id: ROOT_ID, label: "root", tree: tree.path() }
}

fn part<'a>(mib: impl Into<Option<u64>>, kind: &'a str, volume: Volume<'a>) -> Part<'a> {
    Part { mib: mib.into(), kind, volume }
}

fn bios_parts<'a>(tree: &'a Tree, second: Volume<'a>) -> [Part<'a>; 2] {
    let kind = if matches!(second, Volume::Swap) { "82" } else { "83" };
    [part(1900, "83, bootable", root(tree)), part(None, kind, second)]
}

/// As Debian's installer does it for BIOS.
fn bios(lab: &Lab, tree: &Tree, second: Volume<'_>) -> Result<()> {
    lab.parted("dos", &bios_parts(tree, second))?;
    lab.grub(None)
}

/// As Debian's installer does it for UEFI, with the loader at this path.
fn uefi(lab: &Lab, loader: &str) -> Result<()> {
    let tree = lab.changed(|tree| {
        let esp = format!("UUID={ESP_ID} /boot/efi vfat umask=0077 0 1\n");
        tree.write("etc/fstab", &(tree.read("etc/fstab")? + &esp))
    })?;
    let files = [(lab.debian.path().join(EFI), loader)];
    lab.parted("gpt", &[part(64, "U", Volume::Fat(&files)), part(None, "L", root(&tree))])
}

/// As the images are that Debian has for clouds: for every firmware.
fn both(lab: &Lab) -> Result<()> {
    let files = [(lab.debian.path().join(EFI), REMOVABLE)];
    let parts = [
        part(1, BIOS_BOOT, Volume::Nothing),
        part(64, "U", Volume::Fat(&files)),
        part(None, "L", root(&lab.debian)),
    ];
    lab.parted("gpt", &parts)?;
    lab.grub(Some(MIB))
}

fn whole(lab: &Lab) -> Result<()> {
    lab.whole(&root(&lab.debian))
}

/// For UEFI, with a root file system that is not read here.
fn rooted(lab: &Lab, volume: Volume<'_>) -> Result<()> {
    let files = [(lab.debian.path().join(EFI), REMOVABLE)];
    lab.parted("gpt", &[part(64, "U", Volume::Fat(&files)), part(None, "L", volume)])
}

/// With /boot in a file system of its own, as Debian's installer does it beside LUKS and LVM.
fn apart(lab: &Lab, volume: impl Fn(&Tree) -> Volume<'_>) -> Result<()> {
    let table =
        format!("/dev/mapper/vg-root / ext4 errors=remount-ro 0 1\nUUID={BOOT_ID} /boot ext4 defaults 0 2\n");
    let tree = lab.changed(|tree| tree.write("etc/fstab", &table))?;
    let boot = tree.split("boot", &lab.path("boot"))?;
    let files = [(lab.debian.path().join(EFI), REMOVABLE)];
    let volume = volume(&tree);
    let kind = if matches!(volume, Volume::Lvm { .. }) { "V" } else { "L" };
    let parts = [
        part(64, "U", Volume::Fat(&files)),
        part(256, "L", Volume::Ext4 { id: BOOT_ID, label: "boot", tree: boot.path() }),
        part(None, kind, volume),
    ];
    lab.parted("gpt", &parts)
}

/// As Windows' setup does it for UEFI.
fn windows_uefi(lab: &Lab) -> Result<()> {
    let loader = |path: &'static str| -> (PathBuf, &str) { (lab.debian.path().join(EFI), path) };
    let files = [loader("EFI/Microsoft/Boot/bootmgfw.efi"), loader("EFI/Boot/bootx64.efi")];
    let parts = [
        part(100, "U", Volume::Fat(&files)),
        part(16, RESERVED, Volume::Nothing),
        part(1400, WINDOWS_DATA, Volume::Ntfs { label: "Windows", starts: false }),
        part(None, "DE94BBA4-06D1-4D40-A16A-BFD50179D6AC", Volume::Ntfs { label: "Recovery", starts: false }),
    ];
    lab.parted("gpt", &parts)
}

/// As Windows' setup does it for BIOS: what starts lies in a small volume before the system's own.
fn windows_bios(lab: &Lab) -> Result<()> {
    let parts = [
        part(100, "7, bootable", Volume::Ntfs { label: "System Reserved", starts: true }),
        part(None, "7", Volume::Ntfs { label: "Windows", starts: false }),
    ];
    lab.parted("dos", &parts)?;
    lab.code(b"\x33\xc0\x8e\xd0\xbc\0\x7cInvalid partition table\0Missing operating system\0")
}
