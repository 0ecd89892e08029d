//! The verbs on whole objects.

use http::header::{CONTENT_RANGE, CONTENT_TYPE, IF_MATCH, IF_NONE_MATCH};
use http::{HeaderMap, HeaderName, HeaderValue};
use s3s::dto::{
    ChecksumMode, CopyObjectInput, CopyObjectOutput, CopyObjectResult, CopySource, DeleteObjectInput,
    DeleteObjectOutput, DeleteObjectsInput, DeleteObjectsOutput, DeletedObject, ETagCondition,
    Error as DeleteError, GetObjectInput, GetObjectOutput, HeadObjectInput, HeadObjectOutput,
    MetadataDirective, ObjectIdentifier, PutObjectInput, PutObjectOutput, Range, StreamingBlob,
};
use s3s::{S3Error, S3Request, S3Result, s3_error};

use crate::bucket::Bucket;
use crate::checksums::{Algorithm, Claim, Digest, Hashes, set_checksum};
use crate::conditions::{ReadConditions, WriteConditions};
use crate::data::{Body, Cursor, Promise, receive, slices};
use crate::errors::{internal, no_such_key};
use crate::limits::{MAX_KEY, MAX_METADATA, MAX_PAGE, MAX_PUT};
use crate::listing::{count, length};
use crate::records::{Attributes, Moment, Object, ObjectChecksum, Part, Slice};
use crate::store::{LocalStore, blocking};

/// What S3 answers for an object that was put without a type.
const DEFAULT_CONTENT_TYPE: &str = "binary/octet-stream";

/// The attributes in an input that can make an object.
macro_rules! attributes {
    ($input:expr) => {{
        let input = &$input;
        let refused = [
            (input.sse_customer_algorithm.is_some(), "server-side encryption with customer keys"),
            (input.ssekms_key_id.is_some(), "server-side encryption with KMS"),
            (input.tagging.is_some(), "object tagging"),
            (
                input.object_lock_mode.is_some() || input.object_lock_legal_hold_status.is_some(),
                "object lock",
            ),
        ];
        $crate::objects::refuse(&refused).and_then(|()| {
            $crate::objects::within_limit($crate::records::Attributes {
                content_type: input.content_type.clone(),
                content_encoding: input
                    .content_encoding
                    .as_deref()
                    .and_then($crate::objects::stored_encoding),
                content_language: input.content_language.clone(),
                content_disposition: input.content_disposition.clone(),
                cache_control: input.cache_control.clone(),
                expires: input.expires.clone(),
                metadata: input.metadata.clone().unwrap_or_default().into_iter().collect(),
            })
        })
    }};
}
pub(crate) use attributes;

/// The fields that GetObject and HeadObject answer alike.
macro_rules! describe {
    ($output:ident, $object:expr, $window:expr, $checksum_mode:expr) => {{
        let (object, window): (&Object, &Window) = ($object, &$window);
        let attributes = object.attributes.as_ref().clone();
        let mut output = $output {
            accept_ranges: Some("bytes".into()),
            content_length: Some(length(window.len)),
            content_range: window.content_range(),
            e_tag: Some(object.etag.dto()),
            last_modified: Some(object.modified.timestamp()),
            content_type: Some(attributes.content_type.unwrap_or_else(|| DEFAULT_CONTENT_TYPE.into())),
            content_encoding: attributes.content_encoding,
            content_language: attributes.content_language,
            content_disposition: attributes.content_disposition,
            cache_control: attributes.cache_control,
            expires: attributes.expires,
            metadata: Some(attributes.metadata.into_iter().collect()),
            parts_count: window.part.and(object.etag.parts).map(|_| count(object.parts.len())),
            ..Default::default()
        };
        let asked = $checksum_mode.as_ref().is_some_and(|mode| mode.as_str() == ChecksumMode::ENABLED);
        // The checksum of the whole would not fit the bytes of a range.
        if let Some(checksum) = object.checksum.filter(|_| asked && window.len == window.size) {
            set_checksum!(output, checksum.digest.algorithm, checksum.to_string());
            output.checksum_type = Some(checksum.kind().dto());
        }
        output
    }};
}

impl LocalStore {
    pub(crate) async fn get(&self, input: GetObjectInput) -> S3Result<GetObjectOutput> {
        refuse_version(input.version_id.as_deref())?;
        let object = self.bucket(&input.bucket)?.object(&input.key).ok_or_else(no_such_key)?;
        let conditions = ReadConditions {
            if_match: input.if_match.as_ref(),
            if_none_match: input.if_none_match.as_ref(),
            if_modified_since: input.if_modified_since.as_ref(),
            if_unmodified_since: input.if_unmodified_since.as_ref(),
        };
        conditions.check(&object)?;
        let window = Window::new(&object, input.range, input.part_number)?;
        let body = Body::start(Cursor::new(&object, window.start, window.len)).await?;
        let output = describe!(GetObjectOutput, &object, window, input.checksum_mode);
        Ok(GetObjectOutput { body: Some(StreamingBlob::new(body)), ..output })
    }

    pub(crate) fn head(&self, input: &HeadObjectInput) -> S3Result<HeadObjectOutput> {
        refuse_version(input.version_id.as_deref())?;
        let object = self.bucket(&input.bucket)?.object(&input.key).ok_or_else(no_such_key)?;
        let conditions = ReadConditions {
            if_match: input.if_match.as_ref(),
            if_none_match: input.if_none_match.as_ref(),
            if_modified_since: input.if_modified_since.as_ref(),
            if_unmodified_since: input.if_unmodified_since.as_ref(),
        };
        conditions.check(&object)?;
        let window = Window::new(&object, input.range, input.part_number)?;
        Ok(describe!(HeadObjectOutput, &object, window, input.checksum_mode))
    }

    pub(crate) async fn put(&self, request: S3Request<PutObjectInput>) -> S3Result<PutObjectOutput> {
        let claim = Claim::of_body(&request.headers, request.trailing_headers)?;
        let input = request.input;
        check_key(&input.key)?;
        refuse(&[(input.write_offset_bytes.is_some(), "appending to an object")])?;
        let attributes = Box::new(attributes!(input)?);
        let conditions = WriteConditions::new(input.if_match, input.if_none_match.as_ref())?;
        let bucket = self.bucket(&input.bucket)?;
        // A request that must fail need not send its body first; the word that counts is said at the change.
        conditions.check(bucket.object(&input.key).as_deref())?;

        let algorithm = claim.algorithm().unwrap_or(Algorithm::Crc64Nvme);
        let promise = Promise {
            length: input.content_length,
            content_md5: input.content_md5.as_deref(),
            claim,
            wanted: Some(algorithm),
        };
        let part = receive(bucket.data(), input.body, promise).await?;
        let object = Object {
            modified: part.modified,
            etag: part.tag(),
            checksum: whole_checksum(&part, algorithm),
            attributes,
            upload: None,
            parts: [part].into(),
        };
        let key = input.key;
        let object = blocking(move || bucket.put(&key, object, |current| conditions.check(current))).await?;

        let mut output = PutObjectOutput { e_tag: Some(object.etag.dto()), ..Default::default() };
        if let Some(checksum) = object.checksum {
            set_checksum!(output, checksum.digest.algorithm, checksum.to_string());
            output.checksum_type = Some(checksum.kind().dto());
        }
        Ok(output)
    }

    pub(crate) async fn copy(&self, request: S3Request<CopyObjectInput>) -> S3Result<CopyObjectOutput> {
        // Newer than the model that s3s is made from.
        let header = |name: &HeaderName| condition_header(&request.headers, name);
        let conditions = WriteConditions::new(header(&IF_MATCH)?, header(&IF_NONE_MATCH)?.as_ref())?;
        let input = request.input;
        check_key(&input.key)?;
        refuse(&[(
            input.copy_source_sse_customer_algorithm.is_some(),
            "server-side encryption with customer keys",
        )])?;
        let (source_bucket, source_key) = source_name(&input.copy_source)?;
        let replace = input
            .metadata_directive
            .as_ref()
            .is_some_and(|directive| directive.as_str() == MetadataDirective::REPLACE);
        if !replace && source_bucket == input.bucket && source_key == input.key {
            let message = "This copy request is illegal because it is trying to copy an object to itself without \
                           changing the object's metadata, storage class, website redirect location or \
                           encryption attributes.";
            return Err(s3_error!(InvalidRequest, "{message}"));
        }
        let new_attributes = Box::new(attributes!(input)?);
        let wanted = input.checksum_algorithm.as_ref().map(Algorithm::from_dto).transpose()?;
        let bucket = self.bucket(&input.bucket)?;
        let source = self.bucket(&source_bucket)?.object(&source_key).ok_or_else(no_such_key)?;
        let source_conditions = ReadConditions {
            if_match: input.copy_source_if_match.as_ref(),
            if_none_match: input.copy_source_if_none_match.as_ref(),
            if_modified_since: input.copy_source_if_modified_since.as_ref(),
            if_unmodified_since: input.copy_source_if_unmodified_since.as_ref(),
        };
        source_conditions.check_source(&source)?;
        let size = source.size();
        check_source_size(size)?;

        let algorithm = wanted
            .or(source.checksum.map(|checksum| checksum.digest.algorithm))
            .unwrap_or(Algorithm::Crc64Nvme);
        let key = input.key;
        let object = blocking(move || {
            let part = copy_range(&bucket, &source, 0, size, Some(algorithm))?;
            let object = Object {
                modified: part.modified,
                etag: part.tag(),
                checksum: whole_checksum(&part, algorithm),
                attributes: if replace { new_attributes } else { source.attributes.clone() },
                upload: None,
                parts: [part].into(),
            };
            bucket.put(&key, object, |current| conditions.check(current))
        })
        .await?;

        let mut result = CopyObjectResult {
            e_tag: Some(object.etag.dto()),
            last_modified: Some(object.modified.timestamp()),
            ..Default::default()
        };
        if let Some(checksum) = object.checksum {
            set_checksum!(result, checksum.digest.algorithm, checksum.to_string());
            result.checksum_type = Some(checksum.kind().dto());
        }
        Ok(CopyObjectOutput { copy_object_result: Some(result), ..Default::default() })
    }

    pub(crate) async fn delete(&self, input: DeleteObjectInput) -> S3Result<DeleteObjectOutput> {
        refuse_version(input.version_id.as_deref())?;
        let bucket = self.bucket(&input.bucket)?;
        let conditions = WriteConditions::new(input.if_match, None)?;
        blocking(move || bucket.remove(&input.key, |current| conditions.check(current))).await?;
        Ok(DeleteObjectOutput::default())
    }

    pub(crate) async fn delete_many(&self, input: DeleteObjectsInput) -> S3Result<DeleteObjectsOutput> {
        // Its Content-MD5 or checksum is not verified: s3s parses the body and keeps none of it.
        if input.delete.objects.is_empty() || input.delete.objects.len() > MAX_PAGE {
            return Err(s3_error!(MalformedXML, "The request must name between 1 and {MAX_PAGE} objects"));
        }
        let bucket = self.bucket(&input.bucket)?;
        let quiet = input.delete.quiet.unwrap_or_default();
        blocking(move || {
            let (mut deleted, mut errors) = (Vec::new(), Vec::new());
            for ObjectIdentifier { key, e_tag, version_id, .. } in input.delete.objects {
                let outcome = refuse_version(version_id.as_deref())
                    .and_then(|()| WriteConditions::new(e_tag.map(ETagCondition::ETag), None))
                    .and_then(|conditions| bucket.remove(&key, |current| conditions.check(current)));
                match outcome {
                    Ok(()) if quiet => {}
                    Ok(()) => deleted.push(DeletedObject { key: Some(key), ..Default::default() }),
                    Err(error) => errors.push(DeleteError {
                        key: Some(key),
                        code: Some(error.code().as_str().to_owned()),
                        message: error.message().map(str::to_owned),
                        version_id,
                    }),
                }
            }
            Ok(DeleteObjectsOutput { deleted: Some(deleted), errors: Some(errors), ..Default::default() })
        })
        .await
    }
}

/// The bytes of an object that an answer holds.
struct Window {
    start: u64,
    len: u64,
    size: u64,
    partial: bool,
    /// Asked for by its number.
    part: Option<usize>,
}

impl Window {
    fn new(object: &Object, range: Option<Range>, part: Option<i32>) -> S3Result<Self> {
        let size = object.size();
        let whole = Self { start: 0, len: size, size, partial: false, part: None };
        match (range, part) {
            (None, None) => Ok(whole),
            (Some(_), Some(_)) => Err(s3_error!(
                InvalidRequest,
                "Cannot specify both Range header and partNumber query parameter"
            )),
            (Some(range), None) => match range.check(size) {
                // s3s lets a suffix of nothing pass.
                Ok(bytes) if size > 0 => {
                    Ok(Self { start: bytes.start, len: bytes.end - bytes.start, partial: true, ..whole })
                }
                _ => Err(unsatisfiable(size)),
            },
            (None, Some(number)) => {
                let index = usize::try_from(number).ok().and_then(|number| number.checked_sub(1));
                let index = index.ok_or_else(|| {
                    s3_error!(
                        InvalidArgument,
                        "Part number must be an integer between 1 and 10000, inclusive"
                    )
                })?;
                let part = object.parts.get(index).ok_or_else(|| unsatisfiable(size))?;
                let start = object.parts[..index].iter().map(|part| part.size).sum();
                // An empty object has no first byte that Content-Range could name.
                Ok(Self { start, len: part.size, partial: size > 0, part: Some(index), ..whole })
            }
        }
    }

    fn content_range(&self) -> Option<String> {
        self.partial.then(|| format!("bytes {}-{}/{}", self.start, self.start + self.len - 1, self.size))
    }
}

fn unsatisfiable(size: u64) -> S3Error {
    let mut error = s3_error!(InvalidRange, "The requested range is not satisfiable");
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/xml"));
    if let Ok(value) = HeaderValue::from_str(&format!("bytes */{size}")) {
        headers.insert(CONTENT_RANGE, value);
    }
    error.set_headers(headers);
    error
}

/// The checksum of an object that is one part.
fn whole_checksum(part: &Part, algorithm: Algorithm) -> Option<ObjectChecksum> {
    let digest = part.digests.iter().find(|digest| digest.algorithm == algorithm);
    digest.map(|&digest| ObjectChecksum { digest, parts: None })
}

/// A new part of the same bytes, by other names for the same data files. What is known of the bytes is not
/// computed again; else they are read, but never written. Blocks.
pub(crate) fn copy_range(
    bucket: &Bucket,
    source: &Object,
    start: u64,
    len: u64,
    wanted: Option<Algorithm>,
) -> S3Result<Part> {
    let (md5, digests) = match known_hashes(source, start, len, wanted) {
        Some(known) => known,
        None => hash_range(source, start, len, wanted)?,
    };
    let twin = |slice: Slice<_>| {
        let file: &crate::data::DataFile = &slice.file;
        Ok(Slice { file: file.duplicate(bucket.data())?, offset: slice.offset, len: slice.len })
    };
    let slices = slices(source, start, len).map(twin).collect::<std::io::Result<_>>().map_err(internal)?;
    Ok(Part { size: len, md5, digests: digests.into(), modified: Moment::now(), slices })
}

type Known = ([u8; 16], Vec<Digest>);

/// The hashes of a range that is exactly one part whose checksum is of the wanted algorithm.
fn known_hashes(source: &Object, start: u64, len: u64, wanted: Option<Algorithm>) -> Option<Known> {
    let mut at = 0;
    let part = source.parts.iter().find(|part| {
        let here = at == start && part.size == len;
        at += part.size;
        here
    })?;
    let wanted: Vec<Digest> = match wanted {
        Some(algorithm) => vec![*part.digests.iter().find(|digest| digest.algorithm == algorithm)?],
        None => Vec::new(),
    };
    Some((part.md5, wanted))
}

fn hash_range(source: &Object, start: u64, len: u64, wanted: Option<Algorithm>) -> S3Result<Known> {
    let mut hashes = Hashes::new(wanted);
    let mut cursor = Cursor::new(source, start, len);
    loop {
        let chunk = cursor.read().map_err(internal)?;
        if chunk.is_empty() {
            return Ok(hashes.finish());
        }
        hashes.update(&chunk);
    }
}

/// Bucket and key of `x-amz-copy-source`.
pub(crate) fn source_name(source: &CopySource) -> S3Result<(String, String)> {
    match source {
        CopySource::Bucket { bucket, key, version_id } => {
            refuse_version(version_id.as_deref())?;
            Ok((bucket.to_string(), key.to_string()))
        }
        _ => Err(s3_error!(NotImplemented, "a copy source must be BUCKET/KEY")),
    }
}

pub(crate) fn check_source_size(size: u64) -> S3Result<()> {
    if size > MAX_PUT {
        let message = "The specified copy source is larger than the maximum allowable size for a copy source";
        return Err(s3_error!(InvalidRequest, "{message}: {MAX_PUT}"));
    }
    Ok(())
}

pub(crate) fn check_key(key: &str) -> S3Result<()> {
    if key.len() > MAX_KEY {
        return Err(s3_error!(KeyTooLongError, "Your key is too long"));
    }
    Ok(())
}

/// Refuses aloud what would otherwise be silently left out.
pub(crate) fn refuse(features: &[(bool, &'static str)]) -> S3Result<()> {
    match features.iter().find(|(asked, _)| *asked) {
        Some((_, feature)) => Err(s3_error!(NotImplemented, "{feature} is not implemented")),
        None => Ok(()),
    }
}

pub(crate) fn within_limit(attributes: Attributes) -> S3Result<Attributes> {
    let used: usize = attributes.metadata.iter().map(|(name, value)| name.len() + value.len()).sum();
    if used > MAX_METADATA {
        return Err(s3_error!(
            MetadataTooLarge,
            "Your metadata headers exceed the maximum allowed metadata size"
        ));
    }
    Ok(attributes)
}

/// Content-Encoding without `aws-chunked`, which is of the request only.
pub(crate) fn stored_encoding(encoding: &str) -> Option<String> {
    let kept: Vec<&str> = encoding
        .split(',')
        .map(str::trim)
        .filter(|name| !name.is_empty() && *name != "aws-chunked")
        .collect();
    (!kept.is_empty()).then(|| kept.join(","))
}

/// Buckets here have no versions; `null` names the one there is.
fn refuse_version(version: Option<&str>) -> S3Result<()> {
    match version {
        None | Some("" | "null") => Ok(()),
        Some(_) => Err(s3_error!(InvalidArgument, "Invalid version id specified")),
    }
}

fn condition_header(headers: &HeaderMap, name: &HeaderName) -> S3Result<Option<ETagCondition>> {
    let parse = |value: &HeaderValue| ETagCondition::parse_http_header(value.as_bytes());
    headers.get(name).map(parse).transpose().map_err(|_| s3_error!(InvalidArgument, "invalid header: {name}"))
}
