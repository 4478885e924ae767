//! HTTP chunk and index roots.
