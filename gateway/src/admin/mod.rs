//! The admin door: a JSON API for those who run the server, on its internal listener. [`docs/admin.md`] is the page for people.
//!
//! A row of `route` is the only way to a handler; `error` has every code and message; `shapes` how things are shown; settings of
//! buckets are shared with the S3 door (`crate::settings`). A caller shows one token, compared in constant time, and sees all
//! tenants: which one a request is about it says itself, and nothing of another is found under it.
//!
//! [`docs/admin.md`]: ../../../docs/admin.md

mod backups;
pub(crate) mod error;
mod ops;
mod query;
mod request;
mod route;
mod service;
mod shapes;
mod upkeep;

pub use backups::{Backup, BackupError, Backups};
pub use service::{Admin, AdminOptions};
pub use upkeep::{Upkeep, UpkeepError, UpkeepRun, UpkeepState, UpkeepTask};
