//! `convgen explain`: what was chosen for a problem, and what it costs.

use std::io::Write;

use clap::Args;
use convgen::algorithm::Algorithm;
use convgen::{Host, Kernel, Origin};
use convgen_ir::nest::Role;
use convgen_ir::problem::ConvProblem;

use super::args::{DescriptorArg, IsaArg, LayoutArg, ScheduleArg, scheduled, thread_count};
use super::failure::Verdict;
use super::output::bytes;

const EXAMPLES: &str = "\
Examples:
  convgen explain conv2d ic64 oc64 ih56 iw56 kh3 kw3 ph1 pw1
  convgen explain 'conv2d g32 ic32 oc32 ih112 iw112 kh3 kw3 ph1 pw1 bias | relu6' --layout nchw";

/// The arguments of `convgen explain`.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct ExplainArgs {
    #[command(flatten)]
    layout: LayoutArg,
    #[command(flatten)]
    isa: IsaArg,
    /// Threads that the kernel is meant for: a tuning record is for a number of threads
    #[arg(long, value_name = "N", default_value = "1", value_parser = thread_count())]
    threads: usize,
    #[command(flatten)]
    schedule: ScheduleArg,
    #[command(flatten)]
    descriptor: DescriptorArg,
}

/// Prints the choice, its costs, and what was ruled out.
pub fn explain(args: &ExplainArgs, out: &mut impl Write) -> anyhow::Result<Verdict> {
    let descriptor = args.descriptor.read()?;
    let problem = args.layout.apply(&descriptor.problem);
    let given = args.schedule.read()?;
    let compiler = args.isa.compiler(&Host::detect(), args.threads)?;
    let (algorithm, schedule) = given.plan(&problem, &compiler)?;
    let compiled = compiler.compile_with(&problem, algorithm, &schedule);
    let kernel = scheduled(compiled, &given)?;
    writeln!(out, "problem          {problem}")?;
    writeln!(out, "multiply-adds    {}", problem.macs())?;
    writeln!(out, "target           {}", compiler.target())?;
    writeln!(out, "kernel           {}", kernel.name())?;
    writeln!(out, "algorithm        {algorithm}")?;
    for tile in register_tiles(&kernel) {
        writeln!(out, "register tile    {tile}")?;
    }
    costs(&kernel, out)?;
    let origin = given.is_nothing().then(|| compiler.pick(&problem).origin);
    writeln!(out, "schedule         {}", chosen_by(origin.as_ref()))?;
    for directive in &schedule.directives {
        writeln!(out, "  {directive}")?;
    }
    writeln!(out, "other algorithms")?;
    for line in others(&problem, algorithm) {
        writeln!(out, "  {line}")?;
    }
    Ok(Verdict::Good)
}

fn costs(kernel: &Kernel, out: &mut impl Write) -> anyhow::Result<()> {
    let batch = kernel.problem().batch();
    let weights: u64 = kernel.problem().weights_shape().iter().product();
    let packed = kernel.packed_len() * size_of::<f32>();
    let plain = bytes(weights * size_of::<f32>() as u64);
    writeln!(out, "tasks            {} for a batch of {batch}", kernel.tasks(batch as usize))?;
    writeln!(out, "workspace        {} a thread", bytes(kernel.workspace_bytes() as u64))?;
    writeln!(out, "packed weights   {} (as given: {plain})", bytes(packed as u64))?;
    writeln!(out, "machine code     {}", bytes(kernel.code_bytes() as u64))?;
    Ok(())
}

/// The buffers the nest keeps in registers, as the nest declares them.
fn register_tiles(kernel: &Kernel) -> Vec<String> {
    let buffers = kernel.nests().flat_map(|nest| &nest.nest().buffers);
    let tiles = buffers.filter(|buffer| buffer.role == Role::Reg);
    let mut texts: Vec<String> = tiles
        .map(|tile| {
            let shape: Vec<String> = tile.shape.iter().map(ToString::to_string).collect();
            format!("{} {}[{}]", tile.name, tile.elem, shape.join(","))
        })
        .collect();
    // The parts of a kernel mostly have the same.
    texts.dedup();
    texts
}

/// Who chose the schedule, and for a tuning record what was measured.
fn chosen_by(origin: Option<&Origin>) -> String {
    match origin {
        None => "(given)".to_owned(),
        Some(Origin::Default) => "(default; there is no tuning record)".to_owned(),
        Some(Origin::Refused { reason }) => {
            format!("(default; the tuning record is refused: {reason})")
        }
        Some(Origin::Record(record)) => format!(
            "(tuning record of {}: {:.4} ms for a batch of {}, the default pick {:.4} ms; {} \
             candidates)",
            record.date,
            record.seconds * 1e3,
            record.batch,
            record.default_seconds * 1e3,
            record.candidates
        ),
    }
}

/// What was not chosen, and why.
fn others(problem: &ConvProblem, chosen: Algorithm) -> Vec<String> {
    let others: Vec<String> = Algorithm::ALL
        .into_iter()
        .filter(|algorithm| *algorithm != chosen)
        .map(|algorithm| match algorithm.parts(problem) {
            Ok(_) => format!("{algorithm} applies, but was not picked"),
            Err(unsupported) => unsupported.to_string(),
        })
        .collect();
    if others.is_empty() { vec!["none in this build".to_owned()] } else { others }
}
