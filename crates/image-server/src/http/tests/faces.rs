//! What one face has of its own: gRPC's trailers, health and reflection; REST's headers and its OpenAPI document.

use axum::body::Bytes;
use image_api::{Method, rpc::RequestInfo};
use serde_json::Value;

use super::*;

/// Every verb of every path in the document answers, and not with what an unknown path or verb would get.
#[tokio::test]
async fn every_route_of_the_document_answers() {
    let server = Harness::start(Transport::Rest, &["first"]).await;
    let http = reqwest_of(&server);
    let document = http.get(url(&server, OPENAPI)).send().await.unwrap();
    assert_eq!(document.headers()["content-type"], "application/json");
    let document: Value = serde_json::from_slice(&document.bytes().await.unwrap()).unwrap();
    let mut answered = 0;
    for (path, verbs) in document["paths"].as_object().unwrap() {
        for (verb, operation) in verbs.as_object().unwrap() {
            let target = path.replace("{image_id}", "fd8x").replace("{resource_id}", "fd8x");
            let target = target.replace("{operation_id}", "fd8x").replace("{api_endpoint_id}", "compute");
            let call = |token: Option<&str>| {
                let verb = verb.to_ascii_uppercase().parse().unwrap();
                let mut request = http.request(verb, url(&server, &target));
                if operation.get("requestBody").is_some() {
                    request = request.body("{}");
                }
                if let Some(token) = token {
                    request = request.bearer_auth(token);
                }
                request.send()
            };
            let is_open = operation.get("security").is_some();
            let stranger = call(None).await.unwrap().status().as_u16();
            assert_eq!(stranger == 401, !is_open, "{verb} {path}: {stranger}");
            let answer = call(Some("first")).await.unwrap();
            let status = answer.status().as_u16();
            let body: Value = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap();
            // The fields are empty or name nothing: a violation, or nothing of that name, or an answer.
            assert!(matches!(status, 200 | 400 | 404), "{verb} {path}: {status} {body}");
            assert_ne!(body["message"], "no such path", "{verb} {path}");
            let expected = if status == 200 {
                operation["responses"]["200"]["content"]["application/json"]["schema"]["$ref"].clone()
            } else {
                "#/components/schemas/google.rpc.Status".into()
            };
            let schema = document.pointer(&expected.as_str().unwrap()[1..]).unwrap();
            for name in body.as_object().unwrap().keys() {
                assert!(schema["properties"].get(name).is_some(), "{verb} {path}: {name}");
            }
            answered += 1;
        }
    }
    // Google has a document of its own methods.
    let described = Method::all().iter().filter(|method| !method.service().starts_with("google."));
    assert_eq!(answered, described.map(|method| method.bindings().len()).sum::<usize>());
    server.stop().await;
}

/// The same refusal, word by word, over both.
#[tokio::test]
async fn errors_are_the_same() {
    let server = Harness::start(Transport::Rest, &[]).await;
    let grpc = client(Transport::Grpc, server.address, None);
    let bad = CreateImageRequest { name: "Web".to_owned(), folder_id: String::new(), ..request("", "disk") };
    let rest = refusal(server.client.create_image(&bad, Uuid::new_v4(), &server.cancel).await);
    let grpc = refusal(grpc.create_image(&bad, Uuid::new_v4(), &server.cancel).await);
    assert_eq!(rest.field_violations(), grpc.field_violations());
    assert_eq!((rest.code, &rest.message, rest.http_status), (grpc.code, &grpc.message, grpc.http_status));
    for error in [&rest, &grpc] {
        let info = error.details.iter().find_map(|any| unpack::<RequestInfo>(any).ok()).unwrap();
        assert_eq!(Some(info.request_id), error.request_id);
    }
    let text =
        |error: &image_api::StatusError| error.to_string().split(" (request").next().map(str::to_owned);
    assert_eq!(text(&rest), text(&grpc));
    server.stop().await;
}

/// The queue is full, or filled too fast: both say when to come back.
#[tokio::test]
async fn when_to_come_back() {
    let server = Harness::start(Transport::Rest, &[]).await;
    let mut waiting = 0;
    while server.create(&request("", "slow")).await.is_ok() {
        waiting += 1;
        assert!(waiting < 2 * limits::QUEUED_OPERATIONS, "nothing bounds the queue");
    }
    let grpc = client(Transport::Grpc, server.address, None);
    for client in [&server.client, &grpc] {
        let error = refusal(client.create_image(&request("", "slow"), Uuid::new_v4(), &server.cancel).await);
        assert_eq!((error.code, error.http_status), (Code::ResourceExhausted, 429));
        assert_eq!(error.retry_after, Some(limits::QUEUE_RETRY_AFTER));
    }
    server.stop().await;
}

async fn unary(
    server: &Harness,
    path: &'static str,
    message: Vec<u8>,
) -> Result<tonic::Response<Bytes>, tonic::Status> {
    let channel = tonic::transport::Endpoint::from_shared(format!("http://{}", server.address)).unwrap();
    let mut grpc = tonic::client::Grpc::new(channel.connect().await.unwrap());
    grpc.ready().await.unwrap();
    let path = path.parse().unwrap();
    grpc.unary(tonic::Request::new(Bytes::from(message)), path, grpc::Raw).await
}

#[tokio::test]
async fn grpc_of_its_own() {
    let server = Harness::start(Transport::Grpc, &["first"]).await;
    // Health asks for no token; 1 is SERVING.
    for service in ["", "yandex.cloud.compute.v1.ImageService", "yandex.cloud.iam.v1.IamTokenService"] {
        let length = u8::try_from(service.len()).unwrap();
        let mut check = if service.is_empty() { Vec::new() } else { vec![0x0a, length] };
        check.extend(service.as_bytes());
        let answer = unary(&server, "/grpc.health.v1.Health/Check", check).await.unwrap();
        assert_eq!(answer.into_inner()[..], [8, 1], "{service}");
    }
    let refused = unary(&server, "/yandex.cloud.compute.v1.ImageService/Get", Vec::new()).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::Unauthenticated);
    for path in ["/yandex.cloud.compute.v1.ImageService/Drop", "/yandex.cloud.compute.v1.DiskService/Get"] {
        let refused = unary(&server, path, Vec::new()).await.unwrap_err();
        assert_eq!(refused.code(), tonic::Code::Unimplemented, "{path}");
    }
    let long = vec![0; limits::REQUEST_BODY + 1];
    let refused = unary(&server, "/yandex.cloud.endpoint.ApiEndpointService/List", long).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::InvalidArgument, "as REST says it: {refused}");
    let broken =
        unary(&server, "/yandex.cloud.endpoint.ApiEndpointService/List", vec![0xff]).await.unwrap_err();
    assert_eq!(broken.code(), tonic::Code::InvalidArgument);
    let http = reqwest_of(&server);
    let no_grpc = http.post(url(&server, "/yandex.cloud.compute.v1.ImageService/Get")).send().await.unwrap();
    assert_eq!(no_grpc.status().as_u16(), 404, "its content type makes a call one of gRPC");
    server.stop().await;
}

/// `grpcurl` finds every service without a file of ours.
#[tokio::test]
async fn reflection_lists_the_services() {
    let server = Harness::start(Transport::Grpc, &["first"]).await;
    // ServerReflectionRequest { list_services: "" }
    for path in [
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
    ] {
        let answer = unary(&server, path, vec![0x3a, 0]).await.unwrap().into_inner();
        let text = String::from_utf8_lossy(&answer);
        for method in Method::all() {
            assert!(text.contains(method.service()), "{}", method.service());
        }
    }
    server.stop().await;
}
