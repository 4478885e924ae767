//! The documents that requests bring: what to delete, what to complete, where a bucket is to be, whether it keeps versions.

use crate::s3::checksum::Algorithm;
use crate::s3::error::{Code, S3Result};
use crate::s3::range::number;
use crate::s3::xml::{Element, Malformed};

/// Keys of one DeleteObjects.
const DELETES_MAX: usize = 1000;
/// Parts of one CompleteMultipartUpload.
const PARTS_MAX: usize = 10_000;

impl From<Malformed> for crate::s3::error::S3Error {
    fn from(_: Malformed) -> Self {
        Code::MalformedXml.into()
    }
}

/// The region that a bucket is to be in; `None`: it does not say.
pub(crate) fn location_constraint(document: &[u8]) -> S3Result<Option<String>> {
    if document.trim_ascii().is_empty() {
        return Ok(None);
    }
    let root = Element::parse_root(document, "CreateBucketConfiguration")?;
    let region = root.text_of("LocationConstraint")?.map(str::trim);
    Ok(region.filter(|region| !region.is_empty()).map(str::to_owned))
}

/// What a bucket is to do with versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum VersioningStatus {
    Enabled,
    Suspended,
}

/// Errors: `MalformedXML` for another status, `NotImplemented` for deletes with a second factor.
pub(crate) fn versioning(document: &[u8]) -> S3Result<VersioningStatus> {
    let root = Element::parse_root(document, "VersioningConfiguration")?;
    if matches!(root.text_of("MfaDelete")?, Some(value) if value.trim() != "Disabled") {
        return Err(Code::NotImplemented.into());
    }
    match root.text_of("Status")?.map(str::trim) {
        Some("Enabled") => Ok(VersioningStatus::Enabled),
        Some("Suspended") => Ok(VersioningStatus::Suspended),
        Some(_) => Err(Code::MalformedXml.into()),
        None => Err(Code::IllegalVersioningConfiguration.into()),
    }
}

/// What is to be deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Deletes {
    /// Only failures are answered.
    pub(crate) quiet: bool,
    pub(crate) entries: Vec<DeleteEntry>,
}

/// One key, or one version of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DeleteEntry {
    pub(crate) key: String,
    pub(crate) version_id: Option<String>,
    /// ETag that the version must have, as sent.
    pub(crate) etag: Option<String>,
}

/// Errors: `MalformedXML`, also for no entry and for more than 1 000.
pub(crate) fn deletes(document: &[u8]) -> S3Result<Deletes> {
    let root = Element::parse_root(document, "Delete")?;
    let mut entries = Vec::new();
    for object in root.all("Object") {
        let filled = |text: Option<&str>| text.filter(|text| !text.is_empty()).map(str::to_owned);
        entries.push(DeleteEntry {
            key: object.text_of("Key")?.ok_or(Malformed)?.to_owned(),
            version_id: filled(object.text_of("VersionId")?),
            etag: filled(object.text_of("ETag")?),
        });
    }
    if entries.is_empty() || entries.len() > DELETES_MAX {
        return Err(Code::MalformedXml.into());
    }
    let quiet = root
        .text_of("Quiet")?
        .is_some_and(|text| text.trim().eq_ignore_ascii_case("true"));
    Ok(Deletes { quiet, entries })
}

/// A part as Complete names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CompletePart {
    pub(crate) number: u16,
    /// Without quotes.
    pub(crate) etag: String,
    /// Check sums that the part is said to have.
    pub(crate) checksums: Vec<(Algorithm, Vec<u8>)>,
}

/// The parts that Complete names, in its order, which is checked to ascend.
///
/// Errors: `MalformedXML`, also for no part; `InvalidPartOrder`; `InvalidPart` for a number that no part has.
pub(crate) fn complete(document: &[u8]) -> S3Result<Vec<CompletePart>> {
    let root = Element::parse_root(document, "CompleteMultipartUpload")?;
    let mut parts: Vec<CompletePart> = Vec::new();
    for part in root.all("Part") {
        let text = part.text_of("PartNumber")?.ok_or(Malformed)?.trim();
        let number = number(text).ok_or(Malformed)?;
        let etag = part
            .text_of("ETag")?
            .ok_or(Malformed)?
            .trim()
            .trim_matches('"')
            .to_owned();
        let mut checksums = Vec::new();
        for algorithm in Algorithm::ALL {
            if let Some(value) = part.text_of(algorithm.element())? {
                checksums.push((algorithm, algorithm.parse_value(value)?));
            }
        }
        let number = match u16::try_from(number) {
            Ok(number @ 1..=10_000) => number,
            _ => return Err(Code::InvalidPart.with("PartNumber", text)),
        };
        if parts.last().is_some_and(|before| before.number >= number) {
            return Err(Code::InvalidPartOrder.into());
        }
        parts.push(CompletePart {
            number,
            etag,
            checksums,
        });
    }
    if parts.is_empty() || parts.len() > PARTS_MAX {
        return Err(Code::MalformedXml.into());
    }
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code<T: std::fmt::Debug>(result: S3Result<T>) -> Code {
        result.unwrap_err().code
    }

    #[test]
    fn a_bucket_says_its_region_or_nothing() {
        let document = b"<CreateBucketConfiguration xmlns='x'><LocationConstraint>eu-west-1</LocationConstraint></CreateBucketConfiguration>";
        assert_eq!(location_constraint(document).unwrap().as_deref(), Some("eu-west-1"));
        for document in [&b""[..], b" \n", b"<CreateBucketConfiguration/>"] {
            assert_eq!(location_constraint(document), Ok(None));
        }
        assert_eq!(code(location_constraint(b"<X/>")), Code::MalformedXml);
    }

    #[test]
    fn versions_are_kept_or_no_longer() {
        let of = |status: &str| {
            versioning(format!("<VersioningConfiguration>{status}</VersioningConfiguration>").as_bytes())
        };
        assert_eq!(of("<Status>Enabled</Status>"), Ok(VersioningStatus::Enabled));
        assert_eq!(
            of("<Status>Suspended</Status><MfaDelete>Disabled</MfaDelete>"),
            Ok(VersioningStatus::Suspended)
        );
        assert_eq!(code(of("<Status>enabled</Status>")), Code::MalformedXml);
        assert_eq!(code(of("<Status></Status>")), Code::MalformedXml);
        assert_eq!(code(of("")), Code::IllegalVersioningConfiguration);
        assert_eq!(
            code(of("<Status>Enabled</Status><MfaDelete>Enabled</MfaDelete>")),
            Code::NotImplemented
        );
    }

    #[test]
    fn deletes_name_1_to_1000_keys() {
        let entry = "<Object><Key>a &amp; b</Key><VersionId>v</VersionId><ETag>\"e\"</ETag></Object>";
        let of =
            |count: usize| deletes(format!("<Delete><Quiet>true</Quiet>{}</Delete>", entry.repeat(count)).as_bytes());
        let found = of(1).unwrap();
        assert!(found.quiet);
        assert_eq!(
            found.entries,
            [DeleteEntry {
                key: "a & b".to_owned(),
                version_id: Some("v".to_owned()),
                etag: Some("\"e\"".to_owned()),
            }]
        );
        assert_eq!(of(1000).unwrap().entries.len(), 1000);
        assert_eq!(code(of(0)), Code::MalformedXml);
        assert_eq!(code(of(1001)), Code::MalformedXml);
        assert_eq!(code(deletes(b"<Delete><Object/></Delete>")), Code::MalformedXml);
    }

    #[test]
    fn complete_names_parts_in_ascending_order() {
        let part = |number: &str| {
            format!(
                "<Part><PartNumber>{number}</PartNumber><ETag>&quot;e&quot;</ETag><ChecksumCRC32>DUoRhQ==</ChecksumCRC32></Part>"
            )
        };
        let of = |numbers: &[&str]| {
            let parts: String = numbers.iter().map(|number| part(number)).collect();
            complete(format!("<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>").as_bytes())
        };
        let parts = of(&["1", "3", "10000"]).unwrap();
        assert_eq!(parts.iter().map(|part| part.number).collect::<Vec<_>>(), [1, 3, 10_000]);
        assert_eq!(parts[0].etag, "e");
        assert_eq!(parts[0].checksums, [(Algorithm::Crc32, vec![0x0d, 0x4a, 0x11, 0x85])]);
        assert_eq!(code(of(&[])), Code::MalformedXml);
        assert_eq!(code(of(&["x"])), Code::MalformedXml);
        assert_eq!(code(of(&["2", "1"])), Code::InvalidPartOrder);
        assert_eq!(code(of(&["1", "1"])), Code::InvalidPartOrder);
        assert_eq!(code(of(&["0"])), Code::InvalidPart);
        assert_eq!(code(of(&["10001"])), Code::InvalidPart);
    }
}
