//! What padding made of the input costs against zeros: one layer in every mode, the modes in turns.
//!
//! `cargo bench --bench padding` prints the ratios of the shortest calls; criterion then shows each
//! alone.

#[path = "common/calls.rs"]
mod calls;
#[path = "common/settings.rs"]
mod settings;

use convgen::ir::{ConvProblem, PaddingMode};
use convgen::{Accuracy, Compiler, Host, Isa, timing};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

use calls::call;

/// Copied rows are few beside its products, as in most layers that have padding.
const LAYER: &str = "conv2d ic64 oc64 ih56 iw56 kh3 kw3 ph1 pw1";

/// Seconds for the shortest call of each mode, in that many turns.
const SECONDS: f64 = 0.5;
const ROUNDS: usize = 20;

fn padding(criterion: &mut Criterion) {
    let host = Host::detect();
    for isa in Isa::ALL {
        for accuracy in [Accuracy::Strict, Accuracy::Default] {
            match Compiler::new(&host, isa) {
                Ok(compiler) => measure(criterion, &compiler.with_accuracy(accuracy)),
                Err(error) => println!("{isa} is skipped: {error}"),
            }
        }
    }
}

fn measure(criterion: &mut Criterion, compiler: &Compiler) {
    let layer: ConvProblem = LAYER.parse().expect("a problem");
    let kernels = PaddingMode::ALL.map(|mode| {
        let problem = ConvProblem::new(layer.to_spec().padding_mode(mode)).expect("little padding");
        compiler.compile(&problem).expect("every problem compiles")
    });
    let mut calls: Vec<Box<dyn FnMut()>> = kernels.iter().map(call).collect();
    let mut turns: Vec<&mut dyn FnMut()> = calls.iter_mut().map(|call| &mut **call as _).collect();
    let best = timing::interleaved(SECONDS, ROUNDS, &mut turns);
    for (mode, timing) in PaddingMode::ALL.into_iter().zip(&best) {
        let (gflops, ratio) = (layer.flops() as f64 / timing.min / 1e9, timing.min / best[0].min);
        let name = kernels[0].name();
        println!("{name}: {mode}: {gflops:.1} GFLOP/s, {ratio:.3} times as long as zeros");
    }
    let mut group = criterion.benchmark_group(format!("padding {}", kernels[0].name()));
    group.throughput(Throughput::Elements(layer.flops()));
    for (mode, call) in PaddingMode::ALL.into_iter().zip(&mut calls) {
        group.bench_function(BenchmarkId::from_parameter(mode), |b| b.iter(&mut *call));
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = settings::brief();
    targets = padding
}
criterion_main!(benches);
