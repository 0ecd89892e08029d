//! OVA files: made by tar, and by hand where tar would not.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "a test fails by panicking")]

#[path = "support/driver.rs"]
mod driver;
#[path = "support/qemu.rs"]
mod qemu;
#[path = "support/tar.rs"]
mod tar;
#[path = "support/vmdk.rs"]
mod vmdk;

use std::process::Command;

use disk_image::{Format, OpenError, OpenOptions, State};
use driver::Disk;
use qemu::{Dice, Lab};
use tar::{Tar, open};
use vmdk::{Builder, GRAIN};

const CAPACITY: u64 = 4 << 20;

/// A machine with one disk.
fn good() -> Tar {
    Tar::default()
        .file("vm.ovf", &[b'x'; 700])
        .file("vm.mf", b"SHA256")
        .file("vm-disk1.vmdk", &disk(1).build().bytes)
}

fn disk(seed: u64) -> Builder {
    let builder = Builder::stream(CAPACITY / 512);
    [0, 1, 7, 30]
        .into_iter()
        .fold(builder, |builder, index| builder.grain(index, Dice(seed + index).disk(GRAIN)))
}

#[test]
fn the_disk_is_read_in_place() {
    let opened = good().open().unwrap();
    assert_eq!((opened.image.format(), opened.image.member()), (Format::Vmdk, Some("vm-disk1.vmdk")));
    assert!(opened.guest().unwrap() == disk(1).guest());
    // Behind three headers and two small members.
    let starts = opened.image.map().iter().filter_map(|extent| match extent.state {
        State::Encoded { stored, .. } => Some(stored.span.start),
        _ => None,
    });
    assert!(starts.min().unwrap() > 3 * 512 + 1024 + 512);
    // Descriptor and manifest come with the header before them.
    assert!(opened.reads < 12, "{}", opened.reads);
}

#[test]
fn archives_of_tar() {
    let Some(lab) = Lab::new() else { return };
    let guest = Dice(5).disk(6 << 20);
    lab.raw("in.raw", &guest);
    let long = format!("{}/{}.vmdk", "folder".repeat(20), "disk".repeat(30));
    std::fs::create_dir(lab.path(&"folder".repeat(20))).unwrap();
    lab.raw("vm.ovf", &[b'x'; 40_000]);
    lab.img("convert -f raw -O vmdk -o subformat=streamOptimized in.raw short.vmdk");
    lab.img(&format!("convert -f raw -O vmdk -o subformat=monolithicSparse in.raw {long}"));
    for format in ["ustar", "gnu", "pax", "oldgnu"] {
        for name in ["short.vmdk", &long] {
            let arguments = [&format!("--format={format}"), "-cf", "vm.ova", "vm.ovf", &format!("./{name}")];
            let made = Command::new("tar").args(arguments).current_dir(lab.path("")).output().unwrap();
            if !made.status.success() {
                assert!(format == "ustar" && name == long, "{made:?}");
                continue;
            }
            let opened = Disk::open(&lab.path("vm.ova"));
            assert_eq!(opened.image.member(), Some(name), "{format}");
            assert!(opened.guest().unwrap() == guest, "{format} {name}");
        }
    }
}

#[test]
fn one_of_several_disks() {
    let tar = good().file("other.VMDK", &disk(2).build().bytes);
    let names = || vec!["vm-disk1.vmdk".to_owned(), "other.VMDK".to_owned()];
    let error = tar.open().map(|_| ()).unwrap_err();
    assert_eq!(error, OpenError::SeveralDisks(names()));
    assert_eq!(error.to_string(), "the archive holds several disks: vm-disk1.vmdk, other.VMDK");
    assert_eq!(error.hint(), Some("choose one with --member"));
    for (name, seed) in [("vm-disk1.vmdk", 1), ("./other.VMDK", 2)] {
        assert!(open(tar.end(), Some(name)).unwrap().guest().unwrap() == disk(seed).guest(), "{name}");
    }
    let unknown = open(tar.end(), Some("vm.ovf")).map(|_| ()).unwrap_err();
    assert_eq!(unknown, OpenError::NoMember(names()));
    // The same name twice is two disks, too.
    let twice = good().file("vm-disk1.vmdk", &disk(2).build().bytes);
    let error = open(twice.end(), Some("vm-disk1.vmdk")).map(|_| ()).unwrap_err();
    assert!(matches!(error, OpenError::SeveralDisks(_)), "{error}");
    // A choice in what is no archive.
    let error = open(disk(1).build().bytes, Some("a")).map(|_| ()).unwrap_err();
    assert_eq!(error, OpenError::NoArchive);
    let options =
        OpenOptions { format: Some(Format::Vmdk), member: Some("a".to_owned()), ..OpenOptions::default() };
    let error = Disk::parse(disk(1).build().bytes.into(), &options).map(|_| ()).unwrap_err();
    assert_eq!(error, OpenError::NoArchive);
}

#[test]
fn what_is_no_disk_is_named() {
    let needs =
        |tar: Tar, what: &str| tar.refused(&format!("the image needs {what}, which is not supported"));
    let ovf = || Tar::default().file("vm.ovf", b"<Envelope/>");
    needs(Tar::default().file("disk.img", &[0; 512]), "the tar format");
    ovf().refused("the disk (.vmdk) in the archive was not found between 0x0 and 0x800");
    needs(ovf().file("a.vmdk.gz", &[1]), "a compressed disk in an archive");
    let chunks = ovf().file("a.vmdk.000000000", &[1]);
    needs(chunks.clone(), "a disk in an archive that is cut into several members");
    needs(chunks.file("a.vmdk.000000001", &[1]), "a disk in an archive that is cut into several members");
    for kind in [b'1', b'2'] {
        needs(ovf().member("a.vmdk", kind, &[]), "a link in an archive");
        needs(good().member("other", kind, &[]), "a link in an archive");
    }
    needs(ovf().member("a.vmdk", b'S', &[]), "a sparse disk in an OVA");
    let pax = ovf().member("pax", b'x', b"23 GNU.sparse.size=512\n").file("a.vmdk", &[]);
    needs(pax.clone(), "a sparse disk in an OVA");
    pax.file("disk.raw", &[1; 512]).refused("the archive holds several disks: a.vmdk, disk.raw");
    for kind in [b'3', b'6', b'M', b'?'] {
        let what = format!("an archive member of the type {:?}", char::from(kind));
        needs(ovf().member("a.vmdk", kind, &[]), &what);
    }
    ovf()
        .file("a.vmdk", &[0x1f, 0x8b, 8, 0, 0, 0])
        .refused("not a vmdk image: its first bytes are [1f, 8b, 08, 00], expected [4b, 44, 4d, 56]");
}

/// A disk that names files would lead out of the archive.
#[test]
fn disks_that_name_files_are_refused() {
    let Some(lab) = Lab::new() else { return };
    lab.img("create -q -f vmdk -o subformat=monolithicFlat flat.vmdk 4M");
    let descriptor = std::fs::read(lab.path("flat.vmdk")).unwrap();
    let error =
        Tar::default().file("vm.ovf", b"").file("flat.vmdk", &descriptor).open().map(|_| ()).unwrap_err();
    assert!(matches!(error, OpenError::Unsupported(_)), "{error}");
}

#[test]
fn extended_headers() {
    let bytes = disk(1).build().bytes;
    let named =
        |tar: Tar| tar.open().map(|disk| disk.image.member().unwrap().to_owned()).map_err(|e| e.to_string());
    let long = format!("{}.vmdk", "n".repeat(300));
    let record = |key: &str, value: &str| {
        let rest = key.len() + value.len() + 3;
        let len = (rest + 1..).find(|len| len.to_string().len() + rest == *len).unwrap();
        format!("{len} {key}={value}\n").into_bytes()
    };
    let pax = |records: &[u8]| Tar::default().member("pax", b'x', records);
    let path = record("path", &long);
    assert_eq!(named(pax(&path).file("short", &bytes)), Ok(long.clone()));
    assert_eq!(
        named(Tar::default().member("L", b'L', &[long.as_bytes(), &[0]].concat()).file("s", &bytes)),
        Ok(long)
    );
    // What a pax header says holds for the next member only.
    let next = pax(&path).file("s", b"").file("a.vmdk", &bytes);
    assert!(named(next).unwrap_err().starts_with("the archive holds several disks: nnn"));
    let size = record("size", &bytes.len().to_string());
    let sized = pax(&size).with("a.vmdk", b'0', &bytes, |header| header[124..135].fill(b'0'));
    assert_eq!(named(sized), Ok("a.vmdk".to_owned()));
    let binary = Tar::default().with("a.vmdk", b'0', &bytes, |header| {
        header[124..136].fill(0);
        header[124] = 0x80;
        header[132..136].copy_from_slice(&(bytes.len() as u32).to_be_bytes());
    });
    assert_eq!(named(binary), Ok("a.vmdk".to_owned()));
    let prefix =
        Tar::default().with("a.vmdk", b'\0', &bytes, |header| header[345..348].copy_from_slice(b"dir"));
    assert_eq!(named(prefix), Ok("dir/a.vmdk".to_owned()));
    let control = Tar::default().file("a\x1b[2J.vmdk", &bytes);
    assert_eq!(named(control), Ok("a\u{fffd}[2J.vmdk".to_owned()));
    // Members that are folders, and headers that hold for all, change nothing.
    let around = Tar::default().member("global", b'g', &record("comment", "x")).member("dir/", b'5', &[]);
    assert_eq!(named(around.file("dir/a.vmdk", &bytes)), Ok("dir/a.vmdk".to_owned()));
    for wrong in
        ["x", "5 a=b\n", "99 path=a\n", "6 a=bc\n", " a=b\n", "6 ab\n\n", "99999999999999999999 a=b\n"]
    {
        let error = named(pax(wrong.as_bytes()).file("a.vmdk", &bytes)).unwrap_err();
        assert!(error.contains("expected a pax header of records"), "{wrong:?}: {error}");
    }
    // More than one step has, and the longest name.
    let long = format!("{}.vmdk", "n".repeat((12 << 10) - 5));
    let both = [record("comment", &"x".repeat(900_000)), record("path", &long)].concat();
    assert_eq!(named(pax(&both).file("a.vmdk", &bytes)), Ok(long));
    let error = named(pax(&record("path", &"n".repeat(1 << 20))).file("a.vmdk", &bytes)).unwrap_err();
    assert_eq!(error, "the length of an extended tar header is 1048590, the limit is 1048576");
    // One that begins at the end of a step.
    let far = Tar::default()
        .file("vm.ovf", &[b'x'; (32 << 10) - 1536])
        .member("pax", b'x', &path)
        .file("s", &bytes);
    assert!(named(far).is_ok());
}

#[test]
fn damaged_headers() {
    let mut file = good().end();
    file[2] ^= 1;
    let error = open(file, None).map(|_| ()).unwrap_err();
    assert!(error.to_string().starts_with("the checksum in tar header entry 0 is 0x"), "{error}");
    let sized =
        |size: &[u8; 12]| good().with("b", b'0', &[], |header| header[124..136].copy_from_slice(size));
    sized(b"99999999999\0")
        .refused("tar header entry 3 is 0x3939393939393939, expected a header whose size is a number");
    sized(b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff")
        .refused("tar header entry 3 is 0xffffffffffffffff, expected a header whose size is a number");
    let long = sized(b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff").open().map(|_| ()).unwrap_err();
    assert!(matches!(long, OpenError::Truncated { .. }), "{long}");
    let many = (0..1025).fold(Tar::default(), |tar, _| tar.file("a", b""));
    many.refused("the number of tar headers is 1025, the limit is 1024");
}

#[test]
fn truncation_is_always_seen() {
    let tar = good();
    let whole = tar.end();
    // One zero block ends an archive as well as two.
    for len in (0..tar.0.len() + 512).step_by(97).chain([tar.0.len(), tar.0.len() + 511]) {
        let error = open(whole[..len].to_vec(), None).map(|_| ()).unwrap_err();
        let early = len < 512 && matches!(error, OpenError::Empty | OpenError::UnknownFormat);
        let cut = matches!(error, OpenError::Truncated { .. } | OpenError::Missing { .. });
        assert!(early || cut, "{len}: {error}");
    }
    open(whole[..tar.0.len() + 512].to_vec(), None).unwrap();
    // Inside of a whole archive, a disk that was cut before it was packed.
    let bytes = disk(1).build().bytes;
    let cut =
        Tar::default().file("vm.ovf", b"").file("a.vmdk", &bytes[..bytes.len() - 1536]).file("z", &[7; 4096]);
    let error = cut.open().map(|_| ()).unwrap_err();
    assert!(matches!(error, OpenError::Missing { .. }), "{error}");
}

#[test]
fn mutations_never_panic() {
    let good = good().member("pax", b'x', b"14 path=b.ovf\n").file("s", &[1; 600]).end();
    let headers: Vec<usize> = [0, 1536, 2560].into();
    let mut dice = Dice(1);
    let mut opened = 0;
    for _ in 0..3_000 {
        let mut file = good.clone();
        let header = headers[dice.roll(3) as usize];
        for _ in 0..=dice.roll(2) {
            let at = header + [0, 124, 156, 257, 345][dice.roll(5) as usize] + dice.roll(12) as usize;
            file[at] = [0, 0x30, 0x37, 0x80, 0xff, dice.roll(256) as u8][dice.roll(6) as usize];
        }
        let block = &mut file[header..header + 512];
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|&byte| u32::from(byte)).sum();
        block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        if dice.roll(8) == 0 {
            file.truncate(dice.roll(file.len() as u64) as usize);
        }
        opened += u32::from(open(file, None).is_ok());
    }
    assert!((300..2_700).contains(&opened), "{opened} of 3000 were accepted");
}
