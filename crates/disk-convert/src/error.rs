//! What went wrong, where, and whether trying again may help.

use std::error::Error as StdError;
use std::{fmt, io};

use disk_image::{DecodeError, OpenError, Reference, Span};

use crate::ReferenceFault;

type Cause = Box<dyn StdError + Send + Sync>;

/// A conversion that did not come to its end. The output has been removed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConvertError {
    /// The disk image was refused.
    #[error("cannot open `{name}`")]
    Open {
        /// The source's name.
        name: Box<str>,
        /// Why.
        source: OpenError,
    },
    /// The image names another file, which is not opened.
    #[error(
        "`{name}` names the {role} `{file}`",
        role = reference.role,
        file = reference.name.escape_debug()
    )]
    Reference {
        /// The file that names it.
        name: Box<str>,
        /// What it names.
        reference: Reference,
        /// Why it is not opened.
        source: ReferenceFault,
    },
    /// Files that the image names were passed over, so its content is not known.
    #[error("`{name}` is open for information only: files that it names were passed over")]
    Partial {
        /// The source's name.
        name: Box<str>,
    },
    /// The source failed.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The sink failed.
    #[error(transparent)]
    Sink(#[from] SinkError),
    /// A unit of the image does not decode.
    #[error("cannot decode guest bytes {guest:#x} of `{name}`, stored at {stored:#x}")]
    Decode {
        /// The source's name.
        name: Box<str>,
        /// Where the unit begins in the guest.
        guest: u64,
        /// Where it is stored.
        stored: u64,
        /// Why.
        source: DecodeError,
    },
    /// The memory budget does not hold two parts.
    #[error("a memory budget of {memory} bytes cannot hold two parts; {needed} bytes would")]
    Budget {
        /// The budget.
        memory: u64,
        /// What would do.
        needed: u64,
    },
    /// The output has more parts than their numbers can count.
    #[error("the output of {len} bytes has more parts of {part} bytes than can be counted")]
    TooManyParts {
        /// Length of the output.
        len: u64,
        /// Size of a part.
        part: u64,
    },
    /// The caller cancelled.
    #[error("cancelled")]
    Cancelled,
    /// A worker panicked: a defect of this program.
    #[error("a worker thread failed; this is a defect of the program")]
    Panicked,
}

impl ConvertError {
    /// True if the image itself is at fault: refused, damaged or not supported.
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::Open { .. } | Self::Decode { .. } | Self::Reference { .. } => true,
            Self::Source(error) => error.fault == SourceFault::Scattered,
            _ => false,
        }
    }

    /// What would help, where something would.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Open { source, .. } => source.hint(),
            Self::Reference { source, .. } => source.hint(),
            Self::Decode { .. } => Some("the file is damaged; compare its checksum with the original"),
            Self::Source(error) => error.fault.hint(),
            Self::Sink(error) => error.fault.hint(),
            Self::Budget { .. } => Some("raise it with --memory"),
            _ => None,
        }
    }
}

/// A source that could not give what it was asked for.
#[derive(Debug, thiserror::Error)]
pub struct SourceError {
    /// The source's name; never a secret.
    pub name: Box<str>,
    /// What was to be read; empty while opening.
    pub span: Span,
    /// What kind of failure.
    pub fault: SourceFault,
    /// What lies beneath.
    #[source]
    pub cause: Option<Cause>,
}

impl fmt::Display for SourceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, span, fault, .. } = self;
        match span.is_empty() {
            true => write!(f, "cannot open `{name}`: {fault}"),
            false => write!(f, "cannot read {} bytes at {:#x} of `{name}`: {fault}", span.len, span.start),
        }
    }
}

impl SourceError {
    /// A failure with nothing beneath it.
    pub fn new(name: impl Into<Box<str>>, span: Span, fault: SourceFault) -> Self {
        Self { name: name.into(), span, fault, cause: None }
    }

    /// The same failure, with what lies beneath it.
    #[must_use]
    pub fn because(mut self, cause: impl Into<Cause>) -> Self {
        self.cause = Some(cause.into());
        self
    }

    /// A failed system call.
    pub fn io(name: impl Into<Box<str>>, span: Span, error: io::Error) -> Self {
        let fault = match error.kind() {
            io::ErrorKind::NotFound => SourceFault::NotFound,
            io::ErrorKind::PermissionDenied => SourceFault::Denied,
            io::ErrorKind::IsADirectory => SourceFault::NotAFile,
            io::ErrorKind::UnexpectedEof => SourceFault::Shrunk,
            _ => SourceFault::Io,
        };
        Self::new(name, span, fault).because(error)
    }

    /// True if the same read may succeed later.
    pub fn is_retryable(&self) -> bool {
        matches!(self.fault, SourceFault::Stalled | SourceFault::Unavailable)
    }
}

/// How a source failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SourceFault {
    /// There is no such file or object.
    #[error("not found")]
    NotFound,
    /// Reading is not allowed.
    #[error("access denied")]
    Denied,
    /// The signature of the URL has expired.
    #[error("the URL has expired")]
    Expired,
    /// A directory, a socket, a terminal.
    #[error("neither a regular file nor a block device")]
    NotAFile,
    /// It is another one than the one that was opened.
    #[error("it changed while it was read")]
    Changed,
    /// It is shorter than when it was opened.
    #[error("it became shorter while it was read")]
    Shrunk,
    /// It is compressed as a whole, and so many of its bytes were asked for one by one that it was decoded many times.
    #[error("it is compressed as a whole, and read in too many places")]
    Scattered,
    /// No bytes arrived for too long, or too few.
    #[error("no answer in time")]
    Stalled,
    /// The server does not serve ranges.
    #[error("the server does not serve byte ranges")]
    NoRanges,
    /// The address is refused by policy.
    #[error("the address is not allowed")]
    Forbidden,
    /// The server answered something else than what was asked for.
    #[error("the server's answer does not fit the request")]
    Protocol,
    /// The server or the network failed.
    #[error("unavailable")]
    Unavailable,
    /// The system refused.
    #[error("input/output error")]
    Io,
}

impl SourceFault {
    fn hint(self) -> Option<&'static str> {
        match self {
            Self::Expired => Some("sign the URL again, for longer"),
            Self::Denied => {
                Some("check the permissions; for a URL, that its signature is for GET and still valid")
            }
            Self::NoRanges => Some("download the image first"),
            Self::Scattered => Some("unpack it first"),
            Self::Changed | Self::Shrunk => Some("stop what writes to it, then start again"),
            _ => None,
        }
    }
}

/// A sink that could not take what it was given.
#[derive(Debug, thiserror::Error)]
#[error("cannot write `{name}`: {fault}")]
pub struct SinkError {
    /// The sink's name; never a secret.
    pub name: Box<str>,
    /// Offset in the output, bytes, if it concerns a place.
    pub offset: Option<u64>,
    /// What kind of failure.
    pub fault: SinkFault,
    /// What lies beneath.
    #[source]
    pub cause: Option<Cause>,
}

impl SinkError {
    /// A failure with nothing beneath it.
    pub fn new(name: impl Into<Box<str>>, offset: Option<u64>, fault: SinkFault) -> Self {
        Self { name: name.into(), offset, fault, cause: None }
    }

    /// The same failure, with what lies beneath it.
    #[must_use]
    pub fn because(mut self, cause: impl Into<Cause>) -> Self {
        self.cause = Some(cause.into());
        self
    }

    /// A failed system call.
    pub fn io(name: impl Into<Box<str>>, offset: Option<u64>, error: io::Error) -> Self {
        let fault = match error.kind() {
            io::ErrorKind::NotFound => SinkFault::NotFound,
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => SinkFault::Denied,
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
                SinkFault::NoSpace
            }
            io::ErrorKind::ResourceBusy => SinkFault::Busy,
            io::ErrorKind::IsADirectory => SinkFault::NotAFile,
            _ => SinkFault::Io,
        };
        Self::new(name, offset, fault).because(error)
    }
}

/// How a sink failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SinkFault {
    /// The folder or the bucket does not exist.
    #[error("not found")]
    NotFound,
    /// Writing is not allowed.
    #[error("access denied")]
    Denied,
    /// No room is left.
    #[error("no space left")]
    NoSpace,
    /// The device is in use.
    #[error("it is in use")]
    Busy,
    /// A directory, a socket, a terminal.
    #[error("neither a regular file nor a block device")]
    NotAFile,
    /// The device is smaller than the disk.
    #[error("it holds {room} bytes, the disk needs {needed}")]
    TooSmall {
        /// What there is.
        room: u64,
        /// What is needed.
        needed: u64,
    },
    /// The store got other bytes than were sent.
    #[error("the store's checksum differs")]
    Checksum,
    /// The store answered something else than what was asked for.
    #[error("the store's answer does not fit the request")]
    Protocol,
    /// The store or the network failed.
    #[error("unavailable")]
    Unavailable,
    /// The system refused.
    #[error("input/output error")]
    Io,
    /// The caller cancelled.
    #[error("cancelled")]
    Cancelled,
}

impl SinkFault {
    fn hint(self) -> Option<&'static str> {
        match self {
            Self::NoSpace => Some("free some space, or choose another place"),
            Self::Busy => Some("unmount it first"),
            _ => None,
        }
    }
}
