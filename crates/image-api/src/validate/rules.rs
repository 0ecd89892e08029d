//! The table: which fields have which rules.
//!
//! Source: the services of the public API definitions (options `required`, `length`, `pattern`, `value`, `size`, `exactly_one`);
//! for `google.cloud.compute.v1` the REST reference <https://cloud.google.com/compute/docs/reference/rest/v1/images>.
//! Read by [`crate::Validate`], which holds messages against it, and by [`crate::openapi()`], which says it. Patterns are of the
//! part of regular expressions that `regex-lite` and ECMA-262 read alike. A field that is not here may hold whatever its type can.

use std::{collections::HashMap, sync::LazyLock};

use prost_reflect::{FieldDescriptor, OneofDescriptor};
use regex_lite::Regex;

/// What a field may hold.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Rule {
    /// Text.
    Text(Text),
    /// A number in a range, or zero, which is no number, where `or_zero`.
    Number { min: i64, max: i64, or_zero: bool },
    /// So many items, each of which fits.
    List { min: usize, max: usize, item: Option<Text> },
    /// At most so many pairs.
    Map { max: usize, key: Text, value: Text },
    /// Names of fields of the same message.
    Mask(&'static [&'static str]),
    /// A message that must be there, or an enum that must say something.
    Needed,
}

/// What text may be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Text {
    /// Characters; 1 means that it must be there.
    pub(crate) min: usize,
    /// Characters.
    pub(crate) max: usize,
    /// All of it.
    pub(crate) pattern: &'static str,
    /// What it is, where that says more than a pattern: a word for whoever reads the document, as JSON Schema has them.
    pub(crate) format: Option<&'static str>,
}

impl Text {
    const fn new(min: usize, max: usize, pattern: &'static str) -> Self {
        Self { min, max, pattern, format: None }
    }

    /// Whatever a database can hold as text.
    const fn free(min: usize, max: usize) -> Self {
        Self::new(min, max, r"[^\x00]*")
    }

    const fn of_format(self, format: &'static str) -> Self {
        Self { format: Some(format), ..self }
    }
}

/// The contract has no rule; a server has one for all of a request.
pub(crate) const UNBOUNDED: usize = usize::MAX;

const ID: Text = Text::free(1, 50);
const RESOURCE_ID: Text = Text::free(1, 64);
const NAME: Text = Text::new(0, 63, "|[a-z]([-_a-z0-9]{0,61}[a-z0-9])?");
const FAMILY: Text = Text::new(1, 63, "[a-z][-a-z0-9]{1,61}[a-z0-9]");
const ANY_FAMILY: Text = Text::new(0, 63, "|[a-z][-a-z0-9]{1,61}[a-z0-9]");
const SUBJECT: Text = Text::free(1, 100);

/// Names, families and labels of Compute Engine: of its rules the part that holds for our own names too, as an image has one name
/// for both APIs. So a family has three characters at least, and labels are ASCII.
const GOOGLE_NAME: Text = Text::new(1, 63, "[a-z]([-a-z0-9]{0,61}[a-z0-9])?");
const GOOGLE_LABELS: Rule =
    Rule::Map { max: 64, key: Text::new(1, 63, "[a-z][-_0-9a-z]*"), value: Text::new(0, 63, "[-_0-9a-z]*") };
const GOOGLE_LICENSES: Rule = Rule::List { min: 0, max: 10, item: Some(Text::free(1, 1024)) };
/// Each once, and room for more.
const GOOGLE_FEATURES: Rule = Rule::List { min: 0, max: 32, item: None };
const GOOGLE_FEATURE: Text = Text::new(
    1,
    63,
    "BARE_METAL_LINUX_COMPATIBLE|BMSAI_CAPABLE|CCA_CAPABLE|GVNIC|IDPF|MULTI_IP_SUBNET|SECURE_BOOT|SEV_CAPABLE|\
     SEV_LIVE_MIGRATABLE|SEV_LIVE_MIGRATABLE_V2|SEV_SNP_CAPABLE|SNP_SVSM_CAPABLE|SUSPEND_RESUME_COMPATIBLE|\
     SUSPEND_SAFE_FPR|TDX_CAPABLE|UEFI_COMPATIBLE|VIRTIO_SCSI_MULTIQUEUE|WINDOWS",
);
/// What an image is shown by: its name, or its id where it has none.
const GOOGLE_IMAGE: Text = Text::free(1, 63);
const GOOGLE_URL: Rule = Rule::Text(Text::free(1, 2048));
const REQUEST_ID: Rule = Rule::Text(Text::new(
    0,
    36,
    "|[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}",
));

const DESCRIPTION: Rule = Rule::Text(Text::free(0, 256));
/// 4 MiB to 4 TiB.
const DISK_SIZE: Rule = Rule::Number { min: 4 << 20, max: 4 << 40, or_zero: true };
const LABELS: Rule = Rule::Map {
    max: 64,
    key: Text::new(1, 63, "[a-z][-_./@0-9a-z]*"),
    value: Text::new(0, 63, "[-_./@0-9a-z]*"),
};
const PAGE_SIZE: Rule = Rule::Number { min: 0, max: 1000, or_zero: false };
const PAGE_TOKEN: Rule = Rule::Text(Text::free(0, 100).of_format("page-token"));

/// Fields, by the full names of their messages.
pub(super) const RULES: &[(&str, &[(&str, Rule)])] = &[
    (
        "yandex.cloud.compute.v1.CreateImageRequest",
        &[
            ("folder_id", Rule::Text(ID)),
            ("name", Rule::Text(NAME)),
            ("description", DESCRIPTION),
            ("labels", LABELS),
            ("family", Rule::Text(ANY_FAMILY)),
            ("min_disk_size", DISK_SIZE),
            ("product_ids", Rule::List { min: 0, max: UNBOUNDED, item: Some(Text { min: 0, ..ID }) }),
            ("image_id", Rule::Text(ID)),
            ("disk_id", Rule::Text(ID)),
            ("snapshot_id", Rule::Text(ID)),
            ("uri", Rule::Text(Text::free(1, UNBOUNDED).of_format("uri"))),
        ],
    ),
    (
        "yandex.cloud.compute.v1.UpdateImageRequest",
        &[
            ("image_id", Rule::Text(ID)),
            ("update_mask", Rule::Mask(&["name", "description", "min_disk_size", "labels"])),
            ("name", Rule::Text(NAME)),
            ("description", DESCRIPTION),
            ("min_disk_size", DISK_SIZE),
            ("labels", LABELS),
        ],
    ),
    (
        "yandex.cloud.compute.v1.ListImagesRequest",
        &[
            ("folder_id", Rule::Text(ID)),
            ("page_size", PAGE_SIZE),
            ("page_token", PAGE_TOKEN),
            ("filter", Rule::Text(Text::free(0, 1000).of_format("filter"))),
            ("order_by", Rule::Text(Text::free(0, 100).of_format("order"))),
        ],
    ),
    (
        "yandex.cloud.compute.v1.ListImageOperationsRequest",
        &[("image_id", Rule::Text(ID)), ("page_size", PAGE_SIZE), ("page_token", PAGE_TOKEN)],
    ),
    (
        "yandex.cloud.compute.v1.GetImageLatestByFamilyRequest",
        &[("folder_id", Rule::Text(ID)), ("family", Rule::Text(FAMILY))],
    ),
    ("yandex.cloud.compute.v1.GetImageRequest", &[("image_id", Rule::Text(ID))]),
    ("yandex.cloud.compute.v1.DeleteImageRequest", &[("image_id", Rule::Text(ID))]),
    ("yandex.cloud.operation.GetOperationRequest", &[("operation_id", Rule::Text(ID))]),
    ("yandex.cloud.operation.CancelOperationRequest", &[("operation_id", Rule::Text(ID))]),
    ("yandex.cloud.endpoint.GetApiEndpointRequest", &[("api_endpoint_id", Rule::Text(ID))]),
    (
        "yandex.cloud.iam.v1.CreateIamTokenRequest",
        &[
            ("yandex_passport_oauth_token", Rule::Text(Text::free(1, UNBOUNDED))),
            ("jwt", Rule::Text(Text::free(1, 8000))),
        ],
    ),
    (
        "yandex.cloud.access.ListAccessBindingsRequest",
        &[("resource_id", Rule::Text(RESOURCE_ID)), ("page_size", PAGE_SIZE), ("page_token", PAGE_TOKEN)],
    ),
    (
        "yandex.cloud.access.SetAccessBindingsRequest",
        &[
            ("resource_id", Rule::Text(RESOURCE_ID)),
            ("access_bindings", Rule::List { min: 0, max: 1000, item: None }),
        ],
    ),
    (
        "yandex.cloud.access.UpdateAccessBindingsRequest",
        &[
            ("resource_id", Rule::Text(RESOURCE_ID)),
            ("access_binding_deltas", Rule::List { min: 1, max: 1000, item: None }),
        ],
    ),
    ("yandex.cloud.access.AccessBindingDelta", &[("action", Rule::Needed), ("access_binding", Rule::Needed)]),
    (
        "yandex.cloud.access.AccessBinding",
        &[("role_id", Rule::Text(Text::free(1, 64))), ("subject", Rule::Needed)],
    ),
    ("yandex.cloud.access.Subject", &[("id", Rule::Text(SUBJECT)), ("type", Rule::Text(SUBJECT))]),
    (
        "google.cloud.compute.v1.InsertImageRequest",
        &[("project", Rule::Text(ID)), ("image_resource", Rule::Needed), ("request_id", REQUEST_ID)],
    ),
    (
        "google.cloud.compute.v1.NewImage",
        &[
            ("kind", Rule::Text(Text::new(0, 63, "|compute#image"))),
            ("name", Rule::Text(GOOGLE_NAME)),
            ("description", DESCRIPTION),
            ("family", Rule::Text(ANY_FAMILY)),
            ("labels", GOOGLE_LABELS),
            ("licenses", GOOGLE_LICENSES),
            ("guest_os_features", GOOGLE_FEATURES),
            ("architecture", Rule::Text(Text::new(0, 63, "|ARCHITECTURE_UNSPECIFIED|X86_64|ARM64"))),
            ("storage_locations", Rule::List { min: 0, max: 1, item: Some(Text::free(1, 63)) }),
            // 4 TiB, as in the other API.
            ("disk_size_gb", Rule::Number { min: 1, max: 4096, or_zero: true }),
            ("source_type", Rule::Text(Text::new(0, 63, "|RAW"))),
            ("source_image", GOOGLE_URL),
            ("source_snapshot", GOOGLE_URL),
            ("source_disk", GOOGLE_URL),
        ],
    ),
    (
        "google.cloud.compute.v1.RawDisk",
        &[
            ("source", Rule::Text(Text::free(1, UNBOUNDED).of_format("uri"))),
            ("container_type", Rule::Text(Text::new(0, 63, "|TAR"))),
        ],
    ),
    ("google.cloud.compute.v1.GuestOsFeature", &[("type", Rule::Text(GOOGLE_FEATURE))]),
    (
        "google.cloud.compute.v1.PatchImageRequest",
        &[
            ("project", Rule::Text(ID)),
            ("image", Rule::Text(GOOGLE_IMAGE)),
            ("image_resource", Rule::Needed),
            ("request_id", REQUEST_ID),
        ],
    ),
    (
        "google.cloud.compute.v1.ImagePatch",
        &[("description", DESCRIPTION), ("family", Rule::Text(ANY_FAMILY))],
    ),
    (
        "google.cloud.compute.v1.SetLabelsImageRequest",
        &[
            ("project", Rule::Text(ID)),
            ("resource", Rule::Text(GOOGLE_IMAGE)),
            ("global_set_labels_request_resource", Rule::Needed),
        ],
    ),
    (
        "google.cloud.compute.v1.GlobalSetLabelsRequest",
        &[("label_fingerprint", Rule::Text(Text::free(0, 63))), ("labels", GOOGLE_LABELS)],
    ),
    (
        "google.cloud.compute.v1.DeleteImageRequest",
        &[("project", Rule::Text(ID)), ("image", Rule::Text(GOOGLE_IMAGE)), ("request_id", REQUEST_ID)],
    ),
    (
        "google.cloud.compute.v1.GetImageRequest",
        &[("project", Rule::Text(ID)), ("image", Rule::Text(GOOGLE_IMAGE))],
    ),
    (
        "google.cloud.compute.v1.GetFromFamilyImageRequest",
        &[("project", Rule::Text(ID)), ("family", Rule::Text(FAMILY))],
    ),
    (
        "google.cloud.compute.v1.ListImagesRequest",
        &[
            ("project", Rule::Text(ID)),
            ("filter", Rule::Text(Text::free(0, 2048).of_format("filter"))),
            ("max_results", Rule::Number { min: 0, max: 500, or_zero: false }),
            ("order_by", Rule::Text(Text::free(0, 100).of_format("order"))),
            ("page_token", PAGE_TOKEN),
        ],
    ),
    (
        "google.cloud.compute.v1.GetGlobalOperationRequest",
        &[("project", Rule::Text(ID)), ("operation", Rule::Text(ID))],
    ),
    (
        "google.cloud.compute.v1.WaitGlobalOperationRequest",
        &[("project", Rule::Text(ID)), ("operation", Rule::Text(ID))],
    ),
];

/// Choices that must be made.
pub(super) const NEEDED: &[&str] = &[
    "yandex.cloud.compute.v1.CreateImageRequest.source",
    "yandex.cloud.iam.v1.CreateIamTokenRequest.identity",
    "google.cloud.compute.v1.NewImage.source",
];

static BY_FIELD: LazyLock<HashMap<String, Rule>> = LazyLock::new(|| {
    let fields = RULES.iter().flat_map(|(message, fields)| fields.iter().map(move |field| (message, field)));
    fields.map(|(message, (field, rule))| (format!("{message}.{field}"), *rule)).collect()
});

static PATTERNS: LazyLock<HashMap<&str, Regex>> = LazyLock::new(|| {
    let patterns = BY_FIELD.values().flat_map(|rule| match rule {
        Rule::Text(text) | Rule::List { item: Some(text), .. } => vec![text.pattern],
        Rule::Map { key, value, .. } => vec![key.pattern, value.pattern],
        _ => Vec::new(),
    });
    let compiled = |pattern| Regex::new(&whole(pattern)).expect("a test compiles every pattern");
    patterns.map(|pattern| (pattern, compiled(pattern))).collect()
});

/// The rule of a field, if it has one.
pub(crate) fn of(field: &FieldDescriptor) -> Option<&'static Rule> {
    BY_FIELD.get(field.full_name())
}

/// Whether a choice must be made.
pub(crate) fn is_needed(choice: &OneofDescriptor) -> bool {
    NEEDED.contains(&choice.full_name())
}

/// A pattern that covers the whole value.
pub(crate) fn whole(pattern: &str) -> String {
    format!("^({pattern})$")
}

/// Whether all of a value fits a pattern of the table.
pub(super) fn fits(pattern: &str, value: &str) -> bool {
    PATTERNS.get(pattern).is_some_and(|pattern| pattern.is_match(value))
}
