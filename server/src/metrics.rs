//! The metrics page: names and labels as the product contract has them, all labels bounded.
//!
//! Handles of the request metrics are made once, so that counting a request is a few atomic additions (hot path).

use std::path::{Path, PathBuf};
use std::sync::{LazyLock, OnceLock};
use std::time::{Duration, SystemTime};

use cairn_index::RocksEngine;
use http::{Method, StatusCode};
use metrics::{
    Counter, Histogram, Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

/// When this process started, in seconds since the epoch; first asked for when the recorder is installed.
static STARTED: LazyLock<f64> = LazyLock::new(|| {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    now.map(|now| now.as_secs_f64()).unwrap_or_default()
});

/// Seconds; a chunk from memory takes some 20 µs, a durable PUT some ms.
const SECONDS: [f64; 14] = [
    0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0,
];
/// Histograms keep what was recorded until somebody counts it; this often it is counted when nobody asks.
pub(crate) const UPKEEP: Duration = Duration::from_secs(2);

/// Statuses with a counter of their own; others share `other`.
const STATUSES: [u16; 18] = [
    200, 206, 304, 400, 401, 403, 404, 405, 408, 409, 412, 413, 415, 416, 431, 500, 503, 0,
];
const METHODS: [&str; 4] = ["GET", "HEAD", "PUT", "other"];

/// The page and what is measured when somebody asks.
#[derive(Clone)]
pub(crate) struct Metrics {
    handle: PrometheusHandle,
    data: PathBuf,
}

/// Counters and durations of one endpoint.
pub(crate) struct EndpointMetrics {
    endpoint: &'static str,
    statuses: [[OnceLock<Counter>; STATUSES.len()]; METHODS.len()],
    durations: [OnceLock<Histogram>; METHODS.len()],
}

impl EndpointMetrics {
    /// - `endpoint`: the route with names in place of values, never a path that came in.
    pub(crate) const fn new(endpoint: &'static str) -> Self {
        Self {
            endpoint,
            statuses: [const { [const { OnceLock::new() }; STATUSES.len()] }; METHODS.len()],
            durations: [const { OnceLock::new() }; METHODS.len()],
        }
    }

    pub(crate) fn endpoint(&self) -> &'static str {
        self.endpoint
    }

    /// Counts a request that was answered.
    pub(crate) fn count(&self, method: &Method, status: StatusCode, took: Duration) {
        let method = match *method {
            Method::GET => 0,
            Method::HEAD => 1,
            Method::PUT => 2,
            _ => 3,
        };
        let at = STATUSES
            .iter()
            .position(|known| *known == status.as_u16())
            .unwrap_or(STATUSES.len() - 1);
        self.statuses[method][at]
            .get_or_init(|| {
                let status = match STATUSES[at] {
                    0 => "other".to_owned(),
                    status => status.to_string(),
                };
                counter!("http_requests_total",
                    "method" => METHODS[method], "endpoint" => self.endpoint, "status" => status)
            })
            .increment(1);
        self.durations[method]
            .get_or_init(|| {
                histogram!("http_request_duration_seconds", "method" => METHODS[method], "endpoint" => self.endpoint)
            })
            .record(took.as_secs_f64());
    }
}

impl Metrics {
    /// Installs the recorder of this process. Called once.
    pub(crate) fn install(data: PathBuf) -> Result<Self, String> {
        let recorder = PrometheusBuilder::new()
            .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS)
            .map_err(|error| error.to_string())?
            .build_recorder();
        LazyLock::force(&STARTED);
        let handle = recorder.handle();
        metrics::set_global_recorder(recorder).map_err(|error| error.to_string())?;
        describe_counter!("http_requests_total", "Requests answered");
        describe_histogram!(
            "http_request_duration_seconds",
            Unit::Seconds,
            "From a request's head to its answer's head"
        );
        describe_counter!("auth_failures_total", "Requests refused for their Authorization header");
        describe_gauge!(
            "disk_free_bytes",
            Unit::Bytes,
            "Room that the data folder's file system has for us"
        );
        describe_gauge!(
            "async_tasks",
            "Tasks of the runtime: listeners, connections and what they wait for"
        );
        describe_histogram!(
            "index_query_duration_seconds",
            Unit::Seconds,
            "Jobs of the doors on the index and on objects, by door; those of the admin API by what they ask"
        );
        describe_counter!(
            "uploads_expired_total",
            "Uploads in parts that nobody has completed in time, and that were given up"
        );
        describe_gauge!("store_chunks", "Chunks of a store of packs, about");
        describe_gauge!("store_packs", "Packs of a store of the data folder");
        describe_gauge!("store_bytes", Unit::Bytes, "Bytes of these packs");
        describe_gauge!(
            "store_live_bytes",
            Unit::Bytes,
            "Bytes of chunks that the last collection kept"
        );
        describe_gauge!(
            "store_logical_bytes",
            Unit::Bytes,
            "Plain bytes of what the indexes of a rooted store name"
        );
        describe_gauge!(
            "store_dedup_ratio",
            "These as a multiple of the plain bytes of the chunks that they name, each counted once"
        );
        describe_counter!(
            "store_recompressed_bytes_total",
            Unit::Bytes,
            "Bytes of chunks in packs that were compressed anew, before"
        );
        describe_counter!(
            "store_recompression_saved_bytes_total",
            Unit::Bytes,
            "How many fewer they are now"
        );
        describe_counter!("pull_chunks_total", "Chunks of requests for many, by what was answered");
        describe_counter!("verify_runs_total", "Passes over the packs, by what they found");
        describe_gauge!("store_scrub_running", "1 while packs are read for damage");
        describe_gauge!(
            "store_scrub_last_seconds",
            Unit::Seconds,
            "When the last pass over the packs ended, since 1970 UTC"
        );
        describe_counter!("gc_runs_total", "Collections, by how they ended");
        describe_gauge!("gc_running", "1 while chunks are collected");
        describe_gauge!(
            "gc_last_seconds",
            Unit::Seconds,
            "When the last collection ended, since 1970 UTC"
        );
        describe_counter!("gc_chunks_deleted_total", "Chunks that collections deleted");
        describe_counter!("gc_bytes_deleted_total", Unit::Bytes, "Their stored bytes");
        describe_counter!(
            "gc_pack_bytes_removed_total",
            Unit::Bytes,
            "Bytes of packs that were written anew and removed"
        );
        describe_counter!(
            "gc_bytes_moved_total",
            Unit::Bytes,
            "Bytes of chunks that were moved to other packs for that"
        );
        describe_gauge!(
            "store_conversion_running",
            "1 while a flat folder of an older release is taken over into packs"
        );
        describe_counter!("store_converted_chunks_total", "Chunks that were taken over");
        describe_counter!("store_converted_bytes_total", Unit::Bytes, "Their stored bytes");
        describe_index();
        describe_gauge!("build_info", "1, with the version as a label");
        gauge!("build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
        Ok(Self { handle, data })
    }

    /// Counts what histograms hold.
    pub(crate) fn upkeep(&self) {
        self.handle.run_upkeep();
    }

    /// The page, in the text format of Prometheus. Reads a few files of `/proc`.
    pub(crate) fn page(&self) -> String {
        if let Ok(stat) = rustix::fs::statvfs(&self.data) {
            gauge!("disk_free_bytes").set((stat.f_bavail * stat.f_frsize) as f64);
        }
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            gauge!("async_tasks").set(runtime.metrics().num_alive_tasks() as f64);
        }
        measure_packs(&self.data.join("packs"));
        measure_folder(
            crate::objects::FOLDER_NAME,
            &self.data.join(crate::objects::FOLDER_NAME),
        );
        measure_process();
        self.handle.render()
    }
}

/// `index_*` of what an index says of itself.
///
/// - `store`: of which it is.
pub(crate) fn measure_index(store: &str, index: &RocksEngine) {
    let state = match index.state() {
        Ok(state) => state,
        Err(error) => {
            tracing::warn!(
                store,
                error = crate::routes::chain(&error),
                "the index does not tell its state"
            );
            return;
        }
    };
    let gauge = |name: &'static str, value: u64| gauge!(name, "store" => store.to_owned()).set(value as f64);
    gauge("index_write_rate_max_bytes", state.write_rate_max);
    gauge("index_writes_stopped", u64::from(state.writes_stopped));
    gauge("index_compaction_pending_bytes", state.compaction_pending_len);
    gauge("index_compactions_running", state.compactions);
    gauge("index_flushes_running", state.flushes);
    gauge("index_level_0_files", state.level_0_files);
    gauge("index_buffered_bytes", state.buffered_len);
    gauge("index_cached_bytes", state.cached_len);
    gauge("index_pinned_bytes", state.pinned_len);
    let count = |name: &'static str, value: u64| counter!(name, "store" => store.to_owned()).absolute(value);
    // Not seconds, because counters of this library hold whole numbers only.
    let stalled = u64::try_from(state.stalled.as_micros()).unwrap_or(u64::MAX);
    count("index_stalled_microseconds_total", stalled);
    count("index_compaction_read_bytes_total", state.compaction_read_len);
    count("index_compaction_written_bytes_total", state.compaction_written_len);
    count("index_flushed_bytes_total", state.flushed_len);
    count("index_failures_total", state.failures);
}

/// What the page says of these, in as few words as it has.
fn describe_index() {
    describe_gauge!(
        "index_write_rate_max_bytes",
        Unit::Bytes,
        "Bytes a second that writes of an index are slowed down to; 0: they are not"
    );
    describe_gauge!("index_writes_stopped", "1 while writes wait for flushes or compactions");
    describe_counter!(
        "index_stalled_microseconds_total",
        Unit::Microseconds,
        "How long writes waited for these two reasons"
    );
    describe_gauge!(
        "index_compaction_pending_bytes",
        Unit::Bytes,
        "Bytes that compactions are to rewrite, about"
    );
    describe_gauge!("index_compactions_running", "Compactions that run");
    describe_gauge!("index_flushes_running", "Flushes that run");
    describe_counter!(
        "index_compaction_read_bytes_total",
        Unit::Bytes,
        "Bytes that compactions have read"
    );
    describe_counter!(
        "index_compaction_written_bytes_total",
        Unit::Bytes,
        "Bytes that compactions have written"
    );
    describe_counter!(
        "index_flushed_bytes_total",
        Unit::Bytes,
        "Bytes of files that flushes wrote"
    );
    describe_counter!("index_failures_total", "Flushes and compactions that failed");
    describe_gauge!("index_level_0_files", "Files that each read has to look into");
    describe_gauge!(
        "index_buffered_bytes",
        Unit::Bytes,
        "Bytes written that are not in files yet"
    );
    describe_gauge!("index_cached_bytes", Unit::Bytes, "Bytes of blocks in memory");
    describe_gauge!(
        "index_pinned_bytes",
        Unit::Bytes,
        "Of these, bytes that cannot be given up"
    );
}

/// Lists a folder a store; a pack is up to some 256 MiB, so these are few names.
fn measure_packs(folder: &Path) {
    for store in list(folder) {
        if let Ok(name) = store.file_name().into_string() {
            measure_folder(&name, &store.path());
        }
    }
}

fn list(folder: &Path) -> impl Iterator<Item = std::fs::DirEntry> {
    std::fs::read_dir(folder).into_iter().flatten().flatten()
}

fn measure_folder(name: &str, folder: &Path) {
    let packs = list(folder).filter(|file| file.path().extension().is_some_and(|ending| ending == "pack"));
    let lens: Vec<u64> = packs.filter_map(|file| Some(file.metadata().ok()?.len())).collect();
    gauge!("store_packs", "store" => name.to_owned()).set(lens.len() as f64);
    gauge!("store_bytes", "store" => name.to_owned()).set(lens.iter().sum::<u64>() as f64);
}

/// `process_*` as Prometheus clients have them. What cannot be read is left out.
fn measure_process() {
    let cpu = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    // A gauge, because counters of this library hold whole numbers only.
    gauge!("process_cpu_seconds_total").set(cpu.tv_sec as f64 + cpu.tv_nsec as f64 / 1e9);
    gauge!("process_start_time_seconds").set(*STARTED);
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    for line in status.lines() {
        let Some((name, value)) = line.split_once(':') else {
            continue;
        };
        let Some(Ok(value)) = value.split_whitespace().next().map(str::parse::<f64>) else {
            continue;
        };
        match name {
            "VmSize" => gauge!("process_virtual_memory_bytes").set(value * 1024.0),
            "VmRSS" => gauge!("process_resident_memory_bytes").set(value * 1024.0),
            "Threads" => gauge!("process_threads").set(value),
            _ => {}
        }
    }
    if let Ok(handles) = std::fs::read_dir("/proc/self/fd") {
        gauge!("process_open_fds").set(handles.count() as f64);
    }
    if let Some(limit) = rustix::process::getrlimit(rustix::process::Resource::Nofile).current {
        gauge!("process_max_fds").set(limit as f64);
    }
}
