//! Where chunks can be: one file a backend.

pub(crate) mod flat;
pub(crate) mod http;
pub(crate) mod remote;
pub(crate) mod s3;
pub(crate) mod sftp;
pub(crate) mod ssh;
