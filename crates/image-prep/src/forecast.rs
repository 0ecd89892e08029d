//! What `--dry-run` tells: the object that would be made, how it would be cut, and what there is to send.

use disk_convert::GuestDigest;
use disk_image::{ObjectMap, Span};
use object_io::PartPlan;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::args::values::Size;
use crate::context::Context;
use crate::error::Error;
use crate::product::Layout;
use crate::transfer::Prepared;

/// What would be done; sizes in bytes.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Forecast {
    /// The object's name.
    object: String,
    /// Its form, and what the form depends on.
    form: String,
    /// Unless none is wanted.
    guest_digest: Option<String>,
    /// The most that it can be, if `compressed`.
    object_size: u64,
    /// Its size, and what of it is zero, is known when it has been made.
    compressed: bool,
    part_size: u64,
    parts: u64,
    /// Of those that are not zero throughout.
    data_parts: u64,
    data_size: u64,
    /// Of those that are.
    zero_parts: u64,
    zero_size: u64,
    /// The Create call, with the name of the object in the place of its pre-signed URL.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Map<String, Value>")]
    request: Option<Value>,
}

impl Forecast {
    /// Of a disk that was laid out.
    pub(crate) fn new(object: String, form: &str, digest: Option<GuestDigest>, prepared: &Prepared) -> Self {
        let (plan, layout) = (prepared.plan, &prepared.product.layout);
        let (data_parts, data_size) = match layout {
            Layout::Map(layout) => filled(prepared.product.disk.image().map(), layout, plan),
            Layout::Packed(_) => (plan.parts(), plan.len),
        };
        Self {
            object,
            form: form.to_owned(),
            guest_digest: digest.map(|digest| digest.to_string()),
            object_size: plan.len,
            compressed: !layout.is_exact(),
            part_size: plan.part_len,
            parts: plan.parts(),
            data_parts,
            data_size,
            zero_parts: plan.parts() - data_parts,
            zero_size: plan.len - data_size,
            request: None,
        }
    }

    /// The same, and the Create call that would follow.
    pub(crate) fn with_request(self, request: Value) -> Self {
        Self { request: Some(request), ..self }
    }

    /// Prints it.
    pub(crate) fn print(&self, context: &Context) -> Result<(), Error> {
        match context.output.is_json() {
            true => context.output.json(self),
            false => context.output.fields(&self.fields()),
        }
    }

    /// For people: names and values.
    pub(crate) fn fields(&self) -> Vec<(&'static str, String)> {
        let size = |bytes: u64| format!("{} ({bytes} bytes)", Size(bytes));
        let most = if self.compressed { "at most " } else { "" };
        let parts = |count: u64, bytes| format!("{most}{count}, {}", size(bytes));
        let mut fields = vec![
            ("object", self.object.clone()),
            ("form", self.form.clone()),
            ("guest digest", self.guest_digest.clone().unwrap_or_else(|| "none".to_owned())),
            ("object size", format!("{most}{}", size(self.object_size))),
            ("parts", format!("{most}{} of {}", self.parts, Size(self.part_size))),
            ("data parts", parts(self.data_parts, self.data_size)),
            ("zero parts", parts(self.zero_parts, self.zero_size)),
        ];
        if let Some(request) = &self.request {
            fields.push(("request", request.to_string()));
        }
        fields
    }
}

/// How many parts are not known to be zero throughout, and their bytes.
fn filled(map: &disk_image::ExtentMap, layout: &ObjectMap, plan: PartPlan) -> (u64, u64) {
    let (mut parts, mut bytes, mut at) = (0, 0, 0);
    while at < plan.len
        && let Some(found) = layout.next_filled(map, at)
    {
        let start = found / plan.part_len * plan.part_len;
        let part = Span::new(start, plan.part_len.min(plan.len - start));
        parts += 1;
        bytes += part.len;
        at = part.end();
    }
    (parts, bytes)
}
