//! What an operation of Compute Engine says about its end, and the same in our own shape.
//!
//! Source: <https://cloud.google.com/compute/docs/reference/rest/v1/globalOperations>. Google's operation names what it is about and
//! does not hold it; ours has an answer. So the shape that callers are given is ours for both clouds, with Google's operation as its
//! metadata and Google's image as its response: nothing of either is lost.

use crate::{Code, Operation, any_of, google, operation::operation::Result as Ending, rpc::Status};

impl google::Operation {
    /// Whether it has ended, well or not.
    pub fn is_done(&self) -> bool {
        self.status() == "DONE"
    }

    /// Why it failed, if it did. Google's own words for codes stand before its sentences where no canonical one says the same.
    pub fn failure(&self) -> Option<Status> {
        let faults = self.error.as_ref().map(|error| error.errors.as_slice()).unwrap_or_default();
        let http = self.http_error_status_code.and_then(|status| u16::try_from(status).ok());
        if faults.is_empty() && http.is_none_or(|status| status < 400) {
            return None;
        }
        let word = faults.first().map(google::OperationFault::code).unwrap_or_default();
        let code = match Code::of_name(word) {
            Some(code) => code,
            None if word.ends_with("ALREADY_EXISTS") => Code::AlreadyExists,
            None => http.map_or(Code::Unknown, Code::from_http_status),
        };
        let told = |fault: &google::OperationFault| match fault.code() {
            "" => fault.message().to_owned(),
            word if Code::of_name(word).is_some() => fault.message().to_owned(),
            word => format!("{word}: {}", fault.message()),
        };
        let mut message = faults.iter().map(told).collect::<Vec<_>>().join("; ");
        if message.is_empty() {
            message = self.http_error_message().to_owned();
        }
        Some(Status::new(code, message))
    }

    /// The same in our own shape; `image` is what it has made, where that is known.
    pub fn into_ours(self, image: Option<&google::Image>) -> Operation {
        let time = |text: &str| text.parse().ok();
        let done = self.is_done();
        let result = match self.failure() {
            Some(status) => Some(Ending::Error(status)),
            None => image.filter(|_| done).map(|image| Ending::Response(any_of(image))),
        };
        Operation {
            id: self.name().to_owned(),
            description: format!("{} image", self.operation_type()),
            created_at: time(self.insert_time()),
            created_by: self.user().to_owned(),
            modified_at: [self.end_time(), self.start_time(), self.insert_time()].into_iter().find_map(time),
            done,
            metadata: Some(any_of(&self)),
            result,
        }
    }

    /// The name of what it is about: the last segment of its URL.
    pub fn target_name(&self) -> &str {
        self.target_link().rsplit('/').next().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{OperationOutcome, from_json_lenient, to_json_value, unpack};

    fn read(text: &str) -> google::Operation {
        from_json_lenient(text.as_bytes()).unwrap()
    }

    /// As Google answers, with what we do not read.
    const RUNNING: &str = r#"{"kind":"compute#operation","id":"4711","name":"operation-1700000000000-60a5b8c2d3e4f-abcdef12-3456789a",
        "operationType":"insert","targetLink":"https://www.googleapis.com/compute/v1/projects/p/global/images/web","targetId":"99",
        "status":"RUNNING","user":"me@example.com","progress":30,"insertTime":"2026-01-02T03:04:05.678-08:00",
        "startTime":"2026-01-02T03:04:06.000-08:00","selfLink":"https://x/y","warnings":[{"code":"X"}]}"#;

    #[test]
    fn what_goes_on_has_no_end() {
        let operation = read(RUNNING);
        assert!(!operation.is_done() && operation.failure().is_none());
        assert_eq!((operation.target_name(), operation.progress), ("web", Some(30)));
        let ours = operation.clone().into_ours(Some(&google::Image::default()));
        assert_eq!(ours.outcome(), OperationOutcome::Running);
        assert_eq!((ours.description.as_str(), ours.created_by.as_str()), ("insert image", "me@example.com"));
        assert_eq!(ours.created_at.unwrap().to_string(), "2026-01-02T11:04:05.678Z");
        assert_eq!(ours.metadata_as::<google::Operation>(), Some(operation));
    }

    #[test]
    fn a_success_has_its_image() {
        let mut operation = read(RUNNING);
        operation.status = Some("DONE".to_owned());
        let image = google::Image { name: Some("web".to_owned()), id: Some(99), ..google::Image::default() };
        let ours = operation.clone().into_ours(Some(&image));
        let OperationOutcome::Succeeded(Some(response)) = ours.outcome() else { panic!("{ours:?}") };
        assert_eq!(unpack::<google::Image>(&response).unwrap(), image);
        let json = to_json_value(&ours).unwrap();
        assert_eq!(json["response"]["@type"], "type.googleapis.com/google.cloud.compute.v1.Image");
        assert_eq!((&json["response"]["id"], &json["metadata"]["progress"]), (&"99".into(), &30.into()));
        assert_eq!(operation.into_ours(None).outcome(), OperationOutcome::Succeeded(None), "a deletion");
    }

    #[test]
    fn failures_have_our_codes_and_googles_words() {
        for (error, http, code, message) in [
            (r#"{"errors":[{"code":"INVALID_ARGUMENT","message":"no"}]}"#, 400, Code::InvalidArgument, "no"),
            (
                r#"{"errors":[{"code":"RESOURCE_ALREADY_EXISTS","message":"a"},{"message":"b"}]}"#,
                409,
                Code::AlreadyExists,
                "RESOURCE_ALREADY_EXISTS: a; b",
            ),
            (
                r#"{"errors":[{"code":"INVALID_IMAGE","message":"the tar","errorDetails":[{}]}]}"#,
                400,
                Code::InvalidArgument,
                "INVALID_IMAGE: the tar",
            ),
            ("{}", 503, Code::Unavailable, "SERVICE UNAVAILABLE"),
        ] {
            let text = format!(
                r#"{{"status":"DONE","error":{error},"httpErrorStatusCode":{http},"httpErrorMessage":"SERVICE UNAVAILABLE"}}"#
            );
            let failure = read(&text).failure().unwrap();
            assert_eq!((failure.canonical_code(), failure.message.as_str()), (code, message));
        }
        assert_eq!(read(r#"{"status":"DONE","error":{}}"#).failure(), None);
    }
}
