//! Times as the doors write them: `20130524T000000Z` in signatures, `2013-05-24T00:00:00.000Z` in documents, HTTP dates in headers.
//!
//! A time is milliseconds since 1970, UTC; leap seconds do not exist.

use std::time::{Duration, SystemTime};

const SECONDS_A_DAY: i64 = 86_400;

/// `20130524T000000Z`, and nothing else, as seconds since 1970.
pub(crate) fn parse_amz(text: &str) -> Option<i64> {
    let bytes = text.as_bytes();
    if bytes.len() != 16 || bytes[8] != b'T' || bytes[15] != b'Z' {
        return None;
    }
    let number = |from: usize, to: usize| -> Option<i64> {
        let digits = &bytes[from..to];
        digits.iter().all(u8::is_ascii_digit).then(|| {
            digits
                .iter()
                .fold(0, |value, digit| value * 10 + i64::from(digit - b'0'))
        })
    };
    let (year, month, day) = (number(0, 4)?, number(4, 6)?, number(6, 8)?);
    let (hour, minute, second) = (number(9, 11)?, number(11, 13)?, number(13, 15)?);
    if !(1..=12).contains(&month) || day < 1 || day > days_in(year, month) || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    Some(days_from_civil(year, month, day) * SECONDS_A_DAY + hour * 3600 + minute * 60 + second)
}

/// `20130524T000000Z` of seconds since 1970.
pub(crate) fn amz(seconds: i64) -> String {
    let [year, month, day, hour, minute, second] = parts(seconds);
    format!("{year:04}{month:02}{day:02}T{hour:02}{minute:02}{second:02}Z")
}

/// `2013-05-24T00:00:00.000Z`, whole seconds, as documents have it.
pub(crate) fn iso(milliseconds: u64) -> String {
    let [year, month, day, hour, minute, second] = parts(i64::try_from(milliseconds / 1000).unwrap_or(i64::MAX));
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.000Z")
}

/// Year, month, day, hour, minute and second of seconds since 1970.
fn parts(seconds: i64) -> [i64; 6] {
    let (year, month, day) = civil_from_days(seconds.div_euclid(SECONDS_A_DAY));
    let second = seconds.rem_euclid(SECONDS_A_DAY);
    [year, month, day, second / 3600, second / 60 % 60, second % 60]
}

/// `2013-05-24T00:00:00.007Z` of milliseconds since 1970, exactly.
pub(crate) fn rfc3339(milliseconds: u64) -> String {
    let whole = iso(milliseconds);
    format!("{}{:03}Z", &whole[..whole.len() - 4], milliseconds % 1000)
}

/// `2013-05-24T00:00:00Z`, with or without thousandths, and nothing else (RFC 3339 in UTC), as milliseconds since 1970.
pub(crate) fn parse_rfc3339(text: &str) -> Option<u64> {
    let (seconds, thousandths) = match text.strip_suffix('Z')?.split_once('.') {
        None => (text.strip_suffix('Z')?, "000"),
        Some(parts) => parts,
    };
    let is_form = |at: usize, letter: u8| seconds.as_bytes().get(at) == Some(&letter);
    let is_written_so = seconds.len() == 19
        && [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':')]
            .into_iter()
            .all(|(at, letter)| is_form(at, letter));
    if !is_written_so || thousandths.len() != 3 || !thousandths.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let digits = seconds.replace(['-', ':'], "");
    let since = u64::try_from(parse_amz(&format!("{digits}Z"))?).ok()?;
    Some(since * 1000 + thousandths.parse::<u64>().ok()?)
}

/// `Fri, 24 May 2013 00:00:00 GMT`.
pub(crate) fn http(milliseconds: u64) -> String {
    httpdate::fmt_http_date(SystemTime::UNIX_EPOCH + Duration::from_secs(milliseconds / 1000))
}

/// An HTTP date in any of its three forms, as seconds since 1970. `None`: it is none, and counts as not sent.
pub(crate) fn parse_http(text: &str) -> Option<u64> {
    let time = httpdate::parse_http_date(text.trim()).ok()?;
    Some(time.duration_since(SystemTime::UNIX_EPOCH).ok()?.as_secs())
}

fn days_in(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days since 1970 of a date of the Gregorian calendar (Howard Hinnant, "chrono-compatible low-level date algorithms").
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// The reverse of [`days_from_civil`].
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let (era, of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_and_read_in_all_forms() {
        assert_eq!(parse_amz("20130524T000000Z"), Some(1_369_353_600));
        assert_eq!(iso(1_369_353_600_999), "2013-05-24T00:00:00.000Z");
        assert_eq!(http(1_369_353_600_999), "Fri, 24 May 2013 00:00:00 GMT");
        assert_eq!(parse_http("Fri, 24 May 2013 00:00:00 GMT"), Some(1_369_353_600));
        assert_eq!(parse_http("24 May"), None);
    }

    #[test]
    fn every_day_of_four_centuries_is_itself_again() {
        for days in -10_000..146_097 {
            let (year, month, day) = civil_from_days(days);
            assert_eq!(days_from_civil(year, month, day), days);
        }
        for seconds in (0..4_000_000_000_i64).step_by(86_399 * 17) {
            assert_eq!(parse_amz(&amz(seconds)), Some(seconds));
        }
    }

    #[test]
    fn times_of_rfc_3339_are_read_as_they_are_written() {
        for ms in [0, 7, 1_369_353_600_999, 253_402_300_799_999] {
            assert_eq!(parse_rfc3339(&rfc3339(ms)), Some(ms));
        }
        assert_eq!(parse_rfc3339("2013-05-24T00:00:00Z"), Some(1_369_353_600_000));
        for text in [
            "",
            "Z",
            "2013-05-24",
            "2013-05-24T00:00:00",
            "2013-05-24 00:00:00Z",
            "2013-05-24T00:00:00+01:00",
            "2013-05-24T00:00:00.1Z",
            "1969-12-31T23:59:59Z",
            "2013-5-24T00:00:000Z",
        ] {
            assert_eq!(parse_rfc3339(text), None, "{text}");
        }
    }

    #[test]
    fn what_is_no_date_is_refused() {
        for text in [
            "",
            "20130524T000000",
            "20130524T000000z",
            "20130229T000000Z",
            "20131301T000000Z",
            "2013+524T000000Z",
            "20130524T240000Z",
        ] {
            assert_eq!(parse_amz(text), None, "{text}");
        }
        assert!(parse_amz("20160229T235959Z").is_some());
    }
}
