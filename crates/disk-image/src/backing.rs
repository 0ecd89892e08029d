//! Backing chains: a layer, and what lies beneath it.
//!
//! The layers are flattened while they are opened: the map of each is laid over the map of the one beneath it, and nothing after
//! that knows of layers. Cost: the runs of both maps.

#![warn(clippy::arithmetic_side_effects, clippy::indexing_slicing)]

use crate::limits::MAX_BACKING_DEPTH;
use crate::span::Window;
use crate::{Format, Image, Item, Layer, Open, OpenError, Reference, Referred, check_len, open_as, raw};

/// Asks for the file beneath `top`, opens it in the format that is declared, and lays `top` over it.
pub(crate) fn over_backing(
    top: Image,
    reference: Reference,
    layer: &Layer,
) -> Result<Open<Image>, OpenError> {
    over_checked(top, reference, layer, |_| Ok(()))
}

/// The same, where `top` tells by which mark the image beneath is known; `check` compares it.
pub(crate) fn over_checked(
    mut top: Image,
    reference: Reference,
    layer: &Layer,
    check: impl FnOnce(&Image) -> Result<(), OpenError> + Send + 'static,
) -> Result<Open<Image>, OpenError> {
    let below =
        Layer { depth: layer.depth.saturating_add(1), snapshot: None, backing_format: layer.backing_format };
    if below.depth > MAX_BACKING_DEPTH {
        return Err(OpenError::Limit {
            what: Item::The("depth of the backing chain"),
            found: below.depth.into(),
            limit: MAX_BACKING_DEPTH.into(),
        });
    }
    let format = reference.format;
    top.references.push(reference.clone());
    Ok(Open::refer_one(reference, move |referred| match referred {
        Referred::Skipped => {
            top.partial = true;
            Ok(Open::Ready(top))
        }
        Referred::File { file, len, allocation } => {
            let window = Window::file(file, len);
            let opened = match format {
                Format::Raw => raw::open_window(window, allocation.as_deref()).map(Open::Ready),
                format => check_len(window).and_then(|()| open_as(format, window, &below)),
            };
            let below = opened.map_err(|error| error.in_file(file))?.in_file(file);
            below.and_then(move |below| {
                check(&below).map_err(|error| error.in_file(file))?;
                top.over(below).map(Open::Ready)
            })
        }
    }))
}
