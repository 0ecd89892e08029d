//! What was to be looked at and was not: what lies there is not known to be absent.
//!
//! Limits of this crate are why, most of all; a disk says nothing about what lies behind them. A point of readiness that would rest on
//! nothing having been found there is unknown, with the reason that stands here.

#[cfg(test)]
mod tests;

use std::fmt::Display;

use crate::source::Trouble;

/// Why something was not looked at, if anything was not.
#[derive(Debug, Clone, Default)]
pub(crate) struct Unread {
    /// Partitions that are not listed, or of which it is not known what they hold.
    pub(crate) partitions: Option<String>,
    /// What firmware would start.
    pub(crate) loaders: Option<String>,
    /// File systems that may be the system's own.
    pub(crate) files: Option<String>,
    /// Which system it is, and for which processor.
    pub(crate) system: Option<String>,
}

impl Unread {
    /// Why a loader may be there that was not found.
    pub(crate) fn loader(&self) -> Option<&str> {
        self.loaders.as_deref().or(self.partitions.as_deref())
    }

    /// Why a file may be there that was not found.
    pub(crate) fn file(&self) -> Option<&str> {
        self.files.as_deref().or(self.partitions.as_deref())
    }
}

/// Notes down, once, what is not known of a place, and why.
pub(crate) fn keep(reason: &mut Option<String>, what: &str, why: &dyn Display) {
    reason.get_or_insert_with(|| format!("{what}: {why}"));
}

impl Trouble {
    /// True if more could be known with a larger limit: the disk did not say that there is nothing.
    pub(crate) fn is_limit(self) -> bool {
        matches!(self, Self::ReadLimit | Self::WorkLimit | Self::TooLong(_))
    }
}
