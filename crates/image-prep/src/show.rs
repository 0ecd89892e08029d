//! Images and operations of either cloud, for people. Programs get canonical JSON.

use image_api::{Any, Image, Operation, OperationOutcome, google, to_json_value, unpack};

use crate::args::values::Size;
use crate::context::Context;
use crate::error::Error;
use crate::service::id_of_image;

/// Prints an operation; where it has made an Image, that.
pub(crate) fn operation(context: &Context, operation: &Operation) -> Result<(), Error> {
    if context.output.is_json() {
        return context.output.json(&to_json_value(operation).map_err(|source| Error::Json { source })?);
    }
    let mut fields = made_by(operation).map(Shown::fields).unwrap_or_default();
    if fields.is_empty()
        && let Some(id) = id_of_image(operation)
    {
        fields.push(("image", id));
    }
    if let Some(google::Operation { progress: Some(progress), .. }) = operation.metadata_as()
        && !operation.done
    {
        fields.push(("progress", format!("{progress} %")));
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

/// An operation on one line: the Image; the operation itself, as long as there is none.
pub(crate) fn line(operation: &Operation) -> String {
    made_by(operation).map_or_else(|| format!("operation {}", operation.id), Shown::line)
}

/// An Image, of which people are shown the same of either cloud.
struct Shown {
    id: String,
    name: String,
    family: String,
    status: String,
    /// Bytes, where they are known.
    stored: Option<i64>,
    least: Option<i64>,
}

/// What an operation has made.
fn made_by(operation: &Operation) -> Option<Shown> {
    match operation.outcome() {
        OperationOutcome::Succeeded(Some(response)) => Shown::read(&response),
        _ => None,
    }
}

impl Shown {
    fn read(message: &Any) -> Option<Self> {
        if let Ok(image) = unpack::<Image>(message) {
            return Some(Self {
                status: image.status().as_str_name().to_owned(),
                id: image.id,
                name: image.name,
                family: image.family,
                stored: Some(image.storage_size),
                least: Some(image.min_disk_size),
            });
        }
        let image = unpack::<google::Image>(message).ok()?;
        Some(Self {
            id: image.id().to_string(),
            name: image.name().to_owned(),
            family: image.family().to_owned(),
            status: image.status().to_owned(),
            stored: image.archive_size_bytes,
            least: image.disk_size_gb.map(|size| size.saturating_mul(1 << 30)),
        })
    }

    fn fields(self) -> Vec<(&'static str, String)> {
        let size = |bytes: i64| {
            let Size(bytes) = known(bytes);
            format!("{} ({bytes} bytes)", Size(bytes))
        };
        let mut fields = vec![("image", self.id), ("name", self.name)];
        if !self.family.is_empty() {
            fields.push(("family", self.family));
        }
        fields.push(("status", self.status));
        fields.extend(self.stored.map(|bytes| ("storage", size(bytes))));
        fields.extend(self.least.map(|bytes| ("minimum disk", size(bytes))));
        fields
    }

    fn line(self) -> String {
        let (stored, least) = (known(self.stored.unwrap_or_default()), known(self.least.unwrap_or_default()));
        format!("{}  {}  {stored} stored, minimum disk {least}", self.status, self.id)
    }
}

/// Sizes are never negative; one that is shows as zero.
fn known(bytes: i64) -> Size {
    Size(u64::try_from(bytes).unwrap_or_default())
}
