//! Writes Prometheus' text format (version 0.0.4).

use std::fmt::Write;

use super::stats::{BUCKETS, HistogramTotals};

/// A page in the making. All samples of a metric come right behind its name.
#[derive(Debug, Default)]
pub struct Page {
    text: String,
}

/// Names and values of a sample's labels.
pub type Labels<'a> = &'a [(&'a str, &'a str)];

impl Page {
    /// Starts a metric.
    pub fn metric(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    /// A sample.
    pub fn sample(&mut self, name: &str, labels: Labels<'_>, value: f64) {
        self.text.push_str(name);
        self.labels(labels);
        let _ = writeln!(self.text, " {value}");
    }

    /// The samples of a histogram, its durations in seconds.
    pub fn histogram(&mut self, name: &str, labels: Labels<'_>, totals: &HistogramTotals) {
        let bucket = format!("{name}_bucket");
        let mut count = 0;
        for (n, in_bucket) in totals.buckets.iter().enumerate() {
            count += in_bucket;
            // Every second power of two is enough for a picture, and half as many series.
            if n % 2 == 1 && n + 1 < BUCKETS {
                let bound = HistogramTotals::bound(n).unwrap_or_default().as_secs_f64().to_string();
                self.sample(&bucket, &[labels, &[("le", &bound)]].concat(), count as f64);
            }
        }
        self.sample(&bucket, &[labels, &[("le", "+Inf")]].concat(), count as f64);
        self.sample(&format!("{name}_sum"), labels, seconds(totals.sum));
        self.sample(&format!("{name}_count"), labels, count as f64);
    }

    /// What there is of it.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Goes on with an empty one.
    pub fn clear(&mut self) {
        self.text.clear();
    }

    fn labels(&mut self, labels: Labels<'_>) {
        for (index, (name, value)) in labels.iter().enumerate() {
            self.text.push(if index == 0 { '{' } else { ',' });
            let _ = write!(self.text, "{name}=\"");
            for c in value.chars() {
                match c {
                    '\\' => self.text.push_str("\\\\"),
                    '"' => self.text.push_str("\\\""),
                    '\n' => self.text.push_str("\\n"),
                    other => self.text.push(other),
                }
            }
            self.text.push('"');
        }
        if !labels.is_empty() {
            self.text.push('}');
        }
    }
}

/// Microseconds as Prometheus wants them.
pub fn seconds(micros: u64) -> f64 {
    micros as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::stats::{Histogram, Stats, Totals};

    #[test]
    fn samples_and_labels() {
        let mut page = Page::default();
        page.metric("x", "gauge", "An x.");
        page.sample("x", &[], 1.0);
        page.sample("x", &[("a", "b\"\\\n"), ("c", "d")], 0.5);
        assert_eq!(page.text(), "# HELP x An x.\n# TYPE x gauge\nx 1\nx{a=\"b\\\"\\\\\\n\",c=\"d\"} 0.5\n");
    }

    #[test]
    fn histograms_are_cumulative() {
        let stats = Stats::default();
        let record = |h: &Histogram| [1, 3, 3_000_000].map(|micros| h.record(micros));
        record(&stats.wait_time);
        let mut totals = Totals::default();
        totals.add(&stats);
        let mut page = Page::default();
        page.histogram("w", &[("db", "a")], &totals.wait_time);
        let text = page.text();
        assert!(
            text.starts_with("w_bucket{db=\"a\",le=\"0.000002\"} 1\nw_bucket{db=\"a\",le=\"0.000008\"} 2\n"),
            "{text}"
        );
        assert!(text.ends_with("le=\"+Inf\"} 3\nw_sum{db=\"a\"} 3.000004\nw_count{db=\"a\"} 3\n"), "{text}");
    }
}
