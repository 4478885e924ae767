//! A disk in memory that does what real ones do at the worst moment: it loses and tears what was not synced, in any order,
//! fails, fills up, flips bits, writes to the wrong place, and loses power at any operation.
//!
//! Everything follows from the seed. What has been synced is kept apart from what reads show: after a power cut only the first
//! is left, with any choice of the sectors and names that were on their way. Not here: who uses it (`workload.rs`).

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::pack::{Host, HostFile};

/// What a disk writes whole or not at all.
const SECTOR: usize = 512;

/// Chances of faults, in 10 000 operations of the kind.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// Reads.
    pub read_error: u32,
    /// Writes and cuts.
    pub write_error: u32,
    /// Syncs of files.
    pub sync_error: u32,
    /// A sector that is synced to another place than it should be; counts as damage.
    pub misdirected: u32,
    /// Names that cannot be made, taken away or synced.
    pub name_error: u32,
}

/// The disk; every clone is the same.
#[derive(Clone, Debug)]
pub struct Disk(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    random: fastrand::Rng,
    faults: Faults,
    /// No faults and no power cut while this is set.
    calm: bool,
    /// Operations until the power goes.
    cut_after: Option<u64>,
    off: bool,
    /// Bytes of all files together.
    room: Option<usize>,
    files: Vec<File>,
    /// Names as everybody sees them.
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    /// Changes to the durable names that are not synced, in order.
    name_changes: Vec<(String, Option<usize>)>,
    now: Duration,
    unix_seconds: u64,
    counts: Counts,
}

/// What has happened.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    /// Calls of the disk.
    pub operations: u64,
    /// Writes among them.
    pub writes: u64,
    /// Faults that somebody was told of.
    pub faults: u64,
    /// Bits and sectors that changed in silence.
    pub damages: u64,
    /// Times the power went.
    pub power_cuts: u64,
}

#[derive(Debug, Default)]
struct File {
    /// As reads show it.
    shown: Vec<u8>,
    /// What a power cut leaves.
    durable: Vec<u8>,
    /// From the second to the first, in order.
    changes: Vec<FileChange>,
}

#[derive(Debug)]
enum FileChange {
    Write(usize, Vec<u8>),
    Truncate(usize),
}

/// Which of the things on their way arrive.
enum Arriving {
    /// Each with a chance, in tenths.
    Each(u32),
    /// The first so many.
    First(usize),
}

impl Arriving {
    fn choose(random: &mut fastrand::Rng) -> Self {
        match random.u32(..4) {
            0 => Self::First(random.usize(..60)),
            1 => Self::Each(*random.choice(&[0, 10]).expect("not empty")),
            _ => Self::Each(random.u32(1..10)),
        }
    }

    fn next(&mut self, random: &mut fastrand::Rng) -> bool {
        match self {
            Self::Each(tenths) => random.u32(..10) < *tenths,
            Self::First(left) => {
                let arrives = *left > 0;
                *left = left.saturating_sub(1);
                arrives
            }
        }
    }
}

/// How an operation begins.
enum Begin {
    Go,
    /// The power goes in the middle of it.
    Cut,
}

impl Disk {
    /// An empty disk; everything that it does follows from the generator.
    pub fn new(random: fastrand::Rng, faults: Faults) -> Self {
        Self(Arc::new(Mutex::new(State {
            random,
            faults,
            calm: false,
            cut_after: None,
            off: false,
            room: None,
            files: Vec::new(),
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            name_changes: Vec::new(),
            now: Duration::ZERO,
            unix_seconds: 1_700_000_000,
            counts: Counts::default(),
        })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Without faults and power cuts from now on, or with them again. Returns what it was.
    pub fn set_calm(&self, calm: bool) -> bool {
        std::mem::replace(&mut self.state().calm, calm)
    }

    /// Whether it is without faults just now.
    pub fn is_calm(&self) -> bool {
        self.state().calm
    }

    /// The power goes during the operation after so many.
    pub fn cut_after(&self, operations: u64) {
        self.state().cut_after = Some(operations);
    }

    /// Nothing works any more and nothing is lost: the process is gone, not the machine.
    pub fn stop(&self) {
        self.state().off = true;
    }

    /// Whether the power is gone, or the process.
    pub fn is_off(&self) -> bool {
        self.state().off
    }

    /// After [`Disk::stop`], for the next process.
    pub fn go_on(&self) {
        let mut state = self.state();
        state.off = false;
        state.cut_after = None;
    }

    /// Leaves of everything what a power cut leaves, and switches on again.
    pub fn lose_power(&self) {
        self.state().lose_power();
    }

    /// Bytes that files may have together from now on, beyond what they have.
    pub fn set_room(&self, more: Option<usize>) {
        let mut state = self.state();
        let used = state.used();
        state.room = more.map(|more| used + more);
    }

    /// Time passes.
    pub fn wait(&self, time: Duration) {
        self.state().now += time;
    }

    /// The wall clock is set to anything.
    pub fn set_clock(&self) {
        let mut state = self.state();
        state.unix_seconds = match state.random.u32(..3) {
            0 => 0,
            1 => u64::MAX,
            _ => state.random.u64(..4_000_000_000),
        };
    }

    /// Flips one durable bit. Returns where.
    pub fn flip_bit(&self) -> Option<(String, usize)> {
        self.state().flip_bit()
    }

    /// What has happened so far.
    pub fn counts(&self) -> Counts {
        self.state().counts
    }

    /// Bytes of all files with names.
    pub fn used(&self) -> usize {
        self.state().used()
    }
}

impl State {
    fn begin(&mut self) -> io::Result<Begin> {
        if self.off {
            return Err(io::Error::other("the power is off"));
        }
        self.counts.operations += 1;
        self.now += Duration::from_micros(self.random.u64(..300));
        if self.calm {
            return Ok(Begin::Go);
        }
        match &mut self.cut_after {
            Some(0) => {
                self.off = true;
                self.counts.power_cuts += 1;
                Ok(Begin::Cut)
            }
            Some(left) => {
                *left -= 1;
                Ok(Begin::Go)
            }
            None => Ok(Begin::Go),
        }
    }

    fn cut() -> io::Error {
        io::Error::other("the power went")
    }

    fn fails(&mut self, chance: fn(&Faults) -> u32) -> io::Result<()> {
        let chance = chance(&self.faults);
        if !self.calm && chance > 0 && self.random.u32(..10_000) < chance {
            self.counts.faults += 1;
            // EIO.
            return Err(io::Error::from_raw_os_error(5));
        }
        Ok(())
    }

    fn used(&self) -> usize {
        self.names.values().map(|&file| self.files[file].shown.len()).sum()
    }

    fn lose_power(&mut self) {
        let mut arriving = Arriving::choose(&mut self.random);
        for file in &mut self.files {
            file.settle(&mut arriving, &mut self.random);
            file.shown.clone_from(&file.durable);
        }
        for (name, file) in std::mem::take(&mut self.name_changes) {
            if arriving.next(&mut self.random) {
                change_name(&mut self.durable_names, name, file);
            }
        }
        self.names.clone_from(&self.durable_names);
        self.off = false;
        self.cut_after = None;
    }

    fn flip_bit(&mut self) -> Option<(String, usize)> {
        let Self {
            names, files, random, ..
        } = self;
        let full: Vec<_> = names
            .iter()
            .filter(|&(_, &file)| !files[file].durable.is_empty())
            .collect();
        let (name, &file) = *random.choice(&full)?;
        let file = &mut files[file];
        let at = random.usize(..file.durable.len());
        let bit = 1 << random.u32(..8);
        file.durable[at] ^= bit;
        if let Some(byte) = file.shown.get_mut(at) {
            *byte ^= bit;
        }
        self.counts.damages += 1;
        Some((name.clone(), at))
    }
}

impl File {
    /// Applies what arrives and forgets the rest.
    fn settle(&mut self, arriving: &mut Arriving, random: &mut fastrand::Rng) {
        let mut len_most = self.durable.len();
        for change in std::mem::take(&mut self.changes) {
            match change {
                FileChange::Write(offset, bytes) => {
                    len_most = len_most.max(offset + bytes.len());
                    for (offset, sector) in sectors(offset, &bytes) {
                        if arriving.next(random) {
                            write(&mut self.durable, offset, sector);
                        }
                    }
                }
                FileChange::Truncate(len) => {
                    if arriving.next(random) {
                        self.durable.truncate(len);
                        len_most = self.durable.len();
                    }
                }
            }
        }
        // The length arrives, the bytes do not.
        if random.u32(..4) == 0 {
            self.durable.resize(len_most.max(self.durable.len()), 0);
        }
    }
}

fn sectors(offset: usize, bytes: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let len = (SECTOR - (offset + at) % SECTOR).min(bytes.len() - at);
        let sector = (offset + at, &bytes[at..at + len]);
        at += len;
        (len > 0).then_some(sector)
    })
}

fn write(to: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    let end = offset + bytes.len();
    if to.len() < end {
        to.resize(end, 0);
    }
    to[offset..end].copy_from_slice(bytes);
}

fn change_name(names: &mut BTreeMap<String, usize>, name: String, file: Option<usize>) {
    match file {
        Some(file) => names.insert(name, file),
        None => names.remove(&name),
    };
}

impl Host for Disk {
    fn list(&self) -> io::Result<Vec<String>> {
        let mut state = self.state();
        if let Begin::Cut = state.begin()? {
            return Err(State::cut());
        }
        Ok(state.names.keys().cloned().collect())
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn HostFile>> {
        let mut state = self.state();
        let begun = state.begin()?;
        state.fails(|faults| faults.name_error)?;
        if state.names.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let file = state.files.len();
        state.files.push(File::default());
        state.names.insert(name.to_owned(), file);
        state.name_changes.push((name.to_owned(), Some(file)));
        if let Begin::Cut = begun {
            return Err(State::cut());
        }
        let disk = self.clone();
        Ok(Arc::new(OpenFile { disk, file }))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn HostFile>> {
        let mut state = self.state();
        if let Begin::Cut = state.begin()? {
            return Err(State::cut());
        }
        let file = *state.names.get(name).ok_or(io::ErrorKind::NotFound)?;
        let disk = self.clone();
        Ok(Arc::new(OpenFile { disk, file }))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.state();
        let begun = state.begin()?;
        state.fails(|faults| faults.name_error)?;
        if state.names.remove(name).is_none() {
            return Err(io::ErrorKind::NotFound.into());
        }
        state.name_changes.push((name.to_owned(), None));
        match begun {
            Begin::Cut => Err(State::cut()),
            Begin::Go => Ok(()),
        }
    }

    fn sync_names(&self) -> io::Result<()> {
        let mut state = self.state();
        if let Begin::Cut = state.begin()? {
            return Err(State::cut());
        }
        state.fails(|faults| faults.name_error)?;
        for (name, file) in std::mem::take(&mut state.name_changes) {
            change_name(&mut state.durable_names, name, file);
        }
        Ok(())
    }

    fn now(&self) -> Duration {
        let mut state = self.state();
        state.now += Duration::from_micros(1);
        state.now
    }

    fn unix_seconds(&self) -> u64 {
        self.state().unix_seconds
    }

    fn random(&self) -> io::Result<[u8; 16]> {
        let mut bytes = [0; 16];
        self.state().random.fill(&mut bytes);
        Ok(bytes)
    }
}

#[derive(Debug)]
struct OpenFile {
    disk: Disk,
    file: usize,
}

impl HostFile for OpenFile {
    fn len(&self) -> io::Result<u64> {
        let state = self.disk.state();
        if state.off {
            return Err(State::cut());
        }
        Ok(state.files[self.file].shown.len() as u64)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let mut state = self.disk.state();
        if let Begin::Cut = state.begin()? {
            return Err(State::cut());
        }
        state.fails(|faults| faults.read_error)?;
        let shown = &state.files[self.file].shown;
        let from = (offset as usize).min(shown.len());
        let len = buffer.len().min(shown.len() - from);
        buffer[..len].copy_from_slice(&shown[from..from + len]);
        Ok(len)
    }

    fn write_at(&self, offset: u64, pieces: &[&[u8]]) -> io::Result<()> {
        let mut state = self.disk.state();
        let begun = state.begin()?;
        state.counts.writes += 1;
        let offset = offset as usize;
        let mut bytes = pieces.concat();
        let mut failed = state.fails(|faults| faults.write_error);
        if failed.is_err() {
            let some = state.random.usize(..=bytes.len());
            bytes.truncate(some);
        }
        let grows = (offset + bytes.len()).saturating_sub(state.files[self.file].shown.len());
        if let Some(room) = state.room.filter(|_| !state.calm) {
            let free = room.saturating_sub(state.used());
            if grows > free {
                state.counts.faults += 1;
                failed = Err(io::ErrorKind::StorageFull.into());
                bytes.truncate(bytes.len() - (grows - free));
            }
        }
        if !bytes.is_empty() {
            let file = &mut state.files[self.file];
            write(&mut file.shown, offset, &bytes);
            file.changes.push(FileChange::Write(offset, bytes));
        }
        match begun {
            Begin::Cut => Err(State::cut()),
            Begin::Go => failed,
        }
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        let mut state = self.disk.state();
        let begun = state.begin()?;
        state.fails(|faults| faults.write_error)?;
        let file = &mut state.files[self.file];
        file.shown.truncate(len as usize);
        file.changes.push(FileChange::Truncate(len as usize));
        match begun {
            Begin::Cut => Err(State::cut()),
            Begin::Go => Ok(()),
        }
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.disk.state();
        if let Begin::Cut = state.begin()? {
            return Err(State::cut());
        }
        let failed = state.fails(|faults| faults.sync_error);
        let state = &mut *state;
        if failed.is_err() {
            // Part of it is on the disk; the rest is never tried again, though reads show it.
            let mut arriving = Arriving::choose(&mut state.random);
            state.files[self.file].settle(&mut arriving, &mut state.random);
            return failed;
        }
        let misdirected =
            !state.calm && state.faults.misdirected > 0 && state.random.u32(..10_000) < state.faults.misdirected;
        let changes = std::mem::take(&mut state.files[self.file].changes);
        let mut strays = usize::from(misdirected);
        for change in changes {
            match change {
                FileChange::Write(offset, bytes) => {
                    for (offset, sector) in sectors(offset, &bytes) {
                        if strays > 0 && state.random.u32(..4) == 0 {
                            strays -= 1;
                            state.counts.damages += 1;
                            let victim = state.random.usize(..state.files.len());
                            let sectors = state.files[victim].durable.len() / SECTOR;
                            let at = state.random.usize(..=sectors) * SECTOR + offset % SECTOR;
                            // The file's length is right wherever the sector went.
                            let durable = &mut state.files[self.file].durable;
                            durable.resize(durable.len().max(offset + sector.len()), 0);
                            let victim = &mut state.files[victim];
                            let fits = sector.len().min(victim.durable.len().saturating_sub(at));
                            if fits > 0 {
                                write(&mut victim.durable, at, &sector[..fits]);
                            }
                        } else {
                            write(&mut state.files[self.file].durable, offset, sector);
                        }
                    }
                }
                FileChange::Truncate(len) => state.files[self.file].durable.truncate(len),
            }
        }
        Ok(())
    }
}
