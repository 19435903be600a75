//! From a verified nest to machine code, and the contract between that code and its caller.
//!
//! # The kernel ABI
//! It stands on the page of the module `object`, where a program in another language meets it. The
//! JIT calls the same code by the same contract.
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
    let functions =
        clif::emit_entries(&nest.clone().into(), target, &*isa, &mut FunctionBuilderContext::new());
    let texts = functions.into_iter().flat_map(|(entry, function)| {
        let kernels = function.micro_kernels.into_iter().enumerate();
        kernels.map(move |(number, kernel)| {
            let text = vir::print(nest.nest(), &kernel.program);
            format!("; {}_{number}\n{text}", entry.symbol())
        })
    });
    Ok(texts.collect::<Vec<_>>().join("\n"))
}
