//! The schema of the rows: one number in one row, the same on every engine, and the steps from one to the next and back.
//!
//! A release opens rows of its own schema and of older ones, which it brings up to its own, a step a schema; rows of a newer one are
//! refused. A step is one or more commits and may be run again after a crash: the number moves with its last one.
//!
//! | schema | what it is |
//! |---|---|
//! | 1 | manifests, leases, condemned chunks |
//! | 2 | names (`names/`) as well: a program that knows schema 1 alone would collect the chunks that only these keep |
//! | 3 | blobs (`names/blobs.rs`) as well, for the same reason |
//! | 4 | rows of objects by their digests (`names/whole_digest.rs`), filled in from names and taken away again |

use crate::kv::{Batch, Check, Commit, Kv, Row, View, ViewExt as _};
use crate::names::{any_blobs, any_names, any_wanted_digests, clear_digests, fill_digests};
use crate::{Error, Key, Result, Table};

/// The schema that this release writes.
pub const SCHEMA: u32 = 4;

type Work = fn(&dyn Kv) -> Result<()>;

/// A step: what it brings, and how it is gone back.
struct Step {
    to: u32,
    what: &'static str,
    /// Done before the number moves up; what a crash has left half done is done again.
    up: Work,
    /// Whether the step may be gone back; nothing is changed.
    may_leave: Work,
    /// Done after the number has moved down. What a crash leaves of it nobody reads, and `up` takes away.
    left: Work,
}

fn nothing(_: &dyn Kv) -> Result<()> {
    Ok(())
}

const STEPS: [Step; 3] = [
    Step {
        to: 2,
        what: "names: buckets, objects, versions, uploads, access keys, events",
        up: nothing,
        may_leave: leave_names,
        left: nothing,
    },
    Step {
        to: 3,
        what: "blobs of the gRPC door",
        up: nothing,
        may_leave: leave_blobs,
        left: nothing,
    },
    Step {
        to: 4,
        what: "objects by the digests of their bytes",
        up: fill_digests,
        may_leave: leave_digests,
        left: clear_digests,
    },
];

/// Rows of digests are made of names and go; what a bucket's row says of them is not thrown away.
fn leave_digests(kv: &dyn Kv) -> Result<()> {
    if any_wanted_digests(kv)? {
        return Err(Error::CannotGoBack {
            to: 3,
            because: "there are buckets with the setting digests: make it [] first",
        });
    }
    Ok(())
}

/// Blobs are a cache, and yet nobody throws them away unasked.
fn leave_blobs(kv: &dyn Kv) -> Result<()> {
    if any_blobs(kv)? {
        return Err(Error::CannotGoBack {
            to: 2,
            because: "there are blobs of the gRPC door: delete their buckets, or let them expire, and collect",
        });
    }
    Ok(())
}

/// Names are not thrown away: who goes back has deleted them before.
fn leave_names(kv: &dyn Kv) -> Result<()> {
    if any_names(kv)? {
        return Err(Error::CannotGoBack {
            to: 1,
            because: "there are buckets: delete them first",
        });
    }
    Ok(())
}

/// A step that was taken, or would be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SchemaStep {
    /// The schema before it.
    pub from: u32,
    /// The schema behind it.
    pub to: u32,
    /// What the greater of the two brought.
    pub what: &'static str,
}

/// Whether steps are taken or only told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SchemaRun {
    /// Taken.
    Real,
    /// Only told; whether a step back is possible is looked at.
    Dry,
}

fn key() -> Key {
    Key::of_index(Table::Meta).bytes(b"schema")
}

/// Makes sure that the rows are of our schema: empty ones become so, older ones are brought up.
///
/// - `place`: what people call the index, for the error.
/// - Errors: [`Error::NewerSchema`]; those of the engine.
pub fn open_schema(kv: &impl Kv, place: &str) -> Result<()> {
    loop {
        if check_schema(kv, place)? {
            return migrate_schema(kv, SCHEMA, SchemaRun::Real, place).map(drop);
        }
        let mut batch = Batch::new();
        batch
            .check(key(), Check::Absent)
            .put(key(), SCHEMA.to_be_bytes().to_vec());
        if let Commit::Done(_) = kv.commit(batch)? {
            return Ok(());
        }
    }
}

/// Whether rows are of a schema that we can work with, or bring up to ours; `false`: there are none yet.
///
/// Errors: as [`open_schema`].
pub fn check_schema(view: &(impl View + ?Sized), place: &str) -> Result<bool> {
    match found(view)? {
        Some((found, _)) if found > SCHEMA => Err(newer(place, found)),
        found => Ok(found.is_some()),
    }
}

/// The schema of the rows, which may be newer than ours; `None`: there are none yet.
pub fn schema(view: &(impl View + ?Sized)) -> Result<Option<u32>> {
    Ok(found(view)?.map(|(found, _)| found))
}

/// Goes from the schema of the rows to another, step by step. Nobody else may use the rows on the way back.
///
/// - `to`: 1 to [`SCHEMA`].
/// - Errors: [`Error::NewerSchema`], also when the rows have no schema to go from or `to` is none that we know;
///   [`Error::CannotGoBack`].
pub fn migrate_schema(kv: &dyn Kv, to: u32, run: SchemaRun, place: &str) -> Result<Vec<SchemaStep>> {
    if to == 0 || to > SCHEMA {
        return Err(newer(place, to));
    }
    let mut taken = Vec::new();
    let mut dry = None;
    loop {
        let Some((at, row)) = found(kv)? else {
            return Ok(taken);
        };
        let from = dry.unwrap_or(at);
        if from > SCHEMA {
            return Err(newer(place, from));
        }
        if from == to {
            return Ok(taken);
        }
        let next = if from < to { from + 1 } else { from - 1 };
        let step = STEPS.iter().find(|step| step.to == from.max(next));
        let step = step.expect("each schema but the first has its step");
        if next < from {
            (step.may_leave)(kv)?;
        }
        if run == SchemaRun::Real {
            if next > from {
                (step.up)(kv)?;
            }
            let mut batch = Batch::new();
            batch
                .check(key(), Check::Version(row.version))
                .put(key(), next.to_be_bytes().to_vec());
            if let Commit::Conflict(_) = kv.commit(batch)? {
                continue;
            }
            if next < from {
                (step.left)(kv)?;
            }
        } else {
            dry = Some(next);
        }
        taken.push(SchemaStep {
            from,
            to: next,
            what: step.what,
        });
    }
}

fn found(view: &(impl View + ?Sized)) -> Result<Option<(u32, Row)>> {
    let Some(row) = view.get(key())? else {
        return Ok(None);
    };
    let number = row.value.as_ref().try_into().map(u32::from_be_bytes);
    let number = number.map_err(|_| Error::Malformed {
        what: "schema row",
        reason: "it is no number",
    })?;
    Ok(Some((number, row)))
}

fn newer(place: &str, found: u32) -> Error {
    Error::NewerSchema {
        place: place.to_owned(),
        found,
        known: SCHEMA,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::names::{
        BucketName, Cause, Condition, DigestFunction, Etag, Names, NewBucket, NewContent, NewVersion, ObjectDigest,
        ObjectKey, Owner, check_digests,
    };
    use crate::{Database, Fence, MemoryEngine, Tenant};

    fn empty() -> Arc<Database<MemoryEngine>> {
        Arc::new(Database::new(Arc::new(MemoryEngine::new())))
    }

    fn set(kv: &dyn Kv, schema: u32) {
        let mut batch = Batch::new();
        batch.put(key(), schema.to_be_bytes().to_vec());
        assert!(matches!(kv.commit(batch).unwrap(), Commit::Done(_)));
    }

    #[test]
    fn older_rows_are_brought_up_and_newer_ones_refused() {
        let kv = empty();
        assert_eq!(schema(kv.as_ref()).unwrap(), None);
        open_schema(kv.as_ref(), "here").unwrap();
        assert_eq!(schema(kv.as_ref()).unwrap(), Some(SCHEMA));
        set(kv.as_ref(), 1);
        open_schema(kv.as_ref(), "here").unwrap();
        assert_eq!(schema(kv.as_ref()).unwrap(), Some(SCHEMA));
        set(kv.as_ref(), SCHEMA + 1);
        for failed in [
            open_schema(kv.as_ref(), "here"),
            migrate_schema(kv.as_ref(), 1, SchemaRun::Real, "here").map(drop),
        ] {
            assert!(
                matches!(failed, Err(Error::NewerSchema { found, known: SCHEMA, .. }) if found == SCHEMA + 1),
                "{failed:?}"
            );
        }
        assert_eq!(schema(kv.as_ref()).unwrap(), Some(SCHEMA + 1), "as it was");
    }

    /// Goal: names of schema 3 are found by digest behind the step up; the step back takes the rows away and the names stay; told
    /// alone, nothing changes; a step that was stopped halfway is done again.
    #[test]
    fn rows_of_digests_come_with_their_schema_and_go_with_it() {
        let kv = empty();
        open_schema(kv.as_ref(), "here").unwrap();
        let names = Names::new(kv.clone());
        let (tenant, name, me) = (
            Tenant::default(),
            BucketName::new("bucket").unwrap(),
            Owner::new("me").unwrap(),
        );
        let mut new = NewBucket::of(me.clone());
        new.settings.delivery.public_read = vec![String::new()];
        let bucket = names.buckets(&tenant).create(&name, new).unwrap();
        let content = NewContent::chunks(Default::default(), Vec::new(), Fence::now(kv.as_ref()).unwrap()).unwrap();
        let mut version = NewVersion::new(me, content, Etag::opaque("e").unwrap());
        version.record.sha256 = Some([7; 32]);
        let (key, digest) = (
            ObjectKey::new("k").unwrap(),
            ObjectDigest {
                function: DigestFunction::Sha256,
                bytes: [7; 32],
            },
        );
        let put = names
            .objects(&bucket)
            .put(&key, &version, &Condition::Always, &Cause::default());
        put.unwrap();
        let is_found = || names.shown_by_digest(&digest).unwrap().is_some();
        let step = |from, to| SchemaStep {
            from,
            to,
            what: STEPS[2].what,
        };
        let go = |to, run| migrate_schema(kv.as_ref(), to, run, "here").unwrap();
        assert!(is_found());
        assert_eq!(go(3, SchemaRun::Dry), [step(4, 3)]);
        assert!(is_found(), "only told");
        for _ in 0..2 {
            assert_eq!(go(3, SchemaRun::Real), [step(4, 3)]);
            assert!(!is_found());
            assert!(names.objects(&bucket).current(&key).is_ok());
            assert_eq!(go(4, SchemaRun::Dry), [step(3, 4)]);
            assert!(!is_found(), "only told");
            // Stopped before the number moved.
            fill_digests(kv.as_ref()).unwrap();
            assert_eq!(go(4, SchemaRun::Real), [step(3, 4)]);
            assert!(is_found());
            check_digests(kv.as_ref()).unwrap().unwrap();
        }
        let wanted = |digests: &[DigestFunction]| {
            let changed = names.buckets(&tenant).update(&name, |record| {
                record.settings.digests = digests.to_vec();
                Ok(())
            });
            changed.unwrap();
        };
        wanted(&DigestFunction::ALL);
        for run in [SchemaRun::Dry, SchemaRun::Real] {
            let failed = migrate_schema(kv.as_ref(), 3, run, "here");
            assert!(matches!(failed, Err(Error::CannotGoBack { to: 3, .. })), "{failed:?}");
        }
        wanted(&[]);
        go(3, SchemaRun::Real);
        open_schema(kv.as_ref(), "here").unwrap();
        assert!(is_found(), "opening takes the step");
    }

    #[test]
    fn a_schema_is_left_only_when_nothing_of_it_is_there() {
        let kv = empty();
        open_schema(kv.as_ref(), "here").unwrap();
        let names = Names::new(kv.clone());
        let (tenant, name) = (Tenant::default(), BucketName::new("bucket").unwrap());
        let new = NewBucket::of(Owner::new("me").unwrap());
        names.buckets(&tenant).create(&name, new).unwrap();
        migrate_schema(kv.as_ref(), 2, SchemaRun::Real, "here").unwrap();
        for run in [SchemaRun::Dry, SchemaRun::Real] {
            let failed = migrate_schema(kv.as_ref(), 1, run, "here");
            assert!(matches!(failed, Err(Error::CannotGoBack { to: 1, .. })), "{failed:?}");
        }
        names.buckets(&tenant).delete(&name).unwrap();
        let step = SchemaStep {
            from: 2,
            to: 1,
            what: STEPS[0].what,
        };
        assert_eq!(migrate_schema(kv.as_ref(), 1, SchemaRun::Dry, "here").unwrap(), [step]);
        assert_eq!(schema(kv.as_ref()).unwrap(), Some(2), "only told");
        assert_eq!(migrate_schema(kv.as_ref(), 1, SchemaRun::Real, "here").unwrap(), [step]);
        assert_eq!(
            migrate_schema(kv.as_ref(), 2, SchemaRun::Real, "here").unwrap().len(),
            1
        );
        assert_eq!(migrate_schema(kv.as_ref(), 2, SchemaRun::Real, "here").unwrap(), []);
    }
}
