//! A mirrored store of `cairnd`: what is acknowledged is in its places, what one lacks comes back, reloads keep what is open.
// A helper that fails is a test that fails.
#![allow(clippy::unwrap_used)]

#[path = "../../gateway/roots/tests/client/mod.rs"]
mod client;
mod daemon;

use client::Sample;
use daemon::{Daemon, wait_until};

const TOKEN: &str = "a-token";

fn put(daemon: &Daemon, sample: &Sample) -> u16 {
    daemon.status("PUT", &format!("/store/a{}", sample.frame_path()), &sample.frame)
}

#[test]
fn what_is_acknowledged_is_in_every_place_and_comes_back_where_it_is_lost() {
    let far = Daemon::start(&format!("[stores.b]\nwritable = true\nwrite_token = '{TOKEN}'\n"));
    let settings = format!(
        "[stores.a]\nwritable = true\npath = 'own'\nmirror = ['copy', 'http://{}/store/b/']\nmirror_quorum = 2\n\
         upstream_authorization = 'Bearer {TOKEN}'\n",
        far.public
    );
    let near = Daemon::start(&settings);
    let (one, two) = (Sample::new(b"one"), Sample::new(b"two"));
    assert_eq!(put(&near, &one), 200);
    assert_eq!(far.status("GET", &format!("/store/b{}", one.frame_path()), b""), 200);
    let files = ["own", "copy"].map(|folder| near.path().join(format!("{folder}{}", one.frame_path())));
    for file in &files {
        assert_eq!(std::fs::read(file).unwrap(), one.frame);
        std::fs::remove_file(file).unwrap();
    }
    let answer = near.ask("GET", &format!("/store/a{}", one.frame_path()), &[], b"");
    assert_eq!((answer.status, answer.body), (200, one.frame.clone()));
    // The far one may be the nearest for a while; each read begins with another member until all were measured.
    assert!(files.iter().all(|file| file.exists()));

    drop(far);
    assert_eq!(put(&near, &two), 200);
    let path = format!("/store/a{}", two.frame_path());
    assert_eq!(near.status("GET", &path, b""), 200);
    assert!(near.log().contains("lacks a chunk"), "{}", near.log());
    let page = near.metrics();
    assert!(page.contains("store_mirror_owed_chunks{"), "{page}");
    // With all places asked for, that is not enough.
    near.configure(&settings.replace("mirror_quorum = 2", "mirror_quorum = 3"));
    wait_until("the settings are read", || put(&near, &Sample::new(b"three")) >= 500);
}

/// A folder of packs in the mirror is locked while it is open: settings that change keep it.
#[test]
fn packs_in_a_mirror_stay_open_when_settings_change() {
    let packs = "[stores.p]\nwritable = true\nkind = 'packs'\npath = 'packs'\n";
    let folder = Daemon::start(packs).leave();
    let settings = "[stores.a]\nwritable = true\nmirror = ['packs']\n";
    let daemon = Daemon::start_in(folder, settings, &[]);
    let sample = Sample::new(b"one");
    assert_eq!(put(&daemon, &sample), 200);
    daemon.configure(&format!("{settings}read_token = '{TOKEN}'\n"));
    let path = format!("/store/a{}", sample.frame_path());
    wait_until("the settings are read", || daemon.status("GET", &path, b"") == 401);
    assert_eq!(put(&daemon, &Sample::new(b"two")), 200);
    // By itself the folder is the store.
    let daemon = Daemon::start_in(daemon.leave(), &packs.replace("stores.p", "stores.a"), &[]);
    assert_eq!(daemon.status("GET", &path, b""), 200);
}
