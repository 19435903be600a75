//! The defining sum of a convolution as a nest.
//!
//! ```text
//! for n, g, oc, o..: acc = bias; for ic, k..: acc = fma(input[o*s + k*d - p], weights[oc,ic,k], acc);
//!                    output[o] = epilogue(acc)
//! ```
//! Loads that can fall on padding are `pad` loads, all others are plain. A variable of a loop of
//! length one is left out of every index, so that later rewrites see the dimensions as they are.

use convgen_ir::elem::{ElemType, Layout};
use convgen_ir::epilogue::{ExtraArg, expand};
use convgen_ir::nest::{
    Access, Affine, AxisId, AxisKind, Buffer, BufferId, Dim, Expr, Loop, Nest, Role, Stmt,
};
use convgen_ir::problem::ConvProblem;

/// The unscheduled nest of any problem.
pub(super) fn nest(problem: &ConvProblem) -> Nest {
    Builder::new(problem).build()
}

/// One loop axis with its extent.
#[derive(Clone, Copy)]
struct Iteration {
    axis: AxisId,
    extent: Dim,
}

impl Iteration {
    /// The variable in an index: zero if it is always zero.
    fn index(self) -> Affine {
        match self.extent {
            Dim::Fixed(1) => Affine::constant(0),
            Dim::Fixed(_) | Dim::Batch => Affine::axis(self.axis),
        }
    }
}

struct Builder<'p> {
    problem: &'p ConvProblem,
    nest: Nest,
    batch: Iteration,
    group: Iteration,
    out_channel: Iteration,
    in_channel: Iteration,
    /// Output position and kernel tap of each spatial axis, outermost first.
    spatial: Vec<(Iteration, Iteration)>,
}

impl<'p> Builder<'p> {
    fn new(problem: &'p ConvProblem) -> Builder<'p> {
        let mut nest = Nest {
            name: "direct".to_string(),
            axes: vec![],
            buffers: vec![],
            locals: vec![],
            pack: vec![],
            body: vec![],
        };
        let mut axis = |name: String, kind, extent: u64| Iteration {
            axis: nest.add_axis(name, kind),
            extent: Dim::Fixed(extent as i64),
        };
        let mut batch = axis("n".to_string(), AxisKind::Spatial, 1);
        batch.extent = Dim::Batch;
        let group = axis("g".to_string(), AxisKind::Spatial, problem.groups());
        let out_channel =
            axis("oc".to_string(), AxisKind::Spatial, problem.out_channels_per_group());
        let names = problem.axis_names();
        let outputs: Vec<Iteration> = names
            .iter()
            .zip(problem.spatial())
            .map(|(name, s)| axis(format!("o{name}"), AxisKind::Spatial, s.output()))
            .collect();
        let in_channel =
            axis("ic".to_string(), AxisKind::Reduction, problem.in_channels_per_group());
        let spatial = names
            .iter()
            .zip(problem.spatial())
            .zip(outputs)
            .map(|((name, s), output)| {
                (output, axis(format!("k{name}"), AxisKind::Reduction, s.kernel))
            })
            .collect();
        Builder { problem, nest, batch, group, out_channel, in_channel, spatial }
    }

    fn build(mut self) -> Nest {
        let elem = self.problem.elem();
        let input = self.activations(Role::Input, "input", self.problem.in_channels(), |s| s.input);
        let weights_shape = self.problem.weights_shape().into_iter().map(fixed).collect();
        let weights = self.buffer(Role::Weights, "weights", elem, weights_shape);
        let channels = vec![fixed(self.problem.out_channels())];
        let bias =
            self.problem.bias().then(|| self.buffer(Role::Bias, "bias", elem, channels.clone()));
        let extras = self.extras(elem, &channels);
        let output = self.output_buffer(Role::Output, "output");
        let acc = self.buffer(Role::Reg, "acc", elem, vec![]);

        let sum = Access { buffer: acc, index: vec![] };
        let start = match bias {
            Some(bias) => {
                Expr::Load(Access { buffer: bias, index: vec![self.output_channel_index()] })
            }
            None => Expr::f32(0.0),
        };
        let mut body = vec![
            Stmt::Declare(acc),
            Stmt::Store(sum.clone(), start),
            self.reduction(input, weights, &sum),
        ];
        let result = self.epilogue(Expr::Load(sum), &extras, &mut body);
        body.push(Stmt::Store(Access { buffer: output, index: self.output_index() }, result));
        self.nest.body = self.spatial_loops(body);
        self.nest
    }

    fn buffer(&mut self, role: Role, name: &str, elem: ElemType, shape: Vec<Dim>) -> BufferId {
        self.nest.add_buffer(Buffer { name: name.to_string(), role, elem, shape })
    }

    fn activations(
        &mut self,
        role: Role,
        name: &str,
        channels: u64,
        extent: impl Fn(&convgen_ir::problem::SpatialAxis) -> u64,
    ) -> BufferId {
        let sizes = self.problem.spatial().iter().map(|s| fixed(extent(s))).collect();
        let shape = ordered(self.problem.layout(), Dim::Batch, fixed(channels), sizes);
        self.buffer(role, name, self.problem.elem(), shape)
    }

    fn output_buffer(&mut self, role: Role, name: &str) -> BufferId {
        self.activations(role, name, self.problem.out_channels(), |s| s.output())
    }

    /// One buffer for each epilogue operation that takes one, in order.
    fn extras(&mut self, elem: ElemType, channels: &[Dim]) -> Vec<BufferId> {
        let mut extras = Vec::new();
        for op in self.problem.epilogue() {
            let number = extras.len();
            match op.takes_extra() {
                Some(ExtraArg::Residual) => {
                    extras.push(self.output_buffer(Role::Residual, &format!("residual{number}")));
                }
                Some(ExtraArg::ChannelScale) => extras.push(self.buffer(
                    Role::Scale,
                    &format!("scale{number}"),
                    elem,
                    channels.to_vec(),
                )),
                None => {}
            }
        }
        extras
    }

    fn channel_index(&self, within: Iteration, per_group: u64) -> Affine {
        &self.group.index().scaled(per_group as i64) + &within.index()
    }

    fn output_channel_index(&self) -> Affine {
        self.channel_index(self.out_channel, self.problem.out_channels_per_group())
    }

    fn output_index(&self) -> Vec<Affine> {
        let positions = self.spatial.iter().map(|(output, _)| output.index()).collect();
        ordered(self.problem.layout(), self.batch.index(), self.output_channel_index(), positions)
    }

    fn input_load(&self, input: BufferId) -> Expr {
        let mut padded = false;
        let mut positions = Vec::new();
        for (s, (output, tap)) in self.problem.spatial().iter().zip(&self.spatial) {
            let at_output = output.index().scaled(s.stride as i64);
            let at_tap = tap.index().scaled(s.dilation as i64);
            positions.push((&at_output + &at_tap).plus(-s.pad_before));
            let last = (s.output() - 1) * s.stride + s.extent() - 1;
            padded |= s.pad_before > 0 || last as i64 - s.pad_before >= s.input as i64;
        }
        let channel = self.channel_index(self.in_channel, self.problem.in_channels_per_group());
        let index = ordered(self.problem.layout(), self.batch.index(), channel, positions);
        let access = Access { buffer: input, index };
        if padded { Expr::Pad(access) } else { Expr::Load(access) }
    }

    fn reduction(&self, input: BufferId, weights: BufferId, sum: &Access) -> Stmt {
        let taps = self.spatial.iter().map(|(_, tap)| tap.index());
        let index = [self.output_channel_index(), self.in_channel.index()].into_iter().chain(taps);
        let weight = Expr::Load(Access { buffer: weights, index: index.collect() });
        let value = Expr::fma(self.input_load(input), weight, Expr::Load(sum.clone()));
        let taps = self.spatial.iter().map(|(_, tap)| *tap);
        nested(taps.chain([self.in_channel]), Stmt::Store(sum.clone(), value))
    }

    fn epilogue(&mut self, sum: Expr, extras: &[BufferId], out: &mut Vec<Stmt>) -> Expr {
        let mut extras = extras.iter();
        let mut value = sum;
        for op in self.problem.epilogue() {
            let extra = op.takes_extra().zip(extras.as_slice().first()).map(|(kind, buffer)| {
                let index = match kind {
                    ExtraArg::Residual => self.output_index(),
                    ExtraArg::ChannelScale => vec![self.output_channel_index()],
                };
                Expr::Load(Access { buffer: *buffer, index })
            });
            if extra.is_some() {
                extras.next();
            }
            value = expand::expand(op, &mut self.nest, value, extra, out);
        }
        value
    }

    fn spatial_loops(&self, body: Vec<Stmt>) -> Vec<Stmt> {
        let positions = self.spatial.iter().map(|(output, _)| *output);
        let axes = [self.batch, self.group, self.out_channel].into_iter().chain(positions);
        let axes: Vec<Iteration> = axes.collect();
        axes.into_iter()
            .rev()
            .fold(body, |body, it| vec![Stmt::Loop(Loop::new(it.axis, it.extent, body))])
    }
}

fn fixed(extent: u64) -> Dim {
    Dim::Fixed(extent as i64)
}

/// Loops around a statement, the first one outermost.
fn nested(axes: impl DoubleEndedIterator<Item = Iteration>, innermost: Stmt) -> Stmt {
    axes.rev().fold(innermost, |stmt, it| Stmt::Loop(Loop::new(it.axis, it.extent, vec![stmt])))
}

/// Batch, channel and positions in the order of a layout.
fn ordered<T>(layout: Layout, batch: T, channel: T, positions: Vec<T>) -> Vec<T> {
    let mut dims = vec![batch];
    match layout {
        Layout::ChannelsFirst => {
            dims.push(channel);
            dims.extend(positions);
        }
        Layout::ChannelsLast => {
            dims.extend(positions);
            dims.push(channel);
        }
    }
    dims
}
