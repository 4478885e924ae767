//! The verbs: arguments in, one call of the engine, a report out. Verbs that share their work share a file.

pub(crate) mod about;
pub(crate) mod admin;
pub(crate) mod copy;
pub(crate) mod extract;
pub(crate) mod inspect;
pub(crate) mod list;
pub(crate) mod make;
pub(crate) mod mount;
pub(crate) mod mount_index;
pub(crate) mod mounting;
mod output;
pub(crate) mod prune;
pub(crate) mod remote;
pub(crate) mod serve;
pub(crate) mod sign;
pub(crate) mod store;
pub(crate) mod tar;
pub(crate) mod untar;
pub(crate) mod verify;
