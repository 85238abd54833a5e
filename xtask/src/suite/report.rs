//! The table of a run.

use std::{collections::BTreeMap, fmt::Write, path::Path, time::Duration};

use super::{
    Options,
    kind::{KINDS, Kind},
};

/// What one fault did.
#[derive(Clone, Copy, Debug)]
pub struct Outcome {
    /// What it was.
    pub kind: Kind,
    /// When it was put in, by the simulator's clock.
    pub at_ms: i64,
    /// When the service first showed it.
    pub detected: Option<Duration>,
    /// When all was well again.
    pub healed: Option<Duration>,
}

/// A run.
#[derive(Debug, Default)]
pub struct Report {
    /// Its faults, in order.
    pub outcomes: Vec<Outcome>,
    /// Kinds that this program or simulator does not have.
    pub unavailable: Vec<Kind>,
    /// When each missing row was sent.
    pub missing: Vec<i64>,
    /// When each doubled row was sent.
    pub doubled: Vec<i64>,
    /// Depth messages that were not received, each in a gap.
    pub unreceived: u64,
    /// Figures by name.
    pub totals: BTreeMap<String, String>,
    /// What is not as promised.
    pub failures: Vec<String>,
}

struct Line {
    name: &'static str,
    cells: [String; 5],
}

impl Report {
    fn lines(&self) -> Vec<Line> {
        KINDS.iter().map(|facts| Line { name: facts.name, cells: self.cells(facts.kind) }).collect()
    }

    fn cells(&self, kind: Kind) -> [String; 5] {
        let of_kind: Vec<usize> =
            (0..self.outcomes.len()).filter(|at| self.outcomes[*at].kind == kind).collect();
        if of_kind.is_empty() {
            let why = if self.unavailable.contains(&kind) { "not available" } else { "not drawn" };
            return [why, "", "", "", ""].map(str::to_owned);
        }
        let times = |of: fn(&Outcome) -> Option<Duration>| {
            spread(of_kind.iter().filter_map(|at| of(&self.outcomes[*at])).collect())
        };
        let within = |sent: &[i64]| of_kind.iter().map(|at| self.count(*at, sent)).sum::<usize>().to_string();
        [
            of_kind.len().to_string(),
            times(|outcome| outcome.detected),
            times(|outcome| outcome.healed),
            within(&self.missing),
            within(&self.doubled),
        ]
    }

    /// Rows sent between a fault and the next one.
    fn count(&self, at: usize, sent: &[i64]) -> usize {
        let from = self.outcomes[at].at_ms;
        let to = self.outcomes.get(at + 1).map_or(i64::MAX, |next| next.at_ms);
        sent.iter().filter(|ms| (from..to).contains(*ms)).count()
    }

    /// The table for a terminal.
    pub fn text(&self) -> String {
        let lines = self.lines();
        let widest = lines.iter().map(|line| line.name.len()).max().unwrap_or(0);
        let mut text = String::new();
        let heads = ["injected", "detected", "healed", "missing", "doubled"];
        let _ = writeln!(
            text,
            "{:widest$}  {:>13}  {:>15}  {:>15}  {:>7}  {:>7}",
            "fault", heads[0], heads[1], heads[2], heads[3], heads[4]
        );
        for Line { name, cells: [times, detected, healed, missing, doubled] } in &lines {
            let _ = writeln!(
                text,
                "{name:widest$}  {times:>13}  {detected:>15}  {healed:>15}  {missing:>7}  {doubled:>7}"
            );
        }
        for (name, value) in &self.totals {
            let _ = writeln!(text, "{name}: {value}");
        }
        text
    }

    /// The table for a document. Times are median / maximum.
    pub fn markdown(&self) -> String {
        let mut text = String::from(
            "| fault | injected | detected after, s | healed after, s | rows missing | rows doubled |\n|---|---|---|---|---|---|\n",
        );
        for Line { name, cells } in self.lines() {
            let _ = writeln!(text, "| {name} | {} |", cells.join(" | "));
        }
        text.push('\n');
        for (name, value) in &self.totals {
            let _ = writeln!(text, "- {name}: {value}");
        }
        if self.failures.is_empty() {
            text.push_str("- failures: none\n");
        }
        for failure in &self.failures {
            let _ = writeln!(text, "- **failed**: {failure}");
        }
        text
    }

    /// Puts the table into a document between its marks.
    ///
    /// # Errors
    /// When the document cannot be read or written, or lacks the marks.
    pub fn put_into(&self, path: &Path) -> Result<(), String> {
        let told = |error: std::io::Error| format!("{}: {error}", path.display());
        let document = std::fs::read_to_string(path).map_err(told)?;
        let replaced = replace(&document, &self.markdown())
            .ok_or_else(|| format!("{} lacks the marks {BEGIN} and {END}", path.display()))?;
        std::fs::write(path, replaced).map_err(told)
    }
}

/// How to have the same run again.
pub fn command(options: &Options) -> String {
    let Options { seed, rate, symbols, .. } = options;
    let minutes = options.span.as_secs_f64() / 60.0;
    format!(
        "cargo xtask soak --minutes {minutes} --seed {seed} --rate {rate} --symbols {symbols} --every {}",
        options.every.as_secs()
    )
}

const BEGIN: &str = "<!-- soak:begin -->";
const END: &str = "<!-- soak:end -->";

fn replace(document: &str, table: &str) -> Option<String> {
    let (before, rest) = document.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}\n\n{table}\n{END}{after}"))
}

/// Median and maximum, in seconds.
fn spread(mut times: Vec<Duration>) -> String {
    times.sort_unstable();
    let Some(longest) = times.last() else { return "-".to_owned() };
    let median = times[times.len() / 2];
    format!("{:.1} / {:.1}", median.as_secs_f64(), longest.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(kind: Kind, at_ms: i64, healed: u64) -> Outcome {
        let healed = Some(Duration::from_secs(healed));
        Outcome { kind, at_ms, detected: None, healed }
    }

    #[test]
    fn rows_are_counted_with_the_fault_that_came_before_them() {
        let outcomes =
            vec![outcome(Kind::Skip, 100, 1), outcome(Kind::Kill, 200, 5), outcome(Kind::Skip, 300, 3)];
        let report = Report { outcomes, missing: vec![50, 150, 250, 260, 350], ..Report::default() };
        assert_eq!(report.cells(Kind::Skip), ["2", "-", "3.0 / 3.0", "2", "0"].map(str::to_owned));
        assert_eq!(report.cells(Kind::Kill)[3], "2");
        assert_eq!(report.cells(Kind::Reorder)[0], "not drawn");
    }

    #[test]
    fn the_table_replaces_the_one_before() {
        let document = format!("# A\n{BEGIN}\nold\n{END}\nend\n");
        assert_eq!(replace(&document, "new"), Some(format!("# A\n{BEGIN}\n\nnew\n{END}\nend\n")));
        assert_eq!(replace("no marks", "new"), None);
    }
}
