//! The S3 server under --local and under the tests: s3s over a folder.
