//! Indexes on servers.

use bytes::Bytes;
use cairn_store::{Error, HttpOptions, IndexStore, Location};

use crate::servers::{Fault, Server, answer};
use crate::{quick, told};

/// An index without chunks: a desync index-server takes nothing that is not an index.
fn empty_index() -> Bytes {
    let words: [u64; 13] = [
        48,
        0x96824d9c7b129ff9,
        0xa000000000000000,
        16384,
        65536,
        262144,
        u64::MAX,
        0xe75b9e112f17417d,
        0,
        0,
        48,
        56,
        0x4b4f050e5549ecd1,
    ];
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

fn open(url: &str, options: &HttpOptions) -> IndexStore {
    let options = cairn_store::StoreOptions {
        http: options.clone(),
        ..cairn_store::StoreOptions::default()
    };
    IndexStore::open(&Location::parse(url).unwrap(), &options).unwrap()
}

#[test]
fn an_index_is_put_and_read_back() {
    let folder = tempfile::tempdir().unwrap();
    let nginx = Server::nginx(folder.path(), "");
    let desync = Server::desync("index-server", folder.path(), &["-w"]);
    for server in [nginx, desync] {
        let index = open(&format!("{}of-{}.caibx", server.url(), server.port), &quick());
        assert!(matches!(index.get(), Err(Error::NoIndex { .. })));
        index.put(empty_index()).unwrap();
        assert_eq!(index.get().unwrap(), empty_index());
    }
}

#[test]
fn what_a_server_says_about_a_bad_index_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::desync("index-server", folder.path(), &["-w"]);
    let error = open(&format!("{}x.caibx", server.url()), &quick())
        .put(Bytes::from_static(b"not an index"))
        .unwrap_err();
    assert!(matches!(error, Error::Refused { .. }), "{error:?}");
    assert!(told(&error).contains("415 Unsupported Media Type"), "{}", told(&error));
}

#[test]
fn a_body_cut_short_is_read_again() {
    let server = Fault::start(|number, _| match number {
        0 => Some(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 104\r\n\r\nhalf".to_vec()),
        _ => answer("200 OK", "", &empty_index()),
    });
    let index = open(&format!("{}x.caibx", server.url()), &quick());
    assert_eq!(index.get().unwrap(), empty_index());
    assert_eq!(server.requests().len(), 2);
}

/// Longer than what is kept in memory.
#[test]
fn a_long_index_is_read_whole() {
    let folder = tempfile::tempdir().unwrap();
    let bytes: Vec<u8> = (0..17u32 << 18).flat_map(u32::to_le_bytes).collect();
    std::fs::write(folder.path().join("long.caibx"), &bytes).unwrap();
    let server = Server::nginx(folder.path(), "");
    let index = open(&format!("{}long.caibx", server.url()), &quick());
    assert!(index.get().unwrap() == bytes);
    let pieces = bytes.clone();
    let server = Fault::start(move |_, _| {
        let mut wire = b"HTTP/1.1 200 OK\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
        wire.extend_from_slice(format!("{:x}\r\n", pieces.len()).as_bytes());
        wire.extend_from_slice(&pieces);
        wire.extend_from_slice(b"\r\n0\r\n\r\n");
        Some(wire)
    });
    assert!(open(&format!("{}x", server.url()), &quick()).get().unwrap() == bytes);
}
