//! What could not be kept or restored exactly, to be told at the end.

use std::fmt;

/// Notes that are kept word for word; further ones are counted.
const KEPT_MAX: usize = 1000;

/// One entry and what is the matter with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Note {
    path: Vec<u8>,
    what: String,
}

/// Notes of one run.
#[derive(Clone, Debug, Default)]
pub(crate) struct Notes {
    kept: Vec<Note>,
    count: u64,
}

impl Note {
    /// - `path`: below the tree's root, empty for the root itself.
    pub(crate) fn new(path: &[u8], what: String) -> Self {
        Self {
            path: path.to_owned(),
            what,
        }
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = if self.path.is_empty() { b"." } else { &self.path[..] };
        write!(f, "{}: {}", path.escape_ascii(), self.what)
    }
}

impl Notes {
    /// Adds one.
    pub(crate) fn push(&mut self, note: Note) {
        self.count += 1;
        if self.kept.len() < KEPT_MAX {
            self.kept.push(note);
        }
    }

    /// How many there were.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// The first of them.
    pub(crate) fn kept(&self) -> &[Note] {
        &self.kept
    }
}
