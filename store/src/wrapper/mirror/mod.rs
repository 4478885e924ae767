//! Several stores that are to hold the same chunks (`mirror:a|b`): writes go to all, reads come from the nearest that is sound.
//!
//! What a member did not take, or may have lost with a flush that failed, it owes. The ids of that, a bounded number, are kept in
//! memory and copied at the next flush from a member that has them. A flush succeeds when enough members (all, or N with
//! `mirror-N:`) have everything durable; who is behind then is named. What is read is verified: a chunk that a member lacks, or
//! holds damaged, is taken from the next one and put back.
//!
//! Invariants: an id leaves a member's debts only when the member says that it has the chunk, or after a flush of it that
//! succeeded. Not here: comparing members that were changed by others (`cairn store verify`, `cairn store copy`).

mod member;

use std::fmt;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use cairn_formats::{CHUNK_LEN_MAX, ChunkError, ChunkForm, ChunkId, DigestAlgorithm, EncodedChunk, StorableChunk};

use crate::{ChunkStat, ChunkStore, ChunkStoreExt as _, Error, Prune, Result, StoreName};
use member::Member;

/// Every so many reads begin with another member than the nearest, so that one that was slow can show that it is not any more.
const MEASURE_EVERY: usize = 64;
/// Debts that are copied together.
const SETTLED_TOGETHER: usize = 256;
/// Ids of one member that the others are asked for together.
const LISTED_TOGETHER: usize = 1024;

/// How a mirror behaves.
#[derive(Clone, Copy, Debug)]
pub struct MirrorOptions {
    /// Members that must have everything durable for a flush to succeed; `None` for all.
    pub quorum: Option<NonZeroUsize>,
    /// Take writes, and mend members while reading. Otherwise nothing is written to any member.
    pub writable: bool,
    /// Chunks that a member can owe by name. Of one that owes more, it is only known that it is not whole.
    pub owed_max: usize,
    /// For this long a member that failed is spared, if enough others work.
    pub spared_for: Duration,
    /// Hears of members that fall behind while enough others have everything, and of their catching up.
    pub on_behind: fn(&StoreName, &Behind),
}

impl Default for MirrorOptions {
    fn default() -> Self {
        Self {
            quorum: None,
            writable: true,
            owed_max: 1 << 20,
            spared_for: Duration::from_secs(10),
            on_behind: |_, _| {},
        }
    }
}

/// What a member of a mirror lacks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Behind {
    /// The member.
    pub member: StoreName,
    /// Chunks that it owes; 0 when it has caught up.
    pub chunks: usize,
    /// It owes more than are known by name.
    pub and_more: bool,
    /// What went wrong last.
    pub cause: Option<String>,
}

impl fmt::Display for Behind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_whole() {
            return write!(f, "{} has caught up", self.member);
        }
        match (self.chunks, self.and_more) {
            (0, false) => write!(f, "{} may lack what it was given last", self.member)?,
            (1, false) => write!(f, "{} lacks a chunk", self.member)?,
            (chunks, false) => write!(f, "{} lacks {chunks} chunks", self.member)?,
            (chunks, true) => write!(f, "{} lacks more than {chunks} chunks", self.member)?,
        }
        if let Some(cause) = &self.cause {
            write!(f, " ({cause})")?;
        }
        if self.and_more {
            f.write_str("; bring it up to date with `cairn store copy`")?;
        }
        Ok(())
    }
}

impl Behind {
    /// Whether it lacks nothing.
    pub fn is_whole(&self) -> bool {
        self.chunks == 0 && !self.and_more && self.cause.is_none()
    }
}

/// Stores that are to hold the same chunks.
#[derive(Debug)]
pub struct MirrorStore<S: ChunkStore + ?Sized = dyn ChunkStore> {
    name: StoreName,
    members: Vec<Member<S>>,
    options: MirrorOptions,
    reads: AtomicUsize,
    /// The digest by which chunks were proven last. A chunk proves by one alone, so nobody has to say which.
    is_sha256: AtomicBool,
}

/// A chunk that a member should have and has not.
struct Lacking {
    member: usize,
    at: usize,
    damaged: Option<EncodedChunk>,
}

impl<S: ChunkStore + ?Sized> MirrorStore<S> {
    /// A mirror of these members, at least one; of equally near ones the first is read.
    pub fn new(members: Vec<Arc<S>>, options: MirrorOptions) -> Self {
        let names: Vec<String> = members.iter().map(|member| member.name().to_string()).collect();
        let quorum = options.quorum.map_or(String::new(), |quorum| format!("-{quorum}"));
        Self {
            name: StoreName::new(format!("mirror{quorum}:{}", names.join("|"))),
            members: members.into_iter().map(Member::new).collect(),
            options,
            reads: AtomicUsize::new(0),
            is_sha256: AtomicBool::new(false),
        }
    }

    /// What each member lacks, as far as this mirror knows.
    pub fn behind(&self) -> Vec<Behind> {
        self.members.iter().map(Member::behind).collect()
    }

    fn quorum(&self) -> usize {
        let all = self.members.len();
        self.options.quorum.map_or(all, |quorum| quorum.get().min(all))
    }

    /// The members that are written to: not those that failed a moment ago, if the others are enough.
    fn awake(&self) -> Vec<usize> {
        let now = Instant::now();
        let awake = self.members.iter().enumerate();
        let awake: Vec<usize> = awake
            .filter(|(_, member)| !member.is_spared(now, self.options.spared_for))
            .map(|(number, _)| number)
            .collect();
        if awake.len() >= self.quorum() {
            awake
        } else {
            (0..self.members.len()).collect()
        }
    }

    /// The members in the order in which they are read: those that failed a moment ago last, the others by their speed.
    fn nearest(&self) -> Vec<usize> {
        let now = Instant::now();
        let mut order: Vec<usize> = (0..self.members.len()).collect();
        order.sort_by_key(|&number| {
            let member = &self.members[number];
            (member.is_spared(now, self.options.spared_for), member.nanos())
        });
        let reads = self.reads.fetch_add(1, Ordering::Relaxed) + 1;
        if reads.is_multiple_of(MEASURE_EVERY) {
            let turn = reads / MEASURE_EVERY % order.len();
            order[..=turn].rotate_right(1);
        }
        order
    }

    /// Calls something for several members at once; the answers in their order.
    fn at_once<T: Send>(&self, numbers: &[usize], call: impl Fn(&Member<S>) -> T + Sync) -> Vec<T> {
        let Some((&first, others)) = numbers.split_first() else {
            return Vec::new();
        };
        let call = &call;
        std::thread::scope(|scope| {
            let others: Vec<_> = others
                .iter()
                .map(|&number| scope.spawn(move || call(&self.members[number])))
                .collect();
            let mut answers = vec![call(&self.members[first])];
            answers.extend(others.into_iter().map(|thread| match thread.join() {
                Ok(answer) => answer,
                Err(panic) => std::panic::resume_unwind(panic),
            }));
            answers
        })
    }

    fn digests(&self) -> [DigestAlgorithm; 2] {
        match self.is_sha256.load(Ordering::Relaxed) {
            true => [DigestAlgorithm::Sha256, DigestAlgorithm::Sha512_256],
            false => [DigestAlgorithm::Sha512_256, DigestAlgorithm::Sha256],
        }
    }

    /// Whether stored bytes are the chunks of their names, by either digest.
    fn prove(&self, chunks: &[EncodedChunk]) -> Vec<std::result::Result<(), ChunkError>> {
        let [first, second] = self.digests();
        let opened = EncodedChunk::open_many(chunks, first, CHUNK_LEN_MAX).into_iter();
        let proven = opened.zip(chunks).map(|(opened, chunk)| {
            let error = match opened {
                Ok(_) => return Ok(()),
                Err(error) => error,
            };
            let is_another = matches!(error, ChunkError::Digest { .. });
            if is_another && chunk.open(second, CHUNK_LEN_MAX).is_ok() {
                self.is_sha256
                    .store(second == DigestAlgorithm::Sha256, Ordering::Relaxed);
                return Ok(());
            }
            Err(error)
        });
        proven.collect()
    }

    fn storable(&self, chunk: &EncodedChunk) -> Option<StorableChunk> {
        let digests = self.digests().into_iter();
        digests
            .filter_map(|digest| chunk.clone().verify(digest, CHUNK_LEN_MAX).ok())
            .next()
    }

    fn missing(&self, id: ChunkId) -> Error {
        Error::Missing {
            id,
            store: self.name.clone(),
        }
    }

    /// Reads from members in turn, until each chunk is had and proven.
    ///
    /// - Returns an answer per chunk, as [`ChunkStore::get_many`], and what the members that were asked should have had.
    fn read(&self, order: &[usize], ids: &[ChunkId]) -> (Vec<Result<EncodedChunk>>, Vec<Lacking>) {
        let mut answers: Vec<Result<EncodedChunk>> = ids.iter().map(|&id| Err(self.missing(id))).collect();
        let mut lacking = Vec::new();
        let mut open: Vec<usize> = (0..ids.len()).collect();
        for &number in order {
            if open.is_empty() {
                break;
            }
            let member = &self.members[number];
            let asked: Vec<ChunkId> = open.iter().map(|&at| ids[at]).collect();
            let started = Instant::now();
            let got = member.store.get_many(&asked);
            let found: Vec<EncodedChunk> = got.iter().flatten().cloned().collect();
            if found.len() == asked.len() {
                member.took(started.elapsed(), asked.len());
            }
            let mut proven = self.prove(&found).into_iter();
            for (&at, answer) in open.iter().zip(got) {
                let answer = match answer {
                    Ok(chunk) => match proven.next() {
                        Some(Err(source)) => {
                            let damaged = Some(chunk);
                            lacking.push(Lacking {
                                member: number,
                                at,
                                damaged,
                            });
                            let store = member.store.name().clone();
                            Err(Error::Corrupt { store, source })
                        }
                        _ => Ok(chunk),
                    },
                    Err(error) => {
                        match &error {
                            Error::Missing { .. } | Error::Corrupt { .. } => lacking.push(Lacking {
                                member: number,
                                at,
                                damaged: None,
                            }),
                            error => member.failed(error),
                        }
                        Err(error)
                    }
                };
                // As in a failover group: missing is what every member says; else the first trouble is worth telling.
                let is_missing = matches!(answer, Err(Error::Missing { .. }));
                if answer.is_ok() || (!is_missing && matches!(answers[at], Err(Error::Missing { .. }))) {
                    answers[at] = answer;
                }
            }
            open.retain(|&at| answers[at].is_err());
        }
        (answers, lacking)
    }

    /// Puts sound chunks into members that lack them.
    fn mend(&self, answers: &[Result<EncodedChunk>], lacking: Vec<Lacking>) {
        let mut by_member: Vec<Vec<Lacking>> = self.members.iter().map(|_| Vec::new()).collect();
        for lack in lacking {
            // Without a sound copy the damaged one is left where it is.
            if answers[lack.at].is_ok() {
                by_member[lack.member].push(lack);
            }
        }
        for (member, lacking) in self.members.iter().zip(by_member) {
            if lacking.is_empty() || member.is_read_only() {
                continue;
            }
            let mut sound = Vec::with_capacity(lacking.len());
            for Lacking { at, damaged, .. } in &lacking {
                if let Some(damaged) = damaged
                    && let Err(error) = member.store.set_aside(damaged)
                {
                    member.failed(&error);
                    continue;
                }
                sound.extend(answers[*at].as_ref().ok().and_then(|chunk| self.storable(chunk)));
            }
            if member.put(&sound, self.options.owed_max).is_err() || !member.flush(self.options.owed_max) {
                continue;
            }
            // A store may have left what it held: a flat one does with files that were changed a moment ago.
            let ids: Vec<ChunkId> = sound.iter().map(StorableChunk::id).collect();
            let healed: Vec<EncodedChunk> = member.store.get_many(&ids).into_iter().flatten().collect();
            let healed = self.prove(&healed).into_iter().filter(std::result::Result::is_ok);
            metrics::counter!("store_mirror_healed_total").increment(healed.count() as u64);
        }
    }

    /// Copies to a member what it owes, until it owes nothing or something fails.
    fn settle(&self, number: usize) {
        let member = &self.members[number];
        loop {
            let owed = member.owed(SETTLED_TOGETHER);
            if owed.is_empty() {
                return;
            }
            let failed_before = member.flushes_failed();
            match self.settle_some(number, &owed) {
                Ok(()) => member.has_paid(&owed, failed_before),
                Err(error) => {
                    member.failed(&error);
                    return;
                }
            }
        }
    }

    fn settle_some(&self, number: usize, owed: &[ChunkId]) -> Result<()> {
        let member = &self.members[number];
        let has = member.store.has_many(owed)?;
        let lacking = owed.iter().zip(has).filter(|(_, has)| !has);
        let lacking: Vec<ChunkId> = lacking.map(|(&id, _)| id).collect();
        if lacking.is_empty() {
            return Ok(());
        }
        let others: Vec<usize> = self.nearest().into_iter().filter(|&other| other != number).collect();
        let (chunks, _) = self.read(&others, &lacking);
        let chunks: Vec<EncodedChunk> = chunks.into_iter().collect::<Result<_>>()?;
        let chunks: Vec<StorableChunk> = chunks.iter().filter_map(|chunk| self.storable(chunk)).collect();
        member.put(&chunks, self.options.owed_max)?;
        if member.flush(self.options.owed_max) {
            return Ok(());
        }
        Err(Error::Unavailable {
            store: member.store.name().clone(),
            action: "make chunks durable",
            source: member.behind().cause.unwrap_or_default().into(),
        })
    }

    /// Flushes members and copies what they owe; how many lack nothing then.
    fn flush_some(&self, numbers: &[usize]) -> usize {
        let owed_max = self.options.owed_max;
        let flushed = self.at_once(numbers, |member| member.flush(owed_max));
        let flushed = numbers.iter().zip(flushed).filter(|(_, is_flushed)| *is_flushed);
        let mut whole = 0;
        for (&number, _) in flushed {
            self.settle(number);
            whole += usize::from(self.members[number].is_whole());
        }
        whole
    }

    fn read_only(&self) -> Error {
        Error::ReadOnly {
            store: self.name.clone(),
        }
    }

    /// Which chunks as many members have as must have them. Those of the others that lack one of these owe it.
    fn has_enough(&self, ids: &[ChunkId]) -> Result<Vec<bool>> {
        let awake = self.awake();
        let answers = self.at_once(&awake, |member| member.store.has_many(ids));
        let mut counts = vec![0; ids.len()];
        let mut known: Vec<Option<Vec<bool>>> = self.members.iter().map(|_| None).collect();
        let mut failure = None;
        let mut answered = 0;
        for (number, answer) in awake.into_iter().zip(answers) {
            match answer {
                Ok(has) => {
                    answered += 1;
                    counts
                        .iter_mut()
                        .zip(&has)
                        .for_each(|(count, has)| *count += usize::from(*has));
                    known[number] = Some(has);
                }
                Err(error) => {
                    self.members[number].failed(&error);
                    failure.get_or_insert(error);
                }
            }
        }
        if let Some(error) = failure
            && answered < self.quorum()
        {
            return Err(error);
        }
        let enough: Vec<bool> = counts.into_iter().map(|count| count >= self.quorum()).collect();
        for (member, has) in self.members.iter().zip(known) {
            let lacks = |at: &usize| enough[*at] && has.as_ref().is_none_or(|has| !has[*at]);
            let owed: Vec<ChunkId> = (0..ids.len()).filter(lacks).map(|at| ids[at]).collect();
            member.owe(&owed, self.options.owed_max);
        }
        Ok(enough)
    }
}

#[deny(clippy::missing_trait_methods)]
impl<S: ChunkStore + ?Sized> ChunkStore for MirrorStore<S> {
    fn name(&self) -> &StoreName {
        &self.name
    }

    /// Of a mirror that takes writes, a chunk is there when as many members have it as a flush would ask for: one that fewer
    /// have is to be sent again, although it can be read. Of one that is only read, when any has it.
    fn has_many(&self, ids: &[ChunkId]) -> Result<Vec<bool>> {
        if self.options.writable {
            return self.has_enough(ids);
        }
        let mut has = vec![false; ids.len()];
        let mut open: Vec<usize> = (0..ids.len()).collect();
        let mut failure = None;
        for number in self.nearest() {
            if open.is_empty() {
                break;
            }
            let asked: Vec<ChunkId> = open.iter().map(|&at| ids[at]).collect();
            match self.members[number].store.has_many(&asked) {
                Ok(answers) => {
                    open.iter().zip(answers).for_each(|(&at, answer)| has[at] = answer);
                    open.retain(|&at| !has[at]);
                }
                Err(error) => {
                    self.members[number].failed(&error);
                    failure.get_or_insert(error);
                }
            }
        }
        match failure {
            Some(error) if !open.is_empty() => Err(error),
            _ => Ok(has),
        }
    }

    fn get_many(&self, ids: &[ChunkId]) -> Vec<Result<EncodedChunk>> {
        let (answers, lacking) = self.read(&self.nearest(), ids);
        if self.options.writable && !lacking.is_empty() {
            self.mend(&answers, lacking);
        }
        answers
    }

    fn put_many(&self, chunks: &[StorableChunk]) -> Result<()> {
        if !self.options.writable {
            return Err(self.read_only());
        }
        let owed_max = self.options.owed_max;
        let awake = self.awake();
        let mut answers: Vec<Option<Result<()>>> = self.members.iter().map(|_| None).collect();
        for (&number, answer) in awake
            .iter()
            .zip(self.at_once(&awake, |member| member.put(chunks, owed_max)))
        {
            answers[number] = Some(answer);
        }
        // Without a member that has them there is nothing that they could be copied from.
        if !answers.iter().any(|answer| matches!(answer, Some(Ok(())))) {
            let failure = answers.into_iter().flatten().find_map(std::result::Result::err);
            return failure.map_or(Ok(()), Err);
        }
        let ids: Vec<ChunkId> = chunks.iter().map(StorableChunk::id).collect();
        for (member, answer) in self.members.iter().zip(answers) {
            if !matches!(answer, Some(Ok(()))) {
                member.owe(&ids, owed_max);
            }
        }
        let can_be_whole = self.members.iter().filter(|member| !member.owes_more()).count();
        if can_be_whole < self.quorum() {
            return Err(self.not_enough(can_be_whole));
        }
        Ok(())
    }

    fn flush(&self) -> Result<()> {
        if !self.options.writable {
            return Ok(());
        }
        let awake = self.awake();
        let mut whole = self.flush_some(&awake);
        if whole < self.quorum() {
            let spared = (0..self.members.len()).filter(|number| !awake.contains(number));
            whole += self.flush_some(&spared.collect::<Vec<_>>());
        }
        for member in &self.members {
            let owed = member.behind().chunks as f64;
            metrics::gauge!("store_mirror_owed_chunks", "member" => member.store.name().to_string()).set(owed);
        }
        if whole < self.quorum() {
            return Err(self.not_enough(whole));
        }
        for member in &self.members {
            if let Some(behind) = member.news() {
                (self.options.on_behind)(&self.name, &behind);
            }
        }
        Ok(())
    }

    fn stat(&self, id: ChunkId, form: ChunkForm) -> Result<Option<ChunkStat>> {
        if self.options.writable && !self.has_enough(&[id])?[0] {
            return Ok(None);
        }
        let mut failure = None;
        for number in self.nearest() {
            match self.members[number].store.stat(id, form) {
                Ok(Some(stat)) => return Ok(Some(stat)),
                Ok(None) => {}
                Err(error) => {
                    self.members[number].failed(&error);
                    failure.get_or_insert(error);
                }
            }
        }
        failure.map_or(Ok(None), Err)
    }

    fn get_resident(&self, id: ChunkId, form: ChunkForm) -> Option<EncodedChunk> {
        let resident = self.nearest().into_iter().find_map(|number| {
            let chunk = self.members[number].store.get_resident(id, form);
            chunk.filter(|chunk| self.prove(std::slice::from_ref(chunk))[0].is_ok())
        })?;
        Some(resident)
    }

    fn is_far(&self) -> bool {
        self.members.iter().any(|member| member.store.is_far())
    }

    fn set_aside(&self, damaged: &EncodedChunk) -> Result<bool> {
        let mut moved = false;
        for member in &self.members {
            moved |= member.store.set_aside(damaged)?;
        }
        Ok(moved)
    }
}

impl<S: ChunkStore + ?Sized> MirrorStore<S> {
    fn not_enough(&self, whole: usize) -> Error {
        let behind = self.behind().into_iter().filter(|behind| !behind.is_whole());
        let behind: Vec<String> = behind.map(|behind| behind.to_string()).collect();
        Error::Unavailable {
            store: self.name.clone(),
            action: "make chunks durable in enough of its members",
            source: format!(
                "{whole} of {} have everything, {} have to: {}",
                self.members.len(),
                self.quorum(),
                behind.join("; ")
            )
            .into(),
        }
    }
}

/// Chunks of all members, each told once; deleted in all.
impl<S: Prune + ?Sized> Prune for MirrorStore<S> {
    fn for_each_id(&self, visit: &mut dyn FnMut(ChunkId) -> Result<()>) -> Result<()> {
        for (number, member) in self.members.iter().enumerate() {
            let mut batch = Vec::with_capacity(LISTED_TOGETHER);
            let mut told = |batch: &mut Vec<ChunkId>| {
                let mut new = std::mem::take(batch);
                for before in &self.members[..number] {
                    new = before.store.absent(&new)?;
                }
                new.into_iter().try_for_each(&mut *visit)
            };
            member.store.for_each_id(&mut |id| {
                batch.push(id);
                match batch.len() {
                    LISTED_TOGETHER => told(&mut batch),
                    _ => Ok(()),
                }
            })?;
            told(&mut batch)?;
        }
        Ok(())
    }

    fn remove_many(&self, ids: &[ChunkId]) -> Result<()> {
        let mut outcome = Ok(());
        for member in &self.members {
            member.forget(ids);
            // The others all the same: what is left in one comes back from it.
            let removed = member.store.remove_many(ids);
            if outcome.is_ok() {
                outcome = removed;
            }
        }
        outcome
    }

    fn remove_stale_temporaries(&self, age: Duration) -> Result<u64> {
        let removed = self
            .members
            .iter()
            .map(|member| member.store.remove_stale_temporaries(age));
        removed.sum()
    }
}

#[cfg(test)]
mod tests;
