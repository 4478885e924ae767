//! Collections and scrubs that somebody asks for.

use std::time::{Duration, Instant};

use cairn_conformance::s3::Door;
use cairn_conformance::support::request;
use serde_json::Value;

/// No run of so little takes so long.
const GIVEN_UP: Duration = Duration::from_secs(60);

/// Goal: a run begins when it is asked for, one at a time, and tells what it did; so soon after the start no chunk goes.
#[test]
fn upkeep_begins_when_it_is_asked_for_and_tells_what_it_did() {
    let folder = tempfile::tempdir().unwrap();
    let settings = [("CAIRN_COLLECT__GRACE_SECONDS", "600")];
    let door = Door::start(&folder.path().join("data"), &settings);
    let put = "import door; s3 = door.client(); s3.create_bucket(Bucket='abc'); s3.put_object(Bucket='abc', Key='k', Body=b'x' * 300000 + \
               b'y' * 300000); s3.delete_object(Bucket='abc', Key='k')";
    door.script(folder.path(), put, &[]);
    let shown = format!("Bearer {}", door.admin_token);
    let ask = |method: &str, task: &str| -> (u16, Value) {
        let path = format!("/api/v1/admin/upkeep/{task}");
        let (status, _, body) = request(door.internal, method, &path, &[("Authorization", &shown)], b"");
        (status, serde_json::from_slice(&body).unwrap())
    };
    let until = |task: &str, is_so: &dyn Fn(&Value) -> bool| {
        let begun = Instant::now();
        loop {
            let (_, state) = ask("GET", task);
            if is_so(&state) {
                return state;
            }
            assert!(begun.elapsed() < GIVEN_UP, "{state}");
        }
    };

    assert_eq!(ask("GET", "collection").1["last"], Value::Null);
    assert_eq!(ask("POST", "collection").0, 202);
    // It waits for readers now, so a second one is refused for sure.
    until("collection", &|state| state["running"]["state"] == "grace");
    let (status, refused) = ask("POST", "collection");
    assert_eq!((status, &refused["code"]), (409, &Value::from("upkeep_running")));

    assert_eq!(ask("POST", "scrub").0, 202);
    let state = until("scrub", &|state| state["running"].is_null());
    assert_eq!(
        (&state["last"]["state"], &state["last"]["counts"]["damaged"]),
        (&Value::from("done"), &Value::from(0))
    );
    assert!(state["last"]["counts"]["packs"].as_u64().unwrap() >= 1, "{state}");
    assert_eq!(ask("POST", "nothing").0, 404);

    // Without the time for readers it ends, and has left what may have been promised before the start.
    drop(door);
    let door = Door::start(&folder.path().join("data"), &[("CAIRN_COLLECT__GRACE_SECONDS", "0")]);
    let (status, _, _) = request(
        door.internal,
        "POST",
        "/api/v1/admin/upkeep/collection",
        &[("Authorization", &shown)],
        b"",
    );
    assert_eq!(status, 202);
    let begun = Instant::now();
    let last = loop {
        let path = "/api/v1/admin/upkeep/collection";
        let (_, _, body) = request(door.internal, "GET", path, &[("Authorization", &shown)], b"");
        let state: Value = serde_json::from_slice(&body).unwrap();
        if state["running"].is_null() {
            break state["last"].clone();
        }
        assert!(begun.elapsed() < GIVEN_UP, "{state}");
    };
    assert_eq!(last["state"], "done", "{last}");
    assert_eq!(last["counts"]["deleted_chunks"], 0, "{last}");
    assert!(last["counts"]["recent_chunks"].as_u64().unwrap() >= 1, "{last}");
}
