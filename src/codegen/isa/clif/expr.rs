//! Values: loads, arithmetic and stores.

use rustc_hash::FxHashMap as HashMap;

use convgen_ir::PaddingMode;
use convgen_ir::nest::{
    Access, AxisId, BinaryOp, BufferId, Expr, LocalId, Loop, Role, Scalar, UnaryOp,
};
use cranelift_codegen::ir::condcodes::FloatCC;
use cranelift_codegen::ir::{BlockArg, InstBuilder, MemFlagsData, Value, types};

use super::control::Window;
use super::{Bound, Emitter, LANE_NUMBERS, Lanes, Terms, flags};

/// A load.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct LoadKey {
    pub(super) buffer: BufferId,
    /// The runtime terms of the offset in elements, folded offsets in bytes, and the constant.
    pub(super) terms: Terms,
    pub(super) folds: Vec<Value>,
    pub(super) constant: i64,
    /// The elements between lanes; none for a single element.
    pub(super) stride: Option<i64>,
}

/// What has been loaded in the current straight line of code: a broadcast or a vector of weights is
/// loaded once a step, however many multiply-adds use it.
#[derive(Default)]
pub(super) struct LoadCache {
    values: HashMap<LoadKey, Value>,
    /// Constants by bits and lanes.
    constants: HashMap<(u32, i64), Value>,
}

impl LoadCache {
    pub(super) fn clear(&mut self) {
        self.values.clear();
        self.constants.clear();
    }

    fn forget(&mut self, buffer: BufferId) {
        self.values.retain(|key, _| key.buffer != buffer);
    }
}

impl Emitter<'_, '_> {
    pub(super) fn expr(&mut self, expr: &Expr, lanes: Lanes) -> Value {
        match expr {
            Expr::Const(Scalar::F32(x)) => self.constant(*x, lanes),
            Expr::Local(id) => self.local(*id, lanes),
            Expr::Load(access) => self.load(access, lanes),
            Expr::Pad(PaddingMode::Zeros, access) => self.pad(access, lanes),
            Expr::Pad(
                mode @ (PaddingMode::Reflect | PaddingMode::Replicate | PaddingMode::Circular),
                access,
            ) => self.extended(*mode, access, lanes),
            Expr::Unary(op, x) => {
                let x = self.expr(x, lanes);
                self.unary(*op, x, lanes)
            }
            Expr::Binary(op, a, b) => {
                let [a, b] = [a, b].map(|x| self.expr(x, lanes));
                self.binary(*op, a, b)
            }
            Expr::Fma(a, b, c) => {
                let [a, b, c] = [a, b, c].map(|x| self.expr(x, lanes));
                self.multiply_add(a, b, c)
            }
            Expr::Select { a, b, then, otherwise } => {
                let [a, b, x, y] = [a, b, then, otherwise].map(|x| self.expr(x, lanes));
                self.select(FloatCC::LessThan, a, b, x, y)
            }
        }
    }

    fn constant(&mut self, x: f32, lanes: Lanes) -> Value {
        let key = (x.to_bits(), lanes.width);
        if let Some(value) = self.loads.constants.get(&key) {
            return *value;
        }
        let value = self.builder.ins().f32const(x);
        let value = self.broadcast(value, lanes);
        self.loads.constants.insert(key, value);
        value
    }

    fn broadcast(&mut self, value: Value, lanes: Lanes) -> Value {
        if lanes.width == 1 { value } else { self.builder.ins().splat(lanes.float(), value) }
    }

    /// A named value; in a single lane of the group it was computed for, that lane.
    fn local(&mut self, id: LocalId, lanes: Lanes) -> Value {
        let (value, from) = self.locals[&id];
        if from.width == lanes.width {
            return value;
        }
        let Some(axis) = from.axis else { return self.broadcast(value, lanes) };
        let lane = self.variables.iter().rev().find_map(|(a, bound)| match bound {
            Bound::Const(lane) if *a == axis => lane.checked_sub(from.start),
            Bound::Const(_) | Bound::Runtime(_) => None,
        });
        let lane = lane.and_then(|lane| u8::try_from(lane).ok());
        self.builder.ins().extractlane(value, lane.unwrap_or(0))
    }

    fn unary(&mut self, op: UnaryOp, x: Value, lanes: Lanes) -> Value {
        match op {
            UnaryOp::Neg => self.builder.ins().fneg(x),
            UnaryOp::Abs => self.builder.ins().fabs(x),
            UnaryOp::Round => self.builder.ins().nearest(x),
            UnaryOp::Pow2 => {
                let int = if lanes.width == 1 { types::I32 } else { types::I32X4 };
                let exponent = self.builder.ins().fcvt_to_sint_sat(int, x);
                let bias = self.builder.ins().iconst(types::I32, 127);
                let bias =
                    if lanes.width == 1 { bias } else { self.builder.ins().splat(int, bias) };
                let biased = self.builder.ins().iadd(exponent, bias);
                let bits = self.builder.ins().ishl_imm_u(biased, 23);
                self.builder.ins().bitcast(lanes.float(), cast_flags(), bits)
            }
        }
    }

    fn binary(&mut self, op: BinaryOp, a: Value, b: Value) -> Value {
        match op {
            BinaryOp::Add => self.builder.ins().fadd(a, b),
            BinaryOp::Sub => self.builder.ins().fsub(a, b),
            BinaryOp::Mul => self.builder.ins().fmul(a, b),
            BinaryOp::Div => self.builder.ins().fdiv(a, b),
            BinaryOp::Max => self.select(FloatCC::GreaterThan, a, b, a, b),
            BinaryOp::Min => self.select(FloatCC::LessThan, a, b, a, b),
        }
    }

    /// `a ? b` by lanes, then `x` or `y`.
    fn select(&mut self, condition: FloatCC, a: Value, b: Value, x: Value, y: Value) -> Value {
        let mask = self.builder.ins().fcmp(condition, a, b);
        let ty = self.builder.func.dfg.value_type(x);
        if !ty.is_vector() {
            return self.builder.ins().select(mask, x, y);
        }
        let mask = self.builder.ins().bitcast(ty, cast_flags(), mask);
        self.builder.ins().bitselect(mask, x, y)
    }

    /// One rounding: the instruction where the target has it, exact integer-checked code where not.
    /// Never Cranelift's `fma` without the instruction, which is one library call a lane.
    fn multiply_add(&mut self, a: Value, b: Value, c: Value) -> Value {
        if self.target.fma() {
            return self.builder.ins().fma(a, b, c);
        }
        let ty = self.builder.func.dfg.value_type(a);
        if !ty.is_vector() {
            return super::softfma::emit(&mut self.builder, a, b, c);
        }
        let mut result = c;
        for lane in LANE_NUMBERS {
            let [x, y, z] = [a, b, c].map(|v| self.builder.ins().extractlane(v, lane));
            let value = super::softfma::emit(&mut self.builder, x, y, z);
            result = self.builder.ins().insertlane(result, value, lane);
        }
        result
    }

    pub(super) fn load(&mut self, access: &Access, lanes: Lanes) -> Value {
        let offset = self.offsets.get(access);
        let stride = lanes.axis.map(|axis| offset.coefficient(axis));
        let (terms, constant) = self.resolve(&offset, lanes);
        if self.nest.buffer(access.buffer).role == Role::Reg {
            let tile = &self.tiles[&access.buffer];
            return match stride {
                None => tile.get(&mut self.builder, constant),
                Some(stride) => tile.get_lanes(&mut self.builder, constant, stride),
            };
        }
        self.cached_load(LoadKey { buffer: access.buffer, terms, folds: vec![], constant, stride })
    }

    /// A load from memory, unless the value is at hand.
    pub(super) fn cached_load(&mut self, key: LoadKey) -> Value {
        if let Some(value) = self.loads.values.get(&key) {
            return *value;
        }
        let value = self.memory_load(&key);
        self.loads.values.insert(key, value);
        value
    }

    fn memory_load(&mut self, key: &LoadKey) -> Value {
        let flags = flags(false);
        let element = |emitter: &mut Self, constant| {
            let (pointer, displacement) = emitter.place_of(key, constant);
            emitter.builder.ins().load(types::F32, flags, pointer, displacement)
        };
        match key.stride {
            None => element(self, key.constant),
            Some(0) => {
                let value = element(self, key.constant);
                self.builder.ins().splat(types::F32X4, value)
            }
            Some(1) => {
                let (pointer, displacement) = self.place_of(key, key.constant);
                self.builder.ins().load(types::F32X4, flags, pointer, displacement)
            }
            Some(stride) => {
                let lanes = LANE_NUMBERS.map(|lane| {
                    let moved = stride.wrapping_mul(lane.into());
                    element(self, key.constant.wrapping_add(moved))
                });
                self.gather(lanes)
            }
        }
    }

    pub(super) fn gather(&mut self, lanes: [Value; 4]) -> Value {
        let start = self.builder.ins().splat(types::F32X4, lanes[0]);
        LANE_NUMBERS
            .into_iter()
            .zip(lanes)
            .skip(1)
            .fold(start, |vector, (lane, value)| self.builder.ins().insertlane(vector, value, lane))
    }

    /// A load where the indices are inside, zero elsewhere: one test for all lanes, then one a
    /// lane.
    fn pad(&mut self, access: &Access, lanes: Lanes) -> Value {
        let shape = &self.nest.buffer(access.buffer).shape;
        let windows: Vec<Window> = access
            .index
            .iter()
            .zip(shape)
            .filter_map(|(index, extent)| self.window(index, *extent))
            .collect();
        let Some(inside) = self.all_inside(&windows, lanes) else {
            return self.load(access, lanes);
        };
        let [load, outside, after] = [(); 3].map(|()| self.builder.create_block());
        let result = self.builder.append_block_param(after, lanes.float());
        self.builder.ins().brif(inside, load, &[], outside, &[]);
        self.enter(load);
        let value = self.load(access, lanes);
        self.builder.ins().jump(after, &[BlockArg::Value(value)]);
        self.enter(outside);
        let by_lane =
            lanes.axis.filter(|axis| windows.iter().any(|window| window.index.mentions(*axis)));
        let value = match by_lane {
            Some(axis) => self.pad_each(access, axis, lanes),
            None => {
                let zero = self.builder.ins().f32const(0.0);
                self.broadcast(zero, lanes)
            }
        };
        self.builder.ins().jump(after, &[BlockArg::Value(value)]);
        self.enter(after);
        result
    }

    fn pad_each(&mut self, access: &Access, axis: AxisId, lanes: Lanes) -> Value {
        let values = lanes.values().map(|lane| {
            self.variables.push((axis, Bound::Const(lane)));
            let outside = self.known.clone();
            self.known.enter(&Loop::iterations(axis, lane, 1));
            let value = self.pad(access, Lanes::SCALAR);
            self.known = outside;
            self.variables.pop();
            value
        });
        self.gather(values)
    }

    pub(super) fn store(&mut self, access: &Access, value: Value, lanes: Lanes) {
        let offset = self.offsets.get(access);
        let stride = lanes.axis.map(|axis| offset.coefficient(axis));
        let (terms, constant) = self.resolve(&offset, lanes);
        if self.nest.buffer(access.buffer).role == Role::Reg {
            let tile = &self.tiles[&access.buffer];
            return match stride {
                None => tile.set(&mut self.builder, constant, value),
                Some(stride) => tile.set_lanes(&mut self.builder, constant, stride, value),
            };
        }
        self.loads.forget(access.buffer);
        let flags = flags(false);
        match stride {
            None | Some(1) => {
                let (pointer, displacement) = self.place(access.buffer, &terms, constant);
                self.builder.ins().store(flags, value, pointer, displacement);
            }
            Some(stride) => {
                for lane in LANE_NUMBERS {
                    let scalar = self.builder.ins().extractlane(value, lane);
                    let at = constant.wrapping_add(stride.wrapping_mul(lane.into()));
                    let (pointer, displacement) = self.place(access.buffer, &terms, at);
                    self.builder.ins().store(flags, scalar, pointer, displacement);
                }
            }
        }
    }
}

/// Casts between vectors of different lanes name a byte order.
fn cast_flags() -> MemFlagsData {
    let mut flags = MemFlagsData::new();
    flags.set_endianness(cranelift_codegen::ir::Endianness::Little);
    flags
}
