//! Ranges of a GET, one or several (RFC 9110, section 14), and what is refused of them.
//!
//! What is in another unit is ignored, as the standard has it. What is in bytes and cannot be meant is refused (416) rather than answered
//! with all of the object: backwards, no numbers, more ranges than the limit, many that overlap. Ranges that touch are answered as one.

use std::ops::Range;

use crate::s3::range::number;

/// What a `Range` comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ranges {
    /// All of it: there is none, or none that counts.
    All,
    /// These, at least one, none empty, none overlapping or touching another; in the order in which they were asked for.
    Some(Vec<Range<u64>>),
    /// 416.
    Unsatisfiable,
}

/// Ranges that overlap another one, at most (RFC 9110, section 14.2).
const OVERLAPPING_MAX: usize = 2;

/// Reads `Range`.
///
/// - `len`: bytes of the representation; `most`: ranges at most.
pub(super) fn requested(header: &str, len: u64, most: usize) -> Ranges {
    let Some((unit, set)) = header.trim().split_once('=') else {
        return Ranges::All;
    };
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return Ranges::All;
    }
    let mut ranges = Vec::new();
    for (n, spec) in set.split(',').map(str::trim).enumerate() {
        if n >= most {
            return Ranges::Unsatisfiable;
        }
        match range(spec, len) {
            None => return Ranges::Unsatisfiable,
            Some(range) if range.is_empty() => {}
            Some(range) => ranges.push(range),
        }
    }
    join(ranges)
}

/// One range, empty if it lies outside. `None`: it is none.
fn range(spec: &str, len: u64) -> Option<Range<u64>> {
    let (first, last) = spec.split_once('-')?;
    match (number(first), number(last)) {
        (None, Some(suffix)) if first.is_empty() => Some(len.saturating_sub(suffix)..len),
        (Some(first), None) if last.is_empty() => Some(first.min(len)..len),
        (Some(first), Some(last)) if first <= last => Some(first.min(len)..last.saturating_add(1).min(len)),
        _ => None,
    }
}

/// Makes one of those that touch.
fn join(ranges: Vec<Range<u64>>) -> Ranges {
    if ranges.is_empty() {
        return Ranges::Unsatisfiable;
    }
    let mut sorted = ranges.clone();
    sorted.sort_unstable_by_key(|range| (range.start, range.end));
    let overlapping = sorted.windows(2).filter(|pair| pair[1].start < pair[0].end).count();
    if overlapping > OVERLAPPING_MAX {
        return Ranges::Unsatisfiable;
    }
    let mut joined: Vec<Range<u64>> = Vec::with_capacity(sorted.len());
    for range in sorted {
        match joined.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => joined.push(range),
        }
    }
    // As they were asked for, unless they had to be joined.
    Ranges::Some(if joined.len() == ranges.len() { ranges } else { joined })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn some(ranges: &[(u64, u64)]) -> Ranges {
        Ranges::Some(ranges.iter().map(|&(from, to)| from..to).collect())
    }

    #[test]
    fn one_range_and_several_are_read() {
        for (header, ranges) in [
            ("bytes=0-0", some(&[(0, 1)])),
            ("Bytes = 2-5", some(&[(2, 6)])),
            ("bytes=2-", some(&[(2, 10)])),
            ("bytes=-3", some(&[(7, 10)])),
            ("bytes=-99", some(&[(0, 10)])),
            ("bytes=9-99999999999999999999999", some(&[(9, 10)])),
            ("bytes=5-6, 0-1", some(&[(5, 7), (0, 2)])),
            ("bytes=0-0,-1", some(&[(0, 1), (9, 10)])),
            ("bytes=0-1,99-", some(&[(0, 2)])),
        ] {
            assert_eq!(requested(header, 10, 4), ranges, "{header}");
        }
    }

    #[test]
    fn ranges_that_touch_become_one() {
        assert_eq!(requested("bytes=0-4,5-9", 10, 4), some(&[(0, 10)]));
        assert_eq!(requested("bytes=4-6,0-4", 10, 4), some(&[(0, 7)]));
        assert_eq!(requested("bytes=8-9,0-1,1-2", 10, 4), some(&[(0, 3), (8, 10)]));
    }

    #[test]
    fn what_cannot_be_meant_is_refused_and_another_unit_ignored() {
        for header in [
            "bytes=",
            "bytes=-",
            "bytes=5-2",
            "bytes=a-b",
            "bytes=10-",
            "bytes=-0",
            "bytes=0-1,,3-4",
            "bytes=0-1,x",
        ] {
            assert_eq!(requested(header, 10, 4), Ranges::Unsatisfiable, "{header}");
        }
        assert_eq!(requested("bytes=0-0,2-2,4-4,6-6,8-8", 10, 4), Ranges::Unsatisfiable);
        assert_eq!(requested("bytes=0-9,0-9,0-9,0-9", 10, 9), Ranges::Unsatisfiable);
        assert_eq!(requested("bytes=0-0", 0, 4), Ranges::Unsatisfiable);
        for header in ["", "bytes", "items=0-1"] {
            assert_eq!(requested(header, 10, 4), Ranges::All, "{header}");
        }
    }

    proptest! {
        /// Goal: whatever is asked, what is answered lies inside, is disjoint, and is at most the object.
        #[test]
        fn what_is_answered_is_inside_and_disjoint(header in "bytes=[-0-9, ]{0,40}", len in 0_u64..200) {
            if let Ranges::Some(mut ranges) = requested(&header, len, 8) {
                prop_assert!(!ranges.is_empty() && ranges.len() <= 8);
                ranges.sort_by_key(|range| range.start);
                prop_assert!(ranges.iter().all(|range| range.start < range.end && range.end <= len));
                prop_assert!(ranges.windows(2).all(|pair| pair[0].end < pair[1].start));
            }
        }
    }
}
