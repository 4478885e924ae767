//! A bucket's row: whose it is, and its settings.

use cairn_formats::{ChunkSizes, Dialect, DomainId};
use cairn_store::SyncPolicy;

use super::content::{INLINE_LEN_MAX, decode_sizes, encode_sizes};
use super::delivery::Delivery;
use super::fields::{Field, Fields, malformed, read};
use super::name::{BucketName, Owner};
use super::whole_digest::DigestFunction;
use crate::kv::Version;
use crate::{Result, Tenant};

/// Names a bucket's rows, so that a later bucket of the same name finds none of them. Never used twice.
pub type BucketId = u64;

/// Whether old versions are kept. The numbers are on disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Versioning {
    /// Never, so far.
    #[default]
    Unset = 0,
    /// Each write makes a version.
    Enabled = 1,
    /// Those that were made are kept; writes replace the one named `null`.
    Suspended = 2,
}

/// When a write is acknowledged. The numbers are on disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Durability {
    /// After the sync.
    #[default]
    Sync = 0,
    /// Before it, which follows within a second: a power cut may take what was written in that, the newest first.
    Batch = 1,
    /// Before it, and it follows when something else is synced: a power cut may take what was written since, the newest first.
    Volatile = 2,
}

impl Durability {
    /// When commits of such a bucket are durable.
    pub(crate) fn sync(self) -> SyncPolicy {
        match self {
            Self::Sync => SyncPolicy::Sync,
            Self::Batch => SyncPolicy::Batch,
            Self::Volatile => SyncPolicy::None,
        }
    }
}

/// What the entity tag of an object is. The numbers are on disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum EtagKind {
    /// MD5, as clients of S3 expect.
    #[default]
    Md5 = 0,
    /// Anything, made without a digest of the whole.
    Opaque = 1,
}

/// Yes or no, as a setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Switch {
    /// No.
    Off = 0,
    /// Yes.
    On = 1,
}

/// What may be said of a bucket. A row keeps only what differs from the default.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BucketSettings {
    /// Sizes of chunks.
    pub chunk_sizes: ChunkSizes,
    /// The rule of cuts.
    pub dialect: Dialect,
    /// Level of compression when chunks arrive; `None`: the server's.
    pub level: Option<i32>,
    /// When a write is acknowledged.
    pub durability: Durability,
    /// What entity tags are.
    pub etag: EtagKind,
    /// The dedup domain of its chunks.
    pub domain: DomainId,
    /// Objects up to this many bytes are held in their row: at most [`INLINE_LEN_MAX`], and never more than the least chunk.
    pub inline_len: usize,
    /// Whether files inside archives are served.
    pub browse_archives: Switch,
    /// Whether objects are found by what is said of them (`search`). What was put while it was off is not found.
    pub search: Switch,
    /// Whether versions may be locked. It needs versioning, and stays.
    pub object_lock: Switch,
    /// Bytes of all versions, at most.
    pub quota_bytes: Option<u64>,
    /// Objects, at most.
    pub quota_objects: Option<u64>,
    /// What the CDN door does with it.
    pub delivery: Delivery,
    /// Digests of the whole that are worked out when an object comes in one piece, so that it is found by them; each once.
    pub digests: Vec<DigestFunction>,
}

impl Default for BucketSettings {
    fn default() -> Self {
        Self {
            chunk_sizes: ChunkSizes::DEFAULT,
            dialect: Dialect::default(),
            level: None,
            durability: Durability::default(),
            etag: EtagKind::default(),
            domain: DomainId::default(),
            inline_len: 2 << 10,
            browse_archives: Switch::Off,
            search: Switch::On,
            object_lock: Switch::Off,
            quota_bytes: None,
            quota_objects: None,
            delivery: Delivery::default(),
            digests: Vec::new(),
        }
    }
}

impl BucketSettings {
    /// Bytes of an object that its row holds: [`BucketSettings::inline_len`] within its bounds.
    pub fn inline_len_max(&self) -> usize {
        self.inline_len.min(INLINE_LEN_MAX).min(self.chunk_sizes.min())
    }

    fn encode_into(&self, fields: &mut Fields) {
        let default = Self::default();
        if self.chunk_sizes != default.chunk_sizes {
            fields.bytes(CHUNK_SIZES, &encode_sizes(&self.chunk_sizes));
        }
        let dialect = match self.dialect {
            Dialect::Casync => 0,
            Dialect::Desync => 1,
        };
        if let Some(level) = self.level {
            fields.bytes(LEVEL, &level.to_be_bytes());
        }
        let numbers = [
            (DIALECT, dialect, 0),
            (DURABILITY, self.durability as u64, 0),
            (ETAG_KIND, self.etag as u64, 0),
            (DOMAIN, u64::from(self.domain.0), u64::from(default.domain.0)),
            (INLINE_LEN, self.inline_len as u64, default.inline_len as u64),
            (BROWSE, self.browse_archives as u64, default.browse_archives as u64),
            (SEARCH, self.search as u64, default.search as u64),
            (OBJECT_LOCK, self.object_lock as u64, default.object_lock as u64),
        ];
        for (tag, number, default) in numbers {
            if number != default {
                fields.number(tag, number);
            }
        }
        fields.optional_number(QUOTA_BYTES, self.quota_bytes);
        fields.optional_number(QUOTA_OBJECTS, self.quota_objects);
        self.delivery.encode_into(fields);
        for function in &self.digests {
            fields.number(DIGEST, *function as u64);
        }
    }

    /// Takes a field of it; `false`: it is another one.
    fn decode(&mut self, field: &Field<'_>) -> Result<bool> {
        match field.tag {
            CHUNK_SIZES => self.chunk_sizes = decode_sizes(field.bytes)?,
            LEVEL => self.level = Some(i32::from_be_bytes(field.fixed()?)),
            DIALECT => self.dialect = [Dialect::Casync, Dialect::Desync][choice(field, 2)?],
            DURABILITY => {
                self.durability = [Durability::Sync, Durability::Batch, Durability::Volatile][choice(field, 3)?];
            }
            ETAG_KIND => self.etag = [EtagKind::Md5, EtagKind::Opaque][choice(field, 2)?],
            DOMAIN => self.domain = DomainId(field.small()?),
            INLINE_LEN => self.inline_len = field.small()?,
            BROWSE => self.browse_archives = switch(field)?,
            SEARCH => self.search = switch(field)?,
            OBJECT_LOCK => self.object_lock = switch(field)?,
            QUOTA_BYTES => self.quota_bytes = Some(field.number()?),
            QUOTA_OBJECTS => self.quota_objects = Some(field.number()?),
            DIGEST => {
                let number = field.number()?;
                let known = DigestFunction::ALL.into_iter().find(|known| *known as u64 == number);
                let later = || field.malformed("a setting in it is of a later release");
                self.digests.push(known.ok_or_else(later)?);
            }
            _ => return self.delivery.decode(field),
        }
        Ok(true)
    }
}

fn choice(field: &Field<'_>, choices: usize) -> Result<usize> {
    let choice: usize = field.small()?;
    if choice < choices {
        Ok(choice)
    } else {
        Err(field.malformed("a setting in it is of a later release"))
    }
}

fn switch(field: &Field<'_>) -> Result<Switch> {
    Ok([Switch::Off, Switch::On][choice(field, 2)?])
}

/// What a bucket's row holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BucketRecord {
    /// Whose it is.
    pub owner: Owner,
    /// When it was made, in milliseconds since 1970 UTC.
    pub created_ms: u64,
    /// Its region, as a label.
    pub region: String,
    /// Whether old versions are kept.
    pub versioning: Versioning,
    /// All else.
    pub settings: BucketSettings,
}

/// A bucket as it was read. Reads and writes of its objects begin with one; when its settings have changed meanwhile, writes take the
/// new ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bucket {
    pub(super) tenant: Tenant,
    pub(super) name: BucketName,
    pub(super) id: BucketId,
    pub(super) state: BucketState,
    pub(super) row: Version,
    /// What its row says.
    pub record: BucketRecord,
}

/// Whether somebody has begun to delete it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BucketState {
    Live,
    /// Nothing is written into it before it is known whether it was empty.
    Deleting,
}

impl Bucket {
    /// Whose rows it is in.
    pub fn tenant(&self) -> &Tenant {
        &self.tenant
    }

    /// Its name.
    pub fn name(&self) -> &BucketName {
        &self.name
    }

    /// Names its rows.
    pub fn id(&self) -> BucketId {
        self.id
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut fields = Fields::default();
        fields.number(ID, self.id);
        if self.state == BucketState::Deleting {
            fields.number(DELETING, 1);
        }
        let record = &self.record;
        fields
            .text(OWNER, record.owner.as_str())
            .number(CREATED, record.created_ms);
        fields.text(REGION, &record.region);
        fields.number(VERSIONING, record.versioning as u64);
        record.settings.encode_into(&mut fields);
        fields.into_value()
    }

    pub(super) fn decode(tenant: &Tenant, name: BucketName, value: &[u8], row: Version) -> Result<Self> {
        let mut id = None;
        let mut state = BucketState::Live;
        let mut owner = None;
        let (mut created_ms, mut region) = (0, String::new());
        let mut versioning = Versioning::default();
        let mut settings = BucketSettings::default();
        for field in read(value, WHAT)? {
            let field = field?;
            match field.tag {
                ID => id = Some(field.number()?),
                DELETING => state = BucketState::Deleting,
                OWNER => owner = Some(Owner::new(field.str()?)?),
                CREATED => created_ms = field.number()?,
                REGION => region = field.text()?,
                VERSIONING => {
                    let all = [Versioning::Unset, Versioning::Enabled, Versioning::Suspended];
                    versioning = all[choice(&field, 3)?];
                }
                _ => {
                    if !settings.decode(&field)? {
                        return Err(field.unknown());
                    }
                }
            }
        }
        Ok(Self {
            tenant: tenant.clone(),
            name,
            id: id.ok_or(malformed(WHAT, "it has no id"))?,
            state,
            row,
            record: BucketRecord {
                owner: owner.ok_or(malformed(WHAT, "it has no owner"))?,
                created_ms,
                region,
                versioning,
                settings,
            },
        })
    }
}

const WHAT: &str = "row of a bucket";

const ID: u8 = 1;
const DELETING: u8 = 2;
const OWNER: u8 = 3;
const CREATED: u8 = 4;
const REGION: u8 = 5;
const VERSIONING: u8 = 6;
const CHUNK_SIZES: u8 = 7;
const DIALECT: u8 = 8;
const LEVEL: u8 = 9;
const DURABILITY: u8 = 10;
const ETAG_KIND: u8 = 11;
const DOMAIN: u8 = 12;
const INLINE_LEN: u8 = 13;
const BROWSE: u8 = 14;
const SEARCH: u8 = 15;
const OBJECT_LOCK: u8 = 16;
const QUOTA_BYTES: u8 = 17;
const QUOTA_OBJECTS: u8 = 18;
// 19 to 23: `delivery.rs`.
const DIGEST: u8 = 24;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_is_read_as_it_was_written() {
        let settings = BucketSettings {
            chunk_sizes: ChunkSizes::new(1 << 10, 4 << 10, 16 << 10).unwrap(),
            dialect: Dialect::Desync,
            level: Some(-5),
            durability: Durability::Volatile,
            etag: EtagKind::Opaque,
            domain: DomainId(7),
            inline_len: 9000,
            browse_archives: Switch::On,
            search: Switch::Off,
            object_lock: Switch::On,
            quota_bytes: Some(0),
            quota_objects: Some(u64::MAX),
            delivery: Delivery {
                public_read: vec![String::new(), "a/".to_owned()],
                cors_origins: vec!["https://example.net".to_owned()],
                max_age: Some(0),
                zstd: true,
                precompressed: true,
            },
            digests: DigestFunction::ALL.to_vec(),
        };
        assert_eq!(settings.inline_len_max(), 1 << 10);
        for (settings, versioning, state) in [
            (settings, Versioning::Suspended, BucketState::Deleting),
            (BucketSettings::default(), Versioning::Unset, BucketState::Live),
        ] {
            let bucket = Bucket {
                tenant: Tenant::default(),
                name: BucketName::new("abc").unwrap(),
                id: 99,
                state,
                row: Version(3),
                record: BucketRecord {
                    owner: Owner::new("me").unwrap(),
                    created_ms: 12,
                    region: "here".to_owned(),
                    versioning,
                    settings,
                },
            };
            let name = bucket.name.clone();
            let read = Bucket::decode(&bucket.tenant, name, &bucket.encode(), Version(3)).unwrap();
            assert_eq!(read, bucket);
        }
    }
}
