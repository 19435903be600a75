//! What a cache says that its kernels hold is what the process grows by. A test of its own, since
//! it measures the whole process.

use std::fs;

use convgen::cache::KernelCache;
use convgen::{Compiler, Host, Isa};
use convgen_ir::problem::ConvProblem;

/// Bytes of memory this process occupies, where the system says so.
fn resident() -> Option<usize> {
    let text = fs::read_to_string("/proc/self/statm").ok()?;
    let pages: usize = text.split_whitespace().nth(1)?.parse().ok()?;
    Some(pages * 4096)
}

/// Problems of one kind: few nests and many, little code and much, transforms.
fn problems(kind: &str, count: u64) -> Vec<ConvProblem> {
    let text = |i: u64| match kind {
        "sums" => format!("conv2d ic16 oc{} ih14 iw14 kh3 kw3 ph1 pw1 bias | relu", 16 + i),
        "tiles" => format!("conv2d ic64 oc{} ih28 iw28 kh3 kw3 ph1 pw1", 64 + i),
        "phases" => format!("deconv1d ic4 oc{} iw5 kw9 sw50", 4 + i),
        "tiny" => format!("conv1d ic1 oc1 iw{} kw1", 4 + i),
        "transforms" => format!("conv1d ic8 oc8 iw{} kw255", 4000 + i),
        other => panic!("{other}"),
    };
    (0..count).map(|i| text(i).parse().unwrap()).collect()
}

#[test]
fn a_cache_counts_what_its_kernels_hold() {
    if resident().is_none() {
        return println!("skipped: no /proc/self/statm");
    }
    let host = Host::detect();
    let kinds = [("sums", 100), ("tiles", 24), ("phases", 24), ("tiny", 240), ("transforms", 30)];
    // Memory that was given back would be used again, and not grow.
    let mut kept = Vec::new();
    for isa in Isa::ALL {
        let Ok(compiler) = Compiler::new(&host, isa) else { continue };
        let compiler = compiler.with_database(Default::default());
        for (kind, count) in kinds {
            let cache = KernelCache::new(compiler.clone(), usize::MAX);
            // What is allocated once, and what compiling takes for a while, is there before.
            drop(compiler.compile(&problems(kind, 1)[0]).unwrap());
            let before = resident().unwrap();
            for problem in problems(kind, count) {
                cache.get(&problem).unwrap();
            }
            let grown = resident().unwrap() - before;
            let ratio = cache.bytes() as f64 / grown as f64;
            println!("{isa} {kind}: {} bytes said, {grown} grown: {ratio:.2}", cache.bytes());
            assert!((0.7..1.5).contains(&ratio), "{isa} {kind}: {} for {grown}", cache.bytes());
            kept.push(cache);
        }
    }
}
