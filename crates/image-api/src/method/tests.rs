//! Tests of the HTTP forms.

use super::*;
use crate::{
    Image,
    compute::{DeleteImageRequest, ListImagesRequest, UpdateImageRequest},
    operation::CancelOperationRequest,
};

fn method(name: &str) -> &'static Method {
    METHODS.iter().find(|method| method.grpc_path.ends_with(&format!(".ImageService/{name}"))).unwrap()
}

fn read<M: Name + Default>(verb: &str, target: &str, body: &str) -> Result<M, Status> {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let Route::Method(method, request) = Method::route(verb, path) else { panic!("{verb} {target}") };
    let wire = method.request_from_http(&request, query, body.as_bytes())?;
    Ok(M::decode(&*wire).unwrap())
}

/// The whole contract: a path that changes here changes for every client.
#[test]
fn the_table() {
    let mut table = Vec::new();
    for method in Method::all() {
        assert!(!method.bindings.is_empty(), "{}", method.grpc_path);
        for binding in &method.bindings {
            table.push(format!("{} {} {}", binding.verb, binding.path(), method.grpc_path));
            // Whatever is neither in the path nor in a body must be able to stand in a query.
            if binding.body != Body::Whole {
                let input = method.descriptor.input();
                let in_body = usize::from(binding.body_field(&input).is_some());
                let fields = input.fields().len() - in_body;
                assert_eq!(query_fields(&input).count(), fields, "{}", method.grpc_path);
            }
        }
    }
    table.sort();
    let expected = [
        "DELETE /compute/v1/images/{image_id} /yandex.cloud.compute.v1.ImageService/Delete",
        "DELETE /compute/v1/projects/{project}/global/images/{image} /google.cloud.compute.v1.Images/Delete",
        "GET /compute/v1/images /yandex.cloud.compute.v1.ImageService/List",
        "GET /compute/v1/images/{image_id} /yandex.cloud.compute.v1.ImageService/Get",
        "GET /compute/v1/images/{image_id}/operations /yandex.cloud.compute.v1.ImageService/ListOperations",
        "GET /compute/v1/images/{resource_id}:listAccessBindings /yandex.cloud.compute.v1.ImageService/ListAccessBindings",
        "GET /compute/v1/images:latestByFamily /yandex.cloud.compute.v1.ImageService/GetLatestByFamily",
        "GET /compute/v1/projects/{project}/global/images /google.cloud.compute.v1.Images/List",
        "GET /compute/v1/projects/{project}/global/images/family/{family} /google.cloud.compute.v1.Images/GetFromFamily",
        "GET /compute/v1/projects/{project}/global/images/{image} /google.cloud.compute.v1.Images/Get",
        "GET /compute/v1/projects/{project}/global/operations/{operation} /google.cloud.compute.v1.GlobalOperations/Get",
        "GET /endpoints /yandex.cloud.endpoint.ApiEndpointService/List",
        "GET /endpoints/{api_endpoint_id} /yandex.cloud.endpoint.ApiEndpointService/Get",
        "GET /operations/{operation_id} /yandex.cloud.operation.OperationService/Get",
        "GET /operations/{operation_id}:cancel /yandex.cloud.operation.OperationService/Cancel",
        "PATCH /compute/v1/images/{image_id} /yandex.cloud.compute.v1.ImageService/Update",
        "PATCH /compute/v1/projects/{project}/global/images/{image} /google.cloud.compute.v1.Images/Patch",
        "POST /compute/v1/images /yandex.cloud.compute.v1.ImageService/Create",
        "POST /compute/v1/images/{resource_id}:setAccessBindings /yandex.cloud.compute.v1.ImageService/SetAccessBindings",
        "POST /compute/v1/images/{resource_id}:updateAccessBindings /yandex.cloud.compute.v1.ImageService/UpdateAccessBindings",
        "POST /compute/v1/projects/{project}/global/images /google.cloud.compute.v1.Images/Insert",
        "POST /compute/v1/projects/{project}/global/images/{resource}/setLabels /google.cloud.compute.v1.Images/SetLabels",
        "POST /compute/v1/projects/{project}/global/operations/{operation}/wait /google.cloud.compute.v1.GlobalOperations/Wait",
        "POST /iam/v1/tokens /yandex.cloud.iam.v1.IamTokenService/Create",
        "POST /operations/{operation_id}:cancel /yandex.cloud.operation.OperationService/Cancel",
    ];
    assert_eq!(table, expected);
}

#[test]
fn paths_queries_and_bodies_are_one_request() {
    let list: ListImagesRequest =
        read("GET", "/compute/v1/images?folderId=f&page_size=7&filter=name+%3D+%22a%22", "").unwrap();
    assert_eq!((list.folder_id.as_str(), list.page_size, list.filter.as_str()), ("f", 7, "name = \"a\""));
    let cancel: CancelOperationRequest = read("POST", "/operations/fd8:cancel", "").unwrap();
    assert_eq!(cancel.operation_id, "fd8");
    // What the path says wins over the body.
    let body = r#"{"imageId":"other","updateMask":"minDiskSize,labels","minDiskSize":"5"}"#;
    let update: UpdateImageRequest = read("PATCH", "/compute/v1/images/a%2Fb%3Ac", body).unwrap();
    assert_eq!((update.image_id.as_str(), update.min_disk_size), ("a/b:c", 5));
    assert_eq!(update.update_mask.unwrap().paths, ["min_disk_size", "labels"]);
}

#[test]
fn what_does_not_fit_is_named() {
    let status =
        read::<ListImagesRequest>("GET", "/compute/v1/images?pageSize=many&color=red", "").unwrap_err();
    let fields: Vec<_> = status.field_violations().into_iter().map(|violation| violation.field).collect();
    assert_eq!(fields, ["page_size", "color"]);
    let status = read::<DeleteImageRequest>("DELETE", "/compute/v1/images/%ff", "").unwrap_err();
    assert_eq!(status.field_violations()[0].field, "image_id");
    assert_eq!(read::<UpdateImageRequest>("PATCH", "/compute/v1/images/a", "[]").unwrap_err().code, 3);
    for path in ["", "/", "/compute", "/compute/v1/images/", "/compute/v1/images/a/b", "/operations/a:stop"] {
        assert!(matches!(Method::route("GET", path), Route::Nothing), "{path}");
    }
    let Route::OtherVerb(mut verbs) = Method::route("PUT", "/compute/v1/images/a") else {
        panic!("no verbs")
    };
    verbs.sort_unstable();
    assert_eq!(verbs, ["DELETE", "GET", "PATCH"]);
}

/// Every request that a client writes is one that a server reads.
#[test]
fn both_ways() {
    let list = ListImagesRequest {
        folder_id: "f&g".to_owned(),
        page_size: 3,
        order_by: "name desc".to_owned(),
        ..ListImagesRequest::default()
    };
    let call = method("List").request_to_http(&list).unwrap();
    assert_eq!((call.verb, &call.body), ("GET", &None));
    assert_eq!(read::<ListImagesRequest>(call.verb, &call.target, "").unwrap(), list);
    let update = UpdateImageRequest {
        image_id: "a/../b:c?d".to_owned(),
        update_mask: Some(prost_types::FieldMask { paths: vec!["min_disk_size".to_owned()] }),
        labels: [("k".to_owned(), "v".to_owned())].into(),
        ..UpdateImageRequest::default()
    };
    let call = method("Update").request_to_http(&update).unwrap();
    assert_eq!(call.target, "/compute/v1/images/a%2F..%2Fb%3Ac%3Fd");
    assert_eq!(call.body.as_deref(), Some(r#"{"updateMask":"minDiskSize","labels":{"k":"v"}}"#));
    assert_eq!(read::<UpdateImageRequest>(call.verb, &call.target, &call.body.unwrap()).unwrap(), update);
}

/// A body that is a field of the request, and the others in the query.
#[test]
fn a_field_is_the_body() {
    use crate::google::{InsertImageRequest, NewImage, RawDisk, new_image};
    let source = RawDisk { source: "u".to_owned(), ..RawDisk::default() };
    let image = NewImage {
        name: "web".to_owned(),
        source: Some(new_image::Source::RawDisk(source)),
        ..NewImage::default()
    };
    let insert = InsertImageRequest {
        project: "p".to_owned(),
        image_resource: Some(image),
        request_id: "r".to_owned(),
        force_create: true,
    };
    let method = Method::at("/google.cloud.compute.v1.Images/Insert").unwrap();
    let call = method.request_to_http(&insert).unwrap();
    assert_eq!(call.target, "/compute/v1/projects/p/global/images?requestId=r&forceCreate=true");
    assert_eq!(call.body.as_deref(), Some(r#"{"name":"web","rawDisk":{"source":"u"}}"#));
    assert_eq!(read::<InsertImageRequest>("POST", &call.target, &call.body.unwrap()).unwrap(), insert);
    for (body, word) in
        [(r#"{"status":"READY"}"#, "status"), (r#"{"rawDisk":{"sha1Checksum":"x"}}"#, "sha1Checksum")]
    {
        let refused =
            read::<InsertImageRequest>("POST", "/compute/v1/projects/p/global/images", body).unwrap_err();
        assert!(refused.message.contains(word), "{}", refused.message);
    }
    let empty: InsertImageRequest = read("POST", "/compute/v1/projects/p/global/images", "").unwrap();
    assert_eq!(empty.image_resource, None);
}

#[test]
fn answers() {
    let get = METHODS.iter().find(|method| method.grpc_path.ends_with("ImageService/Get")).unwrap();
    let image = Image { id: "fd8".to_owned(), min_disk_size: 4, ..Image::default() };
    assert_eq!(get.response_to_json(&image.encode_to_vec()).unwrap(), r#"{"id":"fd8","minDiskSize":"4"}"#);
    assert!(get.response_to_json(&[0xff]).is_err());
}
