//! The checksums of S3: which a request promises, what the bytes have, and what many parts have together.
//!
//! Source: "Checking object integrity in Amazon S3". An object has at most one checksum, of one of two kinds:
//! `FULL_OBJECT`, over all its bytes, which for an upload is combined from the CRCs of the parts without
//! reading a byte again; or `COMPOSITE`, over the concatenated checksums of the parts, written `base64-N`.
//! SHA-1 and SHA-256 cannot be combined, so they are composite for uploads; CRC64NVME is always of the full
//! object. Where a client promises nothing, CRC64NVME is kept, as on AWS.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use http::HeaderMap;
use s3s::crypto::{Checksum as _, Crc32, Crc32c, Crc64Nvme, Md5, Sha1, Sha256};
use s3s::dto::{ChecksumAlgorithm, ChecksumType};
use s3s::{S3Error, S3ErrorCode, S3Result, TrailingHeaders, s3_error};
use serde::{Deserialize, Serialize};

/// The algorithms of `x-amz-checksum-*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Algorithm {
    #[serde(rename = "CRC32")]
    Crc32,
    #[serde(rename = "CRC32C")]
    Crc32c,
    #[serde(rename = "CRC64NVME")]
    Crc64Nvme,
    #[serde(rename = "SHA1")]
    Sha1,
    #[serde(rename = "SHA256")]
    Sha256,
}

impl Algorithm {
    pub(crate) const ALL: [Self; 5] = [Self::Crc32, Self::Crc32c, Self::Crc64Nvme, Self::Sha1, Self::Sha256];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Crc32 => ChecksumAlgorithm::CRC32,
            Self::Crc32c => ChecksumAlgorithm::CRC32C,
            Self::Crc64Nvme => ChecksumAlgorithm::CRC64NVME,
            Self::Sha1 => ChecksumAlgorithm::SHA1,
            Self::Sha256 => ChecksumAlgorithm::SHA256,
        }
    }

    pub(crate) fn from_dto(dto: &ChecksumAlgorithm) -> S3Result<Self> {
        Self::ALL
            .into_iter()
            .find(|algorithm| algorithm.name() == dto.as_str())
            .ok_or_else(|| s3_error!(InvalidRequest, "Checksum algorithm provided is unsupported."))
    }

    fn header(self) -> &'static str {
        match self {
            Self::Crc32 => "x-amz-checksum-crc32",
            Self::Crc32c => "x-amz-checksum-crc32c",
            Self::Crc64Nvme => "x-amz-checksum-crc64nvme",
            Self::Sha1 => "x-amz-checksum-sha1",
            Self::Sha256 => "x-amz-checksum-sha256",
        }
    }

    fn len(self) -> usize {
        match self {
            Self::Crc32 | Self::Crc32c => 4,
            Self::Crc64Nvme => 8,
            Self::Sha1 => 20,
            Self::Sha256 => 32,
        }
    }

    /// The CRC whose values combine, or `None` for the SHAs.
    fn crc(self) -> Option<crc_fast::CrcAlgorithm> {
        match self {
            Self::Crc32 => Some(crc_fast::CrcAlgorithm::Crc32IsoHdlc),
            Self::Crc32c => Some(crc_fast::CrcAlgorithm::Crc32Iscsi),
            Self::Crc64Nvme => Some(crc_fast::CrcAlgorithm::Crc64Nvme),
            Self::Sha1 | Self::Sha256 => None,
        }
    }
}

/// Over what an upload's checksum is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Kind {
    #[serde(rename = "FULL_OBJECT")]
    FullObject,
    #[serde(rename = "COMPOSITE")]
    Composite,
}

impl Kind {
    pub(crate) fn dto(self) -> ChecksumType {
        ChecksumType::from_static(match self {
            Self::FullObject => ChecksumType::FULL_OBJECT,
            Self::Composite => ChecksumType::COMPOSITE,
        })
    }
}

/// What CreateMultipartUpload said about checksums.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Declared {
    pub(crate) algorithm: Algorithm,
    pub(crate) kind: Kind,
}

impl Declared {
    /// The two headers of CreateMultipartUpload; `None` where the client left the choice to the store.
    pub(crate) fn new(
        algorithm: Option<&ChecksumAlgorithm>,
        kind: Option<&ChecksumType>,
    ) -> S3Result<Option<Self>> {
        let kind = kind.map(ChecksumType::as_str);
        let Some(algorithm) = algorithm else {
            return match kind {
                None => Ok(None),
                Some(_) => {
                    let message = "The x-amz-checksum-type header can only be used with the \
                                   x-amz-checksum-algorithm header.";
                    Err(s3_error!(InvalidRequest, "{message}"))
                }
            };
        };
        let algorithm = Algorithm::from_dto(algorithm)?;
        let kind = match (kind, algorithm) {
            (None, Algorithm::Crc64Nvme) => Kind::FullObject,
            (None, _) => Kind::Composite,
            (Some(ChecksumType::FULL_OBJECT), _) if algorithm.crc().is_some() => Kind::FullObject,
            (Some(ChecksumType::COMPOSITE), _) if algorithm != Algorithm::Crc64Nvme => Kind::Composite,
            (Some(kind), _) => {
                let name = algorithm.name().to_ascii_lowercase();
                return Err(s3_error!(
                    InvalidRequest,
                    "The {kind} checksum type cannot be used with the {name} checksum algorithm."
                ));
            }
        };
        Ok(Some(Self { algorithm, kind }))
    }
}

/// One checksum value. Only the first `algorithm.len()` bytes mean something; the rest are zero.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Digest {
    pub(crate) algorithm: Algorithm,
    bytes: [u8; 32],
}

impl Digest {
    fn new(algorithm: Algorithm, value: &[u8]) -> Option<Self> {
        let mut bytes = [0; 32];
        (value.len() == algorithm.len()).then(|| bytes[..value.len()].copy_from_slice(value))?;
        Some(Self { algorithm, bytes })
    }

    /// Reads the base64 of a header or an XML element.
    pub(crate) fn parse(algorithm: Algorithm, text: &str) -> Option<Self> {
        Self::new(algorithm, &BASE64.decode(text).ok()?)
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.algorithm.len()]
    }

    pub(crate) fn base64(&self) -> String {
        BASE64.encode(self.as_bytes())
    }

    fn crc_value(&self) -> u64 {
        self.as_bytes().iter().fold(0, |value, &byte| value << 8 | u64::from(byte))
    }

    /// The checksum of `self`'s bytes followed by `next_len` bytes that have `next`; `None` for SHAs.
    fn followed_by(&self, next: &Self, next_len: u64) -> Option<Self> {
        let crc = self.algorithm.crc().filter(|_| self.algorithm == next.algorithm)?;
        let value = crc_fast::checksum_combine(crc, self.crc_value(), next.crc_value(), next_len);
        Self::new(self.algorithm, &value.to_be_bytes()[8 - self.algorithm.len()..])
    }

    /// The checksum of the bytes of all parts in order, from theirs; `None` for SHAs and for no part.
    pub(crate) fn concatenated(parts: impl IntoIterator<Item = (Self, u64)>) -> Option<Self> {
        let mut parts = parts.into_iter();
        let (first, _) = parts.next()?;
        parts.try_fold(first, |all, (next, len)| all.followed_by(&next, len))
    }

    /// The checksum of the checksums of all parts.
    pub(crate) fn composed(algorithm: Algorithm, parts: impl IntoIterator<Item = Self>) -> Self {
        let mut hasher = Hasher::new(algorithm);
        for part in parts {
            hasher.update(part.as_bytes());
        }
        hasher.finish()
    }
}

impl std::fmt::Debug for Digest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.algorithm.name(), self.base64())
    }
}

/// As the record files hold it: `["CRC32", "base64"]`.
impl Serialize for Digest {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (self.algorithm, self.base64()).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (algorithm, text) = <(Algorithm, String)>::deserialize(deserializer)?;
        Self::parse(algorithm, &text).ok_or_else(|| serde::de::Error::custom("checksum of the wrong length"))
    }
}

/// What a request says its body has.
#[derive(Debug)]
pub(crate) enum Claim {
    Nothing,
    Value(Digest),
    /// The value follows the body.
    Trailer(Algorithm, TrailingHeaders),
}

impl Claim {
    /// From the headers of PutObject or UploadPart.
    pub(crate) fn of_body(headers: &HeaderMap, trailers: Option<TrailingHeaders>) -> S3Result<Self> {
        if let Some((algorithm, text)) = single_header(headers)? {
            return parse_header(algorithm, text).map(Self::Value);
        }
        let announced = headers.get("x-amz-trailer").and_then(|name| name.to_str().ok()).unwrap_or_default();
        let algorithm = Algorithm::ALL
            .into_iter()
            .find(|algorithm| algorithm.header().eq_ignore_ascii_case(announced.trim()));
        Ok(match (algorithm, trailers) {
            (Some(algorithm), Some(trailers)) => Self::Trailer(algorithm, trailers),
            _ => Self::Nothing,
        })
    }

    pub(crate) fn algorithm(&self) -> Option<Algorithm> {
        match self {
            Self::Nothing => None,
            Self::Value(digest) => Some(digest.algorithm),
            Self::Trailer(algorithm, _) => Some(*algorithm),
        }
    }

    /// Compares with what the body was found to have; call it when the body has ended.
    pub(crate) fn verify(&self, found: &[Digest]) -> S3Result<()> {
        let expected = match self {
            Self::Nothing => return Ok(()),
            Self::Value(digest) => *digest,
            Self::Trailer(algorithm, trailers) => {
                let text = trailers
                    .read(|map| map.get(algorithm.header()).and_then(|v| v.to_str().ok()).map(str::to_owned));
                let text = text.flatten().ok_or_else(malformed_trailer)?;
                parse_header(*algorithm, text.trim())?
            }
        };
        if found.contains(&expected) {
            return Ok(());
        }
        Err(mismatch(expected.algorithm))
    }
}

/// From the headers of CompleteMultipartUpload: the algorithm and the text, which for a composite may end in
/// `-N`.
pub(crate) fn single_header(headers: &HeaderMap) -> S3Result<Option<(Algorithm, &str)>> {
    let mut found = None;
    for algorithm in Algorithm::ALL {
        let Some(value) = headers.get(algorithm.header()) else { continue };
        if found.is_some() {
            let message =
                "Expecting a single x-amz-checksum- header. Multiple checksum Types are not allowed.";
            return Err(s3_error!(InvalidRequest, "{message}"));
        }
        found = Some((algorithm, value.to_str().map_err(|_| invalid_header(algorithm))?));
    }
    Ok(found)
}

pub(crate) fn parse_header(algorithm: Algorithm, text: &str) -> S3Result<Digest> {
    Digest::parse(algorithm, text).ok_or_else(|| invalid_header(algorithm))
}

pub(crate) fn mismatch(algorithm: Algorithm) -> S3Error {
    let name = algorithm.name();
    s3_error!(BadDigest, "The {name} you specified did not match the calculated checksum.")
}

fn invalid_header(algorithm: Algorithm) -> S3Error {
    s3_error!(InvalidRequest, "Value for {} header is invalid.", algorithm.header())
}

fn malformed_trailer() -> S3Error {
    let mut error = S3Error::with_message(
        S3ErrorCode::Custom("MalformedTrailerError".into()),
        "The request contained trailing data that was not well-formed or did not conform to our published \
         schema.",
    );
    error.set_status_code(http::StatusCode::BAD_REQUEST);
    error
}

/// `Content-MD5`, decoded.
pub(crate) fn parse_content_md5(text: &str) -> S3Result<[u8; 16]> {
    let bytes = BASE64.decode(text).ok().and_then(|bytes| bytes.try_into().ok());
    bytes.ok_or_else(|| s3_error!(InvalidDigest, "The Content-MD5 you specified is not valid."))
}

/// Hashes of one body, all in one pass while it is in the cache.
pub(crate) struct Hashes {
    md5: Md5,
    others: Vec<Hasher>,
}

impl Hashes {
    /// MD5, which every ETag needs, and `algorithms`, without repetition.
    pub(crate) fn new(algorithms: impl IntoIterator<Item = Algorithm>) -> Self {
        let mut others: Vec<Hasher> = Vec::new();
        for algorithm in algorithms {
            if others.iter().all(|hasher| hasher.algorithm != algorithm) {
                others.push(Hasher::new(algorithm));
            }
        }
        Self { md5: Md5::new(), others }
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.md5.update(bytes);
        for hasher in &mut self.others {
            hasher.update(bytes);
        }
    }

    pub(crate) fn finish(self) -> ([u8; 16], Vec<Digest>) {
        (self.md5.finalize(), self.others.into_iter().map(Hasher::finish).collect())
    }
}

struct Hasher {
    algorithm: Algorithm,
    state: State,
}

enum State {
    Crc32(Crc32),
    Crc32c(Crc32c),
    Crc64Nvme(Crc64Nvme),
    Sha1(Sha1),
    Sha256(Sha256),
}

impl Hasher {
    fn new(algorithm: Algorithm) -> Self {
        let state = match algorithm {
            Algorithm::Crc32 => State::Crc32(Crc32::new()),
            Algorithm::Crc32c => State::Crc32c(Crc32c::new()),
            Algorithm::Crc64Nvme => State::Crc64Nvme(Crc64Nvme::new()),
            Algorithm::Sha1 => State::Sha1(Sha1::new()),
            Algorithm::Sha256 => State::Sha256(Sha256::new()),
        };
        Self { algorithm, state }
    }

    fn update(&mut self, data: &[u8]) {
        match &mut self.state {
            State::Crc32(hash) => hash.update(data),
            State::Crc32c(hash) => hash.update(data),
            State::Crc64Nvme(hash) => hash.update(data),
            State::Sha1(hash) => hash.update(data),
            State::Sha256(hash) => hash.update(data),
        }
    }

    fn finish(self) -> Digest {
        let mut bytes = [0; 32];
        let mut keep = |value: &[u8]| bytes[..value.len()].copy_from_slice(value);
        match self.state {
            State::Crc32(hash) => keep(&hash.finalize()),
            State::Crc32c(hash) => keep(&hash.finalize()),
            State::Crc64Nvme(hash) => keep(&hash.finalize()),
            State::Sha1(hash) => keep(&hash.finalize()),
            State::Sha256(hash) => keep(&hash.finalize()),
        }
        Digest { algorithm: self.algorithm, bytes }
    }
}

/// Writes a digest into the checksum fields that most outputs share.
macro_rules! set_checksum {
    ($output:expr, $algorithm:expr, $text:expr) => {{
        let text = Some($text);
        match $algorithm {
            $crate::checksums::Algorithm::Crc32 => $output.checksum_crc32 = text,
            $crate::checksums::Algorithm::Crc32c => $output.checksum_crc32c = text,
            $crate::checksums::Algorithm::Crc64Nvme => $output.checksum_crc64nvme = text,
            $crate::checksums::Algorithm::Sha1 => $output.checksum_sha1 = text,
            $crate::checksums::Algorithm::Sha256 => $output.checksum_sha256 = text,
        }
    }};
}
pub(crate) use set_checksum;

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(algorithm: Algorithm, data: &[u8]) -> Digest {
        let mut hasher = Hasher::new(algorithm);
        hasher.update(data);
        hasher.finish()
    }

    #[test]
    fn check_values_are_those_of_the_catalogue() {
        // "123456789", from the CRC RevEng catalogue and RFC 6234.
        let expected = [
            (Algorithm::Crc32, "cbf43926"),
            (Algorithm::Crc32c, "e3069283"),
            (Algorithm::Crc64Nvme, "ae8b14860a799888"),
            (Algorithm::Sha1, "f7c3bc1d808e04732adf679965ccc34ca7ae3441"),
            (Algorithm::Sha256, "15e2b0d3c33891ebb0f1ef609ec419420c20e320ce94c65fbc8c3312448eb225"),
        ];
        for (algorithm, hex) in expected {
            assert_eq!(hex::encode(digest(algorithm, b"123456789").as_bytes()), hex, "{algorithm:?}");
        }
    }

    #[test]
    fn crcs_of_parts_combine_to_that_of_the_whole() {
        let data: Vec<u8> = (0..100_000u32).map(|i| (i * 7 % 251) as u8).collect();
        for algorithm in [Algorithm::Crc32, Algorithm::Crc32c, Algorithm::Crc64Nvme] {
            for cuts in [vec![], vec![0], vec![1, 2], vec![50_000], vec![3, 77_777, 99_999]] {
                let mut ends = cuts.clone();
                ends.push(data.len());
                let mut at = 0;
                let parts: Vec<_> = ends
                    .into_iter()
                    .map(|end| {
                        let part = &data[at..end];
                        at = end;
                        (digest(algorithm, part), part.len() as u64)
                    })
                    .collect();
                assert_eq!(
                    Digest::concatenated(parts),
                    Some(digest(algorithm, &data)),
                    "{algorithm:?} {cuts:?}"
                );
            }
        }
        let sha = digest(Algorithm::Sha256, b"a");
        assert_eq!(Digest::concatenated([(sha, 1), (sha, 1)]), None);
    }

    #[test]
    fn digests_survive_the_record() {
        for algorithm in Algorithm::ALL {
            let digest = digest(algorithm, b"x");
            let json = serde_json::to_string(&digest).unwrap();
            assert_eq!(serde_json::from_str::<Digest>(&json).unwrap(), digest);
        }
        assert!(serde_json::from_str::<Digest>(r#"["CRC32","AAAAAAAA"]"#).is_err());
    }

    #[test]
    fn only_the_pairs_that_aws_knows() {
        let algorithm = |name| ChecksumAlgorithm::from_static(name);
        let kind = |name| ChecksumType::from_static(name);
        let declared = |a, k: Option<&'static str>| Declared::new(Some(&algorithm(a)), k.map(kind).as_ref());
        assert_eq!(declared("CRC64NVME", None).unwrap().unwrap().kind, Kind::FullObject);
        assert_eq!(declared("CRC32", None).unwrap().unwrap().kind, Kind::Composite);
        assert_eq!(declared("CRC32C", Some("FULL_OBJECT")).unwrap().unwrap().kind, Kind::FullObject);
        assert!(declared("SHA256", Some("FULL_OBJECT")).is_err());
        assert!(declared("CRC64NVME", Some("COMPOSITE")).is_err());
        assert!(declared("MD4", None).is_err());
        assert!(Declared::new(None, Some(&kind("COMPOSITE"))).is_err());
    }
}
