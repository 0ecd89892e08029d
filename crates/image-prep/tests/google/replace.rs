//! `--if-exists replace`, where no Image can be renamed: none is deleted before it is known that another can come.

use super::*;
use crate::proxy::Proxy;

const REPLACE: [&str; 2] = ["--if-exists", "replace"];

#[test]
fn what_would_be_refused_deletes_nothing() {
    let google = Google::new();
    google.bench.raw("other", 9 * MIB, &[]);
    let first = google.made(&google.create("sample.raw", "web", &[]));
    let refused = google.create("other", "web", &[&REPLACE[..], &["--storage-location", "mars"]].concat());
    assert!(refused.code == 1 && refused.stderr.contains("this server stores in"), "{refused:?}");
    assert!(!refused.stderr.contains("is deleted"), "{refused:?}");
    // Nor does what nobody has looked at.
    let uri = format!("gs://{BUCKET}/nothing.tar.gz");
    let by_uri = google.run(&[&["create", "--uri", &uri, "--name", "web", "--json"], &REPLACE[..]].concat());
    assert!(by_uri.code == 2 && by_uri.stderr.contains("--if-exists replace"), "{by_uri:?}");
    assert!(by_uri.stderr.contains("delete it first"), "{by_uri:?}");
    let again = google.create("sample.raw", "web", &["--if-exists", "fail"]);
    assert!(again.stderr.contains(first["id"].as_str().unwrap()), "it is there: {again:?}");
    assert!(google.is_clean());
}

#[test]
fn an_image_that_came_meanwhile_stays() {
    let google = Google::new();
    google.bench.raw("other", 9 * MIB, &[]);
    google.made(&google.create("sample.raw", "web", &[]));
    let proxy = Proxy::start(google.cloud.store_address());
    proxy.hold("POST");
    let args = ["create", "other", "--name", "web", "--bucket", BUCKET, REPLACE[0], REPLACE[1]];
    let child =
        google.command(&google.args(&args)).env("STORAGE_EMULATOR_HOST", proxy.url()).spawn().unwrap();
    until("the upload has begun", || proxy.requests("POST") > 0);
    kill_process(Pid::from_child(&child), Signal::STOP).unwrap();
    google.cloud.delete_image(FOLDER, "web");
    let others = google.made(&google.create("sample.raw", "web", &["--description=another's"]));
    proxy.release();
    kill_process(Pid::from_child(&child), Signal::CONT).unwrap();
    let run = finish(child);
    assert!(run.code == 1 && run.stderr.contains("has taken the place of"), "{run:?}");
    let images = google.cloud.images(FOLDER);
    assert_eq!((images.len(), images[0].description.as_str()), (1, "another's"), "{others}");
    assert!(google.is_clean());
}

#[test]
fn what_fails_after_the_deletion_is_told_and_can_go_on() {
    const GIB: u64 = 1 << 30;
    let google = Google::with(None, Some(GIB));
    // Its archive has 2 GiB, which only the operation finds out.
    google.bench.raw("large", GIB + MIB, &[]);
    let first = google.made(&google.create("sample.raw", "web", &[]));
    let failed = google.create("large", "web", &REPLACE);
    assert_eq!(failed.code, 4, "{failed:?}");
    let told = format!("the Image `web`, {}, is deleted or may be", first["id"].as_str().unwrap());
    assert!(failed.stderr.contains(&told) && failed.stderr.contains("is kept"), "{failed:?}");
    assert!(google.cloud.images(FOLDER).is_empty());
    assert_eq!((google.cloud.objects(BUCKET).len(), google.bench.journals().len()), (1, 1));
}

#[test]
fn an_interrupted_deletion_is_told() {
    let google = Google::new();
    google.bench.raw("other", 9 * MIB, &[]);
    google.made(&google.create("sample.raw", "web", &[]));
    let proxy = Proxy::start(google.cloud.server_address());
    proxy.hold("DELETE");
    let url = proxy.url();
    let args = [&["create", "other", "--name", "web", "--bucket", BUCKET], &REPLACE[..]].concat();
    let through = [&args[..], &["--cloud", "gcp", "--endpoint", &url]].concat();
    let child = google.command(&through).spawn().unwrap();
    until("the deletion is asked for", || proxy.requests("DELETE") > 0);
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    let run = finish(child);
    assert_eq!(run.code, 130, "{run:?}");
    assert!(run.stderr.contains("is deleted or may be") && run.stderr.contains("is kept"), "{run:?}");
    assert_eq!(google.cloud.objects(BUCKET).len(), 1);
    // A server may drop what nobody waits for: either way the same command goes on from there.
    let again = google.run(&[&args[..], &["--json"]].concat());
    assert_eq!(google.made(&again)["name"], "web");
    assert!(google.is_clean());
}
