//! What the S3 door does under more load than it takes, and how much memory it needs for what it takes.

use cairn_conformance::s3::Door;
use cairn_conformance::support::ok;

use crate::{is_full, suites};

fn script(door: &Door, words: &[&str]) -> String {
    let home = tempfile::tempdir().unwrap();
    let mut command = door.client("cairn-python", home.path());
    command.args(["-B", "-W", "ignore"]).args(words);
    String::from_utf8(ok(command.current_dir(suites())).stdout).unwrap()
}

/// Goal: a request that finds no place is answered 503 at once, with when to come again, and counted; all others are served.
#[test]
fn too_much_at_once_is_told_to_slow_down() {
    let folder = tempfile::tempdir().unwrap();
    let settings = [("CAIRN_S3__JOBS", "1"), ("CAIRN_S3__WAITING", "0")];
    let door = Door::start(&folder.path().join("data"), &settings);
    let program = "\
import door, os, threading
door.client().create_bucket(Bucket='abc')
told, body = [], os.urandom(300000)
def put(number):
    for again in range(20):
        asked = door.Signed('PUT', f'/abc/{number}-{again}', body=body)
        told.append((asked.path, asked.send()))
threads = [threading.Thread(target=put, args=[number]) for number in range(8)]
[thread.start() for thread in threads], [thread.join() for thread in threads]
refused = [path for path, answer in told if answer.status == 503]
assert refused and len(refused) < len(told), f'{len(refused)} of {len(told)} were refused'
for path, answer in told:
    assert answer.status == 200 or (answer.code, answer.headers['retry-after']) == ('SlowDown', '1'), answer
    there = door.Signed('GET', path).send()
    assert (there.status == 200 and there.body == body) if answer.status == 200 else there.status == 404, path
assert door.sum_of('s3_refused_total', pool='ordinary', why='full') >= len(refused)
";
    script(&door, &["-c", program]);
}

/// Goal: 1 000 concurrent PUTs of 8 MiB stay within 768 MiB.
/// Method: all connections send a little in turn. Here the objects are short, which changes nothing about how much of them is held at a
/// time; the full run has the whole size.
#[test]
fn a_thousand_uploads_at_once_stay_within_their_memory() {
    let folder = tempfile::tempdir().unwrap();
    // Its memory is the point, so that nothing may go for want of patience on a loaded machine.
    let settings = [
        ("CAIRN_S3__BODY_IDLE_SECONDS", "300"),
        ("CAIRN_S3__WAIT_SECONDS", "300"),
    ];
    let door = Door::start(&folder.path().join("data"), &settings);
    let len = if is_full() { 8 << 20 } else { 512 << 10 };
    println!("{}", script(&door, &["memory.py", "1000", &len.to_string(), "768"]));
}
