//! The part of a target behind `?`: each parameter once, known ones alone, and cursors that are opaque.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use percent_encoding::percent_decode_str;

use crate::admin::error::{AdminError, AdminResult, Code};
use crate::date;

/// Entries of a page that says nothing of it.
const LIMIT_DEFAULT: usize = 50;
/// Entries of a page, at most.
const LIMIT_MAX: usize = 200;

/// Parameters that handlers take out one by one; what is left nobody knows.
#[derive(Clone, Debug, Default)]
pub(crate) struct Query {
    pairs: BTreeMap<String, String>,
}

impl Query {
    /// Reads a query. Errors: one that is no UTF-8 or has a parameter twice.
    pub(crate) fn parse(text: Option<&str>) -> AdminResult<Self> {
        let mut pairs = BTreeMap::new();
        for pair in text.unwrap_or("").split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (name, value) = (decode(name)?, decode(value)?);
            if pairs.contains_key(&name) {
                return Err(AdminError::field(name, "it is there twice"));
            }
            pairs.insert(name, value);
        }
        Ok(Self { pairs })
    }

    /// A parameter; an empty one counts as not sent.
    pub(crate) fn take(&mut self, name: &str) -> Option<String> {
        self.pairs.remove(name).filter(|value| !value.is_empty())
    }

    /// Parameters whose names begin so, without that.
    pub(crate) fn take_all(&mut self, prefix: &str) -> Vec<(String, String)> {
        let names: Vec<String> = self
            .pairs
            .keys()
            .filter(|name| name.starts_with(prefix))
            .cloned()
            .collect();
        let taken = names.into_iter().filter_map(|name| {
            let value = self.pairs.remove(&name)?;
            Some((name[prefix.len()..].to_owned(), value))
        });
        taken.collect()
    }

    /// A number. Errors: it is none.
    pub(crate) fn take_number(&mut self, name: &str) -> AdminResult<Option<u64>> {
        let Some(text) = self.take(name) else { return Ok(None) };
        let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
        let number = text.parse().ok().filter(|_| is_number);
        number
            .map(Some)
            .ok_or_else(|| AdminError::field(name, "a whole number from 0 on"))
    }

    /// A time, in milliseconds since 1970. Errors: it is none.
    pub(crate) fn take_time(&mut self, name: &str) -> AdminResult<Option<u64>> {
        let Some(text) = self.take(name) else { return Ok(None) };
        let time = date::parse_rfc3339(&text);
        time.map(Some)
            .ok_or_else(|| AdminError::field(name, "a time in UTC, as 2026-11-21T20:00:00Z"))
    }

    /// `limit`, 1 to [`LIMIT_MAX`].
    pub(crate) fn take_limit(&mut self) -> AdminResult<usize> {
        let Some(limit) = self.take_number("limit")? else {
            return Ok(LIMIT_DEFAULT);
        };
        let limit = usize::try_from(limit)
            .ok()
            .filter(|limit| (1..=LIMIT_MAX).contains(limit));
        limit.ok_or_else(|| AdminError::field("limit", "1 to 200"))
    }

    /// `cursor`, as the bytes that [`cursor`] was given.
    pub(crate) fn take_cursor(&mut self) -> AdminResult<Option<Vec<u8>>> {
        let Some(text) = self.take("cursor") else {
            return Ok(None);
        };
        URL_SAFE_NO_PAD
            .decode(text)
            .map(Some)
            .map_err(|_| Code::BadCursor.into())
    }

    /// [`Query::take_cursor`] of a name.
    pub(crate) fn take_name_cursor(&mut self) -> AdminResult<Option<String>> {
        let bytes = self.take_cursor()?;
        let text = bytes.map(|bytes| String::from_utf8(bytes).map_err(|_| Code::BadCursor.into()));
        text.transpose()
    }

    /// Nothing may be left.
    pub(crate) fn end(self) -> AdminResult<()> {
        match self.pairs.into_keys().next() {
            None => Ok(()),
            Some(name) => Err(AdminError::field(name, "there is no such parameter here")),
        }
    }
}

/// A place to go on from, as callers get it: opaque to them.
pub(crate) fn cursor(place: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(place)
}

fn decode(text: &str) -> AdminResult<String> {
    let text = text.replace('+', " ");
    let decoded = percent_decode_str(&text).decode_utf8();
    decoded
        .map(|decoded| decoded.into_owned())
        .map_err(|_| AdminError::field("query", "it is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(text: &str) -> Query {
        Query::parse(Some(text)).unwrap()
    }

    #[test]
    fn parameters_are_taken_once_and_unknown_ones_told() {
        let mut query = query("a=1&b=%C3%BC+x&tag.k=v&tag.l=&c=");
        assert_eq!(query.take("b").as_deref(), Some("ü x"));
        assert_eq!(query.take_number("a").unwrap(), Some(1));
        let tags = [("k".to_owned(), "v".to_owned()), ("l".to_owned(), String::new())];
        assert_eq!(query.take_all("tag."), tags);
        assert_eq!(query.clone().end().unwrap_err().fields[0].0, "c");
        assert_eq!(query.take("c"), None);
        query.end().unwrap();
    }

    #[test]
    fn what_cannot_be_is_told_by_name() {
        assert_eq!(Query::parse(Some("a=1&a=2")).unwrap_err().fields[0].0, "a");
        assert_eq!(Query::parse(Some("a=%ff")).unwrap_err().fields[0].0, "query");
        for text in ["limit=0", "limit=201", "limit=-1", "limit=+1", "limit=x"] {
            assert_eq!(query(text).take_limit().unwrap_err().fields[0].0, "limit", "{text}");
        }
        assert_eq!(query("cursor=%2A").take_cursor().unwrap_err().code, Code::BadCursor);
        assert!(query("t=yesterday").take_time("t").is_err());
    }

    #[test]
    fn cursors_come_back_as_they_were() {
        let place = [0, 255, 7];
        let text = format!("cursor={}", cursor(place));
        assert_eq!(query(&text).take_cursor().unwrap().unwrap(), place);
        assert_eq!(query("").take_cursor().unwrap(), None);
    }
}
