//! The nests of one kernel: their outputs are stripes of one tensor.

use std::collections::HashSet;

use super::{Fault, Place, VerifiedNest, VerifyError};
use crate::nest::{Buffer, Role};

/// V12 for the nests of one kernel: together they write every element of the output once.
///
/// # Errors
/// If the stripes of their outputs are no partition of it.
pub fn verify_parts(nests: &[VerifiedNest]) -> Result<(), VerifyError> {
    let outputs: Vec<&Buffer> = nests
        .iter()
        .filter_map(|nest| nest.nest().find_role(Role::Output).map(|id| nest.nest().buffer(id)))
        .collect();
    match is_partition(&outputs) {
        true => Ok(()),
        false => {
            Err(VerifyError { place: Place::Nest, fault: Fault::Parts { given: nests.len() } })
        }
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
