//! A file that is there to be deleted: room for the collector on a disk that is full.
//!
//! Taking chunks away writes records first, and compaction moves what is left. The file has a pack's length, written with bytes
//! that no file system stores as nothing.

use std::io;

use super::PackEngine;
use super::log::is_full;
use crate::{Error, Result};

const NAME: &str = "RESERVE";

/// Written and removed again, to see whether there is room.
const PROBE_NAME: &str = "PROBE";

/// Bytes written at once.
const PIECE_LEN: u64 = 1 << 20;

impl PackEngine {
    /// Makes sure that the reserve is there, as long as a pack.
    ///
    /// Errors: [`Error::Unavailable`], of which [`Error::is_full`] tells that there is no room for it; then there is none.
    pub fn keep_reserve(&self) -> Result<()> {
        self.writable()?;
        let len = self.options.pack_len;
        let there = self.host.open(NAME).and_then(|file| file.len());
        match there {
            Ok(there) if there >= len => return Ok(()),
            // Made by a run that was killed, or for shorter packs.
            Ok(_) => self.remove_reserve().map(drop)?,
            Err(_) => {}
        }
        let failed = |error| self.unavailable("keep room in reserve", error);
        let file = self.host.create(NAME).map_err(failed)?;
        let made = self.fill(len, &|at, piece| file.write_at(at, &[piece]));
        if let Err(error) = made.and_then(|()| file.sync()) {
            self.remove_reserve()?;
            return Err(failed(error));
        }
        Ok(())
    }

    /// Gives the reserve up; returns whether there was one. Its room is free when this returns.
    pub fn release_reserve(&self) -> Result<bool> {
        self.writable()?;
        self.remove_reserve()
    }

    /// Whether so many bytes can be written just now, which is tried. Others may take the room the next moment.
    pub fn has_room(&self, len: u64) -> Result<bool> {
        self.writable()?;
        let failed = |error| self.unavailable("see whether there is room", error);
        // Of a run that was killed.
        let _ = self.host.remove(PROBE_NAME);
        let written = self.host.create(PROBE_NAME).and_then(|file| {
            self.fill(len, &|at, piece| file.write_at(at, &[piece]))?;
            file.sync()
        });
        let removed = match self.host.remove(PROBE_NAME) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(error)),
            _ => Ok(()),
        };
        match written {
            Err(error) if is_full(&error) => removed.map(|()| false),
            written => written.map_err(failed).and(removed).map(|()| true),
        }
    }

    fn remove_reserve(&self) -> Result<bool> {
        let removed = match self.host.remove(NAME) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            removed => removed.and_then(|()| self.host.sync_names()),
        };
        removed.map_err(|error| self.unavailable("give up the room in reserve", error))?;
        Ok(true)
    }

    fn fill(&self, len: u64, write: &dyn Fn(u64, &[u8]) -> io::Result<()>) -> io::Result<()> {
        let mut noise = vec![0; PIECE_LEN as usize];
        blake3::Hasher::new()
            .update(&self.host.random()?)
            .finalize_xof()
            .fill(&mut noise);
        let mut at = 0;
        while at < len {
            let piece = (len - at).min(PIECE_LEN);
            write(at, &noise[..piece as usize])?;
            at += piece;
        }
        Ok(())
    }
}

impl Error {
    /// Whether it failed for want of room.
    pub fn is_full(&self) -> bool {
        let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(self);
        while let Some(error) = cause {
            if error.downcast_ref::<io::Error>().is_some_and(is_full) {
                return true;
            }
            cause = error.source();
        }
        false
    }
}
