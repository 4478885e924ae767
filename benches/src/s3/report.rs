//! What was seen, as tables, and each goal with its figure and verdict.

use std::fmt::Write as _;

use crate::s3::work::Seen;
use crate::table::median;

/// Runs of one load by several servers.
#[derive(Default)]
pub(crate) struct Runs(Vec<(String, Vec<Seen>)>);

impl Runs {
    pub(crate) fn add(&mut self, name: &str, seen: Seen) {
        match self.0.iter_mut().find(|row| row.0 == name) {
            Some(row) => row.1.push(seen),
            None => self.0.push((name.to_owned(), vec![seen])),
        }
    }

    /// The median of a figure; `None`: that server was not there.
    pub(crate) fn of(&self, name: &str, figure: impl Fn(&Seen) -> f64) -> Option<f64> {
        let (_, seen) = self.0.iter().find(|row| row.0.starts_with(name))?;
        Some(median(seen.iter().map(figure).collect()))
    }

    /// A figure of one server as a multiple of another's.
    pub(crate) fn ratio(&self, ours: &str, theirs: &str, figure: impl Fn(&Seen) -> f64 + Copy) -> Option<f64> {
        Some(self.of(ours, figure)? / self.of(theirs, figure)?)
    }
}

/// The other server's name.
pub(crate) const OTHER: &str = "MinIO";

#[derive(Default)]
pub(crate) struct Report {
    tables: String,
    goals: String,
}

impl Report {
    pub(crate) fn table(&mut self, title: &str, runs: &Runs) {
        let _ = write!(
            self.tables,
            "\n{title}:\n\n| server | operations/s | MiB/s | server CPU-s per GiB | server CPU-s per 1000 | load CPU-s per 1000 | median ms | p99 ms | anonymous MiB |\n|---|---|---|---|---|---|---|---|---|\n"
        );
        for (name, _) in &runs.0 {
            let of = |figure: fn(&Seen) -> f64| runs.of(name, figure).unwrap_or(0.0);
            let bytes = of(|seen| seen.bytes as f64);
            let _ = writeln!(
                self.tables,
                "| {name} | {:.0} | {:.0} | {} | {:.3} | {:.3} | {:.2} | {:.2} | {:.0} |",
                of(Seen::per_second),
                of(Seen::mib_per_second),
                if bytes > 0.0 {
                    format!("{:.2}", of(Seen::cpu_per_gib))
                } else {
                    String::new()
                },
                of(Seen::cpu_per_thousand),
                of(|seen| seen.load_cpu / seen.count as f64 * 1e3),
                of(|seen| seen.latency(0.5) * 1e3),
                of(|seen| seen.latency(0.99) * 1e3),
                of(|seen| seen.memory as f64 / f64::from(1 << 20)),
            );
        }
        eprintln!("{title}: measured");
    }

    pub(crate) fn text(&mut self, text: &str) {
        let _ = write!(self.tables, "\n{text}\n");
    }

    /// A figure that is to be at least `goal`.
    pub(crate) fn at_least(&mut self, what: &str, figure: Option<f64>, goal: f64) {
        self.goal(what, figure, "≥", goal, |figure| figure >= goal);
    }

    /// A figure that is to be at most `goal`.
    pub(crate) fn at_most(&mut self, what: &str, figure: Option<f64>, goal: f64) {
        self.goal(what, figure, "≤", goal, |figure| figure <= goal);
    }

    fn goal(&mut self, what: &str, figure: Option<f64>, sign: &str, goal: f64, is_met: impl Fn(f64) -> bool) {
        let Some(figure) = figure else {
            return;
        };
        let verdict = if is_met(figure) { "met" } else { "missed" };
        let _ = writeln!(self.goals, "| {what} | {figure:.3} | {sign} {goal} | {verdict} |");
    }

    pub(crate) fn section(&self, load: &str, repeats: usize, has_other: bool) -> String {
        let durability = if has_other {
            " cairnd syncs chunks and names before it answers; MinIO the data that it writes (O_DIRECT and fdatasync, or O_DSYNC), and of \
             names only with `MINIO_FS_OSYNC=on`."
        } else {
            ""
        };
        let mut text = format!(
            "\n### S3\n\nMedian of {repeats}, interleaved; load average when it began: {load}.{durability} Bodies unsigned, all reads compared.\n"
        );
        if !self.goals.is_empty() {
            text += "\n| what | figure | goal | |\n|---|---|---|---|\n";
            text += &self.goals;
        }
        text + &self.tables
    }
}
