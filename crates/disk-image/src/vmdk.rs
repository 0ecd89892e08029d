//! VMDK.
use crate::*;
/// From the header.
#[derive(Debug, Clone)]
pub struct Details {}
pub(crate) fn open(_file_len: u64) -> Result<Open<Image>, OpenError> {
    Err(OpenError::Empty)
}
