//! Uploads and objects, of which nothing is kept but lengths, checksums, and whether all was zero.
//!
//! A part can be copied from what that describes: an object as a whole, or a range of one that is zero throughout.

use std::collections::{BTreeMap, HashMap};
use std::ops::RangeInclusive;
use std::sync::{Mutex, MutexGuard, PoisonError};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use super::Counts;

/// Zeroes to take a CRC32 of.
static ZEROES: [u8; 64 << 10] = [0; 64 << 10];

/// What a request is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Target {
    Bucket,
    Head {
        key: String,
    },
    Put {
        key: String,
    },
    Delete {
        key: String,
    },
    Create {
        key: String,
    },
    Part {
        upload: String,
        number: u32,
    },
    Copy {
        upload: String,
        number: u32,
        source: Source,
    },
    ListParts {
        upload: String,
    },
    Complete {
        upload: String,
    },
    Abort {
        upload: String,
    },
    /// What no uploader needs.
    Other,
}

/// What a part is copied from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Source {
    /// Of the only bucket there is.
    pub(super) key: String,
    /// First and last byte; without it, all.
    pub(super) range: Option<RangeInclusive<u64>>,
}

impl Source {
    /// By the values of two headers: `BUCKET/KEY`, with or without a slash before, and `bytes=FIRST-LAST`.
    pub(super) fn parse(source: &str, range: Option<&str>) -> Option<Self> {
        let (_, key) = source.trim_start_matches('/').split_once('/')?;
        let numbers = |range: &str| {
            let (first, last) = range.strip_prefix("bytes=")?.split_once('-')?;
            Some(first.parse().ok()?..=last.parse().ok()?)
        };
        let range = match range {
            Some(range) => Some(numbers(range)?),
            None => None,
        };
        Some(Self { key: key.replace("%2F", "/"), range })
    }
}

impl Target {
    /// By method and target; `copy` is what the request says that it copies from, if it copies.
    pub(super) fn parse(method: &str, target: &str, copy: Option<Option<Source>>) -> Self {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let of = |wanted: &str| {
            let pair = |pair: &str| -> Option<String> {
                let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
                (name == wanted).then(|| value.to_owned())
            };
            query.split('&').find_map(pair)
        };
        let Some((_, key)) = path.trim_start_matches('/').split_once('/').filter(|(_, key)| !key.is_empty())
        else {
            return Self::Bucket;
        };
        let key = key.to_owned();
        let number = of("partNumber").and_then(|number| number.parse().ok());
        match (method, of("uploadId"), number) {
            ("PUT", Some(upload), Some(number)) if copy.is_some() => match copy.flatten() {
                Some(source) => Self::Copy { upload, number, source },
                None => Self::Other,
            },
            // Of whole objects.
            ("PUT", ..) if copy.is_some() => Self::Other,
            ("PUT", Some(upload), Some(number)) => Self::Part { upload, number },
            ("PUT", None, None) => Self::Put { key },
            ("POST", None, _) if of("uploads").is_some() => Self::Create { key },
            ("POST", Some(upload), _) => Self::Complete { upload },
            ("GET", Some(upload), _) => Self::ListParts { upload },
            ("DELETE", Some(upload), _) => Self::Abort { upload },
            ("DELETE", None, _) => Self::Delete { key },
            ("HEAD", ..) => Self::Head { key },
            _ => Self::Other,
        }
    }
}

/// A body that was read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Body {
    /// Bytes on the wire.
    pub(super) sent: u64,
    /// Bytes of the content.
    pub(super) len: u64,
    /// Of the content, unless it was framed.
    pub(super) crc32: Option<u32>,
    /// The content is zero throughout, and was not framed.
    pub(super) is_zero: bool,
}

/// What is kept of content.
#[derive(Debug, Clone, Copy)]
struct Content {
    len: u64,
    crc32: Option<u32>,
    is_zero: bool,
}

impl Content {
    /// No MD5: whoever takes it for one would be disappointed.
    fn etag(&self) -> String {
        format!("\"null-{:x}-{:08x}\"", self.len, self.crc32.unwrap_or_default())
    }

    fn headers(&self) -> Vec<(&'static str, String)> {
        let mut headers = vec![("etag", self.etag())];
        headers.extend(self.crc32.map(|crc32| ("x-amz-checksum-crc32", base64_crc32(crc32))));
        headers
    }

    /// The same in the body of an answer.
    fn elements(&self) -> String {
        let crc32 = self.crc32.map_or_else(String::new, |crc32| {
            format!("<ChecksumCRC32>{}</ChecksumCRC32>", base64_crc32(crc32))
        });
        format!("<ETag>{}</ETag>{crc32}", self.etag())
    }

    /// What a range of it is.
    fn part(&self, range: Option<&RangeInclusive<u64>>) -> Result<Self, Answer> {
        let Some(range) = range.filter(|range| **range != (0..=self.len.saturating_sub(1))) else {
            return Ok(*self);
        };
        if range.is_empty() || *range.end() >= self.len {
            return Err(Answer::error(400, "InvalidArgument"));
        }
        // Of other bytes nothing is known.
        if !self.is_zero {
            return Err(Answer::error(501, "NotImplemented"));
        }
        let len = range.end() - range.start() + 1;
        Ok(Self { len, crc32: Some(crc32_of_zeroes(len)), is_zero: true })
    }
}

fn crc32_of_zeroes(len: u64) -> u32 {
    let mut crc32 = crc32fast::Hasher::new();
    let mut left = len;
    while left > 0 {
        let piece = left.min(ZEROES.len() as u64);
        crc32.update(ZEROES.get(..usize::try_from(piece).unwrap_or(0)).unwrap_or_default());
        left -= piece;
    }
    crc32.finalize()
}

fn base64_crc32(crc32: u32) -> String {
    BASE64_STANDARD.encode(crc32.to_be_bytes())
}

/// An answer.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: String,
    /// Where the answer is about an object without being it.
    pub(super) object_len: Option<u64>,
}

impl Answer {
    pub(super) fn empty(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: String::new(), object_len: None }
    }

    pub(super) fn error(status: u16, code: &str) -> Self {
        let body = format!("<Error><Code>{code}</Code><Message>a store that keeps nothing</Message></Error>");
        Self { body, ..Self::empty(status) }
    }

    pub(super) fn json(value: &Counts) -> Self {
        Self { body: serde_json::to_string(value).unwrap_or_default(), ..Self::empty(200) }
    }

    fn xml(name: &str, inner: &str) -> Self {
        const SPACE: &str = "http://s3.amazonaws.com/doc/2006-03-01/";
        Self { body: format!("<{name} xmlns=\"{SPACE}\">{inner}</{name}>"), ..Self::empty(200) }
    }

    fn about(content: &Content) -> Self {
        Self { headers: content.headers(), ..Self::empty(200) }
    }
}

#[derive(Debug, Default)]
struct State {
    counts: Counts,
    /// Uploads that were ever begun: a number for the next.
    begun: u64,
    uploads: HashMap<String, Upload>,
    objects: HashMap<String, Content>,
    arriving: u64,
}

#[derive(Debug, Default)]
struct Upload {
    key: String,
    parts: BTreeMap<u32, Content>,
}

impl State {
    fn made(&mut self, key: String, content: Content) {
        self.counts.len = content.len;
        self.counts.crc32 = content.crc32;
        self.objects.insert(key, content);
    }
}

/// Everything that is known.
#[derive(Debug, Default)]
pub(super) struct Objects(Mutex<State>);

/// A part that is on its way, until this is dropped.
pub(super) struct Arriving<'a>(Option<&'a Objects>);

impl Drop for Arriving<'_> {
    fn drop(&mut self) {
        if let Some(objects) = self.0 {
            let mut state = objects.state();
            state.arriving = state.arriving.saturating_sub(1);
        }
    }
}

impl Objects {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn counts(&self) -> Counts {
        let state = self.state();
        Counts { objects: state.objects.len() as u64, uploads: state.uploads.len() as u64, ..state.counts }
    }

    pub(super) fn reset(&self) {
        let mut state = self.state();
        *state = State { begun: state.begun, arriving: state.arriving, ..State::default() };
    }

    /// Counts a request, and a part as being on its way.
    pub(super) fn arriving(&self, target: &Target) -> Arriving<'_> {
        let mut state = self.state();
        state.counts.requests += 1;
        if !matches!(target, Target::Part { .. }) {
            return Arriving(None);
        }
        state.arriving += 1;
        state.counts.in_flight = state.counts.in_flight.max(state.arriving);
        Arriving(Some(self))
    }

    pub(super) fn answer(&self, target: &Target, body: Body) -> Answer {
        let mut state = self.state();
        let state = &mut *state;
        let content = Content { len: body.len, crc32: body.crc32, is_zero: body.is_zero };
        let no_upload = || Answer::error(404, "NoSuchUpload");
        match target {
            Target::Bucket => Answer::empty(200),
            Target::Delete { key } => {
                state.objects.remove(key);
                Answer::empty(204)
            }
            Target::Other => Answer::error(501, "NotImplemented"),
            Target::Head { key } => match state.objects.get(key) {
                None => Answer::empty(404),
                Some(content) => {
                    let mut answer = Answer::about(content);
                    answer.headers.push(("x-amz-checksum-type", "FULL_OBJECT".to_owned()));
                    Answer { object_len: Some(content.len), ..answer }
                }
            },
            Target::Put { key } => {
                state.counts.sent += body.sent;
                state.made(key.clone(), content);
                Answer::about(&content)
            }
            Target::Create { key } => {
                state.begun += 1;
                let id = format!("u{}", state.begun);
                let answer =
                    Answer::xml("InitiateMultipartUploadResult", &format!("<UploadId>{id}</UploadId>"));
                state.uploads.insert(id, Upload { key: key.clone(), ..Upload::default() });
                answer
            }
            Target::Part { upload, number } => {
                state.counts.sent += body.sent;
                let Some(upload) = state.uploads.get_mut(upload) else { return no_upload() };
                state.counts.parts += 1;
                state.counts.repeated += u64::from(upload.parts.insert(*number, content).is_some());
                Answer::about(&content)
            }
            Target::Copy { upload, number, source } => {
                let Some(found) = state.objects.get(&source.key) else {
                    return Answer::error(404, "NoSuchKey");
                };
                let copied = match found.part(source.range.as_ref()) {
                    Ok(copied) => copied,
                    Err(answer) => return answer,
                };
                let Some(upload) = state.uploads.get_mut(upload) else { return no_upload() };
                state.counts.copied += 1;
                state.counts.repeated += u64::from(upload.parts.insert(*number, copied).is_some());
                Answer::xml("CopyPartResult", &copied.elements())
            }
            Target::ListParts { upload } => match state.uploads.get(upload) {
                None => no_upload(),
                Some(upload) => Answer::xml("ListPartsResult", &list(&upload.parts)),
            },
            Target::Complete { upload } => match state.uploads.remove(upload) {
                None => no_upload(),
                Some(upload) => {
                    let object = whole(&upload.parts);
                    let etag = object.etag();
                    state.made(upload.key, object);
                    Answer::xml("CompleteMultipartUploadResult", &format!("<ETag>{etag}</ETag>"))
                }
            },
            Target::Abort { upload } => match state.uploads.remove(upload) {
                None => no_upload(),
                Some(_) => Answer::empty(204),
            },
        }
    }
}

/// All parts, of which there are never more than a store lists at a time here: 16 MiB each, of a few GiB.
fn list(parts: &BTreeMap<u32, Content>) -> String {
    let part = |(number, content): (&u32, &Content)| {
        let (len, elements) = (content.len, content.elements());
        format!("<Part><PartNumber>{number}</PartNumber><Size>{len}</Size>{elements}</Part>")
    };
    parts.iter().map(part).collect()
}

/// The object of these parts.
fn whole(parts: &BTreeMap<u32, Content>) -> Content {
    let mut crc32 = Some(crc32fast::Hasher::new());
    for part in parts.values() {
        crc32 = crc32.zip(part.crc32).map(|(mut whole, crc32)| {
            whole.combine(&crc32fast::Hasher::new_with_initial_len(crc32, part.len));
            whole
        });
    }
    let len = parts.values().map(|part| part.len).sum();
    let is_zero = parts.values().all(|part| part.is_zero);
    Content { len, crc32: crc32.map(crc32fast::Hasher::finalize), is_zero }
}
