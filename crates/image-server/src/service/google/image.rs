//! An image as Google shows it, and as a caller describes a new one.
//!
//! `diskSizeGb` is our `minDiskSize` in whole GiB, rounded up; `archiveSizeBytes` what is stored, our `storageSize`. What our Image has no
//! field for is kept as a message of Google's that holds nothing else ([`kept`]).

use std::collections::BTreeMap;

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use image_api::{
    CreateImageRequest, Image,
    compute::{Os, create_image_request::Source, image, os},
    google::{self, GuestOsFeature, NewImage, new_image},
};
use sha2::{Digest as _, Sha256};

use super::{
    links::{Links, number_of},
    operation::name_of,
    source::{Named, named},
};
use crate::catalog::Shown;

const GIB: i64 = 1 << 30;
const WINDOWS: &str = "WINDOWS";

/// The image; `place` is where the server stores.
pub(super) fn show(shown: &Shown, links: &Links, place: &str) -> google::Image {
    let Shown { image, google: kept } = shown;
    let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let status = match image.status() {
        image::Status::Creating | image::Status::Unspecified => "PENDING",
        image::Status::Ready => "READY",
        image::Status::Error => "FAILED",
        image::Status::Deleting => "DELETING",
    };
    let name = name_of(&image.name, &image.id);
    // Before it is stored both are what was asked for or reserved.
    let stored = image.status() != image::Status::Creating;
    let mut guest_os_features = kept.guest_os_features.clone();
    if is_windows(image) && !guest_os_features.iter().any(|feature| feature.r#type() == WINDOWS) {
        guest_os_features.push(GuestOsFeature { r#type: Some(WINDOWS.to_owned()) });
    }
    google::Image {
        id: Some(number_of(&image.id)),
        kind: Some("compute#image".to_owned()),
        name: Some(name.to_owned()),
        creation_timestamp: image.created_at.map(|at| at.to_string()),
        source_image: kept.source_image.as_deref().map(|path| links.path(path)),
        source_snapshot: kept.source_snapshot.as_deref().map(|path| links.path(path)),
        source_disk: kept.source_disk.as_deref().map(|path| links.path(path)),
        status: Some(status.to_owned()),
        storage_locations: vec![place.to_owned()],
        family: text(&image.family),
        archive_size_bytes: stored.then_some(image.storage_size),
        description: text(&image.description),
        source_type: Some("RAW".to_owned()),
        self_link: Some(links.image(&image.folder_id, name)),
        disk_size_gb: Some(gib(image.min_disk_size)).filter(|size| *size > 0),
        labels: image.labels.clone(),
        label_fingerprint: Some(fingerprint(&image.labels)),
        guest_os_features,
        ..kept.clone()
    }
}

/// The request of our own API, of a description that the rules let through; `from` is the image that it is made of.
pub(super) fn request_of(
    project: &str,
    new: NewImage,
    source: Source,
    from: Option<&Image>,
) -> CreateImageRequest {
    let windows = new.guest_os_features.iter().any(|feature| feature.r#type() == WINDOWS);
    let os = windows.then(|| Os { r#type: os::Type::Windows.into(), ..Os::default() });
    CreateImageRequest {
        folder_id: project.to_owned(),
        name: new.name,
        description: new.description,
        labels: new.labels,
        family: new.family,
        min_disk_size: new.disk_size_gb.saturating_mul(GIB),
        // What the source knows of its Windows is inherited whole.
        os: os.filter(|_| !from.is_some_and(is_windows)),
        source: Some(source),
        ..CreateImageRequest::default()
    }
}

/// What of a description our Image has no field for; what it does not say is as in the image that it is made of.
pub(super) fn kept(new: &NewImage, project: &str, from: Option<&Shown>) -> google::Image {
    let inherited = from.map(|from| from.google.clone()).unwrap_or_default();
    let or = |own: &Vec<String>, other: Vec<String>| if own.is_empty() { other } else { own.clone() };
    let architecture = Some(&new.architecture)
        .filter(|word| !word.is_empty() && *word != "ARCHITECTURE_UNSPECIFIED")
        .cloned()
        .or(inherited.architecture);
    let features = match new.guest_os_features.is_empty() {
        true => inherited.guest_os_features,
        false => new.guest_os_features.clone(),
    };
    let mut kept = google::Image {
        architecture,
        licenses: or(&new.licenses, inherited.licenses),
        guest_os_features: features,
        ..google::Image::default()
    };
    match (named(new), &new.source) {
        (Ok(Named::Image { project: of, name }), _) => {
            let of = of.as_deref().unwrap_or(project);
            kept.source_image = Some(format!("projects/{of}/global/images/{name}"));
            kept.source_image_id = from.map(|from| number_of(&from.image.id).to_string());
        }
        (Ok(Named::Snapshot(name)), _) => {
            kept.source_snapshot = Some(format!("projects/{project}/global/snapshots/{name}"));
        }
        // With the zone that the caller gave it: the last four segments, whatever its project is called.
        (Ok(Named::Disk(_)), Some(new_image::Source::SourceDisk(path))) => {
            let at = path.rmatch_indices('/').nth(3).map_or(0, |(at, _)| at + 1);
            kept.source_disk = path.get(at..).map(|path| format!("projects/{project}/{path}"));
        }
        // A URL may be a secret.
        _ => {}
    }
    kept
}

/// Which labels these are: 64 bits of the SHA-256 of all keys and values, each with its length.
pub(super) fn fingerprint(labels: &BTreeMap<String, String>) -> String {
    let mut hash = Sha256::new();
    for text in labels.iter().flat_map(|(key, value)| [key, value]) {
        hash.update((text.len() as u64).to_be_bytes());
        hash.update(text);
    }
    let digest: [u8; 32] = hash.finalize().into();
    BASE64.encode(digest.first_chunk::<8>().copied().unwrap_or_default())
}

fn is_windows(image: &Image) -> bool {
    image.os.as_ref().is_some_and(|os| os.r#type() == os::Type::Windows)
}

fn gib(bytes: i64) -> i64 {
    bytes.max(0).saturating_add(GIB - 1) / GIB
}

#[cfg(test)]
mod tests {
    use image_api::Validate as _;

    use super::*;

    fn new() -> NewImage {
        NewImage {
            name: "web".to_owned(),
            description: "text".to_owned(),
            family: "linux".to_owned(),
            labels: [("k".to_owned(), "v".to_owned())].into(),
            licenses: vec!["l".to_owned()],
            architecture: "ARM64".to_owned(),
            guest_os_features: vec![GuestOsFeature { r#type: Some("GVNIC".to_owned()) }],
            disk_size_gb: 3,
            source: Some(new_image::Source::SourceImage("projects/q/global/images/base".to_owned())),
            ..NewImage::default()
        }
    }

    fn image(status: image::Status) -> Image {
        Image {
            id: "fd8i".to_owned(),
            folder_id: "p".to_owned(),
            name: "web".to_owned(),
            storage_size: 5,
            min_disk_size: 3 * GIB + 1,
            status: status.into(),
            ..Image::default()
        }
    }

    #[test]
    fn a_new_image_is_a_create_and_what_is_kept_besides() {
        let request = request_of("p", new(), Source::ImageId("fd8i".to_owned()), None);
        request.validate().unwrap();
        assert_eq!((request.folder_id.as_str(), request.name.as_str()), ("p", "web"));
        assert_eq!((request.min_disk_size, request.os.clone()), (3 * GIB, None));
        assert_eq!((request.family.as_str(), request.labels["k"].as_str()), ("linux", "v"));
        let kept = kept(&new(), "p", None);
        assert_eq!((kept.licenses.len(), kept.architecture.as_deref()), (1, Some("ARM64")));
        assert_eq!(kept.source_image.as_deref(), Some("projects/q/global/images/base"));
        assert_eq!((kept.name, kept.description, kept.labels.len()), (None, None, 0), "our Image has those");
    }

    #[test]
    fn what_is_not_said_is_inherited() {
        let from = Shown { image: image(image::Status::Ready), google: kept(&new(), "p", None) };
        let bare = NewImage {
            name: "copy".to_owned(),
            source: Some(new_image::Source::SourceImage("global/images/web".to_owned())),
            ..NewImage::default()
        };
        let copy = kept(&bare, "p", Some(&from));
        assert_eq!(copy.licenses, from.google.licenses);
        assert_eq!(copy.guest_os_features, from.google.guest_os_features);
        assert_eq!(copy.architecture, from.google.architecture);
        assert_eq!(copy.source_image.as_deref(), Some("projects/p/global/images/web"), "its own source");
        assert_eq!(copy.source_image_id, Some(number_of("fd8i").to_string()));
        let own = NewImage { licenses: vec!["other".to_owned()], ..bare };
        assert_eq!(kept(&own, "p", Some(&from)).licenses, ["other"]);
    }

    #[test]
    fn sources_are_shown_as_links_and_urls_not_at_all() {
        let links = Links::new("http://h");
        let of = |source: new_image::Source| {
            let new = NewImage { source: Some(source), ..NewImage::default() };
            let google = kept(&new, "p", None);
            show(&Shown { image: image(image::Status::Ready), google }, &links, "here")
        };
        for path in [
            "zones/z/disks/d",
            "/zones/z/disks/d",
            "projects/my-zones/zones/z/disks/d",
            "https://www.googleapis.com/compute/v1/projects/zones/zones/z/disks/d",
        ] {
            let disk = of(new_image::Source::SourceDisk(path.to_owned()));
            let expected = "http://h/compute/v1/projects/p/zones/z/disks/d";
            assert_eq!(disk.source_disk.as_deref(), Some(expected), "{path}");
        }
        let snapshot = of(new_image::Source::SourceSnapshot("global/snapshots/s".to_owned()));
        assert!(snapshot.source_snapshot.unwrap().ends_with("/projects/p/global/snapshots/s"));
        let raw = google::RawDisk { source: "https://s/k?secret".to_owned(), ..google::RawDisk::default() };
        assert!(!format!("{:?}", of(new_image::Source::RawDisk(raw))).contains("secret"));
    }

    #[test]
    fn sizes_and_states() {
        let links = Links::new("http://h");
        let shown =
            |status| show(&Shown { image: image(status), google: google::Image::default() }, &links, "here");
        let ready = shown(image::Status::Ready);
        assert_eq!((ready.disk_size_gb, ready.archive_size_bytes), (Some(4), Some(5)));
        assert_eq!((ready.status.as_deref(), ready.storage_locations[0].as_str()), (Some("READY"), "here"));
        let pending = shown(image::Status::Creating);
        assert_eq!((pending.status.as_deref(), pending.archive_size_bytes), (Some("PENDING"), None));
        assert_eq!(shown(image::Status::Error).status.as_deref(), Some("FAILED"));
        assert_eq!((gib(0), gib(1), gib(GIB), gib(GIB + 1)), (0, 1, 1, 2));
    }

    #[test]
    fn windows_both_ways() {
        let mut windows = new();
        windows.guest_os_features.push(GuestOsFeature { r#type: Some(WINDOWS.to_owned()) });
        let request = request_of("p", windows, Source::Uri("u".to_owned()), None);
        assert_eq!(request.os.clone().unwrap().r#type(), os::Type::Windows);
        let image = Image { os: request.os, ..image(image::Status::Ready) };
        let shown = show(&Shown { image, google: google::Image::default() }, &Links::new("http://h"), "here");
        assert_eq!(shown.guest_os_features[0].r#type(), WINDOWS, "made by the other API");
    }

    #[test]
    fn fingerprints_tell_labels_apart() {
        let of = |pairs: &[(&str, &str)]| {
            fingerprint(&pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect())
        };
        assert_eq!(of(&[("a", "b")]), of(&[("a", "b")]));
        let all =
            [of(&[]), of(&[("a", "b")]), of(&[("ab", "")]), of(&[("a", "bc")]), of(&[("a", ""), ("b", "")])];
        for (at, one) in all.iter().enumerate() {
            assert!(all[at + 1..].iter().all(|other| other != one));
        }
    }
}
