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
//!     }
//! };
//! assert_eq!(image.virtual_size(), 1 << 20);
//! # Ok(())
//! # }
//! ```

use bytes::Bytes;

use crate::{OpenError, Stored};

/// What opening has come to.
pub enum Open<T> {
    /// The result.
    Ready(T),
    /// More bytes are needed.
    Need(Need<T>),
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

impl<T: 'static> Open<T> {
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
}
