//! Encoders of units: guest bytes in, a frame out that a [`Decoder`](crate::Decoder) makes the same bytes of.
//!
//! The same bytes give the same frame, on every thread and every machine that runs this version of the codec. An [`Encoder`] keeps its
//! codec's contexts; make one for each worker.
//!
//! Sources: RFC 1950, RFC 1951, RFC 1952, RFC 8878; which of their streams a format takes, its layout says. Cost of each level: at its constant.

use zstd::zstd_safe::{CCtx, CParameter};

/// The level of libdeflate. Streams of real clusters of 64 KiB come out 8 % shorter than QEMU's (zlib level 6, 4 KiB window), and take
/// a quarter of the time; level 1 is a third faster and 3 % shorter than QEMU's, with less in reserve for other data.
const DEFLATE_LEVEL: i32 = 3;

/// The level of libdeflate for gzip: the one at which its peers, gzip and pigz, work where nothing is said.
const GZIP_LEVEL: i32 = 6;

/// The level of Zstandard: QEMU's, so frames are as long as QEMU's. Level 2 is a sixth faster and 2 % longer. From level 5 on a context
/// that is used again makes other frames than a new one: its hash tables are salted.
const ZSTD_LEVEL: i32 = 3;

/// How the units of an output are encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Codec {
    /// One raw deflate stream a unit.
    Deflate,
    /// One zlib stream a unit.
    Zlib,
    /// One gzip member a unit.
    Gzip,
    /// One Zstandard frame a unit, which says how long its content is.
    Zstd,
}

/// A codec's contexts, used again and again.
pub struct Encoder {
    codec: Codec,
    state: State,
}

enum State {
    /// Of all kinds of stream.
    Deflate(libdeflater::Compressor),
    Zstd(CCtx<'static>),
}

impl Encoder {
    /// An encoder.
    pub fn new(codec: Codec) -> Self {
        let state = match codec {
            Codec::Deflate | Codec::Zlib | Codec::Gzip => {
                let level = if codec == Codec::Gzip { GZIP_LEVEL } else { DEFLATE_LEVEL };
                // Levels of libdeflate go from 0 to 12.
                let level = libdeflater::CompressionLvl::new(level).unwrap_or_default();
                State::Deflate(libdeflater::Compressor::new(level))
            }
            Codec::Zstd => {
                let mut context = CCtx::create();
                // Refused are only levels that there are not, and then the default holds.
                let _ = context.set_parameter(CParameter::CompressionLevel(ZSTD_LEVEL));
                State::Zstd(context)
            }
        };
        Self { codec, state }
    }

    /// What it encodes to.
    pub fn codec(&self) -> Codec {
        self.codec
    }

    /// Encodes a unit into the first bytes of `out`, and tells how many they are; `None` if there is no room for the whole frame.
    pub fn encode(&mut self, unit: &[u8], out: &mut [u8]) -> Option<usize> {
        match &mut self.state {
            State::Deflate(context) => match self.codec {
                Codec::Zlib => context.zlib_compress(unit, out).ok(),
                Codec::Gzip => context.gzip_compress(unit, out).ok(),
                Codec::Deflate | Codec::Zstd => context.deflate_compress(unit, out).ok(),
            },
            State::Zstd(context) => context.compress2(out, unit).ok(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Decoder, Encoded, Encoding, Span, Stored};

    const LEN: usize = 64 << 10;

    fn unit(encoding: Encoding) -> Encoded {
        let (stored, guest) = (Stored::image(0, 0), Span::new(0, LEN as u64));
        Encoded { stored, encoding, guest, wanted: LEN as u64 }
    }

    fn text() -> Vec<u8> {
        (0..LEN as u32).flat_map(|i| format!("line {} ", i * i).into_bytes()).take(LEN).collect()
    }

    fn noise() -> Vec<u8> {
        (0..LEN as u64).map(|i| (i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 37) as u8).collect()
    }

    #[test]
    fn what_is_encoded_decodes() {
        let grain = Encoding::Grain { extent: Span::new(0, LEN as u64) };
        for (codec, encoding) in [
            (Codec::Deflate, Encoding::Deflate),
            (Codec::Zlib, grain),
            (Codec::Gzip, Encoding::Gzip),
            (Codec::Zstd, Encoding::Zstd),
        ] {
            let mut encoder = Encoder::new(codec);
            assert_eq!(encoder.codec(), codec);
            let mut out = vec![0; LEN - 1];
            // Contexts are used again, after a failure too: the second frame is the first one.
            let mut frames = Vec::new();
            for content in [&text(), &vec![7; LEN], &noise(), &text()] {
                let Some(len) = encoder.encode(content, &mut out) else { continue };
                let mut stored = out[..len].to_vec();
                if codec == Codec::Zlib {
                    let marker = [&[0; 8], &(len as u32).to_le_bytes()[..]].concat();
                    stored.splice(..0, marker);
                }
                let mut back = vec![1; LEN];
                Decoder::default().decode(&unit(encoding), &stored, &mut back).unwrap();
                assert!(back == *content, "{codec:?}");
                frames.push(out[..len].to_vec());
            }
            assert!(frames.len() >= 3 && frames.first() == frames.last(), "{codec:?}");
            let shortest = frames[1].len();
            assert_eq!(encoder.encode(&vec![7; LEN], &mut out[..shortest - 1]), None, "{codec:?}");
        }
    }

    /// What a layout of streams counts on: every unit fits a little more than itself.
    #[test]
    fn what_does_not_shrink_hardly_grows() {
        let mut random = crate::testing::Dice(7);
        let random: Vec<u8> = (0..LEN).map(|_| random.roll(256) as u8).collect();
        // Compressible and not by turns is what makes the most blocks.
        let turns: Vec<u8> = random
            .chunks(5000)
            .enumerate()
            .flat_map(|(i, chunk)| if i % 2 == 0 { chunk.to_vec() } else { vec![0; chunk.len()] })
            .collect();
        for content in [&random, &turns, &noise(), &text()] {
            for (codec, around) in [(Codec::Zlib, 6), (Codec::Gzip, 18)] {
                let len = Encoder::new(codec).encode(content, &mut vec![0; 2 * LEN]).unwrap();
                assert!(len <= LEN + 5 * LEN.div_ceil(5000) + around, "{len}");
            }
        }
        let mut out = vec![0; LEN + 100];
        assert!(Encoder::new(Codec::Zlib).encode(&random, &mut out).unwrap() > LEN);
    }
}
