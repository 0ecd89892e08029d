//! An operation as Google shows it.

use axum::http::StatusCode;
use image_api::{
    OperationOutcome,
    google::{Operation, OperationError, OperationFault},
};

use super::links::{Links, number_of};
use crate::{
    catalog::SeenOperation,
    operation::{Kind, State},
};

/// The operation; `progress` of 100.
pub(super) fn show(seen: &SeenOperation, progress: i32, links: &Links) -> Operation {
    let SeenOperation { image_id, state, about, message, .. } = seen;
    let time = |at: Option<image_api::Timestamp>| at.map(|at| at.to_string());
    // Work that is being taken back is still going on.
    let status = match state {
        State::Queued => "PENDING",
        State::Running | State::Cancelling => "RUNNING",
        State::Succeeded | State::Failed | State::Cancelled => "DONE",
    };
    let operation_type = [(Kind::Create, "insert"), (Kind::Delete, "delete")]
        .into_iter()
        .find(|(kind, _)| kind.description() == message.description)
        .map_or("update", |(_, word)| word);
    let mut shown = Operation {
        id: Some(number_of(&message.id)),
        kind: Some("compute#operation".to_owned()),
        name: Some(message.id.clone()),
        user: Some(message.created_by.clone()),
        // Known until another state comes.
        start_time: time(message.modified_at).filter(|_| status == "RUNNING"),
        target_link: Some(links.image(&about.folder_id, name_of(&about.image_name, image_id))),
        progress: Some(progress),
        end_time: time(message.modified_at).filter(|_| message.done),
        status: Some(status.to_owned()),
        target_id: Some(number_of(image_id)),
        client_operation_id: about.key.clone(),
        operation_type: Some(operation_type.to_owned()),
        insert_time: time(message.created_at),
        self_link: Some(links.operation(&about.folder_id, &message.id)),
        ..Operation::default()
    };
    if let OperationOutcome::Failed(error) = message.outcome() {
        let code = error.canonical_code();
        let words = StatusCode::from_u16(code.http_status()).ok();
        let words = words.and_then(|status| status.canonical_reason()).unwrap_or(code.name());
        shown.http_error_status_code = Some(code.http_status().into());
        shown.http_error_message = Some(words.to_ascii_uppercase());
        let fault = OperationFault { code: Some(code.name().to_owned()), message: Some(error.message) };
        shown.error = Some(OperationError { errors: vec![fault] });
    }
    shown
}

/// What an image is called in paths.
pub(super) fn name_of<'a>(name: &'a str, id: &'a str) -> &'a str {
    if name.is_empty() { id } else { name }
}

#[cfg(test)]
mod tests {
    use image_api::{Code, Timestamp, operation::operation, rpc::Status};

    use super::*;
    use crate::catalog::About;

    fn seen(state: State, description: &str) -> SeenOperation {
        let message = image_api::Operation {
            id: "fd8o".to_owned(),
            description: description.to_owned(),
            created_by: "token-1".to_owned(),
            created_at: Some(Timestamp { seconds: 0, nanos: 0 }),
            modified_at: Some(Timestamp { seconds: 1, nanos: 0 }),
            done: state.is_done(),
            ..image_api::Operation::default()
        };
        let about = About { folder_id: "p".to_owned(), image_name: "web".to_owned(), key: None };
        SeenOperation { image_id: "fd8i".to_owned(), created_at: 0, state, about, message }
    }

    #[test]
    fn states() {
        let links = Links::new("http://h");
        for (state, status, ends) in [
            (State::Queued, "PENDING", false),
            (State::Running, "RUNNING", false),
            (State::Cancelling, "RUNNING", false),
            (State::Succeeded, "DONE", true),
        ] {
            let shown = show(&seen(state, "Create image"), 7, &links);
            assert_eq!(shown.status.as_deref(), Some(status));
            assert_eq!(shown.end_time.is_some(), ends, "{status}");
            assert_eq!((shown.progress, shown.error, shown.http_error_status_code), (Some(7), None, None));
        }
        let shown = show(&seen(State::Running, "Delete image"), 0, &links);
        assert_eq!(shown.operation_type.as_deref(), Some("delete"));
        assert_eq!(shown.target_link.as_deref(), Some("http://h/compute/v1/projects/p/global/images/web"));
        assert_eq!(shown.self_link.as_deref(), Some("http://h/compute/v1/projects/p/global/operations/fd8o"));
        assert_eq!(shown.target_id, Some(number_of("fd8i")));
        assert_eq!(shown.start_time.as_deref(), Some("1970-01-01T00:00:01Z"));
        let mut unnamed = seen(State::Succeeded, "Update image");
        unnamed.about.image_name.clear();
        let shown = show(&unnamed, 100, &links);
        assert_eq!(shown.operation_type.as_deref(), Some("update"));
        assert!(shown.target_link.unwrap().ends_with("/images/fd8i"));
    }

    #[test]
    fn errors() {
        let mut failed = seen(State::Failed, "Create image");
        let status = Status::new(Code::InvalidArgument, "no known disk image format");
        failed.message.result = Some(operation::Result::Error(status));
        let shown = show(&failed, 100, &Links::new("http://h"));
        assert_eq!(shown.http_error_status_code, Some(400));
        assert_eq!(shown.http_error_message.as_deref(), Some("BAD REQUEST"));
        let fault = &shown.error.unwrap().errors[0];
        assert_eq!(fault.code.as_deref(), Some("INVALID_ARGUMENT"));
        assert_eq!(fault.message.as_deref(), Some("no known disk image format"));
    }
}
