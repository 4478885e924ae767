//! What a bucket says of its delivery by the CDN door: who reads without a name, which pages of others may, for how long answers stay.

use super::fields::{Field, Fields, malformed};
use crate::Result;

/// Entries of a list of these settings, at most.
pub const DELIVERY_LIST_MAX: usize = 32;

/// Bytes of an entry, at most.
pub const DELIVERY_WORD_LEN_MAX: usize = 1024;

/// Settings of delivery; nothing is shown to anybody by default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Delivery {
    /// Beginnings of keys whose objects everybody reads; an empty one is all of them.
    pub public_read: Vec<String>,
    /// Origins of pages whose scripts may read, as browsers write them, or `*`.
    pub cors_origins: Vec<String>,
    /// Seconds for which an answer stays fresh; `None`: the server's.
    pub max_age: Option<u32>,
    /// Whether stored frames go out as they are to who takes zstd.
    pub zstd: bool,
    /// Whether `key.br` and `key.gz` stand in for `key` to who takes these.
    pub precompressed: bool,
}

impl Delivery {
    /// Whether everybody reads an object of this key.
    pub fn shows(&self, key: &str) -> bool {
        self.public_read.iter().any(|prefix| key.starts_with(prefix.as_str()))
    }

    pub(super) fn encode_into(&self, fields: &mut Fields) {
        for (tag, words) in [(PUBLIC_READ, &self.public_read), (CORS_ORIGIN, &self.cors_origins)] {
            for word in words {
                fields.text(tag, word);
            }
        }
        fields.optional_number(MAX_AGE, self.max_age.map(u64::from));
        for (tag, on) in [(ZSTD, self.zstd), (PRECOMPRESSED, self.precompressed)] {
            if on {
                fields.number(tag, 1);
            }
        }
    }

    /// Takes a field of it; `false`: it is another one.
    pub(super) fn decode(&mut self, field: &Field<'_>) -> Result<bool> {
        match field.tag {
            PUBLIC_READ => push(&mut self.public_read, field)?,
            CORS_ORIGIN => push(&mut self.cors_origins, field)?,
            MAX_AGE => self.max_age = Some(field.small()?),
            ZSTD => self.zstd = field.number()? != 0,
            PRECOMPRESSED => self.precompressed = field.number()? != 0,
            _ => return Ok(false),
        }
        Ok(true)
    }
}

fn push(words: &mut Vec<String>, field: &Field<'_>) -> Result<()> {
    if words.len() >= DELIVERY_LIST_MAX {
        return Err(malformed("row of a bucket", "a list in it is too long"));
    }
    words.push(field.text()?);
    Ok(())
}

// Tags of a bucket's row: those below are `bucket.rs`'s.
const PUBLIC_READ: u8 = 19;
const CORS_ORIGIN: u8 = 20;
const MAX_AGE: u8 = 21;
const ZSTD: u8 = 22;
const PRECOMPRESSED: u8 = 23;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_is_what_begins_so() {
        let delivery = Delivery {
            public_read: vec!["img/".to_owned(), "robots.txt".to_owned()],
            ..Delivery::default()
        };
        assert!(delivery.shows("img/a.png") && delivery.shows("robots.txt"));
        assert!(!delivery.shows("img") && !delivery.shows("x/img/a.png"));
        assert!(!Delivery::default().shows(""));
        let all = Delivery {
            public_read: vec![String::new()],
            ..Delivery::default()
        };
        assert!(all.shows("anything"));
    }
}
