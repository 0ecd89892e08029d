//! Tests of the validation: every rule, at its edges.

use super::*;
use crate::{
    compute::{
        CreateImageRequest, DeleteImageRequest, GetImageLatestByFamilyRequest, GetImageRequest,
        HardwareGeneration, LegacyHardwareFeatures, ListImageOperationsRequest, ListImagesRequest, Os,
        create_image_request::Source, hardware_generation::Features,
    },
    descriptors::pool,
    operation::{CancelOperationRequest, GetOperationRequest},
};

/// A rule of a field that is not there, or of another kind, would never be held against anything.
#[test]
fn every_rule_is_that_of_a_field() {
    for (message, fields) in rules::RULES {
        let message = pool().get_message_by_name(message).unwrap();
        for (name, rule) in *fields {
            let field = message.get_field_by_name(name).unwrap_or_else(|| panic!("{message:?} {name}"));
            let fits = match rule {
                Rule::Text(_) => !field.is_list() && field.kind() == Kind::String,
                Rule::Number { .. } => field.kind() == Kind::Int64,
                Rule::List { .. } => field.is_list(),
                Rule::Map { .. } => field.is_map(),
                Rule::Mask(named) => named.iter().all(|name| message.get_field_by_name(name).is_some()),
                Rule::Needed => matches!(field.kind(), Kind::Message(_) | Kind::Enum(_)),
            };
            assert!(fits, "{name}");
        }
    }
    for choice in rules::NEEDED {
        let (message, name) = choice.rsplit_once('.').unwrap();
        let message = pool().get_message_by_name(message).unwrap();
        assert!(message.oneofs().any(|oneof| oneof.name() == name), "{choice}");
    }
}

fn request() -> CreateImageRequest {
    CreateImageRequest {
        folder_id: "f".repeat(50),
        source: Some(Source::Uri("https://store/bucket/key".to_owned())),
        ..CreateImageRequest::default()
    }
}

/// Fields that are refused after `change`.
fn refused(change: impl FnOnce(&mut CreateImageRequest)) -> Vec<String> {
    let mut request = request();
    change(&mut request);
    let fields = |violations: Violations| violations.fields().iter().map(|v| v.field.clone()).collect();
    request.validate().err().map_or_else(Vec::new, fields)
}

#[test]
fn a_plain_request_is_fine() {
    assert_eq!(request().validate(), Ok(()));
}

#[test]
fn names() {
    let long = |n: usize| "a".repeat(n);
    for good in ["", "a", "a1", "web-1", "web_1", "a-_-9", &long(63)] {
        assert!(refused(|r| r.name = good.to_owned()).is_empty(), "{good}");
    }
    for bad in ["A", "1a", "-a", "a-", "a_", "a b", "ä", "a.b", " a", "a\n", &long(64)] {
        assert_eq!(refused(|r| r.name = bad.to_owned()), ["name"], "{bad}");
    }
}

#[test]
fn families() {
    let long = |n: usize| "a".repeat(n);
    for good in ["", "abc", "a-1", &long(63)] {
        assert!(refused(|r| r.family = good.to_owned()).is_empty(), "{good}");
    }
    for bad in ["a", "ab", "a_1", "1bc", "ab-", "aBc", &long(64)] {
        assert_eq!(refused(|r| r.family = bad.to_owned()), ["family"], "{bad}");
    }
}

#[test]
fn lengths_are_characters() {
    assert!(refused(|r| r.description = "ä".repeat(256)).is_empty());
    assert_eq!(refused(|r| r.description = "a".repeat(257)), ["description"]);
    assert_eq!(refused(|r| r.folder_id.clear()), ["folder_id"]);
    assert_eq!(refused(|r| r.folder_id = "f".repeat(51)), ["folder_id"]);
    let ids = vec!["p".repeat(50), "p".repeat(51), String::new(), "p".repeat(51)];
    assert_eq!(refused(|r| r.product_ids = ids), ["product_ids[1]", "product_ids[3]"]);
}

#[test]
fn min_disk_sizes() {
    for good in [0, 4_194_304, 4_194_305, 4_398_046_511_104] {
        assert!(refused(|r| r.min_disk_size = good).is_empty(), "{good}");
    }
    for bad in [-1, 1, 4_194_303, 4_398_046_511_105, i64::MIN, i64::MAX] {
        assert_eq!(refused(|r| r.min_disk_size = bad), ["min_disk_size"], "{bad}");
    }
}

#[test]
fn labels() {
    let labels = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    };
    let long = |n: usize| "a".repeat(n);
    for (key, value) in [("a", ""), ("a-_./@9", "-_./@0a"), (long(63).as_str(), long(63).as_str())] {
        assert!(refused(|r| r.labels = labels(&[(key, value)])).is_empty(), "{key}={value}");
    }
    for (key, value) in
        [("A", ""), ("1", ""), ("", ""), ("a b", ""), ("a", "A"), ("a", "ä"), ("a", r"\"), ("a", &long(64))]
    {
        assert_eq!(refused(|r| r.labels = labels(&[(key, value)])).len(), 1, "{key}={value}");
    }
    assert_eq!(refused(|r| r.labels = labels(&[(&long(64), "")])), ["labels"]);
    let many = |n: usize| (0..n).map(|i| (format!("k{i}"), String::new())).collect::<BTreeMap<_, _>>();
    assert!(refused(|r| r.labels = many(64)).is_empty());
    assert_eq!(refused(|r| r.labels = many(65)), ["labels"]);
}

#[test]
fn exactly_one_source() {
    assert_eq!(refused(|r| r.source = None), ["source"]);
    assert_eq!(refused(|r| r.source = Some(Source::Uri(String::new()))), ["uri"]);
    assert_eq!(refused(|r| r.source = Some(Source::ImageId(String::new()))), ["image_id"]);
    assert_eq!(refused(|r| r.source = Some(Source::DiskId("d".repeat(51)))), ["disk_id"]);
    assert!(refused(|r| r.source = Some(Source::SnapshotId("s".repeat(50)))).is_empty());
}

#[test]
fn open_enums_are_closed_here() {
    assert_eq!(refused(|r| r.os = Some(Os { r#type: 3, nvidia: None })), ["os.type"]);
    let legacy = Features::LegacyFeatures(LegacyHardwareFeatures { pci_topology: 9 });
    assert_eq!(
        refused(|r| r.hardware_generation = Some(HardwareGeneration { features: Some(legacy) })),
        ["hardware_generation.legacy_features.pci_topology"]
    );
}

#[test]
fn all_violations_are_reported() {
    let request = CreateImageRequest {
        name: "Web".to_owned(),
        min_disk_size: 5,
        description: "d".repeat(300),
        ..CreateImageRequest::default()
    };
    let status = request.validate().unwrap_err().into_status();
    assert_eq!(status.code, 3);
    let fields: Vec<_> = status.field_violations().into_iter().map(|violation| violation.field).collect();
    assert_eq!(fields, ["folder_id", "name", "description", "min_disk_size", "source"]);
    assert!(status.message.contains("min_disk_size: found 5, expected 4194304 to 4398046511104"));
}

#[test]
fn the_other_requests() {
    let list = ListImagesRequest {
        page_size: 1001,
        page_token: "t".repeat(101),
        filter: "f".repeat(1001),
        order_by: "o".repeat(101),
        ..ListImagesRequest::default()
    };
    assert_eq!(list.validate().unwrap_err().fields().len(), 5);
    let operations = ListImageOperationsRequest { page_size: -1, ..ListImageOperationsRequest::default() };
    assert_eq!(operations.validate().unwrap_err().fields().len(), 2);
    let latest = GetImageLatestByFamilyRequest { folder_id: "f".to_owned(), family: String::new() };
    assert_eq!(latest.validate().unwrap_err().fields()[0].field, "family");
    let many = crate::access::SetAccessBindingsRequest {
        resource_id: "r".repeat(65),
        access_bindings: vec![crate::access::AccessBinding::default(); 1001],
    };
    let fields = many.validate().unwrap_err().fields().len();
    assert_eq!(fields, 2 + 2 * 1001, "every part of every binding");
    assert!(GetImageRequest::default().validate().is_err());
    assert!(DeleteImageRequest { image_id: "i".repeat(51) }.validate().is_err());
    assert!(GetOperationRequest { operation_id: "o".to_owned() }.validate().is_ok());
    assert!(CancelOperationRequest::default().validate().is_err());
}
