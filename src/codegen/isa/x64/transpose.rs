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

use super::opcodes::{Operation, Unpack};
use super::{X64, product};
use crate::vir::encoder::{Reg, Rows, TRANSPOSE_REGISTERS};
use crate::vir::{Mask, Place, QUAD};

impl X64 {
    /// Loads four neighbouring elements of every lane, of lanes `bytes` apart: one vector each.
    pub(super) fn gather_quad(
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
    pub(super) fn gather(&mut self, to: Reg, scratch: Reg, place: Place, mask: Mask, bytes: i64) {
        let lanes: Vec<i32> = mask.numbers().collect();
        for (quad, lanes) in (0_u32..).zip(lanes.chunks(QUAD)) {
            let part = if quad == 0 { to } else { scratch };
            let low = self.low(part);
            for (at, lane) in (0_u32..).zip(lanes) {
                let memory = self.memory(place.lane(*lane, bytes), false);
                self.push(match at {
                    0 => Instruction::with2(self.opcode(Operation::LoadLane), low, memory),
                    _ => {
                        let code = self.opcode(Operation::InsertLane);
                        Instruction::with4(code, low, low, memory, at << 4)
                    }
                });
            }
            if quad > 0 {
                let (code, to) = (self.opcode(Operation::InsertQuad), self.vector(to));
                self.push(Instruction::with4(code, to, to, low, quad));
            }
        }
    }

    /// Stores vectors that lie in memory, their lanes `bytes` apart: of each lane the elements of
    /// all vectors, side by side. `mask_register` is for the mask of these.
    pub(super) fn scatter_all(
        &mut self,
        registers: [Reg; TRANSPOSE_REGISTERS],
        mask_register: Reg,
        rows: Rows,
        (place, mask, bytes): (Place, Mask, i64),
    ) {
        let elements = Mask { first: 0, lanes: product(rows.count(), 1), limit: None };
        let selected =
            (!elements.is_whole(self.lanes)).then(|| self.lane_mask(elements, mask_register));
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
                self.store_elements(to, from, selected);
            }
        }
        if mask.limit.is_some() {
            self.place_label(end);
        }
    }

    /// A register put together of quads from memory, zero beyond them.
    fn quads(&mut self, to: Reg, quads: &[MemoryOperand]) {
        if quads.is_empty() {
            self.zero(to);
        }
        for (at, memory) in (0_u32..).zip(quads) {
            if at == 0 {
                let code = self.opcode(Operation::LoadQuad);
                self.push(Instruction::with2(code, self.low(to), *memory));
            } else {
                let (code, to) = (self.opcode(Operation::InsertQuad), self.vector(to));
                self.push(Instruction::with4(code, to, to, *memory, at));
            }
        }
    }

    /// Exchanges rows and columns within quads; the results are in four of the registers.
    fn transpose_quads(&mut self, registers: [Reg; TRANSPOSE_REGISTERS]) -> [Reg; QUAD] {
        let [a, b, c, d, other] = registers;
        self.three(Operation::Unpack(Unpack::Low), other, a, b);
        self.three(Operation::Unpack(Unpack::High), b, a, b);
        self.three(Operation::Unpack(Unpack::Low), a, c, d);
        self.three(Operation::Unpack(Unpack::High), d, c, d);
        self.three(Operation::Unpack(Unpack::LowPairs), c, other, a);
        self.three(Operation::Unpack(Unpack::HighPairs), other, other, a);
        self.three(Operation::Unpack(Unpack::LowPairs), a, b, d);
        self.three(Operation::Unpack(Unpack::HighPairs), b, b, d);
        [c, other, a, b]
    }

    /// The quad of a row that begins at a lane.
    fn quad(&self, rows: Rows, row: usize, lane: i32) -> MemoryOperand {
        match rows {
            Rows::Slots(first, _) => self.in_slot(first.saturating_add(row), lane),
            Rows::Loads(places) => self.memory(places[row].lane(lane, self.elem_bytes()), false),
        }
    }
}
