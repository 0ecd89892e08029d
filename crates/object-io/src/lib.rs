//! Speaks to object stores: a bucket's verbs, ranged GET of a pre-signed URL, multipart upload, pre-signing.
