//! Objects by a digest of all of their bytes.
//!
//! Each object that is read when no version is named has a row for each such digest that is known of it
//! ([`ObjectRecord::digests`]), written and taken away by the commit that makes it so (`edit.rs`). Buckets that show anything to
//! everybody have a row of the index itself besides, and so have objects that lack a digest which their bucket wants, until somebody has
//! worked it out. In a row's key the bucket follows the digest and the object's key the bucket, so
//! that who looks for what everybody reads looks behind the beginnings that buckets show and nowhere else: what others have, and
//! the asker may not read, costs no time that could be measured. Not here: who may read what (`gateway`).

use std::fmt;

use cairn_store::SyncPolicy;

use super::bucket::Bucket;
use super::name::{BucketName, ObjectKey};
use super::objects::Current;
use super::version::{ObjectRecord, ObjectVersion};
use super::{Names, rows};
use crate::kv::{Batch, Check, Commit, Kv, Order, Version, View, ViewExt as _};
use crate::liveness::for_each_tenant;
use crate::{Error, Key, KeyRange, KeyReader, Result, Table, Tenant};

/// Buckets that show something, read at once.
const SHOWN_AT_ONCE: usize = 100;

/// Rows looked at, or taken away, in one commit of a migration.
const FILLED_AT_ONCE: usize = 1000;

/// How a digest of an object is worked out. The numbers are on disk, and those of the Remote Execution API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum DigestFunction {
    /// SHA-256.
    Sha256 = 1,
    /// BLAKE3 of 32 bytes.
    Blake3 = 9,
}

impl DigestFunction {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Sha256, Self::Blake3];

    /// As addresses and settings write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Blake3 => "blake3",
        }
    }

    /// The one of this name.
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|function| function.name() == name)
    }
}

/// A digest of all bytes of an object. Shown as addresses have it: `sha256/` and 64 hexadecimal digits in lower case.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectDigest {
    /// How it was worked out.
    pub function: DigestFunction,
    /// The digest.
    pub bytes: [u8; 32],
}

impl ObjectDigest {
    /// Reads what is shown; `None`: it is something else, were it only in upper case.
    pub fn parse(text: &str) -> Option<Self> {
        let (function, digits) = text.split_once('/')?;
        let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if digits.len() != 64 || !digits.bytes().all(is_digit) {
            return None;
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(digits.as_bytes().chunks_exact(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
        }
        Some(Self {
            function: DigestFunction::of_name(function)?,
            bytes,
        })
    }
}

impl fmt::Display for ObjectDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/", self.function.name())?;
        self.bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for ObjectDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl ObjectRecord {
    /// The digests that are known of all of its bytes.
    pub fn digests(&self) -> impl Iterator<Item = ObjectDigest> {
        let known = [
            (DigestFunction::Sha256, self.sha256),
            (DigestFunction::Blake3, self.blake3),
        ];
        known
            .into_iter()
            .filter_map(|(function, bytes)| bytes.map(|bytes| ObjectDigest { function, bytes }))
    }
}

/// An object that was found by a digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DigestHolder {
    /// Its bucket.
    pub bucket: Bucket,
    /// Its key.
    pub key: ObjectKey,
    /// What it is.
    pub version: ObjectVersion,
}

/// An object that lacked a digest which its bucket wants, when its row was written.
#[derive(Clone, Debug)]
pub(crate) struct Undigested {
    tenant: Tenant,
    bucket: BucketName,
    pub(crate) key: ObjectKey,
    row: Version,
}

/// An object that lacks digests which its bucket wants.
#[derive(Clone, Debug)]
pub(crate) struct Lacking {
    pub(crate) bucket: Bucket,
    pub(crate) version: ObjectVersion,
    /// Not empty.
    pub(crate) functions: Vec<DigestFunction>,
}

impl Names {
    /// The object behind another of all that may lack a digest, and behind the last the first.
    pub(crate) fn next_undigested(&self, after: Option<&Undigested>) -> Result<Option<Undigested>> {
        let mut range = Key::of_index(Table::Undigested).range();
        if let Some(last) = after {
            let row = rows::undigested(&last.tenant, &last.bucket, &last.key);
            range = range.after(row.as_bytes());
        }
        let page = self.kv.scan(&range, Order::Forward, 1)?;
        if page.rows.is_empty() && after.is_some() {
            return self.next_undigested(None);
        }
        let Some((key, row)) = page.rows.into_iter().next() else {
            return Ok(None);
        };
        let (tenant, bucket, key) = rows::read_undigested(&key)?;
        let row = row.version;
        Ok(Some(Undigested {
            tenant,
            bucket,
            key,
            row,
        }))
    }

    /// What it lacks; `None`: nothing any more.
    pub(crate) fn lacking(&self, object: &Undigested) -> Result<Option<Lacking>> {
        let bucket = match self.buckets(&object.tenant).get(&object.bucket) {
            Err(Error::NoBucket { .. }) => return Ok(None),
            bucket => bucket?,
        };
        let Current::Object(version) = self.objects(&bucket).get(&object.key)? else {
            return Ok(None);
        };
        let functions = lacks(&bucket, &version);
        Ok((!functions.is_empty()).then_some(Lacking {
            bucket,
            version: *version,
            functions,
        }))
    }

    /// Takes its row away, unless it has been written again.
    pub(crate) fn forget_undigested(&self, object: &Undigested) -> Result<()> {
        let row = rows::undigested(&object.tenant, &object.bucket, &object.key);
        let mut batch = Batch::new();
        batch.check(&row, Check::Version(object.row)).delete(row);
        batch.relax(SyncPolicy::None);
        self.kv.commit(batch).map(drop)
    }

    /// An object of these bytes that its bucket shows to everybody, of any tenant: the first by bucket and key.
    ///
    /// One look-up for each beginning of keys that any bucket shows. Reads nothing of what is not shown.
    pub fn shown_by_digest(&self, digest: &ObjectDigest) -> Result<Option<DigestHolder>> {
        let snapshot = self.kv.snapshot()?;
        let view = snapshot.as_ref();
        let mut rest = Some(Key::of_index(Table::Shown).range());
        while let Some(range) = rest {
            let page = view.scan(&range, Order::Forward, SHOWN_AT_ONCE)?;
            let mut places = Vec::with_capacity(page.rows.len());
            for (key, row) in &page.rows {
                places.push((super::buckets::tenant_in(&row.value)?, rows::read_shown(key)?));
            }
            for bucket in buckets(view, &places)? {
                let start = rows::digest_in(&bucket.tenant, digest, &bucket.name);
                for prefix in &bucket.record.settings.delivery.public_read {
                    let range = start.clone().text_start(prefix.as_bytes()).range();
                    if let Some((_, key)) = first(view, &bucket.tenant, &range)? {
                        return holder(view, digest, bucket, key).map(Some);
                    }
                }
            }
            rest = page.rest;
        }
        Ok(None)
    }

    /// An object of these bytes in a tenant's buckets: the first by bucket and key.
    ///
    /// - `opens`: whether a bucket is for the asker.
    pub fn find_by_digest(
        &self,
        tenant: &Tenant,
        digest: &ObjectDigest,
        mut opens: impl FnMut(&Bucket) -> bool,
    ) -> Result<Option<DigestHolder>> {
        let snapshot = self.kv.snapshot()?;
        let view = snapshot.as_ref();
        let mut range = rows::digest(tenant, digest).range();
        while let Some((name, key)) = first(view, tenant, &range)? {
            let Some(bucket) = buckets(view, &[(tenant.clone(), name.clone())])?.pop() else {
                return Err(malformed("its bucket is not there"));
            };
            if opens(&bucket) {
                return holder(view, digest, bucket, key).map(Some);
            }
            // The asker may none of this bucket's.
            let of_bucket = rows::digest_in(tenant, digest, &name).range();
            range.start = of_bucket.end.ok_or(malformed("its bucket has no end"))?;
        }
        Ok(None)
    }
}

/// The first object in a range of rows.
fn first(view: &dyn View, tenant: &Tenant, range: &KeyRange) -> Result<Option<(BucketName, ObjectKey)>> {
    let page = view.scan(range, Order::Forward, 1)?;
    let found = page.rows.first().map(|(key, _)| rows::read_digest(tenant, key));
    Ok(found.transpose()?.map(|(_, bucket, key)| (bucket, key)))
}

/// Buckets by their places, those that are there.
fn buckets(view: &dyn View, places: &[(Tenant, BucketName)]) -> Result<Vec<Bucket>> {
    let keys: Vec<Key> = places.iter().map(|(tenant, name)| rows::bucket(tenant, name)).collect();
    let keys: Vec<&[u8]> = keys.iter().map(Key::as_bytes).collect();
    let decode = |((tenant, name), row): (&(Tenant, BucketName), Option<crate::Row>)| {
        row.map(|row| Bucket::decode(tenant, name.clone(), &row.value, row.version))
    };
    places.iter().zip(view.get_many(&keys)?).filter_map(decode).collect()
}

/// The object that a row says there is, of the same moment.
fn holder(view: &dyn View, digest: &ObjectDigest, bucket: Bucket, key: ObjectKey) -> Result<DigestHolder> {
    let place = rows::of_key(&bucket.tenant, Table::Objects, bucket.id, &key);
    let row = view.get(place)?.ok_or(malformed("its object is not there"))?;
    let version = ObjectVersion::decode(&row.value)?;
    let has = |object: &ObjectRecord| object.digests().any(|own| own == *digest);
    if !version.object().is_some_and(has) {
        return Err(malformed("its object has other bytes"));
    }
    Ok(DigestHolder { bucket, key, version })
}

/// The rows by which an object is found.
pub(super) fn digest_rows(bucket: &Bucket, key: &ObjectKey, version: &ObjectVersion) -> impl Iterator<Item = Key> {
    let digests: Vec<ObjectDigest> = version.object().into_iter().flat_map(ObjectRecord::digests).collect();
    let Bucket { tenant, name, .. } = bucket;
    let rows: Vec<Key> = digests
        .iter()
        .map(|digest| rows::digest_in(tenant, digest, name).bytes(key.as_str().as_bytes()))
        .collect();
    rows.into_iter()
}

/// The digests that a bucket wants of an object and does not have.
fn lacks(bucket: &Bucket, version: &ObjectVersion) -> Vec<DigestFunction> {
    let Some(object) = version.object() else {
        return Vec::new();
    };
    let wanted = bucket.record.settings.digests.iter().copied();
    wanted
        .filter(|function| !object.digests().any(|digest| digest.function == *function))
        .collect()
}

/// The row that says that an object lacks a digest, if it does.
pub(super) fn lack_row(bucket: &Bucket, key: &ObjectKey, version: &ObjectVersion) -> Option<Key> {
    (!lacks(bucket, version).is_empty()).then(|| rows::undigested(&bucket.tenant, &bucket.name, key))
}

/// Says in a commit that writes a bucket's row whether the bucket shows anything.
pub(super) fn say_shown(batch: &mut Batch, bucket: &Bucket) {
    let row = rows::shown(&bucket.name);
    if bucket.record.settings.delivery.public_read.is_empty() {
        batch.delete(row);
    } else {
        batch.put(row, bucket.tenant.as_str().as_bytes().to_vec());
    }
}

/// Whether a bucket's row says what older programs do not know.
pub(crate) fn any_wanted_digests(kv: &dyn Kv) -> Result<bool> {
    let mut any = false;
    for_each_tenant(kv, |tenant| {
        for_each_bucket(kv, tenant, |bucket| {
            any |= !bucket.record.settings.digests.is_empty();
            Ok(())
        })
    })?;
    Ok(any)
}

fn for_each_bucket(
    view: &(impl View + ?Sized),
    tenant: &Tenant,
    mut visit: impl FnMut(Bucket) -> Result<()>,
) -> Result<()> {
    let table = Key::of(tenant, Table::Buckets);
    view.for_each(table.range(), |key, row| {
        let name = KeyReader::new(key.get(table.as_bytes().len()..).unwrap_or_default()).bytes()?;
        let name = String::from_utf8(name).map_err(|_| malformed("the name of a bucket is no text"))?;
        visit(Bucket::decode(
            tenant,
            BucketName::new(&name)?,
            &row.value,
            row.version,
        )?)
    })
}

/// Writes the rows of this page for names that were written without them. Nobody else uses the rows meanwhile.
pub(crate) fn fill_digests(kv: &dyn Kv) -> Result<()> {
    // Those of a migration that was not finished, or of before one back.
    clear_digests(kv)?;
    for_each_tenant(kv, |tenant| {
        for_each_bucket(kv, tenant, |bucket| fill_bucket(kv, &bucket))
    })
}

fn fill_bucket(kv: &dyn Kv, bucket: &Bucket) -> Result<()> {
    let start = rows::in_bucket(&bucket.tenant, Table::Objects, bucket.id);
    let mut batch = Batch::new();
    say_shown(&mut batch, bucket);
    let mut rest = Some(start.range());
    while let Some(range) = rest {
        let page = kv.scan(&range, Order::Forward, FILLED_AT_ONCE)?;
        for (row_key, row) in &page.rows {
            let (key, _) = rows::read_of_key(row_key, &start, false)?;
            let version = ObjectVersion::decode(&row.value)?;
            digest_rows(bucket, &key, &version).for_each(|row| _ = batch.put(row, Vec::new()));
        }
        unconditional(kv, std::mem::take(&mut batch))?;
        rest = page.rest;
    }
    Ok(())
}

/// Takes all rows of this page away.
pub(crate) fn clear_digests(kv: &dyn Kv) -> Result<()> {
    clear(kv, &Key::of_index(Table::Shown).range())?;
    clear(kv, &Key::of_index(Table::Undigested).range())?;
    for_each_tenant(kv, |tenant| clear(kv, &Key::of(tenant, Table::Digests).range()))
}

fn clear(kv: &dyn Kv, range: &KeyRange) -> Result<()> {
    let mut rest = Some(range.clone());
    while let Some(range) = rest {
        let page = kv.scan(&range, Order::Forward, FILLED_AT_ONCE)?;
        let mut batch = Batch::new();
        page.rows.iter().for_each(|(key, _)| _ = batch.delete(key));
        unconditional(kv, batch)?;
        rest = page.rest;
    }
    Ok(())
}

/// Commits without checks, and without a sync: that of the schema's number comes behind it.
fn unconditional(kv: &dyn Kv, mut batch: Batch) -> Result<()> {
    if batch.is_empty() {
        return Ok(());
    }
    batch.relax(SyncPolicy::None);
    match kv.commit(batch)? {
        Commit::Done(_) => Ok(()),
        Commit::Conflict(_) => unreachable!("a batch without checks has no conflict"),
    }
}

/// Whether the rows of this page are just those that objects and buckets ask for; else what is wrong with them. Not for a bucket
/// whose setting `digests` has changed: objects of before wait or not, as it happens.
#[cfg(test)]
pub(crate) fn check_digests(view: &(impl View + ?Sized)) -> Result<std::result::Result<(), String>> {
    use std::collections::BTreeSet;

    let (mut wanted, mut found) = (BTreeSet::new(), BTreeSet::new());
    for table in [Table::Shown, Table::Undigested] {
        view.for_each(Key::of_index(table).range(), |key, _| {
            found.insert(key.to_vec());
            Ok::<_, Error>(())
        })?;
    }
    for_each_tenant(view, |tenant| {
        for_each_bucket(view, tenant, |bucket| {
            if !bucket.record.settings.delivery.public_read.is_empty() {
                wanted.insert(rows::shown(&bucket.name).into_bytes());
            }
            let start = rows::in_bucket(tenant, Table::Objects, bucket.id);
            view.for_each(start.range(), |row_key, row| {
                let (key, _) = rows::read_of_key(&row_key, &start, false)?;
                let version = ObjectVersion::decode(&row.value)?;
                wanted.extend(digest_rows(&bucket, &key, &version).map(Key::into_bytes));
                wanted.extend(lack_row(&bucket, &key, &version).map(Key::into_bytes));
                Ok::<_, Error>(())
            })
        })?;
        view.for_each(Key::of(tenant, Table::Digests).range(), |key, _| {
            found.insert(key.to_vec());
            Ok::<_, Error>(())
        })
    })?;
    let shown = |rows: Vec<&Vec<u8>>| rows.iter().map(|key| crate::key::show_key(key)).collect::<Vec<_>>();
    let (lost, stale) = (
        shown(wanted.difference(&found).collect()),
        shown(found.difference(&wanted).collect()),
    );
    Ok(match (lost.is_empty(), stale.is_empty()) {
        (true, true) => Ok(()),
        _ => Err(format!(
            "rows of digests that are lost: {lost:?}; that are stale: {stale:?}"
        )),
    })
}

fn malformed(reason: &'static str) -> Error {
    Error::Malformed {
        what: "row of a digest",
        reason,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use cairn_formats::{DigestAlgorithm, DomainId};

    use super::*;
    use crate::names::{Cause, Condition, Etag, NewBucket, NewContent, NewVersion, Owner, VersionId, Versioning};
    use crate::{Database, MemoryEngine};

    struct World {
        names: Names,
        tenant: Tenant,
    }

    const SHA256: ObjectDigest = ObjectDigest {
        function: DigestFunction::Sha256,
        bytes: [7; 32],
    };
    const BLAKE3: ObjectDigest = ObjectDigest {
        function: DigestFunction::Blake3,
        bytes: [7; 32],
    };

    impl World {
        fn new() -> Self {
            Self {
                names: Names::new(Arc::new(Database::new(Arc::new(MemoryEngine::new())))),
                tenant: Tenant::default(),
            }
        }

        fn of(&self, tenant: &str) -> Self {
            Self {
                names: self.names.clone(),
                tenant: Tenant::new(tenant).unwrap(),
            }
        }

        /// A bucket that shows these beginnings.
        fn bucket(&self, name: &str, owner: &str, shows: &[&str]) -> Bucket {
            let mut new = NewBucket::of(Owner::new(owner).unwrap());
            new.settings.delivery.public_read = shows.iter().map(|&text| text.to_owned()).collect();
            let name = BucketName::new(name).unwrap();
            self.names.buckets(&self.tenant).create(&name, new).unwrap()
        }

        fn change(&self, name: &str, mut change: impl FnMut(&mut crate::names::BucketRecord)) -> Bucket {
            let changed = self
                .names
                .buckets(&self.tenant)
                .update(&BucketName::new(name).unwrap(), |record| {
                    change(record);
                    Ok(())
                });
            changed.unwrap()
        }

        fn put(&self, bucket: &Bucket, key: &str, digests: &[ObjectDigest]) -> VersionId {
            let content = NewContent::inline(DomainId::default(), DigestAlgorithm::default().id(b"x"), b"x".to_vec());
            let etag = Etag::opaque("e").unwrap();
            let mut new = NewVersion::new(Owner::new("me").unwrap(), content.unwrap(), etag);
            for digest in digests {
                match digest.function {
                    DigestFunction::Sha256 => new.record.sha256 = Some(digest.bytes),
                    DigestFunction::Blake3 => new.record.blake3 = Some(digest.bytes),
                }
            }
            let objects = self.names.objects(bucket);
            let written = objects.put(&key_of(key), &new, &Condition::Always, &Cause::default());
            written.unwrap().version.id
        }

        fn delete(&self, bucket: &Bucket, key: &str, id: Option<VersionId>) {
            let (me, objects) = (Owner::new("me").unwrap(), self.names.objects(bucket));
            let deleted = objects.delete(&key_of(key), id, &me, &Condition::Always, &Cause::default());
            deleted.unwrap();
        }

        fn shown(&self, digest: &ObjectDigest) -> Option<String> {
            self.check();
            self.names.shown_by_digest(digest).unwrap().map(told)
        }

        /// - `owner`: whose buckets are for the asker.
        fn found(&self, digest: &ObjectDigest, owner: &str) -> Option<String> {
            self.check();
            let opens = |bucket: &Bucket| bucket.record.owner.as_str() == owner;
            let found = self.names.find_by_digest(&self.tenant, digest, opens);
            found.unwrap().map(told)
        }

        fn check(&self) {
            check_digests(self.names.kv().as_ref()).unwrap().unwrap();
        }
    }

    fn key_of(key: &str) -> ObjectKey {
        ObjectKey::new(key).unwrap()
    }

    fn told(found: DigestHolder) -> String {
        format!("{}/{}", found.bucket.name, found.key)
    }

    #[test]
    fn a_digest_is_read_as_it_is_shown_and_in_no_other_way() {
        let text = SHA256.to_string();
        assert_eq!(text, format!("sha256/{}", "07".repeat(32)));
        assert_eq!(ObjectDigest::parse(&text), Some(SHA256));
        assert_eq!(ObjectDigest::parse(&BLAKE3.to_string()), Some(BLAKE3));
        for other in [
            "",
            "sha256",
            "sha256/",
            &text[..text.len() - 1],
            &format!("{text}0"),
            &format!("{text}/"),
            &text.replace("sha256", "sha1"),
            &text.replace("sha256", "SHA256"),
            &format!("sha256/{}", "AB".repeat(32)),
            &format!("sha256/{}", "+1".repeat(32)),
        ] {
            assert_eq!(ObjectDigest::parse(other), None, "{other:?}");
        }
    }

    /// Goal: an object is found by its digests from its commit on, and no more from the one on that puts another in its place.
    #[test]
    fn an_object_is_found_by_its_digests_while_it_is_what_its_key_has() {
        let world = World::new();
        let bucket = world.bucket("bucket", "me", &[""]);
        assert_eq!(world.shown(&SHA256), None);
        let first = world.put(&bucket, "k", &[SHA256, BLAKE3]);
        for digest in [SHA256, BLAKE3] {
            assert_eq!(world.shown(&digest).as_deref(), Some("bucket/k"));
        }
        world.put(&bucket, "k", &[BLAKE3]);
        assert_eq!((world.shown(&SHA256), world.shown(&BLAKE3).is_some()), (None, true));
        world.put(&bucket, "k", &[]);
        assert_eq!((world.shown(&SHA256), world.shown(&BLAKE3)), (None, None));
        assert!(first.is_null());
        let bucket = world.change("bucket", |record| record.versioning = Versioning::Enabled);
        let second = world.put(&bucket, "k", &[SHA256]);
        let third = world.put(&bucket, "k", &[]);
        assert_eq!(world.shown(&SHA256), None, "an older version");
        world.delete(&bucket, "k", Some(third));
        assert_eq!(world.shown(&SHA256).as_deref(), Some("bucket/k"), "the newest again");
        world.delete(&bucket, "k", None);
        assert_eq!(world.shown(&SHA256), None, "deleted");
        world.delete(&bucket, "k", Some(second));
        world.check();
    }

    #[test]
    fn a_digest_that_becomes_known_later_is_found() {
        let world = World::new();
        let bucket = world.bucket("bucket", "me", &[""]);
        world.put(&bucket, "k", &[]);
        let told = |digest: Option<ObjectDigest>| {
            let objects = world.names.objects(&bucket);
            let changed = objects.update(&key_of("k"), None, &Cause::default(), |record| {
                record.sha256 = digest.map(|digest| digest.bytes);
            });
            changed.unwrap();
            world.shown(&SHA256)
        };
        assert_eq!(told(Some(SHA256)).as_deref(), Some("bucket/k"));
        assert_eq!(told(None), None);
    }

    /// Goal: everybody finds what is shown to everybody, of all tenants, and nothing else; what a bucket shows may change.
    #[test]
    fn everybody_finds_what_buckets_show_and_nothing_else() {
        let world = World::new();
        let bucket = world.bucket("bucket", "me", &["pub/", "x"]);
        world.put(&bucket, "a", &[SHA256]);
        assert_eq!(world.shown(&SHA256), None);
        world.put(&bucket, "xyz", &[SHA256]);
        assert_eq!(world.shown(&SHA256).as_deref(), Some("bucket/xyz"));
        assert_eq!(world.shown(&BLAKE3), None, "another function");
        world.put(&bucket, "pub/1", &[SHA256]);
        assert_eq!(world.shown(&SHA256).as_deref(), Some("bucket/pub/1"));
        world.change("bucket", |record| record.settings.delivery.public_read.clear());
        assert_eq!(world.shown(&SHA256), None);
        let second = world.of("second");
        let other = second.bucket("another", "you", &[]);
        second.put(&other, "k", &[SHA256]);
        assert_eq!(world.shown(&SHA256), None);
        second.change("another", |record| {
            record.settings.delivery.public_read = vec!["k".to_owned()]
        });
        assert_eq!(world.shown(&SHA256).as_deref(), Some("another/k"));
        second.delete(&other, "k", None);
        let deleted = world.names.buckets(&second.tenant).delete(&other.name);
        deleted.unwrap();
        assert_eq!(world.shown(&SHA256), None);
    }

    /// Goal: in a tenant, what is in buckets that are for the asker is found behind that which is in others; a second tenant finds
    /// nothing.
    #[test]
    fn in_a_tenant_is_found_what_is_for_the_asker_and_a_second_tenant_finds_nothing() {
        let world = World::new();
        let [first, last] = ["aaa", "zzz"].map(|name| world.bucket(name, "you", &[]));
        let own = world.bucket("mine", "me", &[]);
        for bucket in [&first, &last] {
            for key in ["1", "2"] {
                world.put(bucket, key, &[SHA256]);
            }
        }
        assert_eq!(world.found(&SHA256, "me"), None);
        world.put(&own, "k", &[SHA256]);
        assert_eq!(world.found(&SHA256, "me").as_deref(), Some("mine/k"));
        assert_eq!(world.found(&SHA256, "you").as_deref(), Some("aaa/1"));
        assert_eq!(world.found(&SHA256, "nobody"), None);
        let second = world.of("second");
        second.bucket("theirs", "me", &[]);
        assert_eq!((second.found(&SHA256, "me"), second.shown(&SHA256)), (None, None));
    }

    /// Goal: more buckets than are read at once are looked through.
    #[test]
    fn the_last_of_many_buckets_that_show_something_is_looked_into() {
        let world = World::new();
        for n in 0..SHOWN_AT_ONCE {
            world.bucket(&format!("a{n:03}"), "me", &[""]);
        }
        let last = world.bucket("last", "me", &["", ""]);
        world.put(&last, "k", &[SHA256]);
        assert_eq!(world.shown(&SHA256).as_deref(), Some("last/k"));
    }

    /// Goal: names that were written before there were such rows get them, and a migration that was stopped is done again.
    #[test]
    fn rows_are_filled_in_from_names_and_taken_away() {
        let world = World::new();
        let bucket = world.bucket("bucket", "me", &["pub/"]);
        for n in 0..2 * FILLED_AT_ONCE {
            let digest = ObjectDigest {
                bytes: [n as u8; 32],
                ..SHA256
            };
            world.put(&bucket, &format!("pub/{n}"), &[digest]);
        }
        let second = world.of("second");
        let other = second.bucket("other", "me", &[]);
        second.put(&other, "k", &[BLAKE3]);
        let kv = world.names.kv().as_ref();
        clear_digests(kv).unwrap();
        assert!(check_digests(kv).unwrap().is_err());
        assert_eq!(world.names.shown_by_digest(&SHA256).unwrap(), None);
        let mut stale = Batch::new();
        stale.put(
            rows::digest_in(&world.tenant, &SHA256, &bucket.name).bytes(b"stale"),
            Vec::new(),
        );
        unconditional(kv, stale).unwrap();
        for _ in 0..2 {
            fill_digests(kv).unwrap();
            assert_eq!(world.shown(&SHA256).as_deref(), Some("bucket/pub/1031"));
            assert_eq!(second.found(&BLAKE3, "me").as_deref(), Some("other/k"));
        }
    }
}
