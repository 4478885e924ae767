//! GetObject and HeadObject: conditions, ranges, parts; and bodies that are read as the client takes them.

use std::ops::Range;

use cairn_identity::Permit;
use cairn_index::names::{ObjectRecord, ObjectVersion, PartRecord};
use cairn_roots::Body;
use http::header::{CONTENT_LENGTH, CONTENT_RANGE};
use http::{HeaderMap, HeaderValue, Response, StatusCode};

use crate::s3::checksum::{Algorithm, base64};
use crate::s3::condition::{self, Held, Verdict};
use crate::s3::content::{ContentBody, Pieces};
use crate::s3::error::{Code, S3Result};
use crate::s3::ops::find::{Found, find_or_browse, show_checksum, show_object, show_validators, show_version};
use crate::s3::range;
use crate::s3::request::{Ask, empty, set};
use crate::s3::service::{Core, now_seconds};

/// Query parameters that stand in for headers of the answer.
const OVERRIDES: [(&str, &str); 6] = [
    ("response-cache-control", "cache-control"),
    ("response-content-disposition", "content-disposition"),
    ("response-content-encoding", "content-encoding"),
    ("response-content-language", "content-language"),
    ("response-content-type", "content-type"),
    ("response-expires", "expires"),
];

/// What of an object is answered.
struct Wanted {
    found: Found,
    range: Range<u64>,
    /// 206.
    is_partial: bool,
    /// The part that was asked for, and of how many.
    part: Option<(Option<PartRecord>, u32)>,
}

/// HeadObject.
pub(in crate::s3) async fn head(core: &Core, _permit: Permit, ask: Ask) -> S3Result<Response<Body>> {
    match wanted(core, &ask).await? {
        Ok(wanted) => head_of(&ask, &wanted),
        Err(unmodified) => Ok(unmodified),
    }
}

/// GetObject.
pub(in crate::s3) async fn get(core: &Core, _permit: Permit, ask: Ask) -> S3Result<Response<Body>> {
    let wanted = match wanted(core, &ask).await? {
        Ok(wanted) => wanted,
        Err(unmodified) => return Ok(unmodified),
    };
    let mut response = head_of(&ask, &wanted)?;
    let len = wanted.range.end - wanted.range.start;
    if let Some(inside) = wanted.found.inside.clone().filter(|_| len > 0) {
        let open = move || -> S3Result<Pieces> { Ok(Box::new(inside.reader(wanted.range)?)) };
        *response.body_mut() = ContentBody::begin(core.pool(), open, len).await?;
    } else if len > 0 {
        let (objects, bucket) = (core.objects(), ask.bucket()?);
        let content = wanted.found.record()?.content.clone();
        let open = move || -> S3Result<Pieces> { Ok(Box::new(objects.read(bucket.tenant(), &content, wanted.range)?)) };
        *response.body_mut() = ContentBody::begin(core.pool(), open, len).await?;
    }
    Ok(response)
}

/// Finds what is asked for; `Err` is the answer 304.
async fn wanted(core: &Core, ask: &Ask) -> S3Result<Result<Wanted, Response<Body>>> {
    let found = find_or_browse(core, ask).await?;
    let record = found.record()?;
    let held = Held {
        etag: record.etag.as_str(),
        modified: found.version.created_ms() / 1000,
        now: u64::try_from(now_seconds()).unwrap_or(0),
    };
    match condition::of_read(&ask.headers, held) {
        Verdict::Go => {}
        Verdict::Failed(name) => return Err(Code::PreconditionFailed.with("Condition", name)),
        Verdict::NotModified => return Ok(Err(unmodified(ask, &found.version, record)?)),
    }
    let header = ask.header("range").filter(|_| {
        // A range of what has changed since is no use: all of it then.
        ask.header("if-range")
            .is_none_or(|tag| condition::is_etag(tag, held.etag))
    });
    let size = record.size;
    let (range, is_partial, part) = match ask.query.get("partNumber") {
        Some(_) if ask.headers.contains_key("range") => return Err(Code::RangeAndPartNumber.into()),
        Some(number) => {
            let number = range::part_number(number)?;
            let (range, part) = part(core, ask, &found, number).await?;
            (range, size > 0, Some((part, record.parts.count())))
        }
        None => match range::requested(header, size)? {
            Some(range) => (range, true, None),
            None => (0..size, false, None),
        },
    };
    Ok(Ok(Wanted {
        found,
        range,
        is_partial,
        part,
    }))
}

/// Where a part lies in its object.
async fn part(core: &Core, ask: &Ask, found: &Found, number: u16) -> S3Result<(Range<u64>, Option<PartRecord>)> {
    let record = found.record()?;
    let count = record.parts.count();
    if count == 0 && number == 1 {
        return Ok((0..record.size, None));
    }
    if u32::from(number) > count {
        return Err(Code::InvalidPartNumber
            .with("PartNumberRequested", number.to_string())
            .with("ActualPartCount", count.max(1).to_string()));
    }
    let (names, bucket, version) = (core.names(), ask.bucket()?, found.version.clone());
    let parts = core
        .run(move || Ok(names.objects(&bucket).parts(&version, 0, usize::from(number))?))
        .await?;
    let (Some(part), before) = (parts.last(), parts.len().saturating_sub(1)) else {
        return Err(Code::InvalidPartNumber.into());
    };
    let start: u64 = parts[..before].iter().map(|part| part.size).sum();
    Ok((start..start + part.size, Some(part.clone())))
}

fn unmodified(ask: &Ask, version: &ObjectVersion, record: &ObjectRecord) -> S3Result<Response<Body>> {
    let mut response = empty(StatusCode::NOT_MODIFIED);
    let headers = response.headers_mut();
    show_validators(headers, version, record);
    show_version(headers, ask, version)?;
    for (name, value) in [
        ("cache-control", &record.headers.cache_control),
        ("expires", &record.headers.expires),
    ] {
        if let Some(value) = value {
            set(headers, name, value);
        }
    }
    Ok(response)
}

/// Status and headers.
fn head_of(ask: &Ask, wanted: &Wanted) -> S3Result<Response<Body>> {
    let (version, record) = (&wanted.found.version, wanted.found.record()?);
    let Range { start, end } = wanted.range;
    let mut response = empty(StatusCode::OK);
    if wanted.is_partial {
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
        let range = format!("bytes {start}-{}/{}", end.saturating_sub(1), record.size);
        if let Ok(range) = HeaderValue::try_from(range) {
            response.headers_mut().insert(CONTENT_RANGE, range);
        }
    }
    let headers = response.headers_mut();
    headers.insert(CONTENT_LENGTH, HeaderValue::from(end - start));
    show_object(headers, version, record);
    show_version(headers, ask, version)?;
    if ask
        .header("x-amz-checksum-mode")
        .is_some_and(|mode| mode.eq_ignore_ascii_case("ENABLED"))
    {
        match &wanted.part {
            Some((Some(part), _)) => show_part_checksum(headers, part),
            _ if wanted.is_partial && end - start < record.size => {}
            _ => show_checksum(headers, record),
        }
    }
    if let Some((_, count)) = wanted.part.as_ref().filter(|(_, count)| *count > 0) {
        set(headers, "x-amz-mp-parts-count", count.to_string());
    }
    for (name, header) in OVERRIDES {
        if let Some(value) = ask.query.filled(name) {
            set(headers, header, value);
        }
    }
    Ok(response)
}

fn show_part_checksum(headers: &mut HeaderMap, part: &PartRecord) {
    if let Some(checksum) = &part.checksum {
        set(
            headers,
            Algorithm::of(checksum.algorithm()).header(),
            base64(checksum.value()),
        );
    }
}
