//! What every command is given.

use std::borrow::Cow;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use disk_convert::{Counters, Disk, Options, Workers};
use disk_image::limits::MAX_UNPACKED;
use tokio_util::sync::CancellationToken;

use crate::args::{ApiArgs, CommonArgs};
use crate::config;
use crate::credentials::yc;
use crate::error::Error;
use crate::grace::Grace;
use crate::output::Output;
use crate::pass::{Counted, Pass, Passes};
use crate::progress::Progress;
use crate::report::Report;

/// What every command is given.
pub(crate) struct Context {
    /// Where results go.
    pub(crate) output: Output,
    /// Where progress goes.
    pub(crate) progress: Progress,
    /// Fires on Ctrl-C and SIGTERM.
    pub(crate) cancel: CancellationToken,
    /// Where errors, warnings and notes go.
    pub(crate) report: Report,
    /// What is left of time after it has fired.
    pub(crate) grace: Grace,
    memory: u64,
    workers: Workers,
    quiet: bool,
    /// The image that this is about, where there are several.
    image: Option<String>,
    passes: Passes,
    profile_name: Option<String>,
    profile: OnceLock<config::Profile>,
    yc_profile: OnceLock<Option<yc::Profile>>,
}

impl Context {
    /// From the options that all commands have.
    pub(crate) fn new(common: &CommonArgs, cancel: CancellationToken) -> Result<Self, Error> {
        let workers =
            Workers::new(common.jobs.map(usize::from)).map_err(|source| Error::Threads { source })?;
        tracing::debug!("workers: {}", workers.jobs());
        Ok(Self {
            output: Output::new(common.json),
            progress: Progress::new(common.quiet),
            cancel,
            report: Report::new(common.json),
            grace: Grace(common.grace.0),
            memory: common.memory.0,
            workers,
            quiet: common.quiet,
            image: None,
            passes: Passes::default(),
            profile_name: common.profile.clone(),
            profile: OnceLock::new(),
            yc_profile: OnceLock::new(),
        })
    }

    /// Ends when the command was interrupted, and so long ago.
    pub(crate) async fn interrupted_for(&self, grace: Duration) {
        self.cancel.cancelled().await;
        tokio::time::sleep(grace).await;
    }

    /// The same for one image of several: what is told names it, its work is counted by itself, and may use `memory` bytes.
    pub(crate) fn of_image(&self, name: &str, progress: &Progress, memory: u64) -> Self {
        Self {
            output: self.output,
            progress: progress.clone(),
            cancel: self.cancel.clone(),
            report: self.report,
            grace: self.grace,
            memory,
            workers: self.workers.clone(),
            quiet: self.quiet,
            image: Some(name.to_owned()),
            passes: Passes::default(),
            profile_name: self.profile_name.clone(),
            profile: self.profile.clone(),
            yc_profile: self.yc_profile.clone(),
        }
    }

    /// The profile of image-prep that was chosen; an empty one where there is none. Read when it is first asked for: most commands
    /// do without.
    pub(crate) fn profile(&self) -> Result<&config::Profile, Error> {
        if let Some(profile) = self.profile.get() {
            return Ok(profile);
        }
        let profile = config::Profile::load(self.profile_name.as_deref())?;
        Ok(self.profile.get_or_init(|| profile))
    }

    /// The profile of `yc`: the one that is named, or its current one. A file that nobody named and that cannot be read is told of and
    /// passed over.
    pub(crate) fn yc_profile(&self, args: &ApiArgs) -> Result<Option<&yc::Profile>, Error> {
        if let Some(profile) = self.yc_profile.get() {
            return Ok(profile.as_ref());
        }
        let profile = self.load_yc_profile(args)?;
        Ok(self.yc_profile.get_or_init(|| profile).as_ref())
    }

    fn load_yc_profile(&self, args: &ApiArgs) -> Result<Option<yc::Profile>, Error> {
        let named = args.yc_profile.as_deref().or(self.profile()?.yc_profile.as_deref());
        let Some(path) = yc::path() else { return Ok(None) };
        match yc::Profile::load(&path, named) {
            Ok(profile) => Ok(profile),
            Err(source) if named.is_some() => Err(Error::Yc { path, source }),
            Err(error) => {
                self.warn(&format!("the configuration of yc in `{}` is not used: {error}", path.display()));
                Ok(None)
            }
        }
    }

    /// Begins a pass over a disk; `what` is what it does to it.
    pub(crate) fn pass(&self, what: &'static str) -> Pass<'_> {
        let options = self.options();
        let shown = self.progress.bytes(what, options.counters.clone());
        Pass::new(what, options, shown, &self.passes)
    }

    /// How much work the passes were that have ended.
    pub(crate) fn counters(&self) -> Counted {
        self.passes.counted()
    }

    /// What work on a disk may use, with counters of its own.
    pub(crate) fn options(&self) -> Options {
        Options {
            memory: self.memory,
            workers: self.workers.clone(),
            counters: Arc::<Counters>::default(),
            max_unpacked: MAX_UNPACKED,
        }
    }

    /// Memory for image data, bytes.
    pub(crate) fn memory(&self) -> u64 {
        self.memory
    }

    /// Threads for CPU work.
    pub(crate) fn jobs(&self) -> usize {
        self.workers.jobs()
    }

    /// Tells what a user should know and may ignore.
    pub(crate) fn warn(&self, text: &str) {
        if !self.quiet {
            self.progress.aside(|| self.report.warning(&self.named(text)));
        }
    }

    /// Tells what is going on, where a user might wonder.
    pub(crate) fn note(&self, text: &str) {
        if !self.quiet {
            self.progress.aside(|| self.report.note(&self.named(text)));
        }
    }

    fn named<'a>(&self, text: &'a str) -> Cow<'a, str> {
        match &self.image {
            Some(name) => Cow::Owned(format!("{name}: {text}")),
            None => Cow::Borrowed(text),
        }
    }

    /// Tells what is odd about an image.
    pub(crate) fn warn_of(&self, disk: &Disk) {
        for warning in disk.image().warnings() {
            self.warn(&format!("`{}`: {warning}", disk.source().name()));
        }
    }
}
