//! Families of samples, and their two forms. Knows nothing of what is counted.

use std::{
    collections::{BTreeMap, HashMap},
    fmt::Write,
    sync::{Mutex, MutexGuard, PoisonError},
};

use serde::{Serialize, Serializer};

/// How a family is to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Type {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts by upper bound, with a sum.
    Histogram,
}

impl Type {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// A value; counts stay whole.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub(super) enum Value {
    /// A count.
    Whole(i64),
    /// A measure.
    Real(f64),
}

impl From<f64> for Value {
    fn from(value: f64) -> Self {
        Self::Real(value)
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self::Whole(i64::from(value))
    }
}

macro_rules! whole {
    ($($kind:ty)*) => { $(
        impl From<$kind> for Value {
            fn from(value: $kind) -> Self {
                Self::Whole(i64::try_from(value).unwrap_or(i64::MAX))
            }
        }
    )* };
}
whole!(i32 i64 u32 u64 usize);

type Labels = Vec<(&'static str, String)>;

/// One value with its labels.
#[derive(Debug, Serialize)]
pub(super) struct Sample {
    /// What follows the family's name, for the parts of a histogram.
    #[serde(skip_serializing_if = "str::is_empty")]
    part: &'static str,
    #[serde(serialize_with = "as_object")]
    labels: Labels,
    value: Value,
}

#[allow(clippy::ptr_arg, reason = "serde passes the field as it is")]
fn as_object<S: Serializer>(labels: &Labels, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(labels.iter().map(|(name, value)| (name, value)))
}

/// Samples of one name.
#[derive(Debug, Serialize)]
pub(super) struct Family {
    name: &'static str,
    help: &'static str,
    r#type: Type,
    samples: Vec<Sample>,
}

/// All families, in the order in which they were first added to.
#[derive(Debug, Default, Serialize)]
#[serde(transparent)]
pub(super) struct Families {
    all: Vec<Family>,
    #[serde(skip)]
    places: HashMap<&'static str, usize>,
}

impl Families {
    /// Adds a sample.
    pub(super) fn add(
        &mut self,
        name: &'static str,
        kind: Type,
        help: &'static str,
        labels: &[(&'static str, &str)],
        value: impl Into<Value>,
    ) {
        self.add_part(name, "", kind, help, labels, value);
    }

    /// Adds a histogram: counts at or below each bound in seconds, all of them, and the sum in seconds.
    pub(super) fn histogram(
        &mut self,
        name: &'static str,
        help: &'static str,
        bounds: impl Iterator<Item = (f64, u64)>,
        (count, sum): (u64, f64),
    ) {
        let kind = Type::Histogram;
        for (bound, below) in bounds {
            self.add_part(name, "_bucket", kind, help, &[("le", &real(bound))], below);
        }
        self.add_part(name, "_bucket", kind, help, &[("le", "+Inf")], count);
        self.add_part(name, "_sum", kind, help, &[], sum);
        self.add_part(name, "_count", kind, help, &[], count);
    }

    fn add_part(
        &mut self,
        name: &'static str,
        part: &'static str,
        kind: Type,
        help: &'static str,
        labels: &[(&'static str, &str)],
        value: impl Into<Value>,
    ) {
        let place = *self.places.entry(name).or_insert(self.all.len());
        if place == self.all.len() {
            self.all.push(Family { name, help, r#type: kind, samples: Vec::new() });
        }
        let labels = labels.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        self.all[place].samples.push(Sample { part, labels, value: value.into() });
    }
}

/// The text format, version 0.0.4 (prometheus.io, "Exposition formats").
pub(super) fn prometheus_text(families: &Families) -> String {
    let mut out = String::new();
    for family in &families.all {
        // Writing to a string cannot fail.
        let _ = writeln!(out, "# HELP {} {}", family.name, escaped(family.help, false));
        let _ = writeln!(out, "# TYPE {} {}", family.name, family.r#type.as_str());
        for sample in &family.samples {
            out.push_str(family.name);
            out.push_str(sample.part);
            write_labels(&mut out, &sample.labels);
            let _ = match sample.value {
                Value::Whole(value) => writeln!(out, " {value}"),
                Value::Real(value) => writeln!(out, " {}", real(value)),
            };
        }
    }
    out
}

fn write_labels(out: &mut String, labels: &Labels) {
    for (at, (name, value)) in labels.iter().enumerate() {
        out.push(if at == 0 { '{' } else { ',' });
        let _ = write!(out, "{name}=\"{}\"", escaped(value, true));
    }
    if !labels.is_empty() {
        out.push('}');
    }
}

fn escaped(text: &str, in_quotes: bool) -> String {
    let text = text.replace('\\', "\\\\").replace('\n', "\\n");
    if in_quotes { text.replace('"', "\\\"") } else { text }
}

fn real(value: f64) -> String {
    match value {
        value if value.is_nan() => "NaN".to_owned(),
        value if value.is_infinite() => if value > 0.0 { "+Inf" } else { "-Inf" }.to_owned(),
        value => value.to_string(),
    }
}

/// Sums by labels, for families that are told in sum.
#[derive(Default)]
pub(super) struct Sum<K: Ord>(BTreeMap<K, u64>);

impl<K: Ord> Sum<K> {
    /// Adds to the sum of a key.
    pub(super) fn add(&mut self, key: K, value: u64) {
        let sum = self.0.entry(key).or_default();
        *sum = sum.saturating_add(value);
    }

    /// The sums.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&K, u64)> {
        self.0.iter().map(|(key, sum)| (key, *sum))
    }
}

/// Keeps sums of counters growing although one of the counters begins anew, as an actor's own do when it is restarted.
/// What it counted after the last look before its end is lost.
#[derive(Default)]
pub(in crate::http) struct Totals(Mutex<Counters>);

/// The counters seen so far, by name and source. As many as there are actors, which are bounded.
#[derive(Default)]
pub(super) struct Counters(HashMap<(&'static str, String), Counter>);

#[derive(Default)]
struct Counter {
    last: u64,
    before: u64,
}

impl Totals {
    /// The counters. Values have to be read while they are held, or two readers would take an older one for a new
    /// beginning.
    pub(super) fn lock(&self) -> MutexGuard<'_, Counters> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Counters {
    /// What a counter has counted in all, its present value being this.
    pub(super) fn grown(&mut self, name: &'static str, source: &str, value: u64) -> u64 {
        let counter = self.0.entry((name, source.to_owned())).or_default();
        if value < counter.last {
            counter.before = counter.before.saturating_add(counter.last);
        }
        counter.last = value;
        counter.before.saturating_add(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_histogram_has_its_parts_under_one_head() {
        let mut families = Families::default();
        families.histogram("h", "H.", [(0.5, 1), (1.0, 2)].into_iter(), (3, 4.5));
        let expected = "# HELP h H.\n# TYPE h histogram\nh_bucket{le=\"0.5\"} 1\nh_bucket{le=\"1\"} 2\n\
                        h_bucket{le=\"+Inf\"} 3\nh_sum 4.5\nh_count 3\n";
        assert_eq!(prometheus_text(&families), expected);
    }

    #[test]
    fn text_has_one_head_for_each_family_and_escapes_labels() {
        let mut families = Families::default();
        families.add("a_total", Type::Counter, "Lines\nand \\.", &[("x", "1"), ("y", "q\"\\\n")], 3_u64);
        families.add("b", Type::Gauge, "B.", &[], 0.25);
        families.add("a_total", Type::Counter, "ignored", &[("x", "2")], u64::MAX);
        families.add("b", Type::Gauge, "B.", &[("n", "é")], f64::INFINITY);
        let expected = "# HELP a_total Lines\\nand \\\\.\n# TYPE a_total counter\n\
                        a_total{x=\"1\",y=\"q\\\"\\\\\\n\"} 3\na_total{x=\"2\"} 9223372036854775807\n\
                        # HELP b B.\n# TYPE b gauge\nb 0.25\nb{n=\"é\"} +Inf\n";
        assert_eq!(prometheus_text(&families), expected);
    }

    #[test]
    fn json_tells_the_same() {
        let mut families = Families::default();
        families.add("a_total", Type::Counter, "A.", &[("x", "1")], 3_u64);
        let json = serde_json::to_string(&families).expect("json");
        assert_eq!(
            json,
            r#"[{"name":"a_total","help":"A.","type":"counter","samples":[{"labels":{"x":"1"},"value":3}]}]"#
        );
    }

    #[test]
    fn a_counter_that_begins_anew_goes_on() {
        let totals = Totals::default();
        let mut counters = totals.lock();
        assert_eq!(counters.grown("n", "book/a", 10), 10);
        assert_eq!(counters.grown("n", "book/a", 12), 12);
        assert_eq!(counters.grown("n", "book/a", 3), 15);
        assert_eq!(counters.grown("n", "book/a", 4), 16);
        assert_eq!(counters.grown("n", "book/b", 1), 1);
        assert_eq!(counters.grown("m", "book/a", 1), 1);
    }
}
