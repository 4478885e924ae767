//! GET and HEAD of an object: which form of it, conditions, ranges, headers, bytes.

use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use cairn_identity::Permit;
use cairn_index::names::{Bucket, Content, Current, ObjectKey, ObjectRecord, ObjectVersion, VersionKind};
use cairn_roots::{Body, reply};
use http::header::{
    ACCEPT_ENCODING, ACCEPT_RANGES, CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_ENCODING, CONTENT_LANGUAGE,
    CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, HeaderName, IF_RANGE, LAST_MODIFIED, RANGE, VARY,
};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};

use super::caching::{self, Audience, Path, Tags};
use super::frames::{self, Frames};
use super::lean::{self, CountedBody, Pace, Source};
use super::range::{self, Ranges};
use super::several::Several;
use super::{Answer, Ask, Core, Refused, insert};
use crate::date;
use crate::s3::condition::{self, Held, Verdict};
use crate::s3::content::{ContentBody, Pieces};
use crate::s3::error::{Code, S3Result};

const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");
const VERSION_ID: HeaderName = HeaderName::from_static("x-amz-version-id");

/// Codings whose objects may stand in for another, best first: what clients call it, and what the key ends with.
const CODINGS: [(&str, &str); 2] = [("br", ".br"), ("gzip", ".gz")];

/// What clients call the coding of stored frames.
const ZSTD: &str = "zstd";

/// The form of an object that is answered.
struct Form {
    /// Whose bytes these are.
    version: Box<ObjectVersion>,
    /// Without quotes; another one for each form.
    etag: String,
    /// The coding that the client undoes.
    coding: Option<&'static str>,
    bytes: FormBytes,
}

/// Where the bytes of a form come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FormBytes {
    /// They are those of an object.
    Object,
    /// They are its chunks as they are stored, which may be stored in another way tomorrow.
    Frames,
}

/// The object as it was asked for.
struct Found {
    version: Box<ObjectVersion>,
    /// Its answers differ by `Accept-Encoding`.
    varies: bool,
    kind: String,
    control: String,
}

/// What of a form goes out.
enum Part {
    All,
    One(Range<u64>),
    Several(Several),
}

/// GET and HEAD.
///
/// - `known`: the object that a digest was found to be of.
pub(super) async fn get(
    core: &Arc<Core>,
    _permit: Permit,
    ask: &Ask,
    bucket: Bucket,
    audience: Audience,
    tags: &Tags,
    known: Option<Box<ObjectVersion>>,
) -> Answer<Response<Body>> {
    let found = find(core, ask, &bucket, audience, known)?;
    let form = choose(core, ask, &bucket, &found)?;
    let record = record_of(&form.version)?;
    let held = Held {
        etag: &form.etag,
        modified: form.version.created_ms() / 1000,
        now: ask.now,
    };
    let looked_up = Instant::now();
    match condition::of_read(&ask.headers, held) {
        Verdict::Go => {}
        Verdict::Failed(_) => return Err(Code::PreconditionFailed.into()),
        Verdict::NotModified => {
            let mut response = reply(StatusCode::NOT_MODIFIED, Body::empty());
            say_validators(response.headers_mut(), ask, tags, &found, &form);
            return Ok(response);
        }
    }
    let part = part(ask, held, &form, record, &found.kind)?;
    let len = match &part {
        Part::All => record.size,
        Part::One(range) => range.end - range.start,
        Part::Several(several) => several.len,
    };
    let mut response = reply(StatusCode::OK, Body::empty());
    let headers = response.headers_mut();
    say_validators(headers, ask, tags, &found, &form);
    say_object(headers, record_of(&found.version)?, &form, &found.kind);
    // How long the frames are is known when they have been read.
    if form.bytes == FormBytes::Object {
        headers.insert(CONTENT_LENGTH, HeaderValue::from(len));
    }
    match &part {
        Part::All => {}
        Part::One(range) => {
            let shown = format!("bytes {}-{}/{}", range.start, range.end - 1, record.size);
            insert(headers, CONTENT_RANGE, shown);
        }
        Part::Several(several) => insert(headers, CONTENT_TYPE, &several.content_type),
    }
    if !matches!(part, Part::All) {
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    }
    if ask.method == Method::GET && len > 0 {
        let source = Source {
            objects: Arc::clone(&core.objects),
            tenant: bucket.tenant().clone(),
            content: record.content.clone(),
        };
        *response.body_mut() = match form.bytes {
            FormBytes::Object => body(core, ask, source, part, len).await?,
            FormBytes::Frames => {
                let proven = core.proven.get_or_init(Arc::default);
                let frames = Frames::of(&core.objects, proven, &bucket, &record.content)?;
                let (reader, _) = core.readers.begin(ask.settings.options.buffer_bytes);
                frames::begin(&core.pool, frames, reader).await?
            }
        };
    }
    let spent = |since: Instant, until: Instant| until.saturating_duration_since(since).as_secs_f64() * 1000.0;
    let (find, read) = (spent(ask.begun, looked_up), spent(looked_up, Instant::now()));
    insert(
        response.headers_mut(),
        SERVER_TIMING,
        format!("find;dur={find:.3}, read;dur={read:.3}"),
    );
    Ok(response)
}

/// The bytes of a part, at the pace that the number of readers leaves.
async fn body(core: &Core, ask: &Ask, source: Source, part: Part, len: u64) -> Answer<Body> {
    let (reader, pace) = core.readers.begin(ask.settings.options.buffer_bytes);
    let range = match (part, pace) {
        (Part::All, _) => 0..len,
        (Part::One(range), _) => range,
        (Part::Several(several), Pace::Ahead) => {
            let Source {
                objects,
                tenant,
                content,
            } = source;
            let open = move || -> S3Result<Pieces> { Ok(several.read(objects, tenant, content)) };
            let body = ContentBody::begin(&core.pool, open, len).await?;
            return Ok(Body::streamed(CountedBody { body, _reader: reader }));
        }
        // The first to go when many read: whoever asks can ask for one at a time.
        (Part::Several(_), Pace::Lean(_)) => return Err(Code::SlowDown.into()),
    };
    if let Pace::Lean(budget) = pace {
        return Ok(lean::begin(&core.pool, source, range, budget, reader).await?);
    }
    let open =
        move || -> S3Result<Pieces> { Ok(Box::new(source.objects.read(&source.tenant, &source.content, range)?)) };
    let body = ContentBody::begin(&core.pool, open, len).await?;
    Ok(Body::streamed(CountedBody { body, _reader: reader }))
}

fn record_of(version: &ObjectVersion) -> Answer<&ObjectRecord> {
    version.object().ok_or_else(|| Code::NoSuchKey.into())
}

/// Finds the object, and what is told of it.
fn find(
    core: &Core,
    ask: &Ask,
    bucket: &Bucket,
    audience: Audience,
    known: Option<Box<ObjectVersion>>,
) -> Answer<Found> {
    let rows = core.objects.names().objects(bucket);
    let missing = || Refused::Missing(caching::control_of_missing(&ask.settings.options, audience));
    let (version, path) = match (known, ask.version) {
        (Some(version), _) => (version, Path::Fixed),
        (None, Some(id)) => {
            let version = rows.version(&ask.key, id).map_err(|error| match error {
                cairn_index::Error::NoVersion { .. } => missing(),
                error => error.into(),
            })?;
            if matches!(version.kind, VersionKind::DeleteMarker) {
                return Err(missing());
            }
            // The version named `null` is another one after each write.
            let path = if id.is_null() { Path::Changing } else { Path::Fixed };
            (Box::new(version), path)
        }
        (None, None) => match rows.get(&ask.key)? {
            Current::Object(version) => (version, Path::Changing),
            Current::Deleted(_) | Current::Nothing => return Err(missing()),
        },
    };
    let (key, delivery) = (ask.key.as_str(), &bucket.record.settings.delivery);
    let record = record_of(&version)?;
    let kind = caching::content_type(key, record).to_owned();
    let is_coded = record.headers.content_encoding.is_some();
    Ok(Found {
        varies: !is_coded
            && (stands_in(ask, bucket) && caching::is_text(&kind) || delivery.zstd && caching::may_shrink(&kind)),
        control: caching::control(&ask.settings.options, delivery, (key, record), audience, path),
        kind,
        version,
    })
}

/// Chooses the form that the client takes. Ranges are of the object as it is.
fn choose(core: &Core, ask: &Ask, bucket: &Bucket, found: &Found) -> Answer<Form> {
    // Of a digest it is the same whichever object the bytes are found as.
    let own_tag = match &ask.digest {
        Some(digest) => digest.to_string().replace('/', "-"),
        None => record_of(&found.version)?.etag.as_str().to_owned(),
    };
    let as_it_is = |etag: String| Form {
        etag,
        version: found.version.clone(),
        coding: None,
        bytes: FormBytes::Object,
    };
    let accepted = ask.header(ACCEPT_ENCODING).unwrap_or("");
    if !found.varies || accepted.is_empty() || ask.version.is_some() || ask.headers.contains_key(RANGE) {
        return Ok(as_it_is(own_tag));
    }
    let delivery = &bucket.record.settings.delivery;
    let rows = core.objects.names().objects(bucket);
    let is_taken = |(coding, _): &(&str, &str)| stands_in(ask, bucket) && accepts(accepted, coding);
    let codings = CODINGS.into_iter().filter(is_taken);
    for (coding, end) in codings.filter(|_| caching::is_text(&found.kind)) {
        let Ok(key) = ObjectKey::new(format!("{}{end}", ask.key.as_str())) else {
            continue;
        };
        // One that is older was made of other bytes.
        if let Current::Object(version) = rows.get(&key)?
            && version.created_ms() >= found.version.created_ms()
            && let Some(record) = version.object()
        {
            // Two objects, two tags: which of this name it is made of, too.
            return Ok(Form {
                etag: format!("{}-{own_tag}-{coding}", record.etag.as_str()),
                version,
                coding: Some(coding),
                bytes: FormBytes::Object,
            });
        }
    }
    let record = record_of(&found.version)?;
    // Frames are read several at a time: not when many read.
    let is_quiet = core.readers.are_few(ask.settings.options.buffer_bytes);
    let is_stored = !matches!(record.content, Content::Inline { .. });
    if delivery.zstd && is_stored && is_quiet && accepts(accepted, ZSTD) && caching::may_shrink(&found.kind) {
        return Ok(Form {
            etag: format!("{own_tag}-zstd"),
            version: found.version.clone(),
            coding: Some(ZSTD),
            bytes: FormBytes::Frames,
        });
    }
    Ok(as_it_is(own_tag))
}

/// Whether objects may stand in for others: not where a digest names the bytes.
fn stands_in(ask: &Ask, bucket: &Bucket) -> bool {
    bucket.record.settings.delivery.precompressed && ask.digest.is_none()
}

/// Whether `Accept-Encoding` takes a coding (RFC 9110, section 12.5.3): named and not with weight 0. A star is no wish for it.
fn accepts(header: &str, coding: &str) -> bool {
    header.split(',').any(|item| {
        let mut words = item.split(';').map(str::trim);
        let is_it = words.next().is_some_and(|name| name.eq_ignore_ascii_case(coding));
        let is_refused = |word: &str| {
            let weight = word
                .split_once('=')
                .filter(|(name, _)| name.trim().eq_ignore_ascii_case("q"));
            weight.is_some_and(|(_, weight)| weight.trim().parse::<f32>().is_ok_and(|weight| weight <= 0.0))
        };
        is_it && !words.any(is_refused)
    })
}

/// Which bytes of the form are asked for. A HEAD has no ranges (RFC 9110, section 14.2).
fn part(ask: &Ask, held: Held<'_>, form: &Form, record: &ObjectRecord, kind: &str) -> Answer<Part> {
    let header = ask
        .header(RANGE)
        .filter(|_| ask.method == Method::GET && form.coding.is_none());
    let Some(header) = header.filter(|_| is_the_same(ask.header(IF_RANGE), held)) else {
        return Ok(Part::All);
    };
    match range::requested(header, record.size, ask.settings.options.ranges) {
        Ranges::All => Ok(Part::All),
        Ranges::Unsatisfiable => Err(Refused::Range(record.size)),
        Ranges::Some(mut ranges) if ranges.len() == 1 => Ok(Part::One(ranges.remove(0))),
        Ranges::Some(ranges) => Ok(Part::Several(Several::of(ranges, kind, record.size))),
    }
}

/// Whether `If-Range` is of what is held (RFC 9110, section 13.1.5): a strong tag, or the very time, once that is over for good.
fn is_the_same(condition: Option<&str>, held: Held<'_>) -> bool {
    let Some(condition) = condition.map(str::trim) else {
        return true;
    };
    if condition.starts_with('"') {
        return condition.strip_prefix('"').and_then(|tag| tag.strip_suffix('"')) == Some(held.etag);
    }
    date::parse_http(condition).is_some_and(|since| since == held.modified && held.modified < held.now)
}

/// What a 304 says as well.
fn say_validators(headers: &mut HeaderMap, ask: &Ask, tags: &Tags, found: &Found, form: &Form) {
    let weak = match form.bytes {
        FormBytes::Object => "",
        FormBytes::Frames => "W/",
    };
    insert(headers, ETAG, format!("{weak}\"{}\"", form.etag));
    insert(headers, LAST_MODIFIED, date::http(form.version.created_ms()));
    insert(headers, CACHE_CONTROL, &found.control);
    if found.varies {
        headers.append(VARY, HeaderValue::from_static("Accept-Encoding"));
    }
    tags.say(headers);
    if ask.version.is_some() {
        insert(headers, VERSION_ID, found.version.id.to_string());
    }
}

/// What an answer with bytes says besides.
fn say_object(headers: &mut HeaderMap, record: &ObjectRecord, form: &Form, kind: &str) {
    insert(headers, CONTENT_TYPE, kind);
    let ranges = if form.coding.is_some() { "none" } else { "bytes" };
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static(ranges));
    let kept = &record.headers;
    for (name, value) in [
        (CONTENT_ENCODING, form.coding.or(kept.content_encoding.as_deref())),
        (CONTENT_LANGUAGE, kept.content_language.as_deref()),
        (CONTENT_DISPOSITION, kept.content_disposition.as_deref()),
    ] {
        if let Some(value) = value {
            insert(headers, name, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_coding_is_taken_if_it_is_named_and_not_refused() {
        for (header, taken) in [
            ("gzip, deflate, br, zstd", true),
            ("br;q=1.0, *;q=0.1", true),
            ("BR", true),
            ("br;q=0", false),
            ("br; Q=0.000", false),
            ("gzip", false),
            ("*", false),
            ("brx", false),
            ("", false),
        ] {
            assert_eq!(accepts(header, "br"), taken, "{header}");
        }
    }

    #[test]
    fn a_range_is_of_the_same_bytes_by_a_strong_tag_or_an_old_date() {
        let held = Held {
            etag: "abc",
            modified: 100,
            now: 1000,
        };
        assert!(is_the_same(None, held));
        assert!(is_the_same(Some("\"abc\""), held));
        assert!(is_the_same(Some("Thu, 01 Jan 1970 00:01:40 GMT"), held));
        for other in [
            "W/\"abc\"",
            "\"abd\"",
            "abc",
            "Thu, 01 Jan 1970 00:01:39 GMT",
            "Thu, 01 Jan 1970 00:01:41 GMT",
        ] {
            assert!(!is_the_same(Some(other), held), "{other}");
        }
        assert!(!is_the_same(
            Some("Thu, 01 Jan 1970 00:01:40 GMT"),
            Held { now: 100, ..held }
        ));
    }
}
