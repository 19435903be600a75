//! From a scheduled nest to one the emitters take: the ordered list of passes, then the verifier.
//!
//! Each pass keeps every bit of the result. `convgen print --stage lower --passes` shows the nest
//! after each. [`outline()`] then marks what becomes micro-kernels on a target.

#![deny(clippy::arithmetic_side_effects, clippy::cast_possible_truncation)]
#![deny(clippy::cast_possible_wrap, clippy::cast_sign_loss)]

mod copies;
mod cut;
mod outline;
mod pads;
mod sums;
mod tiles;
mod trim;

pub(crate) use outline::Programs;
pub use outline::{Outlined, outline};

use convgen_ir::nest::{Nest, Oversize};
use convgen_ir::verify::{Limits, VerifiedNest, VerifyError, verify};

/// A rewrite of the whole nest that needs no parameters.
#[derive(Clone, Copy)]
pub struct Pass {
    /// What it is called in the output of `print`.
    pub name: &'static str,
    run: Run,
}

#[derive(Clone, Copy)]
enum Run {
    /// The nest gets no larger.
    Keeps(fn(&mut Nest)),
    /// Blocks are copied, as long as the nest stays within its size.
    Copies(fn(&mut Nest) -> Result<(), Oversize>),
}

/// The passes, in order. `trim` runs first so that `cut` sees only guards that matter.
pub const PASSES: [Pass; 6] = [
    Pass { name: "trim", run: Run::Keeps(trim::run) },
    Pass { name: "cut", run: Run::Copies(cut::run) },
    Pass { name: "trim", run: Run::Keeps(trim::run) },
    Pass { name: "tiles", run: Run::Keeps(tiles::run) },
    Pass { name: "pads", run: Run::Keeps(pads::run) },
    Pass { name: "copies", run: Run::Keeps(copies::run) },
];

/// Runs every pass and verifies the result.
///
/// # Errors
/// The verifier's, if the scheduled nest is not legal within the limits.
pub fn lower(nest: Nest, limits: &Limits) -> Result<VerifiedNest, VerifyError> {
    lower_traced(nest, limits, |_, _| {})
}

/// As [`lower`], showing the nest after each pass.
///
/// # Errors
/// As [`lower`].
pub fn lower_traced(
    mut nest: Nest,
    limits: &Limits,
    mut show: impl FnMut(&'static str, &Nest),
) -> Result<VerifiedNest, VerifyError> {
    nest.check_size()?;
    for pass in PASSES {
        match pass.run {
            Run::Keeps(run) => run(&mut nest),
            Run::Copies(run) => run(&mut nest)?,
        }
        show(pass.name, &nest);
    }
    // What a pass has removed needs no memory.
    nest.drop_unused_buffers();
    verify(nest, limits)
}
