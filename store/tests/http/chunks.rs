//! Reading and writing chunks through servers that work.

use std::fs;

use cairn_formats::{ChunkForm, ChunkId};
use cairn_store::{Authorization, ChunkStore, Cookie, Error, FlatOptions, FlatStore, HttpOptions, SyncPolicy};

use crate::servers::{Certificates, Server};
use crate::{chunks, encoded, error_of, ids, open, quick, read, told, try_open};

/// A folder with these many compressed and as many plain chunks, those of seed 1 and seed 2.
fn filled(count: usize) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fill(folder.path(), 1, count, ChunkForm::Compressed);
    fill(folder.path(), 2, count, ChunkForm::Plain);
    folder
}

fn fill(folder: &std::path::Path, seed: u8, count: usize, form: ChunkForm) {
    let options = FlatOptions {
        form,
        sync: SyncPolicy::None,
        ..FlatOptions::default()
    };
    let store = FlatStore::open(folder, options).unwrap();
    store.put_many(&encoded(&chunks(seed, count), form)).unwrap();
    store.flush().unwrap();
}

#[test]
fn nginx_serves_both_forms_and_takes_uploads() {
    let folder = filled(40);
    let server = Server::nginx(folder.path(), "");
    let store = open(&server.url(), quick());
    let (compressed, plain, new) = (chunks(1, 40), chunks(2, 40), chunks(3, 40));
    read(&store, &compressed);
    read(&store, &plain);
    read(&store, &compressed);
    assert_eq!(store.has_many(&ids(&new)).unwrap(), [false; 40]);
    store.put_many(&encoded(&new, ChunkForm::Compressed)).unwrap();
    store.flush().unwrap();
    assert_eq!(store.has_many(&ids(&new)).unwrap(), [true; 40]);
    read(&store, &new);
    let flat = FlatStore::open(folder.path(), FlatOptions::default()).unwrap();
    read(&flat, &new);
    assert!(matches!(error_of(&store), Error::Missing { .. }));
    let mut mixed = ids(&plain[..1]);
    mixed.push(ChunkId::from_bytes([7; 32]));
    assert_eq!(store.has_many(&mixed).unwrap(), [true, false]);
    let stat = store.stat(plain[0].id(), ChunkForm::Plain).unwrap().unwrap();
    assert_eq!(stat.stored, Some((ChunkForm::Plain, plain[0].plain().len() as u64)));
    assert!(store.stat(mixed[1], ChunkForm::Plain).unwrap().is_none());
    assert!(store.get_many(&[]).is_empty());
}

#[test]
fn a_base_path_needs_no_slash_at_its_end_and_a_query_is_kept_but_not_shown() {
    let folder = tempfile::tempdir().unwrap();
    let inner = folder.path().join("a b/store");
    fs::create_dir_all(&inner).unwrap();
    fill(&inner, 1, 2, ChunkForm::Compressed);
    let server = Server::nginx(folder.path(), "if ($arg_token != 'secret') { return 403; }");
    for path in ["a%20b/store", "a%20b/store/"] {
        let store = open(&format!("{}{path}?token=secret", server.url()), quick());
        read(&store, &chunks(1, 2));
        assert_eq!(store.name().to_string(), format!("{}{path}", server.url()));
    }
    let error = error_of(&open(&format!("{}a%20b/store?token=wrong", server.url()), quick()));
    assert!(matches!(error, Error::Refused { .. }), "{error:?}");
    assert!(!told(&error).contains("token"), "{error}");
}

#[test]
fn desyncs_chunk_server_is_read_and_written_in_the_form_that_it_serves() {
    for flags in [&["-w"][..], &["-w", "-u"]] {
        let folder = tempfile::tempdir().unwrap();
        // What is in the folder is compressed either way; `-u` is about what is served.
        fill(folder.path(), 1, 20, ChunkForm::Compressed);
        let server = Server::desync("chunk-server", folder.path(), flags);
        let store = open(&server.url(), quick());
        read(&store, &chunks(1, 20));
        assert!(matches!(error_of(&store), Error::Missing { .. }));
        // The chunks come compressed; the server without compression gets them plain.
        let new = chunks(2, 20);
        assert_eq!(store.has_many(&ids(&new)).unwrap(), [false; 20]);
        store.put_many(&encoded(&new, ChunkForm::Compressed)).unwrap();
        assert_eq!(store.has_many(&ids(&new)).unwrap(), [true; 20]);
        read(&store, &new);
    }
}

#[test]
fn a_read_only_server_refuses_uploads_and_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let new = encoded(&chunks(1, 3), ChunkForm::Compressed);
    let desync = Server::desync("chunk-server", folder.path(), &[]);
    let error = open(&desync.url(), quick()).put_many(&new).unwrap_err();
    assert!(matches!(error, Error::Refused { .. }), "{error:?}");
    assert!(told(&error).contains("400 Bad Request: "), "{}", told(&error));
    let nginx = Server::nginx(folder.path(), "if ($request_method = PUT) { return 405; }");
    let error = open(&nginx.url(), quick()).put_many(&new).unwrap_err();
    assert!(matches!(error, Error::ReadOnly { .. }), "{error:?}");
}

#[test]
fn credentials_are_sent_and_a_refusal_is_not_missing() {
    let folder = filled(3);
    let users = folder.path().join("users");
    fs::write(&users, "ann:{PLAIN}p@ss word\n").unwrap();
    let rules = format!("auth_basic store; auth_basic_user_file {};", users.display());
    let server = Server::nginx(folder.path(), &rules);
    let store = |url: &str, authorization| {
        open(
            url,
            HttpOptions {
                authorization,
                ..quick()
            },
        )
    };
    let basic = |password: &str| {
        Some(Authorization::Basic {
            user: "ann".to_owned(),
            password: password.to_owned(),
        })
    };
    read(&store(&server.url(), basic("p@ss word")), &chunks(1, 3));
    let with_user = server.url().replace("//", "//ann:p%40ss%20word@");
    read(&store(&with_user, None), &chunks(1, 3));
    for refused in [store(&server.url(), None), store(&with_user, basic("wrong"))] {
        let error = error_of(&refused);
        assert!(matches!(error, Error::Refused { .. }), "{error:?}");
        assert!(
            told(&error).ends_with("it answered 401 Unauthorized"),
            "{}",
            told(&error)
        );
        assert!(matches!(
            refused.has_many(&ids(&chunks(1, 3))),
            Err(Error::Refused { .. })
        ));
        assert!(!format!("{refused:?}").contains("ss"), "{refused:?}");
    }
}

#[test]
fn bearer_fixed_and_cookie_values_are_sent() {
    let folder = filled(2);
    let rules =
        "if ($http_authorization != 'Bearer t0ken') { return 401; } if ($http_cookie != 'a=b; c=d') { return 403; }";
    let server = Server::nginx(folder.path(), rules);
    let cookie = Some(Cookie("a=b; c=d".to_owned()));
    for authorization in [
        Authorization::Bearer("t0ken".to_owned()),
        Authorization::Fixed("Bearer t0ken".to_owned()),
    ] {
        assert!(!format!("{authorization:?}{cookie:?}").contains("t0ken"));
        let store = open(
            &server.url(),
            HttpOptions {
                authorization: Some(authorization),
                cookie: cookie.clone(),
                ..quick()
            },
        );
        read(&store, &chunks(1, 2));
    }
    let desync = Server::desync("chunk-server", folder.path(), &["--authorization", "Custom value"]);
    let authorization = Some(Authorization::Fixed("Custom value".to_owned()));
    read(
        &open(
            &desync.url(),
            HttpOptions {
                authorization,
                ..quick()
            },
        ),
        &chunks(1, 2),
    );
    assert!(matches!(error_of(&open(&desync.url(), quick())), Error::Refused { .. }));
}

/// Over HTTP/2, as desync's servers and most others speak it with TLS.
#[test]
fn tls_with_own_authority_and_client_certificate() {
    let folder = filled(30);
    let certificates = Certificates::new();
    let path = |name| certificates.path(name);
    let tls = format!(
        "ssl_certificate {}; ssl_certificate_key {}; ssl_client_certificate {}; ssl_verify_client on;",
        path("server.pem").display(),
        path("server.key").display(),
        path("ca.pem").display()
    );
    let rules = "if ($server_protocol != 'HTTP/2.0') { return 505; }";
    let server = Server::nginx_with(folder.path(), "ssl http2", &tls, rules);
    let with_certificate = HttpOptions {
        client_cert: Some(path("client.pem")),
        client_key: Some(path("client.key")),
        ..quick()
    };
    let whole = HttpOptions {
        ca_cert: Some(path("ca.pem")),
        ..with_certificate.clone()
    };
    let store = open(&server.tls_url(), whole.clone());
    read(&store, &chunks(1, 30));
    store.put_many(&encoded(&chunks(3, 30), ChunkForm::Compressed)).unwrap();
    read(&store, &chunks(3, 30));
    let trusting = HttpOptions {
        trust_insecure: true,
        ..with_certificate.clone()
    };
    read(&open(&server.tls_url(), trusting), &chunks(1, 30));
    let anonymous = HttpOptions {
        client_cert: None,
        client_key: None,
        ..whole.clone()
    };
    assert!(matches!(
        error_of(&open(&server.tls_url(), anonymous)),
        Error::Refused { .. }
    ));
    // Some other authority: the server's certificate is not trusted.
    let stranger = HttpOptions {
        ca_cert: Some(Certificates::new().path("ca.pem")).filter(|path| path.exists()),
        ..with_certificate
    };
    let error = try_open(&server.tls_url(), stranger)
        .map(|store| error_of(&store))
        .unwrap_or_else(|error| error);
    assert!(matches!(error, Error::Refused { .. }), "{error:?}");
    for broken in [
        HttpOptions {
            client_key: None,
            ..whole.clone()
        },
        HttpOptions {
            client_key: Some(path("ca.pem")),
            ..whole.clone()
        },
        HttpOptions {
            ca_cert: Some(path("server.key")),
            ..whole.clone()
        },
        HttpOptions {
            ca_cert: Some(path("none")),
            ..whole
        },
    ] {
        let error = try_open(&server.tls_url(), broken).unwrap_err();
        assert!(matches!(error, Error::Refused { action: "open", .. }), "{error:?}");
    }
}
