//! HTTP chunk roots and index roots, on the store alone: one piece of code for `cairnd` and for the tool's
//! `chunk-server` and `index-server`.
//!
//! A root answers requests of one store or one folder of indexes ([`ChunkRoot`], [`IndexRoot`]); [`serve`] runs any
//! [`Handler`] on a listener. Not here: configuration, names of stores, metrics pages, users (the server); how chunks lie
//! on disk (`store`).

mod access;
mod chunk_root;
mod conditions;
mod flights;
mod index_root;
mod linger;
mod pull;
mod reads;
mod reply;
mod serve;
mod tls;
mod upload;
mod workers;
mod zero;

pub use access::{Access, Grant, Token};
pub use chunk_root::{ChunkRoot, ChunkRootOptions};
pub use index_root::{IndexKeeper, IndexNames, IndexRoot, IndexRootError, IndexRootOptions, KeepError, missing_words};
pub use reads::VerifyReads;
pub use reply::{Body, refuse, reply, text};
pub use serve::{H2c, Handler, Peer, ServeOptions, Shutdown, ShutdownTrigger, Tls, serve, shutdown_channel};
pub use tls::{TlsError, server_tls};
pub use upload::Upload;
pub use workers::{BodyMemory, WorkerOptions, Workers};
