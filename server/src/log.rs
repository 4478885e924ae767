//! Log lines: one JSON object each, on standard error, with the fields of the product contract first and always there.
//!
//! `timestamp, level, service, pod, trace_id, user_id, endpoint, method, status_code, duration_ms, message`; what does not
//! apply is null. Other fields of an event follow under their own names.

use std::fmt;
use std::sync::LazyLock;

use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime as _, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::reload;

const SERVICE: &str = "cairnd";
const FIELDS: [&str; 6] = [
    "trace_id",
    "user_id",
    "endpoint",
    "method",
    "status_code",
    "duration_ms",
];

/// The name of this machine or pod.
static POD: LazyLock<String> = LazyLock::new(|| {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname");
    name.map(|name| name.trim().to_owned()).unwrap_or_default()
});

type SetLevel = dyn Fn(&str) -> Result<(), String> + Send + Sync;

/// Changes the level while the server runs.
pub(crate) struct LogLevel(Box<SetLevel>);

impl LogLevel {
    /// As the setting `log.level`.
    pub(crate) fn set(&self, level: &str) -> Result<(), String> {
        (self.0)(level)
    }
}

/// Starts logging. Called once.
pub(crate) fn install(level: &str) -> Result<LogLevel, String> {
    use tracing_subscriber::layer::SubscriberExt as _;
    use tracing_subscriber::util::SubscriberInitExt as _;

    let (filter, handle) = reload::Layer::new(parse(level)?);
    let lines = tracing_subscriber::fmt::layer()
        .event_format(JsonLines)
        .with_writer(std::io::stderr);
    tracing_subscriber::registry()
        .with(filter)
        .with(lines)
        .try_init()
        .map_err(|error| error.to_string())?;
    Ok(LogLevel(Box::new(move |level| {
        handle.reload(parse(level)?).map_err(|error| error.to_string())
    })))
}

fn parse(level: &str) -> Result<EnvFilter, String> {
    EnvFilter::try_new(level).map_err(|error| format!("setting log.level: {level:?} is no level: {error}"))
}

struct JsonLines;

impl<S, N> FormatEvent<S, N> for JsonLines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut timestamp = String::new();
        SystemTime.format_time(&mut Writer::new(&mut timestamp))?;
        let mut fields = Fields(Map::new());
        event.record(&mut fields);
        writeln!(
            writer,
            "{}",
            line(&timestamp, event.metadata().level().as_str(), fields.0)
        )
    }
}

/// One line, without its end. The order of names is part of the contract, so it is written by hand.
fn line(timestamp: &str, level: &str, mut fields: Map<String, Value>) -> String {
    let mut line = String::from("{");
    let mut push = |name: &str, value: &Value| {
        if line.len() > 1 {
            line.push(',');
        }
        line.push_str(&Value::from(name).to_string());
        line.push(':');
        line.push_str(&value.to_string());
    };
    push("timestamp", &timestamp.into());
    push("level", &level.into());
    push("service", &SERVICE.into());
    push("pod", &POD.as_str().into());
    for name in FIELDS {
        push(name, &fields.remove(name).unwrap_or(Value::Null));
    }
    push("message", &fields.remove("message").unwrap_or(Value::Null));
    for (name, value) in &fields {
        push(name, value);
    }
    line.push('}');
    line
}

struct Fields(Map<String, Value>);

impl Fields {
    fn insert(&mut self, field: &Field, value: impl Into<Value>) {
        self.0.insert(field.name().to_owned(), value.into());
    }
}

impl Visit for Fields {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.insert(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.insert(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.insert(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.insert(field, value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.insert(field, value);
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.insert(field, value.to_string());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.insert(field, format!("{value:?}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_the_contract_s_fields_in_order_and_stays_one_line() {
        let mut fields = Map::new();
        fields.insert("message".to_owned(), "two\nlines \"quoted\"".into());
        fields.insert("status_code".to_owned(), 404.into());
        fields.insert("chunk".to_owned(), "ab".into());
        let line = line("2026-01-02T03:04:05Z", "INFO", fields);
        assert!(!line.contains('\n'), "{line}");
        let names = [
            "timestamp",
            "level",
            "service",
            "pod",
            "trace_id",
            "user_id",
            "endpoint",
            "method",
            "status_code",
            "duration_ms",
            "message",
            "chunk",
        ];
        let places: Vec<usize> = names
            .iter()
            .map(|name| line.find(&format!("\"{name}\":")).unwrap())
            .collect();
        assert!(places.is_sorted(), "{line}");
        let parsed: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(parsed["message"], "two\nlines \"quoted\"");
        assert_eq!(parsed["status_code"], 404);
        assert!(parsed["trace_id"].is_null());
    }
}
