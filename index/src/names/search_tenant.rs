//! Search over all buckets of a tenant: one after the other by name, each as `search.rs` does it.
//!
//! A bucket that is looked at costs rows, too, so that a query which finds nothing in thousands of buckets ends as any other does: it
//! says where to go on.

use super::buckets::{Buckets, ListBuckets};
use super::listing::ListedObject;
use super::name::BucketName;
use super::search::{SEARCH_KEYS_MAX, SEARCH_LIMIT_MAX, Search, SearchPlace};
use crate::{Error, Result};

/// Buckets read at once.
const BUCKETS_AT_ONCE: usize = 100;

/// Rows that looking at a bucket counts for, at the least: its own, and the seeks into its ranges.
const BUCKET_COST: usize = 8;

/// With fewer rows left than this no further bucket is begun.
const KEYS_LEAST: usize = 100;

/// An object that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundObject {
    /// Its bucket.
    pub bucket: BucketName,
    /// Its key, and what it is.
    pub object: ListedObject,
}

/// Where a search goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TenantSearchPlace {
    bucket: BucketName,
    /// In the bucket; `None`: behind all of it.
    within: Option<SearchPlace>,
}

impl TenantSearchPlace {
    /// As bytes for those who go on later. They hold the names of rows, and belong to the query.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = self.bucket.as_str().as_bytes().to_vec();
        bytes.push(0);
        bytes.extend(self.within.as_ref().map(SearchPlace::to_bytes).unwrap_or_default());
        bytes
    }

    /// Reads [`TenantSearchPlace::to_bytes`].
    ///
    /// Errors: [`Error::BadPlace`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let bad = || Error::BadPlace { what: "search" };
        let end = bytes.iter().position(|byte| *byte == 0).ok_or_else(bad)?;
        let name = std::str::from_utf8(&bytes[..end]).map_err(|_| bad())?;
        let within = Some(&bytes[end + 1..]).filter(|bytes| !bytes.is_empty());
        Ok(Self {
            bucket: BucketName::new(name).map_err(|_| bad())?,
            within: within.map(SearchPlace::from_bytes).transpose()?,
        })
    }
}

/// A page of what was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TenantSearchPage {
    /// Objects, by bucket, and then as in [`super::SearchPage`].
    pub objects: Vec<FoundObject>,
    /// Where to go on; `None`: that was all.
    pub next: Option<TenantSearchPlace>,
    /// Rows that were read for it, or counted as if: [`SEARCH_KEYS_MAX`] at most.
    pub scanned: usize,
}

impl Buckets<'_> {
    /// Objects of all buckets of the tenant, or of one, that are read when no version is named, to which all of a query applies.
    /// What is found in one bucket on one page is of one moment.
    ///
    /// - `only`: looks into this bucket alone.
    /// - `from`: where a page of the same query ended.
    /// - `limit`: 1 to [`SEARCH_LIMIT_MAX`]; what is out of range is taken for the nearest.
    /// - Errors: [`Error::NoBucket`] for `only`, [`Error::BadPlace`], [`Error::TooLarge`].
    pub fn search(
        &self,
        search: &Search,
        only: Option<&BucketName>,
        from: Option<&TenantSearchPlace>,
        limit: usize,
    ) -> Result<TenantSearchPage> {
        search.validate()?;
        let limit = limit.clamp(1, SEARCH_LIMIT_MAX);
        let mut page = TenantSearchPage::default();
        if let Some(name) = only {
            let bad = Error::BadPlace { what: "search" };
            let within = match from {
                None => None,
                Some(place) if place.bucket == *name && place.within.is_some() => place.within.as_ref(),
                Some(_) => return Err(bad),
            };
            self.search_bucket(name, search, within, limit, &mut page)?;
            return Ok(page);
        }
        let mut after: Option<BucketName> = None;
        if let Some(place) = from {
            // A bucket that has gone since has nothing more.
            if place.within.is_some() && self.has(&place.bucket)? {
                self.search_bucket(&place.bucket, search, place.within.as_ref(), limit, &mut page)?;
            }
            after = Some(place.bucket.clone());
        }
        while page.next.is_none() {
            let list = ListBuckets {
                after: after.as_ref(),
                limit: BUCKETS_AT_ONCE,
                ..ListBuckets::default()
            };
            let buckets = self.list(&list)?;
            for bucket in &buckets.buckets {
                if page.objects.len() == limit || page.scanned + KEYS_LEAST > SEARCH_KEYS_MAX {
                    page.next = after.map(|bucket| TenantSearchPlace { bucket, within: None });
                    return Ok(page);
                }
                match self.search_bucket(bucket.name(), search, None, limit, &mut page) {
                    // It was deleted this moment.
                    Err(Error::NoBucket { .. }) => {}
                    done => done?,
                }
                if page.next.is_some() {
                    return Ok(page);
                }
                after = Some(bucket.name().clone());
            }
            if buckets.next.is_none() {
                return Ok(page);
            }
        }
        Ok(page)
    }

    fn has(&self, name: &BucketName) -> Result<bool> {
        match self.get(name) {
            Ok(_) => Ok(true),
            Err(Error::NoBucket { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Adds what a bucket has to a page, which then may say where to go on.
    fn search_bucket(
        &self,
        name: &BucketName,
        search: &Search,
        within: Option<&SearchPlace>,
        limit: usize,
        page: &mut TenantSearchPage,
    ) -> Result<()> {
        let bucket = self.get(name)?;
        page.scanned += BUCKET_COST;
        let (wanted, keys_max) = (limit - page.objects.len(), SEARCH_KEYS_MAX - page.scanned);
        let found = self
            .names
            .objects(&bucket)
            .search_within(search, within, wanted, keys_max)?;
        page.scanned += found.scanned;
        let named = |object| FoundObject {
            bucket: name.clone(),
            object,
        };
        page.objects.extend(found.objects.into_iter().map(named));
        page.next = found.next.map(|within| TenantSearchPlace {
            bucket: name.clone(),
            within: Some(within),
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::names::{Cause, Condition, Etag, Names, NewBucket, NewContent, NewVersion, ObjectKey, Owner};
    use crate::{Database, MemoryEngine, Tenant};

    fn names() -> Names {
        Names::new(Arc::new(Database::new(Arc::new(MemoryEngine::new()))))
    }

    fn put(names: &Names, tenant: &Tenant, bucket: &str, key: &str, tag: &str) {
        let buckets = names.buckets(tenant);
        let name = BucketName::new(bucket).unwrap();
        let owner = Owner::new("me").unwrap();
        let bucket = buckets
            .get(&name)
            .or_else(|_| buckets.create(&name, NewBucket::of(owner.clone())));
        let id = cairn_formats::DigestAlgorithm::default().id(key.as_bytes());
        let content = NewContent::inline(Default::default(), id, key.as_bytes().to_vec()).unwrap();
        let mut new = NewVersion::new(owner, content, Etag::of_md5(&[1; 16]));
        new.record.tags.push(("of".to_owned(), tag.to_owned()));
        let put = names.objects(&bucket.unwrap()).put(
            &ObjectKey::new(key).unwrap(),
            &new,
            &Condition::Always,
            &Cause::default(),
        );
        put.unwrap();
    }

    fn all(names: &Names, tenant: &Tenant, search: &Search, limit: usize) -> (Vec<String>, usize) {
        let (mut found, mut pages) = (Vec::new(), 0);
        let mut place: Option<TenantSearchPlace> = None;
        loop {
            let page = names
                .buckets(tenant)
                .search(search, None, place.as_ref(), limit)
                .unwrap();
            pages += 1;
            assert!(page.scanned <= SEARCH_KEYS_MAX && page.objects.len() <= limit);
            let named = page
                .objects
                .iter()
                .map(|found| format!("{}/{}", found.bucket, found.object.key));
            found.extend(named);
            let Some(next) = page.next else { return (found, pages) };
            let again = TenantSearchPlace::from_bytes(&next.to_bytes()).unwrap();
            assert_eq!(again, next);
            place = Some(again);
        }
    }

    /// Goal: all of a tenant is found whatever the page's size, each once, and nothing of another's.
    #[test]
    fn all_buckets_of_a_tenant_are_searched_and_no_other() {
        let names = names();
        let (own, other) = (Tenant::new("own").unwrap(), Tenant::new("other").unwrap());
        let mut expected = Vec::new();
        for bucket in ["aaa", "bbb", "ccc", "ddd"] {
            for key in ["a", "b", "c"] {
                let tag = if bucket == "bbb" { "no" } else { "yes" };
                put(&names, &own, bucket, key, tag);
                put(&names, &other, &format!("{bucket}-other"), key, tag);
                if tag == "yes" {
                    expected.push(format!("{bucket}/{key}"));
                }
            }
        }
        let search = Search {
            tags: vec![("of".to_owned(), "yes".to_owned())],
            ..Search::default()
        };
        for limit in [1, 2, 3, 4, 1000] {
            assert_eq!(all(&names, &own, &search, limit).0, expected, "{limit}");
        }
        let only = BucketName::new("ccc").unwrap();
        let page = names.buckets(&own).search(&search, Some(&only), None, 2).unwrap();
        assert_eq!(page.objects.len(), 2);
        let rest = names
            .buckets(&own)
            .search(&search, Some(&only), page.next.as_ref(), 2)
            .unwrap();
        assert_eq!((rest.objects.len(), rest.next), (1, None));
        let absent = BucketName::new("ccc-other").unwrap();
        let refused = names.buckets(&own).search(&search, Some(&absent), None, 2).unwrap_err();
        assert!(matches!(refused, Error::NoBucket { .. }));
    }

    /// Goal: a request that finds nothing in very many buckets ends, and says where to go on.
    #[test]
    fn very_many_buckets_take_several_pages() {
        let names = names();
        let tenant = Tenant::default();
        for n in 0..2500 {
            let name = BucketName::new(&format!("b{n:05}")).unwrap();
            let owner = Owner::new("me").unwrap();
            names.buckets(&tenant).create(&name, NewBucket::of(owner)).unwrap();
        }
        put(&names, &tenant, "z-last", "key", "yes");
        let (found, pages) = all(&names, &tenant, &Search::default(), 10);
        assert_eq!(found, ["z-last/key"]);
        assert!(pages > 1, "{pages} pages");
    }

    #[test]
    fn what_was_not_given_out_is_no_place() {
        for bytes in [&b""[..], b"abc", b"\0", b"abc\0\x01rest\xff"] {
            let place = TenantSearchPlace::from_bytes(bytes);
            let names = names();
            put(&names, &Tenant::default(), "abc", "key", "yes");
            let bucket = BucketName::new("abc").unwrap();
            let asked = place.and_then(|place| {
                let buckets = Tenant::default();
                names
                    .buckets(&buckets)
                    .search(&Search::default(), Some(&bucket), Some(&place), 1)
            });
            assert!(matches!(asked, Err(Error::BadPlace { .. })), "{bytes:?}");
        }
    }
}
