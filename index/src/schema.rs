//! The schema of the rows: one number in one row, the same on every engine.
//!
//! A release opens rows of its own schema and of older ones, which it changes in place, a step a schema; rows of a newer schema
//! are refused. | schema | since | what it is | 1 | 0.1 | the tables of `key.rs` |

use crate::kv::{Batch, Check, Commit, Kv, View, ViewExt as _};
use crate::{Error, Key, Result, Table};

/// The schema that this release writes.
pub const SCHEMA: u32 = 1;

fn key() -> Key {
    Key::of_index(Table::Meta).bytes(b"schema")
}

/// Makes sure that the rows are of a schema that we can work with; empty ones become ours.
///
/// - `place`: what people call the index, for the error.
/// - Errors: [`Error::NewerSchema`]; those of the engine.
pub fn open_schema(kv: &impl Kv, place: &str) -> Result<()> {
    loop {
        let known = check_schema(kv, place)?;
        if !known {
            let mut batch = Batch::new();
            batch
                .check(key(), Check::Absent)
                .put(key(), SCHEMA.to_be_bytes().to_vec());
            match kv.commit(batch)? {
                Commit::Done(_) => return Ok(()),
                Commit::Conflict(_) => continue,
            }
        }
        return Ok(());
    }
}

/// Whether rows are of a schema that we can work with; `false`: there are none yet.
///
/// Errors: as [`open_schema`].
pub fn check_schema(view: &(impl View + ?Sized), place: &str) -> Result<bool> {
    let Some(row) = view.get(key())? else {
        return Ok(false);
    };
    let found = row
        .value
        .as_ref()
        .try_into()
        .map(u32::from_be_bytes)
        .map_err(|_| Error::Malformed {
            what: "schema row",
            reason: "it is no number",
        })?;
    if found > SCHEMA {
        return Err(Error::NewerSchema {
            place: place.to_owned(),
            found,
            known: SCHEMA,
        });
    }
    Ok(true)
}
