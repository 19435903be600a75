//! Random pairs of a depthwise and a pointwise convolution, of every padding mode, stride, layout
//! and epilogue.

use convgen_ir::Separable;
use convgen_ir::problem::{ConvProblem, ConvSpec, SpatialAxis};
use convgen_ir::{EpilogueOp, Layout, PaddingMode};
use proptest::prelude::*;

use super::problems::found_inside;

/// Any pair.
pub fn pair() -> impl Strategy<Value = Separable> {
    let channels = (1..=40u64, prop::sample::select(&[1, 1, 1, 2, 3][..]), 1..=100u64);
    let spatial = prop_oneof![
        1 => prop::collection::vec(axis(40), 1),
        3 => prop::collection::vec(axis(16), 2),
        1 => prop::collection::vec(axis(6), 3),
    ];
    let layout = prop::sample::select(Layout::ALL);
    let mode = prop_oneof![
        2 => Just(PaddingMode::Zeros),
        1 => prop::sample::select(&PaddingMode::ALL[1..]),
    ];
    let rest = any::<[bool; 2]>().prop_flat_map(|biases| {
        let operations =
            || prop::collection::vec(prop::sample::select(&EpilogueOp::ALL[..]), 0..=2);
        (Just(biases), operations(), operations())
    });
    (channels, spatial, (layout, mode, 0..=3u64), rest).prop_map(
        |(
            (groups, multiplier, out),
            mut spatial,
            (layout, mode, batch),
            (biases, first, second),
        )| {
            spatial.iter_mut().for_each(|axis| found_inside(axis, mode));
            let middle = groups * multiplier;
            let between = spatial.iter().map(|axis| SpatialAxis::new(axis.output(), 1)).collect();
            let depthwise = ConvSpec::new(groups, middle, spatial).groups(groups);
            let depthwise = depthwise.padding_mode(mode).bias(biases[0]).epilogue(first);
            let pointwise = ConvSpec::new(middle, out, between).bias(biases[1]).epilogue(second);
            let half = |spec: ConvSpec| {
                ConvProblem::new(spec.layout(layout).batch(batch)).expect("legal by construction")
            };
            Separable::new(half(depthwise), half(pointwise)).expect("halves that fit")
        },
    )
}

fn axis(most: u64) -> impl Strategy<Value = SpatialAxis> {
    let kernel = prop::sample::select(&[1, 3, 3, 4, 5][..]);
    (1..=most, kernel, 1..=3u64, 1..=2u64, 0..=2i64, 0..=2i64).prop_map(
        |(input, kernel, stride, dilation, pad_before, after)| {
            let axis =
                SpatialAxis { stride, dilation, pad_before, ..SpatialAxis::new(input, kernel) };
            let needed = axis.extent() as i64 - input as i64 - pad_before;
            SpatialAxis { pad_after: after.max(needed), ..axis }
        },
    )
}
