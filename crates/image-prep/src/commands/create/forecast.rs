//! `create --dry-run`: the object and the request, and nothing sent.

use disk_convert::Disk;
use object_io::{BucketUri, ObjectUri, without_signature};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value};

use super::{Source, content, object, request};
use crate::args::CreateArgs;
use crate::context::Context;
use crate::error::Error;
use crate::exit::Exit;
use crate::forecast::Forecast;
use crate::product::form_name;
use crate::service::Request;
use crate::transfer;

/// The Create call of an image that is not uploaded.
#[derive(Debug, Serialize, JsonSchema)]
pub(in crate::commands) struct Requested {
    /// It, without the query of its URL.
    #[schemars(with = "Map<String, Value>")]
    request: Value,
}

/// Prints what would be done.
pub(super) async fn run(
    args: &CreateArgs,
    context: &Context,
    fields: &Request,
    bucket: &BucketUri,
    source: &Source,
) -> Result<Exit, Error> {
    match source {
        Source::Uri(uri) => {
            // What a signature may stand in is a secret.
            let mut shown = without_signature(uri);
            shown.set_query(None);
            let request = json(fields, shown.as_str())?;
            match context.output.is_json() {
                true => context.output.json(&Requested { request })?,
                false => context.output.fields(&[("request", request.to_string())])?,
            }
        }
        Source::Disk(disk, _) => of_disk(args, context, fields, bucket, disk).await?.print(context)?,
    }
    Ok(Exit::Done)
}

/// What would be made of a disk, and asked for.
pub(super) async fn of_disk(
    args: &CreateArgs,
    context: &Context,
    fields: &Request,
    bucket: &BucketUri,
    disk: &Disk,
) -> Result<Forecast, Error> {
    let (form, layout) = (args.upload.form(), &args.layout);
    let prepared = transfer::lay_out(context, None, disk, bucket.bucket(), form, layout).await?;
    let digest = transfer::read(context, disk).await?.guest_digest;
    let object = object(args, bucket, fields, &content(digest, form), disk)?;
    let request = json(fields, &named(fields, &object))?;
    let form = form_name(disk, form, layout);
    Ok(Forecast::new(object.to_string(), &form, Some(digest), &prepared).with_request(request))
}

/// Where the object would be, as the request says it: its name stands for a URL that is not signed yet.
fn named(fields: &Request, object: &ObjectUri) -> String {
    match fields {
        Request::Yandex(_) => object.to_string(),
        Request::Google(_) => request::location(object),
    }
}

fn json(fields: &Request, uri: &str) -> Result<Value, Error> {
    fields.with_uri(uri).to_json().map_err(|source| Error::Json { source })
}
