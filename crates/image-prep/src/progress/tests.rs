//! What a terminal of 80 and of 200 columns shows: snapshots, by a terminal that is emulated.

use std::fmt::Write;
use std::time::Instant;

use indicatif::{InMemoryTerm, ProgressState};

use super::*;

/// A machine may be busy.
const PATIENCE: Duration = Duration::from_secs(60);

/// What changes with time says the same at any time, as wide as it gets.
pub(super) fn without_time(style: ProgressStyle) -> ProgressStyle {
    [("binary_bytes_per_sec", "123.45 MiB/s"), ("left", ", 17s left"), ("elapsed", "42s"), ("spinner", "*")]
        .into_iter()
        .fold(style, |style, (key, text)| {
            style.with_key(key, move |_: &ProgressState, out: &mut dyn Write| {
                // Text is written to memory.
                let _ = out.write_str(text);
            })
        })
}

struct Screen {
    term: InMemoryTerm,
    progress: Progress,
}

impl Screen {
    fn new(columns: u16) -> Self {
        let term = InMemoryTerm::new(10, columns);
        let target = ProgressDrawTarget::term_like(Box::new(term.clone()));
        Self { term, progress: Progress::on(Some(target)) }
    }

    /// What is on it once it is as `is_drawn` wants it.
    fn once(&self, is_drawn: impl Fn(&str) -> bool) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let contents = self.term.contents();
            if is_drawn(&contents) {
                return contents;
            }
            assert!(Instant::now() < deadline, "{contents}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// A bar of which a part is done.
fn moved(progress: &Progress, what: &str, done: u64, all: u64) -> Shown {
    let shown = progress.shows(BAR, ROW_BAR, what);
    shown.bar.set_length(all);
    shown.bar.set_position(done);
    shown.bar.tick();
    shown
}

/// One image: a bar, then a spinner, then nothing.
fn one(columns: u16) -> String {
    let screen = Screen::new(columns);
    let bar = moved(&screen.progress, "uploading", 3 << 28, 3 << 30);
    let mut shown = screen.once(|text| text.contains("768.00 MiB of 3.00 GiB"));
    drop(bar);
    assert_eq!(screen.term.contents(), "");
    let spinner = screen.progress.waiting("waiting for operation fd9ab8vd0a1h");
    shown = format!("{shown}\n{}\n", screen.once(|text| text.contains("waiting")));
    drop(spinner);
    assert_eq!(screen.term.contents(), "");
    shown
}

/// Several: a line for each that is worked on, and one for all.
fn several(columns: u16) -> String {
    let screen = Screen::new(columns);
    let (progress, width) = (&screen.progress, 60);
    let all = progress.waiting("3 of 20 done, 1 failed");
    let names = ["web", "database-of-the-accounting-department-2026", "cache"];
    let rows = names.map(|name| progress.row(name, width));
    let shown = [
        moved(&rows[0], "uploading", 3 << 28, 3 << 30),
        moved(&rows[1], "reading", 1 << 40, 5 << 40),
        rows[2].waiting("waiting for operation fd9ab8vd0a1h"),
    ];
    let drawn = screen.once(|text| {
        ["768.00 MiB of 3.00 GiB", "1.00 TiB of 5.00 TiB", "waiting", "20 done"]
            .iter()
            .all(|part| text.contains(part))
    });
    assert_eq!(progress.aside(|| screen.term.contents()), "", "it makes room");
    drop(shown);
    screen.once(|text| text.contains("uploading, done"));
    rows.iter().for_each(Progress::end_row);
    screen.once(|text| text.lines().count() == 1);
    drop(all);
    assert_eq!(screen.term.contents(), "");
    format!("{drawn}\n")
}

#[test]
fn one_image_in_80_columns() {
    insta::assert_snapshot!(one(80));
}

#[test]
fn one_image_in_200_columns() {
    insta::assert_snapshot!(one(200));
}

#[test]
fn several_images_in_80_columns() {
    insta::assert_snapshot!(several(80));
}

#[test]
fn several_images_in_200_columns() {
    insta::assert_snapshot!(several(200));
}

#[test]
fn long_names_keep_both_ends() {
    assert_eq!(shortened("a-name-of-20-letters"), "a-name-of-20-letters");
    assert_eq!(shortened("debian-13-x86-64-build-1001"), "debian-13…build-1001");
}

#[test]
fn nothing_is_shown_where_there_is_no_terminal() {
    let progress = Progress::on(None);
    let row = progress.row("web", 3);
    assert!(row.row.is_none() && row.shows(BAR, ROW_BAR, "uploading").bar.is_hidden());
}

#[test]
fn the_templates_are_well_formed() {
    for template in [BAR, SPINNER, ROW_BAR, ROW_SPINNER] {
        assert!(ProgressStyle::with_template(template).is_ok(), "{template}");
    }
}
