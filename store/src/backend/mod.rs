//! Where chunks can be: one file a backend.

pub(crate) mod bucket;
pub(crate) mod flat;
pub(crate) mod http;
pub(crate) mod remote;
pub(crate) mod sftp;
pub(crate) mod ssh;
