//! The picture in a terminal: letters that mean the same without colour, and colours where they are wanted.

use std::io::{self, Write};

use anstyle::{AnsiColor, Style};

use super::{Picture, Shade};
use crate::report::one_line;

impl Shade {
    fn letter(self) -> char {
        match self {
            Self::Data => '#',
            Self::Compressed => '%',
            Self::Partly => '+',
            Self::Zero => '0',
            Self::Absent => '.',
        }
    }

    fn style(self) -> Style {
        match self {
            Self::Data => AnsiColor::Cyan.on_default(),
            Self::Compressed => AnsiColor::Magenta.on_default(),
            Self::Partly => AnsiColor::Yellow.on_default(),
            Self::Zero | Self::Absent => Style::new().dimmed(),
        }
    }
}

impl Picture {
    /// Writes it.
    pub(in crate::commands::map) fn write_text(
        &self,
        out: &mut dyn Write,
        in_colour: bool,
    ) -> io::Result<()> {
        writeln!(out, "{}; {}", one_line(&self.title), self.scale())?;
        for region in &self.regions {
            writeln!(out, "\n{}", region.name)?;
            for line in region.cells.chunks(self.columns.max(1)) {
                for run in line.chunk_by(|one, next| one == next) {
                    write_run(out, run, in_colour)?;
                }
                writeln!(out)?;
            }
            writeln!(out, "{}", region.stored.words())?;
        }
        if self.regions.len() > 1 {
            writeln!(out, "\nin all\n{}", self.stored().words())?;
        }
        writeln!(out)?;
        for (at, shade) in Shade::ALL.into_iter().enumerate() {
            out.write_all(if at == 0 { b"" } else { b"  " })?;
            write_run(out, &[shade], in_colour)?;
            write!(out, " {}", shade.meaning())?;
        }
        writeln!(out)
    }
}

/// Cells of one shade.
fn write_run(out: &mut dyn Write, run: &[Shade], in_colour: bool) -> io::Result<()> {
    let Some(shade) = run.first() else { return Ok(()) };
    let letters: String = run.iter().map(|shade| shade.letter()).collect();
    match in_colour {
        true => write!(out, "{style}{letters}{style:#}", style = shade.style()),
        false => out.write_all(letters.as_bytes()),
    }
}
