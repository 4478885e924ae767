//! Stores made of stores: one file a wrapper.

pub(crate) mod cache;
pub(crate) mod chain;
pub(crate) mod group;
