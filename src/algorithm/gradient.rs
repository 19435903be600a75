//! The gradients of weights and bias: sums over all images and positions.
//!
//! ```text
//! for g, oc, ic, k..: acc = 0; for n, o..: acc = fma(input[n, g*IC + ic, o*s + k*d - p], gradient[n, g*OC + oc, o], acc);
//!                     output[g*OC + oc, ic, k] = acc
//! for oc: acc = 0; for n, o..: acc = acc + input[n, oc, o]; output[oc] = acc
//! ```
//! The axes have the names that they have in the forward nest, with the kinds exchanged: here
//! images and positions are summed. With a flipped kernel the input is read at `K-1-k` in place of
//! `k`.

use convgen_ir::nest::{
    Access, Affine, AxisKind, BinaryOp, Buffer, BufferId, Dim, Expr, Nest, Role, Stmt,
};
use convgen_ir::problem::{ConvProblem, SpatialAxis};

use super::build::{Iteration, fixed, nested, ordered};

/// The gradient of the weights.
pub(super) fn weights(problem: &ConvProblem) -> Nest {
    let mut nest = Nest::new("direct");
    let axes = Axes::new(&mut nest, problem);
    let input = activations(&mut nest, Role::Input, problem, problem.in_channels(), |s| s.input);
    let channels = problem.out_channels();
    let gradient = activations(&mut nest, Role::Gradient, problem, channels, SpatialAxis::output);
    let shape = problem.output_shape(1).into_iter().map(fixed).collect();
    let output = nest.add_buffer(Buffer::new("output", Role::Output, problem.elem(), shape));
    let value = |sum| Expr::fma(axes.read(input), Expr::Load(axes.gradient(gradient)), sum);
    let taps = axes.spatial.iter().map(|axis| axis.tap);
    let outer = [axes.group, axes.out_channel, axes.in_channel].into_iter().chain(taps);
    let index = [axes.out_channel_index(), axes.in_channel.index()].into_iter();
    let index = index.chain(axes.spatial.iter().map(|axis| axis.tap.index()));
    let dst = Access { buffer: output, index: index.collect() };
    summed(nest, outer.collect(), axes.positions(), dst, value)
}

/// The gradient of the bias.
pub(super) fn bias(problem: &ConvProblem) -> Nest {
    let mut nest = Nest::new("direct");
    let axes = Axes::new(&mut nest, problem);
    let channels = problem.out_channels();
    let gradient = activations(&mut nest, Role::Input, problem, channels, SpatialAxis::output);
    let shape = vec![fixed(channels)];
    let output = nest.add_buffer(Buffer::new("output", Role::Output, problem.elem(), shape));
    let value = |sum| Expr::binary(BinaryOp::Add, sum, Expr::Load(axes.gradient(gradient)));
    let dst = Access { buffer: output, index: vec![axes.out_channel_index()] };
    summed(nest, vec![axes.group, axes.out_channel], axes.positions(), dst, value)
}

/// `for outer: acc = 0; for inner: acc = value(acc); dst = acc`.
fn summed(
    mut nest: Nest,
    outer: Vec<Iteration>,
    inner: Vec<Iteration>,
    dst: Access,
    value: impl Fn(Expr) -> Expr,
) -> Nest {
    let elem = nest.buffer(dst.buffer).elem;
    let acc = nest.add_buffer(Buffer::new("acc", Role::Reg, elem, vec![]));
    let sum = Access { buffer: acc, index: vec![] };
    let add = Stmt::Store(sum.clone(), value(Expr::Load(sum.clone())));
    let mut body = vec![Stmt::Declare(acc), Stmt::Store(sum.clone(), Expr::f32(0.0))];
    body.extend(nested(inner.into_iter(), vec![add]));
    body.push(Stmt::Store(dst, Expr::Load(sum)));
    nest.body = nested(outer.into_iter(), body);
    nest
}

fn activations(
    nest: &mut Nest,
    role: Role,
    problem: &ConvProblem,
    channels: u64,
    size: impl Fn(&SpatialAxis) -> u64,
) -> BufferId {
    let sizes = problem.spatial().iter().map(|s| fixed(size(s))).collect();
    let shape = ordered(problem.layout(), Dim::Batch, fixed(channels), sizes);
    nest.add_buffer(Buffer::new(role.name(), role, problem.elem(), shape))
}

/// The loops, and where the tensors are read.
struct Axes<'p> {
    problem: &'p ConvProblem,
    batch: Iteration,
    group: Iteration,
    out_channel: Iteration,
    in_channel: Iteration,
    spatial: Vec<Axis>,
}

/// One spatial axis.
struct Axis {
    output: Iteration,
    tap: Iteration,
    /// What the tap of the output reads, and whether that may lie outside.
    read: Affine,
    padded: bool,
}

impl<'p> Axes<'p> {
    fn new(nest: &mut Nest, problem: &'p ConvProblem) -> Axes<'p> {
        let mut axis = |name: String, kind, extent| Iteration::new(nest, name, kind, extent);
        let batch = axis("n".to_string(), AxisKind::Reduction, Dim::Batch);
        let group = axis("g".to_string(), AxisKind::Spatial, fixed(problem.groups()));
        let mut channel =
            |name: &str, count| axis(name.to_string(), AxisKind::Spatial, fixed(count));
        let out_channel = channel("oc", problem.out_channels_per_group());
        let in_channel = channel("ic", problem.in_channels_per_group());
        let names = problem.axis_names().iter().zip(problem.spatial());
        let spatial = names.map(|(name, s)| {
            let output = axis(format!("o{name}"), AxisKind::Reduction, fixed(s.output()));
            let tap = axis(format!("k{name}"), AxisKind::Spatial, fixed(s.kernel));
            Axis::new(output, tap, s, problem.flip())
        });
        let spatial = spatial.collect();
        Axes { problem, batch, group, out_channel, in_channel, spatial }
    }

    fn positions(&self) -> Vec<Iteration> {
        let outputs = self.spatial.iter().map(|axis| axis.output);
        [self.batch].into_iter().chain(outputs).collect()
    }

    fn out_channel_index(&self) -> Affine {
        let per_group = self.problem.out_channels_per_group() as i64;
        &self.group.index().scaled(per_group) + &self.out_channel.index()
    }

    /// The element of the input that the tap of the output reads.
    fn read(&self, input: BufferId) -> Expr {
        let per_group = self.problem.in_channels_per_group() as i64;
        let channel = &self.group.index().scaled(per_group) + &self.in_channel.index();
        let positions = self.spatial.iter().map(|axis| axis.read.clone()).collect();
        let index = ordered(self.problem.layout(), self.batch.index(), channel, positions);
        let access = Access { buffer: input, index };
        match self.spatial.iter().any(|axis| axis.padded) {
            true => Expr::Pad(self.problem.padding_mode(), access),
            false => Expr::Load(access),
        }
    }

    /// The element of a tensor of the output's shape.
    fn gradient(&self, buffer: BufferId) -> Access {
        let positions = self.spatial.iter().map(|axis| axis.output.index()).collect();
        let channel = self.out_channel_index();
        let index = ordered(self.problem.layout(), self.batch.index(), channel, positions);
        Access { buffer, index }
    }
}

impl Axis {
    fn new(output: Iteration, tap: Iteration, s: &SpatialAxis, flip: bool) -> Axis {
        // The loop runs over the weights as they lie in memory, so that they are written in order.
        let turned = match flip {
            true => tap.index().scaled(-1).plus(s.kernel as i64 - 1),
            false => tap.index(),
        };
        let at_output = output.index().scaled(s.stride as i64);
        let read = (&at_output + &turned.scaled(s.dilation as i64)).plus(-s.pad_before);
        Axis { output, tap, read, padded: s.reads_padding(s.output()) }
    }
}
