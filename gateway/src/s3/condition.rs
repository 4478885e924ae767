//! Conditions: of reads (RFC 9110, section 13.2.2), of writes, and on the source of a copy.
//!
//! Dates count to the second; what is no date, or lies in the future, counts as not sent. The test of a write's condition is
//! the index's, in the write's own commit; here it is only read.

use cairn_index::names::{Condition, Etag};
use http::HeaderMap;

use crate::s3::date;
use crate::s3::error::{Code, S3Result};

/// What conditions are asked of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Held<'a> {
    /// Without quotes.
    pub(crate) etag: &'a str,
    /// Seconds since 1970.
    pub(crate) modified: u64,
    /// Now, in seconds since 1970.
    pub(crate) now: u64,
}

/// What a read's conditions come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Answer.
    Go,
    /// 304.
    NotModified,
    /// 412, and the header that failed.
    Failed(&'static str),
}

/// The conditions of Get and Head.
pub(crate) fn of_read(headers: &HeaderMap, held: Held<'_>) -> Verdict {
    verdict(
        headers,
        held,
        ["if-match", "if-unmodified-since", "if-none-match", "if-modified-since"],
    )
}

/// The conditions on the source of a copy: what would be a 304 fails too.
pub(crate) fn of_copy(headers: &HeaderMap, held: Held<'_>) -> S3Result<()> {
    let names = [
        "x-amz-copy-source-if-match",
        "x-amz-copy-source-if-unmodified-since",
        "x-amz-copy-source-if-none-match",
        "x-amz-copy-source-if-modified-since",
    ];
    match verdict(headers, held, names) {
        Verdict::Go => Ok(()),
        Verdict::Failed(name) => Err(Code::PreconditionFailed.with("Condition", name)),
        Verdict::NotModified => {
            let name = if headers.contains_key(names[2]) {
                names[2]
            } else {
                names[3]
            };
            Err(Code::PreconditionFailed.with("Condition", name))
        }
    }
}

fn verdict(headers: &HeaderMap, held: Held<'_>, names: [&'static str; 4]) -> Verdict {
    let [if_match, if_unmodified, if_none_match, if_modified] = names;
    let date = |name: &str| {
        let text = headers.get(name)?.to_str().ok()?;
        date::parse_http(text).filter(|&seconds| seconds <= held.now)
    };
    if headers.contains_key(if_match) {
        if !any_is(headers, if_match, held.etag) {
            return Verdict::Failed(if_match);
        }
    } else if date(if_unmodified).is_some_and(|since| held.modified > since) {
        return Verdict::Failed(if_unmodified);
    }
    if headers.contains_key(if_none_match) {
        if any_is(headers, if_none_match, held.etag) {
            return Verdict::NotModified;
        }
    } else if date(if_modified).is_some_and(|since| held.modified <= since) {
        return Verdict::NotModified;
    }
    Verdict::Go
}

/// Whether a header lists this ETag, quoted or bare, or `*`.
fn any_is(headers: &HeaderMap, name: &str, etag: &str) -> bool {
    headers.get_all(name).iter().any(|value| {
        // ETags of ours hold no comma.
        value
            .to_str()
            .is_ok_and(|list| list.split(',').any(|item| is_etag(item, etag) || item.trim() == "*"))
    })
}

/// Whether a client's word, quoted, weak or bare, is this ETag.
pub(crate) fn is_etag(item: &str, etag: &str) -> bool {
    let item = item.trim();
    let item = item.strip_prefix("W/").unwrap_or(item);
    item.trim_matches('"') == etag
}

/// What a write asks of the current version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum WriteCondition {
    /// Nothing.
    None,
    /// That there is none.
    Absent,
    /// That its ETag, without quotes, is this.
    Etag(String),
}

impl WriteCondition {
    /// What it is to the index.
    pub(crate) fn for_index(self) -> Condition {
        match self {
            Self::None => Condition::Always,
            Self::Absent => Condition::Absent,
            // What no ETag can be matches none.
            Self::Etag(etag) => Condition::Matches(Etag::opaque(&etag).into_iter().collect()),
        }
    }
}

/// Reads the conditions of a write.
///
/// Errors: `NotImplemented` for `If-None-Match` with anything but `*`, and for both headers.
pub(crate) fn of_write(headers: &HeaderMap) -> S3Result<WriteCondition> {
    let text = |name: &str| {
        headers
            .get(name)
            .map(|value| value.to_str().unwrap_or("").trim().to_owned())
    };
    match (text("if-match"), text("if-none-match")) {
        (None, None) => Ok(WriteCondition::None),
        (None, Some(star)) if star == "*" => Ok(WriteCondition::Absent),
        (Some(etag), None) if etag != "*" && !etag.contains(',') => {
            Ok(WriteCondition::Etag(etag.trim_matches('"').to_owned()))
        }
        (_, Some(_)) => Err(Code::NotImplemented.with("Header", "If-None-Match")),
        (Some(_), None) => Err(Code::NotImplemented.with("Header", "If-Match")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: &str = "Thu, 01 Jan 1970 00:01:39 GMT";
    const SAME: &str = "Thu, 01 Jan 1970 00:01:40 GMT";
    const FUTURE: &str = "Thu, 01 Jan 1970 00:20:00 GMT";

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let pairs = pairs
            .iter()
            .map(|(name, value)| (http::HeaderName::from_static(name), value.parse().unwrap()));
        pairs.collect()
    }

    fn read(pairs: &[(&'static str, &str)]) -> Verdict {
        let held = Held {
            etag: "abc-2",
            modified: 100,
            now: 1000,
        };
        of_read(&headers(pairs), held)
    }

    #[test]
    fn etags_are_matched_quoted_bare_in_lists_and_by_star() {
        for value in ["\"abc-2\"", "abc-2", "\"x\", \"abc-2\"", "*", "W/\"abc-2\""] {
            assert_eq!(read(&[("if-match", value)]), Verdict::Go, "{value}");
            assert_eq!(read(&[("if-none-match", value)]), Verdict::NotModified, "{value}");
        }
        assert_eq!(read(&[("if-match", "\"abc\"")]), Verdict::Failed("if-match"));
        assert_eq!(read(&[("if-none-match", "\"abc\"")]), Verdict::Go);
    }

    #[test]
    fn dates_count_to_the_second_and_not_when_they_are_none_or_in_the_future() {
        assert_eq!(read(&[("if-modified-since", SAME)]), Verdict::NotModified);
        assert_eq!(read(&[("if-modified-since", OLD)]), Verdict::Go);
        assert_eq!(read(&[("if-modified-since", FUTURE)]), Verdict::Go);
        assert_eq!(read(&[("if-modified-since", "yesterday")]), Verdict::Go);
        assert_eq!(read(&[("if-unmodified-since", SAME)]), Verdict::Go);
        assert_eq!(
            read(&[("if-unmodified-since", OLD)]),
            Verdict::Failed("if-unmodified-since")
        );
    }

    #[test]
    fn etags_come_before_dates() {
        assert_eq!(
            read(&[("if-match", "abc-2"), ("if-unmodified-since", OLD)]),
            Verdict::Go
        );
        assert_eq!(
            read(&[("if-none-match", "x"), ("if-modified-since", SAME)]),
            Verdict::Go
        );
        assert_eq!(
            read(&[("if-match", "x"), ("if-none-match", "abc-2")]),
            Verdict::Failed("if-match")
        );
        assert_eq!(
            read(&[("if-match", "abc-2"), ("if-none-match", "abc-2")]),
            Verdict::NotModified
        );
    }

    #[test]
    fn the_source_of_a_copy_fails_where_a_read_would_be_unmodified() {
        let held = Held {
            etag: "e",
            modified: 100,
            now: 1000,
        };
        let failed = |pairs| of_copy(&headers(pairs), held).map_err(|error| error.code);
        assert_eq!(
            failed(&[("x-amz-copy-source-if-none-match", "e")]),
            Err(Code::PreconditionFailed)
        );
        assert_eq!(
            failed(&[("x-amz-copy-source-if-modified-since", SAME)]),
            Err(Code::PreconditionFailed)
        );
        assert_eq!(
            failed(&[("x-amz-copy-source-if-match", "e"), ("if-match", "x")]),
            Ok(())
        );
    }

    #[test]
    fn writes_ask_for_nothing_for_absence_or_for_an_etag() {
        assert_eq!(of_write(&headers(&[])), Ok(WriteCondition::None));
        assert_eq!(
            of_write(&headers(&[("if-none-match", "*")])),
            Ok(WriteCondition::Absent)
        );
        assert_eq!(
            of_write(&headers(&[("if-match", "\"e\"")])),
            Ok(WriteCondition::Etag("e".to_owned()))
        );
        for pairs in [
            &[("if-none-match", "\"e\"")][..],
            &[("if-none-match", "*"), ("if-match", "e")],
            &[("if-match", "*")],
        ] {
            assert_eq!(
                of_write(&headers(pairs)).unwrap_err().code,
                Code::NotImplemented,
                "{pairs:?}"
            );
        }
    }
}
