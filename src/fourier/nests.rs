//! The generated stages: the products of spectra, and what makes outputs of sums.

use convgen_ir::elem::Layout;
use convgen_ir::epilogue::{ExtraArg, expand};
use convgen_ir::nest::{
    Access, Affine, AxisId, AxisKind, BinaryOp, Buffer, BufferId, Dim, Expr, Guard, Loop, Mode,
    Nest, Role, Stmt,
};
use convgen_ir::parse::parse_nest;
use convgen_ir::problem::ConvProblem;

use super::plan::Plan;
use crate::error::Error;

/// Output channels that share the loads of an input spectrum in registers: with real and imaginary
/// sums eight registers, which hide the latency of two units and leave operands to every target.
const MAX_ROWS: u64 = 4;

impl Plan {
    /// The products of one task: a complex number's parts lie a vector apart. Each complex
    /// multiplication with a conjugate is four multiply-adds in the order written; the conjugate
    /// was taken when the weights were packed.
    ///
    /// # Errors
    /// [`Error::Codegen`] if this text is no nest, which would be a bug.
    pub fn products(&self) -> Result<Nest, Error> {
        let Plan { elem, in_channels, block, lanes, .. } = self;
        let vectors = self.vectors();
        let rows = (1..=MAX_ROWS).rev().find(|rows| block.is_multiple_of(*rows)).unwrap_or(1);
        let tiles = block / rows;
        let text = format!(
            "nest fourier_products {{
               input {elem}[{vectors},{in_channels},2,{lanes}]
               weights {elem}[{vectors},{block},{in_channels},2,{lanes}]
               output {elem}[{vectors},{block},2,{lanes}]
               for v in 0..{vectors} {{ for oc.o in 0..{tiles} {{
                 reg acc {elem}[{rows},2,{lanes}]
                 unroll oc in 0..{rows} {{ unroll z in 0..2 {{ vector f in 0..{lanes} {{
                   acc[oc,z,f] = 0.0
                 }} }} }}
                 reduce ic in 0..{in_channels} {{ unroll oc in 0..{rows} {{ vector f in 0..{lanes} {{
                   acc[oc,0,f] = fma(input[v,ic,0,f], weights[v,oc.o*{rows}+oc,ic,0,f], acc[oc,0,f])
                   acc[oc,0,f] = fma(neg(input[v,ic,1,f]), weights[v,oc.o*{rows}+oc,ic,1,f], acc[oc,0,f])
                   acc[oc,1,f] = fma(input[v,ic,0,f], weights[v,oc.o*{rows}+oc,ic,1,f], acc[oc,1,f])
                   acc[oc,1,f] = fma(input[v,ic,1,f], weights[v,oc.o*{rows}+oc,ic,0,f], acc[oc,1,f])
                 }} }} }}
                 unroll oc in 0..{rows} {{ unroll z in 0..2 {{ vector f in 0..{lanes} {{
                   output[v,oc.o*{rows}+oc,z,f] = acc[oc,z,f]
                 }} }} }}
               }} }}
             }}"
        );
        Ok(parse_nest(&text)?.0)
    }

    /// Bias and epilogue of a tile's sums, which are the nest's input; its tasks are the kernel's.
    pub fn finish(&self, problem: &ConvProblem) -> Nest {
        Finish::new(self, problem).build()
    }
}

/// A loop, and the part of an index it is.
struct Level {
    axis: AxisId,
    extent: Dim,
    mode: Mode,
    guards: Vec<Guard>,
}

struct Finish<'p> {
    plan: &'p Plan,
    problem: &'p ConvProblem,
    nest: Nest,
    levels: Vec<Level>,
}

impl<'p> Finish<'p> {
    fn new(plan: &'p Plan, problem: &'p ConvProblem) -> Finish<'p> {
        Finish { plan, problem, nest: Nest::new("fourier_finish"), levels: vec![] }
    }

    /// A further loop, inside of those before it; its variable.
    fn level(&mut self, name: &str, extent: Dim, mode: Mode) -> Affine {
        let axis = self.nest.add_axis(name, AxisKind::Spatial);
        self.levels.push(Level { axis, extent, mode, guards: vec![] });
        Affine::axis(axis)
    }

    fn count(&mut self, name: &str, extent: u64, mode: Mode) -> Affine {
        self.level(name, Dim::Fixed(extent as i64), mode)
    }

    fn build(mut self) -> Nest {
        let plan = self.plan;
        let names = self.problem.axis_names();
        let batch = self.level("n", Dim::Batch, Mode::Parallel);
        let group = self.count("g", plan.groups, Mode::Parallel);
        let mut tiles = Vec::new();
        for (axis, name) in plan.axes.iter().zip(names) {
            tiles.push(self.count(&format!("o{name}.o"), axis.tiles, Mode::Parallel));
        }
        let outer = self.count("oc.o", plan.out_channels / plan.block, Mode::Parallel);
        let within = self.count("oc.i", plan.block, Mode::Serial);
        let channel = &group.scaled(plan.out_channels as i64) + &outer.scaled(plan.block as i64);
        let channel = &channel + &within;
        let mut read = vec![within];
        let mut positions = Vec::new();
        for (number, (axis, name)) in plan.axes.iter().zip(names).enumerate() {
            let inner = self.inside(number, &format!("o{name}"));
            let position = &tiles[number].scaled(axis.tile as i64) + &inner;
            if axis.tile * axis.tiles > axis.conv.output()
                && let Some(level) = self.levels.last_mut()
            {
                level.guards.push(Guard::Below(position.clone(), axis.conv.output() as i64));
            }
            positions.push(position);
            read.push(inner.scaled(axis.conv.stride as i64));
        }
        let index =
            crate::algorithm::in_layout(self.problem.layout(), batch, channel.clone(), positions);
        self.write(read, channel, index)
    }

    /// The outputs of a tile along an axis: vectors where the last one is contiguous.
    fn inside(&mut self, number: usize, name: &str) -> Affine {
        let axis = self.plan.axes[number];
        let last = number + 1 == self.plan.axes.len();
        let contiguous =
            self.problem.layout() == Layout::ChannelsFirst || self.problem.result_channels() == 1;
        let lanes = self.plan.lanes.min(axis.tile);
        let vectors = lanes > 1 && axis.tile.is_multiple_of(lanes);
        if !(last && contiguous && axis.conv.stride == 1 && vectors) {
            return self.count(&format!("{name}.i"), axis.tile, Mode::Serial);
        }
        let vectors = self.count(&format!("{name}.i"), axis.tile / lanes, Mode::Serial);
        let lane = self.count(&format!("{name}.l"), lanes, Mode::Vector);
        &vectors.scaled(lanes as i64) + &lane
    }

    fn write(mut self, read: Vec<Affine>, channel: Affine, index: Vec<Affine>) -> Nest {
        let (rows, columns) = self.plan.sums();
        let fixed = |extent: u64| Dim::Fixed(extent as i64);
        let mut sums = vec![fixed(self.plan.block)];
        sums.extend((self.plan.axes.len() > 1).then(|| fixed(rows)));
        sums.push(fixed(columns));
        let input = self.buffer(Role::Input, "input", sums);
        let channels = vec![fixed(self.problem.result_channels())];
        let mut value = Expr::Load(Access { buffer: input, index: read });
        if self.problem.bias() {
            let bias = self.buffer(Role::Bias, "bias", channels.clone());
            let bias = Expr::Load(Access { buffer: bias, index: vec![channel.clone()] });
            value = Expr::binary(BinaryOp::Add, value, bias);
        }
        let mut shape: Vec<Dim> = self.problem.output_shape(1).into_iter().map(fixed).collect();
        shape[0] = Dim::Batch;
        let mut extras: Vec<Option<(BufferId, Vec<Affine>)>> = Vec::new();
        for op in self.problem.epilogue() {
            let number = extras.iter().flatten().count();
            extras.push(op.takes_extra().map(|kind| match kind {
                ExtraArg::Residual => {
                    let name = format!("residual{number}");
                    (self.buffer(Role::Residual, &name, shape.clone()), index.clone())
                }
                ExtraArg::ChannelScale => {
                    let name = format!("scale{number}");
                    (self.buffer(Role::Scale, &name, channels.clone()), vec![channel.clone()])
                }
            }));
        }
        let output = self.buffer(Role::Output, "output", shape);
        let mut body = Vec::new();
        for (op, extra) in self.problem.epilogue().iter().zip(extras) {
            let extra = extra.map(|(buffer, index)| Expr::Load(Access { buffer, index }));
            value = expand::expand(op, &mut self.nest, value, extra, &mut body);
        }
        body.push(Stmt::Store(Access { buffer: output, index }, value));
        let nested = self.levels.into_iter().rev().fold(body, |body, level| {
            let Level { axis, extent, mode, guards } = level;
            vec![Stmt::Loop(Loop { mode, guards, ..Loop::new(axis, extent, body) })]
        });
        self.nest.body = nested;
        self.nest
    }

    fn buffer(&mut self, role: Role, name: &str, shape: Vec<Dim>) -> BufferId {
        self.nest.add_buffer(Buffer::new(name, role, self.problem.elem(), shape))
    }
}
