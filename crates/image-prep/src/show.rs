//! Images and operations of the cloud, for people. Programs get canonical JSON.

use image_api::{Image, Operation, OperationOutcome, compute::CreateImageMetadata, to_json_value, unpack};

use crate::args::values::Size;
use crate::context::Context;
use crate::error::Error;

/// Prints an operation; where it has made an Image, that.
pub(crate) fn operation(context: &Context, operation: &Operation) -> Result<(), Error> {
    if context.output.is_json() {
        return context.output.json(&to_json_value(operation).map_err(|source| Error::Json { source })?);
    }
    let mut fields = match operation.outcome() {
        OperationOutcome::Succeeded(Some(response)) => {
            unpack::<Image>(&response).map(|image| image_fields(&image)).unwrap_or_default()
        }
        _ => Vec::new(),
    };
    if fields.is_empty()
        && let Some(CreateImageMetadata { image_id }) = operation.metadata_as()
    {
        fields.push(("image", image_id));
    }
    // What was there already came of no operation that is known here.
    if !operation.id.is_empty() {
        fields.push(("operation", operation.id.clone()));
    }
    match operation.outcome() {
        OperationOutcome::Running if operation.result.is_some() => {
            fields.push(("state", "failed, being rolled back".to_owned()));
        }
        OperationOutcome::Running => fields.push(("state", "running".to_owned())),
        OperationOutcome::Succeeded(_) => fields.push(("state", "done".to_owned())),
        OperationOutcome::Failed(status) => {
            fields.push(("state", "failed".to_owned()));
            fields.push(("error", format!("{}: {}", status.canonical_code(), status.message)));
        }
    }
    if let Some(time) = &operation.created_at {
        fields.push(("created", time.to_string()));
    }
    context.output.fields(&fields)
}

fn image_fields(image: &Image) -> Vec<(&'static str, String)> {
    // Sizes are never negative; one that is shows as zero.
    let size = |bytes: i64| {
        let bytes = u64::try_from(bytes).unwrap_or_default();
        format!("{} ({bytes} bytes)", Size(bytes))
    };
    let mut fields = vec![
        ("image", image.id.clone()),
        ("name", image.name.clone()),
        ("status", image.status().as_str_name().to_owned()),
        ("storage", size(image.storage_size)),
        ("minimum disk", size(image.min_disk_size)),
    ];
    if !image.family.is_empty() {
        fields.insert(2, ("family", image.family.clone()));
    }
    fields
}
