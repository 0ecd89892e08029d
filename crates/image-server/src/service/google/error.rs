//! A refused call as Google says it: `{"error": {"code", "message", "errors": [{"message", "domain", "reason"}], "status"}}`.
//!
//! Source: <https://cloud.google.com/apis/design/errors#http_mapping>, and what the images API answers. `code` is the HTTP status, each
//! broken rule an entry of `errors` that names the field as the body has it.

use image_api::{
    Code,
    google::{ErrorReply, RequestError, RequestFault},
    rpc::Status,
    to_json,
};

/// Whether a path is one of Compute Engine's, served or not: errors have Google's shape there.
pub(crate) fn is_google(path: &str) -> bool {
    path.starts_with("/compute/v1/projects/")
}

/// HTTP status and body; with another HTTP status than that of the code where one is given.
pub(crate) fn error_reply(status: &Status, http: Option<u16>) -> (u16, String) {
    let (of_code, error) = error_of(status);
    let http = http.unwrap_or(of_code);
    let reply = ErrorReply { error: Some(RequestError { code: http.into(), ..error }) };
    // Text and numbers only: it has a JSON form.
    (http, to_json(&reply).unwrap_or_default())
}

fn error_of(status: &Status) -> (u16, RequestError) {
    let code = status.canonical_code();
    let (http, reason) = match code {
        Code::InvalidArgument | Code::OutOfRange => (400, "invalid"),
        Code::FailedPrecondition => (400, "resourceNotReady"),
        Code::Unauthenticated => (401, "authError"),
        Code::PermissionDenied => (403, "forbidden"),
        Code::NotFound => (404, "notFound"),
        Code::AlreadyExists => (409, "alreadyExists"),
        Code::Aborted => (412, "conditionNotMet"),
        Code::ResourceExhausted => (429, "rateLimitExceeded"),
        Code::Unimplemented => (501, "notImplemented"),
        Code::Unavailable => (503, "backendError"),
        other => (other.http_status(), "backendError"),
    };
    let fault =
        |message: String| RequestFault { message, domain: "global".to_owned(), reason: reason.to_owned() };
    let violations = status.field_violations();
    let errors: Vec<_> = match violations.is_empty() {
        true => vec![fault(status.message.clone())],
        false => {
            let said = violations.into_iter().map(|violation| {
                let field = field_of(&violation.field);
                format!("Invalid value for field '{field}': {}", violation.description)
            });
            said.map(fault).collect()
        }
    };
    let message = errors.iter().map(|error| error.message.as_str()).collect::<Vec<_>>().join("; ");
    (http, RequestError { code: http.into(), message, errors, status: code.name().to_owned() })
}

/// A field as the caller wrote it: `image_resource.raw_disk.source` is `resource.rawDisk.source`. Fields of our own API, which a
/// translated call may break, are what they were translated from.
fn field_of(path: &str) -> String {
    let path = match path {
        "uri" => "image_resource.raw_disk.source",
        "disk_id" => "image_resource.source_disk",
        "snapshot_id" => "image_resource.source_snapshot",
        "min_disk_size" => "image_resource.disk_size_gb",
        "folder_id" => "project",
        path => path,
    };
    let path = path.replacen("global_set_labels_request_resource", "resource", 1);
    let path = path.replacen("image_resource", "resource", 1);
    // The key of a label is as it is.
    let (names, key) = match path.split_once(".labels.") {
        Some((names, key)) => (format!("{names}.labels"), format!(".{key}")),
        None => (path, String::new()),
    };
    let mut field = String::new();
    let mut is_first = false;
    for c in names.chars() {
        match c {
            '_' => is_first = true,
            c if is_first => {
                field.push(c.to_ascii_uppercase());
                is_first = false;
            }
            c => field.push(c),
        }
    }
    field + &key
}

#[cfg(test)]
mod tests {
    use image_api::Violations;

    use super::*;

    #[test]
    fn fields_are_named_as_the_caller_wrote_them() {
        for (ours, theirs) in [
            ("image_resource.name", "resource.name"),
            ("image_resource.raw_disk.source", "resource.rawDisk.source"),
            ("image_resource.labels.my_key", "resource.labels.my_key"),
            ("image_resource.guest_os_features[1].type", "resource.guestOsFeatures[1].type"),
            ("global_set_labels_request_resource.label_fingerprint", "resource.labelFingerprint"),
            ("request_id", "requestId"),
            ("uri", "resource.rawDisk.source"),
            ("folder_id", "project"),
        ] {
            assert_eq!(field_of(ours), theirs);
        }
    }

    #[test]
    fn the_shape() {
        let status = Status::new(Code::AlreadyExists, "taken");
        let (http, body) = error_reply(&status, None);
        assert_eq!(http, 409);
        let body: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!(
            body,
            serde_json::json!({"error": {
                "code": 409, "message": "taken", "status": "ALREADY_EXISTS",
                "errors": [{"message": "taken", "domain": "global", "reason": "alreadyExists"}],
            }})
        );
        let two = Violations::all([
            Violations::one("image_resource.name", "required, found nothing"),
            Violations::one("request_id", "no"),
        ]);
        let (_, reply) = error_of(&two.unwrap().into_status());
        assert_eq!((reply.code, reply.errors.len(), reply.status.as_str()), (400, 2, "INVALID_ARGUMENT"));
        assert_eq!(
            reply.errors[0].message,
            "Invalid value for field 'resource.name': required, found nothing"
        );
        assert_eq!(error_of(&Status::new(Code::Aborted, "")).0, 412);
        let body = error_reply(&Status::new(Code::Unimplemented, ""), Some(405)).1;
        assert!(body.contains("\"code\":405"), "{body}");
    }
}
