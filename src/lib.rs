//! A compiler for convolutions: a problem and a schedule, as text or as data, become a kernel that
//! is held bit for bit against an interpreter.
//!
//! Promises: every legal problem compiles on every supported host; a kernel has the bits of the
//! interpreter of its nest, for any batch and any number of threads; no text and no slice makes a
//! kernel touch memory that is not its own. Does not: run the models of other frameworks,
//! or keep threads.
//!
//! # The pipeline
//!
//! ```text
//! ir::ConvProblem     what is computed
//!     |               algorithm    Algorithm::parts
//! ir::nest::Nest      plain: every loop serial, one sum in one register
//!     |               scheduler    default_schedule, or a Schedule of the caller's
//!     |               transform    apply: one directive after the other, or a Refusal
//! ir::nest::Nest      scheduled
//!     |               lower        the passes, then the verifier
//! ir::VerifiedNest    in bounds by proof; the interpreter runs it too
//!     |               codegen      Cranelift; AVX2 and AVX-512 for register tiles
//! jit::Code           machine code in memory of its own
//!     |               runtime      packed weights, the call, threads
//! Kernel
//! ```
//! [`Compiler`] carries out all of it, or any stage alone. [`ir`] depends on nothing here, and only
//! [`jit`] has unsafe code. With the feature `object`, the module `object` writes the same code to
//! an object file, for this machine or another. [`Target`] is what the stages may know of a machine,
//! and [`Host`] the proof that this one is like that. [`mod@check`] holds a kernel against its
//! oracles.
//!
//! # Floors
//! A module imports from the floors below its own and from nowhere else:
//! ```text
//! streaming cache tune
//! check
//! compiler
//! runtime machine
//! scheduler
//! stages fourier
//! jit object
//! link record
//! codegen
//! error
//! algorithm transform lower fusion
//! cost vir pages held
//! target
//! accuracy exact timing
//! ```
//!
//! # Example
//!
//! ```
//! use convgen::Compiler;
//! use convgen::ir::ConvProblem;
//!
//! // Differences of neighbours, in two signals.
//! let problem: ConvProblem = "conv1d ic1 oc1 iw4 kw2".parse()?;
//! let kernel = Compiler::host()?.compile(&problem)?;
//! let weights = kernel.pack_weights(&[-1.0, 1.0])?;
//! let mut output = [0.0; 6];
//! kernel.run(&[1.0, 4.0, 9.0, 16.0, 0.0, 0.0, 5.0, 0.0], &weights, None, &mut output)?;
//! assert_eq!(output, [3.0, 5.0, 7.0, 0.0, 5.0, -5.0]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! A kernel may be shared and called by any number of threads: [`Kernel::run`] uses the calling
//! one, [`Kernel::run_parallel`] rayon's, and [`Kernel::prepare`] leaves the tasks of a call to the
//! caller. A [`Compiler`] may choose another arithmetic than the sum's where that is faster and its
//! error bound is inside a stated budget, unless [`Accuracy::Strict`] is asked for;
//! [`mod@accuracy`] says what errors and bits depend on. The schedule of a problem is the default
//! one, or the one of a tuning [`record`] made on this machine: [`Compiler::pick`] says which.
//! [`KernelCache`](cache::KernelCache) bounds the memory of many kernels. The crate `convgen-onnx`
//! lists the problems of a model; `convgen-nn` has layers that learn. The grammar of problems,
//! nests and schedules and the meaning of each operation are on the first page of [`ir`].

#![deny(unsafe_code)]

pub mod accuracy;
pub mod algorithm;
pub mod cache;
pub mod check;
pub mod codegen;
pub mod compiler;
pub mod cost;
pub mod error;
mod exact;
pub mod fourier;
pub mod fusion;
mod held;
pub mod jit;
mod link;
pub mod lower;
pub mod machine;
#[cfg(feature = "object")]
pub mod object;
mod pages;
pub mod record;
pub mod runtime;
pub mod scheduler;
mod stages;
pub mod streaming;
pub mod target;
pub mod timing;
pub mod transform;
pub mod tune;
mod vir;

pub use accuracy::Accuracy;
pub use compiler::{Compiler, Origin, Pick};
pub use convgen_ir as ir;
pub use error::{Error, RunError};
pub use runtime::aligned::Aligned;
pub use runtime::separable::{SeparableArguments, SeparableKernel};
pub use runtime::{Arguments, Kernel, NestKernel, PackedWeights};
pub use target::{Host, Isa, Target};

#[doc = include_str!("../README.md")]
#[cfg(doctest)]
struct Readme;

/// The chapters of the book that have code.
#[cfg(doctest)]
mod book {
    #[doc = include_str!("../docs/src/accuracies.md")]
    struct Accuracies;
    #[doc = include_str!("../docs/src/compile.md")]
    struct Compile;
    #[doc = include_str!("../docs/src/gradients.md")]
    struct Gradients;
    #[doc = include_str!("../docs/src/memory.md")]
    struct Memory;
    #[doc = include_str!("../docs/src/objects.md")]
    struct Objects;
    #[doc = include_str!("../docs/src/problems.md")]
    struct Problems;
    #[doc = include_str!("../docs/src/schedules.md")]
    struct Schedules;
    #[doc = include_str!("../docs/src/separable.md")]
    struct Separable;
    #[doc = include_str!("../docs/src/shapes.md")]
    struct Shapes;
    #[doc = include_str!("../docs/src/streams.md")]
    struct Streams;
    #[doc = include_str!("../docs/src/threads.md")]
    struct Threads;
    #[doc = include_str!("../docs/src/toeplitz.md")]
    struct Toeplitz;
    #[doc = include_str!("../docs/src/transforms.md")]
    struct Transforms;
    #[doc = include_str!("../docs/src/tuning.md")]
    struct Tuning;
    #[doc = include_str!("../docs/src/verifying.md")]
    struct Verifying;
}
