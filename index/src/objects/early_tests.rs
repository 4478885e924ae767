//! Buckets whose writes are acknowledged before they are durable: what a power cut takes, and that it takes no more.

use std::path::Path;
use std::sync::Arc;

use cairn_store::{PackEngine, PackOptions};
use tempfile::TempDir;

use super::*;
use crate::names::{BucketName, Cause, Condition, Current, Durability, NewBucket, ObjectKey, Owner};
use crate::{Database, RocksEngine, RocksOptions};

struct Server {
    objects: Arc<Objects>,
    index: Arc<RocksEngine>,
    packs: Arc<PackEngine>,
}

impl Server {
    fn open(folder: &Path) -> std::result::Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        let index = Arc::new(RocksEngine::open(&folder.join("index"), &RocksOptions::default())?);
        let (packs, _) = PackEngine::open_folder(&folder.join("packs"), PackOptions::default(), index.clone())?;
        let packs = Arc::new(packs);
        let kv = Arc::new(Database::logged(index.clone(), packs.clone()));
        crate::open_schema(kv.as_ref(), "the test")?;
        let objects = Objects::new(Names::new(kv), packs.clone(), ObjectOptions::default());
        Ok(Self { objects, index, packs })
    }

    fn bucket(&self, durability: Durability) -> Bucket {
        let (tenant, name) = (
            Tenant::default(),
            BucketName::new(&format!("{durability:?}").to_lowercase()).unwrap(),
        );
        let buckets = self.objects.names().buckets(&tenant);
        let mut new = NewBucket::of(Owner::new("me").unwrap());
        new.settings.durability = durability;
        buckets.get(&name).or_else(|_| buckets.create(&name, new)).unwrap()
    }

    fn put(&self, durability: Durability, key: &str, bytes: &[u8]) {
        let bucket = self.bucket(durability);
        let mut writer = self.objects.writer(&bucket, &DigestsWanted::default()).unwrap();
        writer.push(bytes).unwrap();
        let (key, owner) = (ObjectKey::new(key).unwrap(), Owner::new("me").unwrap());
        let body = writer.finish().unwrap();
        body.put(&key, &owner, |_| {}, &Condition::Always, &Cause::default())
            .unwrap();
    }

    fn get(&self, durability: Durability, key: &str) -> Option<Vec<u8>> {
        let bucket = self.bucket(durability);
        let found = self.objects.names().objects(&bucket).get(&ObjectKey::new(key).unwrap());
        let Current::Object(version) = found.unwrap() else {
            return None;
        };
        let record = version.object().unwrap();
        let pieces = self
            .objects
            .read(bucket.tenant(), &record.content, 0..record.size)
            .unwrap();
        Some(pieces.flat_map(|piece| piece.unwrap().to_vec()).collect())
    }
}

fn noise(seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; 300_000];
    fastrand::Rng::with_seed(seed).fill(&mut bytes);
    bytes
}

fn pack(folder: &Path) -> std::path::PathBuf {
    let packs = std::fs::read_dir(folder.join("packs")).unwrap();
    let mut packs = packs.map(|entry| entry.unwrap().path());
    packs
        .find(|path| path.extension().is_some_and(|ending| ending == "pack"))
        .unwrap()
}

/// A copy of a folder as a power cut may leave it: the index as it is, the log as far as it was synced.
fn after_power_cut(server: &Server, folder: &Path, synced: u64) -> TempDir {
    let copy = TempDir::new().unwrap();
    server.index.flush().unwrap();
    server.index.checkpoint(&copy.path().join("index")).unwrap();
    std::fs::create_dir(copy.path().join("packs")).unwrap();
    std::fs::copy(folder.join("packs/FORMAT"), copy.path().join("packs/FORMAT")).unwrap();
    let pack = pack(folder);
    let to = copy.path().join("packs").join(pack.file_name().unwrap());
    std::fs::copy(&pack, &to).unwrap();
    std::fs::File::options()
        .write(true)
        .open(&to)
        .unwrap()
        .set_len(synced)
        .unwrap();
    copy
}

/// Goal: an index that was written out before what it holds was durable is found out when the log lost that; made anew it has what was
/// durable, whole, and nothing of the rest.
#[test]
fn an_index_ahead_of_what_a_power_cut_left_is_made_anew() {
    for durability in [Durability::Batch, Durability::Volatile] {
        let folder = TempDir::new().unwrap();
        let server = Server::open(folder.path()).unwrap();
        server.bucket(durability);
        server.put(Durability::Sync, "durable", &noise(1));
        let synced = pack(folder.path()).metadata().unwrap().len();
        server.put(durability, "early", &noise(2));
        server.put(durability, "durable", b"small");
        assert_eq!(
            server.get(durability, "early").unwrap(),
            noise(2),
            "it can be read at once"
        );
        let copy = after_power_cut(&server, folder.path(), synced);
        let refused = Server::open(copy.path()).err().expect("the log ends too early");
        let mut causes = vec![refused.to_string()];
        let mut cause: Option<&(dyn std::error::Error + 'static)> = refused.source();
        while let Some(error) = cause {
            causes.push(error.to_string());
            cause = error.source();
        }
        assert!(
            causes.iter().any(|cause| cause.contains("rebuilt from the packs")),
            "{causes:?}"
        );
        std::fs::remove_dir_all(copy.path().join("index")).unwrap();
        let again = Server::open(copy.path()).unwrap();
        assert_eq!(again.get(Durability::Sync, "durable").unwrap(), noise(1));
        assert_eq!(again.get(durability, "early"), None);
        assert_eq!(again.get(durability, "durable"), None);
        again.put(durability, "early", &noise(3));
        assert_eq!(again.get(durability, "early").unwrap(), noise(3));
    }
}

/// Goal: what was synced after it was acknowledged stays, by whatever it was synced: a write of another class, the one who does so now and
/// then, or a whole log behind an index that was ahead for a moment.
#[test]
fn what_was_synced_since_stays() {
    let folder = TempDir::new().unwrap();
    let server = Server::open(folder.path()).unwrap();
    server.put(Durability::Batch, "early", &noise(1));
    // Ahead, and then not any more.
    server.index.flush().unwrap();
    server.packs.sync_early().unwrap();
    let synced = pack(folder.path()).metadata().unwrap().len();
    let copy = after_power_cut(&server, folder.path(), synced);
    assert_eq!(
        Server::open(copy.path())
            .unwrap()
            .get(Durability::Batch, "early")
            .unwrap(),
        noise(1)
    );
    server.put(Durability::Volatile, "early", &noise(2));
    server.put(Durability::Sync, "durable", &noise(3));
    let synced = pack(folder.path()).metadata().unwrap().len();
    server.put(Durability::Sync, "later", b"small");
    // The log lost what was durable: that is damage, and the index keeps what it has.
    let copy = after_power_cut(&server, folder.path(), synced);
    let again = Server::open(copy.path()).unwrap();
    assert_eq!(again.get(Durability::Volatile, "early").unwrap(), noise(2));
    assert_eq!(again.get(Durability::Sync, "later").unwrap(), b"small");
}
