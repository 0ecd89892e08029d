//! What an image is made of, in Google's words.
//!
//! `rawDisk.source`: `gs://BUCKET/OBJECT` and `https://storage.googleapis.com/BUCKET/OBJECT` name an object, which the core takes as
//! `gs://BUCKET/OBJECT`; any other URL, one with a signature among them, is read as it stands. What of that is read the core decides,
//! by its policy for URIs and its list of buckets. Paths of Artifact Registry name no object. The content is recognised, so a bare disk image
//! is as good as the archive that Google asks for; a tar.gz has to be one that has an index (`disk-image/src/gce`), as everywhere here.
//!
//! `sourceImage`, `sourceSnapshot`, `sourceDisk`: full or partial URLs; the host is anybody's. Snapshots and disks belong to no project and to no
//! zone here: only their names count.

use image_api::{
    Violations,
    google::{NewImage, new_image::Source},
};
use url::Url;

/// A source in the words of our own API.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Named {
    Uri(String),
    /// An image by its name, in the project of the new one where none is named.
    Image {
        project: Option<String>,
        name: String,
    },
    Snapshot(String),
    Disk(String),
}

/// What a new image is to be made of.
pub(super) fn named(new: &NewImage) -> Result<Named, Violations> {
    let wrong = |field: &str, expected: &str| {
        Violations::one(&format!("image_resource.{field}"), format!("expected {expected}"))
    };
    match &new.source {
        Some(Source::RawDisk(raw)) => Ok(Named::Uri(uri_of(&raw.source))),
        Some(Source::SourceImage(text)) => match segments(text).as_deref() {
            Some(["projects", project, "global", "images", name]) => {
                Ok(Named::Image { project: Some((*project).to_owned()), name: (*name).to_owned() })
            }
            Some(["global", "images", name]) => Ok(Named::Image { project: None, name: (*name).to_owned() }),
            _ => Err(wrong("source_image", "projects/PROJECT/global/images/NAME")),
        },
        Some(Source::SourceSnapshot(text)) => match segments(text).as_deref() {
            Some(["projects", _, "global", "snapshots", name] | ["global", "snapshots", name]) => {
                Ok(Named::Snapshot((*name).to_owned()))
            }
            _ => Err(wrong("source_snapshot", "projects/PROJECT/global/snapshots/NAME")),
        },
        Some(Source::SourceDisk(text)) => match segments(text).as_deref() {
            Some(["projects", _, "zones" | "regions", _, "disks", name])
            | Some(["zones" | "regions", _, "disks", name]) => Ok(Named::Disk((*name).to_owned())),
            _ => Err(wrong("source_disk", "projects/PROJECT/zones/ZONE/disks/NAME")),
        },
        // The rules have refused it.
        None => Err(wrong("source", "a source")),
    }
}

/// The segments of a full or partial URL of a resource; `None` if one is empty.
fn segments(text: &str) -> Option<Vec<&str>> {
    let path = match text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")) {
        Some(rest) => rest.split_once("/compute/v1/")?.1,
        None => text.strip_prefix('/').unwrap_or(text),
    };
    let segments: Vec<_> = path.split('/').collect();
    (!segments.contains(&"")).then_some(segments)
}

fn uri_of(source: &str) -> String {
    object_of(source).unwrap_or_else(|| source.to_owned())
}

/// `gs://BUCKET/OBJECT` of a URL of Google's store that has no signature.
fn object_of(source: &str) -> Option<String> {
    let url = Url::parse(source).ok()?;
    let is_store = matches!(url.scheme(), "https" | "http")
        && url.host_str() == Some("storage.googleapis.com")
        && url.port().is_none()
        && url.query().is_none()
        && url.fragment().is_none();
    let path = is_store.then(|| url.path().trim_start_matches('/'))?;
    let (bucket, key) = path.split_once('/')?;
    let key = percent_encoding::percent_decode_str(key).decode_utf8().ok()?;
    (!bucket.is_empty() && !key.is_empty()).then(|| format!("gs://{bucket}/{key}"))
}

#[cfg(test)]
mod tests {
    use image_api::google::RawDisk;

    use super::*;

    fn of(source: Source) -> Result<Named, String> {
        let new = NewImage { source: Some(source), ..NewImage::default() };
        named(&new).map_err(|violations| violations.fields()[0].field.clone())
    }

    fn image(text: &str) -> Result<Named, String> {
        of(Source::SourceImage(text.to_owned()))
    }

    #[test]
    fn objects_and_urls() {
        let uri =
            |source: &str| of(Source::RawDisk(RawDisk { source: source.to_owned(), ..RawDisk::default() }));
        for (source, expected) in [
            ("gs://b/k/d.tar.gz", "gs://b/k/d.tar.gz"),
            ("https://storage.googleapis.com/b/k/d.tar.gz", "gs://b/k/d.tar.gz"),
            ("http://storage.googleapis.com/b/a%20b", "gs://b/a b"),
            ("https://STORAGE.googleapis.com:443/b/k", "gs://b/k"),
            // Signed, or of another store: as it stands.
            (
                "https://storage.googleapis.com/b/k?X-Goog-Signature=s",
                "https://storage.googleapis.com/b/k?X-Goog-Signature=s",
            ),
            ("https://storage.googleapis.com:8443/b/k", "https://storage.googleapis.com:8443/b/k"),
            (
                "https://storage.googleapis.com.evil.example/b/k",
                "https://storage.googleapis.com.evil.example/b/k",
            ),
            ("https://s.example/b/k", "https://s.example/b/k"),
            ("https://storage.googleapis.com/b", "https://storage.googleapis.com/b"),
            ("projects/p/locations/l/repositories/r", "projects/p/locations/l/repositories/r"),
        ] {
            assert_eq!(uri(source), Ok(Named::Uri(expected.to_owned())), "{source}");
        }
    }

    #[test]
    fn resources() {
        let named = |project: Option<&str>| {
            Ok(Named::Image { project: project.map(str::to_owned), name: "web".to_owned() })
        };
        assert_eq!(image("projects/p/global/images/web"), named(Some("p")));
        assert_eq!(
            image("https://www.googleapis.com/compute/v1/projects/p/global/images/web"),
            named(Some("p"))
        );
        assert_eq!(image("http://localhost:1/compute/v1/projects/p/global/images/web"), named(Some("p")));
        assert_eq!(image("global/images/web"), named(None));
        for wrong in [
            "web",
            "",
            "projects/p/global/images/",
            "projects//global/images/web",
            "global/images/a/b",
            "projects/p/global/images/family/f",
            "https://x/images/web",
            "global/snapshots/web",
        ] {
            assert_eq!(image(wrong), Err("image_resource.source_image".to_owned()), "{wrong}");
        }
        let snapshot = |text: &str| of(Source::SourceSnapshot(text.to_owned()));
        assert_eq!(snapshot("projects/p/global/snapshots/s"), Ok(Named::Snapshot("s".to_owned())));
        assert_eq!(snapshot("global/snapshots/s"), Ok(Named::Snapshot("s".to_owned())));
        assert!(snapshot("snapshots/s").is_err());
        let disk = |text: &str| of(Source::SourceDisk(text.to_owned()));
        assert_eq!(disk("projects/p/zones/z/disks/d"), Ok(Named::Disk("d".to_owned())));
        assert_eq!(disk("zones/z/disks/d"), Ok(Named::Disk("d".to_owned())));
        assert!(disk("disks/d").is_err() && disk("projects/p/zones/z/disks/d/x").is_err());
    }
}
