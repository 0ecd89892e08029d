//! Hostile archives: a tar in gzip, as Compute Engine takes it, and what else gzip may be around.

use super::case::{Case, put};
use super::qcow2;
use crate::seed::Seed;

const ARCHIVE: &str = "archive lies";
const STREAM: &str = "gzip lies";
const BOMB: &str = "exhaustion";
const REFERENCES: &str = "names a file";

/// Length of the disk.
const LEN: usize = 1 << 20;

/// What the file of a tar member is.
const FILE: u8 = b'0';
const SPARSE: u8 = b'S';

/// Any of the attacks.
pub(super) fn cases() -> Vec<Case> {
    [members(), maps(), streams(), bombs()].concat()
}

fn disk() -> Vec<u8> {
    let mut disk = vec![0; LEN];
    put(&mut disk, 4096, &Seed::new(9, "archive").bytes(64 << 10));
    put(&mut disk, 510, b"\x55\xaa");
    disk
}

/// A header and its content. What `change` does to the header comes before its checksum.
fn member(name: &[u8], kind: u8, content: &[u8], change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut header = vec![0; 512];
    put(&mut header, 0, name);
    put(&mut header, 124, &octal(content.len() as u64));
    header[156] = kind;
    put(&mut header, 257, b"ustar  \0");
    change(&mut header);
    header[148..156].fill(b' ');
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    put(&mut header, 148, format!("{sum:06o}\0").as_bytes());
    header.extend(content);
    header.resize(header.len().next_multiple_of(512), 0);
    header
}

fn file(name: &str, content: &[u8]) -> Vec<u8> {
    member(name.as_bytes(), FILE, content, |_| ())
}

fn octal(number: u64) -> Vec<u8> {
    format!("{number:011o}\0").into_bytes()
}

/// A number that octal digits have no room for.
fn binary(number: u64) -> Vec<u8> {
    [&[0x80, 0, 0, 0][..], &number.to_be_bytes()].concat()
}

fn tar(members: &[Vec<u8>]) -> Vec<u8> {
    [members.concat(), vec![0; 1024]].concat()
}

/// A gzip member of stored blocks.
fn gzip(content: &[u8]) -> Vec<u8> {
    let mut stream = Vec::new();
    for block in content.chunks(65_535) {
        let len = u16::try_from(block.len()).unwrap_or(u16::MAX);
        stream.push(0);
        stream.extend(len.to_le_bytes());
        stream.extend((!len).to_le_bytes());
        stream.extend(block);
    }
    stream.extend([3, 0]);
    around(&stream, crc32fast::hash(content), content.len() as u64)
}

fn around(stream: &[u8], checksum: u32, len: u64) -> Vec<u8> {
    let len = u32::try_from(len & u64::from(u32::MAX)).unwrap_or_default();
    let head = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
    [&head, stream, &checksum.to_le_bytes(), &len.to_le_bytes()].concat()
}

/// A gzip member of `before`, zeroes of `258 * repeats + 1` bytes in 13 bits for 258 of them, and `behind`.
fn zeroes(before: &[u8], repeats: u32, behind: &[u8]) -> Vec<u8> {
    let mut stream = gzip(before);
    // Without header, last block and trailer.
    stream.drain(..10);
    stream.truncate(stream.len() - 10);
    let mut bits = Bits { bytes: stream, free: 0 };
    bits.put(0, 1);
    bits.put(1, 2);
    bits.code(0x30, 8);
    for _ in 0..repeats {
        bits.code(0xc5, 8);
        bits.code(0, 5);
    }
    bits.code(0, 7);
    // An empty stored block begins the next byte.
    bits.put(0, 3);
    let mut stream = bits.bytes;
    stream.extend([0, 0, 0xff, 0xff]);
    let rest = gzip(behind);
    stream.extend(&rest[10..rest.len() - 8]);
    let count = 258 * u64::from(repeats) + 1;
    let mut checksum = crc32fast::Hasher::new();
    checksum.update(before);
    let block = vec![0; 1 << 20];
    for _ in 0..count >> 20 {
        checksum.update(&block);
    }
    checksum.update(&block[..usize::try_from(count % (1 << 20)).unwrap_or_default()]);
    checksum.update(behind);
    around(&stream, checksum.finalize(), before.len() as u64 + count + behind.len() as u64)
}

/// Bits behind whole bytes, lowest first.
struct Bits {
    bytes: Vec<u8>,
    /// Bits of the last byte that are still free.
    free: u32,
}

impl Bits {
    fn put(&mut self, number: u32, count: u32) {
        for bit in 0..count {
            if self.free == 0 {
                self.bytes.push(0);
                self.free = 8;
            }
            if let Some(last) = self.bytes.last_mut().filter(|_| number >> bit & 1 == 1) {
                *last |= 1 << (8 - self.free);
            }
            self.free -= 1;
        }
    }

    /// A code, highest bit first.
    fn code(&mut self, code: u32, count: u32) {
        (0..count).rev().for_each(|bit| self.put(code >> bit & 1, 1));
    }
}

fn case(class: &'static str, name: &str, image: &[u8], says: &[&'static str]) -> Case {
    Case::new(class, name, image, says)
}

/// Members that are no disk, or another one than they seem.
fn members() -> Vec<Case> {
    let refused = |name: &str, tar: &[u8], says: &[&'static str]| case(ARCHIVE, name, &gzip(tar), says);
    let mut cases = Vec::new();
    for name in
        ["../disk.raw", "/disk.raw", "a/disk.raw", "DISK.RAW", "disk.raw ", "/etc/passwd", "disk.qcow2"]
    {
        cases.push(refused(&format!("the name {name:?}"), &tar(&[file(name, &disk())]), &["the tar format"]));
    }
    for (name, kind) in [("hard link", b'1'), ("symbolic link", b'2')] {
        let link = member(b"disk.raw", kind, &[], |header| put(header, 157, b"/etc/passwd"));
        cases.push(case(REFERENCES, &format!("tar {name}"), &gzip(&tar(&[link])), &["a link in an archive"]));
    }
    for (name, kind) in
        [("character device", b'3'), ("block device", b'4'), ("FIFO", b'6'), ("unknown", b'Z')]
    {
        let other = member(b"disk.raw", kind, &[], |_| ());
        cases.push(refused(name, &tar(&[other]), &["an archive member of the type"]));
    }
    cases.push(refused(
        "two disks of one name",
        &tar(&[file("disk.raw", &disk()), file("disk.raw", &[1; 512])]),
        &["several disks"],
    ));
    let many: Vec<Vec<u8>> = (0..2000).map(|i| file(&format!("file-{i}"), &[])).collect();
    cases.push(refused("2000 members", &tar(&many), &["number of tar headers"]));
    cases.push(refused("no end", &file("disk.raw", &disk()), &["end of the tar archive"]));
    let long = member(b"disk.raw", FILE, &[1; 512], |header| put(header, 124, &binary(1 << 62)));
    cases.push(refused("a size past the end", &tar(&[long]), &["past the end of the file"]));
    let wrong = {
        let mut tar = tar(&[file("disk.raw", &disk())]);
        tar[0] ^= 1;
        tar
    };
    cases.push(refused("a header with a wrong checksum", &wrong, &["checksum in tar header"]));
    let extended = member(b"x", b'x', &[], |header| put(header, 124, &binary(1 << 40)));
    cases.push(refused("an extended header of 1 TiB", &tar(&[extended]), &["past the end", "limit"]));
    let name = format!("{} path={}\n", 20_000 + 10 + 2, "n".repeat(20_000 + 10 + 2 - 12));
    let pax = member(b"x", b'x', name.as_bytes(), |_| ());
    cases.push(refused(
        "a name of 20,000 bytes",
        &tar(&[pax, file("disk.raw", &disk())]),
        &["length of a name", "a pax header of records"],
    ));
    let guest = file("disk.raw", &qcow2::over("/etc/passwd", Some("raw")));
    let content = qcow2::over("/etc/passwd", Some("raw"));
    // Raw by its name, whatever a guest wrote into it.
    cases.push(
        refused("a disk whose guest wrote a QCOW2 header", &tar(&[guest]), &[])
            .or_disk(&content, content.len().next_multiple_of(512) as u64),
    );
    cases
}

/// Sparse maps.
fn maps() -> Vec<Case> {
    let sparse =
        |name: &str, real_size: &[u8], entries: &[(u64, u64)], content: &[u8], says: &[&'static str]| {
            let member = member(b"disk.raw", SPARSE, content, |header| {
                for (i, (at, len)) in entries.iter().enumerate() {
                    put(header, 386 + 24 * i, &[binary(*at), binary(*len)].concat());
                }
                put(header, 483, real_size);
            });
            case(ARCHIVE, &format!("sparse, {name}"), &gzip(&tar(&[member])), says)
        };
    let map = ["sparse map", "sparse member"];
    let size = binary(LEN as u64);
    let half = [7; 512];
    let mut cases = vec![
        sparse("runs that overlap", &size, &[(0, 512), (256, 512)], &[7; 1024], &map),
        sparse("runs that descend", &size, &[(4096, 512), (0, 512)], &[7; 1024], &map),
        sparse("a run past the end", &size, &[(LEN as u64, 512)], &half, &map),
        sparse("a run that wraps", &size, &[(u64::MAX - 255, 512)], &half, &map),
        sparse("less than its runs", &size, &[(0, 1024)], &half, &map),
        sparse("more than its runs", &size, &[(0, 256)], &half, &map),
        sparse("2^62 bytes", &binary(1 << 62), &[(0, 512)], &half, &["limit"]),
        sparse("a run of 2^62 bytes", &binary(1 << 62), &[(0, 1 << 62)], &half, &map),
        sparse("1 TiB of nothing", &binary(1 << 40), &[(1 << 40, 0)], &[], &[]).or_disk(&[], 1 << 40),
    ];
    let endless = member(b"disk.raw", SPARSE, &[], |header| {
        put(header, 482, &[1]);
        put(header, 483, &size);
    });
    let mut block = vec![0; 512];
    put(&mut block, 504, &[1]);
    let blocks: Vec<Vec<u8>> = vec![block; 1000];
    cases.push(case(
        ARCHIVE,
        "sparse, blocks without entries",
        &gzip(&tar(&[endless, blocks.concat()])),
        &map,
    ));
    let record = |text: &str| format!("{} {text}\n", text.len() + 4);
    let records =
        ["GNU.sparse.major=1", "GNU.sparse.minor=0", "GNU.sparse.realsize=1048576"].map(record).concat();
    let pax = member(b"x", b'x', records.as_bytes(), |_| ());
    for (name, text) in [
        ("entries without end", format!("99999999999\n{}", "0\n0\n".repeat(20_000))),
        ("no number", "1\nzero\n512\n".to_owned()),
        ("a number of 2000 digits", "7".repeat(2000)),
        ("nothing", String::new()),
    ] {
        let mut content = text.into_bytes();
        content.resize(content.len().next_multiple_of(512), 0);
        let tar = tar(&[pax.clone(), file("disk.raw", &content)]);
        cases.push(case(ARCHIVE, &format!("sparse 1.0, {name}"), &gzip(&tar), &map));
    }
    cases
}

/// Streams that are cut, damaged, or not what they say.
fn streams() -> Vec<Case> {
    let good = gzip(&tar(&[file("disk.raw", &disk())]));
    let refused = |name: &str, image: &[u8], says: &[&'static str]| case(STREAM, name, image, says);
    let with = |at: usize, bytes: &[u8]| {
        let mut image = good.clone();
        put(&mut image, at, bytes);
        image
    };
    let end = good.len();
    let mut cases = vec![
        refused("cut in the trailer", &good[..end - 3], &["end of gzip member"]),
        refused("cut in the middle", &good[..end / 2], &["end of gzip member"]),
        refused("cut in the header", &good[..9], &["end of gzip member"]),
        refused("a wrong checksum", &with(end - 8, &[1, 2, 3, 4]), &["the checksum in gzip member 0"]),
        refused("a wrong length", &with(end - 4, &[1, 2, 3, 4]), &["length of gzip member 0"]),
        refused("a byte of the content", &with(end / 2, &[1, 2, 3]), &["gzip member 0"]),
        refused("reserved flags", &with(3, &[0xe0]), &["flags of gzip member"]),
        refused("another method", &with(2, &[7]), &["compression method of gzip member"]),
        refused("no stream", &with(10, &[7]), &["gzip member 0 is damaged"]),
        refused("text behind it", &[&good[..], b"more"].concat(), &["start of gzip member 1"]),
        refused("gzip in gzip", &gzip(&good), &["unpacked twice"]),
        refused("nothing in it", &gzip(&[]), &["the file is empty"]),
        refused("text in it", &gzip(b"Dear reader,\n"), &["in what the gzip file unpacks to"]),
        refused(
            "a disk, cut, with zeroes for the rest",
            &with(end - 100, &[0; 100]),
            &["gzip member 0", "end of"],
        ),
        refused("zeroes behind it", &[&good[..], &[0; 5000]].concat(), &[]).or_disk(&disk(), LEN as u64),
    ];
    // Bytes of the member before, or of nothing, as if they were its own.
    let mut far = Bits { bytes: Vec::new(), free: 0 };
    far.put(1, 1);
    far.put(1, 2);
    far.code(0x30 + 97, 8);
    far.code(1, 7);
    far.code(3, 5);
    far.code(0, 7);
    let far = around(&far.bytes, crc32fast::hash(b"aaaa"), 4);
    cases.push(refused("a reference before the start", &far, &["gzip member 0 is damaged"]));
    let behind = [&good[..], &far].concat();
    cases.push(refused("a reference into the member before", &behind, &["gzip member 1 is damaged"]));
    // References in what is compressed are those of what is in it.
    let over = gzip(&qcow2::over("/etc/passwd", Some("raw")));
    cases.push(case(REFERENCES, "backing file of a QCOW2 in gzip", &over, &["names the", "backing file"]));
    let both = {
        let mut disk = disk();
        put(&mut disk, 0, b"QFI\xfb");
        gzip(&disk)
    };
    cases.push(refused("two formats in it", &both, &["matches both"]));
    cases
}

/// Little that becomes much.
fn bombs() -> Vec<Case> {
    let disk = disk();
    let empty = gzip(&[]);
    let mut many: Vec<u8> = empty.repeat(100_000);
    many.extend(gzip(&tar(&[file("disk.raw", &disk)])));
    let nothing = zeroes(&[], 1 << 20, &[]);
    // The tar says what the zeroes are: 258 MiB of disk.
    let repeats = 1_048_576_u32;
    let count = 258 * u64::from(repeats) + 1;
    let stored = count.next_multiple_of(512);
    let head = member(b"disk.raw", FILE, &[], |header| put(header, 124, &octal(stored)));
    let rest = vec![0; usize::try_from(stored - count).unwrap_or_default() + 1024];
    vec![
        case(BOMB, "258 MiB of zeroes in gzip", &nothing, &["in what the gzip file unpacks to"]),
        case(BOMB, "258 MiB of zeroes in a tar.gz", &zeroes(&head, repeats, &rest), &[]).or_disk(&[], stored),
        case(BOMB, "100,000 empty gzip members", &many, &[]).or_disk(&disk, LEN as u64),
        case(
            BOMB,
            "100,000 empty gzip members, and no other",
            &empty.repeat(100_000),
            &["the file is empty"],
        ),
    ]
}
