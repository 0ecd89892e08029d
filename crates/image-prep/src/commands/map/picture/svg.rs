//! The picture as SVG 1.1: a rectangle for each run of cells, text for each region.
//!
//! Source: <https://www.w3.org/TR/SVG11/>; what text may hold: <https://www.w3.org/TR/xml/#charsets>.

use std::io::{self, Write};

use super::{Picture, Shade, Stored};

/// Cells in a line.
pub(in crate::commands::map) const COLUMNS: usize = 128;

/// Pixels of a cell, of a line of text, and around it all.
const CELL: (usize, usize) = (6, 12);
const LINE: usize = 18;
const MARGIN: usize = 12;

impl Shade {
    /// Told apart in grey too.
    fn fill(self) -> &'static str {
        match self {
            Self::Data => "#1f6f8b",
            Self::Compressed => "#7a3b8f",
            Self::Partly => "#e0a030",
            Self::Zero => "#c8ccd0",
            Self::Absent => "#eef0f2",
        }
    }
}

impl Picture {
    /// Writes it.
    pub(in crate::commands::map) fn write_svg(&self, out: &mut dyn Write) -> io::Result<()> {
        let (mut body, mut y) = (Vec::new(), MARGIN);
        text(&mut body, &mut y, &format!("{}; a cell is {}", self.title, super::Size(self.cell)))?;
        for region in &self.regions {
            y += LINE / 2;
            text(&mut body, &mut y, &region.name)?;
            for line in region.cells.chunks(self.columns.max(1)) {
                let mut x = MARGIN;
                for run in line.chunk_by(|one, next| one == next) {
                    let width = run.len() * CELL.0;
                    rectangle(&mut body, (x, y, width), run.first().copied().unwrap_or(Shade::Absent))?;
                    x += width;
                }
                y += CELL.1 + 1;
            }
            text(&mut body, &mut y, &region.stored.words())?;
        }
        y += LINE / 2;
        if self.regions.len() > 1 {
            let all: Stored = self.stored();
            text(&mut body, &mut y, &format!("in all: {}", all.words()))?;
        }
        self.write_legend(&mut body, &mut y)?;
        let (width, height) = (self.columns * CELL.0 + 2 * MARGIN, y + MARGIN);
        writeln!(
            out,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\" \
             font-family=\"sans-serif\" font-size=\"12\">\n<title>{}</title>\n<rect width=\"{width}\" height=\"{height}\" fill=\"#fff\"/>",
            escaped(&self.title)
        )?;
        out.write_all(&body)?;
        writeln!(out, "</svg>")
    }

    fn write_legend(&self, body: &mut Vec<u8>, y: &mut usize) -> io::Result<()> {
        let step = self.columns * CELL.0 / Shade::ALL.len();
        for (at, shade) in Shade::ALL.into_iter().enumerate() {
            let x = MARGIN + at * step;
            rectangle(body, (x, *y, CELL.1), shade)?;
            let (x, base) = (x + CELL.1 + CELL.0, *y + CELL.1 - 2);
            writeln!(body, "<text x=\"{x}\" y=\"{base}\">{}</text>", shade.meaning())?;
        }
        *y += LINE;
        Ok(())
    }
}

fn text(body: &mut Vec<u8>, y: &mut usize, text: &str) -> io::Result<()> {
    writeln!(body, "<text x=\"{MARGIN}\" y=\"{}\">{}</text>", *y + CELL.1, escaped(text))?;
    *y += LINE;
    Ok(())
}

fn rectangle(body: &mut Vec<u8>, (x, y, width): (usize, usize, usize), shade: Shade) -> io::Result<()> {
    let (height, fill) = (CELL.1, shade.fill());
    writeln!(body, "<rect x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\" fill=\"{fill}\"/>")
}

/// Text as XML has it, without the characters that it cannot have.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => escaped.push('\u{fffd}'),
            c => escaped.push(c),
        }
    }
    escaped
}
