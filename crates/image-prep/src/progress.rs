//! Progress on a terminal: a bar with rate and remaining time while bytes are moved, a spinner while the cloud works. Of several
//! images a table: a line for each that is worked on, and one for all of them.
//!
//! Shown on standard error, and only where that is a terminal and `--quiet` was not given: a log has no use for it.

use std::fmt;
use std::io::IsTerminal;
use std::sync::Arc;
use std::time::Duration;

use disk_convert::Counters;
use indicatif::{
    HumanDuration, MultiProgress, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle,
};
use tokio::task::JoinHandle;

/// Between two looks at the counters: smooth to the eye, nothing to a core.
const TICK: Duration = Duration::from_millis(100);

const BAR: &str =
    "{msg:<12} [{wide_bar:.cyan}] {binary_bytes} of {binary_total_bytes}, {binary_bytes_per_sec}{left}";
const SPINNER: &str = "{spinner:.cyan} {msg} ({elapsed})";

/// The same as lines of a table, behind the name of the image: they fit 80 columns.
const ROW_BAR: &str = "{msg:<9} [{wide_bar:.cyan}] {binary_bytes} of {binary_total_bytes}{left}";
const ROW_SPINNER: &str = "{wide_msg} ({elapsed})";

/// Longest name that a table shows whole: what a line of 80 columns leaves.
const NAME_WIDTH: usize = 20;

/// Shows progress, or does not.
#[derive(Debug, Clone)]
pub(crate) struct Progress {
    /// What is on the terminal; `None` where nothing is shown.
    lines: Option<MultiProgress>,
    /// The line of one image, which stays while its work changes.
    row: Option<Row>,
}

#[derive(Debug, Clone)]
struct Row {
    bar: ProgressBar,
    name: String,
    width: usize,
}

impl Progress {
    /// Shown on a terminal unless `quiet`.
    pub(crate) fn new(quiet: bool) -> Self {
        let is_shown = !quiet && std::io::stderr().is_terminal();
        Self::on(is_shown.then(ProgressDrawTarget::stderr))
    }

    fn on(target: Option<ProgressDrawTarget>) -> Self {
        Self { lines: target.map(MultiProgress::with_draw_target), row: None }
    }

    /// A line for one image of several, above the last line, until [`Progress::end_row`]; names are aligned to `width`.
    pub(crate) fn row(&self, name: &str, width: usize) -> Self {
        let row = self.lines.as_ref().map(|lines| {
            let bar = lines.insert_from_back(1, ProgressBar::new(0));
            let row = Row { bar, name: shortened(name), width: width.min(NAME_WIDTH) };
            row.shows(ROW_SPINNER, "opening");
            row
        });
        Self { lines: self.lines.clone(), row }
    }

    /// Removes the line of the image.
    pub(crate) fn end_row(&self) {
        if let Some(row) = &self.row {
            row.bar.finish_and_clear();
            self.remove(&row.bar);
        }
    }

    /// Shows the work that is counted in `counters` until the result is dropped.
    pub(crate) fn bytes(&self, what: &'static str, counters: Arc<Counters>) -> Shown {
        let mut shown = self.shows(BAR, ROW_BAR, what);
        shown.ticker = self.lines.is_some().then(|| {
            let bar = shown.bar.clone();
            tokio::spawn(async move {
                loop {
                    bar.set_length(counters.total());
                    bar.set_position(counters.done());
                    tokio::time::sleep(TICK).await;
                }
            })
        });
        shown
    }

    /// Shows that something is waited for until the result is dropped.
    pub(crate) fn waiting(&self, what: impl Into<String>) -> Shown {
        let shown = self.shows(SPINNER, ROW_SPINNER, what);
        if self.lines.is_some() {
            shown.bar.enable_steady_tick(TICK);
        }
        shown
    }

    /// Writes to the terminal without drawing on what is written.
    pub(crate) fn aside<T>(&self, write: impl FnOnce() -> T) -> T {
        match &self.lines {
            Some(lines) => lines.suspend(write),
            None => write(),
        }
    }

    fn shows(&self, template: &str, row_template: &str, what: impl Into<String>) -> Shown {
        let bar = match (&self.lines, &self.row) {
            (None, _) => ProgressBar::hidden(),
            (Some(_), Some(row)) => {
                row.shows(row_template, what);
                row.bar.clone()
            }
            (Some(lines), None) => {
                let bar = ProgressBar::new(0).with_style(style(template)).with_message(what.into());
                lines.add(bar)
            }
        };
        Shown { bar, ticker: None, of: self.clone() }
    }

    fn remove(&self, bar: &ProgressBar) {
        if let Some(lines) = &self.lines {
            lines.remove(bar);
        }
    }
}

impl Row {
    fn shows(&self, template: &str, what: impl Into<String>) {
        let template = format!("{:<width$}  {template}", self.name, width = self.width);
        self.bar.disable_steady_tick();
        self.bar.set_style(style(&template));
        // Rate and time are those of this step.
        self.bar.reset();
        self.bar.set_message(what.into());
        self.bar.enable_steady_tick(TICK);
    }
}

/// The name, or both ends of it: names that are alike differ at either.
fn shortened(name: &str) -> String {
    let len = name.chars().count();
    if len <= NAME_WIDTH {
        return name.to_owned();
    }
    let (first, last) = (NAME_WIDTH / 2 - 1, NAME_WIDTH / 2);
    name.chars().take(first).chain(['…']).chain(name.chars().skip(len - last)).collect()
}

fn style(template: &str) -> ProgressStyle {
    // The templates are constants, and a test reads them; names of Images have no braces.
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    let style = style.progress_chars("=> ").with_key("left", left);
    // Time stands still there.
    #[cfg(test)]
    let style = tests::without_time(style);
    style
}

/// How long it will take; nothing as long as nothing is done, of which nothing follows.
fn left(state: &ProgressState, out: &mut dyn fmt::Write) {
    if state.pos() > 0 {
        // A terminal that does not take it has other troubles.
        let _ = write!(out, ", {:#} left", HumanDuration(state.eta()));
    }
}

/// A bar or a spinner. Removed from the terminal when it is dropped, but for the line of an image.
pub(crate) struct Shown {
    bar: ProgressBar,
    ticker: Option<JoinHandle<()>>,
    of: Progress,
}

impl Shown {
    /// Says something else.
    pub(crate) fn say(&self, what: impl Into<String>) {
        self.bar.set_message(what.into());
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        if let Some(ticker) = self.ticker.take() {
            ticker.abort();
        }
        match &self.of.row {
            Some(row) => row.shows(ROW_SPINNER, format!("{}, done", self.bar.message())),
            None => {
                self.bar.finish_and_clear();
                self.of.remove(&self.bar);
            }
        }
    }
}

#[cfg(test)]
mod tests;
