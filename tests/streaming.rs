//! A signal that arrives piece by piece has the outputs of the whole, bit for bit.

use std::sync::Arc;

use convgen::record::Database;
use convgen::streaming::{CausalConv1d, StreamError};
use convgen::{Accuracy, Compiler, Host, Isa};
use convgen_ir::Layout;
use convgen_ir::epilogue::EpilogueOp;
use convgen_ir::problem::{ConvProblem, ConvSpec};
use proptest::prelude::*;

fn compiler(isa: Isa) -> Option<Compiler> {
    let compiler = Compiler::new(&Host::detect(), isa).ok()?;
    Some(compiler.with_database(Arc::new(Database::default())))
}

/// Reals of some magnitudes, so that a sum in another order has other bits.
fn reals(count: usize, seed: usize) -> Vec<f32> {
    let real = |i: usize| ((i * 37 + seed * 11) as f32 * 0.37).sin() * (1 + i % 5) as f32;
    (0..count).map(real).collect()
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|x| x.to_bits()).collect()
}

/// The positions from `from` on of a tensor of `length` positions a row.
fn positions(
    problem: &ConvProblem,
    channels: u64,
    tensor: &[f32],
    from: usize,
    count: usize,
) -> Vec<f32> {
    let (rows, width) = match problem.layout() {
        Layout::ChannelsFirst => (problem.batch() * channels, 1),
        Layout::ChannelsLast => (problem.batch(), channels as usize),
    };
    let length = tensor.len() / (rows as usize * width);
    let row = |r: usize| &tensor[(r * length + from) * width..(r * length + from + count) * width];
    (0..rows as usize).flat_map(row).copied().collect()
}

/// The instruction sets of this host; what it lacks is reported.
fn isa() -> impl Strategy<Value = Isa> {
    let (present, absent): (Vec<Isa>, Vec<Isa>) =
        Isa::ALL.into_iter().partition(|isa| compiler(*isa).is_some());
    if !absent.is_empty() {
        eprintln!("skipped on this host: {absent:?}");
    }
    prop::sample::select(present)
}

/// Causal problems of some tens of positions.
fn problem() -> impl Strategy<Value = ConvProblem> {
    let channels = prop_oneof![
        (1..=3u64, 1..=9u64, 1..=3u64),
        (Just(1), 1..=20u64, 1..=20u64),
        (1..=20u64, Just(1), Just(1))
    ];
    let rest = (1..=3u64, any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>());
    (channels, 1..=90u64, 1..=5u64, 1..=4u64, rest).prop_map(
        |(channels, length, kernel, dilation, rest)| {
            let ((groups, ic, oc), (batch, first, bias, flip, epilogue)) = (channels, rest);
            let spec = ConvSpec::conv1d(groups * ic, groups * oc, length, kernel).groups(groups);
            let spec = spec.dilation(&[dilation]).causal().batch(batch).bias(bias).flip(flip);
            let spec = if epilogue { spec.epilogue([EpilogueOp::Silu]) } else { spec };
            let layout = if first { Layout::ChannelsFirst } else { Layout::ChannelsLast };
            ConvProblem::new(spec.layout(layout)).unwrap()
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn chunks_have_the_bits_of_the_whole(
        problem in problem(),
        cuts in prop::collection::vec(0..=40usize, 0..=12),
        isa in isa(),
        seed in 0..1000usize,
    ) {
        let whole = compiler(isa).unwrap().with_accuracy(Accuracy::Strict);
        let pieces = compiler(isa).unwrap();
        let len = |shape: Vec<u64>| shape.iter().product::<u64>() as usize;
        let x = reals(len(problem.input_shape(problem.batch())), seed);
        let w = reals(len(problem.weights_shape()), seed + 1);
        let b = problem.bias().then(|| reals(problem.out_channels() as usize, seed + 2));
        let kernel = whole.compile(&problem).unwrap();
        let mut y = vec![0.0; len(problem.output_shape(problem.batch()))];
        kernel.run(&x, &kernel.pack_weights(&w).unwrap(), b.as_deref(), &mut y).unwrap();

        let mut stream = CausalConv1d::new(pieces, &problem, &w, b.as_deref()).unwrap();
        let length = problem.spatial()[0].input as usize;
        // Twice, so that what a reset forgets is seen.
        for cuts in [&cuts[..], &[]] {
            stream.reset();
            let mut from = 0;
            for cut in cuts.iter().copied().chain([length]) {
                let count = cut.min(length - from);
                let chunk = positions(&problem, problem.in_channels(), &x, from, count);
                let expected = positions(&problem, problem.out_channels(), &y, from, count);
                prop_assert_eq!(bits(&stream.feed(&chunk).unwrap()), bits(&expected), "at {}", from);
                from += count;
            }
        }
    }
}

#[test]
fn chunks_longer_than_every_block_are_taken() {
    let problem =
        ConvProblem::new(ConvSpec::conv1d(2, 3, 3000, 3).dilation(&[700]).causal()).unwrap();
    let (x, w) = (reals(6000, 1), reals(18, 2));
    let mut at_once = CausalConv1d::new(compiler(Isa::Clif).unwrap(), &problem, &w, None).unwrap();
    let mut one_by_one =
        CausalConv1d::new(compiler(Isa::Clif).unwrap(), &problem, &w, None).unwrap();
    assert_eq!(at_once.memory(), 1400);
    let all = at_once.feed(&x).unwrap();
    let each: Vec<f32> = x.chunks(2).flat_map(|chunk| one_by_one.feed(chunk).unwrap()).collect();
    assert_eq!(bits(&all), bits(&each));
}

#[test]
fn what_is_no_stream_is_refused() {
    let refusal = |text: &str| {
        let problem: ConvProblem = text.parse().unwrap();
        let weights = vec![0.0; problem.weights_shape().iter().product::<u64>() as usize];
        CausalConv1d::new(compiler(Isa::Clif).unwrap(), &problem, &weights, None)
            .err()
            .unwrap()
            .to_string()
    };
    assert_eq!(refusal("conv2d ic1 oc1 ih4 iw4 kh1 kw1"), "2 spatial axes, expected 1");
    assert_eq!(refusal("conv1d ic1 oc1 iw8 kw3 pw2:0 sw2"), "the stride is 2, expected 1");
    assert_eq!(
        refusal("conv1d ic1 oc1 iw8 kw3 bwd_d pw2:0"),
        "the direction is bwd_d, expected fwd"
    );
    let padding = "the padding is 1:1, expected 2:0, as `ConvSpec::causal` sets it";
    assert_eq!(refusal("conv1d ic1 oc1 iw8 kw3 pw1"), padding);
    let mode = "circular padding is made of a signal that has not arrived, expected zeros";
    assert_eq!(refusal("conv1d ic1 oc1 iw8 kw3 pw2:0 circular"), mode);
    let add = "the epilogue has `add`, which reads a further tensor";
    assert_eq!(refusal("conv1d ic1 oc1 iw8 kw3 pw2:0 | add"), add);
    assert!(refusal("conv1d ic1 oc1 iw8 kw3 pw2:0 bias").contains("bias"));
}

#[test]
fn a_refused_chunk_leaves_the_state() {
    let problem = ConvProblem::new(ConvSpec::conv1d(2, 1, 8, 2).causal()).unwrap();
    let weights = [1.0, 10.0, 100.0, 1000.0];
    let mut stream =
        CausalConv1d::new(compiler(Isa::Clif).unwrap(), &problem, &weights, None).unwrap();
    assert_eq!(stream.feed(&[1.0, 2.0]).unwrap(), [2010.0]);
    assert!(matches!(stream.feed(&[9.0]), Err(StreamError::Chunk { given: 1, position: 2 })));
    let refused = stream.feed_into(&[9.0, 9.0], &mut [0.0; 2]);
    assert!(matches!(refused, Err(StreamError::Output { given: 2, expected: 1 })));
    assert!(stream.feed(&[]).unwrap().is_empty());
    assert_eq!(stream.feed(&[3.0, 4.0]).unwrap(), [4231.0]);
    stream.reset();
    assert_eq!(stream.feed(&[3.0, 4.0]).unwrap(), [4030.0]);
}
