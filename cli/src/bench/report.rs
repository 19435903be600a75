//! What a measurement says, as a JSON object, a row of a table, and a part of the totals.

use std::fmt;

use convgen::timing::CacheState;
use convgen_ir::problem::ConvProblem;

use super::groups::Groups;
use super::machine::Machine;
use super::row::Row;
use super::statistics::{geometric_mean, lowest, median};
use crate::failure::Verdict;
use crate::output::{caches_line, close_table, short};

/// What ends the suite in a name.
const SUITE_END: char = ':';

/// All rows; displayed below what the machine can do, and above the groups and the totals.
pub struct Table {
    machine: Machine,
    caches: CacheState,
    /// The numbers of threads that every problem is measured on.
    threads: Vec<usize>,
    /// For each problem one row a number of threads, with the problem in short.
    rows: Vec<(Row, String)>,
}

impl Table {
    /// No rows yet.
    pub fn new(machine: Machine, caches: CacheState, threads: Vec<usize>) -> Table {
        Table { machine, caches, threads, rows: vec![] }
    }

    /// Adds the rows of a problem, one for each number of threads.
    pub fn push(&mut self, rows: Vec<Row>, problem: &ConvProblem) {
        self.rows.extend(rows.into_iter().map(|row| (row, short(problem))));
    }

    /// Whether nothing was measured.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Wrong if any kernel is.
    pub fn verdict(&self) -> Verdict {
        let wrong = self.rows().any(|row| row.verified == Some(false));
        if wrong { Verdict::Wrong } else { Verdict::Good }
    }

    fn rows(&self) -> impl Iterator<Item = &Row> {
        self.rows.iter().map(|(row, _)| row)
    }

    /// Whether numbers of threads are compared.
    fn compares(&self) -> bool {
        self.threads.len() > 1
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\n{}", self.machine, caches_line(self.caches))?;
        writeln!(f, "{}", self.layers())?;
        let groups = Groups::of(self.rows());
        if groups.are_several() {
            writeln!(f, "{groups}")?;
        }
        let totals: Vec<String> = self.threads.iter().map(|count| self.total(*count)).collect();
        f.write_str(&totals.join("\n"))
    }
}

impl Table {
    /// One row a problem and number of threads; what the rows of a problem share is said once.
    fn layers(&self) -> comfy_table::Table {
        let compares = self.compares();
        let suite = self.suite();
        let mut columns = vec![suite.unwrap_or("name"), "problem", "kernel"];
        columns.extend(compares.then_some("threads"));
        columns.extend(["ms", "GFLOP/s", "% peak", "GB/s"]);
        columns.extend(if compares { vec!["speed-up"] } else { vec!["data in", "compile"] });
        columns.push("right");
        let mut table = close_table(&columns, 3..columns.len() - 1);
        for (at, (row, short)) in self.rows.iter().enumerate() {
            let again = at % self.threads.len() > 0;
            let prefix = suite.map_or(0, |suite| suite.len() + SUITE_END.len_utf8());
            let name = row.name.as_ref().map_or("", |name| &name[prefix..]);
            let [name, short] = if again { [""; 2] } else { [name, short] };
            table.add_row(self.cells(row, name, short));
        }
        table
    }

    /// What the names of all rows begin with: it is said once.
    fn suite(&self) -> Option<&str> {
        let mut suites = self.rows().map(|row| Some(row.name.as_ref()?.split_once(SUITE_END)?.0));
        let first = suites.next()??;
        suites.all(|suite| suite == Some(first)).then_some(first)
    }

    fn cells(&self, row: &Row, name: &str, short: &str) -> Vec<String> {
        // The type and the ISA are the same in all rows.
        let kernel = row.kernel.replacen(&format!("-f32-{}", row.isa), "", 1);
        let mut cells = vec![name.to_owned(), short.to_owned(), kernel];
        cells.extend(self.compares().then(|| row.threads.to_string()));
        cells.extend([
            format!("{:.4}", row.ms),
            format!("{:.1}", row.gflops),
            format!("{:.1}", row.frac_peak * 100.0),
            format!("{:.1}", row.gb_per_s),
        ]);
        match row.speedup {
            Some(speedup) => cells.push(format!("{speedup:.2}")),
            None => cells.extend([row.data_in.to_owned(), format!("{:.2}", row.compile_ms)]),
        }
        cells.push(verified(row.verified).to_owned());
        cells
    }

    /// All layers on that many threads, on one line.
    fn total(&self, threads: usize) -> String {
        let rows: Vec<&Row> = self.rows().filter(|row| row.threads == threads).collect();
        let column = |field: fn(&Row) -> f64| rows.iter().map(|row| field(row)).collect::<Vec<_>>();
        let plural = if rows.len() == 1 { "" } else { "s" };
        let on = match (self.compares(), threads) {
            (false, _) => String::new(),
            (true, 1) => ", 1 thread".to_owned(),
            (true, _) => format!(", {threads} threads"),
        };
        let compile = column(|row| row.compile_ms);
        let mut text = format!(
            "{} layer{plural}{on}, {:.3} ms, geometric mean {:.1} GFLOP/s = {:.1} % of peak",
            rows.len(),
            column(|row| row.ms).iter().sum::<f64>(),
            geometric_mean(&column(|row| row.gflops)),
            geometric_mean(&column(|row| row.frac_peak)) * 100.0,
        );
        let speedups = column(|row| row.speedup.unwrap_or(f64::NAN));
        text += &match self.threads.first() {
            Some(first) if *first != threads => format!(
                ", {:.2} times as fast as {first}, at least {:.2}",
                geometric_mean(&speedups),
                lowest(&speedups)
            ),
            Some(_) | None => format!(
                ", compile median {:.2} ms, max {:.2} ms",
                median(&compile),
                compile.iter().copied().fold(0.0, f64::max)
            ),
        };
        text
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

#[cfg(test)]
mod tests {
    use crate::suite;
    use convgen::Isa;
    use convgen_ir::problem::Descriptor;

    use super::*;
    use crate::bench::groups::label;

    /// The longest line that a terminal of usual width shows whole.
    const COLUMNS: usize = 120;

    /// A row of many digits.
    fn row(descriptor: &Descriptor, threads: usize, speedup: Option<f64>) -> Row {
        Row {
            problem: descriptor.problem.to_string(),
            name: descriptor.name.clone(),
            group: label(&descriptor.problem),
            kernel: "winograd-f32-avx512-14x32".to_owned(),
            algorithm: "winograd",
            schedule: String::new(),
            isa: "avx512".to_owned(),
            layout: "nhwc",
            threads,
            caches: "warm",
            ms: 123.45678,
            min_ms: 123.45678,
            median_ms: 123.45678,
            speedup,
            gflops: 1234.5678,
            peak_gflops: 2000.0,
            frac_peak: 2.345678,
            traffic_bytes: 1 << 30,
            gb_per_s: 123.45678,
            data_in: "memory",
            l1_gb_per_s: None,
            l2_gb_per_s: None,
            l3_gb_per_s: None,
            compile_ms: 12.345678,
            workspace_bytes: 1 << 20,
            verified: Some(true),
        }
    }

    #[test]
    fn every_suite_fits_a_terminal() {
        let machine = || Machine::new(Isa::Avx512, 123.45678, vec![]);
        for suite in suite::ALL {
            let mut plain = Table::new(machine(), CacheState::Warm, vec![1]);
            let mut compared = Table::new(machine(), CacheState::Warm, vec![1, 2]);
            for descriptor in suite.descriptors().unwrap() {
                plain.push(vec![row(&descriptor, 1, None)], &descriptor.problem);
                let rows = [1, 2].map(|threads| row(&descriptor, threads, Some(12.345678)));
                compared.push(rows.to_vec(), &descriptor.problem);
            }
            for line in format!("{}\n{}", plain.layers(), compared.layers()).lines() {
                assert!(line.chars().count() <= COLUMNS, "{}: {line}", suite.name());
            }
        }
    }
}
