//! Golden examples of canonical proto3 JSON, both ways.

use std::collections::BTreeMap;

use image_api::{
    Code, CreateImageRequest, Image, Operation, Timestamp, any_of,
    compute::{
        CreateImageMetadata, Generation2HardwareFeatures, HardwareGeneration, Nvidia, Os,
        create_image_request::Source, hardware_generation::Features, image, os,
    },
    from_json, from_json_lenient,
    operation::operation::Result as Ending,
    rpc::Status,
    to_json_value, unpack,
};
use serde_json::json;

fn image() -> Image {
    Image {
        id: "fd8abcdefghijklmnopq".to_owned(),
        folder_id: "b1g".to_owned(),
        created_at: Some(Timestamp { seconds: 1_784_800_000, nanos: 120_000_000 }),
        name: "web".to_owned(),
        labels: BTreeMap::from([("b".to_owned(), "2".to_owned()), ("a".to_owned(), String::new())]),
        storage_size: 9_007_199_254_740_993,
        min_disk_size: 4_194_304,
        product_ids: vec!["p1".to_owned()],
        status: image::Status::Ready.into(),
        os: Some(Os { r#type: os::Type::Linux.into(), nvidia: Some(Nvidia { driver: "535".to_owned() }) }),
        pooled: true,
        hardware_generation: Some(HardwareGeneration {
            features: Some(Features::Generation2Features(Generation2HardwareFeatures {})),
        }),
        ..Image::default()
    }
}

#[test]
fn an_image() {
    let golden = json!({
        "id": "fd8abcdefghijklmnopq",
        "folderId": "b1g",
        "createdAt": "2026-07-23T09:46:40.120Z",
        "name": "web",
        "labels": {"a": "", "b": "2"},
        "storageSize": "9007199254740993",
        "minDiskSize": "4194304",
        "productIds": ["p1"],
        "status": "READY",
        "os": {"type": "LINUX", "nvidia": {"driver": "535"}},
        "pooled": true,
        "hardwareGeneration": {"generation2Features": {}}
    });
    assert_eq!(to_json_value(&image()).unwrap(), golden);
    assert_eq!(from_json::<Image>(golden.to_string().as_bytes()).unwrap(), image());
}

#[test]
fn operations() {
    let running = Operation {
        id: "fd9".to_owned(),
        created_at: Some(Timestamp { seconds: 0, nanos: 0 }),
        metadata: Some(any_of(&CreateImageMetadata { image_id: "fd8".to_owned() })),
        ..Operation::default()
    };
    let golden = json!({
        "id": "fd9",
        "createdAt": "1970-01-01T00:00:00Z",
        "metadata": {
            "@type": "type.googleapis.com/yandex.cloud.compute.v1.CreateImageMetadata",
            "imageId": "fd8"
        }
    });
    assert_eq!(to_json_value(&running).unwrap(), golden);
    assert_eq!(from_json::<Operation>(golden.to_string().as_bytes()).unwrap(), running);

    let ready =
        Operation { done: true, result: Some(Ending::Response(any_of(&image()))), ..Operation::default() };
    let value = to_json_value(&ready).unwrap();
    assert_eq!(value["response"]["@type"], "type.googleapis.com/yandex.cloud.compute.v1.Image");
    assert_eq!(value["response"]["storageSize"], "9007199254740993");
    let back: Operation = from_json(value.to_string().as_bytes()).unwrap();
    let Some(Ending::Response(any)) = back.result else { panic!("no response") };
    assert_eq!(unpack::<Image>(&any).unwrap(), image());

    let failed = Operation {
        done: true,
        result: Some(Ending::Error(Status::new(Code::Cancelled, "stopped"))),
        ..Operation::default()
    };
    assert_eq!(
        to_json_value(&failed).unwrap(),
        json!({"done": true, "error": {"code": 1, "message": "stopped"}})
    );
}

#[test]
fn an_empty_response() {
    let deleted =
        Operation { done: true, result: Some(Ending::Response(any_of(&()))), ..Operation::default() };
    let golden = json!({"done": true, "response": {"@type": "type.googleapis.com/google.protobuf.Empty", "value": {}}});
    assert_eq!(to_json_value(&deleted).unwrap(), golden);
    assert_eq!(from_json::<Operation>(golden.to_string().as_bytes()).unwrap(), deleted);
}

#[test]
fn field_violations_of_a_refusal() {
    use image_api::Validate as _;
    let status = CreateImageRequest::default().validate().unwrap_err().into_status();
    let value = to_json_value(&status).unwrap();
    assert_eq!(value["code"], 3);
    assert_eq!(value["details"][0]["@type"], "type.googleapis.com/google.rpc.BadRequest");
    assert_eq!(value["details"][0]["fieldViolations"][0]["field"], "folder_id");
}

#[test]
fn what_clients_write() {
    // int64 as string or number, lowerCamel or proto names, enums by name or number: canonical readers take all.
    for text in [
        r#"{"folderId":"f","minDiskSize":"4194304","uri":"https://s/b/k","os":{"type":"WINDOWS"}}"#,
        r#"{"folder_id":"f","min_disk_size":4194304,"uri":"https://s/b/k","os":{"type":2}}"#,
    ] {
        let request: CreateImageRequest = from_json(text.as_bytes()).unwrap();
        assert_eq!(request.min_disk_size, 4_194_304);
        assert_eq!(request.source, Some(Source::Uri("https://s/b/k".to_owned())));
        assert_eq!(request.os.unwrap().r#type(), os::Type::Windows);
    }
}

#[test]
fn what_a_server_refuses_and_a_client_skips() {
    for text in [
        r#"{"folderId":"f","newField":1}"#,
        r#"{"folderId":"f","uri":"a","imageId":"b"}"#,
        r#"{"folderId":1}"#,
        r#"{"minDiskSize":"many"}"#,
        r#"{"minDiskSize":1.5}"#,
        r#"{"os":{"type":"BEOS"}}"#,
        r#"{"folderId":"f"} {}"#,
        r#"{"folderId":"f""#,
        r#"[]"#,
        "",
    ] {
        assert!(from_json::<CreateImageRequest>(text.as_bytes()).is_err(), "{text}");
    }
    let newer =
        br#"{"id":"o","later":true,"metadata":{"@type":"type.googleapis.com/yandex.cloud.New","x":1}}"#;
    let operation: Operation = from_json_lenient(newer).unwrap();
    assert_eq!((operation.id.as_str(), operation.metadata), ("o", None));
    assert!(from_json::<Operation>(newer).is_err());
}
