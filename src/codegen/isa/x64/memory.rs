//! Loads and stores, and the masks of those that touch some lanes only.

use iced_x86::{Code, Instruction, MemoryOperand, Register};

use super::opcodes::Operation;
use super::{KEPT, Kept, X64, argument, product};
use crate::vir::encoder::Reg;
use crate::vir::{Level, Mask, Place};

impl X64 {
    pub(super) fn prefetch(&mut self, place: Place, level: Level) {
        let memory = self.memory(place, false);
        let code = match level {
            Level::L1 => Code::Prefetcht0_m8,
            Level::L2 => Code::Prefetcht1_m8,
        };
        self.push(Instruction::with1(code, memory));
    }

    pub(super) fn broadcast(&mut self, to: Reg, place: Place, elements: u8) {
        let code = self.opcode(Operation::Broadcast(elements));
        let memory = self.memory(place, false);
        self.push(Instruction::with2(code, self.vector(to), memory));
    }

    pub(super) fn load(&mut self, to: Reg, place: Place, mask: Mask) {
        let (memory, vt) = (self.memory(place, false), self.vector(to));
        if mask.is_whole(self.lanes) {
            return self.push(Instruction::with2(self.opcode(Operation::Load), vt, memory));
        }
        let selected = self.lane_mask(mask, to);
        let code = self.opcode(Operation::LoadMasked);
        if self.form.has_mask_registers() {
            self.push_masked(Instruction::with2(code, vt, memory), selected, true);
        } else {
            self.push(Instruction::with3(code, vt, vt, memory));
        }
    }

    pub(super) fn store(&mut self, place: Place, mask: Mask, from: Reg, scratch: Option<Reg>) {
        let by = scratch.unwrap_or(from);
        let selected = (!mask.is_whole(self.lanes)).then(|| self.lane_mask(mask, by));
        let memory = self.memory(place, false);
        self.store_elements(memory, from, selected);
    }

    /// A store by a mask, if it has one, that is in a register already.
    pub(super) fn store_elements(
        &mut self,
        to: MemoryOperand,
        from: Reg,
        selected: Option<Register>,
    ) {
        let vf = self.vector(from);
        let Some(selected) = selected else {
            return self.push(Instruction::with2(self.opcode(Operation::Store), to, vf));
        };
        let code = self.opcode(Operation::StoreMasked);
        if self.form.has_mask_registers() {
            self.push_masked(Instruction::with2(code, to, vf), selected, false);
        } else {
            self.push(Instruction::with3(code, to, selected, vf));
        }
    }

    /// Stores lanes one by one, through a slot of the frame.
    pub(super) fn scatter(&mut self, place: Place, mask: Mask, bytes: i64, from: Reg, slot: usize) {
        self.spill(slot, from);
        if mask.limit.is_some() {
            self.lane_count(mask);
        }
        let end = self.label();
        for lane in mask.numbers() {
            if mask.limit.is_some() {
                self.push(Instruction::with2(Code::Cmp_rm32_imm32, Register::ECX, lane));
                self.jump(Code::Jle_rel32_64, end);
            }
            let element = self.in_slot(slot, lane);
            self.push(Instruction::with2(Code::Mov_r32_rm32, Register::EAX, element));
            let to = self.memory(place.lane(lane, bytes), false);
            self.push(Instruction::with2(Code::Mov_rm32_r32, to, Register::EAX));
        }
        if mask.limit.is_some() {
            self.place_label(end);
        }
    }

    /// Makes a mask for the whole function. Where no mask register is left, each access makes its
    /// own.
    pub(super) fn keep_mask(&mut self, mask: Mask, passing: Reg, slot: usize) {
        if !self.form.has_mask_registers() {
            self.make_mask(mask, self.vector(passing), passing);
            self.spill(slot, passing);
            self.kept.push((mask, Kept::Slot(slot)));
        } else if let Some(register) = KEPT.get(self.kept.len()) {
            self.make_mask(mask, *register, passing);
            self.kept.push((mask, Kept::Register(*register)));
        }
    }

    /// A mask in the register that it is kept in or in `k2`, or as a vector in `to` where there are
    /// no mask registers.
    pub(super) fn lane_mask(&mut self, mask: Mask, to: Reg) -> Register {
        match self.kept.iter().find(|(other, _)| *other == mask) {
            Some((_, Kept::Register(register))) => return *register,
            Some((_, Kept::Slot(slot))) => {
                self.reload(to, *slot);
                return self.vector(to);
            }
            None => {}
        }
        if !self.form.has_mask_registers() {
            return self.make_mask(mask, self.vector(to), to);
        }
        let selected = mask.limit.is_none().then_some((mask.first, mask.lanes));
        if selected.is_none() || self.selected != selected {
            self.selected = selected;
            self.make_mask(mask, Register::K2, to);
        }
        Register::K2
    }

    /// A mask in a mask register, or as a vector in `to` where there are none.
    fn make_mask(&mut self, mask: Mask, register: Register, to: Reg) -> Register {
        let masks = self.form.has_mask_registers();
        self.lane_count(mask);
        if masks {
            self.push(Instruction::with2(Code::Mov_r32_imm32, Register::EAX, u32::MAX));
            let code = Code::VEX_Bzhi_r32_rm32_r32;
            self.push(Instruction::with3(code, Register::EAX, Register::EAX, Register::ECX));
            if mask.first > 0 {
                let from = (-1_i32).wrapping_shl(mask.skipped(1));
                self.push(Instruction::with2(Code::And_rm32_imm32, Register::EAX, from));
            }
            self.push(Instruction::with2(Code::VEX_Kmovw_kr_r32, register, Register::EAX));
        } else {
            // A byte of ones a lane, sign-extended.
            self.push(Instruction::with2(Code::Shl_rm32_imm8, Register::ECX, 3));
            self.push(Instruction::with2(Code::Mov_r64_imm64, Register::RAX, -1i64));
            let code = Code::VEX_Bzhi_r64_rm64_r64;
            self.push(Instruction::with3(code, Register::RAX, Register::RAX, Register::RCX));
            if mask.first > 0 {
                let from = (-1_i64).wrapping_shl(mask.skipped(8));
                self.push(Instruction::with2(Code::Mov_r64_imm64, Register::RCX, from));
                self.push(Instruction::with2(Code::And_r64_rm64, Register::RAX, Register::RCX));
            }
            let low = self.low(to);
            self.push(Instruction::with2(Code::VEX_Vmovq_xmm_rm64, low, Register::RAX));
            let code = Code::VEX_Vpmovsxbd_ymm_xmmm64;
            self.push(Instruction::with2(code, register, low));
        }
        register
    }

    /// The number of lanes of a mask into `ecx`.
    pub(super) fn lane_count(&mut self, mask: Mask) {
        let lanes = mask.count();
        let Some((argument, start)) = mask.limit else {
            return self.push(Instruction::with2(Code::Mov_r32_imm32, Register::ECX, lanes));
        };
        let left = self::argument(argument);
        self.push(Instruction::with2(Code::Mov_r32_rm32, Register::ECX, left));
        self.push(Instruction::with2(Code::Sub_rm32_imm32, Register::ECX, start));
        self.push(Instruction::with2(Code::Mov_r32_imm32, Register::EAX, lanes));
        self.push(Instruction::with2(Code::Cmp_r32_rm32, Register::ECX, Register::EAX));
        self.push(Instruction::with2(Code::Cmovg_r32_rm32, Register::ECX, Register::EAX));
        self.push(Instruction::with2(Code::Xor_r32_rm32, Register::EAX, Register::EAX));
        self.push(Instruction::with2(Code::Test_rm32_r32, Register::ECX, Register::ECX));
        self.push(Instruction::with2(Code::Cmovs_r32_rm32, Register::ECX, Register::EAX));
    }

    fn slot(&self, slot: usize) -> MemoryOperand {
        self.in_slot(slot, 0)
    }

    /// A lane of a slot of the frame.
    pub(super) fn in_slot(&self, slot: usize, lane: i32) -> MemoryOperand {
        let first = product(slot, self.bytes);
        let displacement = first.saturating_add(i64::from(lane).saturating_mul(self.elem_bytes()));
        MemoryOperand::with_base_displ(Register::RSP, displacement)
    }

    pub(super) fn spill(&mut self, slot: usize, from: Reg) {
        let code = self.opcode(Operation::Store);
        self.push(Instruction::with2(code, self.slot(slot), self.vector(from)));
    }

    pub(super) fn reload(&mut self, to: Reg, slot: usize) {
        let code = self.opcode(Operation::Load);
        self.push(Instruction::with2(code, self.vector(to), self.slot(slot)));
    }
}
