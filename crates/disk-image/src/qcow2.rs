//! QCOW2.
use crate::*;
/// From the header.
#[derive(Debug, Clone)]
pub struct Details {}
/// The layout.
#[derive(Debug, Clone)]
pub struct Layout {}
impl Layout {
    pub(crate) fn len(&self) -> u64 {
        0
    }
    pub(crate) fn cluster_size(&self) -> u64 {
        0
    }
    pub(crate) fn segment_at(&self, at: u64) -> Segment {
        Segment { object: Span::new(at, 1), fill: Fill::Zero }
    }
}
pub(crate) fn open(_file_len: u64) -> Result<Open<Image>, OpenError> {
    Err(OpenError::Empty)
}
