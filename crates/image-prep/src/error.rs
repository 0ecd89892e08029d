//! Why a command failed: what the crates beneath report, and what only a command line can get wrong.

mod help;
#[cfg(test)]
mod tests;

use std::io;
use std::path::PathBuf;

use disk_convert::ConvertError;
use disk_convert::{SinkError, SourceError};
use disk_image::Role;
use disk_image::gce::ArchiveError;
use disk_image::qcow2::LayoutError;
use disk_image::vmdk::StreamError;
use image_api::rpc::bad_request::FieldViolation;
use image_api::{ApiError, Code, JsonError, KeyError, Violations};
use image_server::ServerError;
use object_io::{JournalError, ObjectError};

use crate::args::values::Size;
use crate::commands::ManifestError;
use crate::credentials::yc::YcError;
use crate::exit::Exit;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// An image could not be opened, read, or made into something else.
    #[error(transparent)]
    Convert(#[from] ConvertError),
    /// There is no such qcow2.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// The vmdk cannot be.
    #[error(transparent)]
    Stream(#[from] StreamError),
    /// The archive for Compute Engine cannot be.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// The object store refused, or did not answer.
    #[error(transparent)]
    Object(#[from] ObjectError),
    /// The journal of an upload is in use.
    #[error(transparent)]
    Journal(JournalError),
    /// An upload that can be continued.
    #[error("the upload to `{place}` broke off; {} of {} are in the store", Size(*sent), Size(*len))]
    Kept {
        /// Where to.
        place: String,
        /// Bytes that are known to be there.
        sent: u64,
        /// Length of the object in bytes.
        len: u64,
        /// What happened.
        source: Box<ConvertError>,
    },
    /// There is an object, and there should be none.
    #[error("`{place}` exists already")]
    Exists {
        /// The object.
        place: String,
    },
    /// There is an object, and not the one that was expected.
    #[error("`{place}` exists already, and does not say that it holds this disk in this form")]
    ExistsOther {
        /// The object.
        place: String,
    },
    /// There is an Image of the name.
    #[error("the Image `{name}` exists already: {id}")]
    ImageExists {
        /// Its name.
        name: String,
        /// Its identifier.
        id: String,
    },
    /// There is an Image of the name that cannot be taken for the one that is wanted.
    #[error("the Image `{name}` exists already, {id}, and cannot be reused: {why}")]
    ImageOther {
        /// Its name.
        name: String,
        /// Its identifier.
        id: String,
        /// What speaks against it.
        why: String,
    },
    /// `cleanup` without leave.
    #[error("nothing was removed: --yes was not given, and there is no terminal to ask on")]
    NotConfirmed,
    /// `cleanup` could not remove everything.
    #[error("{left} of {all} could not be removed")]
    CleanupLeft {
        /// How many are left.
        left: usize,
        /// How many there were.
        all: usize,
    },
    /// The cloud of `--local` does not start.
    #[error("cannot start the local cloud")]
    Local {
        /// Why not.
        source: ServerError,
    },
    /// There is no folder for the cloud of `--local`.
    #[error("there is no folder for the local cloud: neither XDG_DATA_HOME nor HOME is set")]
    NoDataHome,
    /// The image service refused, or did not answer.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// The fields of a Create break the service's rules.
    #[error("the image service would refuse this")]
    Request {
        /// Which, and why.
        source: Violations,
    },
    /// The operation ended in an error.
    #[error("operation {id} failed: {code}: {message}")]
    Operation {
        /// Its identifier.
        id: String,
        /// The canonical code.
        code: Code,
        /// The service's sentence.
        message: String,
        /// The fields of the request that it minds.
        fields: Vec<FieldViolation>,
    },
    /// The URL cannot be read, and so will the service find it.
    #[error("the image service could not read the URL")]
    Preflight {
        /// Why not.
        source: SourceError,
    },
    /// No operation was named.
    #[error("with --local the operation has to be named")]
    NoOperation,
    /// There is no way to stop an operation.
    #[error("operations of Compute Engine cannot be cancelled")]
    NoCancel,
    /// What was typed has no meaning to the cloud that was named.
    #[error("{what} is not for {cloud}")]
    OtherCloud {
        /// What was typed.
        what: &'static str,
        /// The cloud.
        cloud: &'static str,
    },
    /// Google Cloud Storage without keys or tokens for it.
    #[error("no credentials for Google Cloud Storage")]
    NoStorageCredentials {
        /// What became of asking for a token, where one was asked for.
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
    /// An Image of Compute Engine would be deleted for what nobody has looked at.
    #[error("--if-exists replace is not for Compute Engine with --uri")]
    ReplaceByUri,
    /// Compute Engine reads from Cloud Storage alone.
    #[error("Compute Engine reads from Google Cloud Storage, and by {by} the bucket is in another store")]
    StoreElsewhere {
        /// Who said so.
        by: String,
    },
    /// One endpoint for the stores of two clouds.
    #[error("--endpoint-url is for one store, and s3:// and gs:// are in two")]
    TwoStores,
    /// The store that is known is not the one that is meant.
    #[error("the store is {found}, and it is at {expected}")]
    OtherStore {
        /// The one that options and environment name.
        found: String,
        /// The one that was used.
        expected: String,
    },
    /// The service went out of sight while it worked.
    #[error("lost sight of operation {id}")]
    LostOperation {
        /// Its identifier.
        id: String,
        /// What happened.
        source: ApiError,
    },
    /// A message of the service has no JSON form.
    #[error("cannot print the answer of the image service")]
    Json {
        /// What has none.
        source: JsonError,
    },
    /// There is no token for a service that wants one.
    #[error("no token for the image service")]
    NoToken {
        /// What became of asking the machine's metadata, where they were asked.
        source: Option<ApiError>,
    },
    /// There are no credentials for Compute Engine, which wants some.
    #[error("no credentials for Compute Engine")]
    NoGoogleCredentials {
        /// What became of asking the machine's metadata, where they were asked.
        source: Option<ApiError>,
    },
    /// What should be the key of a service account is none.
    #[error("what {place} holds is not the key of a service account")]
    Key {
        /// File, variable or profile.
        place: String,
        /// Why not.
        source: KeyError,
    },
    /// A profile that was named is not there.
    #[error("there is no profile `{}` in `{}`", name.escape_debug(), path.display())]
    NoProfile {
        /// Its name.
        name: String,
        /// The file.
        path: PathBuf,
    },
    /// The configuration file does not hold profiles.
    #[error("line {line} of `{}` is not what a profile has", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: usize,
    },
    /// The profile of `yc` that was named cannot be had.
    #[error("cannot read the profile of yc in `{}`", path.display())]
    Yc {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: YcError,
    },
    /// A cloud does not say where one of its services is.
    #[error("{directory} does not say where `{id}` is")]
    NoService {
        /// The service.
        id: &'static str,
        /// Who was asked.
        directory: String,
    },
    /// The Image has no name.
    #[error("no name for the Image")]
    NoName,
    /// A file's name gives none for the Image.
    #[error("no name for the Image can be made of the file name `{}`", file.escape_debug())]
    NoNameIn {
        /// The file name.
        file: String,
    },
    /// Two Images would have one name.
    #[error("the name `{name}` is that of entry {first} too")]
    SameName {
        /// The name.
        name: String,
        /// The entry that has it already, from 1.
        first: usize,
    },
    /// An option of which there is one, for several images.
    #[error("{option} is for one image")]
    ForOne {
        /// What was typed.
        option: &'static str,
    },
    /// What should list images does not.
    #[error("`{}` is no manifest of images", path.display())]
    Manifest {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: ManifestError,
    },
    /// One of several images cannot be begun with. Its source tells the rest.
    #[error("nothing was begun, because of {place}")]
    Entry {
        /// Number and image.
        place: String,
        /// Why not.
        source: Box<Error>,
    },
    /// One of several Images was not made.
    #[error("no Image `{name}` from `{image}`")]
    NotMade {
        /// The name that it would have.
        name: String,
        /// What it would be made from.
        image: String,
        /// Why not.
        source: Box<Error>,
    },
    /// Nothing says whose the Image is to be.
    #[error("no folder for the Image")]
    NoFolder,
    /// Nothing says in which project of Compute Engine the Image is to be.
    #[error("no project for the Image")]
    NoProject,
    /// Nothing says where to upload.
    #[error("no bucket for the upload")]
    NoBucket,
    /// What should be a token is none.
    #[error("what {place} holds is not a token")]
    Token {
        /// File or variable.
        place: String,
    },
    /// IMAGE is a URL that is not read.
    #[error("`{url}` is not an https URL")]
    Scheme {
        /// Without its query.
        url: String,
    },
    /// What should hold a URL holds none that is read.
    #[error("what `{}` holds is not an https URL", path.display())]
    NoUrl {
        /// The file.
        path: PathBuf,
    },
    /// Plain http to another machine.
    #[error("plain http to {host} is not allowed")]
    PlainHttp {
        /// The host.
        host: String,
    },
    /// Reading and writing the same file.
    #[error("`{}` is both the output and a file of the image", path.display())]
    SameFile {
        /// The output.
        path: PathBuf,
    },
    /// Not the id of an Image.
    #[error("`{}` is not the id of an Image", id.escape_debug())]
    ImageId {
        /// As typed.
        id: String,
    },
    /// What an image behind a URL names lies on another machine.
    #[error(
        "--allow-references is for an IMAGE on this machine: names in an image behind a URL mean files of another"
    )]
    RemoteReferences,
    /// The file alone is not the disk.
    #[error("`{name}` is not whole without the {role} `{}` that it names", file.escape_debug())]
    NotWhole {
        /// The image.
        name: Box<str>,
        /// What the other file is for.
        role: Role,
        /// Its name, as it is written.
        file: String,
    },
    /// The file holds more states than the one that was asked for.
    #[error("--snapshot reads one state of the disk, --to source uploads the file with all of them")]
    SnapshotOfSource,
    /// An object says by its digest which disk it holds.
    #[error("--if-exists reuse goes by the guest digest, and --no-digest makes none")]
    ReuseWithoutDigest,
    /// Only a qcow2 has clusters, and compresses them.
    #[error("{option} is for a qcow2 output, this one is {form}")]
    OptionUnused {
        /// What was typed.
        option: &'static str,
        /// The form of the output.
        form: &'static str,
    },
    /// The disk does not fit what was asked for.
    #[error("--min-disk-size is {found} bytes, the image needs {needed} ({})", Size(*needed))]
    MinDiskSize {
        /// As typed.
        found: u64,
        /// The least that would do.
        needed: u64,
    },
    /// `--strict`, and the disk is not as the cloud wants it.
    #[error("`{name}` is not ready for the cloud: {points}")]
    NotReady {
        /// The image.
        name: Box<str>,
        /// What is amiss, with where that is seen.
        points: String,
    },
    /// A file of ours could not be read or written.
    #[error("cannot {action} `{}`", path.display())]
    File {
        /// What was tried, as a verb.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// Standard output refused.
    #[error("cannot write to standard output")]
    Output {
        /// The system's answer.
        source: io::Error,
    },
    /// The system refused threads or signal handlers.
    #[error("cannot start")]
    Threads {
        /// The system's answer.
        source: io::Error,
    },
    /// A defect.
    #[error("the command panicked; this is a defect of the program")]
    Panicked,
    /// Ctrl-C or SIGTERM.
    #[error("interrupted")]
    Interrupted,
}

impl Error {
    /// The other cloud, in [`Error::OtherCloud`].
    pub(crate) const COMPUTE_ENGINE: &'static str = "Compute Engine";
    /// And all but that.
    pub(crate) const YANDEX: &'static str = "this image service; --cloud gcp has it";

    /// How the program ends.
    pub(crate) fn exit(&self) -> Exit {
        match self {
            Self::Convert(error) if error.is_refusal() => Exit::Refused,
            Self::NotWhole { .. } | Self::NotReady { .. } => Exit::Refused,
            Self::Operation { .. } => Exit::OperationFailed,
            Self::Entry { source, .. } | Self::NotMade { source, .. } => source.exit(),
            Self::Request { .. }
            | Self::Scheme { .. }
            | Self::NoUrl { .. }
            | Self::PlainHttp { .. }
            | Self::SameFile { .. }
            | Self::RemoteReferences
            | Self::ImageId { .. }
            | Self::SnapshotOfSource
            | Self::ReuseWithoutDigest
            | Self::OptionUnused { .. }
            | Self::Layout(_)
            | Self::Stream(_)
            | Self::Archive(_)
            | Self::Object(ObjectError::Expiry { .. } | ObjectError::Uri(_) | ObjectError::Endpoint { .. })
            | Self::Convert(ConvertError::Budget { .. })
            | Self::MinDiskSize { .. }
            | Self::NoName
            | Self::NoNameIn { .. }
            | Self::SameName { .. }
            | Self::ForOne { .. }
            | Self::Manifest { .. }
            | Self::NoFolder
            | Self::NoProject
            | Self::OtherCloud { .. }
            | Self::ReplaceByUri
            | Self::StoreElsewhere { .. }
            | Self::TwoStores
            | Self::NoCancel
            | Self::NoBucket
            | Self::NoOperation
            | Self::NoProfile { .. } => Exit::Usage,
            Self::NotConfirmed => Exit::Usage,
            Self::Interrupted => Exit::Interrupted,
            _ => Exit::Failed,
        }
    }

    /// True if the operation that this is about may still be running: it went out of sight, or the answer that would have said
    /// whether it was begun was lost.
    pub(crate) fn may_go_on(&self) -> bool {
        match self {
            Self::LostOperation { .. } => true,
            Self::Api(ApiError::Answer { .. } | ApiError::AnswerTooLong { .. }) => true,
            Self::Api(error) => error.is_retryable(),
            _ => false,
        }
    }

    /// True if whoever read standard output has gone.
    pub(crate) fn is_broken_pipe(&self) -> bool {
        matches!(self, Self::Output { source } if source.kind() == io::ErrorKind::BrokenPipe)
    }
}

impl From<SourceError> for Error {
    fn from(error: SourceError) -> Self {
        Self::Convert(error.into())
    }
}

impl From<SinkError> for Error {
    fn from(error: SinkError) -> Self {
        Self::Convert(error.into())
    }
}
