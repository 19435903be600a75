//! Which code the micro-kernel emitter takes: its rules, as far as they decide who emits a loop.
//!
//! A scope is taken if all its work is in vectors, its register tiles leave some registers, its
//! straight code is short enough, and each condition in it is known, narrows a loop, or counts
//! lanes. Loops around such scopes are taken with them, the outermost that is fit.

use convgen_ir::PaddingMode;
use convgen_ir::bounds::{Context, Range};
use convgen_ir::nest::{
    Access, AxisId, BufferId, Dim, Expr, Guard, Loop, Mode, Nest, Role, Stmt, has_conditions,
    in_two_vectors,
};

use crate::target::Target;

/// Vector registers that a micro-kernel needs besides its tiles.
const OPERANDS: i64 = 3;

/// The same where lanes that lie apart are loaded: four vectors are transposed by a fifth.
const TRANSPOSED: i64 = 5;

/// Neighbours that are loaded together.
const QUAD: i64 = 4;

/// Steps of straight code that a micro-kernel has at most.
const MOST_STEPS: f64 = 4096.0;

/// The emitter, as the nest meets it.
#[derive(Clone, Copy)]
pub(super) struct Fit<'n> {
    pub(super) nest: &'n Nest,
    pub(super) target: &'n Target,
    pub(super) batch: i64,
}

/// The lanes around a statement.
#[derive(Clone, Copy, Default)]
struct Lanes {
    /// The innermost vector loop.
    axis: Option<AxisId>,
    /// Whether it is in another one.
    two: bool,
    vectors: f64,
    /// Whether some are left out by a condition.
    limited: bool,
}

/// What a scope has come to so far.
#[derive(Clone, Default)]
struct Size {
    steps: f64,
    cells: i64,
    most_cells: i64,
    /// Whether lanes that lie apart are loaded.
    transposes: bool,
    /// Loops that stay loops inside the scope.
    loops: Vec<AxisId>,
    /// Loops of several iterations that are unrolled around the statement at hand.
    unrolled: Vec<AxisId>,
    /// Those of them whose iterations are alike, and how many these are.
    written: Vec<(AxisId, f64)>,
}

impl Fit<'_> {
    /// Whether a part of a block becomes a micro-kernel.
    pub(super) fn takes(&self, scope: &[Stmt], known: &Context) -> bool {
        let mut size = Size::default();
        if self.target.isa().vectors().is_none()
            || !self.block(scope, Lanes::default(), known, &mut size)
        {
            return false;
        }
        let operands = if size.transposes { TRANSPOSED } else { OPERANDS };
        size.most_cells + operands <= i64::from(self.target.registers()) && size.steps <= MOST_STEPS
    }

    fn block(&self, block: &[Stmt], lanes: Lanes, known: &Context, size: &mut Size) -> bool {
        let outside = size.cells;
        let fits = block.iter().enumerate().all(|(i, stmt)| match stmt {
            Stmt::Loop(l) => self.looped(l, lanes, known, size),
            Stmt::If(guards, body) => {
                let open: Vec<&Guard> = guards.iter().filter(|g| !known.always(g)).collect();
                let limited = Lanes { limited: !open.is_empty() || lanes.limited, ..lanes };
                guards.iter().any(|guard| known.never(guard))
                    || (self.limits(&open, lanes, &size.loops)
                        && self.block(body, limited, known, size))
            }
            Stmt::Declare(id) => {
                size.cells += self.cells(*id, &block[i + 1..]);
                size.most_cells = size.most_cells.max(size.cells);
                self.nest.buffer(*id).role == Role::Reg
            }
            Stmt::Let(_, value) => self.statement(None, value, lanes, known, size),
            Stmt::Store(to, value) => self.statement(Some(to), value, lanes, known, size),
        });
        size.cells = outside;
        fits
    }

    fn looped(&self, l: &Loop, lanes: Lanes, known: &Context, size: &mut Size) -> bool {
        let mut inner = known.clone();
        inner.enter(&l.with_body(vec![]).unguarded());
        let open = l.guards.iter().any(|guard| !inner.always(guard));
        inner.assume(&l.guards);
        let trips = l.trip_count().unwrap_or(i64::MAX);
        match l.mode {
            Mode::Parallel => false,
            Mode::Serial if trips > 1 || open => {
                size.loops.push(l.axis);
                let fits = self.block(&l.body, lanes, &inner, size);
                size.loops.pop();
                fits
            }
            Mode::Serial | Mode::Unroll | Mode::Vector if open => false,
            Mode::Serial | Mode::Unroll => self.unrolled(l, lanes, known, size),
            Mode::Vector => {
                let width = i64::from(self.target.lanes());
                let vectors = (trips as u64).div_ceil(width as u64) as f64;
                let two = lanes.axis.is_some();
                let lanes = Lanes { axis: Some(l.axis), two, vectors, ..lanes };
                self.block(&l.body, lanes, &inner, size)
            }
        }
    }

    fn unrolled(&self, l: &Loop, lanes: Lanes, known: &Context, size: &mut Size) -> bool {
        let several = l.hi.at(self.batch) - l.lo > 1;
        size.unrolled.extend(several.then_some(l.axis));
        let fits = match has_conditions(&l.body) {
            true => self.each(l, lanes, known, size),
            false => self.alike(l, lanes, known, size),
        };
        size.unrolled.truncate(size.unrolled.len() - usize::from(several));
        fits
    }

    fn alike(&self, l: &Loop, lanes: Lanes, known: &Context, size: &mut Size) -> bool {
        let mut inner = known.clone();
        inner.enter(l);
        size.written.push((l.axis, (l.hi.at(self.batch) - l.lo).max(0) as f64));
        let fits = self.block(&l.body, lanes, &inner, size);
        size.written.pop();
        fits
    }

    /// Where something depends on the value of the variable, each is looked at by itself.
    fn each(&self, l: &Loop, lanes: Lanes, known: &Context, size: &mut Size) -> bool {
        (l.lo..l.hi.at(self.batch)).all(|value| {
            let mut inner = known.clone();
            inner.enter(&Loop { lo: value, ..Loop::new(l.axis, Dim::Fixed(value + 1), vec![]) });
            self.block(&l.body, lanes, &inner, size) && size.steps <= MOST_STEPS
        })
    }

    /// Whether open conditions are one that counts lanes.
    fn limits(&self, open: &[&Guard], lanes: Lanes, loops: &[AxisId]) -> bool {
        match (open, lanes.axis) {
            ([], _) => true,
            ([Guard::Below(sum, _)], Some(axis)) => {
                sum.coefficient(axis) == 1
                    && !lanes.two
                    && !lanes.limited
                    && loops.iter().all(|inner| sum.coefficient(*inner) == 0)
            }
            (_, _) => false,
        }
    }

    fn statement(
        &self,
        to: Option<&Access>,
        value: &Expr,
        lanes: Lanes,
        known: &Context,
        size: &mut Size,
    ) -> bool {
        let mut fits = lanes.axis.is_some() || to.is_none();
        let copies: f64 = size.written.iter().map(|(_, trips)| trips).product();
        let mut steps = copies * lanes.vectors;
        value.visit(&mut |expr| match expr {
            Expr::Load(access) => {
                // Lanes of a register are permuted, wherever they are.
                let memory = self.nest.buffer(access.buffer).role != Role::Reg;
                fits &= !memory || lanes.two || !lanes.limited || self.stride(access, lanes) <= 1;
                size.transposes |= memory && self.transposes(access, lanes, size);
                steps += self.loads(access, lanes, size);
            }
            Expr::Pad(mode, access) => {
                fits &= self.pads(*mode, access, lanes, known, &size.loops);
                size.transposes |= self.transposes(access, lanes, size);
                steps += self.loads(access, lanes, size);
            }
            Expr::Unary(..) | Expr::Binary(..) | Expr::Select { .. } => {
                steps += copies * lanes.vectors;
            }
            // The addition of a sum is the store to its register.
            Expr::Const(_) | Expr::Local(_) | Expr::Fma(..) => {}
        });
        size.steps += steps;
        fits
    }

    /// Loads of an access at most, equal ones once.
    fn loads(&self, access: &Access, lanes: Lanes, size: &Size) -> f64 {
        if self.nest.buffer(access.buffer).role == Role::Reg {
            return 0.0;
        }
        let moves = |axis: &AxisId| access.index.iter().any(|index| index.coefficient(*axis) != 0);
        let written = size.written.iter().filter(|(axis, _)| moves(axis));
        let vectors = if lanes.axis.is_some_and(|axis| moves(&axis)) { lanes.vectors } else { 1.0 };
        written.map(|(_, trips)| trips).product::<f64>() * vectors
    }

    /// Whether it is known where a padded load lies outside, or the lanes tell.
    fn pads(
        &self,
        mode: PaddingMode,
        access: &Access,
        lanes: Lanes,
        known: &Context,
        loops: &[AxisId],
    ) -> bool {
        let mut open = vec![];
        for (index, dim) in access.index.iter().zip(&self.nest.buffer(access.buffer).shape) {
            let Dim::Fixed(extent) = dim else { continue };
            let ends = [Guard::AtLeast(index.clone(), 0), Guard::Below(index.clone(), *extent)];
            if mode == PaddingMode::Zeros && ends.iter().any(|guard| known.never(guard)) {
                return true;
            }
            open.extend(ends.into_iter().filter(|guard| !known.always(guard)));
        }
        if open.is_empty() {
            return lanes.two || !lanes.limited || self.stride(access, lanes) <= 1;
        }
        let lane_alone = |guard: &Guard| {
            let sum = guard.sum();
            let number = |axis| matches!(known.range(axis), Some(Range::Known(lo, hi)) if lo == hi);
            !lanes.two
                && sum.terms().iter().all(|(axis, c)| match Some(*axis) == lanes.axis {
                    true => *c == 1,
                    false => number(*axis),
                })
        };
        mode == PaddingMode::Zeros
            && (lanes.two || self.stride(access, lanes) == 1)
            && (open.iter().all(lane_alone)
                || self.limits(
                    &open.iter().collect::<Vec<_>>(),
                    Lanes { limited: false, ..lanes },
                    loops,
                ))
    }

    /// Vector registers of a tile.
    fn cells(&self, tile: BufferId, scope: &[Stmt]) -> i64 {
        let shape = &self.nest.buffer(tile).shape;
        let in_row = if in_two_vectors(tile, scope) { 2 } else { 1 };
        let (rows, row) = shape.split_at(shape.len().saturating_sub(in_row));
        let product = |dims: &[Dim]| {
            dims.iter().fold(1_i64, |product, dim| product.saturating_mul(dim.at(self.batch)))
        };
        let vectors = (product(row) as u64).div_ceil(u64::from(self.target.lanes())) as i64;
        product(rows).saturating_mul(vectors)
    }

    /// Whether lanes lie apart, and neighbours of each are loaded too.
    fn transposes(&self, access: &Access, lanes: Lanes, size: &Size) -> bool {
        let near = |axis| (1..QUAD).contains(&self.step(access, axis));
        !lanes.two && self.stride(access, lanes) > 1 && size.unrolled.iter().any(|axis| near(*axis))
    }

    /// Elements between neighbouring lanes.
    fn stride(&self, access: &Access, lanes: Lanes) -> i64 {
        lanes.axis.map_or(0, |axis| self.step(access, axis))
    }

    /// Elements by which an access moves with a variable.
    fn step(&self, access: &Access, axis: AxisId) -> i64 {
        let strides = self.nest.buffer(access.buffer).strides();
        let indices = access.index.iter().zip(strides);
        indices.map(|(index, s)| index.coefficient(axis) * s).sum::<i64>().abs()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codegen::Entry;
    use crate::codegen::clif;
    use crate::cost::{Rates, cost};
    use crate::scheduler::space::Space;
    use crate::target::{Caches, Isa};
    use crate::tune::search::Draw;

    /// Candidates drawn for each problem and instruction set.
    const DRAWN: usize = 24;

    /// Whether a prediction says that the emitter leaves a register tile to Cranelift.
    fn leaves(cost: &crate::cost::Cost) -> bool {
        cost.terms.iter().any(|term| term.what.contains("Cranelift"))
    }

    #[test]
    fn the_model_knows_what_the_emitter_takes() {
        let problems = [
            "conv2d ic16 oc48 ih14 iw14 kh3 kw3 ph1 pw1 bias | relu",
            "conv2d ic64 oc40 ih9 iw9 kh1 kw1",
            "conv2d g40 ic40 oc40 ih12 iw12 kh3 kw3 ph1 pw1 sh2 sw2",
            "conv2d nchw ic8 oc20 ih19 iw19 kh3 kw3 ph1 pw1",
            "conv1d ic4 oc24 iw60 kw5 pw2",
        ];
        let (mut alike, mut all) = (0, 0);
        for isa in [Isa::Avx2, Isa::Avx512] {
            let triple = "x86_64-unknown-linux-gnu".parse().unwrap();
            let target = Target::new(triple, isa, true, Caches::TYPICAL, 1).unwrap();
            let flags = clif::isa(&target, false, clif::Allocator::Backtracking).unwrap();
            let mut context = cranelift_frontend::FunctionBuilderContext::new();
            let mut draw = Draw(1);
            for problem in problems {
                let problem = problem.parse().unwrap();
                let space = &Space::of(&problem, &target)[0];
                let drawn = (0..DRAWN).map(|_| space.sample(|below| draw.below(below)));
                for candidate in std::iter::once(space.default_candidate()).chain(drawn) {
                    let (algorithm, schedule) = (candidate.algorithm, &candidate.schedule);
                    let lowered = crate::stages::lower_for(&target, &problem, algorithm, schedule);
                    let Ok(nests) = lowered else { continue };
                    let unfit = nests.iter().any(|nest| {
                        !clif::emit(nest, Entry::Body, &target, &*flags, &mut context)
                            .unfit
                            .is_empty()
                    });
                    let cost = cost(&nests, &target, &Rates::nominal(&target), 1, 1);
                    alike += u32::from(leaves(&cost) == unfit);
                    all += 1;
                }
            }
        }
        // Registers are counted, not allocated.
        assert!(alike * 100 >= all * 97, "{alike} of {all}");
    }
}
