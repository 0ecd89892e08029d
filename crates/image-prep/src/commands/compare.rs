//! `compare`: do two images hold the same disk?

use disk_convert::{Comparison, Disk, compare};
use schemars::JsonSchema;
use serde::Serialize;

use crate::args::{CompareArgs, ReferenceArgs};
use crate::context::Context;
use crate::error::Error;
use crate::exit::Exit;
use crate::open::{How, open_told};
use crate::pass::Counted;
use crate::recorded::Recorded;
use crate::remote::{Remote, is_object};
use crate::{transfer, url_policy};

/// Prints whether they do, and the first difference, if there is one and content was read.
pub(crate) async fn run(args: &CompareArgs, context: &Context) -> Result<Exit, Error> {
    let images = [args.first.as_str(), args.second.as_str()];
    let remote = Remote::connect(&images, &args.stored, Some(&args.store), args.allow_http, context).await?;
    let compared = run_with(args, &remote, context).await;
    remote.stop(context).await;
    compared
}

async fn run_with(args: &CompareArgs, remote: &Remote, context: &Context) -> Result<Exit, Error> {
    // What the one names lies beside it; what the other names is not looked for there, unless both are remote and that is an error.
    let both_remote = [&args.first, &args.second].into_iter().all(|image| url_policy::is_url(image));
    let none = ReferenceArgs { allow_references: None, ..args.references };
    let how = |image: &str, format, snapshot| How {
        member: None,
        format,
        snapshot,
        references: if url_policy::is_url(image) && !both_remote { &none } else { &args.references },
        allow_http: args.allow_http,
        remote: Some(remote),
    };
    let first = how(&args.first, args.format, args.snapshot.as_deref());
    let second = how(&args.second, args.second_format, args.second_snapshot.as_deref());
    let sides =
        [Side::open(&args.first, first, context).await?, Side::open(&args.second, second, context).await?];
    let found = match args.content || sides.iter().all(|side| side.recorded.digest().is_none()) {
        true => by_content(&sides, context).await?,
        false => by_digest(&sides, context).await?,
    };
    print(&found, &sides, context)?;
    Ok(if found.is_same() { Exit::Done } else { Exit::Failed })
}

/// One of the two.
struct Side<'a> {
    image: &'a str,
    disk: Disk,
    recorded: Recorded,
}

impl<'a> Side<'a> {
    async fn open(image: &'a str, how: How<'_>, context: &Context) -> Result<Self, Error> {
        let (disk, metadata) = open_told(context, image, how).await?;
        let recorded = match how.snapshot {
            None => Recorded::of(&metadata, &disk),
            // What is recorded is about the current state.
            Some(_) => Recorded::Nothing,
        };
        let side = Self { image, disk, recorded };
        if side.recorded == Recorded::Unfit {
            context.warn(&format!(
                "the guest digest recorded with `{}` does not fit it; it is read",
                side.name()
            ));
        }
        Ok(side)
    }

    /// What it may be called: a URL without its query.
    fn name(&self) -> &str {
        if is_object(self.image) { self.image } else { self.disk.source().name() }
    }

    fn size(&self) -> u64 {
        self.disk.image().virtual_size()
    }
}

/// What was found; sizes and offsets in bytes.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Compared {
    /// Whether the disks are the same.
    same: bool,
    /// What that was told by.
    by: By,
    /// Of A and of B.
    virtual_sizes: [u64; 2],
    /// Where they first differ, if they do and that was looked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    first_difference: Option<u64>,
    /// How much work that was, pass by pass.
    counters: Counted,
}

/// What two disks can be compared by.
#[derive(Debug, Clone, Copy, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum By {
    /// Both were read.
    Content,
    /// The guest digests recorded with objects.
    Digest,
    /// They are not of the same size.
    Size,
}

/// What was found, and how.
enum Found {
    Content(Comparison),
    Digest {
        same: bool,
    },
    /// One is longer: no digest could be the same.
    Sizes,
}

impl Found {
    fn is_same(&self) -> bool {
        matches!(self, Self::Content(Comparison::Same) | Self::Digest { same: true })
    }
}

async fn by_content([first, second]: &[Side<'_>; 2], context: &Context) -> Result<Found, Error> {
    let pass = context.pass("comparing");
    let found = compare(&first.disk, &second.disk, &pass.options, &context.cancel).await?;
    pass.end();
    Ok(Found::Content(found))
}

/// By digests, of which at least one is recorded. A disk without one is read.
async fn by_digest(sides: &[Side<'_>; 2], context: &Context) -> Result<Found, Error> {
    let [first, second] = sides;
    if first.size() != second.size() {
        return Ok(Found::Sizes);
    }
    let read = match sides.iter().find(|side| side.recorded.digest().is_none()) {
        Some(side) => Some(transfer::read(context, &side.disk).await?.guest_digest.to_string()),
        None => None,
    };
    let digest = |side: &'_ Side<'_>| side.recorded.digest().map(str::to_owned).or_else(|| read.clone());
    Ok(Found::Digest { same: digest(first) == digest(second) })
}

fn print(found: &Found, sides: &[Side<'_>; 2], context: &Context) -> Result<(), Error> {
    let sizes = sides.each_ref().map(Side::size);
    // Where one disk ends, the other goes on: that is where they differ if all before it is the same.
    let offset = match *found {
        Found::Content(Comparison::DiffersAt(offset)) => Some(offset.min(sizes[0].min(sizes[1]))),
        Found::Content(Comparison::SizesDiffer { first, second }) => Some(first.min(second)),
        Found::Content(Comparison::Same) | Found::Digest { .. } | Found::Sizes => None,
    };
    if context.output.is_json() {
        return context.output.json(&Compared {
            same: found.is_same(),
            by: match found {
                Found::Content(_) => By::Content,
                Found::Digest { .. } => By::Digest,
                Found::Sizes => By::Size,
            },
            virtual_sizes: sizes,
            first_difference: offset,
            counters: context.counters(),
        });
    }
    let mut text = if found.is_same() { "the disks are the same" } else { "the disks differ" }.to_owned();
    if let Some(offset) = offset {
        text += &format!(" at offset {offset} ({offset:#x})");
    }
    if matches!(found, Found::Content(Comparison::SizesDiffer { .. })) {
        text += ", where one ends; the rest of the other is zero";
    }
    if matches!(found, Found::Digest { .. }) {
        text += &match sides.each_ref().map(|side| side.recorded.digest().map(|_| side.name())) {
            [Some(name), None] | [None, Some(name)] => {
                format!(", by the guest digest recorded with `{name}`")
            }
            _ => ", by the guest digests recorded with them".to_owned(),
        };
    }
    if sizes[0] != sizes[1] {
        text += &format!("; their sizes are {} and {} bytes", sizes[0], sizes[1]);
    }
    if matches!(found, Found::Digest { same: false } | Found::Sizes) {
        text += "; --content finds where";
    }
    context.output.line(&text)
}
