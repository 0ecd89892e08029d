//! Options of `upload` and `create` about what is there already, and what is only shown.

use clap::{Args, ValueEnum};

/// Whether an upload is done at all, and whether it may be continued.
#[derive(Debug, Clone, Args)]
pub(crate) struct ResumeArgs {
    /// Show what would be made and sent, and send nothing
    ///
    /// The image is opened, checked and read as it would be. Neither store nor image service is asked anything. JSON: object, form,
    /// guestDigest, objectSize, partSize, parts, dataParts and dataSize (of the parts that are not zero throughout), zeroParts,
    /// zeroSize, and of `create` the request, with the object's name in the place of its URL. Sizes are in bytes.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Neither continue an upload that broke off, nor keep this one if it does
    #[arg(long)]
    pub(crate) no_resume: bool,
}

/// What becomes of what has the name already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum IfExists {
    /// Leave it, and fail
    Fail,
    /// Use it if it is the same
    Reuse,
    /// Put another in its place
    Replace,
}
