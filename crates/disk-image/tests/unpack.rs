//! Files that are compressed as a whole: what gzip and Python write, members that are put together bit by bit, and every kind of damage.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "a test fails by panicking")]

#[path = "support/qemu.rs"]
mod qemu;

use std::io::Write;
use std::process::{Command, Stdio};

use disk_image::limits::{CHECKPOINT_SPACING, MAX_CHECKPOINT_MEMORY, MAX_PADDING};
use disk_image::unpack::{Checkpoints, Scan};
use disk_image::{Codec, Compression, Encoder, OpenError, OpenOptions, Span, open_unpacked};
use qemu::Dice;

const MIB: usize = 1 << 20;

fn scan(file: &[u8], piece: usize, max_len: u64) -> Result<Checkpoints, OpenError> {
    let compression = if file[0] == 0x1f { Compression::Gzip } else { Compression::Zstandard };
    let mut scan = Scan::new(compression, file.len() as u64, max_len);
    for bytes in file.chunks(piece) {
        scan.push(bytes)?;
    }
    scan.finish()
}

#[track_caller]
fn refused(file: &[u8]) -> String {
    // However the file arrives, the answer is the same.
    let whole = scan(file, usize::MAX, u64::MAX).unwrap_err();
    assert_eq!(scan(file, 1, u64::MAX).unwrap_err(), whole);
    whole.to_string()
}

/// A run of the content, from pieces of the file.
fn read(file: &[u8], checkpoints: &Checkpoints, span: Span, piece: u64) -> Vec<u8> {
    let mut out = vec![0; span.len as usize];
    let mut cursor = checkpoints.seek(span.start);
    assert!(cursor.content() <= span.start);
    let (end, mut filled) = (checkpoints.file_end(span.end()), 0);
    while filled < out.len() {
        let at = cursor.file();
        assert!(at < end, "all that is needed lies before {end}");
        let bytes = &file[at as usize..end.min(at + piece) as usize];
        filled += cursor.read(bytes, span.start + filled as u64, &mut out[filled..]).unwrap();
    }
    out
}

/// Every run of some lengths, at places that fall on no boundary and on each checkpoint.
#[track_caller]
fn random_access(file: &[u8], content: &[u8]) -> Checkpoints {
    let checkpoints = scan(file, 10_007, u64::MAX).unwrap();
    assert_eq!(checkpoints.content_len(), content.len() as u64);
    let mut dice = Dice(11);
    for _ in 0..40 {
        let start = dice.roll(content.len() as u64);
        let len = (1 + dice.roll(300_000)).min(content.len() as u64 - start);
        let expected = &content[start as usize..(start + len) as usize];
        for piece in [777, 1 << 20] {
            assert!(read(file, &checkpoints, Span::new(start, len), piece) == expected, "{start} {len}");
        }
    }
    assert!(read(file, &checkpoints, Span::new(0, content.len() as u64), 1 << 16) == content);
    let held: u64 = checkpoints.filled().iter().map(|run| run.len).sum();
    let mut zeroed = vec![0; content.len()];
    for run in checkpoints.filled() {
        let run = run.start as usize..run.end() as usize;
        zeroed[run.clone()].copy_from_slice(&content[run]);
    }
    assert!(zeroed == content, "what is not filled is zero; {held} bytes are");
    checkpoints
}

/// The output of a program that is given `input`; `None`, said aloud, where there is none; under `CI` that is a failure.
fn piped(program: &str, args: &[&str], input: &[u8]) -> Option<Vec<u8>> {
    let child = Command::new(program).args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let mut child = match child {
        Ok(child) => child,
        Err(error) => {
            assert!(std::env::var_os("CI").is_none(), "{program} is needed under CI: {error}");
            eprintln!("SKIPPED: {program} cannot run: {error}");
            return None;
        }
    };
    let (mut stdin, input) = (child.stdin.take().unwrap(), input.to_vec());
    let writing = std::thread::spawn(move || stdin.write_all(&input).unwrap());
    let output = child.wait_with_output().unwrap();
    writing.join().unwrap();
    assert!(output.status.success(), "{program} {args:?}: {output:?}");
    Some(output.stdout)
}

fn member(content: &[u8]) -> Vec<u8> {
    let mut out = vec![0; content.len() + 1000];
    let len = Encoder::new(Codec::Gzip).encode(content, &mut out).unwrap();
    out.truncate(len);
    out
}

#[test]
fn what_gzip_and_python_write() {
    let content = Dice(5).disk(12 * MIB + 77);
    for level in ["-1", "-6", "-9"] {
        let Some(file) = piped("gzip", &["-c", "-n", level], &content) else { return };
        let checkpoints = random_access(&file, &content);
        let most = content.len() as u64 / CHECKPOINT_SPACING + 1;
        assert!((most / 2..=most).contains(&(checkpoints.count() as u64)), "{}", checkpoints.count());
        assert_eq!(checkpoints.spacing(), CHECKPOINT_SPACING);
    }
    // Flushed in several ways, with every field that a header may have, in two members.
    let python = "
import sys, zlib, struct
data = sys.stdin.buffer.read()
out = b''
for part in (data[:3000000], data[3000000:]):
    head = b'\\x1f\\x8b\\x08\\x1e' + struct.pack('<IBB', 7, 0, 3) + struct.pack('<H', 5) + b'extra' + b'name\\0' + b'comment\\0'
    out += head + struct.pack('<H', zlib.crc32(head) & 0xffff)
    c = zlib.compressobj(6, zlib.DEFLATED, -15, 9, zlib.Z_FIXED)
    for i, at in enumerate(range(0, len(part), 123457)):
        out += c.compress(part[at:at + 123457])
        if i % 3 < 2:
            out += c.flush((zlib.Z_SYNC_FLUSH, zlib.Z_FULL_FLUSH)[i % 3])
    out += c.flush()
    out += struct.pack('<II', zlib.crc32(part), len(part) & 0xffffffff)
sys.stdout.buffer.write(out)
";
    let Some(file) = piped("python3", &["-c", python], &content) else { return };
    random_access(&file, &content);
    assert!(
        refused(&[&file[..30], &[9], &file[31..]].concat()).contains("checksum in header of gzip member 0")
    );
}

#[test]
fn members_behind_each_other() {
    let content = Dice(6).disk(5 * MIB);
    let mut file = Vec::new();
    // Empty ones among them.
    for (number, part) in content.chunks(5_001).enumerate() {
        file.extend(member(part));
        if number % 3 == 0 {
            file.extend(member(&[]));
        }
    }
    let checkpoints = random_access(&file, &content);
    assert_eq!(checkpoints.count(), 5);
    assert!(checkpoints.memory() < 10_000, "a member begins with no window: {}", checkpoints.memory());
    // Filled up with zeroes, as tapes are.
    file.resize(file.len() + MAX_PADDING as usize, 0);
    random_access(&file, &content);
    file.push(0);
    assert_eq!(refused(&file), "the length of the zeroes at the end is 1048577, the limit is 1048576");
}

#[test]
fn zeroes_are_known() {
    let mut content = vec![0; 64 * MIB];
    content[MIB..MIB + 5].fill(7);
    content[63 * MIB..63 * MIB + 100_000].fill(8);
    let file = member(&content);
    let checkpoints = random_access(&file, &content);
    let filled: Vec<u64> = checkpoints.filled().iter().map(|run| run.len).collect();
    assert_eq!(filled, [65_536, 131_072]);
}

/// What does not compress, so that windows take what they are long: every other checkpoint goes, and memory stays.
#[test]
fn memory_is_bounded() {
    // Stored blocks in one member, whose checksum is made as it grows.
    let mut dice = Dice(8);
    let noise: Vec<u8> = (0..60_000).map(|_| dice.roll(256) as u8).collect();
    let count = 20_000_usize;
    let mut sum = libdeflater::Crc::new();
    let mut scan = Scan::new(Compression::Gzip, u64::MAX, u64::MAX);
    scan.push(&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255]).unwrap();
    for i in 0..count {
        let len = noise.len() as u16;
        let is_last = u8::from(i + 1 == count);
        scan.push(&[[is_last].as_slice(), &len.to_le_bytes(), &(!len).to_le_bytes()].concat()).unwrap();
        scan.push(&noise).unwrap();
        sum.update(&noise);
    }
    scan.push(&sum.sum().to_le_bytes()).unwrap();
    scan.push(&((count * 60_000) as u32).to_le_bytes()).unwrap();
    let checkpoints = scan.finish().unwrap();
    assert!(checkpoints.memory() <= MAX_CHECKPOINT_MEMORY, "{}", checkpoints.memory());
    assert_eq!(checkpoints.spacing(), 2 * CHECKPOINT_SPACING);
    assert!(checkpoints.count() > 400, "{}", checkpoints.count());
}

/// A deflate stream, bit by bit.
#[derive(Default)]
struct Bits(Vec<u8>, u32);

impl Bits {
    /// The low bits of a number, lowest first.
    fn put(mut self, number: u32, count: u32) -> Self {
        for bit in 0..count {
            if self.1.is_multiple_of(8) {
                self.0.push(0);
            }
            *self.0.last_mut().unwrap() |= ((number >> bit & 1) as u8) << (self.1 % 8);
            self.1 += 1;
        }
        self
    }

    /// A code, highest bit first.
    fn code(self, code: u32, count: u32) -> Self {
        (0..count).rev().fold(self, |bits, bit| bits.put(code >> bit & 1, 1))
    }
}

fn around(stream: &[u8], content: &[u8]) -> Vec<u8> {
    let mut file = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
    file.extend(stream);
    file.extend(libdeflater::crc32(content).to_le_bytes());
    file.extend((content.len() as u32).to_le_bytes());
    file
}

/// A fixed block with the literal `a`, and then three bytes from `distance` (1 to 4) back.
fn copies(distance: u32) -> Vec<u8> {
    Bits::default().put(1, 1).put(1, 2).code(0x30 + 97, 8).code(1, 7).code(distance - 1, 5).code(0, 7).0
}

#[test]
fn nothing_before_a_member_is_part_of_it() {
    let good = around(&copies(1), b"aaaa");
    assert_eq!(scan(&good, 1, 4).unwrap().content_len(), 4);
    // The member before it has the bytes, and is not its.
    for distance in [2, 3, 4] {
        for before in [member(b"aaaaaaaaaaaaaaaa"), Vec::new()] {
            let file = [before.clone(), around(&copies(distance), b"aaaa")].concat();
            let number = usize::from(!before.is_empty());
            let error = refused(&file);
            assert!(
                error.starts_with(&format!("gzip member {number} is damaged behind the first 1 bytes")),
                "{error}"
            );
        }
    }
}

#[test]
fn whatever_is_damaged() {
    let content = Dice(9).disk(200_000);
    let (first, second) = (member(&content[..90_000]), member(&content[90_000..]));
    let file = [&first[..], &second].concat();
    assert_eq!(scan(&file, 1000, u64::MAX).unwrap().content_len(), 200_000);
    for len in (1..file.len()).step_by(97).filter(|len| *len != first.len()) {
        let number = usize::from(len > first.len());
        let start = if number == 0 { 0 } else { first.len() };
        let expected = format!("end of gzip member {number} was not found between {start:#x} and {len:#x}");
        assert_eq!(scan(&file[..len], 999, u64::MAX).unwrap_err().to_string(), expected);
    }
    // A bit anywhere but in the fields that may say nothing of the content: flags, time, hints, system.
    let (mut dice, mut harmless) = (Dice(10), 0);
    for _ in 0..500 {
        let mut flipped = file.clone();
        let at = dice.roll(file.len() as u64) as usize;
        let in_head = |start: usize| (start + 3..start + 10).contains(&at);
        flipped[at] ^= 1 << dice.roll(8);
        if !in_head(0) && !in_head(first.len()) {
            // Some bits are of codes that no byte of the content has.
            if let Ok(checkpoints) = scan(&flipped, 5000, u64::MAX) {
                assert!(read(&flipped, &checkpoints, Span::new(0, 200_000), 5000) == content, "at {at}");
                harmless += 1;
            }
        }
    }
    assert!(harmless < 5, "{harmless}");
    let with = |at: usize, bytes: &[u8]| {
        let mut file = file.clone();
        file[at..at + bytes.len()].copy_from_slice(bytes);
        refused(&file)
    };
    let end = first.len();
    assert!(with(end - 8, &[1, 2, 3, 4]).starts_with("the checksum in gzip member 0 is 0x04030201"));
    assert_eq!(with(end - 4, &[7, 0, 0, 0]), "length of gzip member 0 is 0x7, expected that of its content");
    assert_eq!(with(2, &[7]), "compression method of gzip member 0 is 0x7, expected 8, which is deflate");
    assert_eq!(with(3, &[0x20]), "flags of gzip member 0 is 0x20, expected none that RFC 1952 reserves");
    let text = [&file[..], b"and text"].concat();
    assert_eq!(
        refused(&text),
        "start of gzip member 2 is 0x61, expected 1f 8b, or zeroes up to the end of the file"
    );
    let late = [&file[..], &[0; 100], b"text"].concat();
    assert!(refused(&late).starts_with("start of gzip member 2 is 0x74"));
    let error = scan(&file, 1000, 199_999).unwrap_err().to_string();
    assert!(
        error.starts_with("the length of what the file unpacks to is ") && error.ends_with("199999"),
        "{error}"
    );
    assert!(scan(&file, 1000, 200_000).is_ok());
}

fn frame(content: &[u8]) -> Vec<u8> {
    zstd::bulk::compress(content, 3).unwrap()
}

#[test]
fn frames_behind_each_other() {
    let content = Dice(12).disk(6 * MIB + 5);
    let mut file = Vec::new();
    for (number, part) in content.chunks(300_001).enumerate() {
        // Skippable frames, as pzstd has them, and empty ones.
        file.extend([0x50 + (number % 16) as u8, 0x2a, 0x4d, 0x18, 4, 0, 0, 0, 1, 2, 3, 4]);
        file.extend(frame(part));
        file.extend(frame(&[]));
    }
    let checkpoints = random_access(&file, &content);
    assert!((5..=6).contains(&checkpoints.count()), "{}", checkpoints.count());
    let file = &file[12..];
    random_access(file, &content);
    let said = |file: &[u8]| scan(file, 4096, u64::MAX).unwrap_err().to_string();
    for len in [file.len() - 1, file.len() / 2, 7] {
        let error = said(&file[..len]);
        assert!(error.starts_with("end of Zstandard frame "), "{error}");
    }
    assert!(said(&[file, b"and text"].concat()).starts_with("Zstandard frame "));
}

#[test]
fn frames_that_are_refused() {
    let zeroes = frame(&vec![0; 65 * MIB]);
    let error = scan(&zeroes, usize::MAX, u64::MAX).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the image needs a Zstandard frame of more than 64 MiB read at random, which is not supported"
    );
    assert!(error.hint().unwrap().contains("zstd -d"));
    // Frames that are short, and many: more than 4 GiB, and a thousand times the file.
    let many = frame(&vec![0; 60 * MIB]).repeat(70);
    let error = scan(&many, usize::MAX, u64::MAX).unwrap_err().to_string();
    assert_eq!(error, "the length of what the file unpacks to is 4294967297, the limit is 4294967296");
    let mut wide = zstd::Encoder::new(Vec::new(), 1).unwrap();
    wide.window_log(24).unwrap();
    wide.write_all(&Dice(13).disk(17 * MIB)).unwrap();
    let error = scan(&wide.finish().unwrap(), usize::MAX, u64::MAX).unwrap_err().to_string();
    assert!(error.contains("a Zstandard window of more than 8 MiB"), "{error}");
}

#[test]
fn what_is_in_it_is_found_by_content() {
    let open = |head: &[u8], options: &OpenOptions| {
        let len = 1 << 20;
        let mut step = open_unpacked(Compression::Gzip, len, options)?;
        loop {
            step = match step {
                disk_image::Open::Ready(image) => return Ok(image),
                disk_image::Open::Need(need) => {
                    let answers = need.wants().iter().map(|want| {
                        let at = |offset: u64| head.get(offset as usize).copied().unwrap_or(0);
                        (want.span.start..want.span.end()).map(at).collect::<Vec<u8>>().into()
                    });
                    let answers = answers.collect();
                    need.resume(answers)?
                }
                disk_image::Open::Refer(_) => unreachable!("nothing is named"),
            };
        }
    };
    let any = OpenOptions::default();
    let mut disk = vec![0; 512];
    disk[510..].copy_from_slice(b"\x55\xaa");
    assert_eq!(open(&disk, &any).unwrap().virtual_size(), 1 << 20);
    let said = |head: &[u8], options: &OpenOptions| {
        let error: OpenError = open(head, options).map(|_| ()).unwrap_err();
        format!("{error}; {}", error.hint().unwrap_or_default())
    };
    assert_eq!(
        said(b"text", &any),
        "no known disk image format: found no signature of one, in what the gzip file unpacks to; unpack it first, and name the \
         format with --format"
    );
    disk[..4].copy_from_slice(b"QFI\xfb");
    assert!(said(&disk, &any).starts_with("the content matches both qcow2 and raw, in what the gzip"));
    assert!(said(&member(b"x"), &any).contains("its file unpacked twice"));
    let member = OpenOptions { member: Some("a".to_owned()), ..any };
    assert!(said(&[0; 512], &member).contains("no archive"));
}
