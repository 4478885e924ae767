//! What holds for buckets of Google Cloud Storage alone: whose requests are sent, what a refusal says.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};

use cairn_formats::{ChunkForm, ChunkId};
use cairn_test_servers::{GsServer, TOKEN};

use super::*;
use crate::backend::bucket::tests::{always, assert_heard, quick as of_any_service};
use crate::contract::open;
use crate::{ChunkStoreExt as _, Error, Location, MemberSpec, StoreOptions, contract, error_chain, open_prunable};

/// Options for tests.
///
/// - `server`: `http://host:port`.
pub(crate) fn quick(server: &str) -> StoreOptions {
    showing(server, TOKEN)
}

fn showing(server: &str, token: &str) -> StoreOptions {
    with(server, GsCredentials::Token(GsToken(token.to_owned())))
}

fn with(server: &str, credentials: GsCredentials) -> StoreOptions {
    StoreOptions {
        gs: GsOptions {
            credentials,
            endpoint: Some(server.to_owned()),
        },
        ..of_any_service()
    }
}

fn fails(url: &str, options: StoreOptions) -> Error {
    open(url, options).has(ChunkId::from_bytes([1; 32])).unwrap_err()
}

#[test]
fn refusals_name_the_store_the_action_and_the_cause() {
    let server = GsServer::start();
    let error = open(&server.url("p"), showing(&server.endpoint(), "another"))
        .put_many(&contract::chunks(1, ChunkForm::Plain)[3..])
        .unwrap_err();
    let text = error_chain(&error);
    assert!(matches!(error, Error::Refused { .. }), "{text}");
    assert!(text.starts_with("gs://chunks/p refused to store a chunk"), "{text}");
    assert!(
        text.contains("401") && text.contains("AuthenticationRequired"),
        "{text}"
    );
    assert!(!text.contains("another"), "{text}");

    let text = error_chain(&fails(&server.url("p"), with(&server.endpoint(), GsCredentials::None)));
    assert!(text.contains("no credentials were found"), "{text}");

    let store = open("gs://no-bucket/p", quick(&server.endpoint()));
    let text = error_chain(&store.for_each_id(&mut |_| Ok(())).unwrap_err());
    assert!(
        text.contains("refused to list its chunks") && text.contains("NoSuchBucket"),
        "{text}"
    );

    let read_only = StoreOptions {
        read_only: true,
        ..quick(&server.endpoint())
    };
    let store = open(&server.url("p"), read_only);
    assert!(matches!(store.put_many(&[]), Err(Error::ReadOnly { .. })));
    assert!(matches!(store.remove_many(&[]), Err(Error::ReadOnly { .. })));
}

/// Google says whom it refuses, and what, in an element of its own.
#[test]
fn a_refusal_says_what_was_not_allowed() {
    let (server, _) = always(Some(
        b"HTTP/1.1 403 Forbidden\r\nConnection: close\r\nContent-Length: 128\r\n\r\n\
          <Error><Code>AccessDenied</Code><Message>Access denied.</Message><Details>x does not have storage.objects.get</Details></Error>  ",
    ));
    let error = open("gs://b/p", quick(&server))
        .get(ChunkId::from_bytes([1; 32]))
        .unwrap_err();
    let text = error_chain(&error);
    assert!(
        text.contains("AccessDenied: x does not have storage.objects.get"),
        "{text}"
    );
}

#[test]
fn a_token_goes_over_https_or_within_this_machine_alone() {
    let opened = |server: &str, credentials: GsCredentials| {
        let location = Location::parse("gs://b").unwrap();
        let options = with(server, credentials);
        open_prunable(&MemberSpec { location, options })
            .map(drop)
            .map_err(|error| error_chain(&error))
    };
    let token = || GsCredentials::Token(GsToken("hidden-token".to_owned()));
    assert!(
        opened("http://10.0.0.1:80", token())
            .unwrap_err()
            .contains("over https")
    );
    assert!(opened("http://10.0.0.1:80", GsCredentials::None).is_ok());
    assert!(opened("https://example.org", token()).is_ok());
    for wrong in ["example.org", "ftp://example.org", "https://u@example.org"] {
        assert!(opened(wrong, token()).is_err(), "{wrong}");
    }
    assert_eq!(format!("{:?}", token()), "Token(GsToken(…))");
    let connector = Connector::new(&of_any_service().http, WORDS, None).unwrap();
    let builder = GoogleCloudStorageBuilder::new()
        .with_bucket_name("b")
        .with_http_connector(connector.clone());
    let store = token().apply(builder, &connector).build().unwrap();
    assert!(!format!("{store:?}").contains("hidden-token"), "{store:?}");
}

/// The service beside a machine of Google's that tells its tokens, as far as its protocol goes. Hears the heads of requests.
fn machine(token: &'static str, seconds: u64) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let heard = Arc::new(Mutex::new(Vec::new()));
    let hears = heard.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = Vec::new();
            let mut piece = [0; 4096];
            while !request.windows(4).any(|end| end == b"\r\n\r\n") {
                match stream.read(&mut piece) {
                    Ok(read @ 1..) => request.extend_from_slice(&piece[..read]),
                    _ => break,
                }
            }
            let head = String::from_utf8_lossy(&request).to_ascii_lowercase();
            let asks = head.starts_with("get /computemetadata/v1/instance/service-accounts/default/token ")
                && head.contains("metadata-flavor: google");
            hears.lock().unwrap().push(head);
            let body = format!(r#"{{"access_token":"{token}","expires_in":{seconds},"token_type":"Bearer"}}"#);
            let (status, body) = if asks { (200, body) } else { (403, String::new()) };
            let len = body.len();
            let wire = format!("HTTP/1.1 {status} x\r\nConnection: close\r\nContent-Length: {len}\r\n\r\n{body}");
            let _ = stream.write_all(wire.as_bytes());
        }
    });
    (url, heard)
}

/// A machine's token for a server that is not Google's, as if it were.
fn of_machine(server: &GsServer, url: &str) -> Arc<dyn object_store::ObjectStore> {
    let credentials = GsCredentials::Machine { url: url.to_owned() };
    let http = of_any_service().http;
    let connector = Connector::new(&http, WORDS, credentials.metadata_url()).unwrap();
    let builder = GoogleCloudStorageBuilder::new()
        .with_base_url(&server.endpoint())
        .with_bucket_name(cairn_test_servers::S3Server::BUCKET)
        .with_retry(tried_once())
        .with_http_connector(connector.clone());
    Arc::new(credentials.apply(builder, &connector).build().unwrap())
}

#[test]
fn a_machine_is_asked_once_for_as_long_as_its_token_is_good() {
    use object_store::ObjectStoreExt as _;
    let runtime = crate::backend::remote::workers::network_thread().unwrap();
    let server = GsServer::start();
    for (seconds, questions) in [(3600, 1), (200, 3)] {
        let (url, heard) = machine(TOKEN, seconds);
        let store = of_machine(&server, &url);
        for name in ["a", "b", "c"] {
            runtime.block_on(store.put(&name.into(), "x".into())).unwrap();
        }
        assert_eq!(heard.lock().unwrap().len(), questions);
    }
    assert_eq!(fs::read(server.object("c")).unwrap(), b"x");
    let (url, _) = machine(TOKEN, 3600);
    let store = of_machine(&server, &format!("{url}/elsewhere"));
    let error = runtime.block_on(store.get(&"a".into())).unwrap_err();
    let text = error_chain(&error);
    assert!(text.contains("403") && text.contains("asked for a token"), "{text}");
}

/// What nobody named is for Google's own servers: another is not told.
#[test]
fn a_stranger_is_not_told_the_machines_token() {
    let server = GsServer::start();
    let (url, heard) = machine(TOKEN, 3600);
    let options = with(&server.endpoint(), GsCredentials::Machine { url });
    let text = error_chain(&fails(&server.url("p"), options));
    assert!(text.contains("no credentials were found"), "{text}");
    assert!(heard.lock().unwrap().is_empty());
}

/// Goal: the owner of a file signs with its key; a file that is none is told at once.
/// Method: the token of a service account is made here, not asked for, and what it says is read at a server that only listens.
#[test]
fn a_service_account_signs_with_the_key_in_its_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("account.json");
    let key = std::process::Command::new("openssl")
        .args([
            "genpkey",
            "-quiet",
            "-algorithm",
            "RSA",
            "-pkeyopt",
            "rsa_keygen_bits:2048",
        ])
        .output()
        .expect("openssl is there");
    let key = String::from_utf8(key.stdout).unwrap();
    let account = serde_json::json!({
        "type": "service_account", "private_key_id": "k1", "private_key": key, "client_email": "who@project.example",
    });
    fs::write(&file, account.to_string()).unwrap();
    let (listener, heard) = machine("", 0);
    let named = |file: &std::path::Path| GsCredentials::File {
        file: file.to_owned(),
        anywhere: true,
    };
    fails("gs://b/p", with(&listener, named(&file)));
    let head = heard.lock().unwrap()[0].clone();
    let bearer = head
        .lines()
        .find_map(|line| line.strip_prefix("authorization: bearer "));
    // A JWT of RS256: three parts, the first of which says so.
    assert_eq!(bearer.unwrap().split('.').count(), 3, "{head}");
    assert!(
        bearer
            .unwrap()
            .starts_with("eyj0exaioijkv1qilcjhbgcioijsuzi1niisimtpzci6imsxin0."),
        "{head}"
    );

    let location = Location::parse("gs://b").unwrap();
    for (text, words) in [
        ("{}", "missing field `type`"),
        (r#"{"type":"external_account"}"#, "external_account"),
    ] {
        fs::write(&file, text).unwrap();
        let options = with(&listener, named(&file));
        let location = location.clone();
        let error = open_prunable(&MemberSpec { location, options }).unwrap_err();
        assert!(error_chain(&error).contains(words), "{}", error_chain(&error));
    }
    let options = with(&listener, named(&folder.path().join("none")));
    let error = open_prunable(&MemberSpec { location, options }).unwrap_err();
    assert!(error_chain(&error).contains("none"), "{}", error_chain(&error));
}

#[test]
fn a_silent_machine_is_given_up_soon() {
    let (silent, count) = always(None);
    let mut http = of_any_service().http;
    http.connect_timeout = std::time::Duration::from_millis(20);
    let credentials = GsCredentials::Machine { url: silent.clone() };
    let connector = Connector::new(&http, WORDS, credentials.metadata_url()).unwrap();
    let builder = GoogleCloudStorageBuilder::new()
        .with_bucket_name("b")
        .with_http_connector(connector.clone());
    let store = credentials.apply(builder, &connector).build().unwrap();
    let runtime = crate::backend::remote::workers::network_thread().unwrap();
    let error = runtime.block_on(store.credentials().get_credential()).unwrap_err();
    let text = error_chain(&error);
    assert!(
        text.contains("no answer within 20ms to the question for a token"),
        "{text}"
    );
    assert_heard(&count, 1);
}
