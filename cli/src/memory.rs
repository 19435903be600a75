//! What the tensors of a problem take, before they are made.

use convgen_ir::problem::ConvProblem;

use super::output::bytes;

/// The most bytes of all tensors of one problem: more is rather a slip of the pen than a wish, and
/// would take the machine down.
const MAX_BYTES: u128 = 8 << 30;

/// A problem whose tensors are refused for their size.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the tensors take {}, the limit is {}", text(*.given), text(MAX_BYTES))]
pub struct TooLarge {
    /// Bytes of all tensors.
    given: u128,
}

/// Accepts problems whose tensors, weights packed and unpacked, stay within the limit.
pub fn check(problem: &ConvProblem) -> Result<(), TooLarge> {
    let count = |shape: Vec<u64>| shape.into_iter().map(u128::from).product::<u128>();
    let input = count(problem.input_shape(problem.batch()));
    let weights = count(problem.weights_shape());
    let output = count(problem.output_shape(problem.batch()));
    let extras = problem.extra_shapes(problem.batch()).into_iter();
    let extras: u128 = extras.map(|(_, shape)| count(shape)).sum();
    let elements = input + 2 * weights + output + extras;
    let given = elements * problem.elem().bytes() as u128;
    if given <= MAX_BYTES { Ok(()) } else { Err(TooLarge { given }) }
}

fn text(count: u128) -> String {
    bytes(u64::try_from(count).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tensors_beyond_the_memory_are_refused_with_their_size() {
        let problem = "conv1d n1000000 ic1024 oc1 iw1000 kw1".parse().unwrap();
        let message = check(&problem).unwrap_err().to_string();
        assert_eq!(message, "the tensors take 3818.4 GiB, the limit is 8.0 GiB");
        let residual = "conv1d n10000 ic1 oc128 iw1000 kw1 | add".parse().unwrap();
        assert!(check(&residual).is_err());
        assert_eq!(check(&"conv1d ic1024 oc1 iw1000 kw1".parse().unwrap()), Ok(()));
    }
}
