//! Loads whose padding is made of the input: an index outside stands for another one inside.
//!
//! ```text
//! reflect(x[i,c])  ->  load x + fold(i)*stride + c
//! ```
//! `fold` is [`PaddingMode::source`] in integer operations, of which only those are written that
//! the range of the index asks for. It is computed where the loop that decides the index begins;
//! vectors over a dimension that is not folded stay vectors.

use rustc_hash::FxHashMap as HashMap;

use convgen_ir::PaddingMode;
use convgen_ir::nest::{Access, Affine, AxisId, BufferId, Loop};
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{BlockArg, InstBuilder, Value};

use super::control::Window;
use super::expr::LoadKey;
use super::{Bound, Emitter, Lanes, Terms};
use crate::exact;

/// An index by its runtime terms and its number, and what becomes of it: the mode, the extent, and
/// the bytes between elements.
type FoldKey = (Terms, i64, PaddingMode, i64, i64);

/// A pointer: the buffer, the runtime terms, and the folded offsets added to it.
type Place = (BufferId, Terms, Vec<Value>);

/// Offsets in bytes of folded indices, and the pointers made of them.
#[derive(Default)]
pub(super) struct FoldCache {
    /// Those computed at the top of a loop, which hold to its end, innermost loop last.
    hoisted: HashMap<FoldKey, Value>,
    order: Vec<FoldKey>,
    /// Those of the current straight line of code.
    here: HashMap<FoldKey, Value>,
    pointers: HashMap<Place, Value>,
}

impl FoldCache {
    pub(super) fn depth(&self) -> usize {
        self.order.len()
    }

    /// Forgets what was computed at the top of a loop that was left.
    pub(super) fn truncate(&mut self, depth: usize) {
        for key in self.order.drain(depth..) {
            self.hoisted.remove(&key);
        }
    }

    /// Forgets what was computed in a line of code that was left.
    pub(super) fn clear(&mut self) {
        self.here.clear();
        self.pointers.clear();
    }

    fn get(&self, key: &FoldKey) -> Option<Value> {
        self.hoisted.get(key).or_else(|| self.here.get(key)).copied()
    }
}

/// The offset of a folded index.
enum Folded {
    /// A number of elements along the dimension.
    Number(i64),
    /// Bytes, in the code.
    Bytes(Value),
}

impl Emitter<'_, '_> {
    /// A load of what the mode finds, which is no zeros.
    pub(super) fn extended(&mut self, mode: PaddingMode, access: &Access, lanes: Lanes) -> Value {
        let open = self.open_dims(access);
        if open.is_empty() {
            return self.load(access, lanes);
        }
        let moves = |dim: &usize| lanes.axis.is_some_and(|axis| access.index[*dim].mentions(axis));
        let (by_lane, others): (Vec<usize>, Vec<usize>) = open.into_iter().partition(moves);
        match lanes.axis {
            Some(axis) if !by_lane.is_empty() => {
                self.extended_lanes(mode, access, (axis, lanes), &by_lane, &others)
            }
            Some(_) | None => self.load_folded(mode, access, &others, lanes),
        }
    }

    /// The dimensions in which the index may be outside.
    fn open_dims(&self, access: &Access) -> Vec<usize> {
        let shape = &self.nest.buffer(access.buffer).shape;
        let dims = access.index.iter().zip(shape).enumerate();
        dims.filter(|(_, (i, extent))| self.window(i, **extent).is_some()).map(|(d, _)| d).collect()
    }

    /// One load where all lanes are inside, else one a lane.
    fn extended_lanes(
        &mut self,
        mode: PaddingMode,
        access: &Access,
        (axis, lanes): (AxisId, Lanes),
        by_lane: &[usize],
        others: &[usize],
    ) -> Value {
        let shape = &self.nest.buffer(access.buffer).shape;
        let windows = by_lane.iter().filter_map(|d| self.window(&access.index[*d], shape[*d]));
        let windows: Vec<Window> = windows.collect();
        let Some(inside) = self.all_inside(&windows, lanes) else {
            return self.load_folded(mode, access, others, lanes);
        };
        let [all, each, after] = [(); 3].map(|()| self.builder.create_block());
        let result = self.builder.append_block_param(after, lanes.float());
        self.builder.ins().brif(inside, all, &[], each, &[]);
        self.enter(all);
        let value = self.load_folded(mode, access, others, lanes);
        self.builder.ins().jump(after, &[BlockArg::Value(value)]);
        self.enter(each);
        let values = lanes.values().map(|lane| {
            self.variables.push((axis, Bound::Const(lane)));
            let outside = self.known.clone();
            self.known.enter(&Loop::iterations(axis, lane, 1));
            let value = self.extended(mode, access, Lanes::SCALAR);
            self.known = outside;
            self.variables.pop();
            value
        });
        let value = self.gather(values);
        self.builder.ins().jump(after, &[BlockArg::Value(value)]);
        self.enter(after);
        result
    }

    /// A load with the indices of some dimensions folded, on which the lanes do not depend.
    fn load_folded(
        &mut self,
        mode: PaddingMode,
        access: &Access,
        folded: &[usize],
        lanes: Lanes,
    ) -> Value {
        let buffer = self.nest.buffer(access.buffer);
        let strides = buffer.strides();
        let extents: Vec<i64> = buffer.shape.iter().map(|dim| dim.fixed().unwrap_or(1)).collect();
        let plain = self.unfolded(access, folded);
        let stride = lanes.axis.map(|axis| plain.coefficient(axis));
        let (terms, mut constant) = self.resolve(&plain, lanes);
        let mut folds = Vec::new();
        for d in folded {
            let step = exact::bytes(strides[*d], buffer.elem);
            match self.fold((mode, extents[*d], step), &access.index[*d], lanes) {
                Folded::Number(index) => {
                    constant = constant.wrapping_add(index.wrapping_mul(strides[*d]));
                }
                Folded::Bytes(value) => folds.push(value),
            }
        }
        self.cached_load(LoadKey { buffer: access.buffer, terms, folds, constant, stride })
    }

    /// The offset in elements of all dimensions but some.
    fn unfolded(&self, access: &Access, folded: &[usize]) -> Affine {
        let mut strides = self.nest.buffer(access.buffer).strides();
        for d in folded {
            strides[*d] = 0;
        }
        exact::offset_modulo(access, &strides)
    }

    fn fold(
        &mut self,
        (mode, extent, step): (PaddingMode, i64, i64),
        index: &Affine,
        lanes: Lanes,
    ) -> Folded {
        let (terms, constant) = self.resolve(index, lanes);
        if terms.is_empty() {
            // No zeros: there is always a source.
            return Folded::Number(mode.source(constant, extent).unwrap_or(0));
        }
        let key = (terms, constant, mode, extent, step);
        if let Some(value) = self.folds.get(&key) {
            return Folded::Bytes(value);
        }
        let value = self.sum(index, lanes);
        let value = self.source(mode, extent, index, value);
        let value = self.times(value, step);
        self.folds.here.insert(key, value);
        Folded::Bytes(value)
    }

    /// [`PaddingMode::source`] of an index, as far as its range needs it.
    fn source(&mut self, mode: PaddingMode, extent: i64, index: &Affine, value: Value) -> Value {
        let (lo, hi) = (self.known.lower(index), self.known.upper(index));
        let reaches = |end: i64| lo.is_none_or(|lo| lo < end.into());
        let exceeds = |end: i64| hi.is_none_or(|hi| hi > end.into());
        let (last, (first_folded, last_folded)) = (extent.saturating_sub(1), mode.reach(extent));
        let beyond = reaches(first_folded) || exceeds(last_folded);
        let folded = match mode {
            PaddingMode::Zeros | PaddingMode::Replicate => value,
            PaddingMode::Reflect => {
                let value = if reaches(0) { self.builder.ins().iabs(value) } else { value };
                if exceeds(last) || reaches(last.saturating_neg()) {
                    self.mirrored(value, last)
                } else {
                    value
                }
            }
            PaddingMode::Circular => {
                let (less, more) = (IntCC::SignedLessThan, IntCC::SignedGreaterThan);
                let up = self.moved_if((less, 0), value, extent, value);
                let down = extent.saturating_neg();
                if exceeds(last) { self.moved_if((more, last), value, down, up) } else { up }
            }
        };
        if beyond { self.clamped(folded, last) } else { folded }
    }

    /// `last - |last - value|`
    fn mirrored(&mut self, value: Value, last: i64) -> Value {
        let end = self.builder.ins().iconst(cranelift_codegen::ir::types::I64, last);
        let left = self.builder.ins().isub(end, value);
        let left = self.builder.ins().iabs(left);
        self.builder.ins().isub(end, left)
    }

    /// `value + by` where the comparison holds, else the other value.
    fn moved_if(
        &mut self,
        (condition, limit): (IntCC, i64),
        value: Value,
        by: i64,
        otherwise: Value,
    ) -> Value {
        let holds = self.builder.ins().icmp_imm_s(condition, value, limit);
        let moved = self.builder.ins().iadd_imm_s(value, by);
        self.builder.ins().select(holds, moved, otherwise)
    }

    /// The nearest of `0..=last`.
    fn clamped(&mut self, value: Value, last: i64) -> Value {
        let ends = [(IntCC::SignedLessThan, 0), (IntCC::SignedGreaterThan, last)];
        ends.into_iter().fold(value, |value, (condition, end)| {
            let outside = self.builder.ins().icmp_imm_s(condition, value, end);
            let end = self.builder.ins().iconst(cranelift_codegen::ir::types::I64, end);
            self.builder.ins().select(outside, end, value)
        })
    }

    /// The pointer to the element at these runtime terms, moved by folded offsets.
    pub(super) fn folded_address(
        &mut self,
        buffer: BufferId,
        terms: &[(AxisId, i64)],
        folds: &[Value],
    ) -> Value {
        let key = (buffer, Terms::from_slice(terms), folds.to_vec());
        if let Some(pointer) = self.folds.pointers.get(&key) {
            return *pointer;
        }
        let elem = self.nest.buffer(buffer).elem;
        let mut pointer = match self.cached_address(buffer, terms) {
            Some(pointer) => pointer,
            None => terms.iter().fold(self.bases[&buffer], |pointer, (axis, coefficient)| {
                let Some(variable) = self.runtime(*axis) else { return pointer };
                let term = self.times(variable, exact::bytes(*coefficient, elem));
                self.builder.ins().iadd(pointer, term)
            }),
        };
        for fold in folds {
            pointer = self.builder.ins().iadd(pointer, *fold);
        }
        self.folds.pointers.insert(key, pointer);
        pointer
    }

    /// Computes, at the top of a loop's body, what this loop decides of a folded access.
    pub(super) fn hoist_folds(&mut self, mode: PaddingMode, access: &Access, l: &Loop) {
        let open = self.open_dims(access);
        let (terms, _) = self.resolve(&self.unfolded(access, &open), Lanes::SCALAR);
        if terms.last().is_some_and(|(axis, _)| *axis == l.axis) {
            self.address(access.buffer, &terms);
        }
        let buffer = self.nest.buffer(access.buffer);
        let strides = buffer.strides();
        for d in open {
            let index = &access.index[d];
            // An index is folded as a whole: all of its variables must be known.
            let bound = |axis: &AxisId| self.variables.iter().any(|(other, _)| other == axis);
            let Some(extent) = buffer.shape[d].fixed() else { continue };
            let decided = index.mentions(l.axis) && index.terms().iter().all(|(a, _)| bound(a));
            if !decided {
                continue;
            }
            let (terms, constant) = self.resolve(index, Lanes::SCALAR);
            let step = exact::bytes(strides[d], buffer.elem);
            let key = (terms, constant, mode, extent, step);
            if self.folds.get(&key).is_none()
                && let Folded::Bytes(value) = self.fold((mode, extent, step), index, Lanes::SCALAR)
            {
                self.folds.order.push(key.clone());
                self.folds.hoisted.insert(key, value);
            }
        }
    }
}
