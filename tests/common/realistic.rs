//! Problems as people ask for them: the sizes of layers of networks, drawn at random, not to be
//! run.

use convgen::target::Caches;
use convgen::{Isa, Target};
use convgen_ir::problem::{ConvProblem, ConvSpec, Direction, SpatialAxis};
use convgen_ir::{EpilogueOp, Layout, PaddingMode, Separable};

use crate::mutants::Random;

/// Channel counts of layers; as often any other up to the largest is drawn.
const CHANNELS: [u64; 25] = [
    1, 2, 3, 4, 8, 12, 16, 20, 24, 32, 40, 48, 64, 80, 96, 112, 128, 144, 160, 192, 256, 320, 384,
    480, 512,
];

/// The next legal problem.
pub fn problem(random: &mut Random) -> ConvProblem {
    loop {
        if let Ok(problem) = ConvProblem::new(spec(random)) {
            return problem;
        }
    }
}

/// Elements of the tensor between the halves at one index of its first axis, at most: what a task
/// keeps of it is scratch.
const MIDDLE: u64 = 1 << 19;

/// The next legal pair of a depthwise convolution and a pointwise one.
pub fn pair(random: &mut Random) -> Separable {
    loop {
        let rank = *random.pick(&[1, 2, 2, 2, 3]);
        let (groups, multiplier) = (channels(random), *random.pick(&[1, 1, 1, 2, 3]));
        let layout = *random.pick(Layout::ALL);
        let batch = *random.pick(&[1, 1, 2, 8]);
        let spatial: Vec<SpatialAxis> = (0..rank).map(|_| axis(random, rank)).collect();
        let pixels = spatial.iter().map(|s| SpatialAxis::new(s.output(), 1)).collect();
        let (mode, middle) = (mode(random, Direction::Forward), groups * multiplier);
        let first = ConvSpec::new(groups, middle, spatial).groups(groups).padding_mode(mode);
        let second = ConvSpec::new(middle, channels(random), pixels);
        let half = |spec: ConvSpec, random: &mut Random| {
            let spec = spec.layout(layout).batch(batch).bias(random.below(2) == 0);
            ConvProblem::new(spec.epilogue(epilogue(random)))
        };
        let (first, second) = (half(first, random), half(second, random));
        if let (Ok(first), Ok(second)) = (first, second)
            && first.output_shape(1).iter().product::<u64>() / first.spatial()[0].output() <= MIDDLE
            && let Ok(pair) = Separable::new(first, second)
        {
            return pair;
        }
    }
}

/// Any target of an instruction set: caches and cores decide picks too.
pub fn target(random: &mut Random, isa: Isa) -> Target {
    let caches = [
        Caches::TYPICAL,
        Caches { l1d: 48 << 10, l2: 2 << 20, l3: 32 << 20 },
        Caches { l1d: 32 << 10, l2: 1 << 20, l3: 16 << 20 },
    ];
    let (caches, cores) = (*random.pick(&caches), *random.pick(&[1, 2, 4, 64]));
    let triple = "x86_64-unknown-linux-gnu".parse().expect("a triple");
    Target::new(triple, isa, true, caches, cores).expect("x86-64")
}

fn spec(random: &mut Random) -> ConvSpec {
    let directions = [&[Direction::Forward; 2][..], &Direction::ALL].concat();
    let direction = *random.pick(&directions);
    let rank = *random.pick(&[1, 2, 2, 2, 3]);
    let (ic, oc) = (channels(random), channels(random));
    let (groups, ic, oc) = match random.below(6) {
        // Depthwise, with a multiplier or without.
        0 => (ic, ic, ic * *random.pick(&[1, 1, 2, 3])),
        1 => {
            let groups = *random.pick(&[2, 3, 4, 8, 16, 32]);
            (groups, groups * ic.div_ceil(groups), groups * oc.div_ceil(groups))
        }
        _ => (1, ic, oc),
    };
    let spatial = (0..rank).map(|_| axis(random, rank)).collect();
    let spec = ConvSpec::new(ic, oc, spatial).groups(groups).direction(direction);
    let spec = spec.batch(*random.pick(&[1, 1, 1, 2, 8, 32])).layout(*random.pick(Layout::ALL));
    let spec = spec.padding_mode(mode(random, direction)).flip(random.below(12) == 0);
    match direction.is_gradient() {
        true => spec,
        false => spec.bias(random.below(2) == 0).epilogue(epilogue(random)),
    }
}

fn channels(random: &mut Random) -> u64 {
    match random.below(2) {
        0 => *random.pick(&CHANNELS),
        _ => 1 + random.below(512) as u64,
    }
}

fn mode(random: &mut Random, direction: Direction) -> PaddingMode {
    match (direction, random.below(5)) {
        (Direction::Transposed | Direction::BackwardData, _) | (_, 1..) => PaddingMode::Zeros,
        (_, 0) => *random.pick(&PaddingMode::ALL),
    }
}

fn epilogue(random: &mut Random) -> Vec<EpilogueOp> {
    let count = *random.pick(&[0, 0, 1, 1, 2, 3]);
    let [relu, ..] = EpilogueOp::ALL;
    // The first one is the most frequent.
    let operations = [&[relu][..], &EpilogueOp::ALL].concat();
    (0..count).map(|_| *random.pick(&operations)).collect()
}

fn axis(random: &mut Random, rank: usize) -> SpatialAxis {
    let (most, kernels): (usize, &[u64]) = match rank {
        1 => (*random.pick(&[32, 512, 4096, 32768]), &[1, 2, 3, 3, 4, 5, 7, 8, 10, 16, 31, 64]),
        2 => (*random.pick(&[16, 64, 160, 256, 640]), &[1, 1, 2, 3, 3, 3, 4, 5, 6, 7, 9, 11, 15]),
        _ => (*random.pick(&[4, 16, 40, 64]), &[1, 1, 2, 3, 3, 3, 4, 5, 7]),
    };
    let (input, kernel) = (1 + random.below(most) as u64, *random.pick(kernels));
    let strides: &[u64] = if rank == 1 { &[1, 1, 1, 2, 4, 5, 8] } else { &[1, 1, 1, 2, 2, 3, 4] };
    let stride = *random.pick(strides);
    let dilation = *random.pick(&[1, 1, 1, 1, 2, 3, 6, 12]);
    let axis = SpatialAxis { stride, dilation, ..SpatialAxis::new(input, kernel) };
    let same = (axis.extent() as i64 - 1) / 2;
    let any = |random: &mut Random| random.below(kernel as usize + 1) as i64;
    let (pad_before, pad_after) = match random.below(5) {
        0 => (0, 0),
        1 => (any(random), any(random)),
        2 => (axis.extent() as i64 - 1, 0),
        _ => (same, same),
    };
    SpatialAxis { pad_before, pad_after, ..axis }
}
