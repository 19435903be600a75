//! Random problems, legal by construction and small enough to be interpreted in a millisecond.
//!
//! Every field of the descriptor is drawn, the direction too, its odd values as often as its common
//! ones: padding that crops, padding wider than the kernel, padding of every mode, groups of one
//! channel, empty batches, all epilogues.

use convgen_ir::problem::{ConvProblem, ConvSpec, Direction, SpatialAxis};
use convgen_ir::{EpilogueOp, Layout, PaddingMode};
use proptest::prelude::*;

/// Multiply-adds of one image, if channels can be left out to get there.
const IMAGE_MACS: u64 = 6000;

/// Any problem.
pub fn problem() -> impl Strategy<Value = ConvProblem> {
    let shape = (channels(), spatial(), 0..=3u64);
    let rest = (layout(), any::<bool>(), prop::collection::vec(operation(), 0..=3));
    let turned = (direction(), padding_mode(), prop::bool::weighted(0.2));
    (shape, rest, turned).prop_map(|(shape, (layout, bias, epilogue), (direction, mode, flip))| {
        let (channels, mut spatial, batch) = shape;
        let mode = match direction {
            Direction::Transposed | Direction::BackwardData => PaddingMode::Zeros,
            Direction::Forward | Direction::BackwardWeights | Direction::BackwardBias => mode,
        };
        spatial.iter_mut().for_each(|axis| found_inside(axis, mode));
        let (g, ic, oc) = affordable(channels, &spatial);
        let spec = ConvSpec::new(g * ic, g * oc, spatial).groups(g).batch(batch);
        let spec = spec.layout(layout).direction(direction).padding_mode(mode).flip(flip);
        let spec = match direction.is_gradient() {
            true => spec,
            false => spec.bias(bias).epilogue(epilogue),
        };
        ConvProblem::new(spec).expect("legal by construction")
    })
}

fn direction() -> impl Strategy<Value = Direction> {
    let weight = |direction| match direction {
        Direction::Forward => 6,
        Direction::Transposed | Direction::BackwardWeights => 2,
        Direction::BackwardData | Direction::BackwardBias => 1,
    };
    let weighted = Direction::ALL.map(|direction| (weight(direction), Just(direction)));
    prop::strategy::Union::new_weighted(weighted.to_vec())
}

fn padding_mode() -> impl Strategy<Value = PaddingMode> {
    prop_oneof![
        2 => Just(PaddingMode::Zeros),
        3 => prop::sample::select(&PaddingMode::ALL[1..]),
    ]
}

/// As much padding as the mode finds in the input, and as much input as the kernel then needs.
pub fn found_inside(axis: &mut SpatialAxis, mode: PaddingMode) {
    if let Some(most) = mode.most(axis.input) {
        axis.pad_before = axis.pad_before.min(most as i64);
        axis.pad_after = axis.pad_after.min(most as i64);
    }
    let short = i128::from(axis.extent()) - axis.padded_input();
    axis.input += u64::try_from(short).unwrap_or(0);
}

/// Groups, and input and output channels of each.
type Channels = (u64, u64, u64);

fn channels() -> impl Strategy<Value = Channels> {
    prop_oneof![
        4 => (Just(1), 1..=9u64, 1..=17u64),
        // Whole vectors.
        2 => (Just(1), 1..=4u64, (1..=4u64).prop_map(|vectors| 4 * vectors)),
        // Wider than any vector, and seldom a whole number of them.
        2 => (Just(1), 1..=3u64, 14..=40u64),
        2 => (2..=4u64, 1..=3u64, 1..=5u64),
        // Depthwise, with and without a multiplier.
        3 => (2..=20u64, Just(1), 1..=3u64),
    ]
}

/// One to three axes; the more, the shorter.
fn spatial() -> impl Strategy<Value = Vec<SpatialAxis>> {
    prop_oneof![
        2 => prop::collection::vec(axis(40, 6, 8), 1),
        4 => prop::collection::vec(axis(12, 4, 5), 2),
        1 => prop::collection::vec(axis(6, 3, 3), 3),
    ]
}

/// An axis of at most this many inputs, taps and zeros on a side.
fn axis(input: u64, kernel: u64, pad: i64) -> impl Strategy<Value = SpatialAxis> {
    let padding = || prop_oneof![3 => Just(0), 4 => 0..=2i64, 3 => -pad / 2..=pad];
    let steps = || prop_oneof![3 => Just(1), 1 => Just(2), 1 => Just(3)];
    let sizes = (1..=input, 1..=kernel, steps(), steps());
    (sizes, padding(), padding()).prop_map(|((input, kernel, stride, dilation), before, after)| {
        let axis = SpatialAxis { stride, dilation, ..SpatialAxis::new(input, kernel) };
        let needed = axis.extent() as i64 - input as i64 - before;
        SpatialAxis { pad_before: before, pad_after: after.max(needed), ..axis }
    })
}

fn layout() -> impl Strategy<Value = Layout> {
    prop::sample::select(Layout::ALL)
}

fn operation() -> impl Strategy<Value = EpilogueOp> {
    let (exact, rounded): (Vec<_>, Vec<_>) =
        EpilogueOp::ALL.into_iter().partition(EpilogueOp::is_exact);
    let exact = prop_oneof![
        3 => prop::sample::select(exact),
        1 => (-4..=0i8, 0..=9i8)
            .prop_map(|(lo, hi)| EpilogueOp::Clamp { lo: f32::from(lo), hi: f32::from(hi) }),
        1 => prop::sample::select(&[0.125f32, -0.5, 0.0][..])
            .prop_map(|slope| EpilogueOp::LeakyRelu { slope }),
    ];
    prop_oneof![2 => exact, 1 => prop::sample::select(rounded)]
}

/// Fewer channels where the axes are long.
fn affordable((mut g, mut ic, mut oc): Channels, spatial: &[SpatialAxis]) -> Channels {
    let taps: u64 = spatial.iter().map(|axis| axis.output() * axis.kernel).product();
    while taps * g * ic * oc > IMAGE_MACS && g.max(ic).max(oc) > 1 {
        let largest = match g.max(ic).max(oc) {
            size if size == oc => &mut oc,
            size if size == ic => &mut ic,
            _ => &mut g,
        };
        *largest -= *largest / 2;
    }
    (g, ic, oc)
}
