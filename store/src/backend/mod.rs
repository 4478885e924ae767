//! Where chunks can be: one file a backend.

pub(crate) mod flat;
pub(crate) mod http;
pub(crate) mod ssh;
