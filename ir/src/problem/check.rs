//! The limits of a description, each refused with the field and the numbers.

use super::words::AxisWords;
use super::{ConvSpec, Direction, MAX_ELEMENTS, MAX_PADDING, MAX_SIZE, ProblemError, SpatialAxis};
use crate::padding::PaddingMode;

pub(super) fn check_channels(spec: &ConvSpec) -> Result<(), ProblemError> {
    check_at_most("n", spec.batch)?;
    check_size("g", spec.groups)?;
    let (x, y) = match spec.direction {
        Direction::Transposed => ("oc", "ic"),
        Direction::Forward
        | Direction::BackwardData
        | Direction::BackwardWeights
        | Direction::BackwardBias => ("ic", "oc"),
    };
    for (field, channels) in [(x, spec.in_channels), (y, spec.out_channels)] {
        check_size(field, channels)?;
        if channels % spec.groups != 0 {
            let groups = spec.groups;
            return Err(ProblemError::GroupsDoNotDivide { field, channels, groups });
        }
    }
    Ok(())
}

/// Padding that is made of the input finds it there.
pub(super) fn check_padding(
    axis: &SpatialAxis,
    field: &'static str,
    mode: PaddingMode,
) -> Result<(), ProblemError> {
    let Some(limit) = mode.most(axis.input) else { return Ok(()) };
    let given = axis.pad_before.max(axis.pad_after);
    let input = axis.input;
    match u64::try_from(given).is_ok_and(|given| given > limit) {
        true => Err(ProblemError::PaddingBeyondInput { field, given, mode, input, limit }),
        false => Ok(()),
    }
}

pub(super) fn check_axis(axis: &SpatialAxis, words: &AxisWords) -> Result<(), ProblemError> {
    check_size(words.input, axis.input)?;
    check_size(words.kernel, axis.kernel)?;
    check_size(words.stride, axis.stride)?;
    check_size(words.dilation, axis.dilation)?;
    for given in [axis.pad_before, axis.pad_after] {
        if given.unsigned_abs() > MAX_PADDING.unsigned_abs() {
            let (field, limit) = (words.padding, MAX_PADDING);
            return Err(ProblemError::PaddingTooLarge { field, given, limit });
        }
    }
    if axis.output() == 0 {
        return Err(ProblemError::KernelTooLarge {
            field: words.kernel,
            kernel: axis.kernel,
            dilation: axis.dilation,
            extent: axis.extent(),
            input: axis.input,
            pad_before: axis.pad_before,
            pad_after: axis.pad_after,
            padded: axis.padded_input(),
        });
    }
    Ok(())
}

fn check_size(field: &'static str, given: u64) -> Result<(), ProblemError> {
    if given == 0 {
        return Err(ProblemError::Zero { field });
    }
    check_at_most(field, given)
}

fn check_at_most(field: &'static str, given: u64) -> Result<(), ProblemError> {
    if given > MAX_SIZE {
        return Err(ProblemError::TooLarge { field, given, limit: MAX_SIZE });
    }
    Ok(())
}

pub(super) fn check_elements(tensor: &'static str, shape: Vec<u64>) -> Result<(), ProblemError> {
    match checked_product(&shape) {
        Some(count) if count < MAX_ELEMENTS => Ok(()),
        Some(_) | None => Err(ProblemError::TooManyElements { tensor, shape, limit: MAX_ELEMENTS }),
    }
}

/// The product, or nothing if it overflows.
pub(super) fn checked_product(factors: &[u64]) -> Option<u64> {
    factors.iter().copied().try_fold(1, u64::checked_mul)
}
