//! Moves disk images into a cloud: inspect, convert, upload, create.
