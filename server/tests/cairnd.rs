//! `cairnd` as its operator sees it: the program itself, started, signalled and asked over sockets.
// A helper that fails is a test that fails.
#![allow(clippy::unwrap_used)]

#[path = "../../gateway/roots/tests/client/mod.rs"]
mod client;
mod daemon;

use std::io::{BufRead as _, BufReader};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use cairn_formats::{ChunkSizes, DigestAlgorithm, FeatureFlags, IndexEncoder};
use client::{Client, Sample, files};
use daemon::{Daemon, command, wait_until};
use rustix::process::Signal;

fn index_of(sample: &Sample) -> Vec<u8> {
    let mut file = Vec::new();
    let flags = FeatureFlags::blob(DigestAlgorithm::Sha512_256);
    let mut encoder = IndexEncoder::start(flags, ChunkSizes::DEFAULT, &mut file);
    encoder.push(sample.hex.parse().unwrap(), sample.plain.len(), &mut file);
    encoder.finish(&mut file);
    file
}

#[test]
fn a_server_without_configuration_keeps_chunks_and_indexes() {
    let daemon = Daemon::start("");
    let sample = Sample::new(b"some bytes");
    let chunk = format!("/store/default{}", sample.frame_path());
    let index = index_of(&sample);
    assert_eq!(daemon.status("GET", &chunk, b""), 404);
    assert_eq!(daemon.status("PUT", &chunk, &sample.frame), 200);
    assert_eq!(daemon.ask("GET", &chunk, &[], b"").body, sample.frame);
    assert_eq!(daemon.status("PUT", "/index/default/a/b.caibx", &index), 200);
    assert_eq!(daemon.ask("GET", "/index/default/a/b.caibx", &[], b"").body, index);
    assert_eq!(daemon.status("PUT", "/index/default/c.caibx", b"garbage"), 415);
    for path in ["/", "/store", "/store/", "/store/default", "/metrics"] {
        assert_eq!(daemon.status("GET", path, b""), 404, "{path}");
    }
    // A name that is no store may be a bucket's: whoever asks has to say who they are first.
    for path in ["/store/other/x", "/index/..%2f/x.caibx"] {
        assert_eq!(daemon.status("GET", path, b""), 401, "{path}");
    }
    let kept = files(&daemon.data());
    let is_pack =
        |file: &PathBuf| file.starts_with("packs/default") && file.extension().is_some_and(|end| end == "pack");
    assert!(kept.iter().any(is_pack), "{kept:?}");
    assert!(kept.contains(&PathBuf::from("index/default/a/b.caibx")), "{kept:?}");
    let data = daemon.data();
    let format = std::fs::read_to_string(data.join("FORMAT")).unwrap();
    assert!(
        format.contains("uuid = ") && format.contains("least_reader = 2"),
        "{format}"
    );
    assert!(daemon.stop().success());
}

#[test]
fn health_and_metrics() {
    let daemon = Daemon::start("");
    let sample = Sample::new(b"some bytes");
    let chunk = format!("/store/default{}", sample.frame_path());
    daemon.ask("PUT", &chunk, &[], &sample.frame);
    daemon.ask("GET", &chunk, &[], b"");
    daemon.ask("GET", "/no/such/path/with?a=secret", &[], b"");
    for path in ["/health", "/health/live", "/health/ready"] {
        let answer = daemon.ask("GET", path, &[], b"");
        assert_eq!(answer.status, 200, "{path}");
        assert!(answer.text().contains("\"status\":\"ok\""), "{path}");
    }
    assert_eq!(daemon.status("POST", "/health", b""), 405);
    let page = Client::connect(daemon.internal).ask("GET", "/metrics", &[], b"").text();
    for line in [
        "http_requests_total{method=\"PUT\",endpoint=\"/store/{name}/{chunk}\",status=\"200\"} 1",
        "http_requests_total{method=\"GET\",endpoint=\"/store/{name}/{chunk}\",status=\"200\"} 1",
        "http_requests_total{method=\"GET\",endpoint=\"other\",status=\"404\"} 1",
        "http_request_duration_seconds_count{method=\"GET\",endpoint=\"/store/{name}/{chunk}\"} 1",
        "build_info{version=",
        "store_packs{store=\"default\"} 1",
        "store_bytes{store=\"default\"} ",
        "store_op_duration_seconds_count{backend=\"packs\",op=\"put\"} 1",
        "disk_free_bytes ",
        "async_tasks ",
        "process_resident_memory_bytes ",
        "process_cpu_seconds_total ",
        "process_open_fds ",
    ] {
        assert!(page.contains(line), "{line} is not in\n{page}");
    }
    assert!(
        !page.contains("secret") && !page.contains(&sample.hex),
        "labels are bounded"
    );

    // A store that cannot be read makes the server unready, not dead.
    std::fs::rename(daemon.data().join("packs"), daemon.data().join("away")).unwrap();
    std::fs::write(daemon.data().join("packs"), b"").unwrap();
    let answer = daemon.ask("GET", "/health/ready", &[], b"");
    assert_eq!(daemon.status("GET", "/health/live", b""), 200);
    assert!(
        answer.status == 200 || answer.text().contains("default"),
        "{}",
        answer.text()
    );
}

#[test]
fn requests_are_logged_as_json_lines() {
    let daemon = Daemon::start("[log]\nrequests = 'all'");
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let headers = [("traceparent", &format!("00-{trace}-00f067aa0ba902b7-01")[..])];
    let path = format!("/store/default{}", Sample::new(b"x").frame_path());
    daemon.ask("GET", &path, &headers, b"");
    daemon.wait_for_log(trace, 1);
    let log = daemon.log();
    let line: serde_json::Value = serde_json::from_str(log.lines().find(|line| line.contains(trace)).unwrap()).unwrap();
    assert_eq!(line["level"], "INFO");
    assert_eq!(line["service"], "cairnd");
    assert_eq!(line["trace_id"], trace);
    assert_eq!(line["endpoint"], "/store/{name}/{chunk}");
    assert_eq!(line["method"], "GET");
    assert_eq!(line["status_code"], 404);
    assert!(line["duration_ms"].is_number() && line["timestamp"].is_string() && line["message"].is_string());
}

/// Goal: reading the configuration again fails no request.
/// Method: clients ask without pause, on kept and on new connections, while the configuration changes twenty times; each
/// change is seen to be in force before the next.
#[test]
fn the_configuration_is_read_again_under_load_without_a_failed_request() {
    let daemon = Daemon::start("[stores.default]\nwritable = true");
    let sample = Sample::new(&b"some bytes ".repeat(3000));
    let chunk = format!("/store/default{}", sample.frame_path());
    assert_eq!(daemon.status("PUT", &chunk, &sample.frame), 200);
    let (stop, asked) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for keeps in [true, true, false] {
            let (daemon, sample, chunk, stop, asked) = (&daemon, &sample, &chunk, &stop, &asked);
            scope.spawn(move || {
                let mut client = Client::connect(daemon.public);
                while !stop.load(Ordering::Relaxed) {
                    if !keeps {
                        client = Client::connect(daemon.public);
                    }
                    let answer = client.ask("GET", chunk, &[], b"");
                    assert_eq!((answer.status, &answer.body), (200, &sample.frame));
                    assert_eq!(client.ask("PUT", chunk, &[], &sample.frame).status, 200);
                    asked.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        for round in 0..20 {
            let before = asked.load(Ordering::Relaxed);
            // The default store is another one each time (its setting changes), and so is the other store.
            let config = format!(
                "[stores.default]\nwritable = true\nrequire_chunks = {}\n[stores.round{round}]",
                round % 2 == 0
            );
            daemon.configure(&config);
            let path = format!("/store/round{round}{}", sample.frame_path());
            wait_until("the new store", || {
                !daemon
                    .ask("GET", &path, &[], b"")
                    .text()
                    .contains("no store of this name")
            });
            wait_until("requests meanwhile", || asked.load(Ordering::Relaxed) > before);
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert!(asked.load(Ordering::Relaxed) >= 20);
}

#[test]
fn a_bad_new_configuration_is_logged_and_the_old_one_stays() {
    let daemon = Daemon::start("[stores.a]\nread_token = 'hunter2'");
    let path = format!("/store/a{}", Sample::new(b"x").frame_path());
    let token = [("Authorization", "Bearer hunter2")];
    assert_eq!(daemon.ask("GET", &path, &token, b"").status, 404);
    for (round, bad) in [
        "nonsense",
        "[stores.a]\nread_tokn = 'x'",
        "[stores.a]\npath = '/no/such/folder'",
        "[log]\nlevel = 'what=ever=this'",
    ]
    .iter()
    .enumerate()
    {
        daemon.configure(bad);
        daemon.wait_for_log("the new configuration is not used", round + 1);
        assert_eq!(daemon.ask("GET", &path, &token, b"").status, 404, "{bad}");
        assert_eq!(daemon.status("GET", &path, b""), 401, "{bad}");
    }
    daemon.configure("[stores.a]\nread_token = 'other'");
    daemon.wait_for_log("was read again", 1);
    assert_eq!(daemon.ask("GET", &path, &token, b"").status, 401);
    assert!(!daemon.log().contains("hunter2"));
}

#[test]
fn a_request_in_flight_ends_before_the_server_does() {
    let mut daemon = Daemon::start("[stores.default]\nwritable = true\nkind = 'flat'");
    let sample = Sample::new(b"some bytes");
    let mut client = Client::connect(daemon.public);
    let path = format!("/store/default{}", sample.frame_path());
    let len = sample.frame.len();
    // The interim answer shows that the server has the request in hand.
    client.send(
        format!("PUT {path} HTTP/1.1\r\nHost: test\r\nExpect: 100-continue\r\nContent-Length: {len}\r\n\r\n")
            .as_bytes(),
    );
    assert_eq!(client.receive_interim(), 100);
    daemon.signal(Signal::TERM);
    wait_until("nobody listens", || TcpStream::connect(daemon.public).is_err());
    client.send(&sample.frame);
    assert_eq!(client.receive("PUT").status, 200);
    assert!(daemon.child.wait().unwrap().success());
    assert!(
        files(&daemon.data())
            .iter()
            .any(|file| path.ends_with(&*file.file_name().unwrap().to_string_lossy()))
    );
}

fn refused(folder: &Path, command: &mut Command, words: &[&str]) {
    let output = command.output().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert_eq!(error.lines().count(), 1, "{error}");
    for word in words {
        assert!(error.contains(word), "{word} is not in {error}");
    }
    assert!(folder.exists());
}

#[test]
fn what_keeps_it_from_running_is_one_line_that_names_it() {
    let folder = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let plain = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cairnd"));
        command.current_dir(folder.path());
        command
    };
    refused(
        folder.path(),
        plain().args(["--listen", &address, "--internal", "127.0.0.1:0"]),
        &["listen.public", &address, "in use"],
    );
    refused(
        folder.path(),
        plain().args(["--listen", "127.0.0.1:0", "--internal", &address]),
        &["listen.internal", &address, "in use"],
    );
    refused(
        folder.path(),
        plain().args(["--listen", "0.0.0.0:0"]),
        &["allow_plain_remote"],
    );
    refused(
        folder.path(),
        plain().args(["--config", "missing.toml"]),
        &["missing.toml"],
    );
    refused(folder.path(), plain().env("CAIRN_LIMITS__JOBS", "many"), &["JOBS"]);
    std::fs::write(folder.path().join("bad.toml"), "[limits]\njosb = 3\n").unwrap();
    refused(
        folder.path(),
        plain().args(["--config", "bad.toml"]),
        &["bad.toml", "josb"],
    );
    std::fs::write(folder.path().join("file"), "").unwrap();
    refused(
        folder.path(),
        plain().args(["--data", "file"]),
        &["data folder", "file"],
    );
    assert_eq!(plain().arg("--nonsense").output().unwrap().status.code(), Some(2));
}

#[test]
fn a_data_folder_has_one_server() {
    let daemon = Daemon::start("");
    refused(
        daemon.path(),
        &mut command(daemon.path()),
        &["LOCK", &daemon.child.id().to_string()],
    );
    let folder = daemon.path().to_owned();
    daemon.signal(Signal::KILL);
    let mut daemon = daemon;
    daemon.child.wait().unwrap();
    let again = command(&folder).arg("--check").output().unwrap();
    assert!(again.status.success());
    let mut again = command(&folder).stdout(Stdio::piped()).spawn().unwrap();
    let first = BufReader::new(again.stdout.take().unwrap())
        .lines()
        .next()
        .unwrap()
        .unwrap();
    assert!(
        first.starts_with("cairnd "),
        "a killed server leaves no lock behind: {first}"
    );
    again.kill().unwrap();
    again.wait().unwrap();
}

#[test]
fn variables_are_settings_and_secrets_are_not_shown() {
    let variables = [
        ("CAIRN_STORES__TEAM__WRITABLE", "true"),
        ("CAIRN_STORES__TEAM__WRITE_TOKEN", "hunter2"),
    ];
    let daemon = Daemon::start_with("", &variables);
    let sample = Sample::new(b"some bytes");
    let path = format!("/store/team{}", sample.frame_path());
    assert_eq!(daemon.status("PUT", &path, &sample.frame), 401);
    assert_eq!(
        daemon
            .ask("PUT", &path, &[("Authorization", "Bearer hunter2")], &sample.frame)
            .status,
        200
    );
    assert_eq!(daemon.status("GET", &path, b""), 200);
    let shown = command(daemon.path()).envs(variables).arg("--check").output().unwrap();
    let shown = String::from_utf8(shown.stdout).unwrap();
    assert!(shown.contains("write_token") && !shown.contains("hunter2"), "{shown}");
    assert!(!daemon.log().contains("hunter2"));
}

/// Goal: a store behind another server is served, kept in the cache, and checked on the way.
#[test]
fn an_upstream_store_is_served_checked_and_kept() {
    let origin = Daemon::start("[stores.a]\nwritable = true\nkind = 'flat'\nread_token = 'secret'\nverify_hours = 0");
    let token = [("Authorization", "Bearer secret")];
    let (good, bad) = (Sample::new(&b"good ".repeat(100)), Sample::new(&b"bad ".repeat(100)));
    for sample in [&good, &bad] {
        let path = format!("/store/a{}", sample.frame_path());
        assert_eq!(origin.ask("PUT", &path, &token, &sample.frame).status, 200);
    }
    let damaged = origin.data().join(format!("store/a{}", bad.frame_path()));
    std::fs::remove_file(&damaged).unwrap();
    std::fs::write(&damaged, &good.frame).unwrap();
    let upstream = format!(
        "upstream = ['http://{}/store/a/']\nupstream_authorization = 'secret'",
        origin.public
    );
    let edge = Daemon::start(&format!(
        "[stores.kept]\n{upstream}\ncache = 'cache'\n[stores.passed]\n{upstream}"
    ));
    for store in ["kept", "passed"] {
        let path = |sample: &Sample| format!("/store/{store}{}", sample.frame_path());
        assert_eq!(edge.ask("GET", &path(&good), &[], b"").body, good.frame, "{store}");
        assert_eq!(edge.status("HEAD", &path(&good), b""), 200, "{store}");
        assert_eq!(edge.status("GET", &path(&Sample::new(b"absent")), b""), 404, "{store}");
        assert_eq!(edge.status("PUT", &path(&good), &good.frame), 400, "{store}");
        assert_eq!(edge.status("GET", &path(&bad), b""), 500, "{store}");
    }
    let page = Client::connect(edge.internal).ask("GET", "/metrics", &[], b"").text();
    assert!(
        page.contains("store_op_duration_seconds_count{backend=\"upstream\",op=\"get\"}"),
        "{page}"
    );
    let address = origin.public;
    assert!(origin.stop().success());
    // No other server gets its port, and who connects to a socket that does not listen is refused.
    let held = tokio::net::TcpSocket::new_v4().unwrap();
    held.set_reuseaddr(true).unwrap();
    held.bind(address).unwrap();
    // What is kept is there without the origin; what is not is an error, never "missing".
    assert_eq!(
        edge.ask("GET", &format!("/store/kept{}", good.frame_path()), &[], b"")
            .body,
        good.frame
    );
    assert_eq!(
        edge.status("GET", &format!("/store/passed{}", good.frame_path()), b""),
        500
    );
}

#[test]
fn tls_speaks_both_http_versions_and_takes_a_new_certificate() {
    let folder = tempfile::tempdir().unwrap();
    let certify = |name: &str| {
        let made = Command::new("openssl")
            .args([
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:prime256v1",
                "-nodes",
            ])
            .args([
                "-days",
                "2",
                "-subj",
                "/CN=test",
                "-addext",
                "subjectAltName=IP:127.0.0.1",
            ])
            .arg("-keyout")
            .arg(folder.path().join(format!("{name}.key")))
            .arg("-out")
            .arg(folder.path().join(format!("{name}.pem")))
            .output()
            .expect("openssl is installed (tools/bootstrap test)");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    };
    certify("old");
    certify("new");
    let config = |name: &str| {
        let base = folder.path().join(name);
        format!("[tls]\ncertificate = '{0}.pem'\nkey = '{0}.key'\n", base.display())
    };
    let daemon = Daemon::start(&config("old"));
    let fetch = |name: &str, version: &str| {
        let output = Command::new("curl")
            .args([
                "-sS",
                version,
                "-o",
                "/dev/null",
                "-w",
                "%{http_code} %{http_version}",
                "--cacert",
            ])
            .arg(folder.path().join(format!("{name}.pem")))
            .arg(format!("https://{}/health", daemon.public))
            .output()
            .expect("curl is installed (tools/bootstrap test)");
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(fetch("old", "--http1.1"), "200 1.1");
    assert_eq!(fetch("old", "--http2"), "200 2");
    assert_eq!(fetch("new", "--http1.1"), "000 0");
    daemon.configure(&config("new"));
    daemon.wait_for_log("was read again", 1);
    assert_eq!(fetch("new", "--http2"), "200 2");
    daemon.configure("[tls]\ncertificate = 'no.pem'\nkey = 'no.key'\n");
    daemon.wait_for_log("no.pem", 1);
    assert_eq!(fetch("new", "--http1.1"), "200 1.1");
}
