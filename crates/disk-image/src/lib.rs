//! Formats in both directions without I/O: metadata bytes in; extent maps, object maps and pure decoders out.
