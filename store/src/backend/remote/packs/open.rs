//! Opening a store and looking again: one listing, and the ends of packs that are new.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use cairn_formats::{GONE_LEN_MAX, GoneChunk, PackFooter, PackHeader, PackUuid};

use super::files::PackFiles;
use super::footers::{FooterFault, Footers, decode_footer};
use super::known::Known;
use super::names::{FORMAT_NAME, Format, Named, digest_name, parse_name};
use super::slabs::Slabs;
use super::{RemotePackOptions, RemotePackStore, Shared, Writing};
use crate::backend::remote::patience::Patience;
use crate::backend::remote::workers::Workers;
use crate::backend::remote::{Fault, Page, lost};
use crate::pack::Suspect;
use crate::{Error, Result, StoreName};

/// Bytes of a pack's end that are read first: a footer of 5 000 chunks.
const END_LEN: u64 = 256 << 10;
/// Most files of one store.
const FILES_MAX: usize = 1 << 22;

/// A pack or list that is new in a listing.
#[derive(Clone, Debug)]
struct Found {
    name: String,
    len: u64,
    named: Named,
}

/// What one of them holds.
enum Read {
    Pack {
        uuid: PackUuid,
        footer: PackFooter,
        /// The footer's bytes, if they came from the far end.
        bytes: Option<Bytes>,
        header_seen: bool,
    },
    Gone(Vec<GoneChunk>),
    /// Somebody deleted it meanwhile.
    Vanished,
    /// Not whole, in words.
    Suspect(String),
}

/// How a store is opened, besides its files.
pub(super) struct Opening {
    pub(super) name: StoreName,
    pub(super) patience: Patience,
    pub(super) options: RemotePackOptions,
    pub(super) read_only: bool,
}

impl<F: PackFiles> RemotePackStore<F> {
    /// Opens a store that is there.
    ///
    /// - Returns what is not whole, too: it is left alone.
    pub(super) fn open(
        files: Arc<F>,
        workers: Arc<Workers>,
        format: &Format,
        opening: Opening,
    ) -> Result<(Self, Vec<Suspect>)> {
        let options = opening.options;
        let footers = options.cache.as_deref().map(|cache| Footers::new(cache, format.store));
        let disk = options.cache.as_ref().filter(|_| options.cache_len > 0);
        let disk = disk.map(|cache| (cache.join(format.store.to_string()).join("slabs"), options.cache_len));
        let store = Self {
            shared: Arc::new(Shared {
                name: opening.name,
                files,
                patience: opening.patience,
                known: RwLock::new(Known::default()),
                slabs: Slabs::new(options.memory_len, disk),
                footers,
            }),
            workers,
            options,
            algorithm: format.algorithm,
            read_only: opening.read_only,
            writing: Writing::default(),
            lease: Mutex::default(),
            deleting: Mutex::default(),
            listed: Mutex::default(),
        };
        store.refresh("list its packs")?;
        let suspects = store.shared.known().suspects();
        Ok((store, suspects))
    }

    /// Looks what packs there are now.
    pub(super) fn refresh(&self, action: &'static str) -> Result<()> {
        self.refresh_if_older(action, Duration::ZERO).map(|_| ())
    }

    /// The same, unless somebody did not so long ago. Returns whether it looked.
    pub(super) fn refresh_if_older(&self, action: &'static str, age: Duration) -> Result<bool> {
        let mut listed = self.listed.lock().unwrap_or_else(PoisonError::into_inner);
        if listed.is_some_and(|listed| listed.elapsed() < age) {
            return Ok(false);
        }
        // What is sent while the listing is made may not be in it.
        let slots = self.shared.known().slots();
        let files = self.list(action)?;
        let names: HashSet<&str> = files.iter().map(|found| &*found.name).collect();
        let fresh: Vec<Found> = {
            let known = self.shared.known();
            let is_fresh = |found: &&Found| {
                let name = &found.name;
                !known.has_name(name) && !known.lists.contains_key(name) && !known.suspects.contains_key(name)
            };
            files.iter().filter(is_fresh).cloned().collect()
        };
        let read = self.read_found(fresh, action)?;
        let mut known = self.shared.known_mut();
        known.suspects.retain(|name, _| names.contains(&**name));
        known.lists.retain(|name, _| names.contains(&**name));
        // Lists first: they wait for their packs.
        for (found, read) in &read {
            if let Read::Gone(gone) = read {
                let before = known.chunks();
                known.take_away(gone);
                known.losses += before - known.chunks();
                known.lists.insert(found.name.clone(), gone.clone());
            }
        }
        for (found, read) in read {
            match read {
                Read::Pack {
                    uuid,
                    footer,
                    bytes,
                    header_seen,
                } => {
                    if let (Some(footers), Some(bytes)) = (&self.shared.footers, bytes) {
                        footers.put(&found.name, &bytes);
                    }
                    // One of ours that was sent meanwhile has its name already.
                    if known
                        .add(&found.name, uuid, found.len, &footer, header_seen, false)
                        .is_none()
                        && !known.has_name(&found.name)
                    {
                        let words = "another pack has the same id".to_owned();
                        known.suspects.insert(found.name, words);
                    }
                }
                Read::Suspect(what) => {
                    known.suspects.insert(found.name, what);
                }
                Read::Gone(_) | Read::Vanished => {}
            }
        }
        let mut vanished = known.vanished(&names);
        vanished.retain(|&slot| slot < slots);
        for &slot in &vanished {
            known.forget(slot);
        }
        if !vanished.is_empty() {
            let lost = known.sweep();
            known.losses += lost;
        }
        drop(known);
        if let Some(footers) = &self.shared.footers
            && (listed.is_none() || !vanished.is_empty())
        {
            footers.keep(&names);
        }
        *listed = Some(Instant::now());
        Ok(true)
    }

    /// Packs and lists, whoever made them.
    fn list(&self, action: &'static str) -> Result<Vec<Found>> {
        let mut found = Vec::new();
        let mut after: Option<String> = None;
        loop {
            let shared = self.shared.clone();
            let from = after.take();
            let list = async move {
                let list = || shared.files.list_packs(from.as_deref());
                shared.patience.insist(list).await.map_err(Fault::from)
            };
            let Page { files, more_after } = self.ask(list, action)?;
            found.extend(files.into_iter().filter_map(|(name, len)| {
                let named = parse_name(&name);
                matches!(named, Named::Pack(..) | Named::Gone(_)).then_some(Found { name, len, named })
            }));
            if found.len() > FILES_MAX {
                return Err(Error::Refused {
                    store: self.shared.name.clone(),
                    action,
                    source: format!("it holds more than {FILES_MAX} files").into(),
                });
            }
            match more_after {
                Some(more) => after = Some(more),
                None => return Ok(found),
            }
        }
    }

    /// Runs one request.
    pub(super) fn ask<T: Send + 'static>(
        &self,
        job: impl Future<Output = std::result::Result<T, Fault>> + Send + 'static,
        action: &'static str,
    ) -> Result<T> {
        match self.workers.run(job) {
            Some(answer) => answer.map_err(|fault| fault.into_error(&self.shared.name, action)),
            None => Err(lost(&self.shared.name, action)),
        }
    }

    /// Reads the ends of packs, and lists, from here or from there.
    fn read_found(&self, fresh: Vec<Found>, action: &'static str) -> Result<Vec<(Found, Read)>> {
        let mut done = Vec::with_capacity(fresh.len());
        let mut asked = Vec::new();
        for found in fresh {
            let kept = match (&self.shared.footers, found.named) {
                (Some(footers), Named::Pack(uuid, root)) => {
                    footers.get(&found.name, found.len, &root).map(|footer| (uuid, footer))
                }
                _ => None,
            };
            match kept {
                Some((uuid, footer)) => {
                    let read = Read::Pack {
                        uuid,
                        footer,
                        bytes: None,
                        header_seen: false,
                    };
                    done.push((found, read));
                }
                None => asked.push(found),
            }
        }
        let wanted: Arc<[Found]> = asked.into();
        let (shared, jobs) = (self.shared.clone(), wanted.clone());
        let mut outcome = Ok(());
        let mut answered = 0;
        self.workers.run_many(
            wanted.len(),
            move |index| {
                let (shared, found) = (shared.clone(), jobs[index].clone());
                async move { shared.read_new(&found).await }
            },
            |index, read| {
                answered += 1;
                match read {
                    Ok(read) => done.push((wanted[index].clone(), read)),
                    Err(fault) if outcome.is_ok() => outcome = Err(fault.into_error(&self.shared.name, action)),
                    Err(_) => {}
                }
                outcome.is_ok()
            },
        );
        outcome?;
        if answered < wanted.len() {
            return Err(lost(&self.shared.name, action));
        }
        // The same places for the same packs, however the answers came.
        done.sort_unstable_by(|(a, _), (b, _)| a.name.cmp(&b.name));
        Ok(done)
    }
}

impl<F: PackFiles> Shared<F> {
    async fn read_new(&self, found: &Found) -> std::result::Result<Read, Fault> {
        match found.named {
            Named::Pack(uuid, root) => self.read_end(found, uuid, &root).await,
            Named::Gone(root) => {
                let read = || self.files.read(&found.name, GONE_LEN_MAX, None);
                let Some(bytes) = self.patience.insist(read).await.map_err(Fault::from)? else {
                    return Ok(Read::Vanished);
                };
                Ok(match GoneChunk::decode_all(&bytes) {
                    Ok(_) if *blake3::hash(&bytes).as_bytes() != root => {
                        Read::Suspect("it has another digest than its name".to_owned())
                    }
                    Ok(gone) => Read::Gone(gone),
                    Err(error) => Read::Suspect(error.to_string()),
                })
            }
            // Not kept by the listing.
            Named::Temporary | Named::Other => Ok(Read::Vanished),
        }
    }

    async fn read_end(&self, found: &Found, uuid: PackUuid, root: &[u8; 32]) -> std::result::Result<Read, Fault> {
        let len = found.len;
        let mut start = len.saturating_sub(END_LEN);
        if len == 0 {
            return Ok(Read::Suspect("it is empty".to_owned()));
        }
        let mut bytes = Vec::new();
        loop {
            let end = len - bytes.len() as u64;
            let read = || self.files.read_range(&found.name, start, end);
            let Some(before) = self.patience.insist(read).await.map_err(Fault::from)? else {
                return Ok(Read::Vanished);
            };
            bytes.splice(..0, before);
            let footer = match decode_footer(&bytes, len, root) {
                Ok(footer) => footer,
                // Its length is that of so many entries, which the tail's check has bounded by the pack's own.
                Err(FooterFault::Short { start: at }) if at < start => {
                    start = at;
                    continue;
                }
                Err(FooterFault::Short { .. }) => return Ok(Read::Suspect("its footer has no beginning".to_owned())),
                Err(FooterFault::Bad(words)) => return Ok(Read::Suspect(words)),
            };
            // A short pack came whole.
            if start == 0 {
                match PackHeader::decode(&bytes) {
                    Ok(header) if header.uuid == uuid => {}
                    Ok(_) => return Ok(Read::Suspect("its header is that of another pack".to_owned())),
                    Err(error) => return Ok(Read::Suspect(error.to_string())),
                }
            }
            let footer_at = bytes.len() - (len - footer.start) as usize;
            let kept = Bytes::copy_from_slice(&bytes[footer_at..]);
            return Ok(Read::Pack {
                uuid,
                footer,
                bytes: Some(kept),
                header_seen: start == 0,
            });
        }
    }
}

/// Whether these files hold packs: what their `FORMAT` says.
pub(super) async fn read_format<F: PackFiles>(
    files: &F,
    patience: &Patience,
) -> std::result::Result<Option<Bytes>, Fault> {
    let read = || files.read(FORMAT_NAME, super::names::FORMAT_LEN_MAX, None);
    match patience.insist(read).await.map_err(Fault::from) {
        // Then nothing else can be read either, or there is none; whoever goes on is told.
        Err(fault) if files.may_be_missing(&fault) => Ok(None),
        found => found,
    }
}

/// A store of this digest and no other.
pub(super) fn check_digest(name: &StoreName, format: &Format, digest: cairn_formats::DigestAlgorithm) -> Result<()> {
    if format.algorithm == digest {
        return Ok(());
    }
    let words = format!(
        "its chunks are named by {}: say so with --digest",
        digest_name(format.algorithm)
    );
    Err(Error::Refused {
        store: name.clone(),
        action: "open",
        source: words.into(),
    })
}
