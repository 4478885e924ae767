//! Real readers: Chromium with a page of another origin, ffmpeg that looks for the end of a film first, curl that goes on where it stopped.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::process::{Command, Stdio};

use cairn_conformance::support::ok;

use super::*;

/// A film of some seconds whose table is at its end, so that players have to look there first.
fn film(ground: &Ground) -> Vec<u8> {
    let file = ground.path("film.mp4");
    let mut ffmpeg = Command::new("ffmpeg");
    ffmpeg.args([
        "-v",
        "error",
        "-y",
        "-f",
        "lavfi",
        "-i",
        "testsrc=duration=20:size=640x360:rate=10",
    ]);
    ffmpeg.args([
        "-c:v",
        "libx264",
        "-preset",
        "ultrafast",
        "-pix_fmt",
        "yuv420p",
        "-g",
        "20",
    ]);
    ok(ffmpeg.arg(&file));
    std::fs::read(file).unwrap()
}

/// Goal: ffmpeg plays, and plays from the middle, what it gets by ranges as it does a file.
#[test]
fn ffmpeg_plays_and_seeks() {
    let ground = Ground::start();
    let bytes = film(&ground);
    ground.put("pub/film.mp4", &bytes);
    let url = format!("http://127.0.0.1:{}/cdn/abc/pub/film.mp4", ground.door.public);
    let file = ground.path("film.mp4");
    for seek in ["0", "15"] {
        let digest = |input: &std::ffi::OsStr| {
            let mut ffmpeg = Command::new("ffmpeg");
            ffmpeg
                .args(["-v", "error", "-ss", seek, "-i"])
                .arg(input)
                .args(["-map", "0:v", "-f", "md5", "-"]);
            ok(&mut ffmpeg).stdout
        };
        let (own, served) = (digest(file.as_os_str()), digest(url.as_ref()));
        assert!(own.starts_with(b"MD5=") && own == served, "from second {seek}");
    }
    let partial = "http_requests_total{method=\"GET\",endpoint=\"/cdn/{bucket}/{key}\",status=\"206\"}";
    assert!(ground.door.metric(partial) > 0, "it asks for ranges");
}

/// Goal: curl goes on where a transfer has stopped.
#[test]
fn curl_goes_on_where_it_stopped() {
    let ground = Ground::start();
    let bytes = input(4, 3 * MIB);
    ground.put("pub/k", &bytes);
    let url = format!("http://127.0.0.1:{}/cdn/abc/pub/k", ground.door.public);
    let file = ground.path("got");
    std::fs::write(&file, &bytes[..MIB]).unwrap();
    ok(Command::new("curl")
        .args(["-sS", "--fail", "-C", "-", "-o"])
        .arg(&file)
        .arg(&url));
    assert!(std::fs::read(&file).unwrap() == bytes);
}

/// Goal: a page of another origin, in a real Chromium, reads stored frames, ranges and what it has kept, and plays a film from its middle;
/// a page that was uploaded runs no script.
#[test]
fn a_page_in_chromium_reads_and_plays() {
    let ground = Ground::start_with(&[("CAIRN_S3__DEFERRED", "false")]);
    ground.set("abc", r#"{"cors_origins": ["*"], "cdn_zstd": true}"#);
    let text: String = (0..300_000).map(|n| format!("line {n}\n")).collect();
    ground.put("pub/a.txt", text.as_bytes());
    ground.put("pub/film.mp4", &film(&ground));
    let uploaded = "<p id=out>quiet</p><script>document.getElementById('out').textContent = 'it ran'</script>";
    ground.put("pub/page.html", uploaded.as_bytes());
    let base = format!("http://127.0.0.1:{}/cdn/abc/pub", ground.door.public);
    let page = r#"<!doctype html><p id=out>begun</p><script>
        const said = [];
        const sum = text => { let h = 0; for (let i = 0; i < text.length; i += 97) h = (h * 31 + text.charCodeAt(i)) >>> 0; return h; };
        async function run() {
            const whole = await fetch('BASE/a.txt');
            const text = await whole.text();
            said.push('coding=' + whole.headers.get('content-encoding'), 'length=' + text.length, 'sum=' + sum(text));
            const part = await fetch('BASE/a.txt', { headers: { Range: 'bytes=5-10' } });
            said.push('part=' + part.status + ':' + (await part.text()).length);
            const again = await fetch('BASE/a.txt', { cache: 'no-cache' });
            said.push('again=' + (await again.text()).length);
            const video = document.createElement('video');
            video.muted = true;
            const event = name => new Promise((go, stop) => { video.addEventListener(name, go, { once: true }); video.onerror = () => stop(video.error.message); });
            video.src = 'BASE/film.mp4';
            await event('loadedmetadata');
            said.push('duration=' + Math.round(video.duration));
            video.currentTime = 15;
            await event('seeked');
            said.push('at=' + video.currentTime);
        }
        run().catch(error => said.push('failed=' + error)).then(() => fetch('/said', { method: 'POST', body: said.join(' ') }));
        </script>"#;
    let sum = text
        .bytes()
        .step_by(97)
        .fold(0_u32, |sum, byte| sum.wrapping_mul(31).wrapping_add(u32::from(byte)));
    let shown = visit(&ground, &page.replace("BASE", &base));
    for word in [
        "coding=zstd".to_owned(),
        format!("length={}", text.len()),
        format!("sum={sum}"),
        "part=206:6".to_owned(),
        format!("again={}", text.len()),
        "duration=20".to_owned(),
        "at=15".to_owned(),
    ] {
        assert!(shown.contains(&word), "no `{word}` in {shown}");
    }
    let shown = look_at(&ground, &format!("{base}/page.html"));
    assert!(shown.contains("quiet") && !shown.contains(">it ran<"), "{shown}");
}

/// Shows a page of an origin of its own to Chromium; what it says with a POST.
fn visit(ground: &Ground, page: &str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let mut child = chromium(ground).arg(&url).spawn().unwrap();
    let said = loop {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = Vec::new();
        let mut piece = [0; 4096];
        // One that opens a connection and asks nothing yet closes it, or goes on with it later: it is told to come again.
        let (head, len) = loop {
            let read = stream.read(&mut piece).unwrap_or(0);
            request.extend_from_slice(&piece[..read]);
            let head = request.windows(4).position(|four| four == b"\r\n\r\n");
            let text = String::from_utf8_lossy(&request).to_lowercase();
            let len = text
                .split("content-length: ")
                .nth(1)
                .and_then(|rest| rest.split("\r\n").next());
            let len: usize = len.and_then(|len| len.parse().ok()).unwrap_or(0);
            match head {
                Some(head) if request.len() >= head + 4 + len => break (head + 4, len),
                _ if read == 0 => break (0, 0),
                _ => {}
            }
        };
        let said = request[head..head + len].to_vec();
        let body = if request.starts_with(b"GET / ") { page } else { "" };
        let answer = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let _ = stream.write_all(answer.as_bytes());
        if request.starts_with(b"POST /said") {
            break String::from_utf8(said).unwrap();
        }
    };
    child.kill().unwrap();
    child.wait().unwrap();
    said
}

/// What a page looks like.
fn look_at(ground: &Ground, url: &str) -> String {
    String::from_utf8(ok(chromium(ground).args(["--dump-dom", url]).stdout(Stdio::piped())).stdout).unwrap()
}

fn chromium(ground: &Ground) -> Command {
    let mut chromium = Command::new("chromium");
    chromium.args([
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--mute-audio",
    ]);
    chromium.args(["--disable-background-networking", "--no-first-run"]);
    chromium.arg(format!("--user-data-dir={}", ground.path("chromium").display()));
    chromium
        .env("HOME", ground.folder())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    chromium
}
