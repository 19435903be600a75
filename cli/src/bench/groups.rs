//! Groups of layers that behave alike, told from the problem itself, and what each reaches.

use std::fmt;

use convgen_ir::problem::{ConvProblem, Direction};

use super::row::Row;
use super::statistics::{geometric_mean, lowest};
use crate::output::{alike, close_table};

/// `3x3`, `3x3 s2`, `depthwise 5x5`, `grouped 3x3 d2`, `k3` of one axis; not forward, the direction
/// first.
pub fn label(problem: &ConvProblem) -> String {
    let mut words = Vec::new();
    match problem.direction() {
        Direction::Forward => {}
        direction @ (Direction::Transposed
        | Direction::BackwardData
        | Direction::BackwardWeights
        | Direction::BackwardBias) => words.push(direction.name().to_owned()),
    }
    if problem.is_depthwise() {
        words.push("depthwise".to_owned());
    } else if problem.groups() > 1 {
        words.push("grouped".to_owned());
    }
    let kernel: Vec<String> =
        problem.spatial().iter().map(|axis| axis.kernel.to_string()).collect();
    words.push(match kernel.as_slice() {
        [one] => format!("k{one}"),
        several => several.join("x"),
    });
    let axes = problem.spatial();
    if axes.iter().any(|axis| axis.stride != 1) {
        words.push(format!("s{}", alike(problem, |axis| axis.stride.to_string())));
    }
    if axes.iter().any(|axis| axis.dilation != 1) {
        words.push(format!("d{}", alike(problem, |axis| axis.dilation.to_string())));
    }
    words.join(" ")
}

/// What the layers of each group reach on each number of threads.
pub struct Groups(Vec<Group>);

struct Group {
    label: String,
    threads: usize,
    layers: usize,
    gflops: f64,
    frac_peak: f64,
    lowest_frac: f64,
    /// The mean and the lowest, if threads are compared.
    speedup: Option<[f64; 2]>,
}

impl Groups {
    /// In the order in which the groups come first.
    pub fn of<'a>(rows: impl IntoIterator<Item = &'a Row>) -> Groups {
        let mut sorted: Vec<(&str, usize, Vec<&Row>)> = Vec::new();
        for row in rows {
            let same = |(label, threads, _): &&mut (&str, usize, Vec<&Row>)| {
                *label == row.group && *threads == row.threads
            };
            match sorted.iter_mut().find(same) {
                Some((_, _, rows)) => rows.push(row),
                None => sorted.push((&row.group, row.threads, vec![row])),
            }
        }
        Groups(sorted.into_iter().map(|(_, _, rows)| Group::of(&rows)).collect())
    }

    /// Whether the groups say more than the total.
    pub fn are_several(&self) -> bool {
        self.0.iter().any(|group| group.label != self.0[0].label)
    }
}

impl Group {
    /// Of rows of one label and number of threads, at least one.
    fn of(rows: &[&Row]) -> Group {
        let column = |field: fn(&Row) -> f64| rows.iter().map(|row| field(row)).collect::<Vec<_>>();
        let fractions = column(|row| row.frac_peak);
        let speedups: Vec<f64> = rows.iter().filter_map(|row| row.speedup).collect();
        Group {
            label: rows[0].group.clone(),
            threads: rows[0].threads,
            layers: rows.len(),
            gflops: geometric_mean(&column(|row| row.gflops)),
            frac_peak: geometric_mean(&fractions),
            lowest_frac: lowest(&fractions),
            speedup: (!speedups.is_empty()).then(|| [geometric_mean(&speedups), lowest(&speedups)]),
        }
    }

    fn cells(&self, compared: bool) -> Vec<String> {
        let percent = |fraction: f64| format!("{:.1}", fraction * 100.0);
        let mut cells = vec![self.label.clone(), self.layers.to_string()];
        if compared {
            cells.push(self.threads.to_string());
        }
        cells.push(format!("{:.1}", self.gflops));
        cells.extend([self.frac_peak, self.lowest_frac].map(percent));
        cells.extend(self.speedup.iter().flatten().map(|times| format!("{times:.2}")));
        cells
    }
}

impl fmt::Display for Groups {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let compared = self.0.iter().any(|group| group.speedup.is_some());
        let mut columns = vec!["group", "layers"];
        columns.extend(compared.then_some("threads"));
        columns.extend(["GFLOP/s", "% peak", "lowest % peak"]);
        columns.extend(compared.then_some(["speed-up", "lowest"]).iter().flatten());
        let mut table = close_table(&columns, 1..columns.len());
        for group in &self.0 {
            table.add_row(group.cells(compared));
        }
        write!(f, "{table}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_alike_have_one_label() {
        let of = |text: &str| label(&text.parse().unwrap());
        assert_eq!(of("conv2d ic8 oc9 ih7 iw5 kh3 kw3 ph1"), "3x3");
        assert_eq!(of("conv2d ic8 oc9 ih7 iw9 kh7 kw7 sh2 sw2"), "7x7 s2");
        assert_eq!(of("conv2d ic8 oc9 ih7 iw9 kh1 kw3 sh2 dw2"), "1x3 s2x1 d1x2");
        assert_eq!(of("conv2d g8 ic8 oc8 ih9 iw9 kh5 kw5 dh2 dw2"), "depthwise 5x5 d2");
        assert_eq!(of("conv3d g2 ic8 oc8 id3 ih9 iw9 kd1 kh3 kw3"), "grouped 1x3x3");
        assert_eq!(of("conv1d ic8 oc8 iw9 kw3 bwd_w"), "bwd_w k3");
        assert_eq!(of("deconv1d ic8 oc8 iw9 kw4 sw2"), "transposed k4 s2");
    }
}
