//! The buckets of a tenant. Their names are one for the whole server.
//!
//! Deleting one goes in two steps: its row says so first, which no write into it passes; then it is looked whether it is empty,
//! and the row goes, or is as before. Whoever wants to write meanwhile does the second step himself, so that nothing waits for one
//! who has died.

use super::bucket::{Bucket, BucketRecord, BucketSettings, BucketState, Versioning};
use super::name::{BucketName, Owner};
use super::whole_digest::say_shown;
use super::{Names, TRIES_MAX, rows};
use crate::kv::{Batch, Check, Commit, Order, Version, ViewExt as _};
use crate::{Error, Key, KeyRange, KeyReader, Result, Table, Tenant};

/// The buckets of a tenant.
#[derive(Clone, Copy, Debug)]
pub struct Buckets<'a> {
    pub(super) names: &'a Names,
    pub(super) tenant: &'a Tenant,
}

/// A bucket to be made.
#[derive(Clone, Debug)]
pub struct NewBucket {
    /// Whose it is.
    pub owner: Owner,
    /// Its region, as a label.
    pub region: String,
    /// Whether versions are kept from the start.
    pub versioning: Versioning,
    /// All else.
    pub settings: BucketSettings,
}

impl NewBucket {
    /// One with all settings as they are by default.
    pub fn of(owner: Owner) -> Self {
        Self {
            owner,
            region: String::new(),
            versioning: Versioning::default(),
            settings: BucketSettings::default(),
        }
    }
}

/// Which buckets are listed.
#[derive(Clone, Debug, Default)]
pub struct ListBuckets<'a> {
    /// How their names begin.
    pub prefix: &'a str,
    /// Whose they are; `None`: anybody's.
    pub owner: Option<&'a Owner>,
    /// Behind this name.
    pub after: Option<&'a BucketName>,
    /// How many, at most.
    pub limit: usize,
}

/// Buckets by name.
#[derive(Clone, Debug, Default)]
pub struct BucketPage {
    /// The buckets.
    pub buckets: Vec<Bucket>,
    /// Go on behind this one; `None`: these were the last.
    pub next: Option<BucketName>,
}

impl Names {
    /// The tenant of a bucket; `None`: there is none of this name.
    pub fn tenant_of_bucket(&self, name: &BucketName) -> Result<Option<Tenant>> {
        let row = self.kv.get(rows::bucket_name(name))?;
        row.map(|row| tenant_in(&row.value)).transpose()
    }
}

pub(super) fn tenant_in(value: &[u8]) -> Result<Tenant> {
    let name = std::str::from_utf8(value).map_err(|_| malformed("its tenant is no text"))?;
    Tenant::new(name)
}

impl Buckets<'_> {
    /// Makes a bucket.
    ///
    /// Errors: [`Error::BucketExists`], [`Error::BucketTaken`].
    pub fn create(&self, name: &BucketName, new: NewBucket) -> Result<Bucket> {
        let Self { names, tenant } = *self;
        for _ in 0..TRIES_MAX {
            if let Some(row) = names.kv.get(rows::bucket_name(name))? {
                if tenant_in(&row.value)? != *tenant {
                    return Err(Error::BucketTaken { name: name.to_string() });
                }
                match self.find(name)? {
                    Some(bucket) if bucket.state == BucketState::Deleting => {
                        self.settle(bucket)?;
                        continue;
                    }
                    Some(_) => return Err(Error::BucketExists { name: name.to_string() }),
                    // It went between the two reads.
                    None => continue,
                }
            }
            let mut bucket = Bucket {
                tenant: tenant.clone(),
                name: name.clone(),
                id: u64::from_be_bytes(names.chance()?).max(1),
                state: BucketState::Live,
                row: Version::default(),
                record: BucketRecord {
                    owner: new.owner.clone(),
                    created_ms: names.now_ms(),
                    region: new.region.clone(),
                    versioning: new.versioning,
                    settings: new.settings.clone(),
                },
            };
            let mut batch = Batch::new();
            batch
                .check(rows::bucket_name(name), Check::Absent)
                .put(rows::bucket_name(name), tenant.as_str().as_bytes().to_vec());
            batch
                .check(rows::bucket(tenant, name), Check::Absent)
                .put(rows::bucket(tenant, name), bucket.encode());
            say_shown(&mut batch, &bucket);
            if let Commit::Done(row) = names.kv.commit(batch)? {
                bucket.row = row;
                return Ok(bucket);
            }
        }
        Err(Error::Contended { what: "buckets" })
    }

    /// A bucket.
    ///
    /// Errors: [`Error::NoBucket`].
    pub fn get(&self, name: &BucketName) -> Result<Bucket> {
        self.find(name)?
            .ok_or_else(|| Error::NoBucket { name: name.to_string() })
    }

    fn find(&self, name: &BucketName) -> Result<Option<Bucket>> {
        let row = self.names.kv.get(rows::bucket(self.tenant, name))?;
        row.map(|row| Bucket::decode(self.tenant, name.clone(), &row.value, row.version))
            .transpose()
    }

    /// A bucket that may be written into: [`Buckets::get`], after what is to be settled of it has been.
    pub(super) fn writable(&self, name: &BucketName) -> Result<Bucket> {
        for _ in 0..TRIES_MAX {
            let bucket = self.get(name)?;
            if bucket.state == BucketState::Live {
                return Ok(bucket);
            }
            self.settle(bucket)?;
        }
        Err(Error::Contended { what: "buckets" })
    }

    /// Buckets by name.
    pub fn list(&self, list: &ListBuckets<'_>) -> Result<BucketPage> {
        let table = Key::of(self.tenant, Table::Buckets);
        let mut range = table.clone().text_start(list.prefix.as_bytes()).range();
        if let Some(after) = list.after {
            range = range.after(rows::bucket(self.tenant, after).as_bytes());
        }
        let mut page = BucketPage::default();
        let mut rest = Some(range);
        while let Some(range) = rest {
            let scanned = self
                .names
                .kv
                .scan(&range, Order::Forward, list.limit.saturating_add(1))?;
            for (key, row) in scanned.rows {
                let mut reader = KeyReader::new(&key[table.as_bytes().len()..]);
                let name = String::from_utf8(reader.bytes()?).map_err(|_| malformed("its name is no text"))?;
                let bucket = Bucket::decode(self.tenant, BucketName::new(&name)?, &row.value, row.version)?;
                if list.owner.is_some_and(|owner| *owner != bucket.record.owner) {
                    continue;
                }
                if page.buckets.len() >= list.limit {
                    page.next = page.buckets.last().map(|last| last.name.clone());
                    return Ok(page);
                }
                page.buckets.push(bucket);
            }
            rest = scanned.rest;
        }
        Ok(page)
    }

    /// Changes what a bucket's row says. Called again with the row as it is then, when others have changed it meanwhile.
    ///
    /// Errors: [`Error::NoBucket`]; those of `change`.
    pub fn update(&self, name: &BucketName, mut change: impl FnMut(&mut BucketRecord) -> Result<()>) -> Result<Bucket> {
        for _ in 0..TRIES_MAX {
            let mut bucket = self.writable(name)?;
            change(&mut bucket.record)?;
            if let Some(row) = self.write(&bucket)? {
                bucket.row = row;
                return Ok(bucket);
            }
        }
        Err(Error::Contended { what: "buckets" })
    }

    /// Writes a bucket's row if it is still as it was read.
    fn write(&self, bucket: &Bucket) -> Result<Option<Version>> {
        let key = rows::bucket(self.tenant, &bucket.name);
        let mut batch = Batch::new();
        batch.check(&key, Check::Version(bucket.row)).put(key, bucket.encode());
        say_shown(&mut batch, bucket);
        Ok(match self.names.kv.commit(batch)? {
            Commit::Done(row) => Some(row),
            Commit::Conflict(_) => None,
        })
    }

    /// Deletes a bucket without versions or delete markers. Its uploads are dropped.
    ///
    /// Errors: [`Error::NoBucket`], [`Error::BucketNotEmpty`].
    pub fn delete(&self, name: &BucketName) -> Result<()> {
        for _ in 0..TRIES_MAX {
            let mut bucket = self.get(name)?;
            if bucket.state == BucketState::Live {
                // Not fenced off when it is plain to see.
                if !self.is_empty(&bucket)? {
                    return Err(Error::BucketNotEmpty { name: name.to_string() });
                }
                bucket.state = BucketState::Deleting;
                let Some(row) = self.write(&bucket)? else {
                    continue;
                };
                bucket.row = row;
            }
            match self.settle(bucket)? {
                Settlement::Deleted => return Ok(()),
                Settlement::Kept => return Err(Error::BucketNotEmpty { name: name.to_string() }),
                Settlement::ByOthers => {}
            }
        }
        Err(Error::Contended { what: "buckets" })
    }

    /// Ends a deletion that somebody has begun.
    fn settle(&self, mut bucket: Bucket) -> Result<Settlement> {
        if !self.is_empty(&bucket)? {
            bucket.state = BucketState::Live;
            return Ok(match self.write(&bucket)? {
                Some(_) => Settlement::Kept,
                None => Settlement::ByOthers,
            });
        }
        let key = rows::bucket(self.tenant, &bucket.name);
        let mut batch = Batch::new();
        batch.check(&key, Check::Version(bucket.row)).delete(key);
        batch
            .delete(rows::bucket_name(&bucket.name))
            .delete(rows::shown(&bucket.name));
        batch.put(rows::bucket_gone(self.tenant, bucket.id), Vec::new());
        Ok(match self.names.kv.commit(batch)? {
            Commit::Done(_) => Settlement::Deleted,
            Commit::Conflict(_) => Settlement::ByOthers,
        })
    }

    fn is_empty(&self, bucket: &Bucket) -> Result<bool> {
        for table in [Table::Objects, Table::Markers, Table::Versions] {
            let range: KeyRange = rows::in_bucket(self.tenant, table, bucket.id).range();
            if !self.names.kv.scan(&range, Order::Forward, 1)?.rows.is_empty() {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// How a deletion ended.
enum Settlement {
    Deleted,
    /// There was something in it.
    Kept,
    /// Somebody else ended it.
    ByOthers,
}

fn malformed(reason: &'static str) -> Error {
    Error::Malformed {
        what: "row of a bucket",
        reason,
    }
}
