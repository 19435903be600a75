//! Operations on vector registers.

use convgen_ir::nest::{BinaryOp, UnaryOp};
use iced_x86::{Code, Instruction, Register};

use super::super::program::LanePermute;
use super::{Encoder, Operand, Reg};

const COMPARE_LESS: u32 = 0x11;
const COMPARE_LESS_OR_EQUAL: u32 = 0x12;
const COMPARE_ORDERED: u32 = 0x07;
const ROUND_TO_EVEN: u32 = 0x08;
/// Two to the power of 31: the first float beyond 32-bit integers.
const TWO_31: u32 = 0x4f00_0000;

impl Encoder {
    pub(in super::super) fn copy(&mut self, to: Reg, from: Reg) {
        if to != from {
            let code = if self.wide() {
                Code::EVEX_Vmovaps_zmm_k1z_zmmm512
            } else {
                Code::VEX_Vmovaps_ymm_ymmm256
            };
            self.push(Instruction::with2(code, self.vector(to), self.vector(from)));
        }
    }

    pub(in super::super) fn zero(&mut self, to: Reg) {
        self.exclusive_or(to, to, to);
    }

    fn exclusive_or(&mut self, to: Reg, a: Reg, b: Reg) {
        let code = if self.wide() {
            Code::EVEX_Vpxord_zmm_k1z_zmm_zmmm512b32
        } else {
            Code::VEX_Vpxor_ymm_ymm_ymmm256
        };
        self.three(code, to, a, b);
    }

    fn and(&mut self, to: Reg, a: Reg, b: Reg) {
        let code = if self.wide() {
            Code::EVEX_Vpandd_zmm_k1z_zmm_zmmm512b32
        } else {
            Code::VEX_Vpand_ymm_ymm_ymmm256
        };
        self.three(code, to, a, b);
    }

    pub(super) fn three(&mut self, code: Code, to: Reg, a: Reg, b: Reg) {
        let [to, a, b] = [to, a, b].map(|reg| self.vector(reg));
        self.push(Instruction::with3(code, to, a, b));
    }

    fn three_operand(&mut self, code: Code, to: Reg, a: Reg, b: Operand) {
        match b {
            Operand::Register(b) => self.three(code, to, a, b),
            Operand::Memory(place, broadcast) => {
                let memory = self.memory(place, broadcast);
                self.push(Instruction::with3(code, self.vector(to), self.vector(a), memory));
            }
        }
    }

    /// `to = a * b + to`
    pub(in super::super) fn multiply_add(&mut self, to: Reg, a: Reg, b: Operand) {
        let code = if self.wide() {
            Code::EVEX_Vfmadd231ps_zmm_k1z_zmm_zmmm512b32_er
        } else {
            Code::VEX_Vfmadd231ps_ymm_ymm_ymmm256
        };
        self.three_operand(code, to, a, b);
    }

    pub(in super::super) fn binary(&mut self, op: BinaryOp, to: Reg, a: Reg, b: Operand) {
        let (narrow, wide) = match op {
            BinaryOp::Add => {
                (Code::VEX_Vaddps_ymm_ymm_ymmm256, Code::EVEX_Vaddps_zmm_k1z_zmm_zmmm512b32_er)
            }
            BinaryOp::Sub => {
                (Code::VEX_Vsubps_ymm_ymm_ymmm256, Code::EVEX_Vsubps_zmm_k1z_zmm_zmmm512b32_er)
            }
            BinaryOp::Mul => {
                (Code::VEX_Vmulps_ymm_ymm_ymmm256, Code::EVEX_Vmulps_zmm_k1z_zmm_zmmm512b32_er)
            }
            BinaryOp::Div => {
                (Code::VEX_Vdivps_ymm_ymm_ymmm256, Code::EVEX_Vdivps_zmm_k1z_zmm_zmmm512b32_er)
            }
            // These two return the second operand unless the comparison holds: the language's own
            // definition, NaNs and zeros included.
            BinaryOp::Max => {
                (Code::VEX_Vmaxps_ymm_ymm_ymmm256, Code::EVEX_Vmaxps_zmm_k1z_zmm_zmmm512b32_sae)
            }
            BinaryOp::Min => {
                (Code::VEX_Vminps_ymm_ymm_ymmm256, Code::EVEX_Vminps_zmm_k1z_zmm_zmmm512b32_sae)
            }
        };
        self.three_operand(if self.wide() { wide } else { narrow }, to, a, b);
    }

    /// A unary operation; `scratch` is another register that may be overwritten.
    pub(in super::super) fn unary(&mut self, op: UnaryOp, to: Reg, x: Reg, scratch: Reg) {
        match op {
            UnaryOp::Neg => {
                self.constant(scratch, 0x8000_0000);
                self.exclusive_or(to, x, scratch);
            }
            UnaryOp::Abs => {
                self.constant(scratch, 0x7fff_ffff);
                self.and(to, x, scratch);
            }
            UnaryOp::Round => {
                let (to, x) = (self.vector(to), self.vector(x));
                let code = if self.wide() {
                    Code::EVEX_Vrndscaleps_zmm_k1z_zmmm512b32_imm8_sae
                } else {
                    Code::VEX_Vroundps_ymm_ymmm256_imm8
                };
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
        if self.wide() {
            let code = Code::EVEX_Vcvttps2dq_zmm_k1z_zmmm512b32_sae;
            self.push(Instruction::with2(code, vt, vx));
            self.compare(COMPARE_LESS_OR_EQUAL, scratch, scratch, x);
            self.general_constant(0x7fff_ffff);
            let code = Code::EVEX_Vpbroadcastd_zmm_k1z_r32;
            self.push_masked(Instruction::with2(code, vt, Register::EAX), Register::K1, false);
            self.compare(COMPARE_ORDERED, scratch, x, x);
            let code = Code::EVEX_Vmovdqa32_zmm_k1z_zmmm512;
            self.push_masked(Instruction::with2(code, vt, vt), Register::K1, true);
        } else {
            self.push(Instruction::with2(Code::VEX_Vcvttps2dq_ymm_ymmm256, vt, vx));
            self.compare(COMPARE_LESS_OR_EQUAL, scratch, scratch, x);
            self.exclusive_or(to, to, scratch);
            self.compare(COMPARE_ORDERED, scratch, x, x);
            self.and(to, to, scratch);
        }
        self.constant(scratch, 127);
        let (add, shift) = if self.wide() {
            (Code::EVEX_Vpaddd_zmm_k1z_zmm_zmmm512b32, Code::EVEX_Vpslld_zmm_k1z_zmmm512b32_imm8)
        } else {
            (Code::VEX_Vpaddd_ymm_ymm_ymmm256, Code::VEX_Vpslld_ymm_ymm_imm8)
        };
        self.three(add, to, to, scratch);
        self.push(Instruction::with3(shift, vt, vt, 23));
    }

    /// `a ? b` by lanes: into `k1`, or into a vector register where there are no masks.
    fn compare(&mut self, predicate: u32, to: Reg, a: Reg, b: Reg) {
        let [a, b] = [a, b].map(|reg| self.vector(reg));
        let (code, to) = if self.wide() {
            (Code::EVEX_Vcmpps_kr_k1_zmm_zmmm512b32_imm8_sae, Register::K1)
        } else {
            (Code::VEX_Vcmpps_ymm_ymm_ymmm256_imm8, self.vector(to))
        };
        self.push(Instruction::with4(code, to, a, b, predicate));
    }

    /// Starts `a < b ? then : otherwise`: the outcome is in `mask`, or in `k1`.
    pub(in super::super) fn compare_less(&mut self, mask: Reg, a: Reg, b: Reg) {
        self.compare(COMPARE_LESS, mask, a, b);
    }

    /// Ends a selection.
    pub(in super::super) fn blend(&mut self, to: Reg, mask: Reg, then: Reg, otherwise: Reg) {
        let [vt, vm, vx, vy] = [to, mask, then, otherwise].map(|reg| self.vector(reg));
        if self.wide() {
            let code = Code::EVEX_Vblendmps_zmm_k1z_zmm_zmmm512b32;
            self.push_masked(Instruction::with3(code, vt, vy, vx), Register::K1, false);
        } else {
            let code = Code::VEX_Vblendvps_ymm_ymm_ymmm256_ymm;
            self.push(Instruction::with4(code, vt, vy, vx, vm));
        }
    }

    fn general_constant(&mut self, bits: u32) {
        self.push(Instruction::with2(Code::Mov_r32_imm32, Register::EAX, bits));
    }

    /// A constant in every lane.
    pub(in super::super) fn constant(&mut self, to: Reg, bits: u32) {
        if bits == 0 {
            return self.zero(to);
        }
        self.general_constant(bits);
        if self.wide() {
            let code = Code::EVEX_Vpbroadcastd_zmm_k1z_r32;
            self.push(Instruction::with2(code, self.vector(to), Register::EAX));
        } else {
            let low = self.low(to);
            self.push(Instruction::with2(Code::VEX_Vmovd_xmm_rm32, low, Register::EAX));
            self.push(Instruction::with2(Code::VEX_Vbroadcastss_ymm_xmm, self.vector(to), low));
        }
    }

    /// The numbers of the lanes that a spread takes: bytes, widened.
    pub(in super::super) fn index(&mut self, to: Reg, spread: LanePermute) {
        let (lanes, low) = (self.vectors.lanes(), self.low(to));
        let eight = |first: u8| {
            let bytes = [0, 1, 2, 3, 4, 5, 6, 7].map(|lane| match lane | first {
                lane if i64::from(lane) < lanes => spread.source(lane),
                _ => 0,
            });
            i64::from_le_bytes(bytes)
        };
        self.push(Instruction::with2(Code::Mov_r64_imm64, Register::RAX, eight(0)));
        if self.wide() {
            self.push(Instruction::with2(Code::EVEX_Vmovq_xmm_rm64, low, Register::RAX));
            self.push(Instruction::with2(Code::Mov_r64_imm64, Register::RAX, eight(8)));
            let code = Code::EVEX_Vpinsrq_xmm_xmm_rm64_imm8;
            self.push(Instruction::with4(code, low, low, Register::RAX, 1));
            let code = Code::EVEX_Vpmovzxbd_zmm_k1z_xmmm128;
            self.push(Instruction::with2(code, self.vector(to), low));
        } else {
            self.push(Instruction::with2(Code::VEX_Vmovq_xmm_rm64, low, Register::RAX));
            let code = Code::VEX_Vpmovzxbd_ymm_xmmm64;
            self.push(Instruction::with2(code, self.vector(to), low));
        }
    }

    /// Lanes by their numbers.
    pub(in super::super) fn spread(&mut self, to: Reg, index: Reg, from: Operand) {
        let code = if self.wide() {
            Code::EVEX_Vpermps_zmm_k1z_zmm_zmmm512b32
        } else {
            Code::VEX_Vpermps_ymm_ymm_ymmm256
        };
        self.three_operand(code, to, index, from);
    }

    /// Lanes of every four by the same four numbers.
    pub(in super::super) fn spread_fours(&mut self, to: Reg, from: Operand, spread: LanePermute) {
        let code = if self.wide() {
            Code::EVEX_Vpermilps_zmm_k1z_zmmm512b32_imm8
        } else {
            Code::VEX_Vpermilps_ymm_ymmm256_imm8
        };
        let source = |lane| u32::from(spread.of_any(lane));
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
