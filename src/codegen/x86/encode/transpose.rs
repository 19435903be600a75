//! Transposes: between vectors and memory in which neighbouring lanes lie apart.
//!
//! A quarter of a register is four elements, a quad. Four registers are put together of quads from
//! memory,
//! ```text
//! r0 = a0..a3 | e0..e3 | ..      r1 = b0..b3 | ..      r2 = c0..c3 | ..      r3 = d0..d3 | ..
//! ->
//! a0 b0 c0 d0 | e0 f0 g0 h0 | ..      a1 b1 c1 d1 | ..      a2 b2 c2 d2 | ..      a3 b3 c3 d3 | ..
//! ```
//! and eight shuffles within quads exchange rows and columns. Loads put quads into their place
//! without a shuffle, so a transpose of sixteen vectors takes 32 shuffles where registers alone
//! take 64.

use iced_x86::{Code, Instruction, MemoryOperand, Register};

use super::super::program::QUAD;
use super::{Encoder, Reg, product};
use crate::codegen::x86::program::{Mask, Place};

/// Bytes of an element.
const BYTES: i64 = 4;

/// Registers of a transpose: four in, four out, and one that passes between them.
pub(in super::super) const TRANSPOSE_REGISTERS: usize = QUAD + 1;

/// Vectors of a transpose, where they lie.
#[derive(Clone, Copy)]
pub(in super::super) enum Rows<'a> {
    /// Neighbouring slots of the frame: the first, and how many.
    Slots(usize, usize),
    /// Memory that is read with all lanes.
    Loads(&'a [Place]),
}

impl Rows<'_> {
    fn count(self) -> usize {
        match self {
            Rows::Slots(_, count) => count,
            Rows::Loads(places) => places.len(),
        }
    }
}

impl Encoder {
    /// Loads four neighbouring elements of every lane, of lanes `bytes` apart: one vector each.
    pub(in super::super) fn gather_quad(
        &mut self,
        registers: [Reg; TRANSPOSE_REGISTERS],
        place: Place,
        mask: Mask,
        bytes: i64,
    ) -> [Reg; QUAD] {
        for (row, to) in registers.into_iter().take(QUAD).enumerate() {
            let lanes = mask.numbers().skip(row).step_by(QUAD);
            let at = |lane| self.memory(place.lane(lane, bytes), false);
            let quads: Vec<MemoryOperand> = lanes.map(at).collect();
            self.quads(to, &quads);
        }
        self.transpose_quads(registers)
    }

    /// Loads one element of every lane, of lanes `bytes` apart.
    pub(in super::super) fn gather(
        &mut self,
        to: Reg,
        scratch: Reg,
        place: Place,
        mask: Mask,
        bytes: i64,
    ) {
        let lanes: Vec<i32> = mask.numbers().collect();
        for (quad, lanes) in (0_u32..).zip(lanes.chunks(QUAD)) {
            let part = if quad == 0 { to } else { scratch };
            let low = self.low(part);
            for (at, lane) in (0_u32..).zip(lanes) {
                let memory = self.memory(place.lane(*lane, bytes), false);
                let (first, next) = match self.wide() {
                    true => {
                        (Code::EVEX_Vmovss_xmm_k1z_m32, Code::EVEX_Vinsertps_xmm_xmm_xmmm32_imm8)
                    }
                    false => (Code::VEX_Vmovss_xmm_m32, Code::VEX_Vinsertps_xmm_xmm_xmmm32_imm8),
                };
                self.push(match at {
                    0 => Instruction::with2(first, low, memory),
                    _ => Instruction::with4(next, low, low, memory, at << 4),
                });
            }
            if quad > 0 {
                let (code, to) = (self.insert_quad(), self.vector(to));
                self.push(Instruction::with4(code, to, to, low, quad));
            }
        }
    }

    /// Stores vectors that lie in memory, their lanes `bytes` apart: of each lane the elements of
    /// all vectors, side by side. `mask_register` is for the mask of these.
    pub(in super::super) fn scatter_all(
        &mut self,
        registers: [Reg; TRANSPOSE_REGISTERS],
        mask_register: Reg,
        rows: Rows,
        (place, mask, bytes): (Place, Mask, i64),
    ) {
        let elements = Mask { first: 0, lanes: product(rows.count(), 1), limit: None };
        if !self.is_whole(elements) {
            self.lane_mask(elements, mask_register);
        }
        if mask.limit.is_some() {
            self.lane_count(mask);
        }
        let end = self.label();
        for first in mask.numbers().step_by(QUAD) {
            for (row, to) in registers.into_iter().take(QUAD).enumerate() {
                let rows_of = (row..rows.count()).step_by(QUAD);
                let quads: Vec<MemoryOperand> =
                    rows_of.map(|row| self.quad(rows, row, first)).collect();
                self.quads(to, &quads);
            }
            let lanes = self.transpose_quads(registers);
            for (lane, from) in (first..mask.count()).zip(lanes) {
                if mask.limit.is_some() {
                    self.push(Instruction::with2(Code::Cmp_rm32_imm32, Register::ECX, lane));
                    self.jump(Code::Jle_rel32_64, end);
                }
                let to = self.memory(place.lane(lane, bytes), false);
                self.store_elements(to, from, elements, mask_register);
            }
        }
        if mask.limit.is_some() {
            self.place_label(end);
        }
    }

    /// A store whose mask, if it has one, is set already.
    fn store_elements(&mut self, to: MemoryOperand, from: Reg, mask: Mask, mask_register: Reg) {
        let vf = self.vector(from);
        match (self.is_whole(mask), self.wide()) {
            (true, true) => {
                self.push(Instruction::with2(Code::EVEX_Vmovups_zmmm512_k1z_zmm, to, vf));
            }
            (true, false) => {
                self.push(Instruction::with2(Code::VEX_Vmovups_ymmm256_ymm, to, vf));
            }
            (false, true) => {
                let code = Code::EVEX_Vmovups_zmmm512_k1z_zmm;
                self.push_masked(Instruction::with2(code, to, vf), Register::K2, false);
            }
            (false, false) => {
                let (code, by) = (Code::VEX_Vmaskmovps_m256_ymm_ymm, self.vector(mask_register));
                self.push(Instruction::with3(code, to, by, vf));
            }
        }
    }

    /// A register put together of quads from memory, zero beyond them.
    fn quads(&mut self, to: Reg, quads: &[MemoryOperand]) {
        if quads.is_empty() {
            self.zero(to);
        }
        for (at, memory) in (0_u32..).zip(quads) {
            if at == 0 {
                let code = match self.wide() {
                    true => Code::EVEX_Vmovups_xmm_k1z_xmmm128,
                    false => Code::VEX_Vmovups_xmm_xmmm128,
                };
                self.push(Instruction::with2(code, self.low(to), *memory));
            } else {
                let (code, to) = (self.insert_quad(), self.vector(to));
                self.push(Instruction::with4(code, to, to, *memory, at));
            }
        }
    }

    /// Exchanges rows and columns within quads; the results are in four of the registers.
    fn transpose_quads(&mut self, registers: [Reg; TRANSPOSE_REGISTERS]) -> [Reg; QUAD] {
        let [a, b, c, d, other] = registers;
        self.unpack(other, a, b, Half::Low, Pairs::No);
        self.unpack(b, a, b, Half::High, Pairs::No);
        self.unpack(a, c, d, Half::Low, Pairs::No);
        self.unpack(d, c, d, Half::High, Pairs::No);
        self.unpack(c, other, a, Half::Low, Pairs::Yes);
        self.unpack(other, other, a, Half::High, Pairs::Yes);
        self.unpack(a, b, d, Half::Low, Pairs::Yes);
        self.unpack(b, b, d, Half::High, Pairs::Yes);
        [c, other, a, b]
    }

    /// The elements, or pairs of them, of one half of each quad of two registers, in turn.
    fn unpack(&mut self, to: Reg, a: Reg, b: Reg, half: Half, pairs: Pairs) {
        let code = match (self.wide(), half, pairs) {
            (true, Half::Low, Pairs::No) => Code::EVEX_Vunpcklps_zmm_k1z_zmm_zmmm512b32,
            (true, Half::High, Pairs::No) => Code::EVEX_Vunpckhps_zmm_k1z_zmm_zmmm512b32,
            (true, Half::Low, Pairs::Yes) => Code::EVEX_Vunpcklpd_zmm_k1z_zmm_zmmm512b64,
            (true, Half::High, Pairs::Yes) => Code::EVEX_Vunpckhpd_zmm_k1z_zmm_zmmm512b64,
            (false, Half::Low, Pairs::No) => Code::VEX_Vunpcklps_ymm_ymm_ymmm256,
            (false, Half::High, Pairs::No) => Code::VEX_Vunpckhps_ymm_ymm_ymmm256,
            (false, Half::Low, Pairs::Yes) => Code::VEX_Vunpcklpd_ymm_ymm_ymmm256,
            (false, Half::High, Pairs::Yes) => Code::VEX_Vunpckhpd_ymm_ymm_ymmm256,
        };
        self.three(code, to, a, b);
    }

    fn insert_quad(&self) -> Code {
        match self.wide() {
            true => Code::EVEX_Vinsertf32x4_zmm_k1z_zmm_xmmm128_imm8,
            false => Code::VEX_Vinsertf128_ymm_ymm_xmmm128_imm8,
        }
    }

    /// The quad of a row that begins at a lane.
    fn quad(&self, rows: Rows, row: usize, lane: i32) -> MemoryOperand {
        match rows {
            Rows::Slots(first, _) => self.in_slot(first.saturating_add(row), lane),
            Rows::Loads(places) => self.memory(places[row].lane(lane, BYTES), false),
        }
    }
}

#[derive(Clone, Copy)]
enum Half {
    Low,
    High,
}

#[derive(Clone, Copy)]
enum Pairs {
    No,
    Yes,
}
