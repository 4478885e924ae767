//! What the black-box tests share; the tests are under `tests/`, a file a topic.
//!
//! Everything here panics when it cannot do its work: its only users are tests, and what is missing fails them.

pub mod cuts;
pub mod mounted;
pub mod s3;
pub mod sshd;
pub mod support;
pub mod trees;
