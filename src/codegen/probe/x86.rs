//! The loops in x86-64 instructions, at each vector width.
//!
//! One sequence for all widths; a width is a row of a table. Registers are those that System V
//! gives a function to use freely.

use iced_x86::{Code, Instruction, MemoryOperand, Register};

use super::{ACCUMULATORS, ADDEND, FACTOR, Kind, LOADS, STEPS};
use crate::codegen::isa::x64::text::{Label, Text};
use crate::target::Host;

/// A vector width: what it takes, and the instructions that have it.
struct Width {
    bits: u32,
    features: &'static [&'static str],
    first: Register,
    broadcast: Code,
    fma: Code,
    load: Code,
}

const WIDTHS: [Width; 3] = [
    Width {
        bits: 128,
        features: &["avx2", "fma"],
        first: Register::XMM0,
        broadcast: Code::VEX_Vbroadcastss_xmm_xmm,
        fma: Code::VEX_Vfmadd213ps_xmm_xmm_xmmm128,
        load: Code::VEX_Vmovups_xmm_xmmm128,
    },
    Width {
        bits: 256,
        features: &["avx2", "fma"],
        first: Register::YMM0,
        broadcast: Code::VEX_Vbroadcastss_ymm_xmm,
        fma: Code::VEX_Vfmadd213ps_ymm_ymm_ymmm256,
        load: Code::VEX_Vmovups_ymm_ymmm256,
    },
    Width {
        bits: 512,
        features: &["avx2", "fma", "avx512f"],
        first: Register::ZMM0,
        broadcast: Code::EVEX_Vbroadcastss_zmm_k1z_xmmm32,
        fma: Code::EVEX_Vfmadd213ps_zmm_k1z_zmm_zmmm512b32_er,
        load: Code::EVEX_Vmovups_zmm_k1z_zmmm512,
    },
];

/// The code of a probe, if the host has the width.
pub(super) fn emit(host: &Host, vector_bits: u32, kind: Kind) -> Option<Vec<u8>> {
    let width = WIDTHS.iter().find(|width| width.bits == vector_bits)?;
    if !width.features.iter().all(|feature| host.has(feature)) {
        return None;
    }
    width.assemble(kind)
}

impl Width {
    /// The code; none if an instruction has no encoding.
    fn assemble(&self, kind: Kind) -> Option<Vec<u8>> {
        let mut text = Text::new();
        let (pass, end) = (text.label(), text.label());
        leave_if_zero(&mut text, Register::RDI, end);
        match kind {
            Kind::Fma | Kind::Chain => self.start_sums(&mut text),
            Kind::Read => leave_if_zero(&mut text, Register::RDX, end),
        }
        text.place(pass);
        match kind {
            Kind::Fma => self.advance_sums(&mut text, ACCUMULATORS),
            Kind::Chain => self.advance_sums(&mut text, 1),
            Kind::Read => self.read(&mut text),
        }
        count_down(&mut text, Register::RDI, pass);
        text.place(end);
        text.push(Ok(Instruction::with(Code::VEX_Vzeroupper)));
        text.push(Ok(Instruction::with(Code::Retnq)));
        text.finish()
    }

    fn register(&self, i: usize) -> Register {
        self.first + i as u32
    }

    /// Every sum starts at the addend; the factor and the addend follow the sums.
    fn start_sums(&self, text: &mut Text) {
        self.broadcast(text, ACCUMULATORS, FACTOR);
        for i in (0..ACCUMULATORS).chain([ACCUMULATORS + 1]) {
            self.broadcast(text, i, ADDEND);
        }
    }

    fn broadcast(&self, text: &mut Text, i: usize, x: f32) {
        let scalar = Register::XMM0 + i as u32;
        text.push(Instruction::with2(Code::Mov_r32_imm32, Register::EAX, x.to_bits()));
        text.push(Instruction::with2(Code::VEX_Vmovd_xmm_rm32, scalar, Register::EAX));
        text.push(Instruction::with2(self.broadcast, self.register(i), scalar));
    }

    /// `sum = sum * factor + addend` for the first few sums, in turns.
    fn advance_sums(&self, text: &mut Text, sums: usize) {
        let [factor, addend] = [ACCUMULATORS, ACCUMULATORS + 1].map(|i| self.register(i));
        for i in 0..STEPS * ACCUMULATORS {
            let sum = self.register(i % sums);
            text.push(Instruction::with3(self.fma, sum, factor, addend));
        }
    }

    /// Loads every chunk.
    fn read(&self, text: &mut Text) {
        let vector = self.bits as usize / 8;
        text.push(Instruction::with2(Code::Mov_r64_rm64, Register::RAX, Register::RSI));
        text.push(Instruction::with2(Code::Mov_r64_rm64, Register::RCX, Register::RDX));
        let chunk = text.label();
        text.place(chunk);
        for i in 0..LOADS {
            let place = MemoryOperand::with_base_displ(Register::RAX, (i * vector) as i64);
            text.push(Instruction::with2(self.load, self.register(i), place));
        }
        let bytes = (LOADS * vector) as i32;
        text.push(Instruction::with2(Code::Add_rm64_imm32, Register::RAX, bytes));
        count_down(text, Register::RCX, chunk);
    }
}

/// Goes to the end if a register is zero.
fn leave_if_zero(text: &mut Text, register: Register, end: Label) {
    text.push(Instruction::with2(Code::Test_rm64_r64, register, register));
    text.jump(Code::Je_rel32_64, end);
}

/// Counts a register down, and jumps back if it is not zero.
fn count_down(text: &mut Text, register: Register, top: Label) {
    text.push(Instruction::with1(Code::Dec_rm64, register));
    text.jump(Code::Jne_rel32_64, top);
}

#[cfg(test)]
mod tests {
    use iced_x86::{Decoder, DecoderOptions, OpKind};

    use super::*;

    #[test]
    fn every_jump_goes_to_an_instruction_and_the_code_ends_in_a_return() {
        for width in &WIDTHS {
            for kind in [Kind::Fma, Kind::Chain, Kind::Read] {
                let bytes = width.assemble(kind).unwrap();
                let code: Vec<_> = Decoder::new(64, &bytes, DecoderOptions::NONE).iter().collect();
                assert!(code.iter().all(|i| i.code() != Code::INVALID));
                assert_eq!(code.last().map(|i| i.code()), Some(Code::Retnq));
                let jumps = code.iter().filter(|i| i.op0_kind() == OpKind::NearBranch64);
                assert!(jumps.clone().count() >= 2);
                for jump in jumps {
                    assert!(code.iter().any(|i| i.ip() == jump.near_branch_target()));
                }
            }
        }
    }
}
