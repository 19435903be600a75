//! placeholder
#![deny(unsafe_code)]
pub mod algorithm;
pub mod check;
pub mod codegen;
pub mod compiler;
pub mod error;
pub mod jit;
pub mod lower;
pub mod runtime;
pub mod scheduler;
pub mod target;
pub mod transform;

pub use compiler::Compiler;
pub use convgen_ir as ir;
pub use error::{Error, RunError};
pub use runtime::{Arguments, Kernel, PackedWeights};
pub use target::{Host, Isa, Target};
