//! What a call costs besides its multiply-adds: a tiny kernel, and a call without images.
//!
//! `cargo bench --bench call`

use convgen::{Aligned, Arguments, Compiler, Host, Kernel};
use criterion::{Criterion, criterion_group, criterion_main};

/// The layer that frameworks spend microseconds to call: 8 channels of 8 by 8, 3 by 3 taps.
const TINY: &str = "conv2d ic8 oc8 ih8 iw8 kh3 kw3 ph1 pw1";

fn calls(criterion: &mut Criterion) {
    let host = Host::detect();
    let compiler = Compiler::new(&host, host.widest_isa()).expect("a host Cranelift knows");
    let kernel = compiler.compile(&TINY.parse().expect("a problem")).expect("a kernel");
    let mut group = criterion.benchmark_group("call");
    for (name, images) in [("tiny kernel", 1), ("no image", 0)] {
        let mut call = Call::new(&kernel, images);
        group.bench_function(name, |b| b.iter(|| call.run(&kernel)));
    }
    group.finish();
}

/// The buffers of a call.
struct Call {
    input: Aligned,
    weights: convgen::PackedWeights,
    output: Aligned,
}

impl Call {
    fn new(kernel: &Kernel, images: u64) -> Call {
        let count = |shape: Vec<u64>| shape.iter().product::<u64>() as usize;
        let problem = kernel.problem();
        let weights = vec![0.5; count(problem.weights_shape())];
        Call {
            input: Aligned::filled(1.0, count(problem.input_shape(images))),
            weights: kernel.pack_weights(&weights).expect("weights that fit"),
            output: Aligned::zeros(count(problem.output_shape(images))),
        }
    }

    fn run(&mut self, kernel: &Kernel) {
        let arguments =
            Arguments { input: &self.input, weights: &self.weights, bias: None, extras: &[] };
        kernel.run_with(&arguments, &mut self.output).expect("buffers that fit");
    }
}

criterion_group!(benches, calls);
criterion_main!(benches);
