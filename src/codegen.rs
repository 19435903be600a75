//! From a verified nest to machine code, and the contract between that code and its caller.
//!
//! # The kernel ABI
//! Both entry points of a kernel have the C signature
//! ```text
//! fn(arguments: *const *mut u8, batch: i64, first_task: i64, end_task: i64, scratch: *mut u8)
//! ```
//! - `arguments` points to one pointer a buffer: for the body, the buffers that
//!   [`arguments`](convgen_ir::interpret::arguments) lists and then the output; for the pack block,
//!   all weights and then all packed weights. Each buffer is as long as its shape at `batch` says
//!   and aligned to its element.
//! - Tasks `first_task..end_task` are carried out; the number of a task has the parallel loops as
//!   digits, outermost first. The pack block ignores the range.
//! - `scratch` points to [`scratch_bytes`](convgen_ir::verify::VerifiedNest::scratch_bytes) of
//!   memory aligned to [`SCRATCH_ALIGN`](convgen_ir::verify::SCRATCH_ALIGN) that nobody else uses
//!   during the call.
//!
//! # The stack
//! A function needs [`stack_bytes`](isa::clif::stack_bytes) of stack, at most [`MOST_STACK_BYTES`]: most
//! need some hundred, those with more values alive than registers some thousand. A frame of more
//! than a page touches one page after the other, so a thread whose stack is too small ends at its
//! guard page and writes nothing else.
#![deny(
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss
)]

pub mod isa;
#[expect(
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    reason = "a probe has some dozen registers and loads, whatever is asked"
)]
pub(crate) mod probe;

#[cfg(test)]
#[expect(
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    reason = "the sizes of tests are small"
)]
mod nests;

use convgen_ir::interpret;
use convgen_ir::nest::{BufferId, Nest, Role};
use convgen_ir::verify::VerifiedNest;
use cranelift_frontend::FunctionBuilderContext;

use crate::error::Error;
use crate::target::Target;
use crate::vir;
use isa::clif;

/// Bytes of stack that a function needs at most: what the smallest stacks that threads get by
/// default hold.
pub const MOST_STACK_BYTES: u32 = 256 << 10;

/// Which block of a nest a function carries out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Entry {
    /// The body: every call.
    Body,
    /// The pack block: once a set of weights.
    Pack,
}

impl Entry {
    /// The name of the function.
    pub fn symbol(self) -> &'static str {
        match self {
            Entry::Body => "convgen_body",
            Entry::Pack => "convgen_pack",
        }
    }

    /// The buffers behind `arguments`, in order.
    pub fn arguments(self, nest: &Nest) -> Vec<BufferId> {
        match self {
            Entry::Body => {
                let output = nest.find_role(Role::Output);
                interpret::arguments(nest).into_iter().chain(output).collect()
            }
            Entry::Pack => [Role::Weights, Role::Packed]
                .into_iter()
                .flat_map(|role| nest.find_all(role))
                .collect(),
        }
    }

    /// The entry points a nest has.
    pub fn of(nest: &Nest) -> Vec<Entry> {
        match nest.pack.is_empty() {
            true => vec![Entry::Body],
            false => vec![Entry::Pack, Entry::Body],
        }
    }
}

/// The micro-kernels of a nest as text, in the vector IR; each is named as its function is.
///
/// # Errors
/// [`Error::Codegen`] if Cranelift does not know the machine.
pub fn vir_text(nest: &VerifiedNest, target: &Target) -> Result<String, Error> {
    let isa = clif::isa(target, false, clif::Allocator::Backtracking)?;
    let functions = clif::emit_entries(nest, target, &*isa, &mut FunctionBuilderContext::new());
    let texts = functions.into_iter().flat_map(|(entry, function)| {
        let kernels = function.micro_kernels.into_iter().enumerate();
        kernels.map(move |(number, kernel)| {
            let text = vir::print(nest.nest(), &kernel.program);
            format!("; {}_{number}\n{text}", entry.symbol())
        })
    });
    Ok(texts.collect::<Vec<_>>().join("\n"))
}
