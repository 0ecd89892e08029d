//! Each point of readiness, broken and mended: verdict, evidence, and what would help.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "a test that cannot go on ends")]

mod support;

use guest_info::{Finding, Point, Verdict};
use support::{KERNEL, Lab, MIB, Tree, finding, has};

/// What is found of a point once a ready system was changed.
fn broken(point: Point, change: impl FnOnce(&Tree)) -> Finding {
    let (lab, tree) = (Lab::new(), Tree::debian());
    change(&tree);
    lab.bios("d", &tree, 34 * MIB);
    let (guest, _) = lab.look("d");
    for other in guest.readiness.iter().filter(|other| other.point != point) {
        // What has no cloud-init may have nobody who configures the network, and so on: only that nothing fails to be judged.
        assert!(!other.found.is_empty(), "{other:?}");
    }
    finding(&guest, point).clone()
}

/// One change that has to be seen.
type Case<'a> = (Verdict, &'a str, Option<(&'a str, usize)>, Box<dyn Fn(&Tree)>);

fn run(point: Point, cases: Vec<Case<'_>>) {
    if !has("mkfs.ext4") || !has("sfdisk") {
        return;
    }
    for (verdict, found, evidence, change) in cases {
        let got = broken(point, change);
        assert_eq!((got.verdict, got.found.contains(found)), (verdict, true), "{found}: {got:#?}");
        match verdict {
            Pass => assert_eq!(got.mend, None, "{got:#?}"),
            Warn => assert!(got.mend.is_some(), "{got:#?}"),
            Unknown => {}
        }
        if let Some((file, line)) = evidence {
            let is_it = |e: &guest_info::Evidence| e.file == file && e.line == (line > 0).then_some(line);
            assert!(got.evidence.iter().any(is_it), "{file}:{line}: {got:#?}");
        }
    }
}

fn text(path: &'static str, text: &'static str) -> Box<dyn Fn(&Tree)> {
    Box::new(move |tree| {
        tree.text(path, text);
    })
}

fn remove(paths: &'static [&'static str]) -> Box<dyn Fn(&Tree)> {
    Box::new(move |tree| {
        for path in paths {
            tree.remove(path);
        }
    })
}

use Verdict::{Pass, Unknown, Warn};

#[test]
fn virtio() {
    let modules = |text: &'static str| -> Box<dyn Fn(&Tree)> {
        Box::new(move |tree| {
            tree.text(&format!("usr/lib/modules/{KERNEL}/modules.dep"), text);
        })
    };
    let builtin: Box<dyn Fn(&Tree)> = Box::new(|tree| {
        let text = "kernel/drivers/block/virtio_blk.ko\nkernel/drivers/net/virtio_net.ko\n";
        tree.text(&format!("usr/lib/modules/{KERNEL}/modules.builtin"), text);
    });
    let no_initramfs: Box<dyn Fn(&Tree)> = Box::new(|tree| {
        tree.remove(&format!("boot/initrd.img-{KERNEL}"));
    });
    let conf = "/etc/initramfs-tools/initramfs.conf";
    let dracut: Box<dyn Fn(&Tree)> = Box::new(|tree| {
        tree.remove("etc/initramfs-tools").text("etc/dracut.conf.d/cloud.conf", "hostonly=\"no\"\n");
    });
    let of_host: Box<dyn Fn(&Tree)> = Box::new(|tree| {
        tree.remove("etc/initramfs-tools")
            .text("usr/lib/dracut/dracut.conf.d/01-dist.conf", "x=1\nhostonly=\"yes\"\n");
    });
    run(
        Point::Virtio,
        vec![
            (Warn, "has no virtio_net", None, modules("kernel/drivers/block/virtio_blk.ko.xz:\n")),
            (Warn, "has no virtio_blk", None, modules("kernel/drivers/net/virtio_net.ko:\n")),
            (
                Warn,
                "only what the machine needed",
                Some((conf, 1)),
                text("etc/initramfs-tools/initramfs.conf", "MODULES=dep\n"),
            ),
            (Pass, "told to hold them", None, text("etc/initramfs-tools/modules", "# none\nvirtio_blk\n")),
            (Unknown, "is not known", None, remove(&["etc/initramfs-tools"])),
            (Warn, "no initramfs", None, no_initramfs),
            (Pass, "built into kernel", None, builtin),
            (Pass, "every driver", Some(("/etc/dracut.conf.d/cloud.conf", 1)), dracut),
            (
                Warn,
                "only what the machine needed",
                Some(("/usr/lib/dracut/dracut.conf.d/01-dist.conf", 2)),
                of_host,
            ),
            (Unknown, "no kernel", None, remove(&["usr/lib/modules"])),
        ],
    );
}

#[test]
fn console() {
    let cfg = "boot/grub/grub.cfg";
    let entry: Box<dyn Fn(&Tree)> = Box::new(|tree| {
        tree.remove("boot/grub")
            .text("boot/loader/entries/one.conf", "title One\noptions root=UUID=1 console=ttyS0\n");
    });
    run(
        Point::Console,
        vec![
            (
                Warn,
                "not in what GRUB reads",
                Some(("/boot/grub/grub.cfg", 2)),
                text(cfg, "menuentry x {\nlinux /vmlinuz ro quiet\n}\n"),
            ),
            (
                Warn,
                "is not told console=ttyS0",
                Some(("/boot/grub/grub.cfg", 1)),
                Box::new(|tree| {
                    tree.text("boot/grub/grub.cfg", "linux /vmlinuz console=ttyS01\n")
                        .text("etc/default/grub", "GRUB_CMDLINE_LINUX=\"\"\n");
                }),
            ),
            (Pass, "is set for GRUB", Some(("/etc/default/grub", 2)), remove(&["boot/grub"])),
            (Pass, "is told", Some(("/boot/loader/entries/one.conf", 2)), entry),
            (Unknown, "no boot loader", None, remove(&["boot/grub", "etc/default/grub"])),
        ],
    );
}

#[test]
fn cloud_init() {
    let list = "etc/cloud/cloud.cfg.d/90_dpkg.cfg";
    let place = "/etc/cloud/cloud.cfg.d/90_dpkg.cfg";
    run(
        Point::CloudInit,
        vec![
            (Warn, "not installed", None, remove(&["etc/cloud", "usr/bin/cloud-init"])),
            (
                Warn,
                "switched off",
                Some(("/etc/cloud/cloud-init.disabled", 0)),
                text("etc/cloud/cloud-init.disabled", ""),
            ),
            (Warn, "looks for Azure only", Some((place, 1)), text(list, "datasource_list: [ Azure ]\n")),
            (
                Warn,
                "looks for GCE, None only",
                Some((place, 2)),
                text(list, "# x\ndatasource_list:\n  - GCE\n  - None\nother: 1\n"),
            ),
            (Pass, "looks for Ec2", Some((place, 1)), text(list, "datasource_list: [ 'Ec2',\n  NoCloud ]\n")),
            (Pass, "every datasource", None, remove(&["etc/cloud/cloud.cfg.d/90_dpkg.cfg"])),
            (
                Warn,
                "another cloud's",
                Some(("/etc/cloud/ds-identify.cfg", 1)),
                text("etc/cloud/ds-identify.cfg", "datasource: Azure\n"),
            ),
            (
                Warn,
                "Amazon's machines",
                None,
                text("usr/lib/os-release", "ID=\"amzn\"\nVERSION_ID=\"2023\"\n"),
            ),
            (
                Warn,
                "Amazon's machines",
                Some(("/etc/cloud/cloud.cfg", 3)),
                text("etc/cloud/cloud.cfg", "datasource:\n  Ec2:\n    strict_id: true\n"),
            ),
        ],
    );
}

#[test]
fn mounts() {
    let fstab = |text_: &'static str| text("etc/fstab", text_);
    let at = Some(("/etc/fstab", 2));
    run(
        Point::Mounts,
        vec![
            (Warn, "by its device's name", at, fstab("# x\n/dev/sda1 / ext4 defaults 0 1\n")),
            (
                Warn,
                "not on this disk",
                at,
                fstab("\nUUID=00000000-0000-4000-8000-000000000000 /data ext4 defaults 0 2\n"),
            ),
            (
                Pass,
                "called",
                Some(("/etc/fstab", 1)),
                fstab("LABEL=root / ext4 defaults 0 1\nUUID=0-0 /d ext4 nofail 0 2\n"),
            ),
            (Pass, "names no device", None, fstab("tmpfs /tmp tmpfs defaults 0 0\n")),
            (
                Warn,
                "for its root",
                Some(("/boot/grub/grub.cfg", 1)),
                text("boot/grub/grub.cfg", "linux /vmlinuz root=/dev/vda1 console=ttyS0\n"),
            ),
            (
                Warn,
                "for its root",
                Some(("/boot/loader/entries/one.conf", 2)),
                text("boot/loader/entries/one.conf", "title One\noptions root=/dev/sda1 console=ttyS0\n"),
            ),
            (
                Warn,
                "for its root",
                Some(("/boot/grub2/grubenv", 2)),
                text("boot/grub2/grubenv", "# GRUB\nkernelopts=root=/dev/nvme0n1p1 ro\n"),
            ),
            (Unknown, "no /etc/fstab", None, remove(&["etc/fstab"])),
        ],
    );
}

#[test]
fn dhcp() {
    let netplan = "etc/netplan/50-cloud-init.yaml";
    let other = |path: &'static str, text: &'static str| -> Box<dyn Fn(&Tree)> {
        Box::new(move |tree| {
            tree.remove("etc/netplan").text(path, text);
        })
    };
    run(
        Point::Dhcp,
        vec![
            (
                Warn,
                "netplan gives a card an address",
                Some(("/etc/netplan/50-cloud-init.yaml", 2)),
                text(netplan, "eth0:\n  addresses: [10.0.0.2/24]\n"),
            ),
            (
                Warn,
                "knows it by one",
                None,
                text(netplan, "eth0:\n  match:\n    macaddress: 00:11:22:33:44:55\n  dhcp4: true\n"),
            ),
            (
                Pass,
                "ifupdown asks",
                Some(("/etc/network/interfaces", 2)),
                other("etc/network/interfaces", "auto eth0\niface eth0 inet dhcp\n"),
            ),
            (
                Warn,
                "ifupdown gives",
                Some(("/etc/network/interfaces.d/eth0", 1)),
                other("etc/network/interfaces.d/eth0", "iface eth0 inet static\naddress 1.2.3.4\n"),
            ),
            (
                Pass,
                "systemd-networkd asks",
                None,
                other("etc/systemd/network/10.network", "[Match]\nName=en*\n[Network]\nDHCP=yes\n"),
            ),
            (
                Pass,
                "NetworkManager asks",
                None,
                other("etc/NetworkManager/system-connections/a.nmconnection", "[ipv4]\nmethod=auto\n"),
            ),
            (
                Warn,
                "ifcfg gives",
                None,
                other("etc/sysconfig/network-scripts/ifcfg-eth0", "BOOTPROTO=none\nIPADDR=10.0.0.1\n"),
            ),
            (Pass, "cloud-init configures", None, remove(&["etc/netplan"])),
            (
                Warn,
                "nothing was found",
                Some(("/etc/cloud/cloud.cfg.d/99.cfg", 1)),
                other("etc/cloud/cloud.cfg.d/99.cfg", "network: {config: disabled}\n"),
            ),
            (Unknown, "nothing was found", None, remove(&["etc/netplan", "etc/cloud", "usr/bin/cloud-init"])),
        ],
    );
}

#[test]
fn ssh() {
    let link = "etc/systemd/system/multi-user.target.wants/ssh.service";
    let socket: Box<dyn Fn(&Tree)> = Box::new(move |tree| {
        tree.remove(link)
            .link("etc/systemd/system/sockets.target.wants/ssh.socket", "/usr/lib/systemd/system/ssh.socket");
    });
    let mask: Box<dyn Fn(&Tree)> = Box::new(|tree| {
        tree.link("etc/systemd/system/ssh.service", "/dev/null");
    });
    run(
        Point::Ssh,
        vec![
            (Warn, "no SSH server", None, remove(&["usr/sbin/sshd"])),
            (
                Warn,
                "nothing starts it",
                Some(("/usr/sbin/sshd", 0)),
                remove(&["etc/systemd/system/multi-user.target.wants/ssh.service"]),
            ),
            (Warn, "masked", None, mask),
            (
                Pass,
                "starts with the system",
                Some(("/etc/systemd/system/sockets.target.wants/ssh.socket", 0)),
                socket,
            ),
        ],
    );
}

#[test]
fn boot() {
    if !has("mkfs.ext4") || !has("sfdisk") {
        return;
    }
    let lab = Lab::new();
    lab.bios("d", &Tree::debian(), 34 * MIB);
    lab.poke("d", 0, &[0; 440]);
    let (guest, _) = lab.look("d");
    let found = finding(&guest, Point::Boot);
    assert_eq!(
        (found.verdict, found.found.as_str()),
        (Warn, "neither boot code nor an EFI loader was found")
    );
    assert!(found.mend.unwrap().contains("grub-install"));

    lab.uefi("e", &Tree::debian(), 70 * MIB);
    lab.poke("e", MIB, &support::fat::with_files(32 * MIB, &["EFI/DEBIAN/GRUBX64.EFI"]));
    let (guest, _) = lab.look("e");
    let found = finding(&guest, Point::Boot);
    assert_eq!(found.verdict, Warn);
    assert!(found.found.contains("without an entry in firmware"), "{found:?}");

    // No table at all: the file system is the disk.
    lab.ext4("f", &Tree::debian(), 34 * MIB, "");
    let (guest, _) = lab.look("f");
    let found = finding(&guest, Point::Boot);
    assert_eq!((found.verdict, found.found.as_str()), (Warn, "the disk has no partition table"));
    assert_eq!(guest.system.unwrap().id.as_deref(), Some("debian"));
}

/// The file that decides may be one of those that are left out.
#[test]
fn a_folder_with_too_many_settings_is_unknown() {
    let fill: Box<dyn Fn(&Tree)> = Box::new(|tree| {
        for number in 0..64 {
            tree.text(&format!("etc/cloud/cloud.cfg.d/{number:02}.cfg"), "x: 1\n");
        }
        tree.text("etc/cloud/cloud.cfg.d/99.cfg", "datasource_list: [ Azure ]\n");
    });
    run(Point::CloudInit, vec![(Unknown, "a folder of settings is too long", None, fill)]);
}

/// The name of a file that is shown is as hostile as what is in it.
#[test]
fn names_steer_no_terminal() {
    if !has("mkfs.ext4") || !has("sfdisk") {
        return;
    }
    let found = broken(Point::Virtio, |tree| {
        let version = "99.1\u{1b}[2J\u{61c}";
        let drivers = "block/virtio_blk.ko:\nnet/virtio_net.ko:\nvirtio/virtio_pci.ko:\n";
        tree.text(&format!("usr/lib/modules/{version}/modules.dep"), drivers);
        tree.text(&format!("boot/initrd.img-{version}"), "x");
    });
    let files: Vec<&str> = found.evidence.iter().map(|evidence| evidence.file.as_str()).collect();
    assert!(files.contains(&"/boot/initrd.img-99.1\u{fffd}[2J\u{fffd}"), "{files:?}");
    let steers = |c: char| c.is_control() || c == '\u{61c}';
    assert!(!found.found.contains(steers) && !files.concat().contains(steers), "{found:?}");
}
