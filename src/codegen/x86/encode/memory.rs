//! Loads and stores, and the masks of those that touch some lanes only.

use iced_x86::{Code, Instruction, MemoryOperand, Register};

use super::super::program::{Level, Mask, Place};
use super::{Encoder, Reg, argument};

impl Encoder {
    /// Brings the line at a place into a cache; no fault if there is no memory.
    pub(in super::super) fn prefetch(&mut self, place: Place, level: Level) {
        let memory = self.memory(place, false);
        let code = match level {
            Level::L1 => Code::Prefetcht0_m8,
            Level::L2 => Code::Prefetcht1_m8,
        };
        self.push(Instruction::with1(code, memory));
    }

    /// One, two, four or eight neighbouring elements, over and over.
    pub(in super::super) fn broadcast(&mut self, to: Reg, place: Place, elements: u8) {
        let code = match (elements, self.wide()) {
            (1, true) => Code::EVEX_Vbroadcastss_zmm_k1z_xmmm32,
            (1, false) => Code::VEX_Vbroadcastss_ymm_m32,
            (2, true) => Code::EVEX_Vbroadcastsd_zmm_k1z_xmmm64,
            (2, false) => Code::VEX_Vbroadcastsd_ymm_m64,
            (4, true) => Code::EVEX_Vbroadcastf32x4_zmm_k1z_m128,
            (4, false) => Code::VEX_Vbroadcastf128_ymm_m128,
            (_, true) => Code::EVEX_Vbroadcastf64x4_zmm_k1z_m256,
            (_, false) => Code::VEX_Vmovups_ymm_ymmm256,
        };
        let memory = self.memory(place, false);
        self.push(Instruction::with2(code, self.vector(to), memory));
    }

    pub(in super::super) fn load(&mut self, to: Reg, place: Place, mask: Mask) {
        let memory = self.memory(place, false);
        let vt = self.vector(to);
        match (self.is_whole(mask), self.wide()) {
            (true, true) => {
                self.push(Instruction::with2(Code::EVEX_Vmovups_zmm_k1z_zmmm512, vt, memory));
            }
            (true, false) => {
                self.push(Instruction::with2(Code::VEX_Vmovups_ymm_ymmm256, vt, memory));
            }
            (false, true) => {
                self.lane_mask(mask, to);
                let code = Code::EVEX_Vmovups_zmm_k1z_zmmm512;
                self.push_masked(Instruction::with2(code, vt, memory), Register::K2, true);
            }
            (false, false) => {
                self.lane_mask(mask, to);
                let code = Code::VEX_Vmaskmovps_ymm_ymm_m256;
                self.push(Instruction::with3(code, vt, vt, memory));
            }
        }
    }

    /// A store; `scratch` is another register that may be overwritten if the mask is not whole.
    pub(in super::super) fn store(
        &mut self,
        place: Place,
        mask: Mask,
        from: Reg,
        scratch: Option<Reg>,
    ) {
        let memory = self.memory(place, false);
        let vf = self.vector(from);
        match (self.is_whole(mask), self.wide(), scratch) {
            (true, true, _) => {
                self.push(Instruction::with2(Code::EVEX_Vmovups_zmmm512_k1z_zmm, memory, vf));
            }
            (true, false, _) => {
                self.push(Instruction::with2(Code::VEX_Vmovups_ymmm256_ymm, memory, vf));
            }
            (false, true, _) => {
                self.lane_mask(mask, from);
                let code = Code::EVEX_Vmovups_zmmm512_k1z_zmm;
                self.push_masked(Instruction::with2(code, memory, vf), Register::K2, false);
            }
            (false, false, scratch) => {
                let scratch = scratch.unwrap_or(from);
                self.lane_mask(mask, scratch);
                let code = Code::VEX_Vmaskmovps_m256_ymm_ymm;
                self.push(Instruction::with3(code, memory, self.vector(scratch), vf));
            }
        }
    }

    /// Stores lanes one by one, through a slot of the frame.
    pub(in super::super) fn scatter(
        &mut self,
        place: Place,
        mask: Mask,
        bytes: i64,
        from: Reg,
        slot: usize,
    ) {
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

    /// The mask into `k2`, or as a vector into `to` where there are no mask registers.
    pub(super) fn lane_mask(&mut self, mask: Mask, to: Reg) {
        let selected = mask.limit.is_none().then_some((mask.first, mask.lanes));
        if self.wide() && selected.is_some() && self.selected == selected {
            return;
        }
        self.selected = selected;
        self.lane_count(mask);
        if self.wide() {
            self.push(Instruction::with2(Code::Mov_r32_imm32, Register::EAX, u32::MAX));
            let code = Code::VEX_Bzhi_r32_rm32_r32;
            self.push(Instruction::with3(code, Register::EAX, Register::EAX, Register::ECX));
            if mask.first > 0 {
                let from = (-1_i32).wrapping_shl(mask.skipped(1));
                self.push(Instruction::with2(Code::And_rm32_imm32, Register::EAX, from));
            }
            self.push(Instruction::with2(Code::VEX_Kmovw_kr_r32, Register::K2, Register::EAX));
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
            self.push(Instruction::with2(code, self.vector(to), low));
        }
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
        let first = super::product(slot, self.vector_bytes());
        let displacement = first.saturating_add(i64::from(lane).saturating_mul(4));
        MemoryOperand::with_base_displ(Register::RSP, displacement)
    }

    pub(in super::super) fn spill(&mut self, slot: usize, from: Reg) {
        let code = if self.wide() {
            Code::EVEX_Vmovups_zmmm512_k1z_zmm
        } else {
            Code::VEX_Vmovups_ymmm256_ymm
        };
        self.push(Instruction::with2(code, self.slot(slot), self.vector(from)));
    }

    pub(in super::super) fn reload(&mut self, to: Reg, slot: usize) {
        let code = if self.wide() {
            Code::EVEX_Vmovups_zmm_k1z_zmmm512
        } else {
            Code::VEX_Vmovups_ymm_ymmm256
        };
        self.push(Instruction::with2(code, self.vector(to), self.slot(slot)));
    }
}
