//! Every class of error as a person reads it, and as a program does with `--json`: a snapshot.

mod beneath;
mod ours;

use super::*;
use crate::report::Failure;

/// The classes. One that is new does not compile until it is among them, and fails until there is a sample of it.
macro_rules! classes {
    ($($name:ident),* $(,)?) => {
        const CLASSES: &[&str] = &[$(stringify!($name)),*];

        fn class(error: &Error) -> &'static str {
            match error { $(Error::$name { .. } => stringify!($name)),* }
        }
    };
}

classes! {
    Convert, Layout, Stream, Archive, Object, Journal, Kept, Exists, ExistsOther, ImageExists, ImageOther, NotConfirmed,
    CleanupLeft, Local, NoDataHome, Api, Request, Operation, Preflight, NoOperation, OtherStore, LostOperation, Json, NoToken,
    NoCancel, OtherCloud, ReplaceByUri, StoreElsewhere, TwoStores, NoStorageCredentials, NoGoogleCredentials, NoProject, Key, NoProfile, Config, Yc, NoService, NoName, NoNameIn, SameName, ForOne, Manifest, Entry, NotMade, NoFolder, NoBucket, Token, Scheme, NoUrl, PlainHttp, SameFile, ImageId,
    RemoteReferences, NotWhole, SnapshotOfSource, ReuseWithoutDigest, OptionUnused, MinDiskSize, NotReady, File, Output, Threads,
    Panicked, Interrupted,
}

/// What is told of them, class by class.
fn told(samples: &[Error]) -> String {
    let mut text = String::new();
    for error in samples {
        let failure = Failure::new(error, error.exit());
        let json = serde_json::to_string(&failure).unwrap();
        text += &format!("{}\n{}{json}\n\n", class(error), failure.to_text());
    }
    text
}

#[test]
fn what_is_told_of_every_class() {
    let (ours, beneath) = (ours::samples(), beneath::samples());
    for name in CLASSES {
        assert!(ours.iter().chain(&beneath).any(|error| class(error) == *name), "no sample of {name}");
    }
    insta::assert_snapshot!("ours", told(&ours));
    insta::assert_snapshot!("beneath", told(&beneath));
}
