//! How long compiling takes, stage by stage, for the widest instruction set of this host, without
//! a cache of kernels or tuning records.
//!
//! `cargo bench --bench compile`, or `LAYERS=list.txt cargo bench --bench compile` for the
//! descriptors of a file. First come tables: of each stage the median, the 95th percentile and the
//! slowest over the layers. Layers take turns, so that each is compiled after others, as in a
//! program that compiles a network; a layer's time is the shortest of the rounds: what else the
//! machine does only adds. Criterion then measures each stage over all layers together; its
//! elements are layers.

#[path = "common/listed.rs"]
mod listed;
#[path = "common/settings.rs"]
mod settings;

use std::sync::Arc;

use convgen::algorithm::Algorithm;
use convgen::ir::nest::Nest;
use convgen::ir::problem::Descriptor;
use convgen::ir::verify::VerifiedNest;
use convgen::record::Database;
use convgen::{Compiler, Host, Pick, lower, timing};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

/// Times that each layer passes each stage.
const ROUNDS: usize = 15;

/// The slowest layers that are named.
const NAMED: usize = 5;

/// A layer with the results of every stage, so that each can be run alone.
struct Layer {
    descriptor: Descriptor,
    pick: Pick,
    /// None for Fourier transforms, whose stages are lowered as they are written.
    scheduled: Vec<Nest>,
    verified: Vec<VerifiedNest>,
}

/// One stage: its name, and how to run it on a layer.
struct Stage {
    name: &'static str,
    run: fn(&Compiler, &Layer),
}

/// The stages in order; the last is all of them.
const STAGES: [Stage; 6] = [
    Stage { name: "pick", run: |compiler, layer| drop(compiler.pick(&layer.descriptor.problem)) },
    Stage { name: "nest and transform", run: |compiler, layer| drop(layer.schedule(compiler)) },
    Stage {
        name: "lower, verify, outline",
        run: |compiler, layer| {
            let target = compiler.target();
            for nest in layer.scheduled.iter().cloned() {
                drop(lower::lower(nest, &target.limits()).map(|nest| lower::outline(nest, target)));
            }
        },
    },
    Stage {
        name: "emit",
        run: |compiler, layer| layer.verified.iter().for_each(|nest| drop(compiler.emit(nest))),
    },
    Stage {
        name: "emit, compile, link",
        run: |compiler, layer| drop(compiler.code(layer.verified.clone())),
    },
    Stage {
        name: "problem to kernel",
        run: |compiler, layer| drop(compiler.compile(&layer.descriptor.problem)),
    },
];

fn stages(criterion: &mut Criterion) {
    let host = Host::detect();
    let compiler = Compiler::new(&host, host.widest_isa()).expect("a host Cranelift knows");
    let compiler = compiler.with_database(Arc::new(Database::new()));
    let descriptors = listed::descriptors().into_iter();
    let layers: Vec<Layer> = descriptors.map(|layer| Layer::new(layer, &compiler)).collect();
    print_tables(&compiler, &layers);
    let mut group = criterion.benchmark_group("compile");
    group.throughput(Throughput::Elements(layers.len() as u64));
    for stage in &STAGES {
        group.bench_function(stage.name, |b| {
            b.iter(|| layers.iter().for_each(|layer| (stage.run)(&compiler, layer)));
        });
    }
    group.finish();
}

impl Layer {
    fn new(descriptor: Descriptor, compiler: &Compiler) -> Layer {
        let pick = compiler.pick(&descriptor.problem);
        let layer = Layer { descriptor, pick, scheduled: vec![], verified: vec![] };
        let scheduled = layer.schedule(compiler);
        let verified = layer.verify(compiler);
        Layer { scheduled, verified, ..layer }
    }

    fn schedule(&self, compiler: &Compiler) -> Vec<Nest> {
        let Pick { algorithm, schedule, .. } = &self.pick;
        let (target, problem) = (compiler.target(), &self.descriptor.problem);
        match algorithm {
            Algorithm::Direct | Algorithm::Winograd => {
                Compiler::schedule_for(target, problem, *algorithm, schedule)
                    .expect("a legal schedule")
            }
            Algorithm::Fourier => vec![],
        }
    }

    fn verify(&self, compiler: &Compiler) -> Vec<VerifiedNest> {
        let Pick { algorithm, schedule, .. } = &self.pick;
        let problem = &self.descriptor.problem;
        match algorithm {
            Algorithm::Direct | Algorithm::Winograd => {
                compiler.lower(problem, *algorithm, schedule).expect("legal nests")
            }
            Algorithm::Fourier => {
                compiler.stages(problem, schedule).expect("legal stages").1.to_vec()
            }
        }
    }

    fn name(&self) -> String {
        self.descriptor.name.clone().unwrap_or_else(|| self.descriptor.problem.to_string())
    }
}

fn print_tables(compiler: &Compiler, layers: &[Layer]) {
    println!("{}: milliseconds over {} layers", compiler.target(), layers.len());
    println!("{:>20} {:>8} {:>8} {:>8}", "", "median", "95 %", "slowest");
    let seconds: Vec<Vec<f64>> =
        STAGES.iter().map(|stage| stage.seconds(compiler, layers)).collect();
    for (stage, seconds) in STAGES.iter().zip(&seconds) {
        print_row(stage.name, seconds);
    }
    let mut named: Vec<(f64, &Layer)> =
        seconds.into_iter().next_back().unwrap_or_default().into_iter().zip(layers).collect();
    named.sort_by(|a, b| b.0.total_cmp(&a.0));
    for (seconds, layer) in named.iter().take(NAMED) {
        println!("{:8.3} {} {}", seconds * 1e3, layer.pick.algorithm, layer.name());
    }
    print_micro_kernels(compiler, layers);
}

impl Stage {
    /// Of each layer the shortest of the rounds.
    fn seconds(&self, compiler: &Compiler, layers: &[Layer]) -> Vec<f64> {
        let mut shortest = vec![f64::INFINITY; layers.len()];
        for _ in 0..ROUNDS {
            for (layer, shortest) in layers.iter().zip(&mut shortest) {
                *shortest = timing::once(|| (self.run)(compiler, layer)).1.min(*shortest);
            }
        }
        shortest
    }
}

/// The emitter's time and output by the micro-kernel: the time includes the code around it.
fn print_micro_kernels(compiler: &Compiler, layers: &[Layer]) {
    let sizes = |layer: &Layer| -> Vec<usize> {
        let emitted = layer.verified.iter().flat_map(|nest| compiler.emit(nest));
        emitted.flat_map(|(_, e)| e.micro_kernels).map(|kernel| kernel.code.len()).collect()
    };
    let [.., emit, _, _] = &STAGES;
    let seconds = emit.seconds(compiler, layers).into_iter();
    let each: Vec<(f64, usize)> = seconds
        .zip(layers.iter().map(sizes))
        .flat_map(|(time, sizes)| {
            let share = time / sizes.len() as f64;
            sizes.into_iter().map(move |size| (share, size))
        })
        .collect();
    if each.is_empty() {
        return;
    }
    let times: Vec<f64> = each.iter().map(|(time, _)| *time).collect();
    let bytes = each.iter().map(|(_, size)| size).sum::<usize>() / each.len();
    print_row("a micro-kernel", &times);
    println!("{} micro-kernels of {bytes} bytes in the mean", each.len());
}

fn print_row(name: &str, seconds: &[f64]) {
    let [median, most, slowest] = [0.5, 0.95, 1.0].map(|part| quantile(seconds, part) * 1e3);
    println!("{name:>20} {median:8.3} {most:8.3} {slowest:8.3}");
}

/// The value that so large a part of all does not exceed.
fn quantile(values: &[f64], part: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = (part * sorted.len() as f64).ceil() as usize;
    sorted.get(at.saturating_sub(1)).copied().unwrap_or_default()
}

criterion_group! {
    name = benches;
    config = settings::brief();
    targets = stages
}
criterion_main!(benches);
