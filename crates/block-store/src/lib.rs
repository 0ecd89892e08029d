//! Content-addressed raw blocks and the manifests that list them, as a sink and as a byte source.
