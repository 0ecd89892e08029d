//! A parse that can be resumed: it says which bytes it needs next, and never reads them itself.
//!
//! ```
//! use disk_image::{open, Open, OpenOptions};
//!
//! # fn main() -> Result<(), disk_image::OpenError> {
//! let file = vec![0_u8; 1 << 20]; // a raw disk
//! let options = OpenOptions { format: Some(disk_image::Format::Raw), ..OpenOptions::default() };
//! let mut step = open(file.len() as u64, &options)?;
//! let image = loop {
//!     match step {
//!         Open::Ready(image) => break image,
//!         Open::Need(need) => {
//!             let answers = need.wants().iter().map(|want| {
//!                 let span = want.span;
//!                 bytes::Bytes::copy_from_slice(&file[span.start as usize..span.end() as usize])
//!             });
//!             let answers = answers.collect();
//!             step = need.resume(answers)?;
//!         }
//!         // A raw disk names no other file.
//!         Open::Refer(_) => unreachable!(),
//!     }
//! };
//! assert_eq!(image.virtual_size(), 1 << 20);
//! # Ok(())
//! # }
//! ```

use bytes::Bytes;

use crate::{FileId, OpenError, Refer, Reference, Referred, Stored};

/// What opening has come to.
pub enum Open<T> {
    /// The result.
    Ready(T),
    /// More bytes are needed.
    Need(Need<T>),
    /// Files that the image names are needed.
    Refer(Refer<T>),
}

type Next<T> = Box<dyn FnOnce(Vec<Bytes>) -> Result<Open<T>, OpenError> + Send>;

/// The bytes that a parse needs next, and the rest of the parse.
pub struct Need<T> {
    wants: Vec<Stored>,
    next: Next<T>,
}

impl<T> Need<T> {
    /// The runs to read. All lie inside their files.
    pub fn wants(&self) -> &[Stored] {
        &self.wants
    }

    /// Continues with the bytes of each run of [`Need::wants`], in that order, each exactly as long as its run.
    ///
    /// # Errors
    ///
    /// Whatever the parser finds wrong, and [`OpenError::Answer`] if the bytes are not those asked for.
    pub fn resume(self, answers: Vec<Bytes>) -> Result<Open<T>, OpenError> {
        let fits = answers.len() == self.wants.len()
            && answers.iter().zip(&self.wants).all(|(bytes, want)| bytes.len() as u64 == want.span.len);
        if !fits {
            return Err(OpenError::Answer);
        }
        (self.next)(answers)
    }
}

impl<T: Send + 'static> Open<T> {
    /// Asks for runs and says what to do with them.
    pub(crate) fn need(
        wants: Vec<Stored>,
        next: impl FnOnce(Vec<Bytes>) -> Result<Open<T>, OpenError> + Send + 'static,
    ) -> Self {
        Self::Need(Need { wants, next: Box::new(next) })
    }

    /// Asks for one run.
    pub(crate) fn need_one(
        want: Stored,
        next: impl FnOnce(Bytes) -> Result<Open<T>, OpenError> + Send + 'static,
    ) -> Self {
        Self::need(vec![want], |answers| next(answers.into_iter().next().unwrap_or_default()))
    }

    /// Asks for a file that the image names.
    pub(crate) fn refer_one(
        reference: Reference,
        next: impl FnOnce(Referred) -> Result<Open<T>, OpenError> + Send + 'static,
    ) -> Self {
        Self::refer(vec![reference], |referred| match referred.into_iter().next() {
            Some(referred) => next(referred),
            None => Err(OpenError::Answer),
        })
    }

    /// Asks for files that the image names.
    pub(crate) fn refer(
        references: Vec<Reference>,
        next: impl FnOnce(Vec<Referred>) -> Result<Open<T>, OpenError> + Send + 'static,
    ) -> Self {
        Self::Refer(Refer::new(references, next))
    }

    /// Goes on with the result, once it is there.
    pub(crate) fn and_then<U: Send + 'static>(
        self,
        next: impl FnOnce(T) -> Result<Open<U>, OpenError> + Send + 'static,
    ) -> Result<Open<U>, OpenError> {
        match self {
            Self::Ready(value) => next(value),
            Self::Need(Need { wants, next: rest }) => {
                Ok(Open::need(wants, move |answers| rest(answers)?.and_then(next)))
            }
            Self::Refer(refer) => {
                let references = refer.references().to_vec();
                Ok(Open::refer(references, move |referred| refer.resume(referred)?.and_then(next)))
            }
        }
    }

    /// Refuses with `error` once a file is asked for that the image names.
    pub(crate) fn alone(self, error: OpenError) -> Result<Self, OpenError> {
        match self {
            Self::Ready(value) => Ok(Self::Ready(value)),
            Self::Need(Need { wants, next }) => {
                Ok(Self::need(wants, move |answers| next(answers)?.alone(error)))
            }
            Self::Refer(_) => Err(error),
        }
    }

    /// Goes on another way where an error comes up, at once or in any later step.
    pub(crate) fn or_else(
        opened: Result<Self, OpenError>,
        recover: impl FnOnce(OpenError) -> Result<Self, OpenError> + Send + 'static,
    ) -> Result<Self, OpenError> {
        match opened {
            Ok(Self::Ready(value)) => Ok(Self::Ready(value)),
            Ok(Self::Need(Need { wants, next })) => {
                Ok(Self::need(wants, move |answers| Self::or_else(next(answers), recover)))
            }
            Ok(Self::Refer(refer)) => {
                let references = refer.references().to_vec();
                Ok(Self::refer(references, move |referred| Self::or_else(refer.resume(referred), recover)))
            }
            Err(error) => recover(error),
        }
    }

    /// Says of every error from here on which file it is in.
    pub(crate) fn in_file(self, file: FileId) -> Self {
        let tell = move |result: Result<Self, OpenError>| match result {
            Ok(open) => Ok(open.in_file(file)),
            Err(error) => Err(error.in_file(file)),
        };
        match self {
            Self::Ready(value) => Self::Ready(value),
            Self::Need(Need { wants, next }) => Self::need(wants, move |answers| tell(next(answers))),
            Self::Refer(refer) => {
                let references = refer.references().to_vec();
                Self::refer(references, move |referred| tell(refer.resume(referred)))
            }
        }
    }
}
