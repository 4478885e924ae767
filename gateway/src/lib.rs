//! The doors of the server: a folder a protocol, each of which parses, authorises, calls the index once and answers.
//!
//! Not here: chunk and index roots (`gateway/roots`, which needs no index), who may do what (`gateway/identity`), disks.

pub mod admin;
pub mod cdn;
mod codes;
mod date;
pub mod faces;
pub mod grpc;
pub mod outgoing;
mod pool;
pub mod s3;
mod settings;

pub use pool::PoolOptions;
