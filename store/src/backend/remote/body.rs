//! A body as it arrives: of bounded length, in memory while it is short, in a file without a name once it is long.

use std::fs::File;
use std::io::{self, Write as _};
use std::mem;
use std::path::PathBuf;

use bytes::{Bytes, BytesMut};

use crate::file::{map_file, nameless_file};

/// Where long bodies go instead of memory.
#[derive(Clone, Debug)]
pub(crate) struct Spool {
    /// Longest body kept in memory, in bytes.
    pub(crate) memory_len_max: usize,
    /// Folder of the nameless file that longer ones go to.
    pub(crate) folder: PathBuf,
}

/// What has arrived so far.
#[derive(Debug)]
pub(crate) struct Body {
    len_max: usize,
    spool: Option<Spool>,
    memory: BytesMut,
    file: Option<File>,
    len: usize,
}

/// Why a body is not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BodyFault {
    #[error("the answer is longer than the {len_max} bytes allowed")]
    TooLong { len_max: usize },
    #[error("cannot keep the answer in {}", folder.display())]
    Spool { folder: PathBuf, source: io::Error },
}

impl Body {
    /// Makes room for a body.
    ///
    /// - `announced`: its length in bytes, 0 where the server does not say.
    /// - Errors: [`BodyFault::TooLong`].
    pub(crate) fn new(announced: u64, len_max: usize, spool: Option<&Spool>) -> Result<Self, BodyFault> {
        let announced = usize::try_from(announced).unwrap_or(usize::MAX);
        if announced > len_max {
            return Err(BodyFault::TooLong { len_max });
        }
        let memory_len_max = spool.map_or(len_max, |spool| spool.memory_len_max);
        Ok(Self {
            len_max,
            spool: spool.cloned(),
            memory: BytesMut::with_capacity(announced.min(memory_len_max)),
            file: None,
            len: 0,
        })
    }

    /// Bytes that have arrived.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Whether it has grown too long for memory.
    pub(crate) fn is_spooled(&self) -> bool {
        self.file.is_some()
    }

    /// Takes the next piece.
    pub(crate) fn push(&mut self, piece: &[u8]) -> Result<(), BodyFault> {
        self.len += piece.len();
        if self.len > self.len_max {
            return Err(BodyFault::TooLong { len_max: self.len_max });
        }
        match &self.spool {
            Some(spool) if self.len > spool.memory_len_max => {
                let mut write = || -> io::Result<()> {
                    let mut file = match self.file.take() {
                        Some(file) => file,
                        None => nameless_file(&spool.folder)?,
                    };
                    // What came before, once.
                    file.write_all(&mem::take(&mut self.memory))?;
                    file.write_all(piece)?;
                    self.file = Some(file);
                    Ok(())
                };
                write().map_err(|source| BodyFault::Spool {
                    folder: spool.folder.clone(),
                    source,
                })
            }
            _ => {
                self.memory.extend_from_slice(piece);
                Ok(())
            }
        }
    }

    /// All of it.
    pub(crate) fn finish(self) -> Result<Bytes, BodyFault> {
        match (self.file, self.spool) {
            (Some(file), Some(Spool { folder, .. })) => {
                map_file(&file).map_err(|source| BodyFault::Spool { folder, source })
            }
            _ => Ok(self.memory.freeze()),
        }
    }
}
