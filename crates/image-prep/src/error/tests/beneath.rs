//! What the crates beneath report: of each way to fail that has an exit code, a sentence or a hint of its own, one.

use std::io;
use std::time::{Duration, UNIX_EPOCH};

use disk_convert::{ConvertError, ReferenceFault, SinkError, SinkFault, SourceError, SourceFault};
use disk_image::gce::ArchiveError;
use disk_image::qcow2::LayoutError;
use disk_image::vmdk::StreamError;
use disk_image::{Compression, DecodeError, Feature, FileId, Format, Item, OpenError, Reference, Role, Span};
use image_api::rpc::BadRequest;
use image_api::rpc::bad_request::FieldViolation;
use image_api::{ApiError, Code, KeyError, StatusError, TransportError, any_of};
use image_server::ServerError;
use object_io::{Answer, JournalError, ObjectError, UriError, Verb};

use super::super::Error;

pub(super) fn samples() -> Vec<Error> {
    let mut samples: Vec<Error> = opening().into_iter().map(opened).map(Error::Convert).collect();
    samples.extend(converting().into_iter().map(Error::Convert));
    samples.extend(sources().map(|fault| source_error(fault).into()));
    samples.extend(sinks().map(|fault| SinkError::new("out.raw", Some(4096), fault).into()));
    samples.extend([
        Error::Layout(LayoutError::ClusterSize(1000)),
        Error::Layout(LayoutError::Fragmented(512)),
        Error::Stream(StreamError::TooMuchData(3 << 40)),
        Error::Archive(ArchiveError::Empty),
    ]);
    samples.extend(objects().into_iter().map(Error::Object));
    samples.push(Error::Journal(JournalError::Locked { place: "s3://b/k".into() }));
    samples.push(Error::Local { source: ServerError::Locked { dir: "state".into() } });
    let listen = ([127, 0, 0, 1], 80).into();
    samples.push(Error::Local {
        source: ServerError::Listen { listen, source: io::ErrorKind::AddrInUse.into() },
    });
    samples.extend(calls().into_iter().map(Error::Api));
    samples
}

pub(super) fn open_error() -> ConvertError {
    opened(OpenError::Empty)
}

pub(super) fn source_error(fault: SourceFault) -> SourceError {
    SourceError::new("disk.qcow2", Span::new(65536, 512), fault)
}

/// Of a document that ends where an object should begin.
pub(super) fn json_error() -> serde_json::Error {
    serde_json::from_str::<serde_json::Value>("").unwrap_err()
}

pub(super) fn status(code: Code, message: &str) -> ApiError {
    ApiError::Status(Box::new(StatusError {
        code,
        message: message.to_owned(),
        details: Vec::new(),
        http_status: 400,
        request_id: Some("r-1".to_owned()),
        retry_after: None,
    }))
}

fn opened(source: OpenError) -> ConvertError {
    ConvertError::Open { name: "disk.qcow2".into(), source }
}

fn opening() -> Vec<OpenError> {
    let what = Item::Entry("L2 table", 8191);
    let disks = || vec!["a.vmdk".to_owned(), "b.vmdk".to_owned()];
    vec![
        OpenError::Empty,
        OpenError::UnknownFormat,
        OpenError::Ambiguous(Format::Qcow2, Format::Vmdk),
        OpenError::Signature { expected: Format::Qcow2, found: *b"KDMV", signature: *b"QFI\xfb" },
        OpenError::Truncated { what, span: Span::new(0x7fff_ffff_0000, 65536), file_len: 0x1234_0000 },
        OpenError::Field { what: Item::The("cluster size"), found: 99, expected: "9 to 21" },
        OpenError::Checksum { what: Item::The("header"), found: 1, expected: 2 },
        OpenError::Limit { what: Item::The("virtual size"), found: 1 << 60, limit: 1 << 50 },
        OpenError::Missing { what: Item::The("footer"), span: Span::new(0, 512) },
        OpenError::Claimed { what, at: 65536 },
        OpenError::Overlap { what, other: Item::The("header"), at: 65536 },
        OpenError::ParentCid { found: 1, expected: 2 },
        OpenError::Descriptor { line: 3, expected: "KEY=VALUE" },
        OpenError::Unsupported(Feature::Luks),
        OpenError::Unsupported(Feature::VmdkExtentFiles),
        OpenError::Unsupported(Feature::CompressedTwice(Compression::Gzip)),
        OpenError::Inside { compression: Compression::Gzip, error: Box::new(OpenError::UnknownFormat) },
        OpenError::Damaged { what: Item::Numbered("gzip member", 3), content: 65536 },
        OpenError::Unsupported(Feature::OtherFormat("xz")),
        OpenError::Undeclared { role: Role::BackingFile, name: "base".to_owned() },
        OpenError::Unnamed(Role::DataFile),
        OpenError::SeveralSnapshots,
        OpenError::NoSnapshot,
        OpenError::SeveralDisks(disks()),
        OpenError::NoMember(disks()),
        OpenError::NoArchive,
        OpenError::In { file: FileId(1), error: Box::new(OpenError::UnknownFormat) },
    ]
}

fn converting() -> Vec<ConvertError> {
    let reference = || Reference {
        by: FileId::IMAGE,
        name: "../base\u{1b}".to_owned(),
        role: Role::BackingFile,
        format: Format::Raw,
    };
    let named = |source| ConvertError::Reference { name: "over".into(), reference: reference(), source };
    vec![
        named(ReferenceFault::Denied),
        named(ReferenceFault::Outside),
        named(ReferenceFault::Io(io::ErrorKind::NotFound.into())),
        ConvertError::Partial { name: "over".into() },
        ConvertError::Decode {
            name: "disk.qcow2".into(),
            guest: 65536,
            stored: 4096,
            source: DecodeError::Damaged("zlib"),
        },
        ConvertError::Budget { memory: 1 << 20, needed: 16 << 20 },
        ConvertError::TooManyParts { len: 1 << 50, part: 5 << 20 },
        ConvertError::Cancelled,
        ConvertError::Panicked,
    ]
}

fn sources() -> impl Iterator<Item = SourceFault> {
    use SourceFault::{Changed, Denied, Expired, Forbidden, Io, NoRanges, NotAFile, NotFound};
    use SourceFault::{Protocol, Scattered, Shrunk, Stalled, Unavailable};
    let all = [NotFound, Denied, Expired, NotAFile, Changed, Shrunk, Stalled, NoRanges, Forbidden, Protocol];
    all.into_iter().chain([Scattered, Unavailable, Io])
}

fn sinks() -> impl Iterator<Item = SinkFault> {
    use SinkFault::{
        Busy, Cancelled, Checksum, Denied, Io, NoSpace, NotAFile, NotFound, Protocol, Unavailable,
    };
    let small = SinkFault::TooSmall { room: 1 << 20, needed: 2 << 20 };
    let all =
        [NotFound, Denied, NoSpace, Busy, NotAFile, small, Checksum, Protocol, Unavailable, Io, Cancelled];
    all.into_iter()
}

fn objects() -> Vec<ObjectError> {
    let source = Answer {
        status: 403,
        code: Some("AccessDenied".into()),
        message: Some("no".into()),
        request_id: Some("r-1".into()),
        retry_after: None,
        time: None,
    };
    let answer = || source.clone();
    let place = || "s3://b/k".into();
    let verb = Verb::Put;
    let broken = || Box::new(io::Error::from(io::ErrorKind::ConnectionRefused));
    vec![
        ObjectError::NoCredentials,
        ObjectError::Credentials { source: broken() },
        ObjectError::Endpoint { endpoint: "host".into() },
        ObjectError::Uri(UriError::NoKey),
        ObjectError::NoSuchBucket { place: place(), source: answer() },
        ObjectError::NoSuchKey { place: place(), source: answer() },
        ObjectError::NoSuchUpload { place: place(), source: answer() },
        ObjectError::AccessDenied { verb, place: place(), source: answer() },
        ObjectError::Clock {
            verb,
            place: place(),
            off: Duration::from_secs(3600),
            is_ahead: true,
            store_time: UNIX_EPOCH,
            source: Box::new(answer()),
        },
        ObjectError::PreconditionFailed { place: place() },
        ObjectError::BucketTaken { place: place() },
        ObjectError::WrongRegion { place: place(), source: answer() },
        ObjectError::Checksum { place: place(), source: None },
        ObjectError::Length { place: place(), found: 1, expected: 2 },
        ObjectError::TooLong { place: place(), found: 2, limit: 1 },
        ObjectError::Expiry { asked: Duration::from_secs(864_000), limit: Duration::from_secs(604_800) },
        ObjectError::Refused { verb, place: place(), source: answer() },
        ObjectError::Failed { verb, place: place(), source: answer() },
        ObjectError::Unreachable { verb, place: place(), source: broken() },
        ObjectError::TimedOut { verb, place: place() },
        ObjectError::Protocol { verb, place: place(), source: None },
        ObjectError::Unknown {
            place: place(),
            source: Box::new(ObjectError::TimedOut { verb, place: place() }),
        },
        ObjectError::PartLost { place: place(), number: 7 },
        ObjectError::Cancelled,
    ]
}

fn calls() -> Vec<ApiError> {
    let call = "POST images";
    let violation = FieldViolation { field: "labels".to_owned(), description: "too many".to_owned() };
    let minded = ApiError::Status(Box::new(StatusError {
        code: Code::InvalidArgument,
        message: "the request is not valid".to_owned(),
        details: vec![any_of(&BadRequest { field_violations: vec![violation] })],
        http_status: 400,
        request_id: Some("r-1".to_owned()),
        retry_after: None,
    }));
    vec![
        ApiError::Endpoint,
        minded,
        status(Code::Unauthenticated, "the token is not valid"),
        status(Code::PermissionDenied, "no rights"),
        status(Code::NotFound, "no such folder"),
        status(Code::AlreadyExists, "the name is taken"),
        status(Code::ResourceExhausted, "the quota is used up"),
        ApiError::Transport {
            call,
            server: "api.example:443".to_owned(),
            source: TransportError::TimedOut { after: Duration::from_secs(30) },
        },
        ApiError::AnswerTooLong { call, limit: 1 << 20 },
        ApiError::NoToken {
            whose: "the service account".to_owned(),
            source: Box::new(status(Code::Unavailable, "later")),
        },
        ApiError::NotAToken,
        ApiError::Key { source: KeyError::Rsa },
        ApiError::Cancelled,
    ]
}
