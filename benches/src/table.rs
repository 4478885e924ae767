//! Medians, ratios and Markdown.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::process::Command;

use crate::Result;
use crate::process::Usage;
use crate::tools::Tool;

/// All runs of one tool at one piece of work.
pub(crate) struct Line {
    pub(crate) work: &'static str,
    pub(crate) input: &'static str,
    /// Plain bytes of the input.
    pub(crate) bytes: u64,
    pub(crate) tool: Tool,
    pub(crate) runs: Vec<Usage>,
}

impl Line {
    fn median(&self, of: impl Fn(&Usage) -> f64) -> f64 {
        median(self.runs.iter().map(of).collect())
    }
}

/// The middle value; 0 of none.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

/// A section of works with files.
pub(crate) fn blobs(title: &str, lines: &[Line], cache: &str, repeats: usize) -> String {
    let mut text = format!(
        "\n### {title}\n\nMedian of {repeats}, interleaved; inputs {cache}. Every output compared with its input, our indexes with casync's.\n\n"
    );
    text += "| work | input | tool | seconds | CPU-s per GiB | peak anonymous MiB | MiB written | CPU / casync | CPU / desync | seconds / casync |\n";
    text += "|---|---|---|---|---|---|---|---|---|---|\n";
    for line in lines {
        let (wall, cpu) = (line.median(|run| run.wall), line.median(|run| run.cpu));
        let other = |tool| {
            lines
                .iter()
                .find(|other| other.work == line.work && other.input == line.input && other.tool == tool)
        };
        let ratio = |tool, mine: f64, of: fn(&Usage) -> f64| {
            other(tool).map_or("".into(), |other| format!("{:.2}", mine / other.median(of)))
        };
        let gib = line.bytes as f64 / (1u64 << 30) as f64;
        let mib = |bytes: f64| bytes / (1u64 << 20) as f64;
        let _ = writeln!(
            text,
            "| {} | {} | {} | {wall:.2} | {:.2} | {:.1} | {:.0} | {} | {} | {} |",
            line.work,
            line.input,
            line.tool.name(),
            cpu / gib,
            mib(line.median(|run| run.anonymous as f64)),
            mib(line.median(|run| run.written as f64)),
            ratio(Tool::Casync, cpu, |run| run.cpu),
            ratio(Tool::Desync, cpu, |run| run.cpu),
            ratio(Tool::Casync, wall, |run| run.wall),
        );
    }
    text
}

/// Date, machine, versions and command: what makes a table worth keeping.
pub(crate) fn heading(size: u64) -> Result<String> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let cpu = fs::read_to_string("/proc/cpuinfo")?;
    let field = |name: &str| {
        let line = cpu.lines().find(|line| line.starts_with(name));
        line.and_then(|line| line.split_once(": "))
            .map_or("unknown", |(_, value)| value)
            .to_owned()
    };
    let cores = std::thread::available_parallelism()?;
    Ok(format!(
        "\n## {}, {size} MiB a input\n\n- `make bench{}`\n- {} (family {}, model {}), {cores} cores\n- {}; {}; {}; Linux {}\n",
        first_line("date", &["-u", "+%F"]),
        if arguments.is_empty() {
            String::new()
        } else {
            format!(" ARGS=\"{}\"", arguments.join(" "))
        },
        field("model name"),
        field("cpu family"),
        field("model\t"),
        format_args!(
            "cairn {}; {}; desync v1.1.0 (tools/bootstrap)",
            first_line("git", &["describe", "--always", "--dirty"]),
            first_line("casync", &["--version"])
        ),
        first_line("openssl", &["version"])
            .split(" (")
            .next()
            .unwrap_or_default(),
        first_line("nginx", &["-v"]),
        first_line("uname", &["-r"]),
    ))
}

/// First line that a command writes, to either output.
fn first_line(program: &str, arguments: &[&str]) -> String {
    let Ok(output) = Command::new(program).args(arguments).output() else {
        return format!("no {program}");
    };
    let text = if output.stdout.is_empty() {
        output.stderr
    } else {
        output.stdout
    };
    String::from_utf8_lossy(&text)
        .lines()
        .next()
        .unwrap_or_default()
        .trim()
        .to_owned()
}

pub(crate) fn append(path: &Path, text: &str) -> Result<()> {
    let mut file = File::options().append(true).create(true).open(path)?;
    file.write_all(text.as_bytes())?;
    Ok(())
}
