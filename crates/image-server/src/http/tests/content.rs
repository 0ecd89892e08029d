//! The content of images.

use super::*;

#[tokio::test]
async fn content_by_ranges() {
    let server = Harness::start(Transport::Rest, &["token"]).await;
    let operation = server.create(&request("web", "slow")).await.unwrap();
    let image_id = operation.metadata_as::<CreateImageMetadata>().unwrap().image_id;
    let http = reqwest_of(&server);
    let path = format!("/images/{image_id}/disk.raw");
    let ask = async |method: &str, path: &str, name: &str, value: &str| {
        let request = http.request(method.parse().unwrap(), url(&server, path)).bearer_auth("token");
        let answer = request.header(name, value).send().await.unwrap();
        let head = (answer.status().as_u16(), answer.headers().clone());
        (head.0, head.1, answer.bytes().await.unwrap())
    };
    server.until_running(1).await;
    assert_eq!(ask("GET", &path, "range", "bytes=0-0").await.0, 400, "it is not READY yet");
    server.fake.go_on.notify_one();
    server.wait(&operation.id).await;

    let content = server.fake.content.clone();
    let (status, headers, body) = ask("GET", &path, "accept", "*/*").await;
    assert_eq!((status, headers["etag"].to_str().unwrap()), (200, "\"7\""));
    assert!(body == content && headers["content-length"] == content.len().to_string().as_str());
    let (status, headers, body) = ask("GET", &path, "range", "bytes=4194000-8389000").await;
    assert_eq!((status, headers["content-range"].to_str().unwrap()), (206, "bytes 4194000-8389000/9437184"));
    assert!(body == content[4_194_000..=8_389_000]);
    let (status, headers, body) = ask("HEAD", &path, "range", "bytes=0-9").await;
    assert_eq!((status, headers["content-length"].to_str().unwrap(), body.len()), (206, "10", 0));
    let (status, headers, body) = ask("HEAD", &path, "accept", "*/*").await;
    assert_eq!((status, headers["content-length"].to_str().unwrap(), body.len()), (200, "9437184", 0));
    assert_eq!(headers["accept-ranges"], "bytes");
    let (status, headers, body) = ask("GET", &path, "range", "bytes=9437184-").await;
    assert_eq!((status, headers["content-range"].to_str().unwrap(), body.len()), (416, "bytes */9437184", 0));
    assert_eq!(ask("GET", &path, "if-match", "\"8\"").await.0, 412);
    assert_eq!(ask("GET", &path, "if-none-match", "\"7\"").await.0, 304);

    assert_eq!(ask("GET", "/images/nothing/disk.raw", "accept", "*/*").await.0, 404);
    assert_eq!(ask("GET", &format!("/images/{image_id}/disk.vmdk"), "accept", "*/*").await.0, 404);
    let stranger = http.get(url(&server, &path)).send().await.unwrap();
    assert_eq!(stranger.status().as_u16(), 401);
    server.stop().await;
}

#[tokio::test]
async fn readers_take_turns() {
    let server = Harness::start(Transport::Rest, &[]).await;
    let operation = server.create(&request("web", "disk")).await.unwrap();
    server.wait(&operation.id).await;
    let image_id = operation.metadata_as::<CreateImageMetadata>().unwrap().image_id;
    let http = reqwest_of(&server);
    let ask = || http.get(url(&server, &format!("/images/{image_id}/disk.raw"))).send();
    // Two that are in no hurry hold both places, until they go.
    let first = ask().await.unwrap();
    let second = ask().await.unwrap();
    eventually("both places are taken", || server.app.readers.available_permits() == 0).await;
    drop(first);
    assert_eq!(ask().await.unwrap().bytes().await.unwrap().len(), 9 << 20);
    drop(second);
    eventually("both places are free", || server.app.readers.available_permits() == 2).await;
    server.stop().await;
}
