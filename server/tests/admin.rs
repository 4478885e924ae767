//! The admin API as its callers see it, over a socket: tokens, tenants, keys, buckets and their settings, errors.
//! What it does to objects is in `conformance/s3/test_admin.py`, beside the S3 door.
// A helper that fails is a test that fails.
#![allow(clippy::unwrap_used)]

#[path = "../../gateway/roots/tests/client/mod.rs"]
mod client;
mod daemon;

use client::{Answer, Client};
use daemon::{Daemon, wait_until};
use serde_json::{Value, json};

/// The token that a server has made.
fn token(daemon: &Daemon) -> String {
    let file = std::fs::read_to_string(daemon.data().join("admin-token")).unwrap();
    file.trim().to_owned()
}

fn raw(daemon: &Daemon, token: &str, method: &str, path: &str, body: &[u8]) -> Answer {
    let (bearer, len) = (format!("Bearer {token}"), body.len().to_string());
    let headers = [("Authorization", bearer.as_str()), ("Content-Length", len.as_str())];
    Client::connect(daemon.internal).ask(method, path, &headers, body)
}

/// Asks with the right token; status and document.
fn ask(daemon: &Daemon, method: &str, path: &str, body: Value) -> (u16, Value) {
    let bytes = if body.is_null() {
        Vec::new()
    } else {
        body.to_string().into_bytes()
    };
    let answer = raw(daemon, &token(daemon), method, &format!("/api/v1/{path}"), &bytes);
    if answer.status == 204 {
        return (204, Value::Null);
    }
    assert_eq!(answer.header("content-type"), Some("application/json"), "{path}");
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    (answer.status, serde_json::from_slice(&answer.body).unwrap())
}

#[track_caller]
fn refused(answer: (u16, Value), status: u16, code: &str) -> Value {
    assert_eq!(
        (answer.0, answer.1["code"].as_str()),
        (status, Some(code)),
        "{}",
        answer.1
    );
    assert!(answer.1["trace_id"].as_str().is_some_and(|id| id.len() == 32));
    answer.1["field_errors"].clone()
}

#[test]
fn only_the_token_opens_it_and_who_has_none_learns_nothing() {
    let daemon = Daemon::start("");
    for wrong in ["", "wrong", &token(&daemon)[1..]] {
        for path in ["/api/v1/admin/buckets", "/api/v1/admin/nothing", "/v1/objects/search"] {
            let answer = raw(&daemon, wrong, "GET", path, b"");
            assert_eq!(answer.status, 401, "{wrong:?} {path}");
            assert!(answer.header("www-authenticate").unwrap().starts_with("Bearer"));
            assert!(answer.text().contains("\"unauthorized\""));
        }
    }
    assert_eq!(
        raw(&daemon, &token(&daemon), "GET", "/v1/admin/buckets", b"").status,
        200
    );
    // Not on the public listener, token or not.
    let bearer = format!("Bearer {}", token(&daemon));
    let public = daemon.ask("GET", "/api/v1/admin/buckets", &[("Authorization", &bearer)], b"");
    assert_eq!(public.status, 404);
    assert!(!daemon.log().contains(&token(&daemon)));
    // The same after a restart.
    let before = token(&daemon);
    let daemon = Daemon::start_in(daemon.leave(), "", &[]);
    assert_eq!(token(&daemon), before);
}

#[test]
fn the_token_may_be_set_and_the_api_turned_off() {
    let daemon = Daemon::start("[admin]\ntoken = \"a token of the settings\"");
    assert_eq!(
        raw(&daemon, "a token of the settings", "GET", "/api/v1/admin/tenants", b"").status,
        200
    );
    assert!(!daemon.data().join("admin-token").exists());
    let daemon = Daemon::start("[admin]\nenabled = false");
    assert_eq!(raw(&daemon, "any", "GET", "/api/v1/admin/tenants", b"").status, 404);
    let daemon = Daemon::start("[s3]\nenabled = false");
    assert_eq!(raw(&daemon, "any", "GET", "/api/v1/admin/tenants", b"").status, 404);
}

#[test]
fn buckets_are_made_changed_listed_and_deleted() {
    let daemon = Daemon::start("");
    let settings = json!({ "versioning": "enabled", "chunk_sizes": "4096:16384:65536", "durability": "batch", "quota_bytes": 1000 });
    let new = json!({ "name": "abc", "owner": "anna", "settings": settings });
    let (status, made) = ask(&daemon, "POST", "admin/buckets", new.clone());
    assert_eq!(status, 201, "{made}");
    assert_eq!((&made["tenant"], &made["owner"]), (&json!("default"), &json!("anna")));
    for (name, value) in settings.as_object().unwrap() {
        assert_eq!(made["settings"][name], *value);
    }
    assert_eq!(made["settings"]["domain"], "shared");
    refused(ask(&daemon, "POST", "admin/buckets", new), 409, "bucket_exists");

    let change = json!({ "settings": { "level": 9, "quota_bytes": null } });
    let (status, changed) = ask(&daemon, "PATCH", "admin/buckets/abc", change);
    assert_eq!((status, &changed["settings"]["level"]), (200, &json!(9)));
    assert_eq!(changed["settings"]["quota_bytes"], Value::Null);
    let (_, shown) = ask(&daemon, "GET", "admin/buckets/abc", Value::Null);
    assert_eq!(shown["settings"], changed["settings"]);
    assert_eq!(shown["usage"], json!({ "objects": 0, "versions": 0, "bytes": 0 }));

    // All that is wrong is told, and nothing is changed.
    let wrong = json!({ "settings": { "level": 99, "etag": "crc", "speed": 1, "search": false } });
    let fields = refused(ask(&daemon, "PATCH", "admin/buckets/abc", wrong), 400, "bad_request");
    let named: Vec<&str> = fields
        .as_array()
        .unwrap()
        .iter()
        .map(|field| field["field"].as_str().unwrap())
        .collect();
    assert_eq!(named, ["etag", "level", "speed"]);
    assert_eq!(
        ask(&daemon, "GET", "admin/buckets/abc", Value::Null).1["settings"],
        changed["settings"]
    );
    let sealed = json!({ "name": "sealed", "settings": { "domain": "private" } });
    refused(ask(&daemon, "POST", "admin/buckets", sealed), 501, "not_implemented");
    refused(
        ask(&daemon, "GET", "admin/buckets/sealed", Value::Null),
        404,
        "no_such_bucket",
    );

    for name in ["abd", "xyz"] {
        assert_eq!(ask(&daemon, "POST", "admin/buckets", json!({ "name": name })).0, 201);
    }
    let mut names = Vec::new();
    let mut path = "admin/buckets?limit=2".to_owned();
    loop {
        let (_, page) = ask(&daemon, "GET", &path, Value::Null);
        names.extend(
            page["buckets"]
                .as_array()
                .unwrap()
                .iter()
                .map(|bucket| bucket["name"].clone()),
        );
        let Some(cursor) = page["next_cursor"].as_str() else {
            break;
        };
        path = format!("admin/buckets?limit=2&cursor={cursor}");
    }
    assert_eq!(names, ["abc", "abd", "xyz"]);
    let (_, page) = ask(&daemon, "GET", "admin/buckets?prefix=ab&owner=admin", Value::Null);
    assert_eq!(page["buckets"].as_array().unwrap().len(), 1);
    assert_eq!(ask(&daemon, "DELETE", "admin/buckets/abd", Value::Null).0, 204);
    refused(
        ask(&daemon, "DELETE", "admin/buckets/abd", Value::Null),
        404,
        "no_such_bucket",
    );
}

/// Goal: a tenant's keys and buckets are its own, by whatever name or cursor another asks for them.
#[test]
fn tenants_see_their_own() {
    let daemon = Daemon::start("");
    let new_key = |tenant: &str| {
        ask(
            &daemon,
            "POST",
            "admin/keys",
            json!({ "tenant": tenant, "owner": "anna" }),
        )
    };
    let (status, key) = new_key("second");
    assert_eq!((status, key["secret"].as_str().unwrap().len()), (201, 40));
    new_key("second");
    let id = key["id"].as_str().unwrap();
    let (_, tenants) = ask(&daemon, "GET", "admin/tenants", Value::Null);
    assert_eq!(tenants["tenants"], json!([{ "name": "default" }, { "name": "second" }]));
    refused(
        ask(&daemon, "GET", "admin/tenants/third", Value::Null),
        404,
        "no_such_tenant",
    );
    assert_eq!(
        ask(&daemon, "GET", "admin/tenants/second", Value::Null).1["usage"]["objects"],
        0
    );

    for path in [format!("admin/keys/{id}"), format!("admin/keys/{id}?tenant=third")] {
        refused(ask(&daemon, "GET", &path, Value::Null), 404, "no_such_key");
        refused(
            ask(&daemon, "PATCH", &path, json!({ "enabled": false })),
            404,
            "no_such_key",
        );
        refused(ask(&daemon, "DELETE", &path, Value::Null), 404, "no_such_key");
    }
    let own = format!("admin/keys/{id}?tenant=second");
    let (_, shown) = ask(&daemon, "GET", &own, Value::Null);
    assert_eq!((&shown["enabled"], shown.get("secret")), (&json!(true), None));
    assert_eq!(
        ask(&daemon, "PATCH", &own, json!({ "enabled": false })).1["enabled"],
        false
    );
    let (_, page) = ask(&daemon, "GET", "admin/keys?tenant=second&limit=1", Value::Null);
    let cursor = page["next_cursor"].as_str().unwrap();
    // The first key of the server is the other tenant's only one.
    let (_, other) = ask(&daemon, "GET", &format!("admin/keys?cursor={cursor}"), Value::Null);
    let listed = other["keys"].as_array().unwrap();
    assert!(listed.iter().all(|key| key["tenant"] == "default"), "{listed:?}");
    assert_eq!(ask(&daemon, "DELETE", &own, Value::Null).0, 204);

    let bucket = json!({ "name": "abc", "tenant": "second", "owner": "anna" });
    assert_eq!(ask(&daemon, "POST", "admin/buckets", bucket).0, 201);
    for (method, path, body) in [
        ("GET", "admin/buckets/abc", Value::Null),
        ("GET", "admin/buckets/abc/usage", Value::Null),
        ("PATCH", "admin/buckets/abc", json!({ "settings": { "level": 1 } })),
        ("DELETE", "admin/buckets/abc", Value::Null),
        ("GET", "admin/buckets/abc/versions", Value::Null),
        ("GET", "admin/buckets/abc/diff?key=k", Value::Null),
        (
            "POST",
            "admin/buckets/abc/restore",
            json!({ "key": "k", "version_id": "null" }),
        ),
        ("GET", "objects/search?bucket=abc", Value::Null),
    ] {
        refused(ask(&daemon, method, path, body), 404, "no_such_bucket");
    }
    refused(
        ask(&daemon, "POST", "admin/buckets", json!({ "name": "abc" })),
        409,
        "bucket_name_taken",
    );
    assert_eq!(
        ask(&daemon, "GET", "admin/buckets", Value::Null).1["buckets"],
        json!([])
    );
    assert_eq!(
        ask(&daemon, "GET", "admin/buckets/abc?tenant=second", Value::Null).0,
        200
    );
}

#[test]
fn what_cannot_be_asked_is_told() {
    let daemon = Daemon::start("");
    let field = |answer: (u16, Value)| {
        refused(answer, 400, "bad_request")[0]["field"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    for (path, name) in [
        ("admin/buckets?limit=0", "limit"),
        ("admin/buckets?limit=201", "limit"),
        ("admin/buckets?color=red", "color"),
        ("admin/buckets?limit=1&limit=2", "limit"),
        ("admin/buckets?tenant=Upper", "tenant"),
        ("admin/buckets/NOT", "bucket"),
        ("admin/keys/-?x=", "x"),
        ("admin/buckets/abc/diff", "key"),
        ("admin/buckets/abc/versions?key=a&prefix=b", "prefix"),
        ("objects/search?size_min=-1", "size_min"),
        ("objects/search?created_from=yesterday", "created_from"),
        ("objects/search?owner=", "owner"),
    ] {
        if path.ends_with("owner=") {
            assert_eq!(
                ask(&daemon, "GET", path, Value::Null).0,
                200,
                "an empty parameter says nothing"
            );
            continue;
        }
        assert_eq!(field(ask(&daemon, "GET", path, Value::Null)), name, "{path}");
    }
    for cursor in ["%2A", "AAAA", "YWJj"] {
        refused(
            ask(&daemon, "GET", &format!("objects/search?cursor={cursor}"), Value::Null),
            400,
            "bad_cursor",
        );
    }
    assert_eq!(field(ask(&daemon, "POST", "admin/buckets", json!({}))), "name");
    assert_eq!(
        field(ask(&daemon, "POST", "admin/buckets", json!({ "name": 1 }))),
        "name"
    );
    assert_eq!(
        field(ask(&daemon, "POST", "admin/keys", json!({ "owner": "a b" }))),
        "owner"
    );
    assert_eq!(
        field(ask(
            &daemon,
            "POST",
            "admin/buckets",
            json!({ "name": "abc", "settings": [] })
        )),
        "settings"
    );
    refused(ask(&daemon, "GET", "admin/nothing", Value::Null), 404, "no_such_route");
    let token = token(&daemon);
    let answer = raw(&daemon, &token, "PUT", "/api/v1/admin/buckets/abc", b"");
    assert_eq!(
        (answer.status, answer.header("allow")),
        (405, Some("GET, PATCH, DELETE"))
    );
    for (body, status) in [(&b"[1]"[..], 400), (b"{", 400), (&[b' '; (64 << 10) + 1], 413)] {
        assert_eq!(raw(&daemon, &token, "POST", "/api/v1/admin/keys", body).status, status);
    }
    let trace = "0af7651916cd43dd8448eb211c80319c";
    let traced = [
        ("traceparent", format!("00-{trace}-b7ad6b7169203331-01")),
        ("Authorization", format!("Bearer {token}")),
    ];
    let headers: Vec<(&str, &str)> = traced.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let answer = Client::connect(daemon.internal).ask("GET", "/v1/admin/x", &headers, b"");
    assert!(answer.text().contains(trace));
    assert!(
        daemon
            .metrics()
            .contains("index_query_duration_seconds_count{domain=\"buckets\"}")
    );
}

/// Goal: what the index does behind the scenes is on the page of metrics, of each store, and moves with what is done.
#[test]
fn the_index_tells_what_it_is_at() {
    let daemon = Daemon::start("");
    let value = |name: &str, store: &str| -> f64 {
        let (page, row) = (daemon.metrics(), format!("{name}{{store=\"{store}\"}} "));
        let found = page.lines().find_map(|line| line.strip_prefix(&row));
        found
            .unwrap_or_else(|| panic!("{row} is not on the page:\n{page}"))
            .parse()
            .unwrap()
    };
    for store in ["default", "objects"] {
        for name in [
            "index_writes_stopped",
            "index_write_rate_max_bytes",
            "index_stalled_microseconds_total",
            "index_compaction_pending_bytes",
            "index_compactions_running",
            "index_flushes_running",
            "index_compaction_read_bytes_total",
            "index_compaction_written_bytes_total",
            "index_failures_total",
        ] {
            assert_eq!(value(name, store), 0.0, "{name} of {store}");
        }
        assert!(value("index_cached_bytes", store) >= value("index_pinned_bytes", store));
    }
    let (flushed, files) = (
        value("index_flushed_bytes_total", "objects"),
        value("index_level_0_files", "objects"),
    );
    let buffered = value("index_buffered_bytes", "objects");
    for n in 0..100 {
        let owner = json!({ "owner": format!("owner-{n}") });
        assert_eq!(ask(&daemon, "POST", "admin/keys", owner).0, 201);
    }
    assert!(value("index_buffered_bytes", "objects") > buffered);
    assert_eq!(value("index_flushed_bytes_total", "objects"), flushed);
    // A backup has the index write out what it holds.
    let (status, answer) = ask(&daemon, "POST", "admin/backups", json!({ "name": "first" }));
    assert_eq!(status, 201, "{answer}");
    assert!(value("index_flushed_bytes_total", "objects") > flushed);
    assert!(value("index_level_0_files", "objects") > files);
    // Each door's work is measured: a signed request is not needed, what is refused was looked up.
    let page = daemon.metrics();
    let count = |domain: &str| {
        let row = format!("index_query_duration_seconds_count{{domain=\"{domain}\"}} ");
        let found = page.lines().find_map(|line| line.strip_prefix(&row));
        found.unwrap_or("0").parse::<u64>().unwrap()
    };
    assert_eq!((count("keys"), count("backups")), (100, 1));
}

/// Goal: what has the secrets of access keys is the server's user's alone: objects, also those of an older release, and backups of them.
#[test]
fn secrets_of_keys_are_in_folders_of_the_server_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let daemon = Daemon::start("");
    assert_eq!(mode(&daemon.data().join("objects")), 0o700);
    assert_eq!(ask(&daemon, "POST", "admin/backups", json!({ "name": "first" })).0, 201);
    assert_eq!(mode(&daemon.data().join("backups/first")), 0o700);
    let folder = daemon.leave();
    let restored = tempfile::tempdir().unwrap();
    let done = daemon::command(restored.path())
        .args(["restore"])
        .arg(folder.path().join("data/backups/first"))
        .output()
        .unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    assert_eq!(mode(&restored.path().join("data/objects")), 0o700);
    let objects = folder.path().join("data/objects");
    std::fs::set_permissions(&objects, std::fs::Permissions::from_mode(0o755)).unwrap();
    let _daemon = Daemon::start_in(folder, "", &[]);
    assert_eq!(mode(&objects), 0o700);
}

/// Goal: a collection that was asked for is done, even if new settings end it the first time and the server has just begun.
#[test]
fn a_collection_that_was_asked_for_is_done_with_new_settings_too() {
    let settings = |grace: u64| format!("[collect]\ninterval_seconds = 0\ngrace_seconds = {grace}\n");
    let daemon = Daemon::start(&settings(600));
    let (path, none) = ("admin/upkeep/collection", Value::Null);
    let made = json!({"name": "abc", "owner": "admin"});
    assert_eq!(ask(&daemon, "POST", "admin/buckets", made).0, 201);
    assert_eq!(ask(&daemon, "GET", path, none.clone()).1["last"], Value::Null);
    assert_eq!(ask(&daemon, "POST", path, none.clone()).0, 202);
    wait_until("the collection", || {
        ask(&daemon, "GET", path, none.clone()).1["running"]["state"] == "grace"
    });
    daemon.configure(&settings(0));
    wait_until("its end", || {
        ask(&daemon, "GET", path, none.clone()).1["last"]["state"] == "done"
    });
}
