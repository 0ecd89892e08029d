//! The content of an Image over HTTP: raw and qcow2, by ranges, for those who may see it, judged by qemu-img.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use disk_convert::{ByteSource as _, SourceFault};
use disk_image::Span;
use object_io::{Bearer, HttpOptions, HttpSource};
use support::{Fixture, disk};
use tokio_util::sync::CancellationToken;

const MIB: usize = 1 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn both_forms_hold_the_disk() {
    let fixture = Fixture::start_with(|config| config.tokens = vec!["token".parse().unwrap()]).await;
    // Blocks of both kinds, data across the edge of two, and a tail.
    let content = disk(29 * MIB + 512, &[(0, MIB), (7 * MIB, 2 * MIB), (29 * MIB, 512)]);
    let id = fixture.ready("web", &content).await;
    let digest = support::digest(&content).await;
    let open = async |file: &str, token: &str| {
        let options = HttpOptions { bearer: Bearer::new(token), ..HttpOptions::default() };
        let url = format!("{}/images/{id}/{file}", fixture.endpoint());
        HttpSource::open(&url, &options, &CancellationToken::new()).await
    };
    let raw = open("disk.raw", "token").await.unwrap();
    assert_eq!(raw.version(), format!("{} bytes, \"{digest}\"", content.len()));
    for span in [
        Span::new(0, content.len() as u64),
        Span::new(content.len() as u64 - 1, 1),
        Span::new((4 * MIB - 1) as u64, 2),
        Span::new((5 * MIB) as u64, (4 * MIB) as u64),
    ] {
        let bytes = raw.read(span).await.unwrap();
        let from = usize::try_from(span.start).unwrap();
        assert!(bytes == content[from..from + bytes.len()], "{span:?}");
    }
    let qcow2 = open("disk.qcow2", "token").await.unwrap();
    let bytes = qcow2.read(Span::new(0, qcow2.len())).await.unwrap();
    assert!(bytes.len() < content.len(), "zeroes are left out");
    assert!(qcow2.version().contains(&format!("{digest}-qcow2-")), "{}", qcow2.version());
    if let Some(back) = support::qemu_to_raw(&bytes) {
        assert!(back == content);
    }
    assert_eq!(open("disk.raw", "another").await.unwrap_err().fault, SourceFault::Denied);
    assert_eq!(open("disk.vdi", "token").await.unwrap_err().fault, SourceFault::NotFound);
    fixture.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_deleted_while_it_is_read_is_not_read_on() {
    let fixture = Fixture::start().await;
    let id = fixture.ready("web", &disk(12 * MIB, &[(0, 12 * MIB)])).await;
    let url = format!("{}/images/{id}/disk.raw", fixture.endpoint());
    let never = CancellationToken::new();
    let source = HttpSource::open(&url, &HttpOptions::default(), &never).await.unwrap();
    source.read(Span::new(0, 10)).await.unwrap();
    let delete = fixture.client.delete_image(&id, image_api::Uuid::new_v4(), &never).await.unwrap();
    fixture.wait(&delete).await;
    let error = source.read(Span::new(10, 10)).await.unwrap_err();
    assert_eq!(error.fault, SourceFault::NotFound, "{error:?}");
    fixture.stop().await;
}
