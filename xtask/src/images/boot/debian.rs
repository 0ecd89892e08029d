//! The files of an installed Debian, and what is broken in them.
//!
//! mmdebstrap unpacks Debian's packages as root or, where the kernel allows it, in a namespace of ours; what it makes is kept as
//! an archive. A disk's tree is a copy of hard links, in which a file is replaced and never written to. Nobody looks at
//! owners, so who unpacks it without being root has all of it.
//!
//! grub-install would ask the kernel for the disk. What it does is done here: an image of GRUB that finds its menu by the id of the
//! file system is made inside the tree, and put where each kind of firmware looks.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::disk::ROOT_ID;
use super::tools::tool;
use crate::repo::{output, run};

/// The release, and what its `VERSION_ID` says.
const RELEASE: &str = "trixie";
pub(super) const VERSION: &str = "13";

/// A system that the cloud can start and reach, and the two kinds of GRUB.
const PACKAGES: &str = "systemd-sysv,linux-image-cloud-amd64,initramfs-tools,grub-pc-bin,grub-efi-amd64-bin,cloud-init,\
                        openssh-server,ifupdown,dhcpcd-base";

/// What nobody looks at takes long to compress.
const LEFT_OUT: [&str; 4] =
    ["/usr/share/doc/*", "/usr/share/locale/*", "/usr/share/man/*", "/usr/share/i18n/*"];

/// Modules of GRUB that find and read its menu and a kernel.
const MODULES: &str = "part_gpt part_msdos ext2 search search_fs_uuid normal configfile linux echo";

/// Where the menu and GRUB's own images lie in the tree.
const MENU: &str = "boot/grub/grub.cfg";
pub(super) const CORE: &str = "boot/grub/core.img";
pub(super) const EFI: &str = "boot/grub/bootx64.efi";
pub(super) const BOOT: &str = "usr/lib/grub/i386-pc/boot.img";

/// The unpacked tree; made from the archive, and that from Debian's packages where it is not there.
pub(super) fn tree(folder: &Path) -> Result<Tree> {
    fs::create_dir_all(folder)?;
    let archive = folder.join(format!("debian-{VERSION}.tar"));
    if !archive.exists() {
        println!("unpacking Debian {VERSION} with mmdebstrap; it is kept");
        bootstrap(folder, &archive)?;
    }
    let tree = folder.join("tree");
    let _ = fs::remove_dir_all(&tree);
    fs::create_dir(&tree)?;
    run(tool("tar").arg("-xf").arg(&archive).arg("-C").arg(&tree).arg("--exclude=./dev/*"))?;
    let tree = Tree(tree);
    tree.ready()?;
    Ok(tree)
}

fn bootstrap(folder: &Path, archive: &Path) -> Result<()> {
    let unfinished = folder.join("unfinished.tar");
    let early = format!("search.fs_uuid {ROOT_ID} root; set prefix=($root)/boot/grub");
    let image = |format: &str, name: &str, more: &str| {
        let words = format!("-O {format} -c /boot/grub/early.cfg -p /boot/grub -o /{name} {MODULES} {more}");
        format!("chroot \"$1\" grub-mkimage {words}")
    };
    let mut make = tool("mmdebstrap");
    make.args(["--quiet", "--variant=minbase", "--include", PACKAGES]);
    make.args(LEFT_OUT.map(|path| format!("--dpkgopt=path-exclude={path}")));
    make.arg(format!(
        "--customize-hook=mkdir -p \"$1\"/boot/grub; echo '{early}' > \"$1\"/boot/grub/early.cfg"
    ));
    make.arg(format!("--customize-hook={}", image("i386-pc", CORE, "biosdisk")));
    make.arg(format!("--customize-hook={}", image("x86_64-efi", EFI, "fat")));
    run(make.arg(RELEASE).arg(&unfinished)).context("as root, or where user namespaces are allowed")?;
    fs::rename(unfinished, archive)?;
    Ok(())
}

/// The files of a system.
pub(super) struct Tree(PathBuf);

impl Tree {
    /// Its folder.
    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// What a person would set up who makes an image for the cloud.
    fn ready(&self) -> Result<()> {
        self.write("etc/fstab", &format!("UUID={ROOT_ID} / ext4 errors=remount-ro 0 1\n"))?;
        self.write(
            "etc/default/grub",
            "GRUB_TIMEOUT=1\nGRUB_CMDLINE_LINUX=\"console=tty0 console=ttyS0,115200n8\"\n",
        )?;
        self.menu(&format!("root=UUID={ROOT_ID} ro console=tty0 console=ttyS0,115200n8"))
    }

    /// GRUB's menu with what the kernel is told.
    pub(super) fn menu(&self, told: &str) -> Result<()> {
        let kernel = self.kernel()?;
        let text = format!(
            "set default=0\nset timeout=1\nmenuentry 'Debian GNU/Linux' {{\n\tlinux /boot/vmlinuz-{kernel} {told}\n\tinitrd \
             /boot/initrd.img-{kernel}\n}}\n"
        );
        self.write(MENU, &text)
    }

    /// Version of the kernel.
    pub(super) fn kernel(&self) -> Result<String> {
        let modules =
            fs::read_dir(self.0.join("usr/lib/modules"))?.next().context("no kernel in the tree")??;
        Ok(modules.file_name().to_string_lossy().into_owned())
    }

    /// A copy that may be changed.
    pub(super) fn copy(&self, to: &Path) -> Result<Self> {
        output(tool("cp").arg("-al").arg(&self.0).arg(to))?;
        Ok(Self(to.to_owned()))
    }

    pub(super) fn read(&self, path: &str) -> Result<String> {
        fs::read_to_string(self.0.join(path)).with_context(|| format!("cannot read {path} of the tree"))
    }

    /// A file in place of what was there. Whatever has links to that keeps it.
    pub(super) fn write(&self, path: &str, text: &str) -> Result<()> {
        let file = self.0.join(path);
        let _ = fs::remove_file(&file);
        if let Some(folder) = file.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::write(file, text).with_context(|| format!("cannot write {path} into the tree"))
    }

    pub(super) fn link(&self, path: &str, target: &str) -> Result<()> {
        let _ = fs::remove_file(self.0.join(path));
        symlink(target, self.0.join(path)).with_context(|| format!("cannot link {path} in the tree"))
    }

    pub(super) fn remove(&self, path: &str) -> Result<()> {
        fs::remove_file(self.0.join(path)).with_context(|| format!("cannot remove {path} of the tree"))
    }

    /// Takes a folder of the tree out of it.
    pub(super) fn split(&self, path: &str, to: &Path) -> Result<Self> {
        fs::rename(self.0.join(path), to)?;
        fs::create_dir(self.0.join(path))?;
        Ok(Self(to.to_owned()))
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
