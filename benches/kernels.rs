//! How fast kernels are: some layers of networks, on one core.
//!
//! Criterion's elements are floating-point operations, so its `Gelem/s` are GFLOP/s. Before each
//! layer, its best rate is printed against the multiply-add peak, which is measured first.

#[path = "common/layers.rs"]
mod layers;
#[path = "common/settings.rs"]
mod settings;

use convgen::check::Data;
use convgen::ir::problem::Descriptor;
use convgen::{Compiler, Host, Isa, Kernel, machine, timing};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

/// One layer of each kind that behaves differently: few channels, 3x3, 1x1, strided, small maps,
/// groups, depthwise in 2-D and 1-D, 1-D, 3-D.
const LAYERS: [&str; 11] = [
    "resnet50:conv1",
    "resnet50:layer1.0.conv2",
    "resnet50:layer2.0.conv1",
    "resnet50:layer2.0.conv2",
    "resnet50:layer4.1.conv2",
    "resnext50:layer1.0.conv2",
    "mobilenet_v2:block5.expand",
    "mobilenet_v2:block8.depthwise",
    "conv1d_causal_dw:conv_tasnet.d2",
    "wav2vec2:encoder.3",
    "unet3d:enc2.b",
];

/// Seconds to measure a peak or a layer's best rate.
const SECONDS: f64 = 0.2;

/// Calls of a layer for its best rate, at least.
const MIN_CALLS: usize = 3;

fn kernels(criterion: &mut Criterion) {
    let host = Host::detect();
    for isa in Isa::ALL {
        match Compiler::new(&host, isa) {
            Ok(compiler) => measure(criterion, &host, &compiler),
            Err(error) => println!("{isa} is skipped: {error}"),
        }
    }
}

fn measure(criterion: &mut Criterion, host: &Host, compiler: &Compiler) {
    let isa = compiler.target().isa();
    let peak = machine::fma_peak(host, isa.vector_bits(), SECONDS);
    let peak = peak.expect("a host that has the instruction set has its vectors");
    println!("{isa}: the peak of one core is {peak:.1} GFLOP/s at {} bits", isa.vector_bits());
    let mut group = criterion.benchmark_group(isa.name());
    for name in LAYERS {
        let problem = layer(name).problem;
        let kernel = compiler.compile(&problem).expect("every problem compiles");
        with_call(&kernel, |call| {
            let best = timing::time(SECONDS, MIN_CALLS, &mut *call).min;
            let gflops = problem.flops() as f64 / best / 1e9;
            let percent = 100.0 * gflops / peak;
            println!("{name}: {gflops:.1} GFLOP/s, {percent:.0} % of peak, {}", kernel.name());
            group.throughput(Throughput::Elements(problem.flops()));
            group.bench_function(BenchmarkId::from_parameter(name), |b| b.iter(&mut *call));
        });
    }
    group.finish();
}

/// Gives `f` a call of the kernel with all its data.
fn with_call(kernel: &Kernel, f: impl FnOnce(&mut dyn FnMut())) {
    let data = Data::reals(kernel.problem());
    let weights = kernel.pack_weights(data.weights()).expect("weights of the kernel's own problem");
    let extras = data.extras();
    let arguments = data.arguments(&weights, &extras);
    let mut output = vec![0.0; data.output_len()];
    f(&mut || kernel.run_with(&arguments, &mut output).expect("data of the kernel's own problem"));
}

fn layer(name: &str) -> Descriptor {
    let suite = name.split(':').next().unwrap_or_default();
    let mut layers = layers::of(suite).into_iter();
    layers.find(|layer| layer.name.as_deref() == Some(name)).expect("a layer of the suite")
}

criterion_group! {
    name = benches;
    config = settings::brief();
    targets = kernels
}
criterion_main!(benches);
