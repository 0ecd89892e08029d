//! Criterion benchmarks of the engine and its peers.
