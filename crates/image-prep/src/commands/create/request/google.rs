//! `images.insert` of Compute Engine, from what was typed and from what is known of the disk; pure.
//!
//! Source: <https://cloud.google.com/compute/docs/reference/rest/v1/images/insert>; of the features of a guest
//! <https://cloud.google.com/compute/docs/images/create-custom#guest-os-features>. Refused by name: options that this API has nothing for.

use guest_info::Guest;
use image_api::google::{GuestOsFeature, InsertImageRequest, NewImage, RawDisk, new_image};
use image_api::{Validate as _, Violations};
use object_io::ObjectUri;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::args::{ImageFields, OsType};
use crate::error::Error;
use crate::guest;
use crate::service::Request;

/// What Google calls its store, whatever endpoint it is spoken to by.
const STORE: &str = "https://storage.googleapis.com";

/// What a segment of a path has no need to escape: the unreserved characters of RFC 3986, section 2.3, and the slash, which keys have.
const KEY: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~').remove(b'/');

/// Fields of which Google takes more than the table of the rules says, which is also that of image-server: the service decides.
const LEFT_TO_GOOGLE: [&str; 4] = [
    "image_resource.family",
    "image_resource.labels",
    "image_resource.description",
    "image_resource.disk_size_gb",
];

/// Instead of a list of features, to say that there are none.
const NONE: &str = "none";

const WINDOWS: &str = "WINDOWS";
const GIB: u64 = 1 << 30;

/// The request but for its source, and for what only the disk tells.
pub(super) fn request(typed: &ImageFields, project: String) -> Result<InsertImageRequest, Error> {
    refuse_those_of_others(typed)?;
    let mut features: Vec<&str> =
        typed.guest_os_features.iter().map(String::as_str).filter(|word| *word != NONE).collect();
    if typed.os == Some(OsType::Windows) && !features.contains(&WINDOWS) {
        features.push(WINDOWS);
    }
    // More GiB than there are stay too many.
    let gib = |bytes: u64| i64::try_from(bytes.div_ceil(GIB)).unwrap_or(i64::MAX);
    let image = NewImage {
        name: typed.name.clone().ok_or(Error::NoName)?,
        description: typed.description.clone(),
        family: typed.family.clone(),
        labels: typed.labels.iter().map(|label| (label.key.clone(), label.value.clone())).collect(),
        licenses: typed.licenses.clone(),
        guest_os_features: features.into_iter().map(feature).collect(),
        architecture: typed.architecture.clone().unwrap_or_default(),
        storage_locations: typed.storage_locations.clone(),
        disk_size_gb: typed.min_disk_size.map_or(0, |size| gib(size.0)),
        source_type: "RAW".to_owned(),
        // Any: it is checked as it is sent.
        source: Some(new_image::Source::RawDisk(RawDisk {
            source: format!("{STORE}/bucket/key"),
            container_type: "TAR".to_owned(),
        })),
        ..NewImage::default()
    };
    let mut request =
        InsertImageRequest { project, image_resource: Some(image), ..InsertImageRequest::default() };
    check(&request)?;
    if let Some(image) = &mut request.image_resource {
        image.source = None;
    }
    Ok(request)
}

fn feature(word: &str) -> GuestOsFeature {
    GuestOsFeature { r#type: Some(word.to_owned()) }
}

/// By the rules of the service, but for those that are image-server's own.
fn check(request: &InsertImageRequest) -> Result<(), Error> {
    let Err(violations) = request.validate() else { return Ok(()) };
    let is_ours = |field: &str| LEFT_TO_GOOGLE.iter().any(|prefix| field.starts_with(prefix));
    let kept = violations.fields().iter().filter(|violation| !is_ours(&violation.field));
    let kept = kept.map(|violation| Violations::one(&violation.field, violation.description.clone()));
    match Violations::all(kept) {
        None => Ok(()),
        Some(source) => Err(Error::Request { source }),
    }
}

/// Adds what the disk tells and nobody typed. Nothing, for the other clouds.
pub(in super::super) fn fit(request: &mut Request, typed: &ImageFields, guest: Option<&Guest>) {
    let (Request::Google(InsertImageRequest { image_resource: Some(image), .. }), Some(guest)) =
        (request, guest)
    else {
        return;
    };
    if typed.guest_os_features.is_empty() {
        let known = guest::features(guest);
        let is_there = |word: &str| image.guest_os_features.iter().any(|one| one.r#type() == word);
        let more: Vec<_> = known.into_iter().filter(|word| !is_there(word)).map(feature).collect();
        image.guest_os_features.extend(more);
    }
    if typed.architecture.is_none() {
        image.architecture = guest::architecture(guest).unwrap_or_default().to_owned();
    }
}

/// How Compute Engine is told of an object.
pub(in super::super) fn location(object: &ObjectUri) -> String {
    format!("{STORE}/{}/{}", object.bucket(), utf8_percent_encode(object.key(), KEY))
}

/// Options that the API of the other clouds has and this one has not.
fn refuse_those_of_others(typed: &ImageFields) -> Result<(), Error> {
    for (is_typed, what) in [
        (!typed.product_ids.is_empty(), "--product-id"),
        (typed.nvidia_driver.is_some(), "--nvidia-driver"),
        (typed.pooled, "--pooled"),
        (typed.hardware_generation.is_some(), "--hardware-generation"),
    ] {
        if is_typed {
            return Err(Error::OtherCloud { what, cloud: Error::COMPUTE_ENGINE });
        }
    }
    Ok(())
}

/// The reverse.
pub(super) fn refuse_its_own(typed: &ImageFields) -> Result<(), Error> {
    for (is_typed, what) in [
        (!typed.licenses.is_empty(), "--license"),
        (!typed.guest_os_features.is_empty(), "--guest-os-feature"),
        (typed.architecture.is_some(), "--architecture"),
        (!typed.storage_locations.is_empty(), "--storage-location"),
    ] {
        if is_typed {
            return Err(Error::OtherCloud { what, cloud: Error::YANDEX });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::args::{Cli, Command};

    fn typed(args: &[&str]) -> ImageFields {
        let base = ["image-prep", "create", "i.qcow2", "--cloud=gcp", "--name", "n"];
        match Cli::try_parse_from([&base, args].concat()).unwrap().command {
            Command::Create(args) => args.fields,
            other => panic!("{other:?}"),
        }
    }

    fn image(args: &[&str]) -> NewImage {
        request(&typed(args), "p".to_owned()).unwrap().image_resource.unwrap()
    }

    #[test]
    fn every_field_arrives() {
        let image = image(&[
            "--description=née",
            "--family=f2",
            "--label=schlüssel=1",
            "--min-disk-size=20GB",
            "--license=https://l/1",
            "--license=projects/p/global/licenses/l",
            "--guest-os-feature=GVNIC",
            "--os=windows",
            "--architecture=ARM64",
            "--storage-location=eu",
        ]);
        let expected = NewImage {
            name: "n".to_owned(),
            description: "née".to_owned(),
            // Both are Google's to take or to refuse.
            family: "f2".to_owned(),
            labels: [("schlüssel".to_owned(), "1".to_owned())].into(),
            disk_size_gb: 19,
            licenses: vec!["https://l/1".to_owned(), "projects/p/global/licenses/l".to_owned()],
            guest_os_features: vec![feature("GVNIC"), feature(WINDOWS)],
            architecture: "ARM64".to_owned(),
            storage_locations: vec!["eu".to_owned()],
            source_type: "RAW".to_owned(),
            ..NewImage::default()
        };
        assert_eq!(image, expected);
    }

    #[test]
    fn what_google_would_refuse_is_refused() {
        for args in [
            &["--guest-os-feature=TELEPORT"][..],
            &["--architecture=RISCV"],
            &["--storage-location=a", "--storage-location=b"],
        ] {
            let refused = request(&typed(args), "p".to_owned());
            assert!(matches!(refused, Err(Error::Request { .. })), "{args:?}");
        }
        for option in ["--product-id=p", "--nvidia-driver=1", "--pooled", "--hardware-generation=gen2"] {
            let refused = request(&typed(&[option]), "p".to_owned());
            assert!(matches!(refused, Err(Error::OtherCloud { .. })), "{option}");
        }
        for option in
            ["--license=l", "--guest-os-feature=none", "--architecture=ARM64", "--storage-location=eu"]
        {
            assert!(matches!(refuse_its_own(&typed(&[option])), Err(Error::OtherCloud { .. })), "{option}");
        }
    }

    #[test]
    fn objects_are_named_by_google() {
        let object: ObjectUri = "gs://my_bucket/a b/née+1.tar.gz".parse().unwrap();
        assert_eq!(location(&object), "https://storage.googleapis.com/my_bucket/a%20b/n%C3%A9e%2B1.tar.gz");
    }
}
