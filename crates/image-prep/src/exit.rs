//! Exit codes: part of the contract that scripts are written against.

use std::process::ExitCode;

/// How the program ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Done; for `compare`: the disks are the same.
    Done,
    /// Failed; for `compare`: the disks differ.
    Failed,
    /// Wrong usage; for `compare` any failure too, because 1 has a meaning there.
    Usage,
    /// The image was refused: damaged, unsafe, or not supported.
    Refused,
    /// The operation failed in the cloud.
    OperationFailed,
    /// Ctrl-C or SIGTERM: 128 and the number of SIGINT.
    Interrupted,
}

impl Exit {
    /// The number that the shell sees.
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Refused => 3,
            Self::OperationFailed => 4,
            Self::Interrupted => 130,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}
