//! Whatever a limit leaves out: a point is judged as it is without the limit, or it is unknown.

use std::sync::Arc;

use crate::source::{Budget, Cause, GuestBytes};
use crate::{Guest, Point, Verdict, inspect_within, limits};

#[path = "../../tests/support/mod.rs"]
mod support;

use support::{Lab, MIB, Tree, finding, has};

#[derive(Clone)]
struct Shared(Arc<Vec<u8>>);

impl GuestBytes for Shared {
    fn len(&self) -> u64 {
        self.0.len() as u64
    }

    fn read(&mut self, offset: u64, into: &mut [u8]) -> Result<(), Cause> {
        let at = usize::try_from(offset)?;
        into.copy_from_slice(&self.0[at..at + into.len()]);
        Ok(())
    }
}

/// Looks into a disk with every budget that it takes, and compares each time with what is found in the end.
fn holds(lab: &Lab, name: &str) -> Guest {
    let disk = Shared(Arc::new(std::fs::read(lab.path(name)).unwrap()));
    let look = |read, questions| inspect_within(Box::new(disk.clone()), Budget { read, questions }).unwrap();
    let full = look(limits::MAX_READ, limits::MAX_QUESTIONS);
    let mut runs = 0;
    let mut compare = |found: &Guest, what: &str| {
        runs += 1;
        for (found, full) in found.readiness.iter().zip(&full.readiness) {
            let agrees = found.verdict == full.verdict || found.verdict == Verdict::Unknown;
            assert!(agrees, "{name}, {what}: {found:#?}\n\n{full:#?}");
        }
        let generation = found.suggestions.hardware_generation;
        let agrees = generation.is_none() || generation == full.suggestions.hardware_generation;
        assert!(agrees, "{name}, {what}: {generation:?}");
    };
    for read in (0..=full.bytes_read).step_by(limits::PAGE as usize) {
        compare(&look(read, limits::MAX_QUESTIONS), &format!("{read} bytes"));
    }
    for questions in (0..).step_by(3) {
        let found = look(limits::MAX_READ, questions);
        compare(&found, &format!("{questions} questions"));
        if found.bytes_read == full.bytes_read && found.notes == full.notes {
            break;
        }
    }
    eprintln!("{name}: {runs} budgets");
    full
}

#[test]
fn no_budget_makes_a_verdict_of_what_was_not_seen() {
    if !has("mkfs.ext4") || !has("sfdisk") {
        return;
    }
    let lab = Lab::new();
    lab.bios("bios", &Tree::debian(), 34 * MIB);
    let full = holds(&lab, "bios");
    assert!(full.readiness.iter().all(|found| found.verdict == Verdict::Pass), "{full:#?}");
    lab.uefi("uefi", &Tree::debian(), 70 * MIB);
    holds(&lab, "uefi");

    let lvm = Tree::debian();
    lvm.text("etc/fstab", "/dev/mapper/vg-root / ext4 errors=remount-ro 0 1\n");
    lab.empty("lvm", 50 * MIB);
    lab.run_with("sfdisk -q lvm", "label: dos\nsize=45M, type=8e, bootable\ntype=83\n");
    lab.grub("lvm");
    lab.poke("lvm", MIB, &support::lvm::with_volumes(&[("root", 8), ("data", 2)]));
    lab.ext4("root.ext4", &lvm, 32 * MIB, "");
    lab.put("root.ext4", "lvm", 2 * MIB);
    let full = holds(&lab, "lvm");
    assert!(full.readiness.iter().all(|found| found.verdict == Verdict::Pass), "{full:#?}");
    lab.poke("lvm", 34 * MIB, b"LUKS\xba\xbe\0\x02");
    let full = holds(&lab, "lvm");
    assert_eq!(finding(&full, Point::Encryption).verdict, Verdict::Warn);

    // The last partitions say what is wrong: a key, a file system that is mounted, and /boot behind the root.
    let (root, boot) = (Tree::debian(), Tree::empty());
    let data = "99999999-2222-4333-8444-555555555555";
    for name in ["grub/grub.cfg", "initrd.img-", "config-"] {
        let name = &if name.ends_with('-') { format!("{name}{}", support::KERNEL) } else { name.to_owned() };
        boot.text(name, &std::fs::read_to_string(root.folder().join("boot").join(name)).unwrap());
    }
    root.remove("boot");
    std::fs::create_dir(root.folder().join("boot")).unwrap();
    root.text("etc/fstab", &format!("LABEL=root / ext4\nLABEL=boot /boot ext4\nUUID={data} /data ext4\n"));
    root.program("usr/lib/systemd/systemd", 183);
    boot.text("grub/grub.cfg", "linux /vmlinuz console=ttyAMA0\n");
    let make = |name: &str| {
        lab.empty(name, 80 * MIB);
        let script =
            "label: dos\nsize=24M, type=83, bootable\nsize=20M, type=83\nsize=20M, type=83\ntype=83\n";
        lab.run_with(&format!("sfdisk -q {name}"), script);
        lab.grub(name);
        lab.ext4("root.ext4", &root, 24 * MIB, "");
        lab.put("root.ext4", name, MIB);
        lab.ext4("boot.ext4", &boot, 20 * MIB, "");
        lab.put("boot.ext4", name, 25 * MIB);
        lab.ext4("data.ext4", &Tree::empty(), 20 * MIB, "");
        lab.run(&format!("tune2fs -U {data} data.ext4"));
        lab.put("data.ext4", name, 45 * MIB);
    };
    make("apart");
    let full = holds(&lab, "apart");
    assert!(full.readiness.iter().all(|found| found.verdict == Verdict::Pass), "{full:#?}");
    lab.poke("apart", 65 * MIB, b"LUKS\xba\xbe\0\x02");
    let full = holds(&lab, "apart");
    assert_eq!(finding(&full, Point::Encryption).verdict, Verdict::Warn);
    // Nothing says that there is a file system at /boot.
    root.remove("etc/fstab");
    make("unsaid");
    holds(&lab, "unsaid");
}

/// What is mounted at /boot or /usr, and is not read here, may hold what was not found.
#[test]
fn what_lies_in_another_file_system_is_unknown() {
    if !has("mkfs.ext4") || !has("sfdisk") {
        return;
    }
    let (lab, tree) = (Lab::new(), Tree::debian());
    tree.remove("boot").remove("etc/cloud").remove("usr/bin/cloud-init").remove("etc/default");
    tree.text("etc/fstab", "LABEL=root / ext4\nLABEL=b /boot xfs nofail\n");
    let look = |fstab: &str| {
        tree.text("etc/fstab", fstab);
        lab.bios("d", &tree, 34 * MIB);
        lab.look("d").0
    };
    let guest = look("LABEL=root / ext4\nLABEL=b /boot xfs\n");
    for point in [Point::Virtio, Point::Console, Point::Mounts] {
        assert_eq!(finding(&guest, point).verdict, Verdict::Unknown, "{guest:#?}");
    }
    assert_eq!(finding(&guest, Point::CloudInit).verdict, Verdict::Warn);
    assert!(finding(&guest, Point::Virtio).found.contains("/boot"), "{guest:#?}");
    let guest = look("LABEL=root / ext4\nLABEL=b /usr xfs\n");
    assert!(finding(&guest, Point::CloudInit).found.contains("/usr"), "{guest:#?}");
    assert_eq!(finding(&guest, Point::CloudInit).verdict, Verdict::Unknown);
    assert_eq!(finding(&look("LABEL=root / ext4\n"), Point::Virtio).verdict, Verdict::Warn);
}
