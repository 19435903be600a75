//! Small problems: the layers of networks shrunk to sizes that are interpreted in milliseconds, and
//! as many that no network has. Always the same ones.

use super::suites;
use convgen_ir::PaddingMode;
use convgen_ir::elem::Layout;
use convgen_ir::epilogue::EpilogueOp;
use convgen_ir::problem::{ConvProblem, ConvSpec, SpatialAxis};

/// xorshift64*: no dependency, and the same on every machine.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32
    }

    /// One of `lo..=hi`.
    fn pick(&mut self, lo: u64, hi: u64) -> u64 {
        lo + self.next() % (hi - lo + 1)
    }

    /// One of some.
    fn one<'v, T>(&mut self, from: &'v [T]) -> &'v T {
        &from[self.pick(0, from.len() as u64 - 1) as usize]
    }

    /// Reals from -1 to 1.
    pub fn reals(&mut self, count: i64) -> Vec<f32> {
        let real = |bits: u64| (bits % (1 << 24)) as f32 / (1 << 23) as f32 - 1.0;
        (0..count).map(|_| real(self.next())).collect()
    }
}

/// `count` problems, half of them from the lists of networks.
pub fn sample(count: usize) -> Vec<ConvProblem> {
    let mut random = Random::new(2);
    let layers: Vec<ConvSpec> = suites::names()
        .iter()
        .flat_map(|name| suites::suite(name))
        .map(|descriptor| descriptor.problem.to_spec())
        .collect();
    let half = count / 2;
    let mut specs: Vec<ConvSpec> =
        (0..half).map(|i| layers[i * layers.len() / half].clone()).collect();
    specs.extend((half..count).map(|i| invented(1 + i % 3, &mut random)));
    specs.into_iter().map(|spec| ConvProblem::new(shrunk(spec, &mut random)).unwrap()).collect()
}

/// Any combination of what an axis can have.
fn invented(rank: usize, random: &mut Random) -> ConvSpec {
    let axes = (0..rank).map(|_| SpatialAxis {
        stride: random.pick(1, 3),
        dilation: random.pick(1, 3),
        pad_before: random.pick(0, 3) as i64 - 1,
        pad_after: random.pick(0, 3) as i64 - 1,
        ..SpatialAxis::new(1, random.pick(1, 5))
    });
    let mut spec = ConvSpec::new(1, 1, axes.collect());
    spec.groups = *random.one(&[1, 1, 2, 3, 40]);
    spec.in_channels = spec.groups * random.pick(1, 12);
    spec.out_channels = spec.groups * random.pick(1, 40);
    spec
}

/// Keeps the kind (groups, kernel, stride, dilation, padding) and makes the sizes small; draws what
/// every problem may have: layout, padding mode, batch, bias, epilogue.
fn shrunk(mut spec: ConvSpec, random: &mut Random) -> ConvSpec {
    let inputs = (spec.in_channels / spec.groups).min(random.pick(1, 12));
    let outputs = (spec.out_channels / spec.groups).min(random.pick(1, 40));
    let grouped = spec.groups > 1 && inputs > 1;
    spec.groups = spec.groups.min(random.pick(1, if grouped { 3 } else { 24 }));
    let outputs = if spec.groups > 3 { outputs.min(2) } else { outputs };
    spec.in_channels = spec.groups * inputs;
    spec.out_channels = spec.groups * outputs;
    let longest = [40, 12, 5][spec.spatial.len() - 1];
    spec.spatial.iter_mut().for_each(|axis| shrink(axis, longest, random));
    spec.padding_mode = *random.one(&PaddingMode::ALL);
    for axis in spec.spatial.iter_mut().filter(|_| spec.padding_mode != PaddingMode::Zeros) {
        // What is found inside of the input is no further than its other end.
        let least = axis.pad_before.max(axis.pad_after).max(0) as u64 + 1;
        axis.input = axis.input.max(least);
    }
    spec.layout = *random.one(Layout::ALL);
    spec.batch = random.pick(1, 2);
    spec.bias = random.pick(0, 1) == 1;
    spec.epilogue = (0..random.pick(0, 2)).map(|_| *random.one(&EpilogueOp::ALL)).collect();
    spec
}

/// An axis of up to `longest` outputs, and kernels and paddings no larger than that allows.
fn shrink(axis: &mut SpatialAxis, longest: u64, random: &mut Random) {
    axis.kernel = axis.kernel.min(if longest > 12 { 10 } else { 7 });
    axis.dilation = axis.dilation.min(4);
    let reach = axis.extent() as i64 - 1;
    axis.pad_before = axis.pad_before.min(reach);
    axis.pad_after = axis.pad_after.min(reach);
    let outputs = random.pick(1, longest);
    let padded = (outputs - 1) * axis.stride + axis.extent();
    axis.input = (padded as i64 - axis.pad_before - axis.pad_after).max(1) as u64;
}
