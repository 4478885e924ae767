//! A mirrored store of `cairnd` whose server was stopped while a place was behind: what it owed is found again.

use std::fs;

use cairn_conformance::support::{args, cairn, cairnd_with, chunk_files, input, ok};

/// Goal: a server forgets with its end what a place of its mirror lacks; `cairn verify --repair` over the places finds it.
#[test]
fn what_a_place_lacked_when_the_server_ended_is_found_again() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = |name: &str| folder.path().join(name);
    let (own, copy) = (path("own"), path("copy"));
    let settings = [
        ("CAIRN_STORES__DEFAULT__WRITABLE", "true"),
        ("CAIRN_STORES__DEFAULT__PATH", own.to_str().expect("UTF-8")),
        ("CAIRN_STORES__DEFAULT__MIRROR", &format!("[{copy:?}]")),
        ("CAIRN_STORES__DEFAULT__MIRROR_QUORUM", "1"),
    ];
    let (blob, index) = (path("blob"), path("blob.caibx"));
    fs::write(&blob, input(1, 2_000_000)).expect("a file");
    ok(cairn().args(args!["make", index, blob]));
    let ids = ok(cairn().args(args!["list-chunks", index])).stdout;
    // A file where the copy needs a folder for some of the chunks.
    let prefix = String::from_utf8_lossy(&ids[..4]).into_owned();
    fs::create_dir(&copy).expect("a folder");
    fs::write(copy.join(&prefix), "in the way").expect("a file");

    let server = cairnd_with(&path("data"), &settings);
    let store = format!("{}/store/default/", server.url());
    ok(cairn().args(args!["make", "-s", store, index, blob]));
    server.line_with("lacks");
    assert!(server.stop().success());
    fs::remove_file(copy.join(&prefix)).expect("it is there");
    assert!(chunk_files(&own) != chunk_files(&copy));

    let server = cairnd_with(&path("data"), &settings);
    let both = format!("mirror:{}|{}", own.display(), copy.display());
    ok(cairn().args(args!["verify", "--repair", "-s", both]));
    assert!(chunk_files(&own) == chunk_files(&copy));
    drop(server);
    let out = path("out");
    ok(cairn().args(args!["extract", "-s", copy, index, out]));
    assert!(fs::read(out).expect("an output") == fs::read(blob).expect("a file"));
}
