//! How a verb ends other than well: one line for people, an object for programs, an exit code for scripts.

use std::io;

use cairn_store::Error as StoreError;

use crate::engine;
use crate::engine::mount::MountFault;

/// Exit codes; `docs/exit-codes.md` explains them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// It could not be done.
    Failed = 1,
    /// The command line is wrong.
    Usage = 2,
    /// It was done, but something is bad or missing; it was listed.
    Incomplete = 3,
    /// Stopped by a signal.
    Interrupted = 130,
}

/// Why a verb did not end well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    /// The exit code.
    pub(crate) exit: Exit,
    /// What is wrong: which file, which offset or chunk.
    pub(crate) message: String,
    /// What to try.
    pub(crate) hint: Option<&'static str>,
}

/// Result of a verb.
pub(crate) type Outcome<T = ()> = Result<T, Failure>;

impl Failure {
    /// It could not be done.
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self {
            exit: Exit::Failed,
            message: message.into(),
            hint: None,
        }
    }

    /// The command line is wrong.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self {
            exit: Exit::Usage,
            message: message.into(),
            hint: Some("see --help"),
        }
    }

    /// Something is bad or missing, and was listed.
    pub(crate) fn incomplete(message: impl Into<String>) -> Self {
        Self {
            exit: Exit::Incomplete,
            message: message.into(),
            hint: None,
        }
    }

    /// With a word on what to try.
    pub(crate) fn try_this(mut self, hint: &'static str) -> Self {
        self.hint = Some(hint);
        self
    }

    /// An I/O error on a named thing.
    pub(crate) fn io(name: impl std::fmt::Display, action: &str, error: &io::Error) -> Self {
        Self::new(format!("{name}: cannot {action}: {error}"))
    }

    /// The line on standard error, or the object in its place.
    pub(crate) fn line(&self, json: bool) -> String {
        // Input names may hold anything; a message is one line whatever they hold.
        let message = self.message.replace(['\n', '\r'], " ");
        if json {
            let error = serde_json::json!({ "message": message, "hint": self.hint, "exit_code": self.exit as u8 });
            return serde_json::json!({ "error": error }).to_string();
        }
        match self.hint {
            Some(hint) => format!("cairn: {message}; {hint}"),
            None => format!("cairn: {message}"),
        }
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        let hint = match &error {
            StoreError::Missing { .. } => {
                Some("name another store with -s, or store the chunk again with `cairn chop`")
            }
            StoreError::NoIndex { .. } => Some("check the name, or list what is there"),
            StoreError::Corrupt { .. } => Some("remove damaged chunks with `cairn verify -r` and store them again"),
            StoreError::ReadOnly { .. } => Some("choose a store that can be written"),
            StoreError::Refused { .. } => Some("check the location, the credentials and the permissions"),
            StoreError::Unavailable { .. } => Some("a second run goes on where this one stopped"),
            _ => None,
        };
        Self {
            exit: Exit::Failed,
            message: chain(&error),
            hint,
        }
    }
}

impl From<engine::Error> for Failure {
    fn from(error: engine::Error) -> Self {
        let hint = match &error {
            engine::Error::Store(_) => {
                let engine::Error::Store(store) = error else {
                    unreachable!("matched above")
                };
                return store.into();
            }
            engine::Error::Cancelled(_) => {
                return Self {
                    exit: Exit::Interrupted,
                    message: error.to_string(),
                    hint: None,
                };
            }
            engine::Error::Chunk { .. } => Some("the store or the index is damaged: try `cairn verify` on the store"),
            engine::Error::Mount { fault, .. } => Some(match fault {
                MountFault::NoDevice => "load the kernel's module (`modprobe fuse`), or let this container use it",
                MountFault::Device => "ask an administrator for the right to use it, or run as root",
                MountFault::NoHelper => "install it (Debian: fuse3), or run as root",
                MountFault::NotEmpty => "name an empty folder",
                MountFault::Folder(_) => "make the folder, or name another",
                MountFault::Refused(_) => {
                    "look whether it is mounted on already, and at /etc/fuse.conf for --allow-other"
                }
            }),
            engine::Error::State { .. } => Some("name another file, or remove it to begin anew"),
            engine::Error::Mismatch { .. } | engine::Error::Length { .. } => {
                Some("the file is not the one that was indexed: make a new index")
            }
            _ => None,
        };
        Self {
            exit: Exit::Failed,
            message: chain(&error),
            hint,
        }
    }
}

pub(crate) use cairn_store::error_chain as chain;
