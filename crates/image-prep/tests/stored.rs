//! Images of the service as sources of `compare` and `convert`.

mod support;

use std::fs;

use support::Bench;

#[test]
fn an_image_is_compared_and_converted_where_it_is() {
    let bench = Bench::new();
    bench.sample();
    let operation = bench.ok(["create", "sample.raw", "--name", "web", "--local=state", "--json"]).json();
    let image = format!("image:{}", operation["metadata"]["imageId"].as_str().unwrap());
    let same = bench.ok(["compare", "sample.raw", &image, "--local=state", "--json"]).json();
    assert_eq!(same["same"], true);
    bench.ok(["convert", &image, "back.raw", "--local=state"]);
    assert!(fs::read(bench.path("back.raw")).unwrap() == fs::read(bench.path("sample.raw")).unwrap());
    bench.ok(["convert", &image, "back.qcow2", "--to", "qcow2", "--compress", "--local=state"]);
    bench.ok(["compare", "back.qcow2", "sample.raw"]);

    let other = bench.raw("other.raw", 24 << 20, &[(23 << 20, b"x")]);
    let differs = bench.run(["compare", &image, other.to_str().unwrap(), "--local=state"]);
    assert_eq!(differs.code, 1, "{differs:?}");
    let missing = bench.fails(2, ["compare", "sample.raw", "image:nothing", "--local=state"]);
    assert!(missing.stderr.contains("not found"), "{missing:?}");
    bench.fails(2, ["convert", "image:../../operations/x", "out", "--local=state"]);
    // A file may be called so.
    fs::copy(bench.path("sample.raw"), bench.path("image:web")).unwrap();
    bench.ok(["compare", "./image:web", "sample.raw"]);
}
