//! Tags of objects: from the header `x-amz-tagging` (a query string) and from documents, held to the rules.

use crate::s3::error::{Code, S3Result};
use crate::s3::uri::Query;
use crate::s3::xml::{Element, Writer};

/// Tags of an object.
const TAGS_MAX: usize = 10;
/// Characters of a key.
const KEY_CHARS_MAX: usize = 128;
/// Characters of a value.
const VALUE_CHARS_MAX: usize = 256;

/// Key and value, in the order sent.
pub(crate) type Tags = Vec<(String, String)>;

/// `a=1&b=2`. Errors: `InvalidArgument` for what is malformed or repeats a key, and those of the rules.
pub(crate) fn of_header(text: &str) -> S3Result<Tags> {
    let invalid = || Code::TaggingHeaderInvalid.argument("x-amz-tagging", text);
    let query = Query::parse(Some(text)).map_err(|_| invalid())?;
    let names: Vec<&str> = query.names().map(|(name, _)| name).collect();
    if names
        .iter()
        .enumerate()
        .any(|(number, name)| names[..number].contains(name))
    {
        return Err(invalid());
    }
    check(
        names
            .iter()
            .map(|name| ((*name).to_owned(), query.get(name).unwrap_or("").to_owned()))
            .collect(),
    )
}

/// A `Tagging` document. Errors: `MalformedXML`, and those of the rules.
pub(crate) fn of_document(document: &[u8]) -> S3Result<Tags> {
    let malformed = |_| Code::MalformedXml;
    let root = Element::parse_root(document, "Tagging").map_err(malformed)?;
    let set = root.child("TagSet").map_err(malformed)?.ok_or(Code::MalformedXml)?;
    let mut tags = Vec::new();
    for tag in &set.children {
        if tag.name != "Tag" {
            return Err(Code::MalformedXml.into());
        }
        let key = tag.text_of("Key").map_err(malformed)?.ok_or(Code::MalformedXml)?;
        let value = tag.text_of("Value").map_err(malformed)?.ok_or(Code::MalformedXml)?;
        tags.push((key.to_owned(), value.to_owned()));
    }
    check(tags)
}

/// Holds tags to the rules. Errors: `BadRequest` for too many, `InvalidTag`.
fn check(tags: Tags) -> S3Result<Tags> {
    if tags.len() > TAGS_MAX {
        return Err(Code::BadRequestTags.into());
    }
    for (number, (key, value)) in tags.iter().enumerate() {
        let error = if key.starts_with("aws:") {
            Code::InvalidTagSystem
        } else if !(1..=KEY_CHARS_MAX).contains(&key.chars().count()) || !key.chars().all(is_allowed) {
            Code::InvalidTag
        } else if value.chars().count() > VALUE_CHARS_MAX || !value.chars().all(is_allowed) {
            Code::InvalidTagValue
        } else if tags[..number].iter().any(|(other, _)| other == key) {
            Code::InvalidTagTwice
        } else {
            continue;
        };
        return Err(error.with("TagKey", key).with("TagValue", value));
    }
    Ok(tags)
}

/// Letters, numbers and spaces of any script, and `+ - = . _ : / @`.
fn is_allowed(char: char) -> bool {
    char.is_alphanumeric() || char.is_whitespace() && !char.is_control() || "+-=._:/@".contains(char)
}

/// The `Tagging` document of these tags.
pub(crate) fn document(tags: &[(String, String)]) -> String {
    let mut xml = Writer::root("Tagging");
    xml.open("TagSet");
    for (key, value) in tags {
        xml.open("Tag");
        xml.text("Key", key);
        xml.text("Value", value);
        xml.close("Tag");
    }
    xml.close("TagSet");
    xml.end("Tagging")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tag(key: &str, value: &str) -> (String, String) {
        (key.to_owned(), value.to_owned())
    }

    #[test]
    fn tags_are_read_from_header_and_document_and_written_again() {
        let tags = of_header("a=1&b%20c=x%2By&d").unwrap();
        assert_eq!(tags, [tag("a", "1"), tag("b c", "x+y"), tag("d", "")]);
        assert_eq!(of_document(document(&tags).as_bytes()).unwrap(), tags);
        assert_eq!(of_document(b"<Tagging><TagSet/></Tagging>").unwrap(), []);
    }

    #[test]
    fn tags_follow_the_rules() {
        let key_max = "k".repeat(128);
        let value_max = "v".repeat(256);
        assert!(check(vec![tag(&key_max, &value_max), tag("é", "日本")]).is_ok());
        let many: Tags = (0..11).map(|number| tag(&number.to_string(), "")).collect();
        assert_eq!(check(many).unwrap_err().code, Code::BadRequestTags);
        for (tags, code) in [
            (vec![tag("", "")], Code::InvalidTag),
            (vec![tag(&(key_max + "k"), "")], Code::InvalidTag),
            (vec![tag("a", &(value_max + "v"))], Code::InvalidTagValue),
            (vec![tag("a", ""), tag("a", "1")], Code::InvalidTagTwice),
            (vec![tag("aws:x", "")], Code::InvalidTagSystem),
            (vec![tag("a<", "")], Code::InvalidTag),
        ] {
            assert_eq!(check(tags).unwrap_err().code, code);
        }
        assert_eq!(of_header("a=1&a=2").unwrap_err().code, Code::TaggingHeaderInvalid);
    }

    #[test]
    fn other_documents_are_malformed() {
        for document in [
            "<X/>",
            "<Tagging/>",
            "<Tagging><TagSet><Tag><Key>a</Key></Tag></TagSet></Tagging>",
            "<Tagging><TagSet><X/></TagSet></Tagging>",
        ] {
            assert_eq!(
                of_document(document.as_bytes()).unwrap_err().code,
                Code::MalformedXml,
                "{document}"
            );
        }
    }
}
