//! The rules of the fields, all checked, all violations reported.
//!
//! Source: the services of the public API definitions (options `length`, `pattern`, `value`, `size`, `exactly_one`). Lengths
//! are characters, sizes are bytes; patterns cover the whole value. The rules are matched by hand: they are five character
//! classes, and a regular-expression engine is not worth its weight.

mod access;

use std::fmt;

use crate::{
    Code,
    compute::{
        CreateImageRequest, DeleteImageRequest, GetImageLatestByFamilyRequest, GetImageRequest,
        ListImageOperationsRequest, ListImagesRequest, Os, PciTopology, UpdateImageRequest,
        create_image_request::Source, hardware_generation::Features, os,
    },
    operation::{CancelOperationRequest, GetOperationRequest},
    operation_state::any_of,
    rpc::{BadRequest, Status, bad_request::FieldViolation},
};

/// Characters of an identifier.
pub const ID_MAX: usize = 50;
/// Bytes of the smallest disk that may be asked for: 4 MiB.
pub const MIN_DISK_SIZE_MIN: i64 = 4 << 20;
/// Bytes of the largest disk that may be asked for: 4 TiB.
pub const MIN_DISK_SIZE_MAX: i64 = 4 << 40;

const DESCRIPTION_MAX: usize = 256;
const LABELS_MAX: usize = 64;
const NAME_MAX: usize = 63;
const PAGE_SIZE_MAX: i64 = 1000;
const PAGE_TOKEN_MAX: usize = 100;
const FILTER_MAX: usize = 1000;
const ORDER_BY_MAX: usize = 100;

/// Fields that an Update may name.
const UPDATABLE: [&str; 4] = ["name", "description", "min_disk_size", "labels"];

const NAME_RULE: &str = "[a-z]([-_a-z0-9]{0,61}[a-z0-9])?";
const FAMILY_RULE: &str = "[a-z][-a-z0-9]{1,61}[a-z0-9]";
const LABEL_KEY_RULE: &str = r"[a-z][-_./\@0-9a-z]*";
const LABEL_VALUE_RULE: &str = r"[-_./\@0-9a-z]*";

/// Every field of a request that breaks the contract; never empty.
#[derive(Clone, Debug, PartialEq)]
pub struct Violations(Vec<FieldViolation>);

impl Violations {
    /// One violation, for a rule that only a server knows.
    pub fn one(field: &str, description: impl Into<String>) -> Self {
        Self(vec![FieldViolation { field: field.to_owned(), description: description.into() }])
    }

    /// All of them as one; `None` where there are none.
    pub fn all(violations: impl IntoIterator<Item = Self>) -> Option<Self> {
        let fields: Vec<_> = violations.into_iter().flat_map(|violations| violations.0).collect();
        (!fields.is_empty()).then_some(Self(fields))
    }

    /// The violations, in the order of the fields.
    pub fn fields(&self) -> &[FieldViolation] {
        &self.0
    }

    /// INVALID_ARGUMENT with a `BadRequest` among the details.
    pub fn into_status(self) -> Status {
        let mut status = Status::new(Code::InvalidArgument, format!("Request validation error: {self}"));
        status.details.push(any_of(&BadRequest { field_violations: self.0 }));
        status
    }
}

/// `field: description`, separated by semicolons.
impl fmt::Display for Violations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, FieldViolation { field, description }) in self.0.iter().enumerate() {
            let separator = if at == 0 { "" } else { "; " };
            write!(f, "{separator}{field}: {description}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Violations {}

/// A request whose fields have rules.
pub trait Validate {
    /// Checks all rules that need nothing but the request.
    fn validate(&self) -> Result<(), Violations>;
}

impl Validate for CreateImageRequest {
    fn validate(&self) -> Result<(), Violations> {
        let mut check = Check::default();
        check.id("folder_id", &self.folder_id);
        check.pattern("name", &self.name, NAME_RULE, |name| name.is_empty() || is_name(name));
        check.length("description", &self.description, DESCRIPTION_MAX);
        check.labels(&self.labels);
        check.pattern("family", &self.family, FAMILY_RULE, |family| family.is_empty() || is_family(family));
        if self.min_disk_size != 0 {
            check.range("min_disk_size", self.min_disk_size, MIN_DISK_SIZE_MIN, MIN_DISK_SIZE_MAX);
        }
        for (at, id) in self.product_ids.iter().enumerate() {
            check.length(&format!("product_ids[{at}]"), id, ID_MAX);
        }
        match &self.source {
            None => check.fail("source", "exactly one of image_id, disk_id, snapshot_id, uri must be set"),
            Some(Source::ImageId(id)) => check.id("image_id", id),
            Some(Source::DiskId(id)) => check.id("disk_id", id),
            Some(Source::SnapshotId(id)) => check.id("snapshot_id", id),
            Some(Source::Uri(uri)) => check.required("uri", uri),
        }
        if let Some(Os { r#type, .. }) = self.os
            && os::Type::try_from(r#type).is_err()
        {
            check.fail("os.type", format!("{type} is not a known type"));
        }
        if let Some(Features::LegacyFeatures(legacy)) =
            self.hardware_generation.as_ref().and_then(|generation| generation.features.as_ref())
            && PciTopology::try_from(legacy.pci_topology).is_err()
        {
            let field = "hardware_generation.legacy_features.pci_topology";
            check.fail(field, format!("{} is not a known topology", legacy.pci_topology));
        }
        check.finish()
    }
}

impl Validate for ListImagesRequest {
    fn validate(&self) -> Result<(), Violations> {
        let mut check = Check::default();
        check.id("folder_id", &self.folder_id);
        check.page(self.page_size, &self.page_token);
        check.length("filter", &self.filter, FILTER_MAX);
        check.length("order_by", &self.order_by, ORDER_BY_MAX);
        check.finish()
    }
}

impl Validate for GetImageRequest {
    fn validate(&self) -> Result<(), Violations> {
        Check::only_id("image_id", &self.image_id)
    }
}

impl Validate for DeleteImageRequest {
    fn validate(&self) -> Result<(), Violations> {
        Check::only_id("image_id", &self.image_id)
    }
}

impl Validate for GetImageLatestByFamilyRequest {
    fn validate(&self) -> Result<(), Violations> {
        let mut check = Check::default();
        check.id("folder_id", &self.folder_id);
        check.pattern("family", &self.family, FAMILY_RULE, is_family);
        check.finish()
    }
}

impl Validate for UpdateImageRequest {
    /// The values of fields that do not change are checked too: they are wrong all the same.
    fn validate(&self) -> Result<(), Violations> {
        let mut check = Check::default();
        check.id("image_id", &self.image_id);
        for path in self.update_mask.iter().flat_map(|mask| &mask.paths) {
            if !UPDATABLE.contains(&path.as_str()) {
                let description = format!("found {path:?}, expected one of {}", UPDATABLE.join(", "));
                check.fail("update_mask", description);
            }
        }
        check.pattern("name", &self.name, NAME_RULE, |name| name.is_empty() || is_name(name));
        check.length("description", &self.description, DESCRIPTION_MAX);
        if self.min_disk_size != 0 {
            check.range("min_disk_size", self.min_disk_size, MIN_DISK_SIZE_MIN, MIN_DISK_SIZE_MAX);
        }
        check.labels(&self.labels);
        check.finish()
    }
}

impl Validate for ListImageOperationsRequest {
    fn validate(&self) -> Result<(), Violations> {
        let mut check = Check::default();
        check.id("image_id", &self.image_id);
        check.page(self.page_size, &self.page_token);
        check.finish()
    }
}

impl Validate for GetOperationRequest {
    fn validate(&self) -> Result<(), Violations> {
        Check::only_id("operation_id", &self.operation_id)
    }
}

impl Validate for CancelOperationRequest {
    fn validate(&self) -> Result<(), Violations> {
        Check::only_id("operation_id", &self.operation_id)
    }
}

#[derive(Default)]
struct Check(Vec<FieldViolation>);

impl Check {
    fn only_id(field: &str, id: &str) -> Result<(), Violations> {
        let mut check = Self::default();
        check.id(field, id);
        check.finish()
    }

    fn fail(&mut self, field: &str, description: impl Into<String>) {
        self.0.push(FieldViolation { field: field.to_owned(), description: description.into() });
    }

    fn required(&mut self, field: &str, value: &str) {
        if value.is_empty() {
            self.fail(field, "required, found nothing");
        }
    }

    fn id(&mut self, field: &str, id: &str) {
        self.required(field, id);
        self.length(field, id, ID_MAX);
    }

    fn page(&mut self, size: i64, token: &str) {
        self.range("page_size", size, 0, PAGE_SIZE_MAX);
        self.length("page_token", token, PAGE_TOKEN_MAX);
    }

    fn length(&mut self, field: &str, value: &str, max: usize) {
        let found = value.chars().count();
        if found > max {
            self.fail(field, format!("found {found} characters, expected at most {max}"));
        }
        // No text of a database may have it.
        if value.contains('\0') {
            self.fail(field, "found the character U+0000");
        }
    }

    fn range(&mut self, field: &str, value: i64, min: i64, max: i64) {
        if !(min..=max).contains(&value) {
            self.fail(field, format!("found {value}, expected {min} to {max}"));
        }
    }

    fn pattern(&mut self, field: &str, value: &str, rule: &str, fits: impl Fn(&str) -> bool) {
        if !fits(value) {
            self.fail(field, format!("does not match {rule}"));
        }
    }

    fn labels(&mut self, labels: &std::collections::BTreeMap<String, String>) {
        if labels.len() > LABELS_MAX {
            self.fail("labels", format!("found {} labels, expected at most {LABELS_MAX}", labels.len()));
        }
        for (key, value) in labels {
            // The key goes into the path only where it is short: the path is for people.
            let field =
                if key.chars().count() <= NAME_MAX { format!("labels.{key}") } else { "labels".to_owned() };
            if !(1..=NAME_MAX).contains(&key.chars().count()) {
                let found = key.chars().count();
                self.fail(&field, format!("found a key of {found} characters, expected 1 to {NAME_MAX}"));
            } else if !is_label_key(key) {
                self.fail(&field, format!("the key does not match {LABEL_KEY_RULE}"));
            }
            self.length(&field, value, NAME_MAX);
            self.pattern(&field, value, LABEL_VALUE_RULE, |value| value.bytes().all(is_label_byte));
        }
    }

    fn finish(self) -> Result<(), Violations> {
        if self.0.is_empty() { Ok(()) } else { Err(Violations(self.0)) }
    }
}

fn is_name(name: &str) -> bool {
    let middle = |b: u8| matches!(b, b'-' | b'_' | b'a'..=b'z' | b'0'..=b'9');
    match name.as_bytes() {
        [b'a'..=b'z'] => true,
        [b'a'..=b'z', inner @ .., b'a'..=b'z' | b'0'..=b'9'] => {
            inner.len() <= 61 && inner.iter().copied().all(middle)
        }
        _ => false,
    }
}

fn is_family(family: &str) -> bool {
    let middle = |b: u8| matches!(b, b'-' | b'a'..=b'z' | b'0'..=b'9');
    match family.as_bytes() {
        [b'a'..=b'z', inner @ .., b'a'..=b'z' | b'0'..=b'9'] => {
            (1..=61).contains(&inner.len()) && inner.iter().copied().all(middle)
        }
        _ => false,
    }
}

fn is_label_key(key: &str) -> bool {
    key.starts_with(|c: char| c.is_ascii_lowercase()) && key.bytes().all(is_label_byte)
}

// In the pattern `\@` is an escaped `@`: a backslash is not part of the class.
fn is_label_byte(b: u8) -> bool {
    matches!(b, b'-' | b'_' | b'.' | b'/' | b'@' | b'0'..=b'9' | b'a'..=b'z')
}

#[cfg(test)]
mod tests;
