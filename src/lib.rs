//! A compiler for convolutions: a problem and a schedule, as text or as data, become a kernel that
//! is held bit for bit against an interpreter.
//!
//! Promises: every legal problem compiles on every supported host; a kernel has the bits of the
//! interpreter of its nest, for any batch and any number of threads; no text and no slice makes a
//! kernel touch memory that is not its own. Does not: run the models of other frameworks,
//! or keep threads.
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
//! # What you want to do
//!
//! | to | see |
//! |---|---|
//! | describe a convolution | [`ir::ConvProblem`], from text or from an [`ir::ConvSpec`]; the grammar is on the first page of [`ir`] |
//! | compile and call it | [`Compiler`], [`Kernel`], [`Arguments`] for residuals and scales, [`PackedWeights`], [`Aligned`] memory |
//! | use several threads | [`Kernel::run_parallel`] on rayon's; [`Kernel::prepare`] leaves the [`Tasks`] of a [`Call`] to threads of yours |
//! | keep kernels for many shapes | [`cache::KernelCache`], within bytes that you set |
//! | choose how exact it shall be | [`Accuracy`]; [`mod@accuracy`] says what errors and bits depend on |
//! | write a schedule yourself | [`Compiler::compile_with`], [`ir::schedule::Schedule`], [`scheduler::default_schedule`] to begin with |
//! | find a faster schedule | [`tune`]; [`record`] keeps what was found, [`Compiler::with_database`] uses it |
//! | know what it will take, or why | [`cost`](mod@cost), [`Compiler::pick`] |
//! | hold a kernel against its oracles | [`mod@check`], [`ir::reference`], [`ir::interpret`](mod@ir::interpret) |
//! | run a depthwise and a pointwise convolution as one | [`SeparableKernel`] |
//! | filter a stream | [`streaming`] |
//! | run a nest of your own | [`Compiler::compile_nest`], [`NestKernel`] |
//! | make an object file, for this machine or another | the module `object`, with the feature `object` |
//!
//! The crate `convgen-onnx` lists the problems of a model; `convgen-nn` has layers that learn.
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
//!     |               lower        outline: what becomes micro-kernels
//!     |               codegen      Cranelift; AVX2 and AVX-512 for micro-kernels, by the vector IR
//! machine code        in memory of its own
//!     |               runtime      packed weights, the call, threads
//! Kernel
//! ```
//! [`Compiler`] carries out all of it, or any stage alone. [`ir`] depends on nothing here, and one
//! module alone has unsafe code, with its obligations numbered. [`Target`] is what the stages may
//! know of a machine, and [`Host`] the proof that this one is like that.
//!
//! # Floors
//! A module imports from the floors below its own and from nowhere else:
//! ```text
//! streaming cache tune
//! check
//! compiler
//! runtime machine
//! scheduler
//! stages
//! fourier
//! jit object
//! link record
//! codegen
//! error
//! algorithm transform lower fusion
//! cost vir pages held eviction
//! target
//! accuracy calibration exact timing
//! ```
//!

#![deny(unsafe_code)]

pub mod accuracy;
pub mod algorithm;
pub mod cache;
pub mod calibration;
pub mod check;
#[doc(hidden)]
pub mod codegen;
pub mod compiler;
pub mod cost;
pub mod error;
#[doc(hidden)]
pub mod eviction;
mod exact;
pub mod fourier;
#[doc(hidden)]
pub mod fusion;
mod held;
mod jit;
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
#[doc(hidden)]
pub mod timing;
pub mod transform;
pub mod tune;
mod vir;

pub use accuracy::Accuracy;
pub use compiler::{Compiler, Origin, Pick};
pub use convgen_ir as ir;
pub use error::{Error, RunError};
pub use jit::{Call, Scratch, Tasks};
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
