//! Journals as files: locks, torn ends, disks that refuse.

use std::os::unix::fs::PermissionsExt as _;

use super::*;

const PLACE: (&str, &str, &str) = ("http://127.0.0.1:1/", "bucket", "key");

fn open(dir: &Path) -> Result<Arc<Journal>, JournalError> {
    Journal::open(dir, PLACE.0, PLACE.1, PLACE.2)
}

fn begun(id: &str) -> Begun {
    Begun {
        version: VERSION,
        endpoint: PLACE.0.to_owned(),
        bucket: PLACE.1.to_owned(),
        key: PLACE.2.to_owned(),
        upload_id: id.to_owned(),
        len: 10,
        part_len: 16 << 20,
        of: UploadOf {
            form: "raw".to_owned(),
            layout: 1,
            guest_digest: None,
            sources: Vec::new(),
            temporary: true,
        },
    }
}

fn part(etag: &str, len: u64) -> PartSent {
    PartSent { etag: etag.into(), crc32: 7, len, md5: None }
}

fn paths(dir: &Path) -> Vec<PathBuf> {
    fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect()
}

#[test]
fn what_was_written_is_known_later() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("made/on/the/way");
    let journal = open(&dir).unwrap();
    assert!(!journal.is_usable());
    journal.begin(begun("one"));
    journal.part(2, &part("two", 3));
    journal.part(1, &part("one", 7));
    assert!(journal.failure().is_none());
    drop(journal);
    assert_eq!(Journal::upload_ids(&dir), ["one"]);
    let [path] = &paths(&dir)[..] else { panic!("one file for each upload") };
    assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);

    let journal = open(&dir).unwrap();
    let known = journal.known();
    assert_eq!(known.begun, Some(begun("one")));
    assert_eq!(
        known.parts.iter().map(|(n, part)| (*n, &*part.etag)).collect::<Vec<_>>(),
        [(1, "one"), (2, "two")]
    );
    assert!(known.is_whole(10) && !known.is_whole(11));
    // Another upload to the same place.
    journal.begin(begun("two"));
    journal.done("\"etag\"");
    drop(journal);
    let journal = open(&dir).unwrap();
    assert_eq!(journal.begun().unwrap().upload_id, "two");
    assert!(journal.known().parts.is_empty() && journal.made("\"etag\"") && !journal.made("\"other\""));
    journal.remove();
    assert!(paths(&dir).is_empty() && !journal.is_usable());
}

#[test]
fn an_object_that_is_to_stay_stays_for_every_later_run() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path()).unwrap();
    journal.keep_object();
    assert!(!journal.is_usable());
    journal.begin(begun("one"));
    journal.part(1, &part("one", 10));
    assert!(journal.begun().unwrap().of.temporary);
    journal.keep_object();
    journal.keep_object();
    drop(journal);
    let journal = open(dir.path()).unwrap();
    assert!(!journal.begun().unwrap().of.temporary && journal.bytes_sent() == 10);
    // Of the upload that was begun, not of the next one.
    journal.begin(begun("two"));
    drop(journal);
    assert!(open(dir.path()).unwrap().begun().unwrap().of.temporary);
}

#[test]
fn one_process_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path()).unwrap();
    let error = open(dir.path()).unwrap_err();
    assert_eq!(error.to_string(), "another process is uploading to `s3://bucket/key`");
    assert!(Journal::list(dir.path()).unwrap().is_empty());
    assert!(Journal::open(dir.path(), PLACE.0, PLACE.1, "other").is_ok());
    journal.begin(begun("one"));
    drop(journal);
    assert_eq!(Journal::list(dir.path()).unwrap().len(), 1, "what says nothing is not left");
    assert!(open(dir.path()).unwrap().is_usable());
}

#[test]
fn a_torn_end_is_cut_and_written_over() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path()).unwrap();
    journal.begin(begun("one"));
    journal.part(1, &part("one", 1));
    journal.part(2, &part("two", 1));
    drop(journal);
    let [path] = &paths(dir.path())[..] else { panic!("one file") };
    let len = fs::metadata(path).unwrap().len();
    File::options().write(true).open(path).unwrap().set_len(len - 3).unwrap();

    let journal = open(dir.path()).unwrap();
    assert_eq!(journal.known().parts.into_keys().collect::<Vec<_>>(), [1]);
    journal.part(3, &part("three", 1));
    drop(journal);
    assert_eq!(open(dir.path()).unwrap().known().parts.into_keys().collect::<Vec<_>>(), [1, 3]);
}

#[test]
fn a_full_disk_is_told_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(name(PLACE.0, PLACE.1, PLACE.2));
    std::os::unix::fs::symlink("/dev/full", &path).unwrap();
    let journal = open(dir.path()).unwrap();
    journal.begin(begun("one"));
    assert!(journal.failure().is_some() && !journal.is_usable());
    journal.part(1, &part("one", 1));
    journal.done("\"etag\"");
    journal.remove();
    assert!(!path.exists());
}

#[test]
fn names_do_not_run_together() {
    assert_ne!(name("e", "ab", "c"), name("e", "a", "bc"));
    assert_eq!(name("e", "b", &"k".repeat(1024)).len(), 40);
}
