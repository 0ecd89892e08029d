//! `compare`: do two images hold the same disk?

use disk_convert::{Comparison, compare};
use serde_json::json;

use crate::args::CompareArgs;
use crate::context::Context;
use crate::error::Error;
use crate::exit::Exit;
use crate::open::{How, open};
use crate::stored::StoredImages;

/// Prints the first difference, if there is one.
pub(crate) async fn run(args: &CompareArgs, context: &Context) -> Result<Exit, Error> {
    let images = [args.first.as_str(), args.second.as_str()];
    let stored = StoredImages::connect(&images, &args.stored, args.allow_http, context).await?;
    let compared = with(args, stored.as_ref(), context).await;
    if let Some(stored) = stored {
        stored.stop(context).await;
    }
    compared
}

async fn with(args: &CompareArgs, stored: Option<&StoredImages>, context: &Context) -> Result<Exit, Error> {
    let how = |format, snapshot| How {
        member: None,
        format,
        snapshot,
        references: &args.references,
        allow_http: args.allow_http,
        stored,
    };
    let first = open(context, &args.first, how(args.format, args.snapshot.as_deref())).await?;
    let second =
        open(context, &args.second, how(args.second_format, args.second_snapshot.as_deref())).await?;
    let pass = context.pass("comparing");
    let found = compare(&first, &second, &pass.options, &context.cancel).await?;
    pass.end();

    let sizes = (first.image().virtual_size(), second.image().virtual_size());
    // Where one disk ends, the other goes on: that is where they differ if all before it is the same.
    let offset = match found {
        Comparison::Same => None,
        Comparison::DiffersAt(offset) => Some(offset.min(sizes.0.min(sizes.1))),
        Comparison::SizesDiffer { first, second } => Some(first.min(second)),
    };
    let rest_is_zero = matches!(found, Comparison::SizesDiffer { .. });
    if context.output.is_json() {
        let mut result = json!({
            "same": offset.is_none(),
            "virtualSizes": [sizes.0, sizes.1],
            "counters": context.counters(),
        });
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
            Some(offset) => {
                let rest = if rest_is_zero { ", where one ends; the rest of the other is zero" } else { "" };
                format!(
                    "the disks differ at offset {offset} ({offset:#x}){rest}; their sizes are {} and {} bytes",
                    sizes.0, sizes.1
                )
            }
        })?;
    }
    Ok(if offset.is_none() { Exit::Done } else { Exit::Failed })
}
