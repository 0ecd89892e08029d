//! CompleteMultipartUpload: parts become an object, by one record and one rename.
//!
//! Everything is checked before anything changes, so a refused Complete leaves the upload as it was. A
//! repeated one, whose first answer was lost, finds the object that the upload made and gives the same
//! answer.

use std::sync::Arc;

use s3s::crypto::{Checksum as _, Md5};
use s3s::dto::CompletedPart;
use s3s::{S3Error, S3Result, s3_error};

use crate::bucket::{Bucket, Upload};
use crate::checksums::{Algorithm, Declared, Digest, Kind, mismatch, parse_header};
use crate::conditions::WriteConditions;
use crate::limits::MIN_PART;
use crate::listing::length;
use crate::records::{Moment, Object, ObjectChecksum, Part, Tag};
use crate::uploads::{part_algorithm, type_mismatch};

/// What a Complete says about the object.
pub(crate) struct Wish {
    pub(crate) checksum: Option<(Algorithm, String)>,
    pub(crate) kind: Option<String>,
    pub(crate) size: Option<i64>,
    pub(crate) conditions: WriteConditions,
    pub(crate) parts: Vec<CompletedPart>,
}

/// Blocks.
pub(crate) fn complete(bucket: &Bucket, key: &str, id: &str, wish: &Wish) -> S3Result<Arc<Object>> {
    let made = || bucket.object(key).filter(|object| object.upload.as_deref() == Some(id));
    let upload = match bucket.upload(key, id) {
        Ok(upload) => upload,
        // The answer to a Complete was lost on its way, and the client asks again.
        Err(error) => return made().ok_or(error),
    };
    let mut state = match upload.lock_open() {
        Ok(state) => state,
        Err(error) => return made().ok_or(error),
    };
    let parts = wish
        .parts
        .iter()
        .map(|wanted| {
            let number = u16::try_from(wanted.part_number.unwrap_or_default()).unwrap_or_default();
            (wanted, state.parts.get(&number).cloned())
        })
        .collect();
    let parts = check_parts(parts, upload.record.declared)?;
    let size: u64 = parts.iter().map(|part| part.size).sum();
    if let Some(expected) = wish.size.filter(|&expected| expected != length(size)) {
        return Err(s3_error!(
            InvalidRequest,
            "The provided 'x-amz-mp-object-size' header value {expected} does not match what was computed: \
             {size}"
        ));
    }
    let checksum = upload_checksum(&upload, &parts, wish)?;
    let object = Object {
        modified: Moment::now(),
        etag: upload_tag(&parts),
        checksum,
        attributes: upload.record.attributes.clone(),
        upload: Some(id.into()),
        parts: parts.iter().map(|part| Part::clone(part)).collect(),
    };
    let object = bucket.put(key, object, |current| wish.conditions.check(current))?;
    // The object is there; what is left of the upload would go at the next start.
    if let Err(error) = bucket.end_upload(&upload, &mut state, Some(&object)) {
        tracing::warn!(%error, "cannot remove a completed upload; the next start will");
    }
    Ok(object)
}

/// The ETag of a completed upload.
fn upload_tag(parts: &[Arc<Part>]) -> Tag {
    let mut md5 = Md5::new();
    for part in parts {
        md5.update(&part.md5);
    }
    Tag { md5: md5.finalize(), parts: u32::try_from(parts.len()).ok() }
}

/// The parts of a Complete, each held against what was uploaded.
fn check_parts(
    parts: Vec<(&CompletedPart, Option<Arc<Part>>)>,
    declared: Option<Declared>,
) -> S3Result<Vec<Arc<Part>>> {
    if parts.is_empty() {
        return Err(s3_error!(MalformedXML, "You must specify at least one part"));
    }
    let numbers: Vec<i32> = parts.iter().map(|(wanted, _)| wanted.part_number.unwrap_or_default()).collect();
    if !numbers.is_sorted_by(|a, b| a < b) {
        return Err(s3_error!(
            InvalidPartOrder,
            "The list of parts was not in ascending order. Parts must be ordered by part number."
        ));
    }
    let last = parts.len() - 1;
    let mut found = Vec::with_capacity(parts.len());
    for (index, (wanted, part)) in parts.into_iter().enumerate() {
        let part = part.ok_or_else(invalid_part)?;
        let tag = wanted.e_tag.as_ref().ok_or_else(|| s3_error!(MalformedXML, "A part has no ETag"))?;
        if !tag.weak_cmp(&part.tag().dto()) {
            return Err(invalid_part());
        }
        check_part_checksum(wanted, &part, declared)?;
        if index != last && part.size < MIN_PART {
            return Err(s3_error!(
                EntityTooSmall,
                "Your proposed upload is smaller than the minimum allowed size"
            ));
        }
        found.push(part);
    }
    Ok(found)
}

fn check_part_checksum(wanted: &CompletedPart, part: &Part, declared: Option<Declared>) -> S3Result<()> {
    let given = [
        (Algorithm::Crc32, &wanted.checksum_crc32),
        (Algorithm::Crc32c, &wanted.checksum_crc32c),
        (Algorithm::Crc64Nvme, &wanted.checksum_crc64nvme),
        (Algorithm::Sha1, &wanted.checksum_sha1),
        (Algorithm::Sha256, &wanted.checksum_sha256),
    ];
    let mut given =
        given.into_iter().filter_map(|(algorithm, text)| Some((algorithm, text.as_deref()?))).peekable();
    if let Some(Declared { algorithm, kind: Kind::Composite }) = declared
        && given.peek().is_none()
    {
        let (name, number) = (algorithm.name().to_ascii_lowercase(), wanted.part_number.unwrap_or_default());
        return Err(s3_error!(
            InvalidRequest,
            "The upload was created using a {name} checksum. The complete request must include the checksum for \
             each part. It was missing for part {number} in the request."
        ));
    }
    for (algorithm, text) in given {
        let digest = Digest::parse(algorithm, text);
        if digest.is_none_or(|digest| !part.digests.contains(&digest)) {
            return Err(invalid_part());
        }
    }
    Ok(())
}

/// The checksum of the object, held against what the Complete says it is.
fn upload_checksum(upload: &Upload, parts: &[Arc<Part>], wish: &Wish) -> S3Result<Option<ObjectChecksum>> {
    let declared = upload.record.declared;
    let kind = declared.map_or(Kind::FullObject, |declared| declared.kind);
    if wish.kind.as_deref().is_some_and(|wanted| wanted != kind.dto().as_str()) {
        let kind = kind.dto();
        return Err(s3_error!(
            InvalidRequest,
            "The upload was created using the {} checksum mode. The complete request must use the \
             same checksum mode.",
            kind.as_str()
        ));
    }
    let claimed = wish.checksum.as_ref().map(|(algorithm, _)| *algorithm);
    if let (Some(declared), Some(claimed)) = (declared, claimed)
        && declared.algorithm != claimed
    {
        return Err(type_mismatch(Some(declared.algorithm), Some(claimed)));
    }
    // Where nothing was declared, whatever checksum the parts came with can be asked for.
    let algorithm = claimed.unwrap_or_else(|| part_algorithm(upload));
    let digest_of = |part: &Part| part.digests.iter().find(|digest| digest.algorithm == algorithm).copied();
    let digests: Option<Vec<(Digest, u64)>> =
        parts.iter().map(|part| Some((digest_of(part)?, part.size))).collect();
    let Some(digests) = digests else {
        return Err(type_mismatch(declared.map(|declared| declared.algorithm), claimed));
    };
    let checksum = match kind {
        Kind::FullObject => {
            Digest::concatenated(digests).map(|digest| ObjectChecksum { digest, parts: None })
        }
        Kind::Composite => {
            let digest = Digest::composed(algorithm, digests.into_iter().map(|(digest, _)| digest));
            Some(ObjectChecksum { digest, parts: u32::try_from(parts.len()).ok() })
        }
    };
    if let (Some((algorithm, text)), Some(checksum)) = (&wish.checksum, checksum) {
        // Of a composite both forms are taken, with and without the number of parts.
        let bare =
            text.split_once('-').filter(|_| kind == Kind::Composite).map_or(text.as_str(), |(bare, _)| bare);
        if parse_header(*algorithm, bare)? != checksum.digest {
            return Err(mismatch(*algorithm));
        }
    }
    Ok(checksum)
}

fn invalid_part() -> S3Error {
    let message = "One or more of the specified parts could not be found.  The part may not have been uploaded, \
                   or the specified entity tag may not match the part's entity tag.";
    s3_error!(InvalidPart, "{message}")
}
