//! Any bytes as a gzip file, and as a deflate stream in one: read through in any pieces it is the same, and read at random too. The
//! checksum that would stop every input is put right.
#![no_main]

use disk_image::unpack::{Checkpoints, Scan};
use disk_image::{Compression, OpenError, Span};
use libfuzzer_sys::fuzz_target;

/// More content takes longer than an input may.
const MAX_CONTENT: u64 = 512 << 10;

fuzz_target!(|input: (u8, u8, &[u8])| {
    let (kind, at, bytes) = input;
    let mut file = match kind & 1 {
        0 => bytes.to_vec(),
        _ => [&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255], bytes, &[0; 8]].concat(),
    };
    let spacing = [1000, 4096, 1 << 14, 1 << 16][usize::from(kind >> 1) % 4];
    for _ in 0..2 {
        mend(&mut file);
    }
    let piece = 1 + usize::from(kind >> 3) * 37;
    let whole = scan(&file, usize::MAX, spacing).map_err(|(error, _)| error);
    let pieces = scan(&file, piece, spacing).map_err(|(error, _)| error);
    let checkpoints = match (whole, pieces) {
        (Ok(whole), Ok(pieces)) => {
            assert_eq!(whole.content_len(), pieces.content_len());
            assert_eq!(whole.filled(), pieces.filled());
            pieces
        }
        (Err(whole), Err(pieces)) => return assert_eq!(whole, pieces),
        (whole, pieces) => panic!("{:?} {:?}", whole.map(|_| ()), pieces.map(|_| ())),
    };
    let len = checkpoints.content_len();
    let content = read(&file, &checkpoints, Span::new(0, len), usize::MAX);
    let mut from = 0;
    for run in checkpoints.filled() {
        assert!(run.start >= from && run.end() <= len);
        assert!(content[from as usize..run.start as usize].iter().all(|byte| *byte == 0));
        from = run.end();
    }
    assert!(content[from as usize..].iter().all(|byte| *byte == 0));
    for step in 1..4 {
        let start = len * u64::from(at) * step / 1024;
        let run = Span::between(start, len.min(start + 5000));
        assert!(read(&file, &checkpoints, run, piece) == content[start as usize..run.end() as usize]);
    }
});

/// What is found, or why not and how much content there was.
fn scan(file: &[u8], piece: usize, spacing: u64) -> Result<Checkpoints, (OpenError, u64)> {
    let mut scan = Scan::new(Compression::Gzip, file.len() as u64, MAX_CONTENT).spaced(spacing);
    for bytes in file.chunks(piece) {
        scan.push(bytes).map_err(|error| (error, scan.content()))?;
    }
    let content = scan.content();
    scan.finish().map_err(|error| (error, content))
}

/// Puts into the end of the file what the end of its only member should say.
fn mend(file: &mut [u8]) {
    let result = scan(file, usize::MAX, 1 << 20).map(|_| ());
    let Some(trailer) = file.last_chunk_mut::<8>() else { return };
    match result {
        Err((OpenError::Checksum { expected, .. }, _)) => {
            trailer[..4].copy_from_slice(&expected.to_le_bytes())
        }
        Err((OpenError::Field { .. }, content)) => {
            trailer[4..].copy_from_slice(&(content as u32).to_le_bytes())
        }
        _ => {}
    }
}

fn read(file: &[u8], checkpoints: &Checkpoints, run: Span, piece: usize) -> Vec<u8> {
    let mut out = vec![0; run.len as usize];
    let mut cursor = checkpoints.seek(run.start);
    let (end, mut filled) = (checkpoints.file_end(run.end()) as usize, 0);
    while filled < out.len() {
        let at = cursor.file() as usize;
        assert!(at < end, "all that is needed lies before {end}");
        let bytes = &file[at..end.min(at.saturating_add(piece))];
        filled += cursor.read(bytes, run.start + filled as u64, &mut out[filled..]).unwrap();
    }
    out
}
