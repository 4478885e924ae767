//! A folder behind a real sshd, through links that break, and for those who may not.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use cairn_formats::{ChunkForm, ChunkId, StorableChunk};
use cairn_test_servers::{Sshd, WeakLink};

use super::*;
use crate::contract::{ids_of, open};
use crate::{
    ChunkStoreExt as _, Error, FlatOptions, FlatStore, IndexStore, Location, Prune, StoreOptions, contract, error_chain,
};

/// Options for tests: pauses too short to notice.
pub(crate) fn quick(server: &Sshd) -> StoreOptions {
    StoreOptions {
        http: HttpOptions {
            error_retry_base_interval: Duration::from_micros(1),
            ..HttpOptions::default()
        },
        sftp: SftpOptions {
            identities: vec![server.path("no-key"), server.identity()],
            known_hosts: vec![server.known_hosts()],
            ..SftpOptions::default()
        },
        ..StoreOptions::default()
    }
}

fn flat(path: &Path) -> FlatStore {
    FlatStore::open(path, FlatOptions::default()).unwrap()
}

/// Every file under a folder.
fn files(folder: &Path) -> Vec<String> {
    let output = Command::new("find")
        .arg(folder)
        .args(["-type", "f", "-printf", "%P\n"])
        .output()
        .unwrap();
    String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(str::to_owned)
        .collect()
}

#[test]
fn a_folder_keeps_every_promise() {
    let server = Sshd::start();
    for connections in [1, 3] {
        let mut options = quick(&server);
        options.sftp.connections = connections;
        let name = format!("made on {connections} connections");
        contract::writable(&*open(&server.url(&name), options));
        contract::reads_are_right(&flat(&server.path(&name)), &contract::chunks(2, ChunkForm::Compressed));
    }
    let plain = StoreOptions {
        form: ChunkForm::Plain,
        ..quick(&server)
    };
    contract::writable(&*open(&server.url("plain"), plain));
}

/// The program of its own, which is what other servers run.
#[test]
fn the_separate_program_and_one_without_extensions_do_too() {
    let server = Sshd::start_with("/usr/lib/openssh/sftp-server");
    contract::writable(&*open(&server.url("store"), quick(&server)));
    let server = Sshd::start_with("internal-sftp -P posix-rename,fsync,limits,statvfs");
    let store = open(&server.url("store"), quick(&server));
    contract::writable(&*store);
    assert!(files(&server.path("store")).iter().all(|name| !name.contains(".tmp")));
}

#[test]
fn chunks_are_listed_and_deleted_and_nothing_else_is() {
    let server = Sshd::start();
    let store = open(&server.url("store"), quick(&server));
    let mut all = Vec::new();
    for (seed, form) in [
        (5, ChunkForm::Compressed),
        (5, ChunkForm::Plain),
        (6, ChunkForm::Compressed),
    ] {
        let chunks = contract::chunks(seed, form);
        store.put_many(&chunks).unwrap();
        all.extend(chunks.iter().map(StorableChunk::id));
    }
    all.sort();
    all.dedup();
    fs::write(server.path("store/x.caibx"), "index").unwrap();
    fs::create_dir(server.path("store/abcd")).unwrap_or(());
    let temporary = format!("store/{}/.tmp-cacnk0123", &all[0].to_string()[..4]);
    fs::write(server.path(&temporary), "half").unwrap();
    assert_eq!(ids_of(&*store), all);
    let (gone, kept) = all.split_at(3);
    store.remove_many(gone).unwrap();
    store.remove_many(gone).unwrap();
    assert_eq!(ids_of(&*store), kept);
    assert_eq!(ids_of(&flat(&server.path("store"))), kept);
    assert_eq!(fs::read(server.path("store/x.caibx")).unwrap(), b"index");
    assert_eq!(store.remove_stale_temporaries(Duration::from_secs(3600)).unwrap(), 0);
    assert!(server.path(&temporary).exists());
    assert_eq!(store.remove_stale_temporaries(Duration::ZERO).unwrap(), 1);
    assert!(!server.path(&temporary).exists());
    let error = open(&server.url("none"), quick(&server))
        .for_each_id(&mut |_| Ok(()))
        .unwrap_err();
    assert!(
        error_chain(&error).contains("there is no folder"),
        "{}",
        error_chain(&error)
    );
}

#[test]
fn an_index_is_a_file() {
    let server = Sshd::start();
    let options = quick(&server);
    let index = IndexStore::open(&Location::parse(&server.url("x y.caibx")).unwrap(), &options).unwrap();
    assert!(matches!(index.get(), Err(Error::NoIndex { .. })));
    // Longer than what one read, and what memory, takes.
    let long = Bytes::from(vec![7; 17 << 20]);
    for bytes in [Bytes::from_static(b"one"), long, Bytes::new()] {
        index.put(bytes.clone()).unwrap();
        assert!(index.get().unwrap() == bytes);
        assert!(fs::read(server.path("x y.caibx")).unwrap() == bytes);
    }
    let index = IndexStore::open(&Location::parse(&server.url("none/x.caibx")).unwrap(), &options).unwrap();
    let text = error_chain(&index.put(Bytes::from_static(b"one")).unwrap_err());
    assert!(
        text.contains("refused to store the index") && text.contains("there is no folder"),
        "{text}"
    );
}

#[test]
fn strangers_are_refused_both_ways() {
    let server = Sshd::start();
    let id = ChunkId::from_bytes([1; 32]);
    let why = |change: &dyn Fn(&mut SftpOptions)| {
        let mut options = quick(&server);
        change(&mut options.sftp);
        let error = open(&server.url("store"), options).has(id).unwrap_err();
        assert!(
            matches!(
                error,
                Error::Refused {
                    action: "look for a chunk",
                    ..
                }
            ),
            "{error:?}"
        );
        error_chain(&error)
    };
    let text = why(&|options| options.known_hosts.clear());
    assert!(
        text.contains("no known_hosts file") && text.contains("SHA256:"),
        "{text}"
    );
    let other = Sshd::start();
    let changed = server.path("changed");
    fs::write(
        &changed,
        format!("[127.0.0.1]:{} {}\n", server.port(), other.host_key()),
    )
    .unwrap();
    let text = why(&|options| options.known_hosts = vec![changed.clone()]);
    assert!(
        text.contains("changed:1") && text.contains("somebody may be in between"),
        "{text}"
    );
    let text = why(&|options| options.identities = vec![other.identity()]);
    assert!(
        text.contains("does not let") && text.contains("user was refused"),
        "{text}"
    );
    let text = why(&|options| options.identities.clear());
    assert!(text.contains("there is no key"), "{text}");
}

#[test]
fn a_key_in_an_agent_is_enough() {
    let server = Sshd::start();
    let socket = server.path("agent");
    let mut agent = Command::new("ssh-agent")
        .arg("-D")
        .arg("-a")
        .arg(&socket)
        .spawn()
        .unwrap();
    // The socket has its name before it listens.
    while std::os::unix::net::UnixStream::connect(&socket).is_err() {
        std::thread::yield_now();
    }
    for kind in ["rsa", "ecdsa"] {
        let key = server.path(kind);
        let made = Command::new("ssh-keygen")
            .args(["-q", "-t", kind, "-N", "", "-f"])
            .arg(&key)
            .status()
            .unwrap();
        let added = Command::new("ssh-add")
            .arg("-q")
            .arg(&key)
            .env("SSH_AUTH_SOCK", &socket)
            .status()
            .unwrap();
        assert!(made.success() && added.success());
        let public = fs::read_to_string(key.with_extension("pub")).unwrap();
        fs::write(server.path("user.pub"), public).unwrap();
        let mut options = quick(&server);
        options.sftp.identities = vec![];
        options.sftp.agent = Some(socket.clone());
        contract::writable(&*open(&server.url("store"), options));
    }
    // An RSA key in a file is told apart from one that is refused.
    let mut options = quick(&server);
    options.sftp.identities = vec![server.path("rsa")];
    let text = error_chain(
        &open(&server.url("store"), options)
            .has(ChunkId::from_bytes([1; 32]))
            .unwrap_err(),
    );
    assert!(text.contains("only an ssh-agent can use"), "{text}");
    agent.kill().unwrap();
    agent.wait().unwrap();
}

fn through(server: &Sshd, link: &WeakLink, options: StoreOptions) -> Arc<dyn Prune> {
    let known = format!("[127.0.0.1]:{} {}\n", link.address().port(), server.host_key());
    fs::write(server.path("known-link"), known).unwrap();
    let mut options = options;
    options.sftp.known_hosts = vec![server.path("known-link")];
    open(&server.url_at(link.address().port(), "store"), options)
}

/// Goal: a cut connection leaves no chunk under a final name that is not whole, and a new try succeeds.
/// Method: cut at many points of one upload; look at the folder after each; then let everything through.
#[test]
fn a_cut_connection_leaves_nothing_half() {
    let server = Sshd::start();
    let address = SocketAddr::from(([127, 0, 0, 1], server.port()));
    let chunks = contract::chunks(8, ChunkForm::Compressed);
    for bytes in [0, 1000, 4000, 6000, 10_000, 30_000, 60_000, 70_000] {
        let link = WeakLink::cut_after(address, bytes);
        let mut options = quick(&server);
        options.http.error_retry = 1;
        options.sftp.connections = 1;
        let store = through(&server, &link, options);
        let error = store.put_many(&chunks).unwrap_err();
        assert!(
            matches!(
                error,
                Error::Unavailable {
                    action: "store a chunk",
                    ..
                }
            ),
            "{}",
            error_chain(&error)
        );
        if server.path("store").exists() {
            for id in ids_of(&flat(&server.path("store"))) {
                let chunk = flat(&server.path("store")).get(id).unwrap();
                chunk.open(cairn_formats::DigestAlgorithm::default(), 1 << 20).unwrap();
            }
            let _ = fs::remove_dir_all(server.path("store"));
        }
        link.allow(u64::MAX);
        store.put_many(&chunks).unwrap();
        contract::reads_are_right(&*store, &chunks);
    }
    // With more tries nobody hears of it.
    let link = WeakLink::cut_after(address, 20_000);
    let mut options = quick(&server);
    options.http.error_retry = 50;
    let store = through(&server, &link, options);
    std::thread::scope(|scope| {
        scope.spawn(|| store.put_many(&contract::chunks(9, ChunkForm::Compressed)).unwrap());
        while link.connections() < 6 {
            std::thread::yield_now();
        }
        link.allow(u64::MAX);
    });
    contract::reads_are_right(&*store, &contract::chunks(9, ChunkForm::Compressed));
}

#[test]
fn silence_and_nobody_there_end_in_time() {
    let server = Sshd::start();
    let address = SocketAddr::from(([127, 0, 0, 1], server.port()));
    for bytes in [0, 5000] {
        let link = WeakLink::silent_after(address, bytes);
        let mut options = quick(&server);
        options.http.connect_timeout = Duration::from_secs(1);
        options.http.timeout = Some(Duration::from_millis(200));
        options.http.error_retry = 1;
        let store = through(&server, &link, options);
        let text = error_chain(&store.put_many(&contract::chunks(8, ChunkForm::Compressed)).unwrap_err());
        assert!(
            text.contains("connected within 1s") || text.contains("no answer within 200ms"),
            "{text}"
        );
    }
    let mut options = quick(&server);
    options.http.error_retry = 2;
    let url = server.url_at(cairn_test_servers::free_port(), "store");
    let error = open(&url, options).has(ChunkId::from_bytes([1; 32])).unwrap_err();
    assert!(matches!(error, Error::Unavailable { .. }), "{error:?}");
    assert!(error_chain(&error).contains("2 tries"), "{}", error_chain(&error));
}

/// Goal: faults of the server's file system are told by name, and leave nothing behind.
#[test]
fn no_permission_and_no_sftp_are_told() {
    let server = Sshd::start_with("internal-sftp -R");
    let chunks = contract::chunks(8, ChunkForm::Compressed);
    let store = open(&server.url("store"), quick(&server));
    let error = store.put_many(&chunks).unwrap_err();
    assert!(
        matches!(
            error,
            Error::Refused {
                action: "store a chunk",
                ..
            }
        ),
        "{error:?}"
    );
    assert!(error_chain(&error).contains("no permission"), "{}", error_chain(&error));
    let server = Sshd::start_with("/bin/false");
    let mut options = quick(&server);
    options.http.error_retry = 1;
    let error = open(&server.url("store"), options).put_many(&chunks).unwrap_err();
    assert!(
        error_chain(&error).contains("closed") || error_chain(&error).contains("cut"),
        "{}",
        error_chain(&error)
    );
    let server = Sshd::start();
    let store = open(&server.url("store"), quick(&server));
    store.put_many(&chunks).unwrap();
    // A file where a folder should be.
    fs::write(server.path("file"), "x").unwrap();
    assert!(open(&server.url("file"), quick(&server)).put_many(&chunks).is_err());
    let read_only = StoreOptions {
        read_only: true,
        ..quick(&server)
    };
    let store = open(&server.url("store"), read_only.clone());
    assert!(matches!(store.put_many(&chunks), Err(Error::ReadOnly { .. })));
    contract::reads_are_right(&*store, &chunks);
    let text = error_chain(&open(&server.url("none"), read_only).has(chunks[0].id()).unwrap_err());
    assert!(text.contains("there is no folder"), "{text}");
    assert_eq!(
        fs::metadata(server.path("store")).unwrap().permissions().mode() & 0o700,
        0o700
    );
}

/// Goal: a full disk is told as such, not tried again, and leaves nothing behind.
/// Method: the folder is a small tmpfs.
#[test]
fn a_full_disk_is_told() {
    let server = Sshd::start();
    let folder = server.path("small");
    fs::create_dir(&folder).unwrap();
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=64k", "tmpfs"])
        .arg(&folder)
        .status()
        .unwrap();
    assert!(mounted.success(), "this test mounts a tmpfs");
    let store = open(&server.url("small"), quick(&server));
    // The long one alone: a short one beside it may fail, and find room again when it looks why.
    let error = store.put_many(&contract::chunks(8, ChunkForm::Compressed)[..1]);
    let left = files(&folder);
    let unmounted = Command::new("umount").arg(&folder).status().unwrap();
    let error = error.unwrap_err();
    assert!(
        matches!(
            error,
            Error::Unavailable {
                action: "store a chunk",
                ..
            }
        ),
        "{error:?}"
    );
    assert!(
        error_chain(&error).contains("no room left") && !error_chain(&error).contains("tries"),
        "{}",
        error_chain(&error)
    );
    assert!(left.iter().all(|name| !name.contains(".tmp")), "{left:?}");
    assert!(unmounted.success());
}
