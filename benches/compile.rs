//! How long compiling takes, stage by stage, over the layers of ResNet-50, for the
//! widest instruction set of this host.
//!
//! A table of the median and the slowest layer of each stage is printed first. Criterion then
//! measures each stage over all layers together; its elements are layers.

#[path = "common/layers.rs"]
mod layers;

use std::time::Duration;

use convgen::algorithm::Algorithm;
use convgen::ir::nest::Nest;
use convgen::ir::problem::ConvProblem;
use convgen::ir::schedule::Schedule;
use convgen::ir::verify::VerifiedNest;
use convgen::{Compiler, Host, lower, scheduler, transform, tune};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

/// Seconds to measure one stage of one layer.
const SECONDS: f64 = 2e-3;

/// Runs of one stage of one layer, at least.
const MIN_CALLS: usize = 5;

/// A layer with the results of every stage, so that each can be run alone.
struct Layer {
    problem: ConvProblem,
    algorithm: Algorithm,
    schedule: Schedule,
    nest: Nest,
    scheduled: Nest,
    verified: VerifiedNest,
}

/// One stage: its name, and how to run it on a layer.
struct Stage {
    name: &'static str,
    run: fn(&Compiler, &Layer),
}

/// The stages in order; the last is all of them.
const STAGES: [Stage; 7] = [
    Stage { name: "nest", run: |_, layer| drop(layer.algorithm.parts(&layer.problem)) },
    Stage {
        name: "pick a schedule",
        run: |compiler, layer| {
            drop(scheduler::default_schedule(&layer.problem, compiler.target()));
        },
    },
    Stage {
        name: "transform",
        run: |_, layer| drop(transform::apply(layer.nest.clone(), &layer.schedule)),
    },
    Stage {
        name: "lower and verify",
        run: |compiler, layer| {
            let limits = compiler.target().limits();
            drop(lower::lower(layer.scheduled.clone(), &limits));
        },
    },
    Stage { name: "emit clif", run: |compiler, layer| drop(compiler.emit(&layer.verified)) },
    Stage {
        name: "emit, compile, link",
        run: |compiler, layer| drop(compiler.code(vec![layer.verified.clone()])),
    },
    Stage {
        name: "problem to kernel",
        run: |compiler, layer| drop(compiler.compile(&layer.problem)),
    },
];

fn stages(criterion: &mut Criterion) {
    let host = Host::detect();
    let compiler = Compiler::new(&host, host.widest_isa()).expect("a host Cranelift knows");
    let layers = layers(&compiler);
    print_table(&compiler, &layers);
    let mut group = criterion.benchmark_group("compile");
    group.throughput(Throughput::Elements(layers.len() as u64));
    for stage in &STAGES {
        group.bench_function(stage.name, |b| {
            b.iter(|| layers.iter().for_each(|layer| (stage.run)(&compiler, layer)));
        });
    }
    group.finish();
}

fn layers(compiler: &Compiler) -> Vec<Layer> {
    let suite = layers::of("resnet50").into_iter();
    suite.map(|descriptor| Layer::new(descriptor.problem, compiler)).collect()
}

impl Layer {
    fn new(problem: ConvProblem, compiler: &Compiler) -> Layer {
        let (algorithm, schedule) = scheduler::default_schedule(&problem, compiler.target());
        let mut parts = algorithm.parts(&problem).expect("a domain of the algorithm picked");
        let nest = parts.remove(0).nest;
        let scheduled = transform::apply(nest.clone(), &schedule).expect("a legal schedule");
        let verified = lower::lower(scheduled.clone(), &compiler.target().limits());
        let verified = verified.expect("a legal nest");
        Layer { problem, algorithm, schedule, nest, scheduled, verified }
    }
}

fn print_table(compiler: &Compiler, layers: &[Layer]) {
    println!("{}: milliseconds, median and slowest of {} layers", compiler.target(), layers.len());
    for stage in &STAGES {
        let time = |layer| tune::time(SECONDS, MIN_CALLS, || (stage.run)(compiler, layer)).median;
        let mut seconds: Vec<f64> = layers.iter().map(time).collect();
        seconds.sort_by(f64::total_cmp);
        let median = seconds[seconds.len() / 2] * 1e3;
        let slowest = seconds[seconds.len() - 1] * 1e3;
        println!("{:>20} {median:8.3} {slowest:8.3}", stage.name);
    }
    print_micro_kernels(compiler, layers);
}

/// The emitter's time and output by the micro-kernel: the time includes the code around it.
fn print_micro_kernels(compiler: &Compiler, layers: &[Layer]) {
    let mut each: Vec<(f64, usize)> = Vec::new();
    for layer in layers {
        let emitted = compiler.emit(&layer.verified);
        let sizes = emitted.iter().flat_map(|(_, e)| &e.micro_kernels).map(|k| k.code.len());
        let sizes: Vec<usize> = sizes.collect();
        let time = tune::time(SECONDS, MIN_CALLS, || drop(compiler.emit(&layer.verified))).median;
        each.extend(sizes.iter().map(|size| (time / sizes.len() as f64, *size)));
    }
    if each.is_empty() {
        return;
    }
    each.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (median, slowest) = (each[each.len() / 2].0 * 1e6, each[each.len() - 1].0 * 1e6);
    let bytes = each.iter().map(|(_, size)| size).sum::<usize>() / each.len();
    println!(
        "{} micro-kernels: {median:.0} us emitted in the median, {slowest:.0} at most, {bytes} bytes",
        each.len()
    );
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .without_plots()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(100))
        .measurement_time(Duration::from_millis(300));
    targets = stages
}
criterion_main!(benches);
