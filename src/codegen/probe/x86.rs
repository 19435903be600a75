//! The loops in x86-64 instructions, at each vector width.
//!
//! One sequence for all widths; a width is a row of a table. Registers are those that System V
//! gives a function to use freely.

use iced_x86::{Code, Encoder, IcedError, Instruction, MemoryOperand, Register};

use super::{ACCUMULATORS, ADDEND, FACTOR, Kind, LOADS, STEPS};
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
    width.assemble(kind).ok()
}

/// Position-independent code as it grows. Jumps are relative: it runs at any address.
struct Text {
    encoder: Encoder,
    length: u64,
}

impl Text {
    fn push(&mut self, instruction: Result<Instruction, IcedError>) -> Result<(), IcedError> {
        self.length += self.encoder.encode(&instruction?, self.length)? as u64;
        Ok(())
    }

    /// Returns if a register is zero.
    fn return_if_zero(&mut self, register: Register) -> Result<(), IcedError> {
        self.push(Instruction::with2(Code::Test_rm64_r64, register, register))?;
        // Over the return: a short jump has two bytes, the return one.
        self.push(Instruction::with_branch(Code::Jne_rel8_64, self.length + 3))?;
        self.push(Ok(Instruction::with(Code::Retnq)))
    }

    /// Counts a register down, and jumps back if it is not zero.
    fn count_down(&mut self, register: Register, top: u64) -> Result<(), IcedError> {
        self.push(Instruction::with1(Code::Dec_rm64, register))?;
        self.push(Instruction::with_branch(Code::Jne_rel32_64, top))
    }
}

impl Width {
    fn assemble(&self, kind: Kind) -> Result<Vec<u8>, IcedError> {
        let mut text = Text { encoder: Encoder::new(64), length: 0 };
        text.return_if_zero(Register::RDI)?;
        match kind {
            Kind::Fma | Kind::Chain => self.start_sums(&mut text)?,
            Kind::Read => text.return_if_zero(Register::RDX)?,
        }
        let pass = text.length;
        match kind {
            Kind::Fma => self.advance_sums(&mut text, ACCUMULATORS)?,
            Kind::Chain => self.advance_sums(&mut text, 1)?,
            Kind::Read => self.read(&mut text)?,
        }
        text.count_down(Register::RDI, pass)?;
        text.push(Ok(Instruction::with(Code::VEX_Vzeroupper)))?;
        text.push(Ok(Instruction::with(Code::Retnq)))?;
        Ok(text.encoder.take_buffer())
    }

    fn register(&self, i: usize) -> Register {
        self.first + i as u32
    }

    /// Every sum starts at the addend; the factor and the addend follow the sums.
    fn start_sums(&self, text: &mut Text) -> Result<(), IcedError> {
        self.broadcast(text, ACCUMULATORS, FACTOR)?;
        for i in (0..ACCUMULATORS).chain([ACCUMULATORS + 1]) {
            self.broadcast(text, i, ADDEND)?;
        }
        Ok(())
    }

    fn broadcast(&self, text: &mut Text, i: usize, x: f32) -> Result<(), IcedError> {
        let scalar = Register::XMM0 + i as u32;
        text.push(Instruction::with2(Code::Mov_r32_imm32, Register::EAX, x.to_bits()))?;
        text.push(Instruction::with2(Code::VEX_Vmovd_xmm_rm32, scalar, Register::EAX))?;
        text.push(Instruction::with2(self.broadcast, self.register(i), scalar))
    }

    /// `sum = sum * factor + addend` for the first few sums, in turns.
    fn advance_sums(&self, text: &mut Text, sums: usize) -> Result<(), IcedError> {
        let [factor, addend] = [ACCUMULATORS, ACCUMULATORS + 1].map(|i| self.register(i));
        for i in 0..STEPS * ACCUMULATORS {
            let sum = self.register(i % sums);
            text.push(Instruction::with3(self.fma, sum, factor, addend))?;
        }
        Ok(())
    }

    /// Loads every chunk.
    fn read(&self, text: &mut Text) -> Result<(), IcedError> {
        let vector = self.bits as usize / 8;
        text.push(Instruction::with2(Code::Mov_r64_rm64, Register::RAX, Register::RSI))?;
        text.push(Instruction::with2(Code::Mov_r64_rm64, Register::RCX, Register::RDX))?;
        let chunk = text.length;
        for i in 0..LOADS {
            let place = MemoryOperand::with_base_displ(Register::RAX, (i * vector) as i64);
            text.push(Instruction::with2(self.load, self.register(i), place))?;
        }
        let bytes = (LOADS * vector) as i32;
        text.push(Instruction::with2(Code::Add_rm64_imm32, Register::RAX, bytes))?;
        text.count_down(Register::RCX, chunk)
    }
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
