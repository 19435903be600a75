//! What a call costs besides its arithmetic: once a thread is warm, [`Kernel::run`] allocates
//! nothing. Counts allocations of the calling thread only, and never looks at a clock.

#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use convgen::{Compiler, Host, Isa, Kernel};

/// The system's allocator, counting how often each thread asks for memory.
struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

thread_local! {
    /// Constant and without a destructor, so that counting needs no memory itself.
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: every method hands its arguments to `System`, which keeps the contract of `GlobalAlloc`;
// counting neither allocates nor unwinds.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promises are those of the same method of `System`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: as in `alloc`.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: as in `alloc`; the pointer came from `System`, like all that this type hands out.
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as in `realloc`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

fn count() {
    ALLOCATIONS.set(ALLOCATIONS.get() + 1);
}

/// The allocations of this thread during `f`.
fn allocations(f: impl FnOnce()) -> usize {
    let before = ALLOCATIONS.get();
    f();
    ALLOCATIONS.get() - before
}

/// With and without a bias, padding, scratch, a register tile and transforms, in both layouts.
const PROBLEMS: [&str; 7] = [
    "conv1d ic1 oc1 iw4 kw1",
    "conv2d ic16 oc32 ih9 iw9 kh3 kw3 ph1 pw1 bias | relu",
    "conv2d nchw ic3 oc20 ih11 iw13 kh3 kw3 sh2 sw2 ph1 pw1 bias",
    "conv2d nchw ic32 oc32 ih7 iw7 kh1 kw1",
    "conv2d g24 ic24 oc24 ih10 iw10 kh3 kw3 ph1 pw1 | relu6",
    "conv3d ic4 oc8 id3 ih5 iw5 kd2 kh3 kw3",
    // Fourier transforms, by default.
    "conv1d ic1 oc1 iw32768 kw2048",
];

/// Large enough to have several tasks.
const BATCH: usize = 2;

#[test]
fn the_counter_counts() {
    assert_eq!(allocations(|| drop(Vec::<u8>::with_capacity(100))), 1);
    assert_eq!(allocations(|| drop(Vec::<u8>::new())), 0);
}

#[test]
fn a_warm_call_allocates_nothing() {
    let host = Host::detect();
    for isa in Isa::ALL {
        let Ok(compiler) = Compiler::new(&host, isa) else { continue };
        for text in PROBLEMS {
            let kernel = compiler.compile(&text.parse().expect("legal")).expect("compiles");
            let [first, second] = calls(&kernel);
            assert_eq!(second, 0, "`{text}` on {isa}, after {first} in the first call");
        }
    }
}

/// The allocations of two calls, one after the other.
fn calls(kernel: &Kernel) -> [usize; 2] {
    let problem = kernel.problem();
    let values = |shape: Vec<u64>| vec![0.5_f32; shape.iter().product::<u64>() as usize];
    let weights = kernel.pack_weights(&values(problem.weights_shape())).expect("fits");
    let input = values(problem.input_shape(BATCH as u64));
    let bias = problem.bias().then(|| values(vec![problem.out_channels()]));
    let mut output = values(problem.output_shape(BATCH as u64));
    [(); 2].map(|()| {
        allocations(|| kernel.run(&input, &weights, bias.as_deref(), &mut output).expect("fits"))
    })
}
