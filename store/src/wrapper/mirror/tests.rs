//! Mirrors of real folders, one of which fails as told; of a bucket and a folder behind SFTP; of packs with planted flips.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::{fmt, fs};

use cairn_formats::{Chunk, Level};
use cairn_test_servers::{S3Server, Sshd};
use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::backend::bucket::s3;
use crate::backend::sftp;
use crate::{FlatOptions, FlatStore, StoreSpec, SyncPolicy, contract, open_store};

/// How a member fares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Well,
    /// Every call fails.
    Silent,
    /// A flush fails, and what it should have kept is gone.
    Forgetful,
    /// Takes the first half of what it is given, then fails.
    Half,
    /// Reads alone work.
    Full,
}

/// A folder that keeps in memory what is not flushed, and fails as it is told.
#[derive(Debug)]
struct Shaky {
    folder: TempDir,
    inner: FlatStore,
    staged: Mutex<Vec<StorableChunk>>,
    mode: Mutex<Mode>,
    after_put: Mutex<Option<Beside>>,
}

/// What somebody else does, once.
struct Beside(Box<dyn FnOnce() + Send>);

impl fmt::Debug for Beside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Beside")
    }
}

impl Shaky {
    fn new() -> Arc<Self> {
        let folder = tempfile::tempdir().unwrap();
        let options = FlatOptions {
            sync: SyncPolicy::None,
            ..FlatOptions::default()
        };
        Arc::new(Self {
            inner: FlatStore::open(folder.path(), options).unwrap(),
            folder,
            staged: Mutex::default(),
            mode: Mutex::new(Mode::Well),
            after_put: Mutex::default(),
        })
    }

    fn mode(&self) -> Mode {
        *self.mode.lock().unwrap()
    }

    fn set(&self, mode: Mode) {
        *self.mode.lock().unwrap() = mode;
    }

    fn fails_in(&self, modes: &[Mode]) -> Result<()> {
        if !modes.contains(&self.mode()) {
            return Ok(());
        }
        Err(Error::Unavailable {
            store: self.name().clone(),
            action: "do anything",
            source: "as told".into(),
        })
    }

    fn is_sound(&self, n: u8) -> bool {
        let got = self.inner.get(chunk(n).id());
        got.is_ok_and(|got| got.open(DigestAlgorithm::default(), CHUNK_LEN_MAX).is_ok())
    }

    fn damage(&self, n: u8) {
        let hex = chunk(n).id().to_string();
        let file = self.folder.path().join(&hex[..4]).join(format!("{hex}.cacnk"));
        fs::remove_file(&file).unwrap();
        fs::write(&file, chunk(n).bytes().slice(..3)).unwrap();
    }
}

impl ChunkStore for Shaky {
    fn name(&self) -> &StoreName {
        self.inner.name()
    }

    fn has_many(&self, ids: &[ChunkId]) -> Result<Vec<bool>> {
        self.fails_in(&[Mode::Silent])?;
        self.inner.has_many(ids)
    }

    fn get_many(&self, ids: &[ChunkId]) -> Vec<Result<EncodedChunk>> {
        match self.fails_in(&[Mode::Silent]) {
            Ok(()) => self.inner.get_many(ids),
            Err(_) => ids
                .iter()
                .map(|_| Err(self.fails_in(&[Mode::Silent]).unwrap_err()))
                .collect(),
        }
    }

    fn put_many(&self, chunks: &[StorableChunk]) -> Result<()> {
        self.fails_in(&[Mode::Silent, Mode::Full])?;
        let taken = match self.mode() {
            Mode::Half => &chunks[..chunks.len() / 2],
            _ => chunks,
        };
        self.staged.lock().unwrap().extend_from_slice(taken);
        let beside = self.after_put.lock().unwrap().take();
        if let Some(Beside(act)) = beside {
            act();
        }
        self.fails_in(&[Mode::Half])
    }

    fn flush(&self) -> Result<()> {
        self.fails_in(&[Mode::Silent, Mode::Full])?;
        let staged = std::mem::take(&mut *self.staged.lock().unwrap());
        self.fails_in(&[Mode::Forgetful])?;
        self.inner.put_many(&staged)?;
        self.inner.flush()
    }

    // A flat folder leaves files that were changed a moment ago.
    fn set_aside(&self, damaged: &EncodedChunk) -> Result<bool> {
        self.fails_in(&[Mode::Silent, Mode::Full])?;
        self.inner.remove_many(&[damaged.id])?;
        Ok(true)
    }
}

fn chunk(n: u8) -> StorableChunk {
    let plain = format!("the chunk of number {n}").into_bytes();
    Chunk::from_plain(DigestAlgorithm::default(), plain.into()).encode(ChunkForm::Compressed, Level::DEFAULT)
}

fn three() -> [Arc<Shaky>; 3] {
    std::array::from_fn(|_| Shaky::new())
}

fn mirror_of(members: &[Arc<Shaky>], quorum: usize) -> MirrorStore<Shaky> {
    let options = MirrorOptions {
        quorum: NonZeroUsize::new(quorum),
        spared_for: Duration::ZERO,
        ..MirrorOptions::default()
    };
    MirrorStore::new(members.to_vec(), options)
}

fn flat(folder: &TempDir) -> Arc<FlatStore> {
    Arc::new(FlatStore::open(folder.path(), FlatOptions::default()).unwrap())
}

#[test]
fn a_mirror_keeps_the_contract() {
    let folders: [_; 3] = std::array::from_fn(|_| tempfile::tempdir().unwrap());
    let members: Vec<Arc<dyn Prune>> = folders.iter().map(|folder| flat(folder) as Arc<dyn Prune>).collect();
    let mirror = MirrorStore::new(members, MirrorOptions::default());
    contract::writable(&mirror);
    let mut listed = Vec::new();
    mirror
        .for_each_id(&mut |id| {
            listed.push(id);
            Ok(())
        })
        .unwrap();
    let told = BTreeSet::from_iter(&listed).len();
    assert!(told == listed.len() && told > 0);
    // Each member alone is the store.
    for folder in &folders {
        assert_eq!(flat(folder).has_many(&listed).unwrap(), vec![true; told]);
    }
    mirror.remove_many(&listed).unwrap();
    assert_eq!(mirror.has_many(&listed).unwrap(), vec![false; told]);
}

#[test]
fn a_mirror_that_is_only_read_writes_nothing() {
    let folders: [_; 2] = std::array::from_fn(|_| tempfile::tempdir().unwrap());
    let [a, b] = folders.each_ref().map(flat);
    b.put_many(&[chunk(1)]).unwrap();
    b.flush().unwrap();
    let options = MirrorOptions {
        writable: false,
        ..MirrorOptions::default()
    };
    let mirror = MirrorStore::new(vec![a.clone(), b], options);
    assert!(mirror.has(chunk(1).id()).unwrap());
    mirror.get(chunk(1).id()).unwrap();
    assert!(matches!(mirror.put_many(&[chunk(2)]), Err(Error::ReadOnly { .. })));
    mirror.flush().unwrap();
    assert!(!a.has(chunk(1).id()).unwrap());
}

#[derive(Clone, Debug)]
enum Step {
    Put(Vec<u8>),
    /// Puts what is not there, as writers do.
    PutMissing(Vec<u8>),
    Flush,
    Read(Vec<u8>),
    Set(usize, Mode),
    Damage(usize, u8),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let numbers = || prop::collection::vec(0u8..24, 1..6);
    let mode = prop::sample::select(vec![
        Mode::Well,
        Mode::Well,
        Mode::Silent,
        Mode::Forgetful,
        Mode::Half,
        Mode::Full,
    ]);
    let step = prop_oneof![
        3 => numbers().prop_map(Step::Put),
        3 => numbers().prop_map(Step::PutMissing),
        3 => Just(Step::Flush),
        2 => numbers().prop_map(Step::Read),
        3 => (0usize..3, mode).prop_map(|(member, mode)| Step::Set(member, mode)),
        1 => (0usize..3, 0u8..24).prop_map(|(member, n)| Step::Damage(member, n)),
    ];
    prop::collection::vec(step, 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Goal: after a flush that succeeded, whatever was put or told to be there is sound in as many members as were asked for;
    /// a chunk that is sound anywhere is read, and "missing" is said only when every member says so.
    /// Method: members that fail in every way at any moment, against the set of what was acknowledged.
    #[test]
    fn what_was_flushed_is_in_enough_members(quorum in 1usize..=3, steps in steps()) {
        let members = three();
        let mirror = mirror_of(&members, quorum);
        let mut given = BTreeSet::new();
        let mut acknowledged = BTreeSet::new();
        let mut damaged: BTreeSet<(usize, u8)> = BTreeSet::new();
        let put = |numbers: &[u8], given: &mut BTreeSet<u8>| {
            let chunks: Vec<_> = numbers.iter().map(|&n| chunk(n)).collect();
            if mirror.put_many(&chunks).is_ok() {
                given.extend(numbers);
            }
        };
        for step in steps {
            match step {
                Step::Put(numbers) => put(&numbers, &mut given),
                Step::PutMissing(numbers) => {
                    let ids: Vec<_> = numbers.iter().map(|&n| chunk(n).id()).collect();
                    if let Ok(has) = mirror.has_many(&ids) {
                        let (there, missing): (Vec<_>, Vec<_>) = numbers.iter().zip(has).partition(|(_, has)| *has);
                        given.extend(there.into_iter().map(|(n, _)| *n));
                        let missing: Vec<u8> = missing.into_iter().map(|(n, _)| *n).collect();
                        put(&missing, &mut given);
                    }
                }
                Step::Flush => {
                    if mirror.flush().is_ok() {
                        acknowledged.append(&mut given);
                        for &n in &acknowledged {
                            let holds = |number: &usize| damaged.contains(&(*number, n)) || members[*number].is_sound(n);
                            let count = (0..3).filter(holds).count();
                            prop_assert!(count >= quorum, "chunk {} is in {} members", n, count);
                        }
                    }
                }
                Step::Read(numbers) => {
                    let ids: Vec<_> = numbers.iter().map(|&n| chunk(n).id()).collect();
                    // Before: mending flushes members, and with that what others put.
                    let is_readable = |n: &u8| members.iter().any(|member| member.mode() != Mode::Silent && member.is_sound(*n));
                    let readable: Vec<bool> = numbers.iter().map(is_readable).collect();
                    for ((&n, is_readable), answer) in numbers.iter().zip(readable).zip(mirror.get_many(&ids)) {
                        match answer {
                            Ok(got) => prop_assert_eq!(got.open(DigestAlgorithm::default(), CHUNK_LEN_MAX).unwrap().id(), chunk(n).id()),
                            Err(Error::Missing { .. }) => {
                                prop_assert!(!is_readable && members.iter().all(|member| member.mode() != Mode::Silent));
                            }
                            Err(_) => prop_assert!(!is_readable),
                        }
                    }
                }
                Step::Set(number, mode) => members[number].set(mode),
                Step::Damage(number, n) => {
                    let others = (0..3).filter(|&other| other != number && members[other].is_sound(n));
                    if others.count() > 0 && members[number].is_sound(n) {
                        members[number].damage(n);
                        damaged.insert((number, n));
                    }
                }
            }
        }
        members.iter().for_each(|member| member.set(Mode::Well));
        // Chunks that every member forgot can be in the way; they have to be put again.
        if mirror.flush().is_err() {
            let all: Vec<_> = (0..24).map(chunk).collect();
            mirror.put_many(&all).unwrap();
            mirror.flush().unwrap();
        }
        acknowledged.append(&mut given);
        prop_assert!(mirror.behind().iter().all(Behind::is_whole));
        for &n in &acknowledged {
            let got = mirror.get(chunk(n).id()).unwrap();
            prop_assert!(got.open(DigestAlgorithm::default(), CHUNK_LEN_MAX).is_ok());
            for (number, member) in members.iter().enumerate() {
                prop_assert!(damaged.contains(&(number, n)) || member.is_sound(n), "{} in {}", n, number);
            }
        }
    }
}

#[test]
fn a_member_that_is_down_is_named_and_catches_up() {
    static HEARD: Mutex<Vec<String>> = Mutex::new(Vec::new());
    let members = three();
    let options = MirrorOptions {
        quorum: NonZeroUsize::new(2),
        spared_for: Duration::ZERO,
        on_behind: |_, behind| HEARD.lock().unwrap().push(behind.to_string()),
        ..MirrorOptions::default()
    };
    let mirror = MirrorStore::new(members.to_vec(), options);
    members[1].set(Mode::Silent);
    mirror.put_many(&[chunk(1), chunk(2)]).unwrap();
    for _ in 0..3 {
        mirror.flush().unwrap();
    }
    members[2].set(Mode::Full);
    mirror.put_many(&[chunk(3)]).unwrap();
    let error = mirror.flush().unwrap_err();
    let words = std::error::Error::source(&error).unwrap().to_string();
    assert!(error.to_string().starts_with("mirror-2:"), "{error}");
    assert!(
        words.starts_with("1 of 3 have everything, 2 have to: ") && words.contains("as told"),
        "{words}"
    );
    members.iter().for_each(|member| member.set(Mode::Well));
    mirror.flush().unwrap();
    assert!(members.iter().all(|member| (1..=3).all(|n| member.is_sound(n))));
    let heard = HEARD.lock().unwrap();
    let name = members[1].name();
    assert_eq!(heard.len(), 2, "{heard:?}");
    assert!(heard[0].starts_with(&format!("{name} lacks 2 chunks (")), "{heard:?}");
    assert_eq!(heard[1], format!("{name} has caught up"));
}

#[test]
fn debts_are_bounded() {
    let members = three();
    let options = MirrorOptions {
        quorum: NonZeroUsize::new(2),
        spared_for: Duration::ZERO,
        owed_max: 4,
        ..MirrorOptions::default()
    };
    let mirror = MirrorStore::new(members.to_vec(), options);
    members[0].set(Mode::Full);
    for n in 0..20 {
        mirror.put_many(&[chunk(n)]).unwrap();
    }
    mirror.flush().unwrap();
    let behind = mirror.behind().remove(0);
    assert!(
        behind.to_string().contains("lacks more than 4 chunks") && behind.to_string().contains("cairn store copy"),
        "{behind}"
    );
    // It cannot become whole, so that nothing is begun that needs it.
    members[1].set(Mode::Full);
    let outcome = (20..40).find_map(|n| mirror.put_many(&[chunk(n)]).err());
    assert!(outcome.unwrap().to_string().contains("enough of its members"));
}

/// A member that failed is spared while the others are enough, and read last.
#[test]
fn a_member_that_fails_is_not_waited_for_each_time() {
    let members = three();
    let options = MirrorOptions {
        quorum: NonZeroUsize::new(2),
        spared_for: Duration::from_secs(3600),
        ..MirrorOptions::default()
    };
    let mirror = MirrorStore::new(members.to_vec(), options);
    members[0].set(Mode::Silent);
    mirror.put_many(&[chunk(1)]).unwrap();
    members[0].set(Mode::Well);
    mirror.put_many(&[chunk(2)]).unwrap();
    mirror.flush().unwrap();
    assert!(members[0].staged.lock().unwrap().is_empty() && !members[0].is_sound(2));
    assert_eq!(mirror.nearest().last(), Some(&0));
    // Needed again, it is asked again.
    members[1].set(Mode::Silent);
    mirror.put_many(&[chunk(3)]).unwrap();
    mirror.flush().unwrap();
    assert!((1..=3).all(|n| members[0].is_sound(n)));
}

/// Many writers, of which each finds its chunk in every member when its own flush has succeeded, while flushes fail.
#[test]
fn flushes_that_fail_are_told_to_all_whom_they_cost() {
    let members = three();
    let mirror = mirror_of(&members, 3);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut random = fastrand::Rng::with_seed(3);
            while !done.load(Ordering::Relaxed) {
                let mode = [Mode::Well, Mode::Well, Mode::Forgetful][random.usize(..3)];
                members[random.usize(..3)].set(mode);
                std::thread::yield_now();
            }
            members.iter().for_each(|member| member.set(Mode::Well));
        });
        let writers: Vec<_> = (0..4u8)
            .map(|writer| {
                let (mirror, members) = (&mirror, &members);
                scope.spawn(move || {
                    for n in 0..25 {
                        let n = writer * 25 + n;
                        loop {
                            let put = mirror.put_many(&[chunk(n)]);
                            if put.and_then(|()| mirror.flush()).is_ok() {
                                break;
                            }
                        }
                        assert!(members.iter().all(|member| member.is_sound(n)), "chunk {n}");
                    }
                })
            })
            .collect();
        let outcomes: Vec<_> = writers.into_iter().map(std::thread::ScopedJoinHandle::join).collect();
        done.store(true, Ordering::Relaxed);
        outcomes.into_iter().for_each(|outcome| outcome.unwrap());
    });
}

/// Goal: what a member owes stays owed where somebody else's flush fails between its copy and its own flush.
#[test]
fn a_flush_that_fails_beside_a_settlement_leaves_the_debt() {
    let members = three();
    let mirror = Arc::new(mirror_of(&members, 3));
    members[0].set(Mode::Forgetful);
    mirror.put_many(&[chunk(1)]).unwrap();
    mirror.flush().unwrap_err();
    members[0].set(Mode::Well);
    let (other, member) = (Arc::clone(&mirror), Arc::clone(&members[0]));
    let beside = Beside(Box::new(move || {
        member.set(Mode::Forgetful);
        other.flush().unwrap_err();
        member.set(Mode::Well);
    }));
    *members[0].after_put.lock().unwrap() = Some(beside);
    mirror.flush().unwrap();
    assert!(members.iter().all(|member| member.is_sound(1)));
}

#[test]
fn a_read_brings_chunks_back_into_each_member_that_lacks_them() {
    let folders: [_; 3] = std::array::from_fn(|_| tempfile::tempdir().unwrap());
    let [a, b, c] = folders.each_ref().map(flat);
    c.put_many(&[chunk(1), chunk(2)]).unwrap();
    c.flush().unwrap();
    let members = vec![a.clone() as Arc<dyn ChunkStore>, b.clone(), c];
    let mirror = MirrorStore::new(members, MirrorOptions::default());
    for n in 1..3 {
        mirror.get(chunk(n).id()).unwrap();
        assert!(a.has(chunk(n).id()).unwrap() && b.has(chunk(n).id()).unwrap(), "{n}");
    }
}

/// A folder, a bucket and a folder behind SFTP, by name as people write it.
#[test]
fn a_mirror_of_a_folder_a_bucket_and_a_folder_behind_sftp() {
    let (s3, sshd, folder) = (S3Server::start(), Sshd::start(), tempfile::tempdir().unwrap());
    let far = format!("{}|{}", s3.url("m"), sshd.url("m"));
    let open = |text: &str| {
        let options = |member: &str| match member.starts_with("sftp") {
            true => sftp::tests::quick(&sshd),
            false => s3::tests::quick(),
        };
        open_store(&StoreSpec::parse(text, options).unwrap()).unwrap()
    };
    let all = open(&format!("mirror:{}|{far}", folder.path().display()));
    contract::writable(&*all);
    let chunks = contract::chunks(2, ChunkForm::Compressed);
    for member in [folder.path().display().to_string(), s3.url("m"), sshd.url("m")] {
        contract::reads_are_right(&*open(&member), &chunks);
    }
    // What is damaged in the bucket is had behind SFTP, and is whole in the bucket again.
    let hex = chunks[0].id().to_string();
    let object = s3.object(&format!("m/{}/{hex}.cacnk", &hex[..4]));
    fs::write(&object, b"not a chunk").unwrap();
    let both = open(&format!("mirror:{far}"));
    let got = both.get(chunks[0].id()).unwrap();
    assert!(got.open(DigestAlgorithm::default(), CHUNK_LEN_MAX).is_ok());
    assert_eq!(fs::read(&object).unwrap(), &chunks[0].bytes()[..]);
}
