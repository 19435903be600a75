//! `convgen suites`: the lists of problems built in.

use std::io::Write;

use crate::suite;
use clap::Args;

use super::failure::Verdict;
use super::output::table;

/// The arguments of `convgen suites`.
#[derive(Args)]
#[command(after_help = "Example: convgen suites; convgen bench --suite lenet")]
pub struct SuitesArgs {}

/// Prints the suites, the number of their problems and the work in them.
pub fn suites(_args: &SuitesArgs, out: &mut impl Write) -> anyhow::Result<Verdict> {
    let mut table = table(&["suite", "problems", "GFLOP", "what"], 1..3);
    for suite in suite::ALL {
        let descriptors = suite.descriptors()?;
        let flops: u64 = descriptors.iter().map(|descriptor| descriptor.problem.flops()).sum();
        table.add_row(vec![
            suite.name().to_owned(),
            descriptors.len().to_string(),
            format!("{:.2}", flops as f64 / 1e9),
            suite.title().to_owned(),
        ]);
    }
    writeln!(out, "{table}")?;
    Ok(Verdict::Good)
}
