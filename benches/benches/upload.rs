//! A whole upload: from an image in the page cache through the engine, the AWS SDK and loopback into local-store.
//!
//! Client and server share the machine's cores, and the server syncs every write to the disk.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    reason = "criterion's macros, and a benchmark that cannot go on stops"
)]

use std::time::Duration;

use benches::{Bench, Images, STORED};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use disk_convert::convert;
use disk_image::ObjectMap;
use disk_image::qcow2::{Layout, LayoutOptions};
use object_io::{Credentials, MultipartOptions, MultipartSink, Store, StoreConfig};
use tokio_util::sync::CancellationToken;

const BUCKET: &str = "bench";
const REGION: &str = "local";

fn upload(c: &mut Criterion) {
    let images = Images::new().unwrap();
    let bench = Bench::new(None).unwrap();
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let (access_key, secret_key) = ("bench-key".to_owned(), "bench-secret-of-nobody".to_owned());
    let config = local_store::Config {
        dir: images.folder().join("store"),
        region: REGION.to_owned(),
        credentials: local_store::Credentials {
            access_key: access_key.clone(),
            secret_key: secret_key.clone(),
        },
    };
    let stop = CancellationToken::new();
    let serving = bench.runtime.spawn(local_store::serve(listener, config, stop.clone()));
    let store = bench.runtime.block_on(async {
        let store = Store::connect(StoreConfig {
            endpoint_url: Some(endpoint),
            region: Some(REGION.to_owned()),
            credentials: Some(Credentials::new(access_key, secret_key)),
            ..StoreConfig::default()
        });
        let store = store.await.unwrap();
        store.create_bucket(BUCKET, &bench.cancel).await.unwrap();
        store
    });

    let disk = bench.open(&images.form("zstd", "-c -O qcow2 -o compression_type=zstd").unwrap()).unwrap();
    let layout = ObjectMap::qcow2(Layout::new(disk.image().map(), &LayoutOptions::default()).unwrap());
    let mut group = c.benchmark_group("multipart upload to local-store");
    group.throughput(Throughput::Bytes(STORED));
    group.bench_function("qcow2 zstd as qcow2", |b| {
        b.iter(|| {
            bench.runtime.block_on(async {
                let options = MultipartOptions::default();
                let sink =
                    MultipartSink::create(&store, BUCKET, "disk", layout.len(), options, &bench.cancel);
                convert(&disk, &layout, sink.await.unwrap(), &bench.options, &bench.cancel).await.unwrap()
            })
        });
    });
    group.finish();
    stop.cancel();
    bench.runtime.block_on(serving).unwrap().unwrap();
}

fn config() -> Criterion {
    Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(5))
}

criterion_group!(name = group; config = config(); targets = upload);
criterion_main!(group);
