//! Ingest from a URI as a durable, cancellable operation, behind the REST API of the image service.
