//! Backups as the door knows them: somebody else, who sees disks, takes them.

use std::fmt::Debug;

use serde_json::Value;

/// Takes backups of all that the server keeps, while it is used.
pub trait Backups: Send + Sync + Debug {
    /// Takes one. It may block for as long as a pack is copied.
    ///
    /// - `name`: of 1 to 64 of `a-z A-Z 0-9 . _ -`, the first a letter or digit.
    fn create(&self, name: &str) -> Result<Backup, BackupError>;

    /// Those that are whole, by name.
    fn list(&self) -> Result<Vec<Backup>, BackupError>;
}

/// A backup that is whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backup {
    /// Its name.
    pub name: String,
    /// When it was begun, in seconds since 1970 UTC.
    pub taken_at: u64,
    /// What is in it, as a JSON object.
    pub contents: Value,
}

/// Why there is no backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BackupError {
    /// There is one of this name.
    Exists,
    /// Another is being taken.
    Busy,
    /// It could not be written; why, the server has logged.
    Failed,
}
