//! The promises: what a look at the store is held to, after each step, after each opening and at the end.

use super::*;
use crate::pack::ChunkPlace;

impl World {
    /// Asks for a chunk and compares with what is known; `calm` says that no fault can be the reason of an error. Returns whether it is there.
    pub(super) fn look(&mut self, key: usize, calm: bool) -> Outcome<bool> {
        let store = &self.stores[key / CHUNKS];
        let id = chunk_of(key).id();
        let has = store.has_many(&[id]).map(|has| has[0]);
        let got = store.get_many(&[id]).pop().expect("one answer per id");
        let fact = self.facts[key];
        say!(
            self,
            "look at {key} ({fact:?}): {has:?} {:?}",
            got.as_ref().map(|chunk| chunk.bytes.len())
        );
        match (&has, &got) {
            (_, Ok(chunk)) if chunk.bytes[..] != chunk_of(key).bytes()[..] => {
                Err(format!("chunk {key} reads as other bytes"))
            }
            (Ok(has), Ok(_)) => {
                ensure!(*has || !calm, "chunk {key} can be read and is said not to be there");
                ensure!(
                    fact.there != There::No || self.is_damaged(),
                    "chunk {key} came back after it was removed or gone, at {:?}",
                    self.rows.places().get(&key_of(key))
                );
                Ok(true)
            }
            (Ok(has), Err(Error::Missing { .. })) => {
                ensure!(!has || self.is_damaged(), "chunk {key} is said to be there and is not");
                let must = matches!(fact.there, There::Yes | There::UntilPowerCut(_));
                ensure!(!must || self.is_damaged(), "chunk {key} is lost ({fact:?})");
                if must {
                    self.removed(key, false);
                }
                Ok(false)
            }
            (_, Err(Error::Corrupt { .. })) => {
                ensure!(self.is_damaged(), "chunk {key} is damaged");
                self.removed(key, false);
                Ok(false)
            }
            (has, got) => {
                ensure!(
                    !calm,
                    "chunk {key} cannot be read: {has:?} {:?}",
                    got.as_ref().map(|_| ())
                );
                Ok(false)
            }
        }
    }

    /// Looks at everything. What is there after opening is durable, what is not is gone.
    pub(super) fn check(&mut self, opened: bool) -> Outcome {
        for key in 0..KEYS {
            let there = self.look(key, true)?;
            let fact = &mut self.facts[key];
            if opened {
                fact.removed &= !there;
                fact.there = match fact.there {
                    There::Maybe if self.disk.counts().damages > 0 && !there => There::Maybe,
                    _ if there => There::Yes,
                    _ => There::No,
                };
            }
        }
        self.check_batches()?;
        let applied = self.applied()?;
        for (number, batch) in self.batches.iter_mut().enumerate() {
            if applied.contains(&number) {
                ensure!(!batch.gone, "batch {number} came late");
                // What the opening found it has made durable.
                batch.until_power_cut &= !opened;
            } else {
                batch.gone |= opened;
            }
        }
        Ok(())
    }

    /// The numbers of the batches that were applied, which are what was committed.
    fn applied(&self) -> Outcome<Vec<usize>> {
        self.numbers(&self.rows.commits())
    }

    fn numbers(&self, commits: &[(u64, Bytes)]) -> Outcome<Vec<usize>> {
        let mut numbers = Vec::new();
        for (_, bytes) in commits {
            let index = bytes
                .first_chunk::<8>()
                .map_or(usize::MAX, |index| u64::from_le_bytes(*index) as usize);
            ensure!(
                self.batches.get(index).is_some_and(|batch| batch.bytes == bytes),
                "a batch was applied that nobody committed"
            );
            numbers.push(index);
        }
        ensure!(
            numbers.is_sorted_by(|a, b| a < b),
            "batches were applied out of order or twice: {numbers:?}"
        );
        Ok(numbers)
    }

    pub(super) fn check_batches(&self) -> Outcome {
        let applied = self.applied()?;
        for (number, batch) in self.batches.iter().enumerate() {
            if !applied.contains(&number) {
                ensure!(
                    !batch.acknowledged || self.is_damaged(),
                    "the acknowledged batch {number} is lost"
                );
                continue;
            }
            for &key in &batch.keys {
                let fact = &self.facts[key];
                ensure!(
                    fact.removed_at > batch.step
                        || self.is_damaged()
                        || !matches!(fact.there, There::No)
                        || self.queued.contains(&key),
                    "batch {number} names chunk {key}, which is not there ({fact:?})"
                );
            }
        }
        Ok(())
    }

    /// Makes the locations again from the packs alone.
    pub(super) fn check_rebuilt(&self) -> Outcome {
        let rows = Arc::new(Rows::new(false));
        let options = PackOptions {
            read_only: true,
            ..self.options()
        };
        let (engine, _) = self
            .try_open(rows.clone(), options)
            .map_err(|error| format!("making the locations again failed: {error:?}"))?;
        if self.is_damaged() {
            return Ok(());
        }
        let engine = Arc::new(engine);
        let live = self.rows.places();
        let rebuilt = rows.places();
        for key in 0..KEYS {
            let name = key_of(key);
            if live.contains_key(&name) {
                let store = PackStore::new(engine.clone(), name.domain);
                let got = store.get_many(&[name.id]).pop().expect("one answer per id");
                ensure!(
                    got.as_ref()
                        .is_ok_and(|chunk| chunk.bytes[..] == chunk_of(key).bytes()[..]),
                    "chunk {key} is there, and not once the locations are made again: {:?}",
                    got.map(|_| ())
                );
            } else {
                ensure!(
                    !self.facts[key].removed || !rebuilt.contains_key(&name),
                    "chunk {key} comes back when the locations are made again"
                );
            }
        }
        let batches = self.numbers(&rows.commits())?;
        ensure!(
            self.forgets_batches || batches == self.applied()?,
            "other batches when the locations are made again: {batches:?}, not {:?}",
            self.applied()?
        );
        Ok(())
    }

    /// All faults are over: everything works, everything is still there, and space comes back.
    pub(super) fn finish(&mut self) -> Outcome {
        self.disk.set_room(None);
        self.disk.set_calm(true);
        self.rows.calm();
        self.close()?;
        self.disk.set_calm(true);
        let keys: Vec<usize> = (0..KEYS).filter(|_| self.random.bool()).collect();
        self.step += 1;
        for key in keys {
            let removed = self.stores[key / CHUNKS].remove_many(&[chunk_of(key).id()]);
            removed.map_err(|error| format!("a removal failed on a good disk: {error:?}"))?;
            self.removed(key, true);
        }
        if !self.is_damaged() {
            self.check(false)?;
        }
        let forget = self.may_forget() && self.random.bool();
        if !forget {
            let sealed = self.try_snapshot()?;
            ensure!(sealed || self.is_damaged(), "no snapshot on a good disk");
        }
        let options = CompactOptions {
            live_share_min: 0.5,
            commits_kept_from: LogPosition {
                pack: if forget { u32::MAX } else { 0 },
                offset: 0,
            },
        };
        self.forgets_batches |= forget;
        for _ in 0..2 {
            let compacted = self.engine().compact(&options);
            say!(self, "compact {compacted:?}");
            compacted.map_err(|error| format!("compaction failed on a good disk: {error:?}"))?;
            self.check(false)?;
            self.close()?;
            self.disk.set_calm(true);
        }
        self.check_rebuilt()?;
        if self.is_damaged() {
            return Ok(());
        }
        // Record heads and footers, and what the pack that is being written may have of its own.
        let record = |place: &ChunkPlace| place.len as usize + 160;
        let live: usize = self.rows.places().values().map(record).sum();
        let batches: usize = self.rows.commits().iter().map(|(_, batch)| batch.len() + 64).sum();
        ensure!(
            self.disk.used() <= 2 * (live + batches) + 3 * (8 << 10),
            "{} bytes are used, for {live} bytes of chunks",
            self.disk.used()
        );
        Ok(())
    }
}
