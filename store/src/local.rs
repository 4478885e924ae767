//! A folder of this machine as what it is: packs, or a file per chunk.
//!
//! What packs cannot do is refused when they are opened, not when the first chunk comes. Not here: making a folder a pack
//! store (`pack/`), and what else a location may be (`open.rs`).

use std::path::Path;
use std::sync::Arc;

use cairn_formats::ChunkForm;

use crate::{
    ChunkStore, Error, FlatOptions, FlatStore, PackOptions, PackStore, Prune, Result, StoreName, StoreOptions,
};

/// A store in a folder.
#[derive(Debug)]
pub enum LocalStore {
    /// A file per chunk, in casync's layout.
    Flat(Arc<FlatStore>),
    /// A few append-only files.
    Packs(PackStore),
}

impl LocalStore {
    /// Opens a folder, which must exist. Packs that are only read are seen as they are now: what another program adds later is
    /// not.
    ///
    /// Errors: [`Error::Refused`] for a folder that cannot be read, and for packs where the options ask for encryption, or for
    /// writing plain chunks, or for writing while another program does; [`Error::Unavailable`].
    pub fn open(path: &Path, options: &StoreOptions) -> Result<Self> {
        if !PackStore::is_at(path) {
            let options = FlatOptions {
                form: options.form,
                read_only: options.read_only,
                sync: options.sync,
                sealing: options.sealing.clone(),
                ..FlatOptions::default()
            };
            return Ok(Self::Flat(Arc::new(FlatStore::open(path, options)?)));
        }
        let refused = |action, what: &str| Error::Refused {
            store: StoreName::new(path.display().to_string()),
            action,
            source: what.into(),
        };
        if options.sealing.is_on() {
            let what = "packs hold their chunks as they are; keep encrypted chunks in a flat folder";
            return Err(refused("encrypt chunks", what));
        }
        if options.form == ChunkForm::Plain && !options.read_only {
            let what = "packs hold zstd frames; leave out --uncompressed, or write to a flat folder";
            return Err(refused("store plain chunks", what));
        }
        let pack_options = PackOptions {
            algorithm: options.digest,
            sync: options.sync,
            read_only: options.read_only,
            ..PackOptions::default()
        };
        let (store, report) = PackStore::open(path, pack_options)?;
        for suspect in &report.suspects {
            (options.on_suspect)(store.name(), suspect);
        }
        Ok(Self::Packs(store))
    }

    /// Its chunks.
    pub fn chunks(&self) -> &dyn Prune {
        match self {
            Self::Flat(store) => &**store,
            Self::Packs(store) => store,
        }
    }

    /// The packs, if it is of that kind.
    pub fn packs(&self) -> Option<&PackStore> {
        match self {
            Self::Flat(_) => None,
            Self::Packs(store) => Some(store),
        }
    }

    /// As any store whose chunks can be listed and deleted.
    pub fn into_prunable(self) -> Arc<dyn Prune> {
        match self {
            Self::Flat(store) => store,
            Self::Packs(store) => Arc::new(store),
        }
    }

    /// As any store.
    pub fn into_shared(self) -> Arc<dyn ChunkStore> {
        match self {
            Self::Flat(store) => store,
            Self::Packs(store) => Arc::new(store),
        }
    }
}

#[cfg(test)]
mod tests {
    use cairn_formats::{ChunkCipher, CipherAlgorithm};

    use super::*;
    use crate::{Sealing, contract};

    fn packs() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        PackStore::open(folder.path(), PackOptions::default()).unwrap();
        folder
    }

    #[test]
    fn a_folder_opens_as_what_it_is() {
        let (flat, packs) = (tempfile::tempdir().unwrap(), packs());
        let options = StoreOptions::default();
        let store = LocalStore::open(flat.path(), &options).unwrap();
        assert!(store.packs().is_none());
        contract::writable(&*store.into_shared());
        let store = LocalStore::open(packs.path(), &options).unwrap();
        assert!(store.packs().is_some());
        contract::writable(&*store.into_shared());
    }

    #[test]
    fn what_packs_cannot_do_is_refused_at_once() {
        let folder = packs();
        let refused = |options: &StoreOptions, word: &str| {
            let error = LocalStore::open(folder.path(), options).unwrap_err();
            let source = std::error::Error::source(&error).unwrap().to_string();
            assert!(source.contains(word), "{error}: {source}");
        };
        let plain = StoreOptions {
            form: ChunkForm::Plain,
            ..StoreOptions::default()
        };
        refused(&plain, "--uncompressed");
        let key = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
        let sealed = StoreOptions {
            sealing: Sealing::with(ChunkCipher::new(CipherAlgorithm::default(), &key.parse().unwrap())),
            ..StoreOptions::default()
        };
        refused(&sealed, "encrypted");
        // Reading finds both forms anyway.
        let read = StoreOptions {
            read_only: true,
            ..plain
        };
        LocalStore::open(folder.path(), &read).unwrap();
    }
}
