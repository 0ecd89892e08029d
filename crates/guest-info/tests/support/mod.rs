//! What the tests share: disks with an installed system, made by the tools that make real ones, and the way to look into them.
#![allow(dead_code, reason = "each test file uses some of it")]
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "a test that cannot go on ends"
)]

pub(crate) mod fat;
pub(crate) mod lvm;

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use disk_convert::{FileSource, Options, References, open_image};
use disk_image::OpenOptions;
use guest_info::{Finding, Guest, Point, inspect_disk};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

pub(crate) const MIB: u64 = 1 << 20;

/// The id of every root file system here.
pub(crate) const ROOT_ID: &str = "11111111-2222-4333-8444-555555555555";

pub(crate) const KERNEL: &str = "6.12.9-cloud-amd64";

/// True if a tool can be run; if not it is said, and a failure under CI.
pub(crate) fn has(tool: &str) -> bool {
    let found = Command::new(tool).arg("-V").output().is_ok();
    if !found {
        assert!(std::env::var_os("CI").is_none(), "{tool} is needed under CI");
        eprintln!("SKIPPED: {tool} is not installed");
    }
    found
}

/// A folder for one test.
pub(crate) struct Lab(TempDir);

impl Lab {
    pub(crate) fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Runs a tool in the folder, its arguments split at blanks; must succeed. Gives what it prints.
    pub(crate) fn run(&self, command: &str) -> String {
        self.run_with(command, "")
    }

    /// The same with something on its standard input.
    pub(crate) fn run_with(&self, command: &str, input: &str) -> String {
        let words: Vec<&str> = command.split_whitespace().collect();
        fs::write(self.path("stdin"), input).unwrap();
        let mut run = Command::new(words[0]);
        run.args(&words[1..]).current_dir(self.0.path()).stdin(File::open(self.path("stdin")).unwrap());
        run.env("PATH", format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default()));
        let output = run.output().unwrap();
        assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// A sparse file.
    pub(crate) fn empty(&self, name: &str, len: u64) {
        File::create(self.path(name)).unwrap().set_len(len).unwrap();
    }

    /// Writes into a file.
    pub(crate) fn poke(&self, name: &str, at: u64, bytes: &[u8]) {
        let file = fs::OpenOptions::new().write(true).open(self.path(name)).unwrap();
        file.write_all_at(bytes, at).unwrap();
    }

    pub(crate) fn peek(&self, name: &str, at: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        File::open(self.path(name)).unwrap().read_exact_at(&mut bytes, at).unwrap();
        bytes
    }

    /// Puts one file into another one, but for what is zero; `at` is a whole number of MiB.
    pub(crate) fn put(&self, from: &str, to: &str, at: u64) {
        self.run(&format!("dd if={from} of={to} bs=1M seek={} conv=sparse,notrunc status=none", at / MIB));
    }

    /// An ext4 with the content of a folder.
    pub(crate) fn ext4(&self, name: &str, tree: &Tree, len: u64, how: &str) {
        let blocks = len / 1024;
        let root = tree.0.path().display().to_string();
        self.run(&format!("mkfs.ext4 -q -F -d {root} -L root -U {ROOT_ID} {how} {name} {blocks}k"));
    }

    /// A disk with an MBR that begins with GRUB's code, and the system in its first partition.
    pub(crate) fn bios(&self, name: &str, tree: &Tree, len: u64) {
        self.ext4("root.ext4", tree, len - 2 * MIB, "");
        self.empty(name, len);
        let script = format!(
            "label: dos\nlabel-id: 0xdeadbeef\nstart=2048, size={}, type=83, bootable\n",
            len / 512 - 4096
        );
        self.run_with(&format!("sfdisk -q {name}"), &script);
        self.grub(name);
        self.put("root.ext4", name, MIB);
    }

    /// Code as GRUB puts it.
    pub(crate) fn grub(&self, name: &str) {
        self.poke(name, 0, b"\xeb\x63\x90");
        self.poke(name, 0x180, b"GRUB \0Geom\0Hard Disk\0Read\0 Error");
    }

    /// A disk with a GPT: an EFI system partition, a place for GRUB, and the system in partition 3.
    pub(crate) fn uefi(&self, name: &str, tree: &Tree, len: u64) {
        self.empty(name, len);
        let script = format!(
            "label: gpt\nstart=2048, size=65536, type=U, name=esp\nstart=67584, size=2048, \
             type=21686148-6449-6E6F-744E-656564454649\nstart=69632, size={}, type=L, name=\"the root\"\n",
            len / 512 - 69632 - 2048
        );
        self.run_with(&format!("sfdisk -q {name}"), &script);
        self.poke(name, MIB, &fat::with_files(32 * MIB, &["EFI/BOOT/BOOTX64.EFI"]));
        self.ext4("root.ext4", tree, len - 36 * MIB, "");
        self.put("root.ext4", name, 34 * MIB);
    }

    /// Looks into an image of any format. Gives too how many bytes of the file were read for it.
    pub(crate) fn look(&self, name: &str) -> (Guest, u64) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
        runtime.block_on(async {
            let (options, cancel) = (Options::default(), CancellationToken::new());
            let source = Arc::new(FileSource::open(&self.path(name)).unwrap());
            let how = OpenOptions::default();
            let disk = open_image(source, &how, &References::Deny, &options, &cancel).await.unwrap();
            let options = Options::default();
            let guest = inspect_disk(&disk, &options, &cancel).await.unwrap();
            (guest, options.counters.bytes_read())
        })
    }
}

/// What was found of a point.
pub(crate) fn finding(guest: &Guest, point: Point) -> &Finding {
    guest.readiness.iter().find(|finding| finding.point == point).unwrap()
}

/// The files of an installed system.
pub(crate) struct Tree(TempDir);

impl Tree {
    pub(crate) fn empty() -> Self {
        Self(TempDir::new().unwrap())
    }

    /// A system that is ready in every point, laid out as Debian's.
    pub(crate) fn debian() -> Self {
        let tree = Self::empty();
        for (name, target) in [("lib", "usr/lib"), ("bin", "usr/bin"), ("sbin", "usr/sbin")] {
            tree.link(name, target);
        }
        tree.text(
            "usr/lib/os-release",
            "PRETTY_NAME=\"Debian GNU/Linux 13 (trixie)\"\nNAME=\"Debian GNU/Linux\"\nVERSION_ID=\"13\"\nID=debian\n",
        );
        tree.link("etc/os-release", "../usr/lib/os-release");
        tree.program("usr/lib/systemd/systemd", 62);
        tree.program("usr/sbin/sshd", 62);
        tree.link(
            "etc/systemd/system/multi-user.target.wants/ssh.service",
            "/usr/lib/systemd/system/ssh.service",
        );
        tree.text(
            "etc/fstab",
            &format!(
                "# made by hand\nUUID={ROOT_ID} / ext4 errors=remount-ro 0 1\ntmpfs /tmp tmpfs defaults 0 0\n"
            ),
        );
        tree.text(
            "boot/grub/grub.cfg",
            &format!("set timeout=5\nmenuentry 'Debian' {{\n\tlinux /boot/vmlinuz-{KERNEL} root=UUID={ROOT_ID} ro console=tty0 console=ttyS0,115200n8\n}}\n"),
        );
        tree.text(
            "etc/default/grub",
            "GRUB_TIMEOUT=5\nGRUB_CMDLINE_LINUX=\"console=tty0 console=ttyS0,115200n8\"\n",
        );
        tree.text(
            &format!("boot/config-{KERNEL}"),
            "CONFIG_VIRTIO=y\nCONFIG_VIRTIO_BLK=m\nCONFIG_VIRTIO_NET=m\nCONFIG_VIRTIO_PCI=y\n",
        );
        tree.text(&format!("boot/vmlinuz-{KERNEL}"), "kernel");
        tree.text(&format!("boot/initrd.img-{KERNEL}"), "initramfs");
        tree.text(&format!("usr/lib/modules/{KERNEL}/modules.builtin"), "kernel/drivers/virtio/virtio.ko\n");
        tree.text(
            &format!("usr/lib/modules/{KERNEL}/modules.dep"),
            "kernel/drivers/block/virtio_blk.ko.xz:\nkernel/drivers/net/virtio_net.ko.xz: kernel/net/core/failover.ko.xz\n",
        );
        tree.text("usr/lib/modules/6.1.0-9-amd64/modules.dep", "");
        tree.text("etc/initramfs-tools/initramfs.conf", "# comment\nMODULES=most\nBUSYBOX=auto\n");
        tree.text("usr/bin/cloud-init", "#!/usr/bin/python3\n");
        tree.text("etc/cloud/cloud.cfg", "users:\n - default\n");
        tree.text("etc/cloud/cloud.cfg.d/90_dpkg.cfg", "datasource_list: [ NoCloud, Ec2, None ]\n");
        tree.text(
            "etc/netplan/50-cloud-init.yaml",
            "network:\n  ethernets:\n    all:\n      match: {name: \"e*\"}\n      dhcp4: true\n",
        );
        tree
    }

    fn place(&self, path: &str) -> PathBuf {
        let place = self.0.path().join(path);
        fs::create_dir_all(place.parent().unwrap()).unwrap();
        place
    }

    /// A file with this text, in place of what was there.
    pub(crate) fn text(&self, path: &str, text: &str) -> &Self {
        fs::write(self.place(path), text).unwrap();
        self
    }

    pub(crate) fn link(&self, path: &str, target: &str) -> &Self {
        symlink(target, self.place(path)).unwrap();
        self
    }

    /// A program for a processor.
    pub(crate) fn program(&self, path: &str, machine: u8) -> &Self {
        let mut head = b"\x7fELF\x02\x01\x01".to_vec();
        head.resize(18, 0);
        head.extend([machine, 0]);
        head.resize(4000, 1);
        fs::write(self.place(path), head).unwrap();
        self
    }

    pub(crate) fn remove(&self, path: &str) -> &Self {
        let place = self.0.path().join(path);
        match fs::symlink_metadata(&place).unwrap().is_dir() {
            true => fs::remove_dir_all(place).unwrap(),
            false => fs::remove_file(place).unwrap(),
        }
        self
    }

    pub(crate) fn folder(&self) -> &Path {
        self.0.path()
    }
}
