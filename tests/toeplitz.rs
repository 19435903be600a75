//! The matrix of a convolution times a vector is what the kernel computes, exactly, on integers;
//! the transposed matrix is that of the gradient of the input.

use convgen_ir::problem::{ConvProblem, Direction};
use convgen_ir::toeplitz::{self, ToeplitzError};
use proptest::prelude::*;

#[path = "common/problems.rs"]
mod problems;

#[path = "common/linear.rs"]
#[allow(dead_code, reason = "biases are for the tests of laws")]
mod linear;

use linear::{Integers, kernel_output, plain, zero_padded};

/// Any problem that is linear in its input, of one image.
fn problem() -> impl Strategy<Value = ConvProblem> {
    problems::problem().prop_map(|problem| plain(&zero_padded(&problem), Direction::Forward))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_matrix_is_the_kernel_and_its_transpose_the_gradient(problem in problem(), seed: u64) {
        let mut integers = Integers::new(seed);
        let weights = integers.tensor(&problem.weights_shape());
        let matrix = toeplitz::matrix(&problem, &weights).unwrap();

        let x = integers.tensor(&problem.input_shape(1));
        prop_assert_eq!(matrix.apply(&x).unwrap(), kernel_output(&problem, &x, &weights, &[]));

        let backward = problem.with_direction(Direction::BackwardData).unwrap();
        let y = integers.tensor(&backward.input_shape(1));
        let gradient = kernel_output(&backward, &y, &weights, &[]);
        prop_assert_eq!(&matrix.transposed().apply(&y).unwrap(), &gradient);
        let matrix = toeplitz::matrix(&backward, &weights).unwrap();
        prop_assert_eq!(matrix.apply(&y).unwrap(), gradient);
    }

    #[test]
    fn the_dense_matrix_has_the_entries_and_zeros(problem in problem(), seed: u64) {
        let weights = Integers::new(seed).tensor(&problem.weights_shape());
        let matrix = toeplitz::matrix(&problem, &weights).unwrap();
        let mut dense = matrix.dense().unwrap();
        for entry in matrix.entries() {
            let at = (entry.row * matrix.columns() + entry.column) as usize;
            prop_assert_eq!(std::mem::take(&mut dense[at]), entry.value);
        }
        prop_assert!(dense.iter().all(|element| *element == 0.0));
    }
}

#[test]
fn on_one_axis_the_diagonals_are_constant() {
    let problem: ConvProblem = "conv1d ic1 oc1 iw6 kw3 dw2 pw2".parse().unwrap();
    let text = toeplitz::symbolic(&problem).unwrap().text(&problem).unwrap();
    let expected = "\
w[0,0,1] .        w[0,0,2] .        .        .
.        w[0,0,1] .        w[0,0,2] .        .
w[0,0,0] .        w[0,0,1] .        w[0,0,2] .
.        w[0,0,0] .        w[0,0,1] .        w[0,0,2]
.        .        w[0,0,0] .        w[0,0,1] .
.        .        .        w[0,0,0] .        w[0,0,1]
";
    assert_eq!(text, expected);
}

#[test]
fn files_have_the_entries_of_the_matrix() {
    let problem: ConvProblem = "conv1d ic1 oc1 iw3 kw2".parse().unwrap();
    let (mut mtx, mut csv) = (Vec::new(), Vec::new());
    toeplitz::matrix(&problem, &[0.5, -2.0]).unwrap().write_mtx(&mut mtx).unwrap();
    toeplitz::symbolic(&problem).unwrap().numbered().write_csv(&mut csv).unwrap();
    let expected =
        "%%MatrixMarket matrix coordinate real general\n2 3 4\n1 1 0.5\n1 2 -2\n2 2 0.5\n2 3 -2\n";
    assert_eq!(String::from_utf8(mtx).unwrap(), expected);
    assert_eq!(String::from_utf8(csv).unwrap(), "row,column,value\n0,0,1\n0,1,2\n1,1,1\n1,2,2\n");
}

#[test]
fn what_is_too_large_or_no_matrix_is_refused() {
    let symbolic = |text: &str| toeplitz::symbolic(&text.parse().unwrap());
    let large = symbolic("conv2d ic64 oc64 ih56 iw56 kh3 kw3 ph1 pw1").unwrap_err();
    let expected = "the matrix of 200704 outputs by 200704 inputs has up to 115605504 entries, expected at most 8388608";
    assert_eq!(large.to_string(), expected);
    assert!(matches!(
        symbolic("conv1d ic1 oc1 iw3 kw2 bwd_w"),
        Err(ToeplitzError::Direction { direction: "bwd_w" })
    ));
    assert!(matches!(
        symbolic("conv1d ic1 oc1 iw3 kw2 pw1 circular"),
        Err(ToeplitzError::PaddingMode { .. })
    ));
    assert!(symbolic("conv1d ic1 oc1 iw3 kw2 circular").is_ok());
    let wide: ConvProblem = "conv1d ic1 oc1 iw70 kw2".parse().unwrap();
    let shown = toeplitz::symbolic(&wide).unwrap().text(&wide).unwrap_err();
    assert!(matches!(shown, ToeplitzError::Dense { given: 4830, limit: 4096, .. }), "{shown}");
    let long: ConvProblem = "conv1d ic1 oc1 iw100000 kw2".parse().unwrap();
    let matrix = toeplitz::matrix(&long, &[1.0, 1.0]).unwrap();
    assert!(matches!(matrix.dense(), Err(ToeplitzError::Dense { .. })));
    let refused = toeplitz::matrix(&long, &[1.0]).unwrap_err();
    assert_eq!(refused.to_string(), "weights has 1 elements, expected 2");
}
