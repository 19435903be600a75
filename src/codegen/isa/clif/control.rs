//! Loops, tasks and conditions.

use convgen_ir::nest::{Affine, AxisId, Dim, Guard, Loop, Stmt};
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{Block, BlockArg, InstBuilder, Value, types};

use super::{Bound, Emitter, LANE_NUMBERS, LANES, Lanes};
use crate::exact;

impl<'n> Emitter<'n, '_> {
    /// A loop over the given tasks; the task loops' variables are the digits of a task's number.
    pub(super) fn tasks(&mut self, first: Value, end: Value) {
        self.counted(first, end, false, |emitter, task| {
            let loops: Vec<&Loop> = emitter.nest.task_loops().collect();
            let mut rest = task;
            let mut digits = Vec::new();
            for (i, l) in loops.iter().enumerate().rev() {
                let digit = if i == 0 {
                    rest
                } else {
                    let trips = emitter.extent(l.hi, l.lo);
                    let digit = emitter.builder.ins().urem(rest, trips);
                    rest = emitter.builder.ins().udiv(rest, trips);
                    digit
                };
                digits.push(emitter.builder.ins().iadd_imm_s(digit, l.lo));
            }
            digits.reverse();
            emitter.task(&loops, &digits);
        });
    }

    /// Binds the task loops one after the other, then emits the body of the innermost.
    fn task(&mut self, loops: &[&'n Loop], digits: &[Value]) {
        let ([l, inner @ ..], [digit, digits @ ..]) = (loops, digits) else {
            return self.block(&self.nest.body, Lanes::SCALAR);
        };
        let outside = self.known.clone();
        self.known.enter(l);
        self.with_variable(l.axis, Bound::Runtime(*digit), |emitter| {
            emitter.hoist(l);
            match inner {
                [] => emitter.block(&l.body, Lanes::SCALAR),
                [_, ..] => emitter.task(inner, digits),
            }
        });
        self.known = outside;
    }

    fn extent(&mut self, hi: Dim, lo: i64) -> Value {
        match (hi, self.batch) {
            (Dim::Batch, Some(batch)) => batch,
            (Dim::Batch, None) => self.builder.ins().iconst(types::I64, 0),
            (Dim::Fixed(hi), _) => self.builder.ins().iconst(types::I64, hi.saturating_sub(lo)),
        }
    }

    /// A loop that stays a loop. Guards that bound its variable narrow its range, others are
    /// tested.
    pub(super) fn serial(&mut self, l: &'n Loop, lanes: Lanes) {
        if l.trip_count() == Some(1) && l.guards.is_empty() {
            self.known.enter(l);
            return self.with_variable(l.axis, Bound::Const(l.lo), |e| e.block(&l.body, lanes));
        }
        let (lo, hi, tested) = self.range(l);
        let runs = l.guards.is_empty() && l.trip_count().is_some();
        self.known.enter(&l.with_body(vec![]).unguarded());
        // What is tested holds inside the test only.
        let narrowed: Vec<Guard> =
            l.guards.iter().filter(|guard| !tested.contains(guard)).cloned().collect();
        self.known.assume(&narrowed);
        self.counted(lo, hi, runs, |emitter, value| {
            emitter.with_variable(l.axis, Bound::Runtime(value), |emitter| {
                emitter.hoist(l);
                if tested.is_empty() {
                    emitter.block(&l.body, lanes);
                } else {
                    emitter.tested(&tested, lanes, |emitter| emitter.block(&l.body, lanes));
                }
            });
        });
    }

    /// The first value of a loop's variable and one past the last, by the guards that bound it; and
    /// the other guards.
    pub(super) fn range(&mut self, l: &Loop) -> (Value, Value, Vec<Guard>) {
        let mut lo = self.builder.ins().iconst(types::I64, l.lo);
        let mut hi = self.extent(l.hi, 0);
        let mut tested = Vec::new();
        for guard in &l.guards {
            let Some(bound) = exact::ExactBound::of(guard, l.axis, &self.known) else {
                tested.push(guard.clone());
                continue;
            };
            let end = self.first_failing(&bound);
            let (condition, bound) = match guard {
                Guard::Below(..) => (IntCC::SignedLessThan, &mut hi),
                Guard::AtLeast(..) => (IntCC::SignedGreaterThan, &mut lo),
            };
            let narrower = self.builder.ins().icmp(condition, end, *bound);
            *bound = self.builder.ins().select(narrower, end, *bound);
        }
        (lo, hi, tested)
    }

    /// The first value of a loop's variable that reaches a limit.
    ///
    /// Division truncates; where the numerator is negative the result is at most zero, below which
    /// no loop starts.
    fn first_failing(&mut self, bound: &exact::ExactBound) -> Value {
        let numerator = self.sum(&bound.numerator, Lanes::SCALAR);
        match bound.step {
            1 => numerator,
            step => self.builder.ins().sdiv_imm_s(numerator, step),
        }
    }

    /// `for value in lo..hi { body(value) }`, for any `lo` and `hi`; `runs` if it is known that
    /// `lo < hi`.
    fn counted(&mut self, lo: Value, hi: Value, runs: bool, body: impl FnOnce(&mut Self, Value)) {
        let [inside, after] = [(); 2].map(|()| self.builder.create_block());
        let value = self.builder.append_block_param(inside, types::I64);
        if runs {
            self.builder.ins().jump(inside, &[BlockArg::Value(lo)]);
        } else {
            let runs = self.builder.ins().icmp(IntCC::SignedLessThan, lo, hi);
            self.builder.ins().brif(runs, inside, &[BlockArg::Value(lo)], after, &[]);
        }
        self.builder.switch_to_block(inside);
        self.new_block();
        body(self, value);
        let next = self.builder.ins().iadd_imm_s(value, 1);
        let again = self.builder.ins().icmp(IntCC::SignedLessThan, next, hi);
        self.builder.ins().brif(again, inside, &[BlockArg::Value(next)], after, &[]);
        self.builder.seal_block(inside);
        self.enter(after);
    }

    /// Goes on in a block to which every jump has been written.
    pub(super) fn enter(&mut self, block: Block) {
        self.builder.seal_block(block);
        self.builder.switch_to_block(block);
        self.new_block();
    }

    pub(super) fn unrolled(&mut self, l: &'n Loop, lanes: Lanes) {
        let outside = self.known.clone();
        for value in l.lo..l.hi.fixed().unwrap_or(l.lo) {
            self.known.enter(&Loop::iterations(l.axis, value, 1));
            self.with_variable(l.axis, Bound::Const(value), |emitter| {
                emitter.tested(&l.guards, lanes, |emitter| emitter.block(&l.body, lanes));
            });
            self.known = outside.clone();
        }
    }

    /// Groups of lanes, then single lanes. Vectors are those of the innermost loop: one around it
    /// is unrolled.
    pub(super) fn vector(&mut self, l: &'n Loop) {
        if let [Stmt::Loop(_)] = l.body.as_slice() {
            return self.unrolled(l, Lanes::SCALAR);
        }
        let hi = l.hi.fixed().unwrap_or(l.lo);
        let single = l.trip_count().unwrap_or(0).rem_euclid(LANES);
        let rest = hi.saturating_sub(single);
        let mut body = |emitter: &mut Self, lanes| emitter.block(&l.body, lanes);
        for start in (l.lo..rest).step_by(LANE_NUMBERS.len()) {
            let outside = self.known.clone();
            self.known.enter(&Loop::iterations(l.axis, start, LANES));
            self.all_or_each(l.axis, Lanes::group(l.axis, start), &l.guards, &mut body);
            self.known = outside;
        }
        for lane in rest..hi {
            self.single_lane(l.axis, lane, &l.guards, &mut body);
        }
    }

    /// Four lanes at once if the guards hold for all of them, else one by one.
    fn all_or_each(
        &mut self,
        axis: AxisId,
        lanes: Lanes,
        guards: &[Guard],
        body: &mut impl FnMut(&mut Self, Lanes),
    ) {
        let open: Vec<Guard> = guards.iter().filter(|g| !self.known.always(g)).cloned().collect();
        if open.is_empty() {
            return body(self, lanes);
        }
        let [all, each, after] = [(); 3].map(|()| self.builder.create_block());
        let condition = self.all_lanes(&open, lanes);
        self.builder.ins().brif(condition, all, &[], each, &[]);
        self.enter(all);
        let outside = self.known.clone();
        self.known.assume(&open);
        body(self, lanes);
        self.known = outside;
        self.builder.ins().jump(after, &[]);
        self.enter(each);
        for lane in lanes.values() {
            self.single_lane(axis, lane, &open, body);
        }
        self.builder.ins().jump(after, &[]);
        self.enter(after);
    }

    fn single_lane(
        &mut self,
        axis: AxisId,
        lane: i64,
        guards: &[Guard],
        body: &mut impl FnMut(&mut Self, Lanes),
    ) {
        let outside = self.known.clone();
        self.known.enter(&Loop::iterations(axis, lane, 1));
        self.with_variable(axis, Bound::Const(lane), |emitter| {
            emitter.tested(guards, Lanes::SCALAR, |emitter| body(emitter, Lanes::SCALAR));
        });
        self.known = outside;
    }

    /// An `if`, outside of vectors or inside them.
    pub(super) fn guarded(&mut self, guards: &'n [Guard], body: &'n [Stmt], lanes: Lanes) {
        let in_lanes = |axis: &AxisId| guards.iter().any(|guard| guard.sum().mentions(*axis));
        match lanes.axis.filter(in_lanes) {
            Some(axis) => {
                self.all_or_each(axis, lanes, guards, &mut |e, lanes| e.block(body, lanes));
            }
            None => self.tested(guards, lanes, |emitter| emitter.block(body, lanes)),
        }
    }

    /// Emits a body that runs only if all guards hold.
    fn tested(&mut self, guards: &[Guard], lanes: Lanes, body: impl FnOnce(&mut Self)) {
        if guards.iter().any(|guard| self.known.never(guard)) {
            return;
        }
        let open: Vec<Guard> = guards.iter().filter(|g| !self.known.always(g)).cloned().collect();
        if open.is_empty() {
            return body(self);
        }
        let condition = self.all_lanes(&open, lanes);
        let [inside, after] = [(); 2].map(|()| self.builder.create_block());
        self.builder.ins().brif(condition, inside, &[], after, &[]);
        self.enter(inside);
        let outside = self.known.clone();
        self.known.assume(&open);
        body(self);
        self.known = outside;
        self.builder.ins().jump(after, &[]);
        self.enter(after);
    }

    /// Whether the guards hold in every lane: tested in the lane where each is tightest.
    pub(super) fn all_lanes(&mut self, guards: &[Guard], lanes: Lanes) -> Value {
        let mut all = None;
        for guard in guards {
            let step = lanes.axis.map_or(0, |axis| guard.sum().coefficient(axis));
            let last = match guard {
                Guard::Below(..) => step > 0,
                Guard::AtLeast(..) => step < 0,
            };
            let far = lanes.start.saturating_add(lanes.width.saturating_sub(1));
            let start = if last { far } else { lanes.start };
            let holds = self.holds(guard, Lanes { start, ..lanes });
            all = Some(match all {
                Some(all) => self.builder.ins().band(all, holds),
                None => holds,
            });
        }
        all.unwrap_or_else(|| self.builder.ins().iconst(types::I8, 1))
    }

    fn holds(&mut self, guard: &Guard, lanes: Lanes) -> Value {
        let (condition, limit) = match guard {
            Guard::Below(_, limit) => (IntCC::SignedLessThan, *limit),
            Guard::AtLeast(_, limit) => (IntCC::SignedGreaterThanOrEqual, *limit),
        };
        let value = self.sum(guard.sum(), lanes);
        self.builder.ins().icmp_imm_s(condition, value, limit)
    }

    /// What is not known of an index lying in `0..extent`.
    pub(super) fn window(&self, index: &Affine, extent: Dim) -> Option<Window> {
        let Dim::Fixed(extent) = extent else { return None };
        let inside = [Guard::AtLeast(index.clone(), 0), Guard::Below(index.clone(), extent)];
        let open: Vec<Guard> =
            inside.into_iter().filter(|guard| !self.known.always(guard)).collect();
        (!open.is_empty()).then(|| Window { index: index.clone(), extent, open })
    }

    /// Whether all lanes lie inside the windows.
    pub(super) fn all_inside(&mut self, windows: &[Window], lanes: Lanes) -> Option<Value> {
        let mut all = None;
        for window in windows {
            let varies = lanes.axis.is_some_and(|axis| window.index.mentions(axis));
            let inside = if window.open.len() == 2 && !varies {
                // Both ends at once: a negative index is a huge unsigned one.
                let index = self.sum(&window.index, lanes);
                self.builder.ins().icmp_imm_u(IntCC::UnsignedLessThan, index, window.extent)
            } else {
                self.all_lanes(&window.open, lanes)
            };
            all = Some(match all {
                Some(all) => self.builder.ins().band(all, inside),
                None => inside,
            });
        }
        all
    }
}

/// A dimension of a padded load in which the index may lie outside.
pub(super) struct Window {
    pub(super) index: Affine,
    extent: i64,
    /// The ends that are not known to hold.
    open: Vec<Guard>,
}
