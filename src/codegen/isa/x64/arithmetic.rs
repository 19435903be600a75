//! Operations on vector registers.

use convgen_ir::nest::UnaryOp;
use iced_x86::{Code, Instruction, Register};

use super::X64;
use super::opcodes::{Form, Operation};
use crate::vir::encoder::{Operand, Reg};
use crate::vir::{Deinterleave, LaneNumbers, LanePermute};

pub(super) const COMPARE_LESS: u32 = 0x11;
const COMPARE_LESS_OR_EQUAL: u32 = 0x12;
const COMPARE_ORDERED: u32 = 0x07;
const ROUND_TO_EVEN: u32 = 0x08;
/// Four pairs, the second and third of which change places.
const MIDDLE_PAIRS_CHANGED: u32 = 0b11_01_10_00;
/// Two to the power of 31: the first float beyond 32-bit integers.
const TWO_31: u32 = 0x4f00_0000;

impl X64 {
    /// A register to another one.
    pub(super) fn copy(&mut self, to: Reg, from: Reg) {
        if to != from {
            let code = self.opcode(Operation::Copy);
            self.push(Instruction::with2(code, self.vector(to), self.vector(from)));
        }
    }

    pub(super) fn zero(&mut self, to: Reg) {
        self.three(Operation::Xor, to, to, to);
    }

    pub(super) fn three(&mut self, operation: Operation, to: Reg, a: Reg, b: Reg) {
        let [to, a, b] = [to, a, b].map(|reg| self.vector(reg));
        self.push(Instruction::with3(self.opcode(operation), to, a, b));
    }

    pub(super) fn three_operand(&mut self, operation: Operation, to: Reg, a: Reg, b: Operand) {
        match b {
            Operand::Register(b) => self.three(operation, to, a, b),
            Operand::Memory(place, broadcast) => {
                let (code, memory) = (self.opcode(operation), self.memory(place, broadcast));
                self.push(Instruction::with3(code, self.vector(to), self.vector(a), memory));
            }
        }
    }

    pub(super) fn unary(&mut self, op: UnaryOp, to: Reg, x: Reg, scratch: Reg) {
        match op {
            UnaryOp::Neg => {
                self.constant(scratch, 0x8000_0000);
                self.three(Operation::Xor, to, x, scratch);
            }
            UnaryOp::Abs => {
                self.constant(scratch, 0x7fff_ffff);
                self.three(Operation::And, to, x, scratch);
            }
            UnaryOp::Round => {
                let (code, to, x) =
                    (self.opcode(Operation::Round), self.vector(to), self.vector(x));
                self.push(Instruction::with3(code, to, x, ROUND_TO_EVEN));
            }
            UnaryOp::Pow2 => self.power_of_two(to, x, scratch),
        }
    }

    /// The conversion gives `i32::MIN` for whatever does not fit; the language wants saturation and
    /// zero for NaNs.
    fn power_of_two(&mut self, to: Reg, x: Reg, scratch: Reg) {
        let (vt, vx) = (self.vector(to), self.vector(x));
        self.constant(scratch, TWO_31);
        self.push(Instruction::with2(self.opcode(Operation::ToInteger), vt, vx));
        self.compare(COMPARE_LESS_OR_EQUAL, scratch, scratch, x);
        if self.form.has_mask_registers() {
            self.general_constant(0x7fff_ffff);
            let code = self.opcode(Operation::BroadcastConstant);
            self.push_masked(Instruction::with2(code, vt, Register::EAX), Register::K1, false);
            self.compare(COMPARE_ORDERED, scratch, x, x);
            let code = Code::EVEX_Vmovdqa32_zmm_k1z_zmmm512;
            self.push_masked(Instruction::with2(code, vt, vt), Register::K1, true);
        } else {
            self.three(Operation::Xor, to, to, scratch);
            self.compare(COMPARE_ORDERED, scratch, x, x);
            self.three(Operation::And, to, to, scratch);
        }
        self.constant(scratch, 127);
        self.three(Operation::AddIntegers, to, to, scratch);
        self.push(Instruction::with3(self.opcode(Operation::ShiftIntegersLeft), vt, vt, 23));
    }

    /// `a ? b` by lanes: into `k1`, or into a vector register where a mask is one.
    pub(super) fn compare(&mut self, predicate: u32, to: Reg, a: Reg, b: Reg) {
        let [a, b] = [a, b].map(|reg| self.vector(reg));
        let to = if self.form.has_mask_registers() { Register::K1 } else { self.vector(to) };
        self.push(Instruction::with4(self.opcode(Operation::Compare), to, a, b, predicate));
    }

    pub(super) fn blend(&mut self, to: Reg, mask: Reg, then: Reg, otherwise: Reg) {
        let [vt, vm, vx, vy] = [to, mask, then, otherwise].map(|reg| self.vector(reg));
        let code = self.opcode(Operation::Blend);
        if self.form.has_mask_registers() {
            self.push_masked(Instruction::with3(code, vt, vy, vx), Register::K1, false);
        } else {
            self.push(Instruction::with4(code, vt, vy, vx, vm));
        }
    }

    fn general_constant(&mut self, bits: u32) {
        self.push(Instruction::with2(Code::Mov_r32_imm32, Register::EAX, bits));
    }

    /// A constant in every lane.
    pub(super) fn constant(&mut self, to: Reg, bits: u32) {
        if bits == 0 {
            return self.zero(to);
        }
        self.general_constant(bits);
        let code = self.opcode(Operation::BroadcastConstant);
        let from = match self.form {
            Form::Evex512 => Register::EAX,
            // Only a vector is broadcast.
            Form::Vex256 => {
                let low = self.low(to);
                self.push(Instruction::with2(Code::VEX_Vmovd_xmm_rm32, low, Register::EAX));
                low
            }
        };
        self.push(Instruction::with2(code, self.vector(to), from));
    }

    /// The numbers of the lanes that a permutation takes: bytes, widened.
    pub(super) fn index(&mut self, to: Reg, numbers: LaneNumbers) {
        let (lanes, low) = (self.lanes, self.low(to));
        let eight = |first: u8| {
            let bytes = [0, 1, 2, 3, 4, 5, 6, 7].map(|lane| match lane | first {
                lane if i64::from(lane) < lanes => numbers.source(lane, lanes),
                _ => 0,
            });
            i64::from_le_bytes(bytes)
        };
        self.push(Instruction::with2(Code::Mov_r64_imm64, Register::RAX, eight(0)));
        self.push(Instruction::with2(self.opcode(Operation::MoveGeneral), low, Register::RAX));
        if lanes > 8 {
            self.push(Instruction::with2(Code::Mov_r64_imm64, Register::RAX, eight(8)));
            let code = Code::EVEX_Vpinsrq_xmm_xmm_rm64_imm8;
            self.push(Instruction::with4(code, low, low, Register::RAX, 1));
        }
        self.push(Instruction::with2(self.opcode(Operation::WidenBytes), self.vector(to), low));
    }

    /// Every second element of two registers. Without an index, of registers of two halves: both
    /// sources give two elements to each half, and pairs of these then change places.
    pub(super) fn deinterleave(
        &mut self,
        to: Reg,
        index: Option<Reg>,
        (first, second): (Reg, Operand),
        Deinterleave { phases: [lower, upper] }: Deinterleave,
    ) {
        if let Some(index) = index {
            self.copy(to, first);
            return self.three_operand(Operation::PermuteTwo, to, index, second);
        }
        let (vt, from) = (self.vector(to), self.vector(first));
        let code = self.opcode(Operation::ShuffleTwo);
        let order = [lower, lower | 2, upper, upper | 2].into_iter().rev();
        let order = order.fold(0, |order: u32, lane| order << 2 | u32::from(lane));
        self.push(match second {
            Operand::Register(second) => {
                Instruction::with4(code, vt, from, self.vector(second), order)
            }
            Operand::Memory(place, broadcast) => {
                Instruction::with4(code, vt, from, self.memory(place, broadcast), order)
            }
        });
        let code = self.opcode(Operation::PermutePairs);
        self.push(Instruction::with3(code, vt, vt, MIDDLE_PAIRS_CHANGED));
    }

    pub(super) fn permute_fours(&mut self, to: Reg, from: Operand, permute: LanePermute) {
        let code = self.opcode(Operation::PermuteFours);
        let source = |lane| u32::from(permute.of_any(lane));
        let order = (0..4).rev().fold(0, |order: u32, lane| order << 2 | source(lane));
        let to = self.vector(to);
        self.push(match from {
            Operand::Register(from) => Instruction::with3(code, to, self.vector(from), order),
            Operand::Memory(place, broadcast) => {
                Instruction::with3(code, to, self.memory(place, broadcast), order)
            }
        });
    }
}
