//! The verbs on multipart uploads.

use std::sync::Arc;

use s3s::dto::{
    AbortMultipartUploadInput, AbortMultipartUploadOutput, ChecksumAlgorithm, CompleteMultipartUploadInput,
    CompleteMultipartUploadOutput, CopyPartResult, CreateMultipartUploadInput, CreateMultipartUploadOutput,
    ListMultipartUploadsInput, ListMultipartUploadsOutput, ListPartsInput, ListPartsOutput, MultipartUpload,
    Part as PartDto, Range, StorageClass, UploadPartCopyInput, UploadPartCopyOutput, UploadPartInput,
    UploadPartOutput,
};
use s3s::{S3Error, S3Request, S3Result, s3_error};

use crate::bucket::Upload;
use crate::checksums::{Algorithm, Claim, Declared, Kind, set_checksum, single_header};
use crate::complete::{Wish, complete};
use crate::conditions::{ReadConditions, WriteConditions};
use crate::data::{Promise, receive};
use crate::errors::no_such_key;
use crate::limits::MAX_PART_NUMBER;
use crate::listing::{Encoder, common_prefixes, count, length, page_size};
use crate::objects::{attributes, check_key, check_source_size, copy_range, refuse, source_name};
use crate::records::{Moment, Part, UploadRecord};
use crate::store::{LocalStore, blocking};

impl LocalStore {
    pub(crate) async fn create_upload(
        &self,
        input: CreateMultipartUploadInput,
    ) -> S3Result<CreateMultipartUploadOutput> {
        check_key(&input.key)?;
        let bucket = self.bucket(&input.bucket)?;
        let declared = Declared::new(input.checksum_algorithm.as_ref(), input.checksum_type.as_ref())?;
        let record = UploadRecord {
            key: input.key.clone(),
            initiated: Moment::now(),
            declared,
            attributes: Box::new(attributes!(input)?),
        };
        let upload = blocking(move || bucket.create_upload(record)).await?;
        Ok(CreateMultipartUploadOutput {
            bucket: Some(input.bucket),
            key: Some(input.key),
            upload_id: Some(upload.id.clone()),
            checksum_algorithm: declared
                .map(|declared| ChecksumAlgorithm::from_static(declared.algorithm.name())),
            checksum_type: declared.map(|declared| declared.kind.dto()),
            ..Default::default()
        })
    }

    pub(crate) async fn put_part(&self, request: S3Request<UploadPartInput>) -> S3Result<UploadPartOutput> {
        let claim = Claim::of_body(&request.headers, request.trailing_headers)?;
        let input = request.input;
        let number = part_number(input.part_number)?;
        refuse(&[(input.sse_customer_algorithm.is_some(), "server-side encryption with customer keys")])?;
        let bucket = self.bucket(&input.bucket)?;
        let upload = bucket.upload(&input.key, &input.upload_id)?;
        let claimed = claim.algorithm();
        check_claim(upload.record.declared, claimed)?;

        let promise = Promise {
            length: input.content_length,
            content_md5: input.content_md5.as_deref(),
            claim,
            wanted: Some(part_algorithm(&upload)),
        };
        let part = receive(bucket.data(), input.body, promise).await?;
        let part = blocking(move || bucket.put_part(&upload, number, part)).await?;

        let mut output = UploadPartOutput { e_tag: Some(part.tag().dto()), ..Default::default() };
        for digest in
            part.digests.iter().filter(|digest| claimed.is_none_or(|claimed| digest.algorithm == claimed))
        {
            set_checksum!(output, digest.algorithm, digest.base64());
        }
        Ok(output)
    }

    pub(crate) async fn copy_part(&self, input: UploadPartCopyInput) -> S3Result<UploadPartCopyOutput> {
        let number = part_number(input.part_number)?;
        let encrypted =
            input.sse_customer_algorithm.is_some() || input.copy_source_sse_customer_algorithm.is_some();
        refuse(&[(encrypted, "server-side encryption with customer keys")])?;
        let bucket = self.bucket(&input.bucket)?;
        let upload = bucket.upload(&input.key, &input.upload_id)?;
        let (source_bucket, source_key) = source_name(&input.copy_source)?;
        let source = self.bucket(&source_bucket)?.object(&source_key).ok_or_else(no_such_key)?;
        let conditions = ReadConditions {
            if_match: input.copy_source_if_match.as_ref(),
            if_none_match: input.copy_source_if_none_match.as_ref(),
            if_modified_since: input.copy_source_if_modified_since.as_ref(),
            if_unmodified_since: input.copy_source_if_unmodified_since.as_ref(),
        };
        conditions.check_source(&source)?;
        let (start, len) = source_range(input.copy_source_range.as_deref(), source.size())?;
        check_source_size(len)?;

        let part = blocking(move || {
            let part = copy_range(&bucket, &source, start, len, Some(part_algorithm(&upload)))?;
            bucket.put_part(&upload, number, part)
        })
        .await?;
        let mut result = CopyPartResult {
            e_tag: Some(part.tag().dto()),
            last_modified: Some(part.modified.timestamp()),
            ..Default::default()
        };
        for digest in &part.digests {
            set_checksum!(result, digest.algorithm, digest.base64());
        }
        Ok(UploadPartCopyOutput { copy_part_result: Some(result), ..Default::default() })
    }

    pub(crate) async fn list_parts(&self, input: ListPartsInput) -> S3Result<ListPartsOutput> {
        let upload = self.bucket(&input.bucket)?.upload(&input.key, &input.upload_id)?;
        let max = page_size(input.max_parts)?;
        // A marker beyond the last number is an empty page, not an error.
        let marker = input.part_number_marker.unwrap_or_default();
        let after = u16::try_from(marker.max(0)).unwrap_or(u16::MAX);
        let listed = Arc::clone(&upload);
        // The parts are locked while an upload is completed.
        let mut parts = blocking(move || {
            let state = listed.lock_open()?;
            let from = (std::ops::Bound::Excluded(after), std::ops::Bound::Unbounded);
            Ok(state
                .parts
                .range(from)
                .take(max + 1)
                .map(|(&number, part)| (number, Arc::clone(part)))
                .collect::<Vec<_>>())
        })
        .await?;
        let more = parts.len() > max && max > 0;
        parts.truncate(max);
        let declared = upload.record.declared;
        Ok(ListPartsOutput {
            bucket: Some(input.bucket),
            key: Some(input.key),
            upload_id: Some(input.upload_id),
            checksum_algorithm: declared
                .map(|declared| ChecksumAlgorithm::from_static(declared.algorithm.name())),
            checksum_type: declared.map(|declared| declared.kind.dto()),
            is_truncated: Some(more),
            max_parts: Some(count(max)),
            part_number_marker: Some(marker),
            next_part_number_marker: parts.last().filter(|_| more).map(|&(number, _)| i32::from(number)),
            parts: Some(parts.iter().map(|(number, part)| part_dto(*number, part, declared)).collect()),
            storage_class: Some(StorageClass::from_static(StorageClass::STANDARD)),
            ..Default::default()
        })
    }

    pub(crate) fn list_uploads(
        &self,
        input: ListMultipartUploadsInput,
    ) -> S3Result<ListMultipartUploadsOutput> {
        let bucket = self.bucket(&input.bucket)?;
        let max = page_size(input.max_uploads)?;
        let encode = Encoder::new(input.encoding_type.as_ref())?;
        // S3 lists by key, then by the time of creation, which is the order of ids.
        let mut uploads = bucket.uploads();
        uploads.sort_by(|a, b| (&a.record.key, &a.id).cmp(&(&b.record.key, &b.id)));
        let prefix = input.prefix.as_deref().unwrap_or_default();
        let begin = match (
            input.key_marker.as_deref().filter(|key| !key.is_empty()),
            input.upload_id_marker.as_deref(),
        ) {
            (None, _) => 0,
            (Some(key), id) => {
                let id = id.filter(|id| !id.is_empty());
                let delimiter = input.delimiter.as_deref().filter(|d| !d.is_empty());
                let rolled =
                    delimiter.is_some_and(|d| key.strip_prefix(prefix).is_some_and(|rest| rest.ends_with(d)));
                uploads.partition_point(|upload| match (upload.record.key.as_str(), id) {
                    (other, _) if rolled && id.is_none() => other < key || other.starts_with(key),
                    (other, None) => other <= key,
                    (other, Some(id)) => (other, upload.id.as_str()) <= (key, id),
                })
            }
        };

        let mut rest = &uploads[begin..];
        let (mut listed, mut prefixes): (Vec<MultipartUpload>, Vec<String>) = (Vec::new(), Vec::new());
        let mut last: Option<(String, Option<String>)> = None;
        let mut truncated = false;
        while let Some((upload, next)) = rest.split_first() {
            rest = next;
            let key = &upload.record.key;
            let Some(tail) = key.strip_prefix(prefix) else { continue };
            let cut = input
                .delimiter
                .as_deref()
                .filter(|d| !d.is_empty())
                .and_then(|d| Some(tail.find(d)? + d.len()));
            let rolled = cut.map(|cut| &key[..prefix.len() + cut]);
            if rolled.is_some() && prefixes.last().map(String::as_str) == rolled {
                continue;
            }
            if listed.len() + prefixes.len() == max {
                truncated = max > 0;
                break;
            }
            if let Some(rolled) = rolled {
                prefixes.push(rolled.to_owned());
                last = Some((rolled.to_owned(), None));
            } else {
                last = Some((key.clone(), Some(upload.id.clone())));
                listed.push(upload_dto(upload, &encode));
            }
        }
        let next = last.filter(|_| truncated);
        Ok(ListMultipartUploadsOutput {
            bucket: Some(input.bucket),
            prefix: Some(encode.text(prefix)),
            delimiter: input.delimiter.map(|delimiter| encode.text(&delimiter)),
            key_marker: Some(encode.text(input.key_marker.as_deref().unwrap_or_default())),
            upload_id_marker: input.upload_id_marker,
            max_uploads: Some(count(max)),
            is_truncated: Some(truncated),
            next_key_marker: next.as_ref().map(|(key, _)| encode.text(key)),
            next_upload_id_marker: next.and_then(|(_, id)| id),
            uploads: Some(listed),
            common_prefixes: Some(common_prefixes(prefixes, &encode)),
            encoding_type: input.encoding_type,
            ..Default::default()
        })
    }

    pub(crate) async fn abort_upload(
        &self,
        input: AbortMultipartUploadInput,
    ) -> S3Result<AbortMultipartUploadOutput> {
        let bucket = self.bucket(&input.bucket)?;
        let upload = bucket.upload(&input.key, &input.upload_id)?;
        blocking(move || {
            let mut state = upload.lock_open()?;
            bucket.end_upload(&upload, &mut state, None).map_err(crate::errors::internal)
        })
        .await?;
        Ok(AbortMultipartUploadOutput::default())
    }

    pub(crate) async fn complete_upload(
        &self,
        request: S3Request<CompleteMultipartUploadInput>,
    ) -> S3Result<CompleteMultipartUploadOutput> {
        let checksum = single_header(&request.headers)?.map(|(algorithm, text)| (algorithm, text.to_owned()));
        let input = request.input;
        let bucket = self.bucket(&input.bucket)?;
        let wish = Wish {
            checksum,
            kind: input.checksum_type.map(|kind| kind.as_str().to_owned()),
            size: input.mpu_object_size,
            conditions: WriteConditions::new(input.if_match, input.if_none_match.as_ref())?,
            parts: input.multipart_upload.and_then(|list| list.parts).unwrap_or_default(),
        };
        let (key, id) = (input.key.clone(), input.upload_id);
        let object = blocking(move || complete(&bucket, &key, &id, &wish)).await?;
        let mut output = CompleteMultipartUploadOutput {
            location: Some(format!("/{}/{}", input.bucket, input.key)),
            bucket: Some(input.bucket),
            key: Some(input.key),
            e_tag: Some(object.etag.dto()),
            ..Default::default()
        };
        if let Some(checksum) = object.checksum {
            set_checksum!(output, checksum.digest.algorithm, checksum.to_string());
            output.checksum_type = Some(checksum.kind().dto());
        }
        Ok(output)
    }
}

/// The checksum that every part of an upload must have.
pub(crate) fn part_algorithm(upload: &Upload) -> Algorithm {
    upload.record.declared.map_or(Algorithm::Crc64Nvme, |declared| declared.algorithm)
}

/// A part must come with the checksum that its upload was created for; only of a full object it may be left
/// out.
fn check_claim(declared: Option<Declared>, claimed: Option<Algorithm>) -> S3Result<()> {
    match (declared, claimed) {
        (None, _) | (Some(Declared { kind: Kind::FullObject, .. }), None) => Ok(()),
        (Some(declared), claimed) if Some(declared.algorithm) == claimed => Ok(()),
        (Some(declared), claimed) => Err(type_mismatch(Some(declared.algorithm), claimed)),
    }
}

pub(crate) fn type_mismatch(expected: Option<Algorithm>, found: Option<Algorithm>) -> S3Error {
    let name = |algorithm: Option<Algorithm>| {
        algorithm.map_or_else(|| "null".to_owned(), |a| a.name().to_ascii_lowercase())
    };
    let (expected, found) = (name(expected), name(found));
    s3_error!(
        InvalidRequest,
        "Checksum Type mismatch occurred, expected checksum Type: {expected}, actual checksum Type: {found}"
    )
}

fn part_number(number: i32) -> S3Result<u16> {
    let number = u16::try_from(number).ok().filter(|number| (1..=MAX_PART_NUMBER).contains(number));
    number.ok_or_else(|| {
        s3_error!(InvalidArgument, "Part number must be an integer between 1 and 10000, inclusive")
    })
}

/// `x-amz-copy-source-range`, which unlike Range has both ends and must lie within the source.
fn source_range(header: Option<&str>, size: u64) -> S3Result<(u64, u64)> {
    let Some(text) = header else { return Ok((0, size)) };
    match Range::parse(text) {
        Ok(Range::Int { first, last: Some(last) }) if last < size => Ok((first, last - first + 1)),
        Ok(Range::Int { last: Some(_), .. }) => {
            Err(s3_error!(InvalidArgument, "Range specified is not valid for source object of size: {size}"))
        }
        _ => Err(s3_error!(
            InvalidArgument,
            "The x-amz-copy-source-range value must be of the form bytes=first-last where first and last are \
             the zero-based offsets of the first and last bytes to copy"
        )),
    }
}

fn part_dto(number: u16, part: &Part, declared: Option<Declared>) -> PartDto {
    let mut dto = PartDto {
        part_number: Some(i32::from(number)),
        e_tag: Some(part.tag().dto()),
        size: Some(length(part.size)),
        last_modified: Some(part.modified.timestamp()),
        ..Default::default()
    };
    for digest in part
        .digests
        .iter()
        .filter(|digest| declared.is_none_or(|declared| digest.algorithm == declared.algorithm))
    {
        set_checksum!(dto, digest.algorithm, digest.base64());
    }
    dto
}

fn upload_dto(upload: &Upload, encode: &Encoder) -> MultipartUpload {
    let declared = upload.record.declared;
    MultipartUpload {
        key: Some(encode.text(&upload.record.key)),
        upload_id: Some(upload.id.clone()),
        initiated: Some(upload.record.initiated.timestamp()),
        checksum_algorithm: declared
            .map(|declared| ChecksumAlgorithm::from_static(declared.algorithm.name())),
        checksum_type: declared.map(|declared| declared.kind.dto()),
        storage_class: Some(StorageClass::from_static(StorageClass::STANDARD)),
        ..Default::default()
    }
}
