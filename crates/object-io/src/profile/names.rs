//! Stores by name, and what is known of each. Which of it was tested and which only read: `crates/object-io/README.md`.

use url::Url;

use super::{Address, Checksum, Etag, Payload, StoreProfile};

/// A kind of store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum StoreKind {
    /// Amazon S3.
    Aws,
    /// Yandex Object Storage.
    Yandex,
    /// Google Cloud Storage, by its XML interface.
    Gcs,
    /// Cloudflare R2.
    R2,
    /// Ceph RADOS Gateway.
    Ceph,
    /// garage.
    Garage,
    /// MinIO.
    Minio,
    /// A store of which nothing is known before it is asked.
    Generic,
}

const NAMES: [(&str, StoreKind); 8] = [
    ("aws", StoreKind::Aws),
    ("yandex", StoreKind::Yandex),
    ("gcs", StoreKind::Gcs),
    ("r2", StoreKind::R2),
    ("ceph", StoreKind::Ceph),
    ("garage", StoreKind::Garage),
    ("minio", StoreKind::Minio),
    ("generic", StoreKind::Generic),
];

/// Hosts that tell which store it is: the host itself, or what stands beneath it.
const HOSTS: [(&str, StoreKind); 4] = [
    ("amazonaws.com", StoreKind::Aws),
    ("storage.yandexcloud.net", StoreKind::Yandex),
    ("storage.googleapis.com", StoreKind::Gcs),
    ("r2.cloudflarestorage.com", StoreKind::R2),
];

impl StoreKind {
    pub(super) fn from_name(name: &str) -> Option<Self> {
        NAMES.iter().find(|(known, _)| *known == name).map(|(_, kind)| *kind)
    }

    /// All names, for messages.
    pub(super) fn names() -> String {
        NAMES.map(|(name, _)| name).join(", ")
    }

    /// The store that an endpoint's host gives away. Without an endpoint it is Amazon's.
    pub(crate) fn of_endpoint(endpoint: Option<&Url>) -> Option<Self> {
        let Some(endpoint) = endpoint else { return Some(Self::Aws) };
        let host = endpoint.host_str()?;
        let is_of = |domain: &str| {
            host == domain || host.strip_suffix(domain).is_some_and(|name| name.ends_with('.'))
        };
        HOSTS.iter().find(|(domain, _)| is_of(domain)).map(|(_, kind)| *kind)
    }

    /// What is known of it. What may differ between versions and set-ups is left open.
    pub fn profile(self) -> StoreProfile {
        let open = StoreProfile::default();
        let path = StoreProfile { address: Some(Address::Path), ..open };
        match self {
            // ETags are no MD5s where objects are encrypted with keys of KMS.
            Self::Aws => StoreProfile {
                checksum: Some(Checksum::Crc32),
                payload: Some(Payload::Unsigned),
                part_copy: Some(true),
                conditional_put: Some(true),
                conditional_complete: Some(true),
                ..open
            },
            Self::Yandex => StoreProfile { payload: Some(Payload::Unsigned), part_copy: Some(true), ..path },
            Self::Gcs => StoreProfile {
                checksum: Some(Checksum::Md5),
                part_copy: Some(false),
                conditional_put: Some(false),
                conditional_complete: Some(false),
                ..path
            },
            Self::R2 => StoreProfile { etag: Some(Etag::Opaque), part_copy: Some(true), ..path },
            Self::Ceph => StoreProfile {
                checksum: Some(Checksum::Md5),
                payload: Some(Payload::Unsigned),
                etag: Some(Etag::Md5),
                part_copy: Some(true),
                conditional_complete: Some(false),
                ..path
            },
            Self::Garage => StoreProfile {
                checksum: Some(Checksum::Crc32),
                payload: Some(Payload::Unsigned),
                etag: Some(Etag::Md5),
                part_copy: Some(true),
                conditional_put: Some(false),
                conditional_complete: Some(false),
                ..path
            },
            Self::Minio => StoreProfile { part_copy: Some(true), ..path },
            Self::Generic => open,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_gives_its_store_away() {
        let kind = |url: &str| StoreKind::of_endpoint(Some(&Url::parse(url).unwrap()));
        assert_eq!(kind("https://storage.yandexcloud.net"), Some(StoreKind::Yandex));
        assert_eq!(kind("https://images.storage.yandexcloud.net"), Some(StoreKind::Yandex));
        assert_eq!(kind("https://s3.eu-north-1.amazonaws.com"), Some(StoreKind::Aws));
        assert_eq!(kind("https://0123.r2.cloudflarestorage.com"), Some(StoreKind::R2));
        assert_eq!(kind("https://evilstorage.googleapis.com"), None);
        assert_eq!(kind("http://127.0.0.1:9000"), None);
        assert_eq!(StoreKind::of_endpoint(None), Some(StoreKind::Aws));
    }
}
