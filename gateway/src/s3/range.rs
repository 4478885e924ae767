//! Ranges of `Range` and of `x-amz-copy-source-range`, and numbers of parts.

use std::ops::Range;

use crate::s3::error::{Code, S3Error, S3Result};

/// Parts of an upload at most.
pub(crate) const PART_NUMBER_MAX: u16 = 10_000;

/// The bytes of an object of `len` bytes that `Range` asks for; `None`: all, because the header is none that counts.
///
/// One range in bytes counts: `a-b`, `a-`, `-n`. What is malformed, backwards, in another unit or of several ranges is ignored.
/// Errors: `InvalidRange` for one that begins at or past the end, and for `-0`.
pub(crate) fn requested(header: Option<&str>, len: u64) -> S3Result<Option<Range<u64>>> {
    let Some(header) = header else { return Ok(None) };
    let Some((first, last)) = header
        .trim()
        .split_once('=')
        .filter(|(unit, _)| unit.trim().eq_ignore_ascii_case("bytes"))
        .and_then(|(_, range)| range.trim().split_once('-'))
    else {
        return Ok(None);
    };
    let range = match (number(first), number(last), first.is_empty(), last.is_empty()) {
        (None, Some(suffix), true, _) => {
            if suffix == 0 || len == 0 {
                return Err(S3Error::outside(header, len));
            }
            len.saturating_sub(suffix)..len
        }
        (Some(first), None, _, true) => first..len,
        (Some(first), Some(last), ..) if first <= last => first..last.saturating_add(1).min(len),
        _ => return Ok(None),
    };
    if range.start >= len {
        return Err(S3Error::outside(header, len));
    }
    Ok(Some(range))
}

/// `bytes=first-last`, both there, inside a source of `len` bytes.
///
/// Errors: `InvalidArgument` when malformed or past the end, `InvalidRange` when it begins there.
pub(crate) fn copied(header: &str, len: u64) -> S3Result<Range<u64>> {
    let malformed = || Code::CopySourceRangeInvalid.argument("x-amz-copy-source-range", header);
    let (first, last) = header
        .strip_prefix("bytes=")
        .and_then(|range| range.split_once('-'))
        .ok_or_else(malformed)?;
    let (Some(first), Some(last)) = (number(first), number(last)) else {
        return Err(malformed());
    };
    if first > last {
        return Err(malformed());
    }
    if first >= len {
        return Err(S3Error::outside(header, len));
    }
    if last >= len {
        return Err(Code::CopySourceRangeOutside.argument("x-amz-copy-source-range", header));
    }
    Ok(first..last + 1)
}

/// A part's number.
pub(crate) fn part_number(text: &str) -> S3Result<u16> {
    match number(text).and_then(|number| u16::try_from(number).ok()) {
        Some(number @ 1..=PART_NUMBER_MAX) => Ok(number),
        _ => Err(Code::PartNumberInvalid.argument("partNumber", text)),
    }
}

/// Digits alone; more than a `u64` holds are past any end.
pub(crate) fn number(text: &str) -> Option<u64> {
    (!text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())).then(|| text.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_range_counts() {
        for (header, range) in [
            ("bytes=0-0", 0..1),
            ("bytes=2-5", 2..6),
            ("bytes=002-0005", 2..6),
            ("bytes=2-", 2..10),
            ("bytes=-3", 7..10),
            ("bytes=-99", 0..10),
            ("bytes=9-99999999999999999999999", 9..10),
            ("Bytes= 0-1", 0..2),
        ] {
            assert_eq!(requested(Some(header), 10).unwrap(), Some(range), "{header}");
        }
    }

    #[test]
    fn what_is_malformed_is_ignored() {
        for header in [
            "",
            "bytes",
            "bytes=",
            "bytes=-",
            "bytes=a-b",
            "bytes=5-2",
            "bytes=0-1,3-4",
            "items=0-1",
            "bytes=--1",
            "bytes=1--2",
            "bytes=+1-2",
            "0-1",
        ] {
            assert_eq!(requested(Some(header), 10).unwrap(), None, "{header}");
        }
        assert_eq!(requested(None, 10).unwrap(), None);
    }

    #[test]
    fn what_lies_outside_is_refused() {
        for (header, len) in [
            ("bytes=10-", 10),
            ("bytes=10-11", 10),
            ("bytes=-0", 10),
            ("bytes=0-", 0),
            ("bytes=-1", 0),
        ] {
            let error = requested(Some(header), len).unwrap_err();
            assert_eq!(error.code, Code::InvalidRange, "{header}");
        }
    }

    #[test]
    fn ranges_of_copies_lie_inside_their_source() {
        assert_eq!(copied("bytes=0-9", 10).unwrap(), 0..10);
        for (header, code) in [
            ("bytes=0-10", Code::CopySourceRangeOutside),
            ("bytes=10-11", Code::InvalidRange),
            ("bytes=5-2", Code::CopySourceRangeInvalid),
            ("bytes=5-", Code::CopySourceRangeInvalid),
            ("bytes=-5", Code::CopySourceRangeInvalid),
            ("0-1", Code::CopySourceRangeInvalid),
        ] {
            assert_eq!(copied(header, 10).unwrap_err().code, code, "{header}");
        }
    }

    #[test]
    fn parts_are_numbered_from_1_to_10000() {
        assert_eq!((part_number("1").unwrap(), part_number("10000").unwrap()), (1, 10_000));
        for text in ["0", "10001", "", "-1", "1.0", "x", "70000"] {
            assert_eq!(part_number(text).unwrap_err().code, Code::PartNumberInvalid, "{text}");
        }
    }
}
