//! Sizes and times as people write them.

use std::time::Duration;

use cairn_formats::ChunkSizes;

/// Bytes with a suffix: `64K`, `1.5` is refused, `2G`. Suffixes K, M, G, T are powers of 1024.
pub(crate) fn bytes(text: &str) -> Result<u64, String> {
    let (digits, factor) = match text.as_bytes().last() {
        Some(b'k' | b'K') => (&text[..text.len() - 1], 1 << 10),
        Some(b'm' | b'M') => (&text[..text.len() - 1], 1 << 20),
        Some(b'g' | b'G') => (&text[..text.len() - 1], 1 << 30),
        Some(b't' | b'T') => (&text[..text.len() - 1], 1 << 40),
        _ => (text, 1u64),
    };
    let number: u64 = digits
        .parse()
        .map_err(|_| format!("`{text}` is not a size such as 65536, 64K or 2G"))?;
    number
        .checked_mul(factor)
        .ok_or_else(|| format!("`{text}` is too large"))
}

/// A share of a whole, 0 to 1.
pub(crate) fn share(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(share) if (0.0..=1.0).contains(&share) => Ok(share),
        _ => Err(format!("`{text}` is not a share such as 0.5")),
    }
}

/// Chunk sizes as desync and casync take them.
///
/// - `16:64:256`: three bare numbers are KiB (desync).
/// - `16K:64K:256K`, `64B:256B:1024B`: with suffixes they are what they say (casync, whose bare bytes want a B here).
/// - `64K`, `65536`: the average, bytes when bare; smallest and largest are a quarter and four times of it (casync).
/// - `auto`: the default.
pub(crate) fn chunk_sizes(text: &str) -> Result<ChunkSizes, String> {
    const LIMIT: u64 = cairn_formats::CHUNK_LEN_MAX as u64;
    if text == "auto" {
        return Ok(ChunkSizes::DEFAULT);
    }
    let parts: Vec<&str> = text.split(':').collect();
    let bare = parts
        .iter()
        .all(|part| part.bytes().all(|digit| digit.is_ascii_digit()));
    let size = |part: &str| match part.strip_suffix(['b', 'B']) {
        Some(digits) => bytes(digits),
        None if bare && parts.len() == 3 => bytes(&format!("{part}K")),
        None => bytes(part),
    };
    let (min, avg, max) = match parts[..] {
        [avg] => {
            let avg = size(avg)?;
            ((avg / 4).max(1), avg, avg.saturating_mul(4).min(LIMIT))
        }
        [min, avg, max] => (size(min)?, size(avg)?, size(max)?),
        _ => return Err("expected MIN:AVG:MAX such as 16:64:256 (KiB) or 16K:64K:256K, or AVG such as 64K".to_owned()),
    };
    ChunkSizes::new(min, avg, max).map_err(|error| error.to_string())
}

/// A number, or whether there is one at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OwnerNumber {
    /// As it is by default.
    Yes,
    /// Not at all.
    No,
    /// This one.
    Is(u64),
}

fn owner_number(text: &str, what: &str, good: impl Fn(u64) -> bool) -> Result<OwnerNumber, String> {
    match (text, text.parse()) {
        (_, Ok(number)) if good(number) => Ok(OwnerNumber::Is(number)),
        ("yes" | "true" | "on" | "y" | "t" | "1", _) => Ok(OwnerNumber::Yes),
        ("no" | "false" | "off" | "n" | "f" | "0", _) => Ok(OwnerNumber::No),
        _ => Err(format!("`{text}` is neither {what} nor yes or no")),
    }
}

/// casync's `--uid-shift`: an owner's number, yes, no. 65535 and 4294967295 mean nobody.
pub(crate) fn owner_shift(text: &str) -> Result<OwnerNumber, String> {
    owner_number(text, "the number of an owner", |number| {
        number < u64::from(u32::MAX) && number != 0xffff
    })
}

/// casync's `--uid-range`: 1 to 2^32 numbers, yes, no.
pub(crate) fn owner_range(text: &str) -> Result<OwnerNumber, String> {
    owner_number(text, "a number from 1 to 4294967296", |count| {
        (1..=1 << 32).contains(&count)
    })
}

/// A time as Go programs take it: `500ms`, `2s`, `1m`, or seconds.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let (digits, unit) = if let Some(digits) = text.strip_suffix("ms") {
        (digits, 1e-3)
    } else if let Some(digits) = text.strip_suffix("us") {
        (digits, 1e-6)
    } else if let Some(digits) = text.strip_suffix('s') {
        (digits, 1.0)
    } else if let Some(digits) = text.strip_suffix('m') {
        (digits, 60.0)
    } else if let Some(digits) = text.strip_suffix('h') {
        (digits, 3600.0)
    } else {
        (text, 1.0)
    };
    let number: f64 = digits
        .parse()
        .map_err(|_| format!("`{text}` is not a time such as 500ms, 2s or 1m"))?;
    Duration::try_from_secs_f64(number * unit).map_err(|_| format!("`{text}` is not a possible time"))
}

/// Bytes for people: `1.5 GiB`.
pub(crate) fn human(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 {
        format!("{bytes} B")
    } else {
        format!("{value:.1} {}", UNITS[unit])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_times_read_as_people_write_them() {
        assert_eq!(bytes("64K"), Ok(65536));
        assert_eq!(bytes("7"), Ok(7));
        assert!(bytes("1.5G").is_err() && bytes("").is_err() && bytes("99999999999T").is_err());
        for text in [
            "16:64:256",
            "64K",
            "16K:64K:256K",
            "16384B:65536B:262144B",
            "65536",
            "auto",
        ] {
            assert_eq!(chunk_sizes(text), Ok(ChunkSizes::DEFAULT), "{text}");
        }
        for text in ["16:64", "64:16:256", "", "x", "0", "16:64:99999999"] {
            assert!(chunk_sizes(text).is_err(), "{text}");
        }
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("1.5m"), Ok(Duration::from_secs(90)));
        assert!(duration("-1s").is_err());
        assert_eq!(human(1536), "1.5 KiB");
    }
}
