//! Update, the latest of a family, and the operations on an image.

use image_api::{
    FieldMask,
    compute::{ListImageOperationsRequest, UpdateImageMetadata, UpdateImageRequest},
};

use super::*;

over_both!(
    an_update_is_done_at_once,
    updates_that_are_refused,
    a_mask_chooses,
    a_repeated_update_is_the_same_operation,
    the_latest_of_a_family,
    operations_on_an_image,
);

async fn ready(server: &Harness, request: &CreateImageRequest) -> String {
    let operation = server.create(request).await.unwrap();
    assert!(matches!(server.wait(&operation.id).await.outcome(), OperationOutcome::Succeeded(_)));
    operation.metadata_as::<CreateImageMetadata>().unwrap().image_id
}

fn mask(paths: &[&str]) -> Option<FieldMask> {
    Some(FieldMask { paths: paths.iter().map(|path| (*path).to_owned()).collect() })
}

async fn update(server: &Harness, request: &UpdateImageRequest) -> Result<Operation, ApiError> {
    server.client.update_image(request, Uuid::new_v4(), &server.cancel).await
}

async fn an_update_is_done_at_once(transport: Transport) {
    let server = Harness::start(transport, &["first"]).await;
    let labels = [("a".to_owned(), "1".to_owned()), ("b".to_owned(), "2".to_owned())];
    let image_id =
        ready(&server, &CreateImageRequest { labels: labels.into(), ..request("web", "disk") }).await;
    let change = UpdateImageRequest {
        image_id: image_id.clone(),
        update_mask: mask(&["name", "labels", "min_disk_size"]),
        name: "db".to_owned(),
        description: "not in the mask".to_owned(),
        labels: [("c".to_owned(), "3".to_owned())].into(),
        min_disk_size: 1 << 30,
    };
    let operation = update(&server, &change).await.unwrap();
    assert!(operation.done);
    assert_eq!((operation.description.as_str(), operation.created_by.as_str()), ("Update image", "token-1"));
    assert_eq!(operation.metadata_as::<UpdateImageMetadata>().unwrap().image_id, image_id);
    let OperationOutcome::Succeeded(Some(any)) = operation.outcome() else { panic!("{operation:?}") };
    let image: Image = unpack(&any).unwrap();
    assert_eq!((image.name.as_str(), image.description.as_str()), ("db", ""));
    assert_eq!((image.min_disk_size, image.labels.len(), image.labels["c"].as_str()), (1 << 30, 1, "3"));
    assert_eq!(server.client.get_image(&image_id, &server.cancel).await.unwrap(), image);
    assert_eq!(server.client.get_operation(&operation.id, &server.cancel).await.unwrap(), operation);
    let cancelled = server.client.cancel_operation(&operation.id, &server.cancel).await.unwrap();
    assert_eq!(cancelled, operation, "cancelling what has ended shows how it ended");
    server.stop().await;
}

async fn updates_that_are_refused(transport: Transport) {
    let server = Harness::start(transport, &[]).await;
    let image_id = ready(&server, &request("web", "disk")).await;
    ready(&server, &request("taken", "disk")).await;
    let with = |change: fn(&mut UpdateImageRequest)| {
        let mut request = UpdateImageRequest { image_id: image_id.clone(), ..UpdateImageRequest::default() };
        change(&mut request);
        request
    };
    let error = refusal(update(&server, &with(|r| r.name = "taken".to_owned())).await);
    assert_eq!((error.code, error.http_status), (Code::AlreadyExists, 409));
    let error = refusal(update(&server, &with(|r| r.min_disk_size = 4 << 20)).await);
    assert_eq!(
        (error.code, error.field_violations()[0].field.as_str()),
        (Code::InvalidArgument, "min_disk_size")
    );
    assert!(error.message.contains("Minimal disk size should be greater or equal than 12582912"), "{error}");
    let bad = with(|r| {
        r.update_mask = mask(&["name", "family"]);
        r.name = "Web".to_owned();
        r.description = "d".repeat(257);
    });
    let error = refusal(update(&server, &bad).await);
    let fields: Vec<_> = error.field_violations().into_iter().map(|violation| violation.field).collect();
    assert_eq!(fields, ["update_mask", "name", "description"]);
    let error = refusal(update(&server, &with(|r| r.image_id = "fd8nothing".to_owned())).await);
    assert_eq!((error.code, error.http_status), (Code::NotFound, 404));
    // An image that is not there yet has no name to change.
    let creating = server.create(&request("slow", "slow")).await.unwrap();
    server.until_running(1).await;
    let creating = creating.metadata_as::<CreateImageMetadata>().unwrap().image_id;
    let early = UpdateImageRequest { image_id: creating, ..UpdateImageRequest::default() };
    assert_eq!(refusal(update(&server, &early).await).code, Code::FailedPrecondition);
    // Its own name is not taken, and nothing of all that changed anything.
    let error = update(&server, &with(|r| r.name = "web".to_owned())).await;
    assert!(error.is_ok(), "{error:?}");
    server.stop().await;
}

async fn a_mask_chooses(transport: Transport) {
    let server = Harness::start(transport, &[]).await;
    let create = CreateImageRequest {
        description: "text".to_owned(),
        min_disk_size: 1 << 30,
        family: "linux".to_owned(),
        ..request("web", "disk")
    };
    let image_id = ready(&server, &create).await;
    let only = UpdateImageRequest {
        image_id: image_id.clone(),
        update_mask: mask(&["description"]),
        ..UpdateImageRequest::default()
    };
    update(&server, &only).await.unwrap();
    let image = server.client.get_image(&image_id, &server.cancel).await.unwrap();
    assert_eq!((image.name.as_str(), image.description.as_str(), image.min_disk_size), ("web", "", 1 << 30));
    // Without a mask everything is replaced; 0 is what the content needs.
    let all = UpdateImageRequest {
        image_id: image_id.clone(),
        name: "db".to_owned(),
        ..UpdateImageRequest::default()
    };
    update(&server, &all).await.unwrap();
    let image = server.client.get_image(&image_id, &server.cancel).await.unwrap();
    assert_eq!((image.name.as_str(), image.min_disk_size), ("db", 12 << 20));
    assert_eq!(image.family, "linux", "which nobody can change");
    server.stop().await;
}

async fn a_repeated_update_is_the_same_operation(transport: Transport) {
    let server = Harness::start(transport, &[]).await;
    let image_id = ready(&server, &request("web", "disk")).await;
    let key = Uuid::new_v4();
    let change = UpdateImageRequest {
        image_id: image_id.clone(),
        name: "db".to_owned(),
        ..UpdateImageRequest::default()
    };
    let first = server.client.update_image(&change, key, &server.cancel).await.unwrap();
    assert_eq!(server.client.update_image(&change, key, &server.cancel).await.unwrap(), first);
    let other = UpdateImageRequest { name: "other".to_owned(), ..change };
    let refused = refusal(server.client.update_image(&other, key, &server.cancel).await);
    assert_eq!(refused.code, Code::AlreadyExists);
    // A key is a key over all methods.
    let refused = refusal(server.client.delete_image(&image_id, key, &server.cancel).await);
    assert_eq!(refused.code, Code::AlreadyExists);
    let refused = refusal(server.client.create_image(&request("new", "disk"), key, &server.cancel).await);
    assert_eq!(refused.code, Code::AlreadyExists);
    let key = Uuid::new_v4();
    server.client.create_image(&request("new", "disk"), key, &server.cancel).await.unwrap();
    let refused = refusal(server.client.update_image(&other, key, &server.cancel).await);
    assert_eq!(refused.code, Code::AlreadyExists);
    server.stop().await;
}

async fn the_latest_of_a_family(transport: Transport) {
    let server = Harness::start(transport, &[]).await;
    let of = |family: &str, name: &str, what: &str| CreateImageRequest {
        family: family.to_owned(),
        ..request(name, what)
    };
    let latest = async |family: &str| {
        let answer = server.client.get_image_latest_by_family("folder", family, &server.cancel).await;
        answer.map(|image| image.name)
    };
    assert_eq!(refusal(latest("linux").await).code, Code::NotFound);
    ready(&server, &of("linux", "old", "disk")).await;
    let newest = ready(&server, &of("linux", "new", "disk")).await;
    ready(&server, &of("bsd", "other", "disk")).await;
    server.create(&of("linux", "creating", "slow")).await.unwrap();
    server.until_running(1).await;
    assert_eq!(latest("linux").await.unwrap(), "new");
    let delete = server.client.delete_image(&newest, Uuid::new_v4(), &server.cancel).await.unwrap();
    server.wait(&delete.id).await;
    assert_eq!(latest("linux").await.unwrap(), "old");
    let error = refusal(latest("").await);
    assert_eq!((error.code, error.field_violations()[0].field.as_str()), (Code::InvalidArgument, "family"));
    let elsewhere = server.client.get_image_latest_by_family("other", "linux", &server.cancel).await;
    assert_eq!(refusal(elsewhere).code, Code::NotFound);
    server.stop().await;
}

async fn operations_on_an_image(transport: Transport) {
    let server = Harness::start(transport, &[]).await;
    let image_id = ready(&server, &request("web", "disk")).await;
    ready(&server, &request("other", "disk")).await;
    for name in ["a", "b", "c"] {
        let change = UpdateImageRequest {
            image_id: image_id.clone(),
            name: name.to_owned(),
            ..UpdateImageRequest::default()
        };
        update(&server, &change).await.unwrap();
    }
    for page_size in [0, 1, 2, 3, 4] {
        let mut list =
            ListImageOperationsRequest { image_id: image_id.clone(), page_size, page_token: String::new() };
        let mut seen = Vec::new();
        loop {
            let page = server.client.list_image_operations(&list, &server.cancel).await.unwrap();
            assert!(page_size == 0 || page.operations.len() as i64 <= page_size);
            seen.extend(page.operations);
            if page.next_page_token.is_empty() {
                break;
            }
            list.page_token = page.next_page_token;
        }
        let told: Vec<_> = seen.iter().map(|operation| operation.description.as_str()).collect();
        assert_eq!(told, ["Update image", "Update image", "Update image", "Create image"], "{page_size}");
        for operation in seen {
            assert_eq!(server.client.get_operation(&operation.id, &server.cancel).await.unwrap(), operation);
        }
    }
    let bad = ListImageOperationsRequest { image_id, page_size: 1001, page_token: "x".to_owned() };
    let error = refusal(server.client.list_image_operations(&bad, &server.cancel).await);
    assert_eq!(error.field_violations()[0].field, "page_size");
    server.stop().await;
}
