//! Why a store cannot be opened or served.

use std::io;
use std::path::PathBuf;

/// The error of [`serve`](crate::serve) and [`LocalStore::open`](crate::LocalStore::open). Errors of single
/// requests go to their clients instead.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Another process, or another server in this one, holds the folder.
    #[error("`{}` is in use by another process", dir.display())]
    Locked {
        /// The folder.
        dir: PathBuf,
    },
    /// The folder was written by a version of this store that arranges it otherwise.
    #[error("`{}` has layout {found}, expected {expected}", dir.display())]
    Layout {
        /// The folder.
        dir: PathBuf,
        /// What its `layout.json` says.
        found: u32,
        /// What this version reads.
        expected: u32,
    },
    /// A record file does not hold a record.
    #[error("cannot read the record `{}`", path.display())]
    Record {
        /// The file.
        path: PathBuf,
        /// What is wrong in it.
        source: serde_json::Error,
    },
    /// The file system refused.
    #[error("cannot {action} `{}`", path.display())]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Its answer.
        source: io::Error,
    },
    /// The listening socket failed.
    #[error("cannot accept connections")]
    Listen {
        /// The system's answer.
        source: io::Error,
    },
}
