//! What only a command line can get wrong.

use std::io;

use image_api::rpc::bad_request::FieldViolation;
use image_api::{ApiError, Code, JsonError, KeyError, Violations};

use super::super::Error;
use super::beneath::{json_error, open_error, source_error, status};
use crate::commands::ManifestError;
use crate::credentials::yc::YcError;

pub(super) fn samples() -> Vec<Error> {
    let json = || JsonError::Write { message: "Image".to_owned(), source: json_error() };
    let field = |field: &str, description: &str| FieldViolation {
        field: field.to_owned(),
        description: description.to_owned(),
    };
    let text = str::to_owned;
    let refused = || io::Error::from(io::ErrorKind::PermissionDenied);
    vec![
        Error::Kept { place: text("s3://b/k"), sent: 64 << 20, len: 3 << 30, source: Box::new(open_error()) },
        Error::Exists { place: text("s3://b/k") },
        Error::ExistsOther { place: text("s3://b/k") },
        Error::ImageExists { name: text("web"), id: text("fd8x") },
        Error::ImageOther { name: text("web"), id: text("fd8x"), why: text("it holds another disk") },
        Error::NotConfirmed,
        Error::CleanupLeft { left: 2, all: 5 },
        Error::NoDataHome,
        Error::Request { source: Violations::one("name", "has 64 characters, at most 63 are allowed") },
        Error::Operation {
            id: text("fd9x"),
            code: Code::InvalidArgument,
            message: text("name: too long"),
            fields: vec![field("name", "too long"), field("labels", "too many\nof them")],
        },
        Error::Preflight { source: source_error(disk_convert::SourceFault::Expired) },
        Error::Preflight { source: source_error(disk_convert::SourceFault::NotFound) },
        Error::Preflight { source: source_error(disk_convert::SourceFault::Denied) },
        Error::NoOperation,
        Error::OtherStore { found: text("https://a"), expected: text("https://b") },
        Error::LostOperation { id: text("fd9x"), source: ApiError::Cancelled },
        Error::Json { source: json() },
        Error::NoToken { source: None },
        Error::NoToken { source: Some(status(Code::Unavailable, "no metadata")) },
        Error::NoCancel,
        Error::OtherCloud { what: "--pooled", cloud: Error::COMPUTE_ENGINE },
        Error::OtherCloud { what: "--license", cloud: Error::YANDEX },
        Error::ReplaceByUri,
        Error::StoreElsewhere { by: "STORAGE_EMULATOR_HOST".to_owned() },
        Error::TwoStores,
        Error::NoStorageCredentials { source: None },
        Error::NoStorageCredentials { source: Some("no metadata".into()) },
        Error::NoGoogleCredentials { source: None },
        Error::NoGoogleCredentials { source: Some(status(Code::Unavailable, "no metadata")) },
        Error::NoProject,
        Error::Key { place: text("`key.json`"), source: KeyError::Pem },
        Error::Key { place: text("`key.json`"), source: KeyError::Kind { found: text("external_account") } },
        Error::NoProfile { name: text("work"), path: "config.toml".into() },
        Error::Config { path: "config.toml".into(), line: 7 },
        Error::Yc { path: "config.yaml".into(), source: YcError::NoProfile { name: text("work") } },
        Error::NoService { id: "compute", directory: text("https://api.example") },
        Error::NoName,
        Error::NoNameIn { file: text("_.qcow2") },
        Error::SameName { name: text("web"), first: 2 },
        Error::ForOne { option: "--name" },
        Error::ForOne { option: "--key" },
        Error::Manifest { path: "images.toml".into(), source: ManifestError::Empty },
        Error::Entry { place: text("entry 2, `a.qcow2`"), source: Box::new(Error::NoName) },
        Error::NotMade {
            name: text("web"),
            image: text("a.qcow2"),
            source: Box::new(Error::Convert(open_error())),
        },
        Error::NoFolder,
        Error::NoBucket,
        Error::Token { place: text("YC_TOKEN") },
        Error::Scheme { url: text("ftp://host/disk") },
        Error::NoUrl { path: "url.txt".into() },
        Error::PlainHttp { host: text("host.example") },
        Error::SameFile { path: "disk.raw".into() },
        Error::ImageId { id: text("a\u{1b}[31m/b") },
        Error::RemoteReferences,
        Error::NotWhole { name: "over".into(), role: disk_image::Role::BackingFile, file: text("base.raw") },
        Error::SnapshotOfSource,
        Error::ReuseWithoutDigest,
        Error::OptionUnused { option: "--compress", form: "raw" },
        Error::MinDiskSize { found: 1 << 20, needed: 4 << 20 },
        Error::NotReady {
            name: "disk".into(),
            points: text("console: NO: the kernel is not told console=ttyS0"),
        },
        Error::File { action: "write man pages into", path: "pages".into(), source: refused() },
        Error::Output { source: io::Error::from(io::ErrorKind::StorageFull) },
        Error::Threads { source: refused() },
        Error::Panicked,
        Error::Interrupted,
    ]
}
