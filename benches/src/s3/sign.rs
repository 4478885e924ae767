//! Signatures of version 4 for requests whose body is not signed: what a client over TLS sends, and the least that both sides can do.

use std::time::{SystemTime, UNIX_EPOCH};

use sha2::{Digest as _, Sha256};

use crate::Result;

const REGION: &str = "us-east-1";
/// Bytes of a block of SHA-256, which HMAC is made of.
const BLOCK_LEN: usize = 64;

/// Signs for one key.
#[derive(Clone)]
pub(crate) struct Signer {
    id: String,
    secret: String,
    /// The day that `key` is for.
    day: String,
    key: [u8; 32],
}

impl Signer {
    pub(crate) fn new(id: &str, secret: &str) -> Self {
        Self {
            id: id.to_owned(),
            secret: secret.to_owned(),
            day: String::new(),
            key: [0; 32],
        }
    }

    /// The head of a request, signed.
    ///
    /// - `path`, `query`: as they are sent; the query's names in order, and encoded as the signature wants them.
    /// - `headers`: further ones, names in lower case, signed too.
    pub(crate) fn head(
        &mut self,
        method: &str,
        host: &str,
        path: &str,
        query: &str,
        headers: &[(&str, &str)],
        body_len: u64,
    ) -> Result<String> {
        let seconds = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
        let (day, time) = date(seconds);
        if day != self.day {
            let mut key = hmac(format!("AWS4{}", self.secret).as_bytes(), day.as_bytes());
            for word in [REGION, "s3", "aws4_request"] {
                key = hmac(&key, word.as_bytes());
            }
            (self.day, self.key) = (day.clone(), key);
        }
        let stamp = format!("{day}T{time}Z");
        let own = [
            ("host", host),
            ("x-amz-content-sha256", "UNSIGNED-PAYLOAD"),
            ("x-amz-date", &stamp),
        ];
        let mut all = [&own, headers].concat();
        all.sort_unstable();
        let (mut names, mut signed, mut sent) = (String::new(), String::new(), String::new());
        for (name, value) in all {
            names += if names.is_empty() { "" } else { ";" };
            names += name;
            signed += &format!("{name}:{value}\n");
            sent += &format!("{name}: {value}\r\n");
        }
        let canonical = format!("{method}\n{path}\n{query}\n{signed}\n{names}\nUNSIGNED-PAYLOAD");
        let scope = format!("{day}/{REGION}/s3/aws4_request");
        let digest = hex(&Sha256::digest(canonical.as_bytes()));
        let text = format!("AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{digest}");
        let signature = hex(&hmac(&self.key, text.as_bytes()));
        let mark = if query.is_empty() { "" } else { "?" };
        let id = &self.id;
        Ok(format!(
            "{method} {path}{mark}{query} HTTP/1.1\r\n{sent}Content-Length: {body_len}\r\n\
             Authorization: AWS4-HMAC-SHA256 Credential={id}/{scope}, SignedHeaders={names}, Signature={signature}\r\n\r\n"
        ))
    }
}

/// What a value of a query is sent as.
pub(crate) fn encode(value: &str) -> String {
    let mut text = String::with_capacity(value.len());
    for byte in value.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => text.push(char::from(byte)),
            byte => text += &format!("%{byte:02X}"),
        }
    }
    text
}

fn hmac(key: &[u8], text: &[u8]) -> [u8; 32] {
    let mut block = [0; BLOCK_LEN];
    match key.len() {
        len @ 0..=BLOCK_LEN => block[..len].copy_from_slice(key),
        _ => block[..32].copy_from_slice(&Sha256::digest(key)),
    }
    let inner = Sha256::new()
        .chain_update(block.map(|byte| byte ^ 0x36))
        .chain_update(text);
    let outer = Sha256::new().chain_update(block.map(|byte| byte ^ 0x5c));
    outer.chain_update(inner.finalize()).finalize().into()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// `YYYYMMDD` and `HHMMSS` of seconds since 1970 UTC.
pub(crate) fn date(seconds: u64) -> (String, String) {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    // Years begin in March, so that the day that comes every four years is the last one: Howard Hinnant, "chrono-compatible
    // low-level date algorithms", civil_from_days.
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year + era * 400 + u64::from(month <= 2);
    (
        format!("{year:04}{month:02}{day:02}"),
        format!("{:02}{:02}{:02}", rest / 3600, rest / 60 % 60, rest % 60),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        assert_eq!(date(0), ("19700101".to_owned(), "000000".to_owned()));
        assert_eq!(date(951_782_399), ("20000228".to_owned(), "235959".to_owned()));
        assert_eq!(date(951_782_400), ("20000229".to_owned(), "000000".to_owned()));
        assert_eq!(date(1_795_280_461), ("20261121".to_owned(), "170101".to_owned()));
    }

    /// The example of RFC 4231, 4.3.
    #[test]
    fn hmac_is_that_of_the_rfc() {
        let found = hex(&hmac(b"Jefe", b"what do ya want for nothing?"));
        assert_eq!(
            found,
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
    }
}
