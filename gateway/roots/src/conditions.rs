//! `If-None-Match`, `Range` and `If-Range` of RFC 9110, for answers that are one stretch of bytes.
//!
//! Several ranges in one request are answered with the whole, as the RFC allows (section 14.2).

use std::ops::Range;

use http::header::{HeaderMap, IF_NONE_MATCH, IF_RANGE, RANGE};

/// What part of a body a request asks for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// All of it: no range, one that does not parse, or several.
    Whole,
    /// These bytes, 206.
    Range(Range<u64>),
    /// A range that lies outside, 416.
    Outside,
}

/// Whether the client already holds what `tag` (quoted, without `W/`) names: the answer is 304.
pub(crate) fn is_held(headers: &HeaderMap, tag: &str) -> bool {
    headers.get_all(IF_NONE_MATCH).iter().any(|value| {
        // Entity tags of ours hold no comma, so splitting there only breaks tags that are not ours.
        value.to_str().is_ok_and(|list| {
            list.split(',')
                .map(str::trim)
                .any(|item| item == "*" || item.strip_prefix("W/").unwrap_or(item) == tag)
        })
    })
}

/// The part of `len` bytes with the strong tag `tag` (quoted) that is asked for.
pub(crate) fn part(headers: &HeaderMap, tag: &str, len: u64) -> Part {
    let Some(range) = headers.get(RANGE) else {
        return Part::Whole;
    };
    if headers.get(IF_RANGE).is_some_and(|value| value != tag) {
        return Part::Whole;
    }
    range
        .to_str()
        .ok()
        .and_then(|range| parse_range(range, len))
        .unwrap_or(Part::Whole)
}

fn parse_range(range: &str, len: u64) -> Option<Part> {
    let (unit, range) = range.split_once('=')?;
    if !unit.trim().eq_ignore_ascii_case("bytes") || range.contains(',') {
        return None;
    }
    let (first, last) = range.trim().split_once('-')?;
    let number = |text: &str| match text {
        digits if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            // More digits than a u64 holds are past any end.
            Some(digits.parse().unwrap_or(u64::MAX))
        }
        _ => None,
    };
    if first.is_empty() {
        let suffix: u64 = number(last)?;
        return Some(if suffix == 0 || len == 0 {
            Part::Outside
        } else {
            Part::Range(len.saturating_sub(suffix)..len)
        });
    }
    let first: u64 = number(first)?;
    let end = if last.is_empty() {
        len
    } else {
        let last = number(last)?;
        if last < first {
            return None;
        }
        last.saturating_add(1).min(len)
    };
    Some(if first >= len {
        Part::Outside
    } else {
        Part::Range(first..end)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn ranges() {
        let check = |range: &str, expected: Part| {
            let mut headers = HeaderMap::new();
            headers.insert(RANGE, HeaderValue::from_str(range).unwrap());
            assert_eq!(part(&headers, "\"t\"", 100), expected, "{range}");
        };
        check("bytes=0-9", Part::Range(0..10));
        check("bytes=90-", Part::Range(90..100));
        check("bytes=90-200", Part::Range(90..100));
        check("bytes=-10", Part::Range(90..100));
        check("bytes=-1000", Part::Range(0..100));
        check("bytes=0-99999999999999999999999", Part::Range(0..100));
        check("bytes=100-", Part::Outside);
        check("bytes=-0", Part::Outside);
        check("bytes=99999999999999999999999-", Part::Outside);
        check("bytes=9-0", Part::Whole);
        check("bytes=a-b", Part::Whole);
        check("bytes=+1-2", Part::Whole);
        check("bytes=-", Part::Whole);
        check("lines=0-9", Part::Whole);
        check("bytes=0-1,5-6", Part::Whole);
    }

    #[test]
    fn a_changed_tag_gives_the_whole() {
        let mut headers = HeaderMap::new();
        headers.insert(RANGE, HeaderValue::from_static("bytes=0-9"));
        headers.insert(IF_RANGE, HeaderValue::from_static("\"t\""));
        assert_eq!(part(&headers, "\"t\"", 100), Part::Range(0..10));
        assert_eq!(part(&headers, "\"u\"", 100), Part::Whole);
    }

    #[test]
    fn tags_are_compared_weakly() {
        let check = |value: &'static str, held: bool| {
            let mut headers = HeaderMap::new();
            headers.insert(IF_NONE_MATCH, HeaderValue::from_static(value));
            assert_eq!(is_held(&headers, "\"a\""), held, "{value}");
        };
        check("\"a\"", true);
        check("W/\"a\"", true);
        check("\"b\", W/\"a\"", true);
        check("*", true);
        check("\"b\"", false);
        check("a", false);
    }
}
