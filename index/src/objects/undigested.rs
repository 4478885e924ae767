//! Digests of objects that came without: read back and hashed when the store has time, so that they are found by them.
//!
//! A bucket that wants digests (`BucketSettings::digests`) has a row for each of its newest objects that lacks one (`names/whole_digest`),
//! of uploads in parts, copies and indexes. This page goes along those rows. An object that was exchanged while it was read gets nothing of
//! what was read; one that cannot be read is given up, and told. Not here: when, and how fast.

use super::Objects;
use super::digests::{DigestsWanted, Sums};
use crate::names::{Cause, Undigested};
use crate::{Error, Result};

/// What became of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DigestedAtRest {
    /// It has its digests now: so many bytes were read.
    Done(u64),
    /// There was nothing to do: it has them, it is gone or another one, or its bucket wants none any more.
    Nothing,
    /// It cannot be read, and is left without.
    GivenUp,
}

/// The object whose digests were worked out last: the next are those of the one behind it, so that one which changes as fast as
/// it is read holds up no other.
#[derive(Debug, Default)]
pub struct DigestCursor(Option<Undigested>);

impl Objects {
    /// Works out the digests of the next object that lacks any; `None`: none does.
    ///
    /// - `pace`: called for each piece that was read, with its length: pauses, and says whether to go on.
    /// - Errors: [`Error::Stopped`] when it says no; those of the index.
    pub fn digest_next(&self, cursor: &mut DigestCursor, pace: &dyn Fn(u64) -> bool) -> Result<Option<DigestedAtRest>> {
        let Some(next) = self.names.next_undigested(cursor.0.as_ref())? else {
            return Ok(None);
        };
        cursor.0 = Some(next.clone());
        let Some(lacking) = self.names.lacking(&next)? else {
            self.names.forget_undigested(&next)?;
            return Ok(Some(DigestedAtRest::Nothing));
        };
        let (bucket, version) = (&lacking.bucket, &lacking.version);
        let Some(record) = version.object() else {
            return Ok(Some(DigestedAtRest::Nothing));
        };
        let mut sums = Sums::with_whole(&DigestsWanted::default(), &lacking.functions);
        let pieces = match self.read(bucket.tenant(), &record.content, 0..record.size) {
            Ok(pieces) => pieces,
            Err(error) => return self.give_up(&next, error).map(Some),
        };
        for piece in pieces {
            let piece = match piece {
                Ok(piece) => piece,
                Err(error) => return self.give_up(&next, error).map(Some),
            };
            sums.update(&piece);
            if !pace(piece.len() as u64) {
                return Err(Error::Stopped);
            }
        }
        let digested = sums.finish();
        let objects = self.names.objects(bucket);
        // No event: nobody is to read anything anew.
        let updated = objects.update(&next.key, Some(version.id), &Cause::outbox(), |now| {
            // A version named null may be another one by now.
            if now.content == record.content {
                now.sha256 = now.sha256.or(digested.sha256);
                now.blake3 = now.blake3.or(digested.blake3);
            }
        });
        match updated {
            Ok(_) => Ok(Some(DigestedAtRest::Done(record.size))),
            Err(Error::NoVersion { .. } | Error::NoObject { .. } | Error::NoBucket { .. }) => {
                Ok(Some(DigestedAtRest::Nothing))
            }
            Err(error) => Err(error),
        }
    }

    /// Leaves an object that cannot be read without digests; any other trouble may pass.
    fn give_up(&self, next: &Undigested, error: Error) -> Result<DigestedAtRest> {
        use cairn_store::Error::{Corrupt, Missing};
        match error {
            Error::Store(Missing { .. } | Corrupt { .. }) | Error::Malformed { .. } => {
                self.names.forget_undigested(next)?;
                Ok(DigestedAtRest::GivenUp)
            }
            error => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use cairn_store::{ChunkStore as _, Prune as _};

    use super::super::tests::{World, key, noise};
    use super::*;
    use crate::Tenant;
    use crate::names::{Bucket, DigestFunction, ObjectDigest, check_digests};

    fn quick(_: u64) -> bool {
        true
    }

    fn next(world: &World) -> Option<DigestedAtRest> {
        let next = world.objects.digest_next(&mut DigestCursor::default(), &quick);
        check_digests(world.objects.names().kv().as_ref()).unwrap().unwrap();
        next.unwrap()
    }

    fn is_found(world: &World, bytes: &[u8]) -> bool {
        let digest = ObjectDigest {
            function: DigestFunction::Blake3,
            bytes: *blake3::hash(bytes).as_bytes(),
        };
        let names = world.objects.names();
        let found = names.find_by_digest(&Tenant::default(), &digest, |_| true);
        found.unwrap().is_some()
    }

    fn both(world: &World) -> Bucket {
        world.bucket("bucket", |settings| settings.digests = DigestFunction::ALL.to_vec())
    }

    /// Puts an object in two parts.
    fn put_parts(world: &World, bucket: &Bucket, name: &str, bytes: &[u8]) {
        let upload = world.upload(bucket, name);
        let (first, second) = bytes.split_at(bytes.len() / 2);
        world.part(bucket, &upload, 1, first);
        world.part(bucket, &upload, 2, second);
        world.complete(bucket, &upload, &[1, 2]);
    }

    /// Goal: what came in one piece is found at once; what came in parts, or was copied from a bucket without digests, when it has been
    /// read at rest, once, without an event.
    #[test]
    fn what_came_without_digests_gets_them_at_rest() {
        let world = World::new();
        let (bucket, plain) = (both(&world), world.bucket("plain", |_| {}));
        let (piece, parts, copied) = (noise(1, 100_000), noise(2, 100_000), noise(3, 50_000));
        world.put(&bucket, "piece", &piece);
        assert!(is_found(&world, &piece) && next(&world).is_none());
        put_parts(&world, &bucket, "parts", &parts);
        put_parts(&world, &plain, "parts", &parts);
        let version = world.put(&plain, "copied", &copied);
        let copy = world.objects.copy(&plain, &version, &bucket).unwrap();
        let put = copy.put(
            &key("copied"),
            &version.owner,
            |_| {},
            &Default::default(),
            &Default::default(),
        );
        put.unwrap();
        assert!(!is_found(&world, &parts) && !is_found(&world, &copied));
        let events = || world.objects.names().outbox(bucket.tenant()).lag("test").unwrap();
        let before = events();
        let done: Vec<_> = (0..2).map(|_| next(&world).unwrap()).collect();
        assert_eq!(done, [DigestedAtRest::Done(50_000), DigestedAtRest::Done(100_000)]);
        assert!(is_found(&world, &parts) && is_found(&world, &copied));
        assert_eq!((next(&world), events()), (None, before));
        let world = world.reopen();
        assert!(is_found(&world, &parts) && next(&world).is_none());
        assert!(world.get(&bucket, "parts") == parts);
    }

    /// Goal: one that is exchanged while it is read does not get the digests of what was read; the new one gets its own.
    #[test]
    fn what_is_exchanged_meanwhile_gets_its_own_digests() {
        let world = World::new();
        let bucket = both(&world);
        let (old, new) = (noise(1, 100_000), noise(2, 100_000));
        put_parts(&world, &bucket, "k", &old);
        let exchange = std::cell::Cell::new(true);
        let wait = |_| {
            if exchange.take() {
                put_parts(&world, &bucket, "k", &new);
            }
            true
        };
        let first = world.objects.digest_next(&mut DigestCursor::default(), &wait);
        assert!(first.unwrap().is_some());
        assert!(!is_found(&world, &old) && !is_found(&world, &new));
        assert_eq!(next(&world), Some(DigestedAtRest::Done(100_000)));
        assert!(!is_found(&world, &old) && is_found(&world, &new));
        // One that is gone is forgotten with its row.
        put_parts(&world, &bucket, "k", &old);
        let objects = world.objects.names().objects(&bucket);
        let deleted = objects.delete(
            &key("k"),
            None,
            &crate::names::Owner::new("me").unwrap(),
            &Default::default(),
            &Cause::default(),
        );
        deleted.unwrap();
        assert_eq!(next(&world), None);
    }

    /// Goal: an object that changes as fast as it is read holds up none of those behind it.
    #[test]
    fn one_that_never_rests_does_not_hold_up_the_others() {
        let world = World::new();
        let bucket = both(&world);
        let (first, good) = (noise(1, 100_000), noise(2, 100_000));
        put_parts(&world, &bucket, "a", &first);
        put_parts(&world, &bucket, "b", &good);
        let newer = noise(3, 100_000);
        let exchange = |_| {
            put_parts(&world, &bucket, "a", &newer);
            true
        };
        let mut cursor = DigestCursor::default();
        assert!(world.objects.digest_next(&mut cursor, &exchange).unwrap().is_some());
        for found in [&good, &newer] {
            assert!(!is_found(&world, found));
            let done = world.objects.digest_next(&mut cursor, &quick).unwrap();
            assert_eq!(done, Some(DigestedAtRest::Done(100_000)));
            assert!(is_found(&world, found));
        }
    }

    #[test]
    fn the_work_stops_when_it_is_told_to_and_goes_on_later() {
        let world = World::new();
        let bucket = both(&world);
        let bytes = noise(1, 100_000);
        put_parts(&world, &bucket, "k", &bytes);
        let stopped = world.objects.digest_next(&mut DigestCursor::default(), &|_| false);
        assert!(matches!(stopped, Err(Error::Stopped)));
        assert!(!is_found(&world, &bytes));
        assert_eq!(next(&world), Some(DigestedAtRest::Done(100_000)));
        assert!(is_found(&world, &bytes));
    }

    /// Goal: an object that has lost a chunk is told of, and does not hold up those behind it; a bucket that wants no digests any more
    /// has none worked out.
    #[test]
    fn what_cannot_be_read_is_given_up() {
        let world = World::new();
        let bucket = both(&world);
        let (lost, good) = (noise(1, 100_000), noise(2, 100_000));
        put_parts(&world, &bucket, "a", &lost);
        put_parts(&world, &bucket, "b", &good);
        let version = world.objects.names().objects(&bucket).current(&key("a")).unwrap();
        let chunks = world
            .objects
            .chunks(bucket.tenant(), &version.object().unwrap().content);
        let store = world.objects.store(bucket.record.settings.domain);
        store.flush().unwrap();
        store.remove_many(&[chunks.unwrap()[3].id]).unwrap();
        let ask = || world.objects.digest_next(&mut DigestCursor::default(), &quick).unwrap();
        assert_eq!(ask(), Some(DigestedAtRest::GivenUp));
        let names = world.objects.names();
        let changed = names.buckets(bucket.tenant()).update(bucket.name(), |record| {
            record.settings.digests.clear();
            Ok(())
        });
        changed.unwrap();
        assert_eq!((ask(), ask()), (Some(DigestedAtRest::Nothing), None));
        assert!(!is_found(&world, &good));
    }
}
