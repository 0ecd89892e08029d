//! A disk with an installed system: what is found in it, in every format, and how little is read for that.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "a test that cannot go on ends")]

mod support;

use guest_info::{Family, Generation, Guest, Point, TableKind, Verdict, inspect};
use support::{Lab, MIB, ROOT_ID, Tree, finding, has};

/// Everything that is known of the system.
fn check(guest: &Guest, root: u32) {
    let system = guest.system.as_ref().unwrap();
    assert_eq!((system.family, system.partition), (Family::Linux, root));
    assert_eq!(system.id.as_deref(), Some("debian"));
    assert_eq!(system.version.as_deref(), Some("13"));
    assert_eq!(system.name.as_deref(), Some("Debian GNU/Linux 13 (trixie)"));
    assert_eq!(system.architecture, Some("x86_64"));
    let volume = guest.partitions.iter().find(|partition| partition.number == root).unwrap();
    let found = volume.file_system.as_ref().unwrap();
    assert_eq!((found.label.as_deref(), found.uuid.as_deref()), (Some("root"), Some(ROOT_ID)));
    for found in &guest.readiness {
        assert_eq!(found.verdict, Verdict::Pass, "{found:#?}");
        assert_eq!(found.mend, None, "{found:#?}");
    }
    assert_eq!(guest.readiness.len(), 8);
    let suggested = &guest.suggestions;
    assert_eq!(suggested.name.as_deref(), Some("debian-13-x86-64"));
    assert_eq!(suggested.family.as_deref(), Some("debian-13"));
    assert_eq!(suggested.os, Some(Family::Linux));
}

#[test]
fn bios_and_mbr_in_every_format() {
    if !has("mkfs.ext4") || !has("sfdisk") {
        return;
    }
    let lab = Lab::new();
    lab.bios("d.raw", &Tree::debian(), 66 * MIB);
    let mut names = vec!["d.raw"];
    if has("qemu-img") {
        for (name, how) in [
            ("d.qcow2", "-O qcow2"),
            ("z.qcow2", "-c -O qcow2"),
            ("huge.qcow2", "-c -O qcow2 -o cluster_size=2M,compression_type=zstd"),
            ("s.vmdk", "-O vmdk -o subformat=streamOptimized"),
            ("d.vmdk", "-O vmdk"),
            ("d.vhdx", "-O vhdx"),
            ("d.vhd", "-O vpc -o subformat=dynamic,force_size=on"),
        ] {
            lab.run(&format!("qemu-img convert {how} d.raw {name}"));
            names.push(name);
        }
    }
    for name in names {
        let (guest, _) = lab.look(name);
        assert_eq!(guest.partition_table.kind, TableKind::Mbr, "{name}");
        assert_eq!(guest.partition_table.boot_loader, Some("GRUB"));
        assert!(guest.boot.bios && !guest.boot.uefi);
        assert_eq!(guest.suggestions.hardware_generation, Some(Generation::LegacyV1));
        assert_eq!(guest.suggestions.min_disk_size, 68 * MIB);
        check(&guest, 1);
        assert!(guest.notes.is_empty(), "{:?}", guest.notes);
    }
}

#[test]
fn uefi_and_gpt() {
    if !has("mkfs.ext4") || !has("sfdisk") {
        return;
    }
    let lab = Lab::new();
    lab.uefi("d", &Tree::debian(), 100 * MIB);
    let (guest, _) = lab.look("d");
    assert_eq!((guest.partition_table.kind, guest.partition_table.backup), (TableKind::Gpt, Some(true)));
    assert!(guest.boot.uefi && !guest.boot.bios, "{:?}", guest.boot);
    assert_eq!((guest.boot.efi_system, guest.boot.bios_boot), (Some(1), Some(2)));
    assert_eq!(guest.boot.loaders[0].path, "EFI/BOOT/BOOTX64.EFI");
    assert_eq!(guest.partitions[2].name.as_deref(), Some("the root"));
    assert_eq!(guest.suggestions.hardware_generation, Some(Generation::Gen2));
    check(&guest, 3);
    lab.grub("d");
    let (guest, _) = lab.look("d");
    assert!(guest.boot.uefi && guest.boot.bios, "{:?}", guest.boot);
    let boot = finding(&guest, Point::Boot);
    assert!(boot.found.contains("BIOS, from a GPT") && boot.found.contains("UEFI, by"), "{boot:?}");
}

/// 2 GiB with 10,000 files: what is read of it is counted at the file, and by what reads.
#[test]
fn little_is_read_of_a_large_disk() {
    if !has("mkfs.ext4") || !has("sfdisk") || !has("qemu-img") {
        return;
    }
    let lab = Lab::new();
    let tree = Tree::debian();
    for folder in ["usr/share/doc", "usr/lib/python3", "var/lib/dpkg/info", "usr/bin", "etc/ssl/certs"] {
        for number in 0..2000 {
            tree.text(&format!("{folder}/{number:05}.txt"), &"text ".repeat(number % 900));
        }
    }
    lab.bios("d.raw", &tree, 2 << 30);
    lab.run("qemu-img convert -c -O qcow2 d.raw d.qcow2");
    for name in ["d.raw", "d.qcow2"] {
        let (guest, read) = lab.look(name);
        check(&guest, 1);
        // Twice what it takes: 1408 KiB of the guest.
        assert!(guest.bytes_read < 3 * MIB, "{name}: {} bytes of the guest", guest.bytes_read);
        assert!(read < 3 * MIB && read > 0, "{name}: {read} bytes of the file");
        eprintln!("{name}: {} KiB of the guest, {} KiB of the file", guest.bytes_read >> 10, read >> 10);
    }
}

#[test]
fn a_boot_partition_of_its_own() {
    if !has("mkfs.ext4") || !has("sfdisk") {
        return;
    }
    let lab = Lab::new();
    let (root, boot) = (Tree::debian(), Tree::empty());
    for name in
        ["grub/grub.cfg", &format!("initrd.img-{}", support::KERNEL), &format!("config-{}", support::KERNEL)]
    {
        boot.text(name, &std::fs::read_to_string(root.folder().join("boot").join(name)).unwrap());
    }
    root.remove("boot");
    std::fs::create_dir(root.folder().join("boot")).unwrap();
    lab.empty("d", 100 * MIB);
    lab.run_with("sfdisk -q d", "label: dos\nsize=30M, type=83, bootable\ntype=83\n");
    lab.grub("d");
    lab.ext4("boot.ext4", &boot, 30 * MIB, "-O ^metadata_csum");
    lab.ext4("root.ext4", &root, 60 * MIB, "");
    // Another id, so that the two can be told apart.
    lab.run("tune2fs -U 99999999-2222-4333-8444-555555555555 boot.ext4");
    lab.put("boot.ext4", "d", MIB);
    lab.put("root.ext4", "d", 31 * MIB);
    let (guest, _) = lab.look("d");
    check(&guest, 2);
    let console = finding(&guest, Point::Console);
    assert_eq!(
        (console.evidence[0].partition, console.evidence[0].file.as_str()),
        (1, "/boot/grub/grub.cfg")
    );
    assert_eq!(console.evidence[0].line, Some(3));
}

#[test]
fn what_cannot_be_read_is_unknown() {
    if !has("sfdisk") {
        return;
    }
    let lab = Lab::new();
    lab.empty("d", 64 * MIB);
    lab.run_with("sfdisk -q d", "label: gpt\nsize=33M, type=U\ntype=L\n");
    lab.poke("d", MIB, &support::fat::with_files(32 * MIB, &["EFI/BOOT/BOOTAA64.EFI"]));
    lab.poke("d", 34 * MIB, b"XFSB");
    let (guest, _) = lab.look("d");
    let system = guest.system.as_ref().unwrap();
    assert_eq!((system.family, system.architecture, system.partition), (Family::Linux, Some("aarch64"), 2));
    let console = finding(&guest, Point::Console);
    assert_eq!(console.verdict, Verdict::Unknown);
    assert!(console.found.contains("xfs"), "{console:?}");
    assert_eq!(finding(&guest, Point::Encryption).verdict, Verdict::Pass);
    assert_eq!(finding(&guest, Point::Boot).verdict, Verdict::Pass);

    lab.poke("d", 34 * MIB, b"LUKS\xba\xbe\0\x02");
    let (guest, _) = lab.look("d");
    let encryption = finding(&guest, Point::Encryption);
    assert_eq!(encryption.verdict, Verdict::Warn);
    assert_eq!(encryption.found, "partition 2 is encrypted (luks2)");
    assert_eq!(finding(&guest, Point::Ssh).found, "the file system is encrypted");
}

/// The installer's layout: what starts lies in small volumes before the one that counts.
#[test]
fn a_system_lies_in_the_largest_volume() {
    if !has("sfdisk") || !has("mkfs.ext4") {
        return;
    }
    let lab = Lab::new();
    lab.empty("d", 64 * MIB);
    lab.run_with("sfdisk -q d", "label: dos\nsize=20M, type=83, bootable\nsize=1M, type=83\ntype=8e\n");
    let boot = Tree::empty();
    boot.text("grub/grub.cfg", "linux /vmlinuz root=/dev/mapper/vg-root console=ttyS0\n");
    lab.ext4("boot.ext4", &boot, 20 * MIB, "");
    lab.put("boot.ext4", "d", MIB);
    lab.poke("d", 21 * MIB, b"XFSB");
    lab.poke("d", 22 * MIB + 512, b"LABELONE");
    lab.poke("d", 22 * MIB + 536, b"LVM2 001");
    let (guest, _) = lab.look("d");
    assert_eq!(
        guest.system.as_ref().map(|system| (system.family, system.partition)),
        Some((Family::Linux, 3))
    );
    assert!(finding(&guest, Point::Ssh).found.contains("lvm-pv"), "{guest:#?}");
    let encryption = finding(&guest, Point::Encryption);
    assert_eq!(encryption.verdict, Verdict::Unknown);
    assert!(encryption.found.contains("partition 3 is not read"), "{encryption:?}");
    // What the loader says lies in /boot, which is read.
    let console = finding(&guest, Point::Console);
    assert_eq!((console.verdict, console.evidence[0].file.as_str()), (Verdict::Pass, "/boot/grub/grub.cfg"));
    assert_eq!(finding(&guest, Point::Mounts).verdict, Verdict::Unknown);
    boot.text("grub/grub.cfg", "linux /vmlinuz root=/dev/sda3 quiet\n");
    lab.ext4("boot.ext4", &boot, 20 * MIB, "");
    lab.put("boot.ext4", "d", MIB);
    let (guest, _) = lab.look("d");
    for point in [Point::Console, Point::Mounts] {
        assert_eq!(finding(&guest, point).verdict, Verdict::Warn, "{guest:#?}");
    }
    for point in [Point::Virtio, Point::CloudInit, Point::Dhcp, Point::Ssh] {
        assert_eq!(finding(&guest, point).verdict, Verdict::Unknown, "{guest:#?}");
    }

    for (start, text) in [(MIB, "BOOTMGR"), (21 * MIB, ""), (22 * MIB, "")] {
        lab.poke("d", start, &[0; 8192]);
        lab.poke("d", start, b"\xeb\x52\x90NTFS    ");
        lab.poke("d", start + 100, text.as_bytes());
        lab.poke("d", start + 510, b"\x55\xaa");
    }
    let (guest, _) = lab.look("d");
    assert_eq!(guest.system.map(|system| (system.family, system.partition)), Some((Family::Windows, 3)));
}

/// The root file system is a logical volume behind another one.
#[test]
fn a_system_in_lvm() {
    if !has("sfdisk") || !has("mkfs.ext4") {
        return;
    }
    let (lab, tree) = (Lab::new(), Tree::debian());
    tree.text("etc/fstab", "/dev/mapper/vg-root / ext4 errors=remount-ro 0 1\n");
    lab.empty("d", 66 * MIB);
    lab.run_with("sfdisk -q d", "label: dos\ntype=8e, bootable\n");
    lab.grub("d");
    lab.poke("d", MIB, &support::lvm::with_volumes(&[("data", 2), ("root", 10)]));
    lab.ext4("root.ext4", &tree, 40 * MIB, "");
    lab.put("root.ext4", "d", 10 * MIB);
    let (guest, _) = lab.look("d");
    let volumes = &guest.partitions[0].volumes;
    let said: Vec<_> = volumes.iter().map(|v| (v.name.as_str(), v.start, v.size)).collect();
    assert_eq!(said, [("vg/data", Some(2 * MIB), 8 * MIB), ("vg/root", Some(10 * MIB), 40 * MIB)]);
    assert_eq!(volumes[1].file_system.as_ref().map(|found| found.kind), Some(guest_info::Kind::Ext4));
    let system = guest.system.as_ref().unwrap();
    assert_eq!(
        (system.id.as_deref(), system.architecture, system.partition),
        (Some("debian"), Some("x86_64"), 1)
    );
    for found in &guest.readiness {
        assert_eq!(found.verdict, Verdict::Pass, "{found:#?}");
    }
    assert!(guest.notes.is_empty(), "{:?}", guest.notes);

    // What is in a volume counts as if it were a partition.
    lab.poke("d", 2 * MIB, b"LUKS\xba\xbe\0\x02");
    let (guest, _) = lab.look("d");
    assert_eq!(finding(&guest, Point::Encryption).verdict, Verdict::Warn);
    // A byte of what leads to the text, then the end of the text.
    for (at, byte, note) in [(512 + 32 + 73, 9, "are not known"), (4096 + 48 + 2, 3, "is too long")] {
        let was = lab.peek("d", MIB + at, 1);
        lab.poke("d", MIB + at, &[byte]);
        let (guest, _) = lab.look("d");
        assert!(guest.notes.iter().any(|found| found.contains(note)), "{:?}", guest.notes);
        assert_eq!(finding(&guest, Point::Encryption).verdict, Verdict::Unknown);
        assert_eq!(finding(&guest, Point::Ssh).verdict, Verdict::Unknown);
        lab.poke("d", MIB + at, &was);
    }
}

#[test]
fn windows_is_known_by_its_volumes() {
    if !has("sfdisk") {
        return;
    }
    let lab = Lab::new();
    lab.empty("d", 64 * MIB);
    let reserved = "E3C9E316-0B5C-4DB8-817D-F92DF00215AE";
    let data = "EBD0A0A2-B9E5-4433-87C0-68B6B72699C7";
    lab.run_with(
        "sfdisk -q d",
        &format!("label: gpt\nsize=33M, type=U\nsize=1M, type={reserved}\ntype={data}\n"),
    );
    let loaders = ["EFI/MICROS~1/BOOT/BOOTMGFW.EFI", "EFI/BOOT/BOOTX64.EFI"];
    lab.poke("d", MIB, &support::fat::with_files(32 * MIB, &loaders));
    lab.poke("d", 35 * MIB, b"\xeb\x52\x90NTFS    ");
    lab.poke("d", 35 * MIB + 510, b"\x55\xaa");
    let (guest, _) = lab.look("d");
    let system = guest.system.as_ref().unwrap();
    assert_eq!((system.family, system.architecture, system.partition), (Family::Windows, Some("x86_64"), 3));
    assert_eq!(guest.suggestions.os, Some(Family::Windows));
    assert_eq!(guest.boot.loaders.len(), 2, "{:?}", guest.boot);
    assert_eq!(finding(&guest, Point::Virtio).verdict, Verdict::Unknown);
    assert_eq!(finding(&guest, Point::Boot).verdict, Verdict::Pass);
}

/// A physical volume alone, with a byte of what leads to its text changed, or of the text.
#[test]
fn any_byte_of_lvm_may_be_wrong() {
    let disk = support::lvm::with_volumes(&[("data", 2), ("root", 10)]);
    let ring = disk.len() - 100;
    for at in (512..640).chain(4096..4160).chain(4608..5200).chain(ring..disk.len()) {
        for byte in [0, 0x7f, 0xff, b'9', b'{', b'"'] {
            let mut disk = disk.clone();
            disk[at] = byte;
            let guest = inspect(Box::new(disk)).unwrap();
            assert!(guest.partitions.len() <= 1 && guest.readiness.len() == 8, "{at:#x} {byte:#x}");
        }
    }
    let guest = inspect(Box::new(disk)).unwrap();
    assert_eq!(guest.partitions[0].volumes.len(), 2, "{guest:?}");
}
