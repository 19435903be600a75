//! What a measurement says, as a JSON object, a row of a table, and a part of the total.

use std::fmt;

use convgen_ir::problem::ConvProblem;
use serde::Serialize;

use crate::cli::failure::Verdict;
use crate::cli::output::{short, table};

/// One problem measured. The names of the fields are the keys of the JSON object.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// The canonical descriptor.
    pub problem: String,
    /// Its name.
    pub name: Option<String>,
    /// The kernel's name, in the table only.
    #[serde(skip)]
    pub kernel: String,
    /// The algorithm.
    pub algorithm: &'static str,
    /// The schedule on one line.
    pub schedule: String,
    /// What the kernel is compiled for.
    pub isa: String,
    /// The layout.
    pub layout: &'static str,
    /// Threads of a call.
    pub threads: usize,
    /// The shortest call.
    pub min_ms: f64,
    /// The median call.
    pub median_ms: f64,
    /// Operations of the definition a nanosecond, in the shortest call.
    pub gflops: f64,
    /// The peak of all threads.
    pub peak_gflops: f64,
    /// The part of the peak reached.
    pub frac_peak: f64,
    /// From the problem to the kernel.
    pub compile_ms: f64,
    /// Scratch memory a thread.
    pub workspace_bytes: usize,
    /// Whether the results were right, if they were compared.
    pub verified: Option<bool>,
}

/// All rows; displayed as a table and a line with the total.
#[derive(Default)]
pub struct Table {
    rows: Vec<(Row, String)>,
}

impl Table {
    /// Adds a row.
    pub fn push(&mut self, row: Row, problem: &ConvProblem) {
        self.rows.push((row, short(problem)));
    }

    /// Whether nothing was measured.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Wrong if any kernel is.
    pub fn verdict(&self) -> Verdict {
        let wrong = self.rows.iter().any(|(row, _)| row.verified == Some(false));
        if wrong { Verdict::Wrong } else { Verdict::Good }
    }

    fn column(&self, field: fn(&Row) -> f64) -> Vec<f64> {
        self.rows.iter().map(|(row, _)| field(row)).collect()
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = table(
            &["name", "problem", "kernel", "ms", "GFLOP/s", "% peak", "compile ms", "verified"],
            3..7,
        );
        for (row, short) in &self.rows {
            table.add_row(vec![
                row.name.clone().unwrap_or_default(),
                short.clone(),
                row.kernel.clone(),
                format!("{:.3}", row.min_ms),
                format!("{:.1}", row.gflops),
                format!("{:.1}", row.frac_peak * 100.0),
                format!("{:.2}", row.compile_ms),
                verified(row.verified).to_owned(),
            ]);
        }
        writeln!(f, "{table}")?;
        let layers = self.rows.len();
        let plural = if layers == 1 { "" } else { "s" };
        let compile = self.column(|row| row.compile_ms);
        write!(
            f,
            "{layers} layer{plural}, {:.3} ms, geometric mean {:.1} GFLOP/s = {:.1} % of peak, \
             compile median {:.2} ms, max {:.2} ms",
            self.column(|row| row.min_ms).iter().sum::<f64>(),
            geometric_mean(&self.column(|row| row.gflops)),
            geometric_mean(&self.column(|row| row.frac_peak)) * 100.0,
            median(&compile),
            compile.iter().copied().fold(0.0, f64::max),
        )
    }
}

/// The word for a result that was compared, or was not.
pub fn verified(verified: Option<bool>) -> &'static str {
    match verified {
        Some(true) => "yes",
        Some(false) => "NO",
        None => "-",
    }
}

/// Over the positive values: an empty batch has no rate.
fn geometric_mean(values: &[f64]) -> f64 {
    let logs: Vec<f64> = values.iter().filter(|&&x| x > 0.0).map(|x| x.ln()).collect();
    if logs.is_empty() { 0.0 } else { (logs.iter().sum::<f64>() / logs.len() as f64).exp() }
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => 0.0,
        len if len % 2 == 1 => sorted[len / 2],
        len => (sorted[len / 2 - 1] + sorted[len / 2]) / 2.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn means_of_the_total() {
        assert!((geometric_mean(&[1.0, 100.0, 0.0]) - 10.0).abs() < 1e-12);
        assert_eq!(geometric_mean(&[]), 0.0);
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0]), 2.5);
        assert_eq!(median(&[]), 0.0);
    }
}
