//! Trees on disk and their archives: reading a folder as an archive, and putting an archive back on disk.
//!
//! Everything happens below open folder handles, no link is ever followed inside a tree, and what a file system cannot take or
//! give is a note that names the entry.

#![allow(dead_code, unused_imports, reason = "restoring, which comes next, uses the rest")]

mod acl;
mod exclude;
mod features;
mod metadata;
mod note;
mod system;
mod walk;

pub(crate) use note::{Note, Notes};
pub(crate) use walk::{FileSpan, TreeReader, WalkOptions};
