//! What is said beside an error: what would help, and which fields a service minds.

use disk_convert::SourceFault;
use image_api::{ApiError, Code, KeyError};
use image_server::ServerError;

use super::Error;

impl Error {
    /// What would help, where something would.
    pub(crate) fn hint(&self) -> Option<&str> {
        match self {
            Self::Convert(error) => error.hint(),
            Self::Object(error) => error.hint(),
            Self::Journal(_) => Some("wait until the other command is done, or choose another key"),
            Self::Kept { .. } => {
                Some("run the same command again to continue; `image-prep cleanup` gives the upload up")
            }
            Self::Exists { .. } => {
                Some("choose another key, or say --if-exists reuse or --if-exists replace")
            }
            Self::ExistsOther { .. } => Some("choose another key, or say --if-exists replace"),
            Self::ImageExists { .. } | Self::ImageOther { .. } => {
                Some("choose another --name, or delete the Image that has it")
            }
            Self::NotConfirmed => Some("--yes removes, --dry-run only shows"),
            Self::CleanupLeft { .. } => Some("run it again when the store can be reached"),
            Self::Local { source: ServerError::Locked { .. } } => {
                Some("wait until the other command is done, or use another folder with --local=DIR")
            }
            Self::LostOperation { .. } => {
                Some("`image-prep operation wait` with its identifier goes on waiting")
            }
            Self::Api(ApiError::NoToken { .. } | ApiError::Key { .. }) => {
                Some("`image-prep doctor` checks the credentials step by step")
            }
            Self::Api(error) => match error.code() {
                Code::Unauthenticated => Some(
                    "the token may have expired; `yc iam create-token` makes a new one, `gcloud auth print-access-token` one of Google's",
                ),
                Code::AlreadyExists => Some("choose another --name, or delete the Image that has it"),
                _ => None,
            },
            Self::Preflight { source } => match source.fault {
                SourceFault::Expired => Some("sign a new URL; --expires says for how long one is good"),
                SourceFault::NotFound => Some("there is nothing at that address; check bucket and key"),
                _ => Some("whoever signed the URL must be allowed to read the object"),
            },
            Self::NoToken { .. } => Some(
                "put an IAM token into YC_TOKEN, or name a file with --token-file or --service-account-key-file",
            ),
            Self::Key { source: KeyError::Kind { .. }, .. } => Some(
                "`gcloud auth print-access-token` makes a token for --token-file or GOOGLE_OAUTH_ACCESS_TOKEN",
            ),
            Self::Key { .. } => Some(
                "`yc iam key create --output FILE` makes a key, `gcloud iam service-accounts keys create FILE` one of Google's",
            ),
            Self::NoGoogleCredentials { .. } => Some(
                "`gcloud auth application-default login` makes some, or name a key file in GOOGLE_APPLICATION_CREDENTIALS or a token in \
                 GOOGLE_OAUTH_ACCESS_TOKEN",
            ),
            Self::NoStorageCredentials { .. } => Some(
                "`gcloud auth application-default login` makes some; or an HMAC key, which is an access id and a secret of an account that \
                 may write the bucket: `gcloud storage hmac create ACCOUNT` makes one, put it into AWS_ACCESS_KEY_ID and \
                 AWS_SECRET_ACCESS_KEY",
            ),
            Self::ReplaceByUri => Some(
                "an Image there has to be deleted before another can have its name: delete it first, or choose another --name",
            ),
            Self::StoreElsewhere { .. } => {
                Some("leave that out, or name an --endpoint that reads from that store")
            }
            Self::TwoStores => Some(
                "name the store of s3:// in AWS_ENDPOINT_URL_S3; one that stands in for Google's in STORAGE_EMULATOR_HOST",
            ),
            Self::NoCancel => Some("delete the Image when the operation is done"),
            Self::NoProject => Some("say --project, or put it into GOOGLE_CLOUD_PROJECT or a profile"),
            Self::Config { .. } => Some(
                "a profile has cloud, endpoint, folder-id, project, token-file, service-account-key-file, \
                 instance-service-account, yc-profile, bucket, storage-endpoint-url, region, aws-profile",
            ),
            Self::NoName => Some("say --name"),
            Self::NoNameIn { .. } | Self::SameName { .. } => {
                Some("say `name` in a manifest (--manifest FILE)")
            }
            Self::ForOne { option: "--name" } => Some(
                "leave --name out to have the Images named after their files, or use a manifest (--manifest FILE)",
            ),
            Self::Manifest { .. } => Some("`image-prep create --help` says what --manifest takes"),
            Self::Entry { source, .. } | Self::NotMade { source, .. } => source.hint(),
            Self::NoFolder => Some("say --folder-id, or put it into YC_FOLDER_ID or a profile"),
            Self::NoBucket => Some(
                "say --bucket, or put it into IMAGE_PREP_BUCKET or a profile; with its scheme into a profile of another cloud",
            ),
            Self::Token { .. } => Some("a token is one line of visible ASCII"),
            Self::Scheme { .. } => Some("IMAGE is a path, a block device, or an https URL"),
            Self::PlainHttp { .. } => Some("use https, or allow it with --allow-http"),
            Self::RemoteReferences => Some("download the image and the files that it names first"),
            Self::NotReady { .. } => {
                Some("`image-prep info` says what would help; without --strict these are warnings")
            }
            Self::NotWhole { .. } => Some("upload it with --to qcow2 or --to raw"),
            Self::SnapshotOfSource => Some("upload the snapshot with --to qcow2 or --to raw"),
            Self::SameFile { .. } => Some("write to another file, then rename it"),
            Self::MinDiskSize { .. } => Some("leave --min-disk-size out to get what the image needs"),
            _ => None,
        }
    }

    /// What the service said beyond its sentence: the fields that it minds, where the sentence does not name them.
    pub(crate) fn details(&self) -> Vec<String> {
        let (message, violations) = match self {
            Self::Api(ApiError::Status(status)) => (&status.message, status.field_violations()),
            Self::Operation { message, fields, .. } => (message, fields.clone()),
            Self::Entry { source, .. } | Self::NotMade { source, .. } => return source.details(),
            _ => return Vec::new(),
        };
        violations
            .into_iter()
            .filter(|violation| !message.contains(&violation.description))
            .map(|violation| format!("{}: {}", violation.field, violation.description))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use image_api::rpc::BadRequest;
    use image_api::rpc::bad_request::FieldViolation;
    use image_api::{StatusError, any_of};

    use super::*;

    #[test]
    fn fields_that_the_sentence_does_not_name_are_told() {
        let violation = |field: &str, description: &str| FieldViolation {
            field: field.to_owned(),
            description: description.to_owned(),
        };
        let field_violations = vec![violation("name", "too long"), violation("labels", "too many")];
        let error = Error::Api(ApiError::Status(Box::new(StatusError {
            code: Code::InvalidArgument,
            message: "name: too long".to_owned(),
            details: vec![any_of(&BadRequest { field_violations })],
            http_status: 400,
            request_id: None,
            retry_after: None,
        })));
        assert_eq!(error.details(), ["labels: too many"]);
    }
}
