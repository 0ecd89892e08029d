//! Any bytes as an encoded unit.
#![no_main]

use disk_image::{Decoder, Encoded, Encoding, Span, Stored};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u8, u8, u16, &[u8])| {
    let (kind, size, missing, stored) = input;
    let len = 512 << (size % 9);
    let grain = Encoding::Grain { extent: Span::new(0, len) };
    let encoding = [Encoding::Deflate, Encoding::Zstd, grain, Encoding::Gzip][usize::from(kind % 4)];
    let wanted = len - u64::from(missing) % len;
    let unit =
        Encoded { stored: Stored::image(0, stored.len() as u64), encoding, guest: Span::new(0, len), wanted };
    let mut first = vec![0xaa; len as usize];
    let mut decoder = Decoder::default();
    let decoded = decoder.decode(&unit, stored, &mut first);
    // What went before must not matter.
    let mut second = vec![0xaa; len as usize];
    assert_eq!(decoded, decoder.decode(&unit, stored, &mut second));
    if decoded.is_ok() {
        assert!(first[..wanted as usize] == second[..wanted as usize]);
    }
});
