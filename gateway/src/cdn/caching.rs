//! What caches are told: for how long an answer stays, for whom, under which tags it is purged, and what type it has.

use std::fmt::Write as _;

use cairn_index::names::{Delivery, ObjectRecord};
use http::{HeaderMap, HeaderName};
use sha2::{Digest as _, Sha256};

use super::{CdnOptions, insert};

const CACHE_TAG: HeaderName = HeaderName::from_static("cache-tag");
const SURROGATE_KEY: HeaderName = HeaderName::from_static("surrogate-key");

/// A year: longer than any cache keeps anything.
const FOR_EVER: u64 = 365 * 86_400;

/// Whom an answer is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Audience {
    /// Everybody: its key is shown to all.
    Everybody,
    /// Whoever has this URL, for so many seconds more.
    Url(u64),
    /// Who asked, alone: what opened it is not in the URL, or it is bound to an address.
    Caller,
}

/// What life a path has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Path {
    /// Other bytes may come under it.
    Changing,
    /// It names these bytes, by version or digest.
    Fixed,
}

/// `Cache-Control` of an object.
///
/// What its writer said (`Cache-Control` of the PUT) goes first where everybody reads; else nothing outlives the right to read it.
pub(super) fn control(
    options: &CdnOptions,
    delivery: &Delivery,
    (key, record): (&str, &ObjectRecord),
    audience: Audience,
    path: Path,
) -> String {
    let own = record.headers.cache_control.as_deref();
    let says = |word: &str| own.is_some_and(|own| own.to_ascii_lowercase().contains(word));
    let (scope, most) = match audience {
        Audience::Everybody => ("public", FOR_EVER),
        Audience::Url(left) => ("public", left),
        Audience::Caller => ("private", FOR_EVER),
    };
    if path == Path::Fixed && !says("no-store") {
        return format!("{scope}, max-age={}, immutable", FOR_EVER.min(most));
    }
    match own {
        Some(own) if audience == Audience::Everybody => return own.to_owned(),
        Some(_) if says("no-store") => return "no-store".to_owned(),
        Some(_) if says("no-cache") || says("private") => return "private, no-cache".to_owned(),
        _ => {}
    }
    let (age, revalidate, error) = if is_live(key, record) {
        let age = u64::from(options.live_max_age);
        (age, age, age)
    } else {
        let age = u64::from(delivery.max_age.unwrap_or(options.max_age));
        let stale = u64::from(options.stale_while_revalidate);
        (age, stale, u64::from(options.stale_if_error))
    };
    if let Audience::Url(_) = audience {
        // Stale answers would outlive the link.
        return format!("{scope}, max-age={}", age.min(most));
    }
    format!("{scope}, max-age={age}, stale-while-revalidate={revalidate}, stale-if-error={error}")
}

/// `Cache-Control` of what is not there: for a moment, so that many who ask are one.
pub(super) fn control_of_missing(options: &CdnOptions, audience: Audience) -> String {
    let age = u64::from(options.missing_max_age);
    match audience {
        Audience::Everybody => format!("public, max-age={age}"),
        Audience::Url(left) => format!("public, max-age={}", age.min(left)),
        Audience::Caller => "private, no-cache".to_owned(),
    }
}

/// A playlist or manifest of what may still be growing.
fn is_live(key: &str, record: &ObjectRecord) -> bool {
    let kind = record.headers.content_type.as_deref().unwrap_or("");
    let kind = kind.split(';').next().unwrap_or("").trim().to_ascii_lowercase();
    matches!(extension(key).as_str(), "m3u8" | "m3u" | "mpd")
        || matches!(
            kind.as_str(),
            "application/vnd.apple.mpegurl" | "application/x-mpegurl" | "audio/mpegurl" | "application/dash+xml"
        )
}

/// What an object is purged by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tags {
    /// All of a bucket.
    pub(crate) bucket: String,
    /// One object, all of its forms and versions.
    pub(crate) object: String,
}

impl Tags {
    /// Words of letters, digits, `.` and `-` alone: they stand in lists with commas and with blanks, and in patterns.
    pub(crate) fn of(bucket: &str, key: &str) -> Self {
        let digest = Sha256::new()
            .chain_update(bucket)
            .chain_update("/")
            .chain_update(key)
            .finalize();
        let mut object = "cairn-o-".to_owned();
        for byte in &digest[..12] {
            let _ = write!(object, "{byte:02x}");
        }
        Self {
            bucket: format!("cairn-b-{bucket}"),
            object,
        }
    }
}

impl Tags {
    /// Says them in an answer, in the two ways that CDNs know.
    pub(super) fn say(&self, headers: &mut HeaderMap) {
        let Self { bucket, object } = self;
        insert(headers, CACHE_TAG, format!("{bucket},{object}"));
        insert(headers, SURROGATE_KEY, format!("{bucket} {object}"));
    }
}

/// The type that an object goes out with: its own, else that of its name; nothing is guessed from bytes.
pub(super) fn content_type<'a>(key: &str, record: &'a ObjectRecord) -> &'a str {
    if let Some(own) = record.headers.content_type.as_deref()
        && own != "binary/octet-stream"
    {
        return own;
    }
    let extension = extension(key);
    let known = TYPES
        .iter()
        .find(|(names, _)| names.split(' ').any(|name| name == extension));
    known.map_or("application/octet-stream", |(_, kind)| kind)
}

fn extension(key: &str) -> String {
    let name = key.rsplit('/').next().unwrap_or(key);
    name.rsplit_once('.')
        .map_or(String::new(), |(_, end)| end.to_ascii_lowercase())
}

/// Whether a type is text that others than we compress well.
pub(super) fn is_text(kind: &str) -> bool {
    let kind = kind.split(';').next().unwrap_or("").trim().to_ascii_lowercase();
    kind.starts_with("text/")
        || kind.ends_with("+xml")
        || kind.ends_with("+json")
        || [
            "json",
            "javascript",
            "xml",
            "wasm",
            "x-mpegurl",
            "vnd.apple.mpegurl",
            "manifest",
        ]
        .iter()
        .any(|end| kind == format!("application/{end}"))
}

/// Whether stored chunks of a type may be smaller than its bytes: not of what is compressed itself.
pub(super) fn may_shrink(kind: &str) -> bool {
    let kind = kind.split(';').next().unwrap_or("").trim().to_ascii_lowercase();
    let is_media = ["video/", "audio/", "image/", "font/"]
        .iter()
        .any(|start| kind.starts_with(start));
    let is_packed = [
        "application/zip",
        "application/gzip",
        "application/zstd",
        "application/pdf",
    ]
    .contains(&kind.as_str());
    is_text(&kind) || !is_media && !is_packed
}

/// Names of files and their types (IANA's registry, and the WHATWG's for scripts).
const TYPES: &[(&str, &str)] = &[
    ("html htm", "text/html; charset=utf-8"),
    ("css", "text/css; charset=utf-8"),
    ("js mjs", "text/javascript; charset=utf-8"),
    ("txt", "text/plain; charset=utf-8"),
    ("csv", "text/csv; charset=utf-8"),
    ("md", "text/markdown; charset=utf-8"),
    ("vtt", "text/vtt; charset=utf-8"),
    ("json map", "application/json"),
    ("webmanifest", "application/manifest+json"),
    ("xml", "application/xml"),
    ("wasm", "application/wasm"),
    ("pdf", "application/pdf"),
    ("zip", "application/zip"),
    ("gz", "application/gzip"),
    ("zst", "application/zstd"),
    ("svg", "image/svg+xml"),
    ("png", "image/png"),
    ("jpg jpeg", "image/jpeg"),
    ("gif", "image/gif"),
    ("webp", "image/webp"),
    ("avif", "image/avif"),
    ("ico", "image/vnd.microsoft.icon"),
    ("woff", "font/woff"),
    ("woff2", "font/woff2"),
    ("ttf", "font/ttf"),
    ("mp4 m4v m4s cmfv", "video/mp4"),
    ("m4a cmfa", "audio/mp4"),
    ("webm", "video/webm"),
    ("mkv", "video/x-matroska"),
    ("mov", "video/quicktime"),
    ("ts", "video/mp2t"),
    ("m3u8", "application/vnd.apple.mpegurl"),
    ("mpd", "application/dash+xml"),
    ("mp3", "audio/mpeg"),
    ("ogg oga opus", "audio/ogg"),
    ("wav", "audio/wav"),
    ("flac", "audio/flac"),
    ("aac", "audio/aac"),
];

#[cfg(test)]
mod tests {
    use cairn_index::names::{Content, Etag};

    use super::*;

    fn record(kind: Option<&str>, own: Option<&str>) -> ObjectRecord {
        let content = Content::Chunks {
            domain: cairn_formats::DomainId::default(),
            chunks: Vec::new(),
        };
        let mut record = ObjectRecord::new(content, Etag::opaque("e").unwrap());
        record.headers.content_type = kind.map(str::to_owned);
        record.headers.cache_control = own.map(str::to_owned);
        record
    }

    fn said(key: &str, own: Option<&str>, audience: Audience, path: Path) -> String {
        let delivery = Delivery::default();
        control(
            &CdnOptions::default(),
            &delivery,
            (key, &record(None, own)),
            audience,
            path,
        )
    }

    #[test]
    fn nothing_outlives_the_right_to_read_it() {
        use Audience::{Caller, Everybody, Url};
        let usual = ", max-age=300, stale-while-revalidate=30, stale-if-error=86400";
        for (own, audience, path, expected) in [
            (None, Everybody, Path::Changing, format!("public{usual}")),
            (None, Caller, Path::Changing, format!("private{usual}")),
            (None, Url(100), Path::Changing, "public, max-age=100".to_owned()),
            (None, Url(1000), Path::Changing, "public, max-age=300".to_owned()),
            (
                None,
                Everybody,
                Path::Fixed,
                "public, max-age=31536000, immutable".to_owned(),
            ),
            (
                None,
                Caller,
                Path::Fixed,
                "private, max-age=31536000, immutable".to_owned(),
            ),
            (None, Url(7), Path::Fixed, "public, max-age=7, immutable".to_owned()),
            (Some("max-age=9"), Everybody, Path::Changing, "max-age=9".to_owned()),
            (
                Some("public, max-age=9"),
                Caller,
                Path::Changing,
                format!("private{usual}"),
            ),
            (
                Some("max-age=999"),
                Url(5),
                Path::Changing,
                "public, max-age=5".to_owned(),
            ),
            (Some("No-Store"), Url(5), Path::Changing, "no-store".to_owned()),
            (Some("no-store"), Caller, Path::Fixed, "no-store".to_owned()),
            (
                Some("private, max-age=9"),
                Url(5),
                Path::Changing,
                "private, no-cache".to_owned(),
            ),
        ] {
            assert_eq!(
                said("a.mp4", own, audience, path),
                expected,
                "{own:?} {audience:?} {path:?}"
            );
        }
    }

    #[test]
    fn playlists_live_short() {
        for key in ["live.m3u8", "a/b.MPD"] {
            assert_eq!(
                said(key, None, Audience::Everybody, Path::Changing),
                "public, max-age=5, stale-while-revalidate=5, stale-if-error=5"
            );
        }
        assert!(is_live(
            "list",
            &record(Some("Application/X-mpegURL; charset=utf-8"), None)
        ));
        assert!(!is_live("m3u8", &record(None, None)));
    }

    #[test]
    fn types_are_the_objects_own_or_those_of_its_name() {
        assert_eq!(content_type("a.html", &record(Some("x/y"), None)), "x/y");
        assert_eq!(
            content_type("a.HTML", &record(Some("binary/octet-stream"), None)),
            "text/html; charset=utf-8"
        );
        assert_eq!(
            content_type("dir.html/a", &record(None, None)),
            "application/octet-stream"
        );
        assert!(is_text("text/html; charset=utf-8") && is_text("image/svg+xml") && !is_text("image/png"));
    }

    #[test]
    fn tags_are_words_of_an_object_and_its_bucket() {
        let tags = Tags::of("abc", "a b,c");
        assert_eq!(tags.bucket, "cairn-b-abc");
        assert_eq!(tags.object.len(), 8 + 24);
        assert_ne!(tags.object, Tags::of("abc", "a b,d").object);
        assert!(
            tags.object
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        );
    }
}
