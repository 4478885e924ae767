//! A progress bar on standard error while long work runs; none when that is not a terminal.

use std::io::IsTerminal as _;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::engine::Progress;

/// How often the bar is drawn.
const INTERVAL: Duration = Duration::from_millis(100);

/// Draws until dropped.
#[derive(Debug)]
pub(crate) struct Bar {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// What the counters count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    Bytes,
    Chunks,
}

impl Bar {
    /// Starts to draw, where somebody is there to see it. desync's variables turn it on (`DESYNC_PROGRESSBAR_ENABLED`) and
    /// into lines for programs (`DESYNC_ENABLE_PARSABLE_PROGRESS`).
    pub(crate) fn show(what: &'static str, unit: Unit, progress: &Arc<Progress>) -> Self {
        let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let parsable = set("DESYNC_ENABLE_PARSABLE_PROGRESS");
        if !(parsable || std::io::stderr().is_terminal() || set("DESYNC_PROGRESSBAR_ENABLED")) {
            return Self {
                stop: None,
                thread: None,
            };
        }
        let (stop, stopped) = channel();
        let progress = Arc::clone(progress);
        let thread = std::thread::spawn(move || {
            let bar = if parsable {
                ProgressBar::hidden()
            } else {
                bar(what, unit)
            };
            let mut last = None;
            loop {
                let ended = !matches!(stopped.recv_timeout(INTERVAL), Err(RecvTimeoutError::Timeout));
                let (done, total) = (progress.done(), progress.total());
                bar.set_length(total.max(done));
                bar.set_position(done);
                let percent = (done * 100).checked_div(total);
                if parsable && percent != last {
                    last = percent;
                    eprintln!("{what}: {}%", percent.unwrap_or(0));
                }
                if ended {
                    bar.finish_and_clear();
                    return;
                }
            }
        });
        Self {
            stop: Some(stop),
            thread: Some(thread),
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A bar that panicked has nothing to say that matters more than the work's own end.
            let _ = thread.join();
        }
    }
}

fn bar(what: &'static str, unit: Unit) -> ProgressBar {
    let counts = match unit {
        Unit::Bytes => "{bytes}/{total_bytes} {binary_bytes_per_sec}",
        Unit::Chunks => "{pos}/{len} chunks {per_sec}",
    };
    let template = format!("{{msg}} [{{wide_bar}}] {counts} {{eta}} left");
    let style = ProgressStyle::with_template(&template).expect("the template is a constant");
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr()).with_style(style);
    bar.set_message(what);
    bar
}
