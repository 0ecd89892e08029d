//! Uploads that go on where another process stopped: what is trusted, what is sent, what is left.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use disk_convert::{Part, Payload, Sink, SinkFault};
use object_io::{
    Journal, MultipartOptions, MultipartSink, ObjectError, Progress, Restart, Resumed, SourceIdentity, Store,
    UploadOf, UploadedObject,
};
use tokio_util::sync::CancellationToken;

use crate::hostile::{Answer, Hostile};
use crate::local::{BUCKET, Local, config_for, metadata, noise};

const PART: usize = 16 << 20;
const KEY: &str = "disk";

fn of(version: &str) -> UploadOf {
    let source = SourceIdentity { name: "disk".to_owned(), version: version.to_owned() };
    UploadOf {
        form: "raw".to_owned(),
        layout: 1,
        guest_digest: None,
        sources: vec![source],
        temporary: false,
    }
}

fn journal(dir: &Path, store: &Store) -> Arc<Journal> {
    Journal::open(dir, &store.endpoint(), BUCKET, KEY).unwrap()
}

async fn resume(
    store: &Store,
    journal: &Arc<Journal>,
    len: usize,
    of: UploadOf,
    cancel: &CancellationToken,
) -> Result<Resumed, ObjectError> {
    let options = MultipartOptions { metadata: metadata(), ..MultipartOptions::default() };
    MultipartSink::resume(store, BUCKET, KEY, len as u64, options, journal, of, cancel).await
}

async fn sink(local: &Local, journal: &Arc<Journal>, len: usize, of: UploadOf) -> (MultipartSink, Progress) {
    match resume(&local.store, journal, len, of, &local.never).await.unwrap() {
        Resumed::Sink(sink, progress) => (*sink, progress),
        Resumed::Done(done) => panic!("{done:?}"),
    }
}

fn part(object: &Bytes, number: u32) -> Part {
    let start = number as usize * PART;
    let bytes = object.slice(start..object.len().min(start + PART));
    Part { number, offset: start as u64, payload: Payload::Data(bytes) }
}

/// What a process leaves that fails or is killed: the upload, and the journal as it is.
async fn killed(sink: MultipartSink) {
    sink.abort().await;
}

async fn ids(store: &Store) -> Vec<String> {
    let uploads = store.list_uploads(BUCKET, "", &CancellationToken::new()).await.unwrap();
    uploads.into_iter().map(|upload| upload.id).collect()
}

async fn finish(local: &Local, sink: MultipartSink, object: &Bytes) -> UploadedObject {
    for number in 0..u32::try_from(object.len().div_ceil(PART)).unwrap() {
        sink.put(part(object, number)).await.unwrap();
    }
    let done = sink.finish(object.len() as u64).await.unwrap();
    let stored = local.store.get(BUCKET, KEY, None, &local.never).await.unwrap();
    assert!(stored == object, "another object than was sent");
    assert!(ids(&local.store).await.is_empty());
    done
}

/// As a kill before it was written.
fn cut_last_record(dir: &Path) {
    let file = std::fs::read_dir(dir).unwrap().next().unwrap().unwrap().path();
    let text = std::fs::read(&file).unwrap();
    let last = text[..text.len() - 1].iter().rposition(|byte| *byte == b'\n').unwrap();
    std::fs::write(&file, &text[..=last]).unwrap();
}

#[tokio::test]
async fn an_upload_goes_on_with_the_parts_that_it_has() {
    let (local, dir) = (Local::start().await, tempfile::tempdir().unwrap());
    let object = Bytes::from(noise(2 * PART + 77));
    let first = journal(dir.path(), &local.store);
    let (sent, progress) = sink(&local, &first, object.len(), of("1")).await;
    assert_eq!(progress, Progress::Begun);
    sent.put(part(&object, 2)).await.unwrap();
    sent.put(part(&object, 0)).await.unwrap();
    killed(sent).await;
    drop(first);

    let second = journal(dir.path(), &local.store);
    assert_eq!(Journal::upload_ids(dir.path()), ids(&local.store).await);
    let (rest, progress) = sink(&local, &second, object.len(), of("1")).await;
    assert_eq!(progress, Progress::Continued { parts: 2, bytes: PART as u64 + 77 });
    let done = finish(&local, rest, &object).await;
    assert_eq!(done.crc32, crc32fast::hash(&object));
    assert!(second.made(&done.etag));
    local.stop().await;
}

#[tokio::test]
async fn a_part_whose_bytes_or_store_changed_is_sent_again() {
    let (local, dir) = (Local::start().await, tempfile::tempdir().unwrap());
    let before = Bytes::from(noise(2 * PART));
    let first = journal(dir.path(), &local.store);
    let (sent, _) = sink(&local, &first, before.len(), of("1")).await;
    sent.put(part(&before, 0)).await.unwrap();
    sent.put(part(&before, 1)).await.unwrap();
    killed(sent).await;
    drop(first);
    // The journal keeps what it knows of part 2; the store is given another one behind its back.
    let copy = dir.path().join("copy");
    std::fs::create_dir(&copy).unwrap();
    for entry in std::fs::read_dir(dir.path()).unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_file() {
            std::fs::copy(entry.path(), copy.join(entry.file_name())).unwrap();
        }
    }
    let mut now = before.to_vec();
    now[5] ^= 1;
    now[PART + 5] ^= 1;
    let now = Bytes::from(now);
    let behind = journal(&copy, &local.store);
    let (other, _) = sink(&local, &behind, now.len(), of("1")).await;
    other.put(part(&now, 1)).await.unwrap();
    killed(other).await;

    let second = journal(dir.path(), &local.store);
    let (rest, progress) = sink(&local, &second, now.len(), of("1")).await;
    assert_eq!(progress, Progress::Continued { parts: 1, bytes: PART as u64 });
    // Part 1 is trusted until its bytes are seen.
    finish(&local, rest, &now).await;
    local.stop().await;
}

#[tokio::test]
async fn something_else_begins_anew_and_leaves_nothing() {
    let (local, dir) = (Local::start().await, tempfile::tempdir().unwrap());
    let object = Bytes::from(noise(PART + 1));
    let wider = UploadOf { form: "qcow2-65536".to_owned(), ..of("2") };
    let digest = |digest: &str, version| UploadOf { guest_digest: Some(digest.to_owned()), ..of(version) };
    for (len, what, restart) in [
        (object.len(), of("1"), None),
        (object.len(), of("2"), Some(Restart::Source)),
        (object.len(), wider, Some(Restart::Form)),
        (object.len() + 1, digest("a", "2"), Some(Restart::Form)),
        (object.len(), digest("a", "2"), Some(Restart::Form)),
        (object.len(), digest("b", "2"), Some(Restart::Source)),
        // What is recorded with the object was recorded when the upload began.
        (object.len(), of("2"), Some(Restart::Form)),
        (object.len(), digest("b", "2"), Some(Restart::Form)),
    ] {
        let journal = journal(dir.path(), &local.store);
        let (sink, progress) = sink(&local, &journal, len, what).await;
        assert_eq!(progress, restart.map_or(Progress::Begun, Progress::Restarted));
        sink.put(part(&object, 0)).await.unwrap();
        assert_eq!(ids(&local.store).await.len(), 1);
        killed(sink).await;
    }
    // The same digest is the same content, whatever has become of the file's times.
    let journal = journal(dir.path(), &local.store);
    let (rest, progress) = sink(&local, &journal, object.len(), digest("b", "3")).await;
    assert_eq!(progress, Progress::Continued { parts: 1, bytes: PART as u64 });
    finish(&local, rest, &object).await;
    local.stop().await;
}

#[tokio::test]
async fn an_upload_that_the_store_forgot_begins_anew() {
    let (local, dir) = (Local::start().await, tempfile::tempdir().unwrap());
    let object = Bytes::from(noise(PART + 1));
    let journal = journal(dir.path(), &local.store);
    let (sent, _) = sink(&local, &journal, object.len(), of("1")).await;
    sent.put(part(&object, 0)).await.unwrap();
    killed(sent).await;
    let id = &ids(&local.store).await[0];
    local.store.abort_upload(BUCKET, KEY, id, &local.never).await.unwrap();
    let (rest, progress) = sink(&local, &journal, object.len(), of("1")).await;
    assert_eq!(progress, Progress::Restarted(Restart::Forgotten));
    finish(&local, rest, &object).await;
    local.stop().await;
}

#[tokio::test]
async fn an_object_whose_completion_was_not_noted_is_recognised() {
    let (local, dir) = (Local::start().await, tempfile::tempdir().unwrap());
    let object = Bytes::from(noise(PART + 1));
    let first = journal(dir.path(), &local.store);
    let (sent, _) = sink(&local, &first, object.len(), of("1")).await;
    let done = finish(&local, sent, &object).await;
    drop(first);
    cut_last_record(dir.path());

    let second = journal(dir.path(), &local.store);
    assert!(second.made(&done.etag) && !second.made("\"other\""));
    match resume(&local.store, &second, object.len(), of("1"), &local.never).await.unwrap() {
        Resumed::Done(found) => assert_eq!(found, done),
        Resumed::Sink(..) => panic!("there is nothing left to send"),
    }
    // Unless another one has taken its place.
    local.store.put(BUCKET, KEY, "x".into(), &Default::default(), &local.never).await.unwrap();
    let (again, progress) = sink(&local, &second, object.len(), of("1")).await;
    assert_eq!(progress, Progress::Restarted(Restart::Forgotten));
    again.abort().await;
    assert!(second.give_up(&local.store).await);
    assert!(ids(&local.store).await.is_empty());
    local.stop().await;
}

/// A compressed object: its parts were planned for more than it came to.
#[tokio::test]
async fn a_shorter_object_is_recognised_too() {
    let (local, dir) = (Local::start().await, tempfile::tempdir().unwrap());
    let object = Bytes::from(noise(PART + 1));
    let shorter =
        || MultipartOptions { metadata: metadata(), may_be_shorter: true, ..MultipartOptions::default() };
    let most = 3 * PART as u64;
    let first = journal(dir.path(), &local.store);
    let begun =
        MultipartSink::resume(&local.store, BUCKET, KEY, most, shorter(), &first, of("1"), &local.never);
    let Resumed::Sink(sent, _) = begun.await.unwrap() else { panic!("there was nothing before") };
    let done = finish(&local, *sent, &object).await;
    drop(first);
    cut_last_record(dir.path());

    let second = journal(dir.path(), &local.store);
    assert!(second.made(&done.etag) && !second.made("\"other\""));
    let again =
        MultipartSink::resume(&local.store, BUCKET, KEY, most, shorter(), &second, of("1"), &local.never);
    match again.await.unwrap() {
        Resumed::Done(found) => assert_eq!(found, done),
        Resumed::Sink(..) => panic!("there is nothing left to send"),
    }
    local.stop().await;
}

#[tokio::test]
async fn a_failure_keeps_the_upload_and_a_cancel_does_not() {
    let (local, dir) = (Local::start().await, tempfile::tempdir().unwrap());
    let object = Bytes::from(noise(PART + 1));
    let journal = journal(dir.path(), &local.store);
    let (sent, _) = sink(&local, &journal, object.len(), of("1")).await;
    sent.put(part(&object, 0)).await.unwrap();
    // What `convert` does when a part fails.
    sent.abort().await;
    drop(sent);
    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    assert_eq!(ids(&local.store).await.len(), 1);

    let cancel = CancellationToken::new();
    let resumed = resume(&local.store, &journal, object.len(), of("1"), &cancel).await.unwrap();
    let Resumed::Sink(sink, _) = resumed else { panic!("{resumed:?}") };
    cancel.cancel();
    assert_eq!(sink.put(part(&object, 1)).await.unwrap_err().fault, SinkFault::Cancelled);
    sink.abort().await;
    assert!(ids(&local.store).await.is_empty() && journal.begun().is_none());
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    local.stop().await;
}

const CREATED: &str = "<InitiateMultipartUploadResult><Bucket>images</Bucket><Key>disk</Key><UploadId>u1</UploadId></InitiateMultipartUploadResult>";

#[tokio::test]
async fn an_upload_that_cannot_be_aborted_stays_in_its_journal() {
    let server = Hostile::start(|request, _| match request.method() {
        "POST" => Answer::new(200).body(CREATED),
        _ => Answer::new(403).body("<Error><Code>AccessDenied</Code></Error>"),
    })
    .await;
    let (store, dir) =
        (Store::connect(config_for(&server.origin)).await.unwrap(), tempfile::tempdir().unwrap());
    let (journal, cancel) = (journal(dir.path(), &store), CancellationToken::new());
    let resumed = resume(&store, &journal, PART, of("1"), &cancel).await.unwrap();
    let Resumed::Sink(sink, _) = resumed else { panic!("{resumed:?}") };
    cancel.cancel();
    // `convert` aborts what did not finish.
    sink.finish(PART as u64).await.unwrap_err();
    sink.abort().await;
    drop(sink);
    drop(journal);
    assert_eq!(Journal::upload_ids(dir.path()), ["u1"]);
}

fn page(parts: &[(u32, &str, Option<&str>)], next: Option<u32>) -> Answer {
    let parts: String = parts
        .iter()
        .map(|(number, etag, crc)| {
            let crc = crc.map_or(String::new(), |crc| format!("<ChecksumCRC32>{crc}</ChecksumCRC32>"));
            let size = if *number == 3 { 1 } else { PART };
            format!(
                "<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag><Size>{size}</Size>{crc}</Part>"
            )
        })
        .collect();
    let more = next.map_or(String::new(), |next| {
        format!("<IsTruncated>true</IsTruncated><NextPartNumberMarker>{next}</NextPartNumberMarker>")
    });
    Answer::new(200).body(format!("<ListPartsResult>{parts}{more}</ListPartsResult>"))
}

/// What is made of the parts that a store lists, of three that were sent.
async fn listed(list: impl Fn(&str) -> Answer + Send + Sync + 'static) -> Result<Resumed, ObjectError> {
    let server = Hostile::start(move |request, _| match (request.method(), request.target()) {
        ("POST", target) if target.contains("uploads") => Answer::new(200).body(CREATED),
        ("PUT", _) => Answer::new(200).header("ETag", "\"p\""),
        ("GET", target) => list(target),
        _ => Answer::new(204),
    })
    .await;
    let (store, dir) =
        (Store::connect(config_for(&server.origin)).await.unwrap(), tempfile::tempdir().unwrap());
    let object = Bytes::from(vec![0; 2 * PART + 1]);
    let journal = journal(dir.path(), &store);
    let never = CancellationToken::new();
    let Resumed::Sink(sink, _) = resume(&store, &journal, object.len(), of("1"), &never).await.unwrap()
    else {
        panic!("there was nothing before")
    };
    for number in 0..3 {
        sink.put(part(&object, number)).await.unwrap();
    }
    killed(*sink).await;
    resume(&store, &journal, object.len(), of("1"), &never).await
}

async fn continued(resumed: Result<Resumed, ObjectError>) -> Progress {
    match resumed.unwrap() {
        Resumed::Sink(sink, progress) => {
            killed(*sink).await;
            progress
        }
        Resumed::Done(done) => panic!("{done:?}"),
    }
}

#[tokio::test]
async fn pages_are_read_to_their_end_and_no_further() {
    let pages = |target: &str| match target.contains("part-number-marker=1") {
        false => page(&[(1, "\"p\"", None)], Some(1)),
        true => page(&[(2, "p", None), (3, "&quot;p&quot;", None)], None),
    };
    let all = Progress::Continued { parts: 3, bytes: 2 * PART as u64 + 1 };
    assert_eq!(continued(listed(pages).await).await, all);
    let endless = listed(|_: &str| page(&[(1, "\"p\"", None)], Some(1))).await.unwrap_err();
    assert!(matches!(endless, ObjectError::Protocol { .. }), "{endless:?}");
}

#[tokio::test]
async fn a_part_is_trusted_only_if_the_store_says_the_same_of_it() {
    // CRC32 of 16 MiB of zeroes and of one, by zlib of Python.
    let (part, one) = (Some("pHyhSg=="), Some("0gLvjQ=="));
    let right = move |_: &str| page(&[(1, "\"p\"", part), (2, "\"p\"", None), (3, "\"p\"", one)], None);
    let all = Progress::Continued { parts: 3, bytes: 2 * PART as u64 + 1 };
    assert_eq!(continued(listed(right).await).await, all);
    let wrong = move |_: &str| page(&[(1, "\"q\"", part), (2, "\"p\"", one), (3, "\"p\"", one)], None);
    assert_eq!(continued(listed(wrong).await).await, Progress::Continued { parts: 1, bytes: 1 });
    let none = |_: &str| page(&[], None);
    assert_eq!(continued(listed(none).await).await, Progress::Continued { parts: 0, bytes: 0 });
    let denied = |_: &str| Answer::new(403).body("<Error><Code>AccessDenied</Code></Error>");
    assert_eq!(continued(listed(denied).await).await, Progress::Restarted(Restart::Hidden));
}
