//! What `info` says of the inside of a disk, wherever it is read, and what `create` makes of it.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "a test that cannot go on ends")]

mod support;

use std::fs;
use std::path::Path;
use std::process::Command;

use support::http::{Behaviour, Server};
use support::{Bench, MIB};

/// Files of a system that lacks one thing: the kernel is not told of the serial port.
const FILES: [(&str, &str); 12] = [
    ("etc/os-release", "ID=debian\nVERSION_ID=\"13\"\nPRETTY_NAME=\"Debian GNU/Linux 13 (trixie)\"\n"),
    ("etc/fstab", "LABEL=root / ext4 defaults 0 1\n"),
    ("boot/grub/grub.cfg", "set timeout=0\nlinux /vmlinuz root=LABEL=root quiet\n"),
    ("etc/default/grub", "GRUB_CMDLINE_LINUX=\"\"\n"),
    ("usr/lib/modules/6.12/modules.builtin", "a/virtio_blk.ko\na/virtio_net.ko\na/virtio_pci.ko\n"),
    ("etc/cloud/cloud.cfg", "datasource_list: [ Ec2 ]\n"),
    ("usr/bin/cloud-init", "#!/bin/sh\n"),
    ("etc/netplan/a.yaml", "dhcp4: true\n"),
    ("usr/sbin/sshd", "x"),
    ("etc/systemd/system/multi-user.target.wants/ssh.service", "x"),
    ("bin/sh", "\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x3e\0"),
    ("etc/evil\u{1b}[31m", "x"),
];

/// Runs a tool that makes the disk; `None`, said aloud, where it is not installed.
fn run(bench: &Bench, tool: &str, args: &[&str]) -> Option<()> {
    let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
    match Command::new(tool).args(args).env("PATH", path).current_dir(bench.path("")).output() {
        Ok(output) => {
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            Some(())
        }
        Err(error) => {
            assert!(std::env::var_os("CI").is_none(), "{tool} is needed under CI: {error}");
            eprintln!("SKIPPED: {tool} is not installed");
            None
        }
    }
}

/// A disk with an MBR and this system in its first partition.
fn disk(bench: &Bench, name: &str) -> Option<()> {
    for (path, text) in FILES {
        let path = bench.path("tree").join(path);
        fs::create_dir_all(path.parent().unwrap_or(Path::new("."))).unwrap();
        fs::write(path, text).unwrap();
    }
    run(bench, "mkfs.ext4", &["-q", "-F", "-L", "root", "-d", "tree", "root.ext4", "20m"])?;
    let mut entry = b"\x80\0\0\0\x83\0\0\0".to_vec();
    entry.extend(2048_u32.to_le_bytes());
    entry.extend(40960_u32.to_le_bytes());
    let root = fs::read(bench.path("root.ext4")).unwrap();
    bench.raw(name, 22 * MIB, &[(0, b"\xeb\x63\x90"), (0x180, b"GRUB "), (446, &entry), (MIB, &root)]);
    fs::remove_dir_all(bench.path("tree")).unwrap();
    fs::remove_file(bench.path("root.ext4")).unwrap();
    Some(())
}

#[test]
fn it_is_the_same_in_every_format_and_over_http() {
    let bench = Bench::new();
    let Some(()) = disk(&bench, "disk") else { return };
    let guest = |image: &str| {
        let mut guest = bench.ok(["info", "--json", image]).json()["guest"].clone();
        let read = guest["bytesRead"].take().as_u64().unwrap();
        assert!(read < 64 * MIB, "{read}");
        guest
    };
    let expected = guest("disk");
    assert_eq!(expected["partitionTable"]["kind"], "mbr");
    assert_eq!(expected["partitions"][0]["fileSystem"]["type"], "ext4");
    assert_eq!(expected["system"]["id"], "debian");
    assert_eq!(expected["system"]["architecture"], "x86_64");
    assert_eq!(expected["boot"]["bios"], true);
    assert_eq!(expected["suggestions"]["hardwareGeneration"], "legacy-v1");
    let points = expected["readiness"].as_array().unwrap();
    let verdicts: Vec<_> =
        points.iter().map(|p| (p["point"].as_str().unwrap(), p["verdict"].as_str().unwrap())).collect();
    let all = ["virtio", "console", "cloud-init", "mounts", "dhcp", "ssh", "encryption", "boot"];
    assert_eq!(verdicts, all.map(|point| (point, if point == "console" { "warn" } else { "pass" })));
    let evidence = &points[1]["evidence"][0];
    assert_eq!(
        (evidence["file"].as_str(), evidence["line"].as_u64()),
        (Some("/boot/grub/grub.cfg"), Some(2))
    );
    assert!(points[1]["mend"].as_str().unwrap().contains("update-grub"));

    for (name, options) in
        [("a", &["-O", "qcow2", "-c"][..]), ("b", &["-O", "vmdk", "-o", "subformat=streamOptimized"])]
    {
        let Some(run) = bench.qemu_img(&[&["convert"], options, &["disk", name]].concat()) else { return };
        assert_eq!(run.code, 0, "{run:?}");
        assert_eq!(guest(name), expected, "{name}");
        let server = Server::start(fs::read(bench.path(name)).unwrap(), Behaviour::Serves);
        assert_eq!(guest(server.url()), expected, "{name} over http");
    }
}

#[test]
fn people_read_it_too() {
    let bench = Bench::new();
    let Some(()) = disk(&bench, "disk") else { return };
    let run = bench.ok(["info", "disk"]);
    for line in [
        "partitions    MBR\n",
        "partition     1: 20 MiB at 1 MiB, Linux, ext4 `root`, active\n",
        "boot          BIOS (GRUB)\n",
        "system        Debian GNU/Linux 13 (trixie), x86_64, in partition 1\n",
        "ready         ssh: the SSH server starts with the system (",
        "ready         console: NO: the kernel is not told console=ttyS0 (/boot/grub/grub.cfg:2)\n",
        "  mend        add console=ttyS0 to GRUB_CMDLINE_LINUX",
        "suggested     --hardware-generation legacy-v1 --family debian-13 --name debian-13-x86-64\n",
    ] {
        assert!(run.stdout.contains(line), "{line}: {run:?}");
    }
    assert!(!run.stdout.contains('\u{1b}'), "{run:?}");
}

#[test]
fn create_warns_and_with_strict_refuses() {
    let bench = Bench::new();
    let Some(()) = disk(&bench, "disk") else { return };
    let args = ["create", "disk", "--name", "n", "--local"];
    let run = bench.fails(3, [&args[..], &["--strict"]].concat());
    assert!(run.stderr.contains("`disk` is not ready for the cloud: console: "), "{run:?}");
    assert!(run.stderr.contains("(/boot/grub/grub.cfg:2)"), "{run:?}");
    assert_eq!(bench.names(), ["disk"], "nothing was begun");

    let run = bench.ok(args);
    assert!(
        run.stderr.contains("warning: `disk`: console: NO: the kernel is not told console=ttyS0"),
        "{run:?}"
    );
    assert!(run.stderr.contains("--hardware-generation legacy-v1 --family debian-13 would fit"), "{run:?}");
    assert_eq!(run.stderr.matches("warning: ").count(), 1, "{run:?}");
    // What was typed is not suggested, and --quiet says nothing.
    let typed = ["--hardware-generation=gen2", "--family=mine", "--if-exists=reuse"];
    let run = bench.ok([&["create", "disk", "--name", "m", "--local"][..], &typed].concat());
    assert!(!run.stderr.contains("would fit"), "{run:?}");
    let run = bench.ok(["create", "disk", "--name", "o", "--local", "--quiet"]);
    assert_eq!(run.stderr, "");
}

#[test]
fn a_disk_that_cannot_be_read_inside_is_still_an_image() {
    let bench = Bench::new();
    let Some(()) = disk(&bench, "disk") else { return };
    let Some(made) = bench.qemu_img(&["convert", "-O", "qcow2", "-c", "disk", "z"]) else { return };
    assert_eq!(made.code, 0);
    // The first compressed cluster is damaged: the MBR is in it.
    let map = bench.ok(["map", "z", "--json"]).json();
    assert_eq!(map[0]["compressed"], true, "{map}");
    let at = map[0]["offset"].as_u64().unwrap_or(5 * 65536) as usize;
    let mut bytes = fs::read(bench.path("z")).unwrap();
    bytes[at..at + 16].fill(0xff);
    fs::write(bench.path("z"), bytes).unwrap();
    let run = bench.ok(["info", "z", "--json"]);
    assert!(run.stderr.contains("what is inside is not known"), "{run:?}");
    assert!(run.json().get("guest").is_none());
    assert_eq!(run.json()["virtualSize"], 22 * MIB);
}
