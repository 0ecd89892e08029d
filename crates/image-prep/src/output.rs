//! Results: the only place that writes to standard output.

use std::io::{self, BufWriter, Write};

use serde::Serialize;

use crate::error::Error;

/// Bytes to gather before they are written: a map may have many lines.
const BUFFER: usize = 64 << 10;

/// Writes results, for people or for programs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Output {
    json: bool,
}

impl Output {
    /// JSON or text.
    pub(crate) fn new(json: bool) -> Self {
        Self { json }
    }

    /// True if results are to be JSON.
    pub(crate) fn is_json(self) -> bool {
        self.json
    }

    /// One object on one line.
    pub(crate) fn json(self, value: &impl Serialize) -> Result<(), Error> {
        self.write(|out| {
            serde_json::to_writer(&mut *out, value)?;
            out.write_all(b"\n")
        })
    }

    /// One line of text.
    pub(crate) fn line(self, text: &str) -> Result<(), Error> {
        self.write(|out| writeln!(out, "{text}"))
    }

    /// Names and values, aligned.
    pub(crate) fn fields(self, fields: &[(&str, String)]) -> Result<(), Error> {
        let width = fields.iter().map(|(name, _)| name.len()).max().unwrap_or_default() + 2;
        self.write(|out| fields.iter().try_for_each(|(name, value)| writeln!(out, "{name:<width$}{value}")))
    }

    /// Whatever is written, buffered, whole.
    pub(crate) fn write(self, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<(), Error> {
        let mut out = BufWriter::with_capacity(BUFFER, io::stdout().lock());
        write(&mut out).and_then(|()| out.flush()).map_err(|source| Error::Output { source })
    }
}
