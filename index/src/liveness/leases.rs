//! Leases: writers that are still at work. What they stored since they began is not condemned before they end or run out.
//!
//! A lease only saves its writer from sending chunks twice; that nothing is lost is the fence's doing. So a lease that a clock
//! ends too early, or that is lost, costs time and no data.

use cairn_store::LogPosition;

use super::unconditional;
use crate::kv::{Batch, Kv, View, ViewExt as _};
use crate::{Error, Key, KeyReader, Result, Table};

/// A writer at work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Its name, chosen at random by the writer.
    pub id: [u8; 16],
    /// Where the log stood when it began: records at or behind this are not condemned.
    pub begun: LogPosition,
    /// Seconds since 1970 UTC after which it counts no more.
    pub until: u64,
}

fn key(id: &[u8; 16]) -> Key {
    Key::of_index(Table::Leases).fixed(id)
}

/// Begins a lease, or renews it. Later calls keep the first `begun` if they are given the same.
pub fn hold_lease(kv: &(impl Kv + ?Sized), lease: &Lease) -> Result<()> {
    let value = Key::default()
        .u32(lease.begun.pack)
        .u64(lease.begun.offset)
        .u64(lease.until);
    let mut batch = Batch::new();
    batch.put(key(&lease.id), value.into_bytes());
    unconditional(kv, batch)
}

/// Ends a lease; that there is none is no error.
pub fn end_lease(kv: &(impl Kv + ?Sized), id: &[u8; 16]) -> Result<()> {
    let mut batch = Batch::new();
    batch.delete(key(id));
    unconditional(kv, batch)
}

/// All leases, those that have run out included.
pub fn leases(view: &(impl View + ?Sized)) -> Result<Vec<Lease>> {
    let table = Key::of_index(Table::Leases);
    let mut leases = Vec::new();
    view.for_each(table.range(), |key, row| {
        let mut id = KeyReader::new(&key[table.as_bytes().len()..]);
        let mut value = KeyReader::new(&row.value);
        leases.push(Lease {
            id: id.fixed()?,
            begun: LogPosition {
                pack: value.u32()?,
                offset: value.u64()?,
            },
            until: value.u64()?,
        });
        Ok::<_, Error>(())
    })?;
    Ok(leases)
}
