//! Kernels come and go: their memory is given back, threads share them, a cache bounds them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::{fs, thread};

use convgen::cache::KernelCache;
use convgen::{Compiler, Host, Isa, Kernel, PackedWeights, check};
use convgen_ir::problem::ConvProblem;

/// Kernels compiled by then have warmed up whatever is kept on purpose.
const WARM: usize = 2_000;

/// Kernels compiled in all.
const KERNELS: usize = 10_000;

/// Growth from [`WARM`] to [`KERNELS`] that is noise of the allocator: a page for each kernel would
/// be four times as much.
const NOISE: usize = 8 << 20;

/// Threads that share.
const THREADS: usize = 8;

const fn is_shared<T: Send + Sync>() {}

// The promise of the documentation, to the compiler.
const _: () = {
    is_shared::<Kernel>();
    is_shared::<PackedWeights>();
    is_shared::<Compiler>();
    is_shared::<KernelCache>();
};

/// One for each instruction set of this host, the plainest first.
fn compilers() -> Vec<Compiler> {
    let host = Host::detect();
    Isa::ALL.into_iter().filter_map(|isa| Compiler::new(&host, isa).ok()).collect()
}

fn compiler() -> Compiler {
    compilers().pop().expect("a host Cranelift knows")
}

fn problem(text: &str) -> ConvProblem {
    text.parse().expect("legal")
}

/// Bytes of memory this process occupies, where the system says so.
fn resident() -> Option<usize> {
    let text = fs::read_to_string("/proc/self/statm").ok()?;
    let pages: usize = text.split_whitespace().nth(1)?.parse().ok()?;
    Some(pages * 4096)
}

/// Compiles and drops kernels on two threads until the counter says stop.
fn churn(compilers: &[Compiler], done: &AtomicUsize, until: usize) {
    let problems =
        [problem("conv1d ic1 oc1 iw4 kw1"), problem("conv1d ic2 oc4 iw3 kw2 bias | relu")];
    thread::scope(|scope| {
        for problem in &problems {
            scope.spawn(move || {
                loop {
                    let number = done.fetch_add(1, Ordering::Relaxed);
                    if number >= until {
                        break;
                    }
                    let compiler = &compilers[number % compilers.len()];
                    let kernel = compiler.compile(problem).expect("compiles");
                    assert!(kernel.code_bytes() > 0);
                }
                done.fetch_sub(1, Ordering::Relaxed);
            });
        }
    });
}

#[test]
fn dropped_kernels_give_their_memory_back() {
    let compilers = compilers();
    let done = AtomicUsize::new(0);
    churn(&compilers, &done, WARM);
    let Some(before) = resident() else {
        return println!("skipped: no /proc/self/statm");
    };
    churn(&compilers, &done, KERNELS);
    let after = resident().expect("it was there before");
    println!("resident {before} bytes after {WARM} kernels, {after} after {KERNELS}");
    assert!(after < before + NOISE, "{before} bytes grew to {after}");
}

#[test]
fn a_kernel_outlives_its_compiler() {
    let kernel = compiler().compile(&problem("conv1d ic3 oc5 iw9 kw3 pw1")).expect("compiles");
    check::check(&kernel).expect("right");
}

/// The values of an output that a shared kernel must give to every thread.
fn output_of(kernel: &Kernel, seed: usize) -> Vec<f32> {
    let problem = kernel.problem();
    let count = |shape: Vec<u64>| shape.iter().product::<u64>() as usize;
    let values =
        |length| (0..length).map(|i| ((i * 7 + seed) % 11) as f32 / 8.0).collect::<Vec<_>>();
    let weights = kernel.pack_weights(&values(count(problem.weights_shape()))).expect("fits");
    let mut output = vec![f32::NAN; count(problem.output_shape(2))];
    let input = values(count(problem.input_shape(2)));
    kernel.run(&input, &weights, None, &mut output).expect("fits");
    output
}

const SHARED: [&str; 3] = [
    "conv2d ic4 oc8 ih9 iw9 kh3 kw3 ph1 pw1",
    "conv2d nchw ic3 oc5 ih7 iw8 kh2 kw3",
    "conv1d g8 ic8 oc8 iw30 kw5 pw2",
];

#[test]
fn threads_share_a_kernel() {
    for text in SHARED {
        let kernel = compiler().compile(&problem(text)).expect("compiles");
        let expected: Vec<Vec<f32>> = (0..THREADS).map(|seed| output_of(&kernel, seed)).collect();
        thread::scope(|scope| {
            for (seed, expected) in expected.iter().enumerate() {
                let kernel = &kernel;
                scope.spawn(move || {
                    for _ in 0..50 {
                        assert_eq!(&output_of(kernel, seed), expected);
                    }
                });
            }
        });
    }
}

#[test]
fn threads_share_a_cache() {
    let alone = SHARED.map(|text| compiler().compile(&problem(text)).expect("compiles"));
    let alone: Vec<Vec<f32>> = alone.iter().map(|kernel| output_of(kernel, 1)).collect();
    // Room for one kernel only, and for all: dropped while others still run it, and kept.
    for limit in [1, 64 << 20] {
        let cache = KernelCache::new(compiler(), limit);
        thread::scope(|scope| {
            for first in 0..THREADS {
                let (cache, alone) = (&cache, &alone);
                scope.spawn(move || {
                    for i in 0..30 {
                        let which = (first + i) % SHARED.len();
                        let batch = problem(SHARED[which]).with_batch(1 + i as u64 % 3);
                        let kernel = cache.get(&batch.expect("legal")).expect("compiles");
                        assert_eq!(output_of(&kernel, 1), alone[which]);
                    }
                });
            }
        });
        assert_eq!(cache.len(), if limit == 1 { 1 } else { SHARED.len() });
    }
}

#[test]
fn a_cache_is_bounded_and_drops_what_was_not_used_longest() {
    let sizes: Vec<ConvProblem> =
        (1..=12).map(|width| problem(&format!("conv1d ic1 oc1 iw{width} kw1"))).collect();
    let whole = KernelCache::new(compiler(), usize::MAX);
    assert!(whole.is_empty());
    let bytes: Vec<usize> = sizes
        .iter()
        .map(|problem| {
            let before = whole.bytes();
            whole.get(problem).expect("compiles");
            whole.bytes() - before
        })
        .collect();
    assert_eq!(whole.len(), sizes.len());
    let largest = bytes.iter().max().expect("twelve");

    let limit = 4 * largest;
    let cache = KernelCache::new(compiler(), limit);
    let kept = cache.get(&sizes[0]).expect("compiles");
    for problem in &sizes {
        cache.get(problem).expect("compiles");
        assert!(cache.bytes() <= limit, "{} bytes, {limit} are allowed", cache.bytes());
        assert!(cache.len() <= limit / bytes.iter().min().expect("twelve"));
        // Used at every step, so never the one to go.
        assert!(Arc::ptr_eq(&kept, &cache.get(&sizes[0]).expect("cached")));
    }
    assert!(cache.len() >= 4);
    let latest = cache.get(&sizes[11]).expect("cached");
    assert!(Arc::ptr_eq(&latest, &cache.get(&sizes[11]).expect("cached")));
    // The second was used longest ago: it is compiled anew, and yet `kept` stays.
    let (before, second) = (cache.len(), cache.get(&sizes[1]).expect("compiles"));
    assert!(cache.len() <= before && Arc::strong_count(&second) == 2);
    assert!(Arc::ptr_eq(&kept, &cache.get(&sizes[0]).expect("cached")));
}

#[test]
fn a_cache_shares_kernels_among_batches_and_survives_refusals() {
    let cache = KernelCache::new(compiler(), 1 << 20);
    let one = cache.get(&problem("conv1d ic1 oc1 iw4 kw1")).expect("compiles");
    let many = cache.get(&problem("conv1d n7 ic1 oc1 iw4 kw1")).expect("compiles");
    let none = cache.get(&problem("conv1d n0 ic1 oc1 iw4 kw1")).expect("compiles");
    assert!(Arc::ptr_eq(&one, &many) && Arc::ptr_eq(&one, &none));
    assert_eq!(cache.len(), 1);
    let other = cache.get(&problem("conv1d ic1 oc1 iw4 kw1 bias")).expect("compiles");
    assert!(!Arc::ptr_eq(&one, &other));
}
