//! What holds for buckets of S3 alone: whose requests are sent, what a refusal says; and MinIO.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::path::Path as FilePath;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use cairn_formats::{ChunkForm, ChunkId};
use cairn_test_servers::{ACCESS_KEY, Minio, S3Server, SECRET_KEY};

use super::*;
use crate::backend::bucket::tests::{
    always, assert_heard, list_and_delete, put_and_read_an_index, quick as of_any_service,
};
use crate::contract::open;
use crate::{
    ChunkStoreExt as _, Error, Location, MemberSpec, RemoteKind, StoreOptions, contract, error_chain,
    init_remote_packs, open_prunable, open_remote,
};

fn keys(secret: &str) -> S3Credentials {
    S3Credentials::Keys(S3Keys {
        access_key: ACCESS_KEY.to_owned(),
        secret_key: secret.to_owned(),
        session_token: None,
    })
}

/// Options for tests.
pub(crate) fn quick() -> StoreOptions {
    StoreOptions {
        s3: S3Options {
            credentials: keys(SECRET_KEY),
            region: None,
        },
        ..of_any_service()
    }
}

/// Goal: what holds with a server over a folder holds with MinIO. It is built and run in the full run alone (`CAIRN_FULL=1`).
#[test]
fn minio_keeps_every_promise_in_the_full_run() {
    let Some(server) = Minio::start_in_full_run() else {
        eprintln!("not the full run: MinIO is not asked");
        return;
    };
    for place in ["", "a/prefix with blanks", "a/other/"] {
        contract::writable(&*open(&server.url(place), quick()));
    }
    let plain = StoreOptions {
        form: ChunkForm::Plain,
        ..quick()
    };
    contract::writable(&*open(&server.url("plain"), plain));
    let url = |place: &str| server.url(place);
    list_and_delete(&url, &quick());
    put_and_read_an_index(&url("folder/with blanks/y.caidx"), &quick());
    for place in ["packs", "more packs/with blanks"] {
        let location = Location::parse(&url(place)).unwrap();
        let member = MemberSpec {
            location,
            options: quick(),
        };
        init_remote_packs(&member).unwrap();
        let RemoteKind::Packs(packs) = open_remote(&member).unwrap() else {
            panic!("{place} holds packs");
        };
        contract::writable(&*packs);
        drop(packs);
        contract::reads_are_right(
            &*open_prunable(&member).unwrap(),
            &contract::chunks(2, ChunkForm::Compressed),
        );
    }
    let wrong = StoreOptions {
        s3: S3Options {
            credentials: keys("another"),
            region: None,
        },
        ..quick()
    };
    let text = error_chain(&open(&url("p"), wrong).has(ChunkId::from_bytes([1; 32])).unwrap_err());
    assert!(text.contains("403"), "{text}");
    let nowhere = url("p").replace("/chunks/", "/no-bucket/");
    let text = error_chain(&open(&nowhere, quick()).for_each_id(&mut |_| Ok(())).unwrap_err());
    assert!(text.contains("NoSuchBucket"), "{text}");
}

#[test]
fn refusals_name_the_store_the_action_and_the_cause() {
    let server = S3Server::start();
    let wrong = StoreOptions {
        s3: S3Options {
            credentials: keys("another"),
            region: None,
        },
        ..quick()
    };
    let error = open(&server.url("p"), wrong)
        .put_many(&contract::chunks(1, ChunkForm::Plain))
        .unwrap_err();
    let text = error_chain(&error);
    assert!(matches!(error, Error::Refused { .. }), "{text}");
    assert!(
        text.starts_with(&format!(
            "s3+http://{}/chunks/p refused to store a chunk",
            server.address()
        )),
        "{text}"
    );
    assert!(text.contains("403") && text.contains("SignatureDoesNotMatch"), "{text}");

    let nobody = StoreOptions {
        s3: S3Options::default(),
        ..quick()
    };
    let text = error_chain(
        &open(&server.url("p"), nobody)
            .has(ChunkId::from_bytes([1; 32]))
            .unwrap_err(),
    );
    assert!(text.contains("no keys were given"), "{text}");

    let url = server.url("p").replace("/chunks/", "/no-bucket/");
    let store = open(&url, quick());
    let error = store.for_each_id(&mut |_| Ok(())).unwrap_err();
    assert!(
        error_chain(&error).contains("refused to list its chunks") && error_chain(&error).contains("NoSuchBucket"),
        "{}",
        error_chain(&error)
    );

    let read_only = StoreOptions {
        read_only: true,
        ..quick()
    };
    let store = open(&server.url("p"), read_only);
    assert!(matches!(store.put_many(&[]), Err(Error::ReadOnly { .. })));
    assert!(matches!(store.remove_many(&[]), Err(Error::ReadOnly { .. })));
}

#[test]
fn keys_come_from_a_profile_too() {
    let server = S3Server::start();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("credentials");
    let with = |file: &FilePath, profile: &str| StoreOptions {
        s3: S3Options {
            credentials: S3Credentials::Profile {
                file: file.to_owned(),
                profile: profile.to_owned(),
            },
            region: Some("eu-west-1".to_owned()),
        },
        ..quick()
    };
    let text = format!("[us]\naws_access_key_id = {ACCESS_KEY}\naws_secret_access_key = {SECRET_KEY}\n");
    fs::write(&file, text).unwrap();
    contract::writable(&*open(&server.url("p"), with(&file, "us")));
    let text = error_chain(
        &open(&server.url("p"), with(&file, "them"))
            .has(ChunkId::from_bytes([1; 32]))
            .unwrap_err(),
    );
    assert!(text.contains("no profile [them]"), "{text}");
    let text = error_chain(
        &open(&server.url("p"), with(&folder.path().join("none"), "us"))
            .has(ChunkId::from_bytes([1; 32]))
            .unwrap_err(),
    );
    assert!(text.contains("cannot read"), "{text}");
}

#[test]
fn a_bucket_of_another_region_says_so() {
    let (server, count) = always(Some(
        b"HTTP/1.1 301 Moved\r\nConnection: close\r\nx-amz-bucket-region: eu-west-1\r\nContent-Length: 0\r\n\r\n",
    ));
    let store = open(&format!("s3+{server}/b/p"), quick());
    let error = store.get(ChunkId::from_bytes([1; 32])).unwrap_err();
    let text = error_chain(&error);
    assert!(matches!(error, Error::Refused { .. }), "{error:?}");
    assert!(text.contains("region eu-west-1"), "{text}");
    assert_eq!(count.load(Ordering::SeqCst), 1, "{text}");
}

#[test]
fn regions_are_in_amazons_host_names() {
    assert_eq!(region_of("s3.eu-west-1.amazonaws.com"), Some("eu-west-1"));
    assert_eq!(region_of("s3-eu-west-1.amazonaws.com"), Some("eu-west-1"));
    assert_eq!(region_of("s3.dualstack.eu-west-1.amazonaws.com"), Some("eu-west-1"));
    assert_eq!(region_of("s3.amazonaws.com"), None);
    assert_eq!(region_of("s3.example.org"), None);
}

/// The services beside a machine that give a role's keys, as far as their protocols go: those of EC2 (version 2), of an EKS pod's
/// agent, and Amazon's token service. There is no real one without Amazon: this is what stands in for all of them. Answers what
/// is asked as their documentation says, and 401 or 404 otherwise; hears the heads of requests.
fn amazon() -> (String, Arc<std::sync::Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let heard = Arc::new(std::sync::Mutex::new(Vec::new()));
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
            let head = String::from_utf8_lossy(&request).into_owned();
            let (status, body) = answer_of_amazon(&head);
            hears.lock().unwrap().push(head);
            let len = body.len();
            let wire = format!("HTTP/1.1 {status} x\r\nConnection: close\r\nContent-Length: {len}\r\n\r\n{body}");
            let _ = stream.write_all(wire.as_bytes());
        }
    });
    (url, heard)
}

fn answer_of_amazon(head: &str) -> (u16, String) {
    let line = head.lines().next().unwrap_or_default();
    let has = |name: &str, value: &str| {
        head.lines().any(|line| {
            line.split_once(": ")
                .is_some_and(|(key, found)| key.eq_ignore_ascii_case(name) && found == value)
        })
    };
    let keys = format!(
        r#"{{"Code":"Success","Type":"AWS-HMAC","AccessKeyId":"{ACCESS_KEY}","SecretAccessKey":"{SECRET_KEY}","Token":"session","Expiration":"2999-01-01T00:00:00Z"}}"#
    );
    let roles = "/latest/meta-data/iam/security-credentials/";
    if line.starts_with("PUT /latest/api/token ") && head.to_ascii_lowercase().contains("token-ttl-seconds: ") {
        return (200, "machine-token".to_owned());
    }
    if line.starts_with(&format!("GET {roles}")) {
        return match has("x-aws-ec2-metadata-token", "machine-token") {
            false => (401, String::new()),
            true if line.starts_with(&format!("GET {roles} ")) => (200, "a-role".to_owned()),
            true if line.starts_with(&format!("GET {roles}a-role ")) => (200, keys),
            true => (404, String::new()),
        };
    }
    if line.starts_with("GET /pod ") {
        return match has("authorization", "pod-token") {
            true => (200, keys),
            false => (401, String::new()),
        };
    }
    let asks = |part: &str| line.contains(part);
    if line.starts_with("POST /")
        && asks("Action=AssumeRoleWithWebIdentity")
        && asks("WebIdentityToken=identity-token")
        && asks("RoleArn=arn%3Aaws%3Aiam%3A%3A1%3Arole%2Fr")
    {
        let keys = format!(
            "<AccessKeyId>{ACCESS_KEY}</AccessKeyId><SecretAccessKey>{SECRET_KEY}</SecretAccessKey>\
             <SessionToken>session</SessionToken><Expiration>2999-01-01T00:00:00Z</Expiration>"
        );
        let result = format!(
            "<AssumeRoleWithWebIdentityResult><Credentials>{keys}</Credentials></AssumeRoleWithWebIdentityResult>"
        );
        return (
            200,
            format!("<AssumeRoleWithWebIdentityResponse>{result}</AssumeRoleWithWebIdentityResponse>"),
        );
    }
    (404, String::new())
}

/// Options from an environment, for a server that is not Amazon's.
fn of_environment(set: &[(&str, String)]) -> StoreOptions {
    let configured = S3Configured {
        role: true,
        ..S3Configured::default()
    };
    let environment = |name: &str| {
        let found = set.iter().find(|(known, _)| *known == name);
        found.map(|(_, value)| value.clone())
    };
    StoreOptions {
        s3: S3Options::from_chain(&configured, &environment),
        ..quick()
    }
}

#[test]
fn keys_come_from_roles_of_pods_containers_and_machines() {
    let server = S3Server::start();
    let (url, heard) = amazon();
    let folder = tempfile::tempdir().unwrap();
    let token = |name: &str| {
        let file = folder.path().join(name);
        fs::write(&file, name).unwrap();
        file.display().to_string()
    };
    let machine = [("AWS_EC2_METADATA_SERVICE_ENDPOINT", url.clone())];
    let pod = [
        ("AWS_CONTAINER_CREDENTIALS_FULL_URI", format!("{url}/pod")),
        ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", token("pod-token")),
    ];
    let identity = [
        ("AWS_WEB_IDENTITY_TOKEN_FILE", token("identity-token")),
        ("AWS_ROLE_ARN", "arn:aws:iam::1:role/r".to_owned()),
        ("AWS_ENDPOINT_URL_STS", url.clone()),
    ];
    for (place, set, questions) in [("m", &machine[..], 3), ("p", &pod, 1), ("i", &identity, 1)] {
        heard.lock().unwrap().clear();
        contract::writable(&*open(&server.url(place), of_environment(set)));
        // They are kept until they end.
        assert_eq!(
            heard.lock().unwrap().len(),
            questions,
            "{place}: {:?}",
            heard.lock().unwrap()
        );
    }
    // Another server is not told of any role.
    let mut stranger = of_environment(&machine);
    if let S3Credentials::Role(role) = &mut stranger.s3.credentials {
        role.anywhere = false;
    }
    heard.lock().unwrap().clear();
    let text = error_chain(
        &open(&server.url("m"), stranger)
            .has(ChunkId::from_bytes([1; 32]))
            .unwrap_err(),
    );
    assert!(text.contains("no keys were given"), "{text}");
    assert!(heard.lock().unwrap().is_empty());
}

/// Goal: no secret is shown where a store is printed, and none gets into our own environment, which other processes inherit.
/// Method: keys of every kind are used once, so that providers hold what they were given.
#[test]
fn keys_of_no_kind_are_shown_or_handed_on() {
    let server = S3Server::start();
    let (url, _) = amazon();
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let file = folder.path().join(name);
        fs::write(&file, text).unwrap();
        file
    };
    let text = |path: std::path::PathBuf| path.display().to_string();
    let profile = format!("[us]\naws_access_key_id = {ACCESS_KEY}\naws_secret_access_key = {SECRET_KEY}\n");
    let profile = S3Credentials::Profile {
        file: file("profile", &profile),
        profile: "us".to_owned(),
    };
    let pod = of_environment(&[
        ("AWS_CONTAINER_CREDENTIALS_FULL_URI", format!("{url}/pod")),
        ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", text(file("t1", "pod-token"))),
    ]);
    let identity = of_environment(&[
        ("AWS_WEB_IDENTITY_TOKEN_FILE", text(file("t2", "identity-token"))),
        ("AWS_ROLE_ARN", "arn:aws:iam::1:role/r".to_owned()),
        ("AWS_ENDPOINT_URL_STS", url.clone()),
    ]);
    let machine = of_environment(&[("AWS_EC2_METADATA_SERVICE_ENDPOINT", url)]);
    let secrets = [SECRET_KEY, "pod-token", "identity-token", "machine-token"];
    let hidden = |shown: String| {
        let found = secrets.into_iter().find(|secret| shown.contains(secret));
        assert_eq!(found, None, "{shown}");
    };
    let before: Vec<_> = std::env::vars_os().collect();
    let Location::S3(location) = Location::parse(&server.url("p")).unwrap() else {
        panic!("it is a bucket");
    };
    let runtime = crate::backend::remote::workers::network_thread().unwrap();
    for credentials in [
        keys(SECRET_KEY),
        profile,
        pod.s3.credentials,
        identity.s3.credentials,
        machine.s3.credentials,
    ] {
        let options = StoreOptions {
            s3: S3Options {
                credentials,
                region: None,
            },
            ..of_any_service()
        };
        hidden(format!("{options:?}"));
        let client = client(&location, &options.s3, &options.http).unwrap();
        let mut listed = client.objects.list(None);
        runtime.block_on(async { futures_util::StreamExt::next(&mut listed).await });
        hidden(format!("{:?}", client.objects));
    }
    assert_eq!(std::env::vars_os().collect::<Vec<_>>(), before);
    // An error on the way to the token service does not show the token, which is in the question's address.
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let options = of_environment(&[
        ("AWS_WEB_IDENTITY_TOKEN_FILE", text(file("t3", "identity-token"))),
        ("AWS_ROLE_ARN", "arn:aws:iam::1:role/r".to_owned()),
        ("AWS_ENDPOINT_URL_STS", format!("http://{gone}")),
    ]);
    let error = open(&server.url("p"), options)
        .has(ChunkId::from_bytes([1; 32]))
        .unwrap_err();
    hidden(format!("{error:?} {}", error_chain(&error)));
}

#[test]
fn a_machine_without_a_role_or_an_answer_says_so() {
    let server = S3Server::start();
    let (silent, count) = always(None);
    let mut options = of_environment(&[("AWS_EC2_METADATA_SERVICE_ENDPOINT", silent)]);
    options.http.connect_timeout = Duration::from_millis(20);
    let text = error_chain(
        &open(&server.url("p"), options)
            .has(ChunkId::from_bytes([1; 32]))
            .unwrap_err(),
    );
    assert!(
        text.contains("no answer within 20ms to the question for the keys"),
        "{text}"
    );
    assert_heard(&count, 3);
    let (wrong, _) = amazon();
    let options = of_environment(&[("AWS_EC2_METADATA_SERVICE_ENDPOINT", format!("{wrong}/elsewhere"))]);
    let text = error_chain(
        &open(&server.url("p"), options)
            .has(ChunkId::from_bytes([1; 32]))
            .unwrap_err(),
    );
    assert!(
        text.contains("404") && text.contains("asked for the keys of the machine's"),
        "{text}"
    );
    let far = of_environment(&[
        ("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://example.org/x".to_owned()),
        ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", "/none".to_owned()),
    ]);
    let location = Location::parse(&server.url("p")).unwrap();
    let error = open_prunable(&MemberSpec { location, options: far }).unwrap_err();
    assert!(
        error_chain(&error).contains("over https alone"),
        "{}",
        error_chain(&error)
    );
}
