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
    style.progress_chars("=> ").with_key("left", left)
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
mod tests {
    use std::io;
    use std::sync::{Mutex, MutexGuard, PoisonError};
    use std::time::Instant;

    use indicatif::TermLike;

    use super::*;

    /// A terminal that remembers what stands on it.
    #[derive(Debug, Clone)]
    struct Screen {
        width: usize,
        state: Arc<Mutex<Standing>>,
    }

    #[derive(Debug, Default)]
    struct Standing {
        lines: Vec<Vec<char>>,
        row: usize,
        column: usize,
    }

    impl Screen {
        fn new(width: usize) -> Self {
            Self { width, state: Arc::default() }
        }

        fn state(&self) -> MutexGuard<'_, Standing> {
            self.state.lock().unwrap_or_else(PoisonError::into_inner)
        }

        /// The lines that are not empty, without the spaces that end them.
        fn lines(&self) -> Vec<String> {
            let state = self.state();
            let lines = state.lines.iter().map(|line| line.iter().collect::<String>().trim_end().to_owned());
            lines.filter(|line| !line.is_empty()).collect()
        }
    }

    impl TermLike for Screen {
        fn width(&self) -> u16 {
            u16::try_from(self.width).unwrap()
        }

        fn move_cursor_up(&self, n: usize) -> io::Result<()> {
            let mut state = self.state();
            state.row = state.row.saturating_sub(n);
            Ok(())
        }

        fn move_cursor_down(&self, n: usize) -> io::Result<()> {
            self.state().row += n;
            Ok(())
        }

        fn move_cursor_right(&self, _: usize) -> io::Result<()> {
            Ok(())
        }

        fn move_cursor_left(&self, _: usize) -> io::Result<()> {
            Ok(())
        }

        fn write_line(&self, text: &str) -> io::Result<()> {
            self.write_str(text)?;
            self.write_str("\n")
        }

        fn write_str(&self, text: &str) -> io::Result<()> {
            let mut state = self.state();
            for c in text.chars() {
                if c == '\n' || (c != '\r' && state.column == self.width) {
                    (state.row, state.column) = (state.row + 1, 0);
                }
                let (row, column, len) = (state.row, state.column, state.lines.len());
                state.lines.resize(len.max(row + 1), vec![' '; self.width]);
                match c {
                    '\r' => state.column = 0,
                    '\n' => {}
                    c => {
                        state.lines[row][column] = c;
                        state.column += 1;
                    }
                }
            }
            Ok(())
        }

        fn clear_line(&self) -> io::Result<()> {
            let mut state = self.state();
            let row = state.row;
            if let Some(line) = state.lines.get_mut(row) {
                line.fill(' ');
            }
            state.column = 0;
            Ok(())
        }

        fn flush(&self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn the_templates_are_well_formed() {
        for template in [BAR, SPINNER, ROW_BAR, ROW_SPINNER] {
            assert!(ProgressStyle::with_template(template).is_ok(), "{template}");
        }
    }

    #[test]
    fn long_names_keep_both_ends() {
        assert_eq!(shortened("a-name-of-20-letters"), "a-name-of-20-letters");
        assert_eq!(shortened("debian-13-x86-64-build-1001"), "debian-13…build-1001");
    }

    /// A line for each image, one for all; nothing is wider than the terminal, and what ends goes.
    #[test]
    fn a_table_at_80_and_200_columns() {
        for width in [80, 200] {
            let screen = Screen::new(width);
            let target = ProgressDrawTarget::term_like_with_hz(Box::new(screen.clone()), 255);
            let progress = Progress::on(Some(target));
            let all = progress.shows(SPINNER, ROW_SPINNER, "0 of 3 done");
            let (web, db) = (progress.row("web", 27), progress.row("debian-13-x86-64-build-1001", 27));
            let upload = web.shows(BAR, ROW_BAR, "uploading");
            upload.bar.set_length(64 << 30);
            upload.bar.set_position(48 << 30);
            let operation = db.shows(SPINNER, ROW_SPINNER, "operation fd83r845r45tsed6abl5");
            let bars = [&upload, &operation, &all].map(|shown| shown.bar.clone());
            // Drawn by threads, and no more than so often.
            let drawn = |is_drawn: fn(&[String]) -> bool| {
                let begun = Instant::now();
                loop {
                    bars.iter().for_each(ProgressBar::tick);
                    let lines = screen.lines();
                    if is_drawn(&lines) || begun.elapsed() > Duration::from_secs(20) {
                        return lines;
                    }
                    std::thread::sleep(Duration::from_millis(10));
                }
            };
            let lines = drawn(|lines| lines.iter().any(|line| line.contains("48.00 GiB")));
            assert_eq!(lines.len(), 3, "{lines:?}");
            assert!(lines[0].starts_with("web                   uploading [==="), "{lines:?}");
            assert!(lines[0].contains("] 48.00 GiB of 64.00 GiB, "), "{lines:?}");
            assert!(
                lines[1].starts_with("debian-13…build-1001  operation fd83r845r45tsed6abl5 "),
                "{lines:?}"
            );
            assert!(lines[2].contains("0 of 3 done ("), "{lines:?}");
            assert_eq!(progress.aside(|| screen.lines()), Vec::<String>::new(), "it makes room");
            drop(upload);
            web.end_row();
            let lines = drawn(|lines| lines.len() == 2);
            assert!(lines.len() == 2 && lines[0].starts_with("debian-13…build-1001  operation"), "{lines:?}");
        }
    }

    #[test]
    fn nothing_is_shown_where_there_is_no_terminal() {
        let progress = Progress::on(None);
        let row = progress.row("web", 3);
        assert!(row.row.is_none() && row.shows(BAR, ROW_BAR, "uploading").bar.is_hidden());
    }
}
