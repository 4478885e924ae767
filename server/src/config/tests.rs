//! Settings that are refused, with which words; the page of settings is in step.

use super::*;

fn load(toml: &str) -> Result<Config, String> {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), toml).unwrap();
    Config::load(Some(file.path()), &Overrides::default()).map_err(|error| error.to_string())
}

#[track_caller]
fn refused(toml: &str, words: &[&str]) {
    let error = load(toml).unwrap_err();
    for word in words {
        assert!(error.contains(word), "{error:?} does not name {word:?}");
    }
    assert!(!error.contains('\n'), "{error:?} is more than one line");
}

#[test]
fn nothing_written_is_the_default() {
    assert_eq!(load("").unwrap(), Config::default());
    assert!(Config::default().stores[DEFAULT_STORE].writable);
}

#[test]
fn bad_settings_are_named() {
    refused("dta = 'x'", &["dta", "unknown field"]);
    refused("[listen]\npublic = 'nowhere'", &["public"]);
    refused("[limits]\nconnections = -1", &["connections"]);
    refused("[limits]\nconnections = 0", &["limits.connections"]);
    refused("[stores.a]\nwritabel = true", &["writabel"]);
    refused("[stores.'a/b']", &["stores.a/b"]);
    refused("[stores.a]\nwrite_token = 'x'", &["stores.a.write_token", "writable"]);
    refused("[stores.a]\nread_token = ''", &["stores.a.read_token"]);
    refused(
        "[stores.a]\nupstream = ['http://h/']\npath = 'x'",
        &["stores.a.upstream"],
    );
    refused("[stores.a]\ncache = 'x'", &["stores.a.upstream"]);
    refused(
        "[stores.a]\nupstream = ['s3+http://h/b']\nupstream_s3_access_key = 'x'",
        &["stores.a.upstream_s3_secret_key"],
    );
    refused(
        "[stores.a]\nupstream = ['http://h/']\ncache_bytes = 9",
        &["stores.a.cache_bytes"],
    );
    refused(
        "[stores.a]\nupstream = ['http://h/']\nmirror = ['b']",
        &["stores.a.mirror", "mirror:A|B"],
    );
    refused("[stores.a]\nmirror = ['b|c']", &["stores.a.mirror"]);
    refused(
        "[stores.a]\nmirror = ['b']\nmirror_quorum = 3",
        &["stores.a.mirror_quorum", "2 places"],
    );
    refused("[stores.a]\ndigest = 'md5'", &["md5"]);
    refused("[stores.a]\nkind = 'tape'", &["tape"]);
    refused("[stores.a]\npack_len = 9", &["stores.a.pack_len"]);
    refused("[stores.a]\nframe_level = 23", &["stores.a.frame_level"]);
    refused("[stores.a]\nqueue_len = 9", &["stores.a.queue_len"]);
    refused("[stores.a]\nplaces_cache = 9", &["stores.a.places_cache"]);
    refused(
        "[stores.a]\nkind = 'flat'\nrooted = true",
        &["stores.a.rooted", "packs"],
    );
    refused(
        "[stores.a]\npath = 'x'\nkind = 'packs'\nrooted = true\n[stores.b]\npath = 'x'\nkind = 'packs'",
        &["stores.a.rooted", "stores.b"],
    );
    refused(
        "[stores.a]\nrooted = true\nmirror = ['b']",
        &["stores.a.rooted", "mirror", "not collected"],
    );
    refused(
        "[stores.a]\npath = 'x'\nkind = 'packs'\nrooted = true\n[stores.b]\nmirror = ['x']",
        &["stores.a.rooted", "stores.b.mirror"],
    );
    refused("[collect]\nrecompress_level = 23", &["collect.recompress_level"]);
    refused("[collect]\ndead_share = 0.0", &["collect.dead_share"]);
    refused(
        "[stores.a]\nupstream = ['http://h/']\nkind = 'flat'",
        &["stores.a.kind"],
    );
    refused(
        "[listen]\npublic = '0.0.0.0:80'",
        &["listen.public", "allow_plain_remote"],
    );
    refused(
        "[listen]\npublic = '0.0.0.0:80'\nallow_plain_remote = true",
        &["stores.default.writable", "write_token"],
    );
    refused("[s3]\nregion = 'US East'", &["s3.region"]);
    refused("[s3]\ndomains = ['.example.net']", &["s3.domains"]);
    refused("[s3]\njobs = 0", &["s3.jobs"]);
    refused("[listen]\ns3 = '0.0.0.0:9000'", &["listen.s3", "allow_plain_remote"]);
    refused("[tokens.ci]", &["tokens.ci.token", "16"]);
    refused("[tokens.ci]\ntoken = 'short'", &["tokens.ci.token"]);
    let token = "[tokens.ci]\ntoken = '0123456789abcdef'\n";
    refused(&format!("{token}owner = ''"), &["tokens.ci.owner"]);
    refused(&format!("{token}tenant = 'A'"), &["tokens.ci.tenant"]);
    refused(&format!("{token}buckets = ['A']"), &["tokens.ci.buckets"]);
    assert!(!format!("{:?}", load(token).unwrap()).contains("0123456789abcdef"));
    refused("[grpc]\ndefault_bucket = 'A'", &["grpc.default_bucket"]);
    refused("[grpc]\nanonymous = 'nobody'", &["grpc.anonymous", "tokens.nobody"]);
    refused(
        &format!("listen = {{ internal = '0.0.0.0:1', allow_plain_remote = true }}\n{token}[grpc]\nanonymous = 'ci'"),
        &["grpc.anonymous", "allow_anonymous_writes"],
    );
    refused("[grpc]\ndigest_functions = ['sha512-256']", &["grpc.digest_functions"]);
    refused("[grpc]\ndigest_functions = []", &["grpc.digest_functions"]);
    refused("[grpc]\nbatch_bytes = 16777216", &["grpc.batch_bytes"]);
    refused("[grpc]\ncalls = 0", &["grpc.calls"]);
    refused("[grpc]\nwindow_bytes = 1", &["grpc.window_bytes"]);
    refused("[grpc]\nfetches = 0", &["grpc.fetches"]);
    refused("[grpc]\nfetch_seconds = 0", &["grpc.fetch_seconds"]);
    refused(
        "[grpc]\nfetch_hosts = ['a.example.net']",
        &["grpc.fetch_hosts", "outgoing.hosts"],
    );
    refused("[cdn]\nranges = 0", &["cdn.ranges"]);
    refused("[cdn]\ntrusted_proxies = ['proxy']", &["cdn.trusted_proxies", "proxy"]);
    refused("[cdn.keys.a]", &["cdn.keys.a.secret", "32"]);
    refused("[cdn.keys.a]\nsecret = 'short'", &["cdn.keys.a", "32"]);
    let secret = format!("secret = '{}'\n", "0123456789abcdef".repeat(2));
    refused(&format!("[cdn.keys.'a b']\n{secret}"), &["cdn.keys.a b"]);
    refused(
        &format!("[cdn.keys.a]\n{secret}buckets = ['A']"),
        &["cdn.keys.a.buckets"],
    );
    assert!(!format!("{:?}", load(&format!("[cdn.keys.a]\n{secret}")).unwrap()).contains("0123456789abcdef"));
    refused("[outgoing]\nprivate = ['here']", &["outgoing.private", "here"]);
    refused("[outgoing]\nseconds = 0", &["outgoing.seconds"]);
    refused("[cdn.purge.a]", &["cdn.purge.a.url"]);
    let purge = "[cdn.purge.a]\nurl = 'https://cdn.example.net'\n";
    refused(purge, &["cdn.purge.a.url", "outgoing.hosts"]);
    let named = format!("{purge}[outgoing]\nhosts = ['cdn.example.net']");
    assert!(load(&named).is_ok());
    refused(&named.replace("https", "http"), &["cdn.purge.a.url", "outgoing.plain"]);
    refused("data = ", &["data"]);
}

#[test]
fn secrets_are_not_shown() {
    let config = load("[stores.a]\nwritable = true\nwrite_token = 'hunter2'\nread_token = 'hunter3'").unwrap();
    assert_eq!(config.stores["a"].write_token, Some(Secret("hunter2".to_owned())));
    let shown = format!("{config:?} {}", serde_json::to_string(&config).unwrap());
    assert!(!shown.contains("hunter"), "{shown}");
}

/// Goal: the page of settings names every setting with its default, and no other.
#[test]
fn the_page_of_settings_is_in_step() {
    let page = include_str!("../../../docs/settings.md");
    let mut config = Config::default();
    config.stores.insert(DEFAULT_STORE.to_owned(), Store::default());
    config.tokens.insert("ci".to_owned(), BucketToken::default());
    config.grpc.instances.insert("main".to_owned(), String::new());
    config.cdn.keys.insert("2026".to_owned(), cdn::CdnKey::default());
    config.cdn.purge.insert("front".to_owned(), outgoing::Purge::default());
    config.tls = Some(TlsFiles {
        certificate: PathBuf::new(),
        key: PathBuf::new(),
        client_ca: None,
    });
    let mut expected = BTreeMap::new();
    flatten("", &serde_json::to_value(&config).unwrap(), &mut expected);
    let written: BTreeMap<String, String> = page
        .lines()
        .filter_map(|line| line.strip_prefix("| `"))
        .filter_map(|line| line.split_once("` | "))
        .map(|(name, rest)| {
            let default = rest.split(" | ").next().unwrap_or_default();
            (name.to_owned(), default.trim_matches('`').to_owned())
        })
        .collect();
    let names = |map: &BTreeMap<String, String>| map.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&written), names(&expected));
    for (name, default) in &expected {
        // Null and empty defaults are said in words on the page.
        if !["null", "[]", "\"\""].contains(&default.as_str()) {
            assert_eq!(written[name], default.trim_matches('"'), "{name}");
        }
    }
}

fn flatten(prefix: &str, value: &serde_json::Value, out: &mut BTreeMap<String, String>) {
    let Some(members) = value.as_object() else {
        out.insert(prefix.to_owned(), value.to_string());
        return;
    };
    for (name, value) in members {
        let name = if ["stores", "tokens", "cdn.keys", "cdn.purge", "grpc.instances"].contains(&prefix) {
            "NAME"
        } else {
            name
        };
        let name = if prefix.is_empty() {
            name.to_owned()
        } else {
            format!("{prefix}.{name}")
        };
        flatten(&name, value, out);
    }
}
