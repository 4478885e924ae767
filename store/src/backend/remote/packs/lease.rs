//! Who alone may delete: an object `CURRENT`, made only where none is.
//!
//! Two who delete at once could each take the other's copy of a chunk for the one that stays. Before each deletion the owner
//! looks whether the object is still its own. One that was killed leaves it; it says whose it was, and a person decides.

use std::sync::PoisonError;
use std::time::SystemTime;

use bytes::Bytes;

use super::RemotePackStore;
use super::files::PackFiles;
use super::names::LEASE_NAME;
use super::write::random_uuid;
use crate::backend::remote::Fault;
use crate::backend::remote::patience::Patience;
use crate::{Error, Result};

/// Longest text of it that is read.
const LEASE_LEN_MAX: usize = 4096;

/// Whether this process is the owner, and how often it wants to be.
#[derive(Debug, Default)]
pub(super) struct Lease {
    wanted: usize,
    text: Bytes,
}

/// While it lives, nobody else deletes.
#[must_use]
pub struct Ownership<'s>(Option<Box<dyn FnOnce() + 's>>);

impl Drop for Ownership<'_> {
    fn drop(&mut self) {
        if let Some(release) = self.0.take() {
            release();
        }
    }
}

impl std::fmt::Debug for Ownership<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Ownership")
    }
}

impl<F: PackFiles> RemotePackStore<F> {
    pub(super) fn take_lease(&self, take_over: bool) -> Result<Ownership<'_>> {
        self.writable()?;
        let action = "take hold of it for deleting";
        let mut lease = self.lease.lock().unwrap_or_else(PoisonError::into_inner);
        if lease.wanted == 0 {
            if take_over {
                self.remove_files(vec![LEASE_NAME.to_owned()], action)?;
            }
            let text = self.lease_text(action)?;
            if !self.create_lease(text.clone(), action)? {
                let holder = self.read_lease(action)?;
                // A try of ours whose answer was lost.
                if holder.as_ref() != Some(&text) {
                    return Err(self.owned(action, holder));
                }
            }
            lease.text = text;
        }
        lease.wanted += 1;
        Ok(Ownership(Some(Box::new(|| self.release()))))
    }

    fn release(&self) {
        let mut lease = self.lease.lock().unwrap_or_else(PoisonError::into_inner);
        lease.wanted -= 1;
        if lease.wanted > 0 {
            return;
        }
        let (shared, text) = (self.shared.clone(), std::mem::take(&mut lease.text));
        // Also of work that somebody has interrupted.
        let patience = Patience {
            cancelled: None,
            ..shared.patience.clone()
        };
        let let_go = async move {
            let found = patience
                .insist(|| shared.files.read(LEASE_NAME, LEASE_LEN_MAX, None))
                .await;
            if found.is_ok_and(|found| found == Some(text)) {
                let remove = || shared.files.remove(vec![LEASE_NAME.to_owned()]);
                patience.insist(remove).await.map_err(Fault::from)?;
            }
            Ok(())
        };
        // If it stays, the next owner is told whose it was.
        let _ = self.ask(let_go, "let go of it");
    }

    /// To be asked before anything is deleted.
    pub(super) fn still_owner(&self) -> Result<()> {
        let lease = self.lease.lock().unwrap_or_else(PoisonError::into_inner);
        self.check_lease(&lease)
    }

    fn check_lease(&self, lease: &Lease) -> Result<()> {
        let action = "delete from it";
        let holder = self.read_lease(action)?;
        match holder.as_ref() == Some(&lease.text) && !lease.text.is_empty() {
            true => Ok(()),
            false => Err(self.owned(action, holder)),
        }
    }

    fn owned(&self, action: &'static str, holder: Option<Bytes>) -> Error {
        let words = match holder {
            Some(text) => {
                let text = String::from_utf8_lossy(&text).into_owned();
                let shown: String = text
                    .lines()
                    .next()
                    .unwrap_or_default()
                    .chars()
                    .filter(|c| !c.is_control())
                    .collect();
                format!(
                    "another collects it: {shown}; if that one is surely dead, take over with --take-over, or delete {LEASE_NAME}"
                )
            }
            None => "another has taken it over".to_owned(),
        };
        Error::Refused {
            store: self.shared.name.clone(),
            action,
            source: words.into(),
        }
    }

    /// One line for people, and something that no other has.
    fn lease_text(&self, action: &'static str) -> Result<Bytes> {
        let unavailable = |error: std::io::Error| Error::Unavailable {
            store: self.shared.name.clone(),
            action,
            source: error.into(),
        };
        let token = random_uuid().map_err(unavailable)?;
        // Only for whoever reads it.
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let host = host.trim();
        let seconds = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let seconds = seconds.map_or(0, |since| since.as_secs());
        let pid = std::process::id();
        let text = format!("process {pid} on {host} since {seconds} (seconds of 1970)\n{token}\n");
        Ok(text.into())
    }

    fn create_lease(&self, text: Bytes, action: &'static str) -> Result<bool> {
        let shared = self.shared.clone();
        let create = async move {
            let create = || shared.files.create(LEASE_NAME, text.clone());
            shared.patience.insist(create).await.map_err(Fault::from)
        };
        self.ask(create, action)
    }

    fn read_lease(&self, action: &'static str) -> Result<Option<Bytes>> {
        let shared = self.shared.clone();
        let read = async move {
            let read = || shared.files.read(LEASE_NAME, LEASE_LEN_MAX, None);
            shared.patience.insist(read).await.map_err(Fault::from)
        };
        self.ask(read, action)
    }

    /// Deletes files.
    pub(super) fn remove_files(&self, names: Vec<String>, action: &'static str) -> Result<()> {
        for names in names.chunks(self.shared.files.removed_together()) {
            let (shared, names) = (self.shared.clone(), names.to_vec());
            let remove = async move {
                let remove = || shared.files.remove(names.clone());
                shared.patience.insist(remove).await.map_err(Fault::from)
            };
            self.ask(remove, action)?;
        }
        Ok(())
    }
}
