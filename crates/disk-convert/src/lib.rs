//! Makes the parts of an output within a memory budget, from any byte source to any sink.
