//! Stores made of stores: one file a wrapper.

pub(crate) mod cache;
pub(crate) mod chain;
pub(crate) mod group;
pub(crate) mod limit;
pub(crate) mod memory;
pub(crate) mod metrics;
pub(crate) mod mirror;
pub(crate) mod verify;

#[cfg(test)]
mod tests;
