//! Tests of the document: everything is in it, and it says what is checked.

use regex_lite::Regex;

use super::*;
use crate::{Validate as _, compute::CreateImageRequest, compute::create_image_request::Source};

fn document() -> Value {
    openapi("t", "1", |method| method.service().contains("endpoint"))
}

#[test]
fn every_binding_and_every_reference() {
    let document = document();
    let described = Method::all().iter().filter(|method| is_described(method));
    let bindings: usize = described.map(|method| method.bindings().len()).sum();
    let paths = document["paths"].as_object().unwrap();
    assert_eq!(paths.values().map(|path| path.as_object().unwrap().len()).sum::<usize>(), bindings);
    let list = &document["paths"]["/compute/v1/images"]["get"];
    assert_eq!(list["operationId"], "ImageService_List");
    assert_eq!(list["summary"], "Lists the images of a folder.");
    assert_eq!(document["paths"]["/endpoints"]["get"]["security"], json!([]));
    let image = &document["components"]["schemas"]["yandex.cloud.compute.v1.Image"];
    assert_eq!(image["properties"]["minDiskSize"]["type"], "string");
    assert_eq!(image["properties"]["labels"]["additionalProperties"]["type"], "string");
    assert_eq!(image["properties"]["status"]["enum"][2], "READY");
    assert_eq!(image["properties"]["createdAt"]["format"], "date-time");
    let text = document.to_string();
    for reference in text.split("\"$ref\":\"#").skip(1).map(|rest| rest.split('"').next().unwrap()) {
        assert!(document.pointer(reference).is_some_and(|found| !found.is_null()), "{reference}");
    }
    let mut ids: Vec<_> =
        text.split("\"operationId\":\"").skip(1).map(|rest| rest.split('"').next()).collect();
    let all = ids.len();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), all, "operation ids are unique");
}

#[test]
fn the_rules_are_said() {
    let document = document();
    let schema = |name: &str| document["components"]["schemas"][name].clone();
    let create = schema("yandex.cloud.compute.v1.CreateImageRequest");
    assert_eq!(create["required"], json!(["folderId"]));
    assert_eq!(create["oneOf"].as_array().unwrap().len(), 4);
    let properties = &create["properties"];
    assert_eq!(properties["folderId"]["maxLength"], 50);
    assert_eq!(properties["description"]["type"], json!(["string", "null"]));
    assert_eq!(properties["labels"]["maxProperties"], 64);
    assert_eq!(properties["labels"]["propertyNames"]["pattern"], "^([a-z][-_./@0-9a-z]*)$");
    assert_eq!(properties["productIds"]["items"]["maxLength"], 50);
    let update = &schema("yandex.cloud.compute.v1.UpdateImageRequest");
    assert_eq!(update["properties"].get("imageId"), None, "it stands in the path");
    assert!(update["properties"]["updateMask"]["pattern"].as_str().unwrap().contains("minDiskSize"));
    let delta = &schema("yandex.cloud.access.AccessBindingDelta");
    assert_eq!(delta["required"], json!(["action", "accessBinding"]));
    assert_eq!(delta["properties"]["action"]["anyOf"][0]["enum"], json!(["ADD", "REMOVE"]));
    let deltas =
        &schema("yandex.cloud.access.UpdateAccessBindingsRequest")["properties"]["accessBindingDeltas"];
    assert_eq!((&deltas["minItems"], &deltas["maxItems"]), (&json!(1), &json!(1000)));
    let list = &document["paths"]["/compute/v1/images"]["get"]["parameters"];
    assert_eq!((&list[0]["name"], &list[0]["required"]), (&json!("folderId"), &json!(true)));
    assert_eq!((&list[1]["name"], &list[1]["schema"]["maximum"]), (&json!("pageSize"), &json!(1000)));
    let cancel = &document["paths"]["/operations/{operation_id}:cancel"]["post"];
    assert_eq!(cancel["requestBody"]["required"], false);
    assert_eq!(cancel["parameters"][0]["schema"]["maxLength"], 50);
}

/// The patterns of the document decide as validation does.
#[test]
fn what_the_document_takes_is_what_is_taken() {
    let document = document();
    let create = &document["components"]["schemas"]["yandex.cloud.compute.v1.CreateImageRequest"];
    let sizes = &create["properties"]["minDiskSize"]["anyOf"][0]["pattern"];
    let (sizes, names) = (Regex::new(sizes.as_str().unwrap()).unwrap(), &create["properties"]["name"]);
    let names = Regex::new(names["pattern"].as_str().unwrap()).unwrap();
    let base = || CreateImageRequest {
        folder_id: "f".to_owned(),
        source: Some(Source::Uri("u".to_owned())),
        ..CreateImageRequest::default()
    };
    for min_disk_size in [0, 1, (4 << 20) - 1, 4 << 20, 5 << 30, 4 << 40, (4 << 40) + 1, i64::MAX] {
        let request = CreateImageRequest { min_disk_size, ..base() };
        assert_eq!(sizes.is_match(&min_disk_size.to_string()), request.validate().is_ok(), "{min_disk_size}");
    }
    let long = |length: usize| format!("a{}", "-a".repeat(length / 2));
    for name in ["", "a", "a-b", "A", "-a", "a-", "a\n", &long(62), &long(64)] {
        let request = CreateImageRequest { name: name.to_owned(), ..base() };
        assert_eq!(names.is_match(name), request.validate().is_ok(), "{name}");
    }
}
