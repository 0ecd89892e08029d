//! The Create call, from what was typed; pure. That of Compute Engine is made in [`google`].

mod google;

use image_api::compute::create_image_request::Source;
use image_api::compute::hardware_generation::Features;
use image_api::compute::os::Type;
use image_api::compute::{
    Generation2HardwareFeatures, HardwareGeneration, LegacyHardwareFeatures, Nvidia, Os, PciTopology,
};
use image_api::{CreateImageRequest, Uuid, Validate};

use crate::args::{self, ImageFields, OsType};
use crate::error::Error;
use crate::service::Request;
pub(super) use google::{fit, location};

/// Under which idempotency keys are made; a random number, drawn once.
const NAMESPACE: Uuid = Uuid::from_u128(0x6d0f_5b0e_3c55_4d0b_9f5e_5a3c_8a17_42d9);

/// Stands in for the URL while the rest is checked. As long as a short one, so that no rule can mind it.
const ANY_URI: &str = "https://storage.invalid/bucket/key";

/// The request but for its source, checked by the service's own rules: what is wrong is said before anything is read. `owner` is the
/// folder; the project, where it is for Compute Engine.
pub(super) fn of(typed: &ImageFields, owner: String, is_google: bool) -> Result<Request, Error> {
    match is_google {
        true => google::request(typed, owner).map(Request::Google),
        false => fields(typed, owner).map(Request::Yandex),
    }
}

fn fields(typed: &ImageFields, folder_id: String) -> Result<CreateImageRequest, Error> {
    google::refuse_its_own(typed)?;
    let min_disk_size = match typed.min_disk_size {
        // Anything above is above the service's maximum too, and said to be so.
        Some(size) => i64::try_from(size.0).unwrap_or(i64::MAX),
        None => 0,
    };
    let nvidia = typed.nvidia_driver.clone().map(|driver| Nvidia { driver });
    let os = (typed.os.is_some() || nvidia.is_some()).then(|| {
        let r#type = match typed.os {
            Some(OsType::Windows) => Type::Windows,
            Some(OsType::Linux) | None => Type::Linux,
        };
        Os { r#type: r#type.into(), nvidia }
    });
    let mut request = CreateImageRequest {
        folder_id,
        name: typed.name.clone().ok_or(Error::NoName)?,
        description: typed.description.clone(),
        labels: typed.labels.iter().map(|label| (label.key.clone(), label.value.clone())).collect(),
        family: typed.family.clone(),
        min_disk_size,
        product_ids: typed.product_ids.clone(),
        source: Some(Source::Uri(ANY_URI.to_owned())),
        os,
        pooled: typed.pooled,
        hardware_generation: typed.hardware_generation.map(hardware),
    };
    request.validate().map_err(|source| Error::Request { source })?;
    request.source = None;
    Ok(request)
}

fn hardware(generation: args::HardwareGeneration) -> HardwareGeneration {
    let legacy = |topology: PciTopology| {
        Features::LegacyFeatures(LegacyHardwareFeatures { pci_topology: topology.into() })
    };
    let features = match generation {
        args::HardwareGeneration::Gen2 => Features::Generation2Features(Generation2HardwareFeatures {}),
        args::HardwareGeneration::LegacyV1 => legacy(PciTopology::V1),
        args::HardwareGeneration::LegacyV2 => legacy(PciTopology::V2),
    };
    HardwareGeneration { features: Some(features) }
}

/// The idempotency key of a request: the same for the same fields and the same content, whatever its URL is this time, so
/// that a command repeated after a crash finds its operation. `attempt` counts operations that have ended meanwhile.
pub(super) fn key(request: &Request, content: &str, attempt: u32) -> Result<Uuid, Error> {
    let fields = request.without_source().to_json().map_err(|source| Error::Json { source })?;
    Ok(Uuid::new_v5(&NAMESPACE, format!("{fields}\n{content}\n{attempt}").as_bytes()))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::{Cli, Command};

    fn typed(args: &[&str]) -> Result<CreateImageRequest, Error> {
        let base = ["image-prep", "create", "i.qcow2", "--local", "--name", "n"];
        match Cli::try_parse_from([&base, args].concat()).unwrap().command {
            Command::Create(args) => fields(&args.fields, "f".to_owned()),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn every_field_arrives() {
        let request = typed(&[
            "--description=d",
            "--family=fam",
            "--label=a=1",
            "--label=b=",
            "--min-disk-size=8GiB",
            "--product-id=p1",
            "--product-id=p2",
            "--os=windows",
            "--nvidia-driver=550",
            "--pooled",
            "--hardware-generation=legacy-v2",
        ]);
        let expected = CreateImageRequest {
            folder_id: "f".to_owned(),
            name: "n".to_owned(),
            description: "d".to_owned(),
            labels: [("a".to_owned(), "1".to_owned()), ("b".to_owned(), String::new())].into(),
            family: "fam".to_owned(),
            min_disk_size: 8 << 30,
            product_ids: vec!["p1".to_owned(), "p2".to_owned()],
            source: None,
            os: Some(Os { r#type: Type::Windows.into(), nvidia: Some(Nvidia { driver: "550".to_owned() }) }),
            pooled: true,
            hardware_generation: Some(hardware(args::HardwareGeneration::LegacyV2)),
        };
        assert_eq!(request.unwrap(), expected);
    }

    #[test]
    fn what_the_service_refuses_is_refused() {
        for args in [&["--label=A=b"][..], &["--label=a=b=c"], &["--min-disk-size=1M"], &["--family=x"]] {
            assert!(matches!(typed(args), Err(Error::Request { .. })), "{args:?}");
        }
    }

    #[test]
    fn keys_follow_fields_and_content() {
        let request = Request::Yandex(typed(&[]).unwrap());
        let other = Request::Yandex(typed(&["--description=other"]).unwrap());
        let base = key(&request, "digest", 0).unwrap();
        // As the versions before had it: what they began is found.
        assert_eq!(base.to_string(), "6523863c-969b-593d-8841-d2669cb95a5e");
        assert_eq!(key(&request.with_uri("https://h/?signature"), "digest", 0).unwrap(), base);
        for different in [key(&other, "digest", 0), key(&request, "d", 0), key(&request, "digest", 1)] {
            assert_ne!(different.unwrap(), base);
        }
    }
}
