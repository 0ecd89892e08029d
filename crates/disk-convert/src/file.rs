//! Local files and block devices, as sources and as sinks.

mod device;
mod flusher;
mod sharing;
mod sink;
mod source;

pub use device::DeviceSink;
pub use sink::FileSink;
pub use source::FileSource;
