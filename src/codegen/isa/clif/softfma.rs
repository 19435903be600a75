//! A fused multiply-add of single floats without the instruction.
//!
//! The product of two singles is exact as a double. Their sum with the third, rounded to odd, keeps
//! two bits more than a single needs, so the final rounding is the only one (Boldo and Melquiond,
//! "Emulation of a FMA and correctly rounded sums: proved algorithms using rounding to odd", 2008).

use cranelift_codegen::ir::condcodes::FloatCC;
use cranelift_codegen::ir::{InstBuilder, MemFlagsData, Value, types};
use cranelift_frontend::FunctionBuilder;

/// `a * b + c` with one rounding.
pub(super) fn emit(builder: &mut FunctionBuilder, a: Value, b: Value, c: Value) -> Value {
    let [a, b, c] = [a, b, c].map(|x| builder.ins().fpromote(types::F64, x));
    let product = builder.ins().fmul(a, b);
    let sum = builder.ins().fadd(product, c);
    let error = sum_error(builder, product, c, sum);
    let odd = to_odd(builder, sum, error);
    builder.ins().fdemote(types::F32, odd)
}

/// What rounding took from `a + b = sum`, exactly (Knuth's TwoSum); a NaN if the sum is not finite.
fn sum_error(builder: &mut FunctionBuilder, a: Value, b: Value, sum: Value) -> Value {
    let b_part = builder.ins().fsub(sum, a);
    let a_part = builder.ins().fsub(sum, b_part);
    let b_error = builder.ins().fsub(b, b_part);
    let a_error = builder.ins().fsub(a, a_part);
    builder.ins().fadd(a_error, b_error)
}

/// If the sum is inexact and its last bit even, the neighbour on the side of the error.
fn to_odd(builder: &mut FunctionBuilder, sum: Value, error: Value) -> Value {
    let zero = builder.ins().f64const(0.0);
    let inexact = builder.ins().fcmp(FloatCC::OrderedNotEqual, error, zero);
    let bits = builder.ins().bitcast(types::I64, MemFlagsData::new(), sum);
    let error_bits = builder.ins().bitcast(types::I64, MemFlagsData::new(), error);
    // One ulp away from zero if sum and error have one sign, towards zero if not.
    let differ = builder.ins().bxor(bits, error_bits);
    let side = builder.ins().sshr_imm_u(differ, 63);
    let step = builder.ins().bor_imm_s(side, 1);
    let neighbour = builder.ins().iadd(bits, step);
    let last = builder.ins().band_imm_s(bits, 1);
    let odd = builder.ins().ireduce(types::I8, last);
    let moved = builder.ins().select(odd, bits, neighbour);
    let bits = builder.ins().select(inexact, moved, bits);
    builder.ins().bitcast(types::F64, MemFlagsData::new(), bits)
}
