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

/// desync's `-m`: three sizes in KiB.
pub(crate) fn kib_triple(text: &str) -> Result<ChunkSizes, String> {
    let parts: Vec<&str> = text.split(':').collect();
    let [min, avg, max] = parts[..] else {
        return Err("expected MIN:AVG:MAX in KiB, such as 16:64:256".to_owned());
    };
    let kib = |part: &str| {
        let number: u64 = part.parse().map_err(|_| format!("`{part}` is not a number of KiB"))?;
        number.checked_mul(1024).ok_or_else(|| format!("`{part}` is too large"))
    };
    ChunkSizes::new(kib(min)?, kib(avg)?, kib(max)?).map_err(|error| error.to_string())
}

/// casync's `--chunk-size`: `[MIN:]AVG[:MAX]` or `auto`; what is missing follows from the average.
pub(crate) fn casync_sizes(text: &str) -> Result<ChunkSizes, String> {
    if text == "auto" {
        return Ok(ChunkSizes::DEFAULT);
    }
    let parts = text.split(':').map(bytes).collect::<Result<Vec<u64>, _>>()?;
    const LIMIT: u64 = cairn_formats::CHUNK_LEN_MAX as u64;
    let (min, avg, max) = match parts[..] {
        [avg] => ((avg / 4).max(1), avg, avg.saturating_mul(4).min(LIMIT)),
        [min, avg, max] => (min, avg, max),
        _ => return Err("expected AVG or MIN:AVG:MAX in bytes, such as 64K or 16K:64K:256K".to_owned()),
    };
    ChunkSizes::new(min, avg, max).map_err(|error| error.to_string())
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
        assert_eq!(kib_triple("16:64:256"), Ok(ChunkSizes::DEFAULT));
        assert!(kib_triple("16:64").is_err() && kib_triple("64:16:256").is_err());
        assert_eq!(casync_sizes("64K"), Ok(ChunkSizes::DEFAULT));
        assert_eq!(casync_sizes("16K:65536:256K"), Ok(ChunkSizes::DEFAULT));
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("1.5m"), Ok(Duration::from_secs(90)));
        assert!(duration("-1s").is_err());
        assert_eq!(human(1536), "1.5 KiB");
    }
}
