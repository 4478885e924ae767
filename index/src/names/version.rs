//! A version of an object: what its row holds. A row of the newest version and of an older one look the same.

use cairn_formats::DomainId;

use super::content::{Chunking, Content, NewContent, within};
use super::etag::{Checksum, Etag};
use super::fields::{Fields, malformed, read};
use super::ids::{VersionId, VersionOrder};
use super::name::Owner;
use crate::{Error, Result};

/// Bytes of all names and values of the metadata of users, at most.
pub const METADATA_LEN_MAX: usize = 2 << 10;

/// Bytes of the headers that are kept, at most.
pub const HEADERS_LEN_MAX: usize = 16 << 10;

/// Tags of an object, at most.
pub const TAGS_MAX: usize = 10;

/// Bytes of all tags, at most: characters have up to four.
const TAGS_LEN_MAX: usize = TAGS_MAX * (128 + 256) * 4;

/// Parts that a row lists itself; more are kept in pages.
pub const ROW_PARTS_MAX: usize = 32;

/// Parts in a page.
pub const PART_PAGE_LEN: usize = 512;

/// Headers that are kept with an object and given back as they came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers {
    /// `Content-Type`.
    pub content_type: Option<String>,
    /// `Content-Encoding`.
    pub content_encoding: Option<String>,
    /// `Content-Language`.
    pub content_language: Option<String>,
    /// `Content-Disposition`.
    pub content_disposition: Option<String>,
    /// `Cache-Control`.
    pub cache_control: Option<String>,
    /// `Expires`, as it was sent.
    pub expires: Option<String>,
    /// `x-amz-website-redirect-location`.
    pub website_redirect: Option<String>,
}

impl Headers {
    fn fields(&self) -> [Option<&str>; 7] {
        [
            &self.content_type,
            &self.content_encoding,
            &self.content_language,
            &self.content_disposition,
            &self.cache_control,
            &self.expires,
            &self.website_redirect,
        ]
        .map(Option::as_deref)
    }

    fn field_mut(&mut self, n: u8) -> Option<&mut Option<String>> {
        [
            &mut self.content_type,
            &mut self.content_encoding,
            &mut self.content_language,
            &mut self.content_disposition,
            &mut self.cache_control,
            &mut self.expires,
            &mut self.website_redirect,
        ]
        .into_iter()
        .nth(usize::from(n))
    }

    fn byte_len(&self) -> usize {
        self.fields().into_iter().flatten().map(str::len).sum()
    }
}

/// What the storage class says; nothing depends on it. The numbers are on disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum StorageClass {
    /// `STANDARD`.
    #[default]
    Standard = 0,
    /// `REDUCED_REDUNDANCY`.
    ReducedRedundancy = 1,
}

/// A part that an object was made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartRecord {
    /// Its number.
    pub number: u16,
    /// Bytes of it.
    pub size: u64,
    /// MD5 of it.
    pub md5: [u8; 16],
    /// Its check sum, if the upload has them.
    pub checksum: Option<Checksum>,
}

/// Where the parts of an object are listed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Parts {
    /// It came in one piece.
    #[default]
    None,
    /// In the row, up to [`ROW_PARTS_MAX`].
    Listed(Vec<PartRecord>),
    /// In pages of [`PART_PAGE_LEN`], as [`super::Objects::parts`] reads them.
    Paged {
        /// Names the pages.
        id: [u8; 16],
        /// How many parts.
        count: u32,
    },
}

impl Parts {
    /// How many.
    pub fn count(&self) -> u32 {
        match self {
            Self::None => 0,
            Self::Listed(parts) => u32::try_from(parts.len()).unwrap_or(u32::MAX),
            Self::Paged { count, .. } => *count,
        }
    }
}

/// An object as it was put.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectRecord {
    /// Bytes that a reader gets.
    pub size: u64,
    /// Its entity tag.
    pub etag: Etag,
    /// Headers kept with it.
    pub headers: Headers,
    /// Metadata of users: names in lower case, without `x-amz-meta-`, each once.
    pub metadata: Vec<(String, String)>,
    /// Tags, each key once.
    pub tags: Vec<(String, String)>,
    /// Check sums that came with it or were worked out.
    pub checksums: Vec<Checksum>,
    /// Its parts.
    pub parts: Parts,
    /// Its storage class.
    pub storage_class: StorageClass,
    /// What it is made of.
    pub content: Content,
    /// How that was cut.
    pub chunking: Chunking,
    /// SHA-256 of the whole, if it is known.
    pub sha256: Option<[u8; 32]>,
    /// BLAKE3 of the whole, if it is known.
    pub blake3: Option<[u8; 32]>,
    /// Reserved: bytes of the sealed form of private content.
    pub sealed_len: Option<u64>,
    /// Reserved: the schema of structured content.
    pub schema: Option<u32>,
}

impl ObjectRecord {
    /// One of this content and tag, without all that need not be.
    pub fn new(content: Content, etag: Etag) -> Self {
        Self {
            size: content.byte_len(),
            etag,
            headers: Headers::default(),
            metadata: Vec::new(),
            tags: Vec::new(),
            checksums: Vec::new(),
            parts: Parts::None,
            storage_class: StorageClass::Standard,
            content,
            chunking: Chunking::default(),
            sha256: None,
            blake3: None,
            sealed_len: None,
            schema: None,
        }
    }

    /// Holds it to the limits.
    ///
    /// Errors: [`Error::TooLarge`], [`Error::Malformed`].
    pub(super) fn validate(&self) -> Result<()> {
        validate_words(&self.headers, &self.metadata, &self.tags)?;
        if let Parts::Listed(parts) = &self.parts {
            within("list of parts", parts.len(), ROW_PARTS_MAX)?;
        }
        Ok(())
    }

    fn encode_into(&self, fields: &mut Fields) {
        // First: the collector reads no further.
        fields.bytes(CONTENT, &self.content.encode());
        fields.number(SIZE, self.size).text(ETAG, self.etag.as_str());
        encode_words(fields, &self.headers, &self.metadata, &self.tags);
        for checksum in &self.checksums {
            fields.bytes(CHECKSUM, &checksum.encode());
        }
        match &self.parts {
            Parts::None => {}
            Parts::Listed(parts) => parts.iter().for_each(|part| _ = fields.bytes(PART, &encode_part(part))),
            Parts::Paged { id, count } => {
                _ = fields.bytes(PARTS_ID, id).number(PARTS_COUNT, u64::from(*count));
            }
        }
        if self.storage_class != StorageClass::Standard {
            fields.number(STORAGE_CLASS, self.storage_class as u64);
        }
        fields.bytes(CHUNKING, &self.chunking.encode());
        for (tag, digest) in [(SHA256, self.sha256), (BLAKE3, self.blake3)] {
            digest.into_iter().for_each(|digest| _ = fields.bytes(tag, &digest));
        }
        fields.optional_number(SEALED_LEN, self.sealed_len);
        fields.optional_number(SCHEMA, self.schema.map(u64::from));
    }
}

/// Holds what users say of an object to the limits.
pub(super) fn validate_words(
    headers: &Headers,
    metadata: &[(String, String)],
    tags: &[(String, String)],
) -> Result<()> {
    let len = |pairs: &[(String, String)]| pairs.iter().map(|(name, value)| name.len() + value.len()).sum();
    within("headers of an object", headers.byte_len(), HEADERS_LEN_MAX)?;
    within("metadata of an object", len(metadata), METADATA_LEN_MAX)?;
    within("tags of an object", len(tags), TAGS_LEN_MAX)?;
    for pairs in [metadata, tags] {
        let mut names: Vec<&str> = pairs.iter().map(|(name, _)| name.as_str()).collect();
        names.sort_unstable();
        if names.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(malformed(WHAT, "a name of its metadata or tags is there twice"));
        }
    }
    if tags.len() > TAGS_MAX {
        return Err(Error::TooLarge {
            what: "list of tags",
            len: tags.len(),
            max: TAGS_MAX,
        });
    }
    Ok(())
}

pub(super) fn encode_words(
    fields: &mut Fields,
    headers: &Headers,
    metadata: &[(String, String)],
    tags: &[(String, String)],
) {
    for (tag, header) in (HEADERS..).zip(headers.fields()) {
        fields.optional_text(tag, header);
    }
    for (name, value) in metadata {
        fields.pair(METADATA, name, value);
    }
    for (name, value) in tags {
        fields.pair(TAG, name, value);
    }
}

/// Takes a field that [`encode_words`] wrote; `false`: it is another one.
pub(super) fn decode_word(
    field: &super::fields::Field<'_>,
    headers: &mut Headers,
    metadata: &mut Vec<(String, String)>,
    tags: &mut Vec<(String, String)>,
) -> Result<bool> {
    match field.tag {
        METADATA => metadata.push(field.pair()?),
        TAG => tags.push(field.pair()?),
        tag => match tag.checked_sub(HEADERS).and_then(|n| headers.field_mut(n)) {
            Some(header) => *header = Some(field.text()?),
            None => return Ok(false),
        },
    }
    Ok(true)
}

/// What a version is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VersionKind {
    /// An object.
    Object(Box<ObjectRecord>),
    /// That the key was deleted.
    DeleteMarker,
}

/// A version of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectVersion {
    /// Its id.
    pub id: VersionId,
    /// Its place among the versions of its key, and when it was made.
    pub order: VersionOrder,
    /// Whose it is.
    pub owner: Owner,
    /// What it is.
    pub kind: VersionKind,
}

impl ObjectVersion {
    /// The object; `None`: a delete marker.
    pub fn object(&self) -> Option<&ObjectRecord> {
        match &self.kind {
            VersionKind::Object(record) => Some(record),
            VersionKind::DeleteMarker => None,
        }
    }

    /// Of what its writer said of the bytes nothing is known any more, but for this type.
    pub fn keep_type_alone(&mut self, content_type: &str) {
        if let Some(record) = self.object_mut() {
            record.headers = Headers {
                content_type: Some(content_type.to_owned()),
                ..Headers::default()
            };
        }
    }

    pub(super) fn object_mut(&mut self) -> Option<&mut ObjectRecord> {
        match &mut self.kind {
            VersionKind::Object(record) => Some(record),
            VersionKind::DeleteMarker => None,
        }
    }

    /// Milliseconds since 1970 UTC; never less than those of an older version of the key.
    pub fn created_ms(&self) -> u64 {
        self.order.created_ms()
    }

    /// Bytes that a reader gets.
    pub fn size(&self) -> u64 {
        self.object().map_or(0, |object| object.size)
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut fields = Fields::default();
        if let Some(object) = self.object() {
            object.encode_into(&mut fields);
        }
        fields.bytes(ID, self.id.encode()).number(ORDER, self.order.0);
        fields.text(OWNER, self.owner.as_str());
        fields.into_value()
    }

    pub(super) fn decode(value: &[u8]) -> Result<Self> {
        let mut version = Partial::default();
        for field in read(value, WHAT)? {
            let field = field?;
            match field.tag {
                CONTENT => version.content = Some(Content::decode(&field)?),
                SIZE => version.size = field.number()?,
                ETAG => version.etag = Some(Etag::opaque(field.str()?)?),
                CHECKSUM => {
                    let checksum = Checksum::decode(field.bytes);
                    version
                        .checksums
                        .push(checksum.ok_or_else(|| field.malformed("a check sum has another length"))?);
                }
                PART => match &mut version.parts {
                    Parts::Listed(parts) => parts.push(decode_part(field.bytes)?),
                    parts => *parts = Parts::Listed(vec![decode_part(field.bytes)?]),
                },
                PARTS_ID => {
                    version.parts = Parts::Paged {
                        id: field.fixed()?,
                        count: 0,
                    }
                }
                PARTS_COUNT => match &mut version.parts {
                    Parts::Paged { count, .. } => *count = field.small()?,
                    _ => return Err(field.malformed("its parts have no pages")),
                },
                STORAGE_CLASS if field.number()? == 1 => version.storage_class = StorageClass::ReducedRedundancy,
                CHUNKING => version.chunking = Chunking::decode(&field)?,
                SHA256 => version.sha256 = Some(field.fixed()?),
                BLAKE3 => version.blake3 = Some(field.fixed()?),
                SEALED_LEN => version.sealed_len = Some(field.number()?),
                SCHEMA => version.schema = Some(field.small()?),
                ID => version.id = VersionId::decode(field.bytes),
                ORDER => version.order = VersionOrder(field.number()?),
                OWNER => version.owner = Some(Owner::new(field.str()?)?),
                _ => {
                    let Partial {
                        headers,
                        metadata,
                        tags,
                        ..
                    } = &mut version;
                    if !decode_word(&field, headers, metadata, tags)? {
                        return Err(field.unknown());
                    }
                }
            }
        }
        version.whole()
    }
}

/// A version's row as far as it has been read.
#[derive(Default)]
struct Partial {
    content: Option<Content>,
    size: u64,
    etag: Option<Etag>,
    headers: Headers,
    metadata: Vec<(String, String)>,
    tags: Vec<(String, String)>,
    checksums: Vec<Checksum>,
    parts: Parts,
    storage_class: StorageClass,
    chunking: Chunking,
    sha256: Option<[u8; 32]>,
    blake3: Option<[u8; 32]>,
    sealed_len: Option<u64>,
    schema: Option<u32>,
    id: Option<VersionId>,
    order: VersionOrder,
    owner: Option<Owner>,
}

impl Partial {
    fn whole(self) -> Result<ObjectVersion> {
        let kind = match (self.content, self.etag) {
            (None, None) => VersionKind::DeleteMarker,
            (Some(content), Some(etag)) => VersionKind::Object(Box::new(ObjectRecord {
                size: self.size,
                etag,
                headers: self.headers,
                metadata: self.metadata,
                tags: self.tags,
                checksums: self.checksums,
                parts: self.parts,
                storage_class: self.storage_class,
                content,
                chunking: self.chunking,
                sha256: self.sha256,
                blake3: self.blake3,
                sealed_len: self.sealed_len,
                schema: self.schema,
            })),
            _ => return Err(malformed(WHAT, "half of it is missing")),
        };
        Ok(ObjectVersion {
            id: self.id.ok_or(malformed(WHAT, "it has no id"))?,
            order: self.order,
            owner: self.owner.ok_or(malformed(WHAT, "it has no owner"))?,
            kind,
        })
    }
}

/// The content of a version's row, without reading the rest; `None`: a delete marker.
pub(super) fn content_of(value: &[u8]) -> Result<Option<Content>> {
    match read(value, WHAT)?.next() {
        Some(field) => {
            let field = field?;
            (field.tag == CONTENT).then(|| Content::decode(&field)).transpose()
        }
        None => Ok(None),
    }
}

pub(super) fn encode_part(part: &PartRecord) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(64);
    bytes.extend_from_slice(&part.number.to_be_bytes());
    bytes.extend_from_slice(&part.size.to_be_bytes());
    bytes.extend_from_slice(&part.md5);
    bytes.extend(part.checksum.iter().flat_map(Checksum::encode));
    bytes
}

pub(super) fn decode_part(bytes: &[u8]) -> Result<PartRecord> {
    let short = || malformed("part of an object", "it ends early");
    let (number, rest) = bytes.split_first_chunk().ok_or_else(short)?;
    let (size, rest) = rest.split_first_chunk().ok_or_else(short)?;
    let (md5, rest) = rest.split_first_chunk().ok_or_else(short)?;
    let checksum = (!rest.is_empty()).then(|| Checksum::decode(rest).ok_or_else(short));
    Ok(PartRecord {
        number: u16::from_be_bytes(*number),
        size: u64::from_be_bytes(*size),
        md5: *md5,
        checksum: checksum.transpose()?,
    })
}

/// A version that may be committed: what it says, and what its content's commit depends on.
#[derive(Clone, Debug)]
pub struct NewVersion {
    /// Whose it is.
    pub owner: Owner,
    /// What it says. The content is that of `proof`, whatever stands here.
    pub record: ObjectRecord,
    /// Parts, when there are more than a row lists; they go into pages.
    pub many_parts: Vec<PartRecord>,
    pub(super) proof: NewContent,
}

impl NewVersion {
    /// One of this content and tag, without all that need not be.
    pub fn new(owner: Owner, content: NewContent, etag: Etag) -> Self {
        Self {
            owner,
            record: ObjectRecord::new(content.content.clone(), etag),
            many_parts: Vec::new(),
            proof: content,
        }
    }

    /// Says which parts it was made of, in order.
    pub fn set_parts(&mut self, parts: Vec<PartRecord>) {
        if parts.len() <= ROW_PARTS_MAX {
            self.record.parts = if parts.is_empty() {
                Parts::None
            } else {
                Parts::Listed(parts)
            };
            self.many_parts = Vec::new();
        } else {
            self.record.parts = Parts::None;
            self.many_parts = parts;
        }
    }

    /// The domain of its chunks.
    pub fn domain(&self) -> DomainId {
        self.proof.content.domain()
    }

    /// See [`NewContent::with_fence`].
    pub fn with_fence(mut self, fence: crate::Fence) -> Self {
        self.proof = self.proof.with_fence(fence);
        self
    }
}

const WHAT: &str = "version of an object";

const CONTENT: u8 = 1;
const SIZE: u8 = 2;
const ETAG: u8 = 3;
/// The headers' tags are this and those that follow.
const HEADERS: u8 = 4;
const METADATA: u8 = 20;
const TAG: u8 = 21;
const CHECKSUM: u8 = 22;
const PART: u8 = 23;
const PARTS_ID: u8 = 24;
const PARTS_COUNT: u8 = 25;
const STORAGE_CLASS: u8 = 26;
const CHUNKING: u8 = 27;
const SHA256: u8 = 28;
const BLAKE3: u8 = 29;
const SEALED_LEN: u8 = 30;
const SCHEMA: u8 = 31;
const ID: u8 = 32;
const ORDER: u8 = 33;
const OWNER: u8 = 34;
