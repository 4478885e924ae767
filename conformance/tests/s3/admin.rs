//! `cairn` as a caller of the admin API, and what the server does by itself.

use cairn_conformance::s3::Door;
use cairn_conformance::support::{built, ok, run};
use serde_json::Value;

use super::suites;

/// Goal: what an administrator does by the API works by `cairn`: buckets with settings, keys of a second tenant, versions compared and
/// restored, objects found.
#[test]
fn cairn_administers_buckets_keys_versions_and_finds_objects() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let door = Door::start(&data, &[]);
    let cairn = |words: &[&str]| {
        let mut command = door.client(built("cairn").to_str().unwrap(), folder.path());
        command
            .env("XDG_CONFIG_HOME", folder.path())
            .env("CAIRN_ADMIN_URL", &door.admin)
            .env_remove("CAIRN_ADMIN_TOKEN")
            .env("CAIRN_ADMIN_TOKEN_FILE", data.join("admin-token"))
            .args(words);
        command
    };
    let text = |words: &[&str]| String::from_utf8(ok(&mut cairn(words)).stdout).unwrap();
    let json = |words: &[&str]| -> Value {
        let words = [&["--json"], words].concat();
        serde_json::from_str(&text(&words)).unwrap()
    };
    let refused = |words: &[&str]| {
        let output = run(&mut cairn(words));
        assert_eq!(output.status.code(), Some(1), "{words:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    let python = |words: &str| {
        let program = format!("import door; s3 = door.client(); {words}");
        let output = ok(door
            .client("cairn-python", folder.path())
            .args(["-B", "-c", &program])
            .current_dir(suites()));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };

    let made = json(&["bucket", "create", "abc", "versioning=enabled", "durability=batch"]);
    assert_eq!(made["settings"]["durability"], "batch");
    assert!(text(&["bucket", "list"]).contains("admin  abc"));
    assert!(text(&["bucket", "set", "abc", "quota_objects=100", "level=null"]).contains("quota_objects    100"));
    assert!(text(&["bucket", "show", "abc"]).contains("usage.objects    0"));
    assert!(refused(&["bucket", "set", "abc", "durability=never"]).contains("durability: sync, batch or volatile"));

    let put = "print(s3.put_object(Bucket='abc', Key='a/ü', Body=BODY, Tagging='stage=done')['VersionId'])";
    let (old, new) = ("b'x' * 3000000 + b'old'", "b'x' * 3000000 + b'newer'");
    let first = python(&put.replace("BODY", old));
    let second = python(&put.replace("BODY", new));
    let versions = text(&["object", "versions", "abc", "a/ü"]);
    let lines: Vec<&str> = versions.lines().collect();
    assert!(
        lines[0].starts_with(&format!("{second} *")) && lines[1].starts_with(&first),
        "{versions}"
    );
    let diff = json(&["object", "diff", "abc", "a/ü", &first]);
    assert_eq!(
        (&diff["from"]["version_id"], &diff["to"]["size"]),
        (&Value::from(&first[..]), &Value::from(3_000_005))
    );
    assert!(text(&["object", "diff", "abc", "a/ü", &first, &second]).contains("of its own"));
    assert!(text(&["object", "restore", "abc", "a/ü", &first]).contains(&first));
    let body = "print(s3.get_object(Bucket='abc', Key='a/ü')['Body'].read()[-5:])";
    assert_eq!(python(body), "b'xxold'");
    let found = text(&[
        "object",
        "search",
        "--tag",
        "stage=done",
        "--size-min",
        "3000003",
        "--prefix",
        "a/",
    ]);
    assert!(found.lines().count() == 1 && found.contains("abc/a/ü"), "{found}");
    assert_eq!(text(&["object", "search", "--tag", "stage=begun"]), "");

    let key = json(&["key", "create", "bert", "--tenant", "second"]);
    assert_eq!(text(&["tenant", "list"]), "default\nsecond\n");
    let id = key["id"].as_str().unwrap();
    assert!(text(&["key", "list", "--tenant", "second"]).contains(id));
    assert!(!text(&["key", "list"]).contains(id));
    assert!(text(&["key", "disable", id, "--tenant", "second"]).contains("off"));
    assert!(refused(&["key", "revoke", id]).contains("no access key"));
    text(&["key", "revoke", id, "--tenant", "second"]);
    assert!(refused(&["bucket", "delete", "abc"]).contains("is not deleted"));
    text(&["bucket", "create", "empty", "--tenant", "second"]);
    text(&["bucket", "delete", "empty", "--tenant", "second"]);
    let mut wrong = cairn(&["bucket", "list"]);
    let output = run(wrong.env("CAIRN_ADMIN_TOKEN", "a wrong token of somebody"));
    assert!(String::from_utf8(output.stderr).unwrap().contains("--token-file"));
}

/// Goal: an upload that nobody completes is given up once it is as old as the settings say, and what it held goes.
#[test]
fn uploads_that_nobody_completes_are_given_up() {
    let folder = tempfile::tempdir().unwrap();
    let door = Door::start(&folder.path().join("data"), &[("CAIRN_S3__UPLOAD_AGE_SECONDS", "5")]);
    let program = "\
import door
s3 = door.client()
s3.create_bucket(Bucket='abc')
upload = s3.create_multipart_upload(Bucket='abc', Key='k')['UploadId']
s3.upload_part(Bucket='abc', Key='k', UploadId=upload, PartNumber=1, Body=b'x')
while s3.list_multipart_uploads(Bucket='abc').get('Uploads'):
    pass
try:
    s3.list_parts(Bucket='abc', Key='k', UploadId=upload)
except door.ClientError as error:
    assert error.response['Error']['Code'] == 'NoSuchUpload', error
else:
    raise AssertionError('its parts are listed')
";
    ok(door
        .client("cairn-python", folder.path())
        .args(["-B", "-c", program])
        .current_dir(suites()));
}

/// Goal: of every durability class a killed server has lost nothing that it has acknowledged.
#[test]
fn a_killed_server_has_what_every_class_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let mut door = Door::start(&data, &[]);
    let (key, secret) = (door.key.clone(), door.secret.clone());
    let python = |door: &Door, program: &str| {
        ok(door
            .client("cairn-python", folder.path())
            .args(["-B", "-c", program])
            .current_dir(suites()));
    };
    let begin = "\
import door, hashlib
s3 = door.client()
body = lambda round, key: hashlib.sha256(f'{round} {key}'.encode()).digest() * 20000
classes = ['sync', 'batch', 'volatile']
";
    let make = "\
for name in classes:
    add = lambda params, name=name, **_: params['headers'].update({'x-cairn-durability': name})
    s3 = door.client()
    s3.meta.events.register('before-call.s3.CreateBucket', add)
    s3.create_bucket(Bucket='of-' + name)
    assert s3.head_bucket(Bucket='of-' + name)['ResponseMetadata']['HTTPHeaders']['x-cairn-durability'] == name
";
    python(&door, &format!("{begin}{make}"));
    for round in 0..3 {
        let put = format!(
            "\
for key in range(20):
    for name in classes:
        s3.put_object(Bucket='of-' + name, Key=f'{round} {{key}}', Body=body({round}, key))
"
        );
        python(&door, &format!("{begin}{put}"));
        door.kill();
        door = Door::start(&data, &[]);
        (door.key, door.secret) = (key.clone(), secret.clone());
        let get = format!(
            "\
for round in range({round} + 1):
    for key in range(20):
        for name in classes:
            got = s3.get_object(Bucket='of-' + name, Key=f'{{round}} {{key}}')['Body'].read()
            assert got == body(round, key), (name, round, key)
"
        );
        python(&door, &format!("{begin}{get}"));
    }
}
