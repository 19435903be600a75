//! What cores and emitted code take besides the rates of a profile: cycles, micro-operations and
//! parts, the same for every core.
//!
//! Each was fitted to the times of kernels, those of micro-kernels with AVX2 and AVX-512. As a
//! whole they were checked on one core of a Xeon (Emerald Rapids, family 6, model 207) on
//! 2026-11-30, over the layers of the peers' table that two algorithms compute, at that core's
//! profile: predicted over measured time 0.91 in geometric mean for sums, 0.79 for tiles, 0.40 for
//! Fourier transforms (the machine was not quiet, which makes all of them smaller); what is
//! predicted to be the fastest of the three algorithms was within 2 % of it for 84 of 86.

// Micro-kernels.

/// Micro-operations of an iteration of a loop of a micro-kernel: its counter, and its pointers,
/// which are in registers. They run beside the vectors.
pub(crate) const KERNEL_ITERATION: f64 = 4.0;

/// Cycles of its jump back, which ends what is fetched at once. On 1x1 layers loops of four
/// channels an iteration take 2 to 10 % less time than loops of one.
pub(crate) const KERNEL_JUMP: f64 = 0.5;

/// Cycles of entering a loop of a micro-kernel: pointers are set, and the sums of what was before
/// it end.
pub(crate) const KERNEL_LOOP_ENTRY: f64 = 4.0;

/// The same by the closed form, which overlaps the ends of one tile with the start of the next.
pub(crate) const TILE_ENTRY: f64 = 2.0;

/// Cycles of calling a micro-kernel: arguments, saved registers, and the start of its pipeline.
pub(crate) const KERNEL_CALL: f64 = 30.0;

/// Loads that one is which crosses two lines.
pub(crate) const CROSSING_LOADS: f64 = 2.0;

/// Loads that a mask is, where no register of its own holds it.
pub(crate) const MASKED_LOADS: f64 = 2.0;

/// Micro-operations to put an element into its lane.
pub(crate) const INSERT: f64 = 2.0;

/// Shuffles for each vector of four that are transposed.
pub(crate) const SHUFFLES: f64 = 2.0;

/// Multiply-adds that take as long as making a vector of every second element of two. With AVX-512
/// that is a permutation on a port of multiply-adds; with AVX2 one of two permutations is.
pub(crate) const DEINTERLEAVING: f64 = 1.0;

// The core.

/// Micro-operations that a core starts in a cycle.
pub(crate) const ISSUE_WIDTH: f64 = 4.0;

/// Micro-operations that a core holds at once.
pub(crate) const WINDOW: f64 = 384.0;

/// Micro-operations of one iteration that a core holds decoded; it starts half as many of others,
/// and code beyond the first-level cache half as many again.
pub(crate) const DECODED: f64 = 4096.0;

/// By how much slower a core starts micro-operations that it does not hold decoded.
pub(crate) const UNDECODED: f64 = 3.0;

/// Iterations after which the end of a loop is not predicted.
pub(crate) const PREDICTED_TRIPS: f64 = 48.0;

/// Cycles of a jump that is not predicted.
pub(crate) const MISPREDICTION: f64 = 16.0;

// Memory.

/// The part of a cache that a working set can count on: the rest is lost to other data and to sets
/// that fill before others.
pub(crate) const USABLE_CACHE: f64 = 0.8;

/// The part of the shorter of computing and fetching that the longer does not hide.
pub const EXPOSED: f64 = 0.35;

/// Pages that a core keeps mapped for loads without a walk.
pub(crate) const MAPPED_PAGES: f64 = 64.0;

/// Cycles of finding another page.
pub(crate) const PAGE_WALK: f64 = 7.0;

// Code around micro-kernels, and Cranelift's own.

/// Cycles of an iteration of a loop that is not unrolled: its counter and its pointers.
pub(crate) const LOOP_ITERATION: f64 = 1.0;

/// Cycles of entering and leaving such a loop: its pointers.
pub(crate) const LOOP_ENTRY: f64 = 4.0;

/// Micro-operations of asking whether a vector or an element is padding, or of bringing its index
/// inside, each dimension.
pub(crate) const PADDING_TEST: f64 = 3.0;

/// Cycles of an element that is copied by itself, to its place in the same order.
pub(crate) const COPIED_ELEMENT: f64 = 1.5;

/// Cycles of an element that is copied by itself, to its place in another order.
pub(crate) const TRANSPOSED_ELEMENT: f64 = 5.0;

/// Vector registers that Cranelift keeps sums in; beyond these they live on the stack.
pub(crate) const NARROW_SUMS: f64 = 8.0;

/// Cycles by which a sum on the stack waits longer than one in a register.
pub(crate) const STORED: f64 = 5.0;

// Transforms.

/// The part of the peak rate of multiply-adds that the products reach.
pub(crate) const TILE_PRODUCTS_RATE: f64 = 0.92;

/// Cycles of a vector operation of the transforms, loads, stores and loops included.
pub(crate) const TILE_TRANSFORM: f64 = 0.9;

/// Cycles of an element that is read or written by itself: where neither channels nor columns are
/// neighbours. A causal sum over 64 channels of 1024 positions, dilated by 8, takes 110 for each
/// vector of 16.
pub(crate) const APART_ELEMENT: f64 = 7.0;

/// Floating-point operations of long transforms that a core does in a cycle, the copies around them
/// included: measured for tiles of 1,536 to 65,536 points, with AVX2.
pub(crate) const FOURIER_FLOPS: f64 = 7.0;

/// Cycles that a transform of any length takes besides: measured with tiles of 6 rows of 8 points,
/// which it makes ten times as expensive as their operations.
pub(crate) const FOURIER_CALL: f64 = 60.0;

/// Cycles for each output of the last stage, which is loads and stores.
pub(crate) const FOURIER_FINISH: f64 = 1.0;
