//! Images: made, refused, listed, deleted.

use super::*;

over_both!(
    an_image_becomes_ready,
    sizes_that_callers_want,
    refusals,
    tokens,
    an_image_of_an_image_inherits_what_is_not_said,
    deletion,
    pages,
);

async fn an_image_becomes_ready(transport: Transport) {
    let server = Harness::start(transport, &[]).await;
    let operation = server.create(&request("web", "disk")).await.unwrap();
    let image_id = operation.metadata_as::<CreateImageMetadata>().unwrap().image_id;
    let done = server.wait(&operation.id).await;
    let OperationOutcome::Succeeded(Some(any)) = done.outcome() else { panic!("{done:?}") };
    let image: Image = unpack(&any).unwrap();
    assert_eq!((image.id.as_str(), image.status()), (image_id.as_str(), image::Status::Ready));
    assert_eq!((image.storage_size, image.min_disk_size), (1 << 20, 12 << 20));
    assert_eq!(server.client.get_image(&image_id, &server.cancel).await.unwrap(), image);
    assert_eq!(server.client.get_operation(&operation.id, &server.cancel).await.unwrap(), done);
    server.stop().await;
}

async fn sizes_that_callers_want(transport: Transport) {
    let server = Harness::start(transport, &[]).await;
    let with = |size| CreateImageRequest { min_disk_size: size, ..request("", "disk") };
    let small = server.create(&with(4 << 20)).await.unwrap();
    let status = failure(&server.wait(&small.id).await);
    assert_eq!(status.canonical_code(), Code::InvalidArgument);
    assert_eq!(status.message, "Minimal disk size should be greater or equal than 12582912");
    let large = server.create(&with(10 << 30)).await.unwrap();
    let OperationOutcome::Succeeded(Some(any)) = server.wait(&large.id).await.outcome() else { panic!() };
    assert_eq!(unpack::<Image>(&any).unwrap().min_disk_size, 10 << 30);
    server.stop().await;
}

async fn refusals(transport: Transport) {
    let server = Harness::start(transport, &[]).await;
    let bad = CreateImageRequest { name: "Web".to_owned(), folder_id: String::new(), ..request("", "disk") };
    let error = refusal(server.create(&bad).await);
    assert_eq!((error.code, error.http_status), (Code::InvalidArgument, 400));
    let fields: Vec<_> = error.field_violations().into_iter().map(|violation| violation.field).collect();
    assert_eq!(fields, ["folder_id", "name"]);
    assert!(error.request_id.is_some());

    let nothing = Some(Source::ImageId("nothing".to_owned()));
    let error = refusal(server.create(&CreateImageRequest { source: nothing, ..request("", "") }).await);
    assert_eq!((error.code, error.http_status), (Code::NotFound, 404));
    for (source, field) in
        [(Source::DiskId("d".to_owned()), "disk_id"), (Source::SnapshotId("s".to_owned()), "snapshot_id")]
    {
        let error =
            refusal(server.create(&CreateImageRequest { source: Some(source), ..request("", "") }).await);
        assert_eq!((error.code, error.http_status), (Code::Unimplemented, 501));
        assert_eq!(error.field_violations()[0].field, field);
    }
    let error = refusal(server.create(&CreateImageRequest { pooled: true, ..request("", "disk") }).await);
    assert_eq!((error.code, error.http_status), (Code::ResourceExhausted, 429));
    assert!(error.message.starts_with("pooled"), "{error}");

    for uri in
        ["https://evil.example/x?sig=secret", "http://store.example/x?sig=secret", "file:///x?sig=secret"]
    {
        let source = Some(Source::Uri(uri.to_owned()));
        let error = refusal(server.create(&CreateImageRequest { source, ..request("", "") }).await);
        assert_eq!((error.code, error.field_violations()[0].field.as_str()), (Code::InvalidArgument, "uri"));
        assert!(!error.message.contains("secret"));
    }
    let error = refusal(server.client.get_image("nothing", &server.cancel).await);
    assert_eq!((error.code, error.http_status), (Code::NotFound, 404));
    let error = refusal(server.client.get_operation("nothing", &server.cancel).await);
    assert_eq!((error.code, error.http_status), (Code::NotFound, 404));
    server.stop().await;
}

async fn tokens(transport: Transport) {
    let server = Harness::start(transport, &["first", "second"]).await;
    let operation = server.create(&request("web", "disk")).await.unwrap();
    assert_eq!(operation.created_by, "token-1");
    for wrong in [None, Some("third"), Some("firs"), Some("first1")] {
        let error = refusal(
            client(transport, server.address, wrong).get_operation(&operation.id, &server.cancel).await,
        );
        assert_eq!((error.code, error.http_status), (Code::Unauthenticated, 401), "{wrong:?}");
    }
    let second = client(transport, server.address, Some("second"));
    assert_eq!(second.get_operation(&operation.id, &server.cancel).await.unwrap().id, operation.id);
    server.stop().await;
}

async fn an_image_of_an_image_inherits_what_is_not_said(transport: Transport) {
    let server = Harness::start(transport, &[]).await;
    let first = CreateImageRequest {
        os: Some(Os { r#type: os::Type::Windows.into(), ..Os::default() }),
        product_ids: vec!["p".to_owned()],
        hardware_generation: Some(HardwareGeneration {
            features: Some(Features::Generation2Features(Generation2HardwareFeatures {})),
        }),
        ..request("first", "slow")
    };
    let creating = server.create(&first).await.unwrap();
    let id = creating.metadata_as::<CreateImageMetadata>().unwrap().image_id;
    let of =
        |name: &str| CreateImageRequest { source: Some(Source::ImageId(id.clone())), ..request(name, "") };
    let early = refusal(server.create(&of("early")).await);
    assert_eq!(early.code, Code::FailedPrecondition, "{}", early.message);
    server.until_running(1).await;
    server.fake.go_on.notify_one();
    server.wait(&creating.id).await;

    let ready = async |request: &CreateImageRequest| {
        let operation = server.create(request).await.unwrap();
        let OperationOutcome::Succeeded(Some(any)) = server.wait(&operation.id).await.outcome() else {
            panic!()
        };
        unpack::<Image>(&any).unwrap()
    };
    let second = ready(&of("second")).await;
    assert_eq!((&second.os, &second.product_ids), (&first.os, &first.product_ids));
    assert_eq!(second.hardware_generation, first.hardware_generation);
    let said = CreateImageRequest {
        os: Some(Os { r#type: os::Type::Linux.into(), ..Os::default() }),
        product_ids: vec!["q".to_owned(), "r".to_owned()],
        ..of("third")
    };
    let third = ready(&said).await;
    assert_eq!((&third.os, &third.product_ids), (&said.os, &said.product_ids));
    assert_eq!(third.hardware_generation, first.hardware_generation);
    server.stop().await;
}

async fn deletion(transport: Transport) {
    let server = Harness::start(transport, &[]).await;
    let operation = server.create(&request("web", "disk")).await.unwrap();
    server.wait(&operation.id).await;
    let image_id = operation.metadata_as::<CreateImageMetadata>().unwrap().image_id;
    let key = Uuid::new_v4();
    let delete = server.client.delete_image(&image_id, key, &server.cancel).await.unwrap();
    assert_eq!(delete.metadata_as::<DeleteImageMetadata>().unwrap().image_id, image_id);
    let done = server.wait(&delete.id).await;
    let OperationOutcome::Succeeded(Some(any)) = done.outcome() else { panic!("{done:?}") };
    unpack::<()>(&any).unwrap();
    assert_eq!(
        server.fake.collected.load(Ordering::SeqCst),
        1,
        "the bytes are free when the operation says so"
    );
    assert_eq!(refusal(server.client.get_image(&image_id, &server.cancel).await).code, Code::NotFound);
    let same = server.client.delete_image(&image_id, key, &server.cancel).await.unwrap();
    assert_eq!(same.id, delete.id);
    let error = refusal(server.client.delete_image(&image_id, Uuid::new_v4(), &server.cancel).await);
    assert_eq!(error.code, Code::NotFound);
    server.stop().await;
}

async fn pages(transport: Transport) {
    let server = Harness::start(transport, &[]).await;
    for name in ["d", "a", "c", "b", "e"] {
        server.wait(&server.create(&request(name, "disk")).await.unwrap().id).await;
    }
    let names = async |order_by: &str, filter: &str, page_size: i64| {
        let mut list = ListImagesRequest {
            folder_id: "folder".to_owned(),
            order_by: order_by.to_owned(),
            filter: filter.to_owned(),
            page_size,
            ..ListImagesRequest::default()
        };
        let mut names = String::new();
        loop {
            let page = server.client.list_images(&list, &server.cancel).await.unwrap();
            assert!(page_size == 0 || page.images.len() as i64 <= page_size);
            names.extend(page.images.iter().map(|image| image.name.as_str()));
            if page.next_page_token.is_empty() {
                return names;
            }
            list.page_token = page.next_page_token;
        }
    };
    assert_eq!(names("name", "", 0).await, "abcde");
    assert_eq!(names("name desc", "", 2).await, "edcba");
    assert_eq!(names("createdAt", "", 1).await, "dacbe");
    assert_eq!(names("createdAt desc", "", 5).await, "ebcad");
    assert_eq!(names("", "", 2).await.len(), 5);
    assert_eq!(names("name", r#"name != "c" AND status = READY"#, 3).await, "abde");
    assert_eq!(names("name", "name IN (a, 'e', x)", 0).await, "ae");
    assert_eq!(names("name", "status = CREATING", 0).await, "");
    server.stop().await;
}

#[tokio::test]
async fn raw_http() {
    let server = Harness::start(Transport::Rest, &[]).await;
    let http = reqwest_of(&server);
    let post = async |body: &str| {
        let answer =
            http.post(url(&server, "/compute/v1/images")).body(body.to_owned()).send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    };
    let (status, body) = post(r#"{"folderId":"f","unknown":1}"#).await;
    assert_eq!(status, 400);
    assert!(body.starts_with(r#"{"code":3,"#) && body.contains("unknown"), "{body}");
    assert_eq!(post("").await.0, 400);
    assert_eq!(post(&format!(r#"{{"description":"{}"}}"#, "x".repeat(limits::REQUEST_BODY))).await.0, 400);
    for (method, path, status) in [
        ("GET", "/", 404),
        ("GET", "/compute/v1/disks", 404),
        ("PATCH", "/compute/v1/images/fd8", 404),
        ("PUT", "/compute/v1/images/fd8", 405),
        ("HEAD", "/compute/v1/images/fd8", 404),
        ("POST", "/operations/fd8", 405),
        ("POST", "/operations/fd8:stop", 404),
        ("GET", "/operations/fd8:cancel", 404),
        ("GET", "/operations/%ff", 400),
        ("DELETE", "/compute/v1/images/%ff", 400),
        ("POST", "/operations/fd8:cancel", 404),
        ("GET", "/compute/v1/images", 400),
        ("GET", "/compute/v1/images?folderId=f&pageSize=1001", 400),
        ("GET", "/compute/v1/images?folderId=f&color=red", 400),
        ("GET", "/compute/v1/images?folderId=f&filter=size%3D1", 400),
        ("GET", "/compute/v1/images?folderId=f", 200),
    ] {
        let method = method.parse().unwrap();
        let answer = http.request(method, url(&server, path)).send().await.unwrap();
        assert_eq!(answer.status().as_u16(), status, "{path}");
        assert!(answer.headers().contains_key("x-request-id"));
        assert_eq!(answer.headers()["content-type"], "application/json");
    }
    let page =
        http.get(url(&server, "/compute/v1/images?folderId=f")).header("origin", "http://evil.example");
    assert_eq!(page.send().await.unwrap().status().as_u16(), 403);
    for (host, status) in [
        ("evil.example", 403),
        ("evil.example:80", 403),
        ("LocalHost:1", 200),
        ("[::1]:1", 200),
        ("127.0.0.1", 200),
    ] {
        let rebound = http.get(url(&server, "/compute/v1/images?folderId=f")).header("host", host);
        assert_eq!(rebound.send().await.unwrap().status().as_u16(), status, "{host}");
    }
    server.stop().await;
}
