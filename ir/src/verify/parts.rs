//! The nests of one kernel: their outputs are stripes of one tensor.

use std::collections::HashSet;

use super::code::CodeSize;
use super::{Fault, Limits, Place, VerifiedNest, VerifyError};
use crate::nest::{Buffer, Role};

/// What the nests of one kernel may have together of [`Limits::unrolled`], which is for each of
/// them.
pub const CODE_OF_PARTS: i64 = 2;

/// V8 and V12 for the nests of one kernel: their code stays below [`CODE_OF_PARTS`] limits, and
/// together they write every element of the output once.
///
/// # Errors
/// If there is more code, or if the stripes of their outputs are no partition of the output.
pub fn verify_parts(nests: &[VerifiedNest], limits: &Limits) -> Result<(), VerifyError> {
    let at_nest = |fault| VerifyError { place: Place::Nest, fault };
    let mut code = CodeSize::default();
    nests.iter().for_each(|nest| code.add(nest.code));
    code.within(limits.unrolled.saturating_mul(CODE_OF_PARTS)).map_err(at_nest)?;
    let outputs: Vec<&Buffer> = nests
        .iter()
        .filter_map(|nest| nest.nest().find_role(Role::Output).map(|id| nest.nest().buffer(id)))
        .collect();
    match is_partition(&outputs) {
        true => Ok(()),
        false => Err(at_nest(Fault::Parts { given: nests.len() })),
    }
}

/// Whether the stripes are all residues of one step a dimension, each combination once.
fn is_partition(outputs: &[&Buffer]) -> bool {
    let Some(first) = outputs.first() else { return false };
    let dims = 0..first.shape.len();
    let steps: Vec<i64> = dims.clone().map(|dim| first.stripe(dim).by).collect();
    let alike = outputs.iter().all(|output| {
        output.shape == first.shape
            && dims.clone().all(|dim| {
                let stripe = output.stripe(dim);
                stripe.by == steps[dim] && stripe.from < stripe.by
            })
    });
    let residues = |dim: usize| first.shape[dim].fixed().map_or(1, |extent| extent.min(steps[dim]));
    let starts = |output: &Buffer| dims.clone().map(|d| output.stripe(d).from).collect::<Vec<_>>();
    let distinct: HashSet<Vec<i64>> = outputs.iter().map(|output| starts(output)).collect();
    let count = dims.clone().fold(1_i64, |count, dim| count.saturating_mul(residues(dim)));
    alike && distinct.len() == outputs.len() && i64::try_from(outputs.len()) == Ok(count)
}

#[cfg(test)]
#[expect(clippy::arithmetic_side_effects, reason = "the tests count")]
mod tests {
    use super::*;
    use crate::parse::parse_nest;
    use crate::verify::{Rule, verify};

    const LIMITS: Limits = Limits { unrolled: 16, ..Limits::INTERPRETER };

    /// The nests of a kernel of so many parts, each with so many unrolled statements.
    fn parts(count: usize, statements: usize) -> Vec<VerifiedNest> {
        let part = |from| {
            let text = format!(
                "nest part {{ input f32[{statements}] output f32[{} from {from} by {count}] \
                 vector i in 0..{statements} {{ output[{count}*i+{from}] = input[i] }} }}",
                statements * count
            );
            verify(parse_nest(&text).unwrap().0, &LIMITS).unwrap()
        };
        (0..count).map(part).collect()
    }

    #[test]
    fn parts_share_what_code_a_kernel_may_have() {
        assert_eq!(verify_parts(&parts(4, 8), &LIMITS), Ok(()));
        let error = verify_parts(&parts(5, 8), &LIMITS).unwrap_err();
        assert_eq!(error.fault.rule(), Rule::V8, "{error}");
    }

    #[test]
    fn stripes_that_leave_something_out_are_refused() {
        let nests = parts(4, 8);
        let error = verify_parts(&nests[1..], &LIMITS).unwrap_err();
        assert_eq!(error.fault.rule(), Rule::V12, "{error}");
    }
}
