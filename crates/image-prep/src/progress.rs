//! Progress on a terminal: a bar with rate and remaining time while bytes are moved, a spinner while the cloud works.
//!
//! Shown on standard error, and only where that is a terminal and `--quiet` was not given: a log has no use for it.

use std::io::IsTerminal;
use std::sync::Arc;
use std::time::Duration;

use disk_convert::Counters;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::task::JoinHandle;

/// Between two looks at the counters: smooth to the eye, nothing to a core.
const TICK: Duration = Duration::from_millis(100);

const BAR: &str =
    "{msg:<12} [{wide_bar:.cyan}] {binary_bytes} of {binary_total_bytes}, {binary_bytes_per_sec}, {eta} left";
const SPINNER: &str = "{spinner:.cyan} {msg} ({elapsed})";

/// Shows progress, or does not.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Progress {
    shown: bool,
}

impl Progress {
    /// Shown on a terminal unless `quiet`.
    pub(crate) fn new(quiet: bool) -> Self {
        Self { shown: !quiet && std::io::stderr().is_terminal() }
    }

    /// Shows the work that is counted in `counters` until the result is dropped.
    pub(crate) fn bytes(self, what: &'static str, counters: Arc<Counters>) -> Shown {
        let bar = self.bar(BAR, what);
        let ticker = self.shown.then(|| {
            let bar = bar.clone();
            tokio::spawn(async move {
                loop {
                    bar.set_length(counters.total());
                    bar.set_position(counters.done());
                    tokio::time::sleep(TICK).await;
                }
            })
        });
        Shown { bar, ticker }
    }

    /// Shows that something is waited for until the result is dropped.
    pub(crate) fn waiting(self, what: impl Into<String>) -> Shown {
        let bar = self.bar(SPINNER, what);
        if self.shown {
            bar.enable_steady_tick(TICK);
        }
        Shown { bar, ticker: None }
    }

    fn bar(self, template: &str, what: impl Into<String>) -> ProgressBar {
        if !self.shown {
            return ProgressBar::hidden();
        }
        // The templates are constants, and a test reads them.
        let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
        ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr())
            .with_style(style.progress_chars("=> "))
            .with_message(what.into())
    }
}

/// A bar or a spinner, removed from the terminal when it is dropped.
pub(crate) struct Shown {
    bar: ProgressBar,
    ticker: Option<JoinHandle<()>>,
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
        self.bar.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_templates_are_well_formed() {
        for template in [BAR, SPINNER] {
            assert!(ProgressStyle::with_template(template).is_ok(), "{template}");
        }
    }
}
