//! `compare`: do two images hold the same disk?

use disk_convert::{Comparison, compare};
use disk_image::Format;
use serde_json::json;

use crate::args::CompareArgs;
use crate::context::Context;
use crate::error::Error;
use crate::exit::Exit;
use crate::open::open_as;

/// Prints the first difference, if there is one.
pub(crate) async fn run(args: &CompareArgs, context: &Context) -> Result<Exit, Error> {
    let first = open_as(context, &args.first, args.format.map(Format::from), args.allow_http).await?;
    let second =
        open_as(context, &args.second, args.second_format.map(Format::from), args.allow_http).await?;
    let options = context.options();
    let shown = context.progress.bytes("comparing", options.counters.clone());
    let found = compare(&first, &second, &options, &context.cancel).await?;
    drop(shown);

    let sizes = (first.image().virtual_size(), second.image().virtual_size());
    // Where one disk ends, the other goes on: that is where they differ if all before it is the same.
    let offset = match found {
        Comparison::Same => None,
        Comparison::DiffersAt(offset) => Some(offset.min(sizes.0.min(sizes.1))),
        Comparison::SizesDiffer { first, second } => Some(first.min(second)),
    };
    if context.output.is_json() {
        let mut result = json!({ "same": offset.is_none(), "virtualSizes": [sizes.0, sizes.1] });
        if let Some(offset) = offset {
            result["firstDifference"] = offset.into();
        }
        context.output.json(&result)?;
    } else {
        context.output.line(&match offset {
            None => "the disks are the same".to_owned(),
            Some(offset) if sizes.0 == sizes.1 => {
                format!("the disks differ at offset {offset} ({offset:#x})")
            }
            Some(offset) => format!(
                "the disks differ at offset {offset} ({offset:#x}); their sizes are {} and {} bytes",
                sizes.0, sizes.1
            ),
        })?;
    }
    Ok(if offset.is_none() { Exit::Done } else { Exit::Failed })
}
