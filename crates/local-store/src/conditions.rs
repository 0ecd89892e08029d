//! Conditional requests: RFC 9110 section 13, as S3 narrows it.

use s3s::dto::{ETagCondition, Timestamp, TimestampFormat};
use s3s::{S3Error, S3Result, s3_error};

use crate::errors::{no_such_key, precondition_failed};
use crate::records::{Moment, Object, Tag};

/// The four conditions of a read.
#[derive(Default)]
pub(crate) struct ReadConditions<'a> {
    pub(crate) if_match: Option<&'a ETagCondition>,
    pub(crate) if_none_match: Option<&'a ETagCondition>,
    pub(crate) if_modified_since: Option<&'a Timestamp>,
    pub(crate) if_unmodified_since: Option<&'a Timestamp>,
}

impl ReadConditions<'_> {
    /// For GET and HEAD: 412, or 304 with the ETag.
    pub(crate) fn check(&self, object: &Object) -> S3Result<()> {
        if self.is_wrong(object) {
            return Err(precondition_failed());
        }
        if self.is_unchanged(object) {
            return Err(not_modified(object.etag, object.modified));
        }
        Ok(())
    }

    /// For the source of a copy, where both failures are 412.
    pub(crate) fn check_source(&self, object: &Object) -> S3Result<()> {
        if self.is_wrong(object) || self.is_unchanged(object) {
            return Err(precondition_failed());
        }
        Ok(())
    }

    /// A condition on the tag overrules the one on the date, in both pairs.
    fn is_wrong(&self, object: &Object) -> bool {
        match (self.if_match, self.if_unmodified_since) {
            (Some(condition), _) => !matches(condition, object.etag),
            (None, Some(date)) => object.modified.timestamp() > *date,
            (None, None) => false,
        }
    }

    fn is_unchanged(&self, object: &Object) -> bool {
        match (self.if_none_match, self.if_modified_since) {
            (Some(condition), _) => matches(condition, object.etag),
            (None, Some(date)) => object.modified.timestamp() <= *date,
            (None, None) => false,
        }
    }
}

/// The conditions of a write.
#[derive(Clone, Default)]
pub(crate) struct WriteConditions {
    if_match: Option<ETagCondition>,
    create_only: bool,
}

impl WriteConditions {
    /// S3 takes only `*` in If-None-Match of a write.
    pub(crate) fn new(
        if_match: Option<ETagCondition>,
        if_none_match: Option<&ETagCondition>,
    ) -> S3Result<Self> {
        let create_only = match if_none_match {
            None => false,
            Some(ETagCondition::Any) => true,
            Some(ETagCondition::ETag(_)) => {
                let message = "A header you provided implies functionality that is not implemented: \
                               If-None-Match with an ETag";
                return Err(s3_error!(NotImplemented, "{message}"));
            }
        };
        Ok(Self { if_match, create_only })
    }

    /// Against the object that the write would replace.
    pub(crate) fn check(&self, current: Option<&Object>) -> S3Result<()> {
        if self.create_only && current.is_some() {
            return Err(precondition_failed());
        }
        match (&self.if_match, current) {
            (Some(_), None) => Err(no_such_key()),
            (Some(condition), Some(object)) if !matches(condition, object.etag) => Err(precondition_failed()),
            _ => Ok(()),
        }
    }
}

fn matches(condition: &ETagCondition, etag: Tag) -> bool {
    match condition {
        ETagCondition::Any => true,
        ETagCondition::ETag(expected) => expected.weak_cmp(&etag.dto()),
    }
}

fn not_modified(etag: Tag, modified: Moment) -> S3Error {
    let mut error = s3_error!(NotModified);
    let mut headers = http::HeaderMap::new();
    if let Ok(value) = etag.dto().to_http_header() {
        headers.insert(http::header::ETAG, value);
    }
    let mut date = Vec::new();
    if modified.timestamp().format(TimestampFormat::HttpDate, &mut date).is_ok()
        && let Ok(value) = http::HeaderValue::from_bytes(&date)
    {
        headers.insert(http::header::LAST_MODIFIED, value);
    }
    error.set_headers(headers);
    error
}
