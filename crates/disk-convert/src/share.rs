//! What an output need not be given, because it can share what the source stores.

use disk_image::{Origin, Piece, Plan, Span, Stored};

use crate::{Counters, PutNow, Sources};

/// File systems share blocks; these are the smallest that those which can have.
const BLOCK: u64 = 4096;

/// Shorter runs are copied: a call and an extent for each would cost more than their bytes, bytes.
const LEAST: u64 = 64 << 10;

/// Takes from the plan what `sink` shares with the files of the image; the rest is to be made and put.
pub(crate) fn share(plan: &mut Plan, sources: &Sources, sink: &dyn PutNow, counters: &Counters) {
    let start = plan.object.start;
    let rest = |piece: Piece| {
        let taken = match &piece.origin {
            Origin::Stored(stored) => {
                let offset = start + piece.at;
                let len = stored.span.len / BLOCK * BLOCK;
                let file = sources.file(stored.file).blocking().and_then(|source| source.shareable());
                let is_aligned = offset.is_multiple_of(BLOCK) && stored.span.start.is_multiple_of(BLOCK);
                match file {
                    Some(file) if is_aligned && len >= LEAST => {
                        sink.share(file, Span::new(stored.span.start, len), offset).min(len)
                    }
                    _ => 0,
                }
            }
            Origin::Literal(_) | Origin::Encoded(..) => 0,
        };
        counters.shared(taken);
        without(piece, taken)
    };
    plan.pieces = std::mem::take(&mut plan.pieces).into_iter().filter_map(rest).collect();
}

/// What is left of a piece without its first bytes.
fn without(piece: Piece, taken: u64) -> Option<Piece> {
    match piece.origin {
        Origin::Stored(Stored { file, span }) if taken > 0 => {
            let span = Span::between(span.start + taken, span.end());
            let rest =
                Piece { at: piece.at + taken, len: span.len, origin: Origin::Stored(Stored { file, span }) };
            (rest.len > 0).then_some(rest)
        }
        _ => Some(piece),
    }
}
