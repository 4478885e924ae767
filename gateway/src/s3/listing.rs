//! Parameters of listings, and their documents: keys encoded where asked, `IsTruncated` and where to go on.

use cairn_index::names::{ListStart, Listed, ListedObject, ListedVersion, Owner};

use crate::s3::date;
use crate::s3::error::{Code, S3Result};
use crate::s3::uri::{Query, encode_path};
use crate::s3::xml::Writer;

/// Entries of a page.
pub(crate) const PAGE_MAX: usize = 1000;

/// How keys are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Encoding {
    /// As they are: what XML cannot hold is then beyond its rules.
    Plain,
    /// `encoding-type=url`: as in a URL, `/` kept, a space as `%20`.
    Url,
}

impl Encoding {
    /// Errors: `InvalidArgument`.
    pub(crate) fn read(query: &Query) -> S3Result<Self> {
        match query.filled("encoding-type") {
            None => Ok(Self::Plain),
            Some("url") => Ok(Self::Url),
            Some(other) => Err(Code::EncodingMethodInvalid.argument("encoding-type", other)),
        }
    }

    /// A key, or a part of one.
    pub(crate) fn text(self, xml: &mut Writer, name: &str, text: &str) {
        match self {
            Self::Plain => xml.text(name, text),
            Self::Url => {
                xml.open(name);
                // All that XML knows is encoded.
                xml.raw(&encode_path(text));
                xml.close(name);
            }
        }
    }

    pub(crate) fn element(self, xml: &mut Writer) {
        if self == Self::Url {
            xml.text("EncodingType", "url");
        }
    }
}

/// What all listings of keys are asked.
#[derive(Clone, Debug)]
pub(crate) struct Asked<'a> {
    pub(crate) bucket: &'a str,
    pub(crate) prefix: &'a str,
    pub(crate) delimiter: &'a str,
    /// At most [`PAGE_MAX`].
    pub(crate) limit: usize,
    pub(crate) encoding: Encoding,
}

impl<'a> Asked<'a> {
    /// - `limit_name`: `max-keys`, `max-uploads`.
    pub(crate) fn read(bucket: &'a str, query: &'a Query, limit_name: &'static str) -> S3Result<Self> {
        Ok(Self {
            bucket,
            prefix: query.get("prefix").unwrap_or(""),
            delimiter: query.get("delimiter").unwrap_or(""),
            limit: limit(query, limit_name)?,
            encoding: Encoding::read(query)?,
        })
    }

    /// Where a listing begins whose last page ended with this marker.
    ///
    /// A marker that is a common prefix was answered as one, and is passed over as a whole.
    pub(crate) fn start_after(&self, marker: &str) -> ListStart {
        let is_prefix = !self.delimiter.is_empty()
            && marker
                .strip_prefix(self.prefix)
                .and_then(|behind| behind.find(self.delimiter))
                .is_some_and(|at| self.prefix.len() + at + self.delimiter.len() == marker.len());
        match marker {
            "" => ListStart::Beginning,
            _ if is_prefix => ListStart::AfterPrefix(marker.to_owned()),
            _ => ListStart::After(marker.to_owned()),
        }
    }

    /// Elements that say again what was asked.
    pub(crate) fn elements(&self, xml: &mut Writer, limit_name: &str) {
        self.encoding.text(xml, "Prefix", self.prefix);
        if !self.delimiter.is_empty() {
            self.encoding.text(xml, "Delimiter", self.delimiter);
        }
        xml.display(limit_name, self.limit);
        self.encoding.element(xml);
    }

    pub(crate) fn common_prefix(&self, xml: &mut Writer, prefix: &str) {
        xml.open("CommonPrefixes");
        self.encoding.text(xml, "Prefix", prefix);
        xml.close("CommonPrefixes");
    }
}

/// A number of entries: not given is [`PAGE_MAX`], and more is cut to it. Errors: `InvalidArgument`.
pub(crate) fn limit(query: &Query, name: &'static str) -> S3Result<usize> {
    let Some(text) = query.filled(name) else {
        return Ok(PAGE_MAX);
    };
    match text.parse::<i32>() {
        Ok(limit) if limit >= 0 => Ok(usize::try_from(limit).unwrap_or(PAGE_MAX).min(PAGE_MAX)),
        _ => Err(Code::MaxKeysInvalid.argument(name, text)),
    }
}

/// An owner, as documents show one.
pub(crate) fn owner(xml: &mut Writer, name: &str, owner: &Owner) {
    xml.open(name);
    xml.text("ID", owner.as_str());
    xml.text("DisplayName", owner.as_str());
    xml.close(name);
}

/// An object in a listing.
pub(crate) fn object(xml: &mut Writer, encoding: Encoding, listed: &ListedObject, with_owner: bool) {
    let Some(record) = listed.version.object() else {
        return;
    };
    xml.open("Contents");
    encoding.text(xml, "Key", listed.key.as_str());
    xml.text("LastModified", date::iso(listed.version.created_ms()));
    etag(xml, record.etag.as_str());
    checksum_algorithms(xml, &record.checksums);
    if with_owner {
        owner(xml, "Owner", &listed.version.owner);
    }
    xml.display("Size", record.size);
    xml.text("StorageClass", storage_class(record.storage_class));
    xml.close("Contents");
}

/// A version or a delete marker in a listing.
pub(crate) fn version(xml: &mut Writer, encoding: Encoding, listed: &ListedVersion) {
    let name = if listed.version.object().is_some() {
        "Version"
    } else {
        "DeleteMarker"
    };
    xml.open(name);
    encoding.text(xml, "Key", listed.key.as_str());
    xml.display("VersionId", listed.version.id);
    xml.display("IsLatest", listed.is_latest);
    xml.text("LastModified", date::iso(listed.version.created_ms()));
    if let Some(record) = listed.version.object() {
        etag(xml, record.etag.as_str());
        checksum_algorithms(xml, &record.checksums);
        xml.display("Size", record.size);
        xml.text("StorageClass", storage_class(record.storage_class));
    }
    owner(xml, "Owner", &listed.version.owner);
    xml.close(name);
}

/// An ETag, in its quotes.
pub(crate) fn etag(xml: &mut Writer, etag: &str) {
    xml.text("ETag", format!("\"{etag}\""));
}

fn checksum_algorithms(xml: &mut Writer, checksums: &[cairn_index::names::Checksum]) {
    for checksum in checksums {
        xml.text(
            "ChecksumAlgorithm",
            crate::s3::checksum::Algorithm::of(checksum.algorithm()).name(),
        );
        xml.text("ChecksumType", crate::s3::checksum::Kind::of(checksum.kind()).name());
    }
}

pub(crate) fn storage_class(class: cairn_index::names::StorageClass) -> &'static str {
    match class {
        cairn_index::names::StorageClass::Standard => "STANDARD",
        cairn_index::names::StorageClass::ReducedRedundancy => "REDUCED_REDUNDANCY",
    }
}

/// Keys before common prefixes, as documents have them.
pub(crate) fn split<T>(entries: Vec<Listed<T>>) -> (Vec<T>, Vec<String>) {
    let (mut items, mut prefixes) = (Vec::new(), Vec::new());
    for entry in entries {
        match entry {
            Listed::Item(item) => items.push(item),
            Listed::Prefix(prefix) => prefixes.push(prefix),
        }
    }
    (items, prefixes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(text: &str) -> Query {
        Query::parse(Some(text)).unwrap()
    }

    #[test]
    fn pages_have_at_most_1000_entries_and_numbers_are_numbers() {
        for (text, expected) in [
            ("", 1000),
            ("max-keys=", 1000),
            ("max-keys=0", 0),
            ("max-keys=7", 7),
            ("max-keys=2147483647", 1000),
        ] {
            assert_eq!(limit(&query(text), "max-keys").unwrap(), expected, "{text}");
        }
        for text in ["max-keys=-1", "max-keys=x", "max-keys=1.5", "max-keys=99999999999"] {
            assert_eq!(
                limit(&query(text), "max-keys").unwrap_err().code,
                Code::MaxKeysInvalid,
                "{text}"
            );
        }
        assert_eq!(
            Encoding::read(&query("encoding-type=base64")).unwrap_err().code,
            Code::EncodingMethodInvalid
        );
    }

    #[test]
    fn keys_are_encoded_where_asked() {
        let mut xml = Writer::document();
        Encoding::Url.text(&mut xml, "Key", "a b/c+d&é\u{1}");
        Encoding::Plain.text(&mut xml, "Key", "a b/c+d&é");
        assert!(
            xml.finish()
                .ends_with("<Key>a%20b/c%2Bd%26%C3%A9%01</Key><Key>a b/c+d&amp;é</Key>")
        );
    }

    #[test]
    fn a_marker_that_was_a_common_prefix_is_passed_over_as_a_whole() {
        let query = query("prefix=a/&delimiter=/");
        let asked = Asked::read("b", &query, "max-keys").unwrap();
        assert_eq!(asked.start_after(""), ListStart::Beginning);
        assert_eq!(asked.start_after("a/b/"), ListStart::AfterPrefix("a/b/".to_owned()));
        assert_eq!(asked.start_after("a/b/c"), ListStart::After("a/b/c".to_owned()));
        assert_eq!(asked.start_after("a/b"), ListStart::After("a/b".to_owned()));
        assert_eq!(asked.start_after("x/"), ListStart::After("x/".to_owned()));
    }
}
