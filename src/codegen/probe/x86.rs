//! The loops in x86-64 instructions, at each vector width.
//!
//! One sequence for all widths; a width is a row of a table. Registers are those that System V
//! gives a function to use freely.

use iced_x86::code_asm::{CodeAssembler, CodeLabel, eax, rax, rcx, rdi, rdx, rsi};
use iced_x86::{Code, IcedError, Instruction, MemoryOperand, Register};

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

impl Width {
    fn assemble(&self, kind: Kind) -> Result<Vec<u8>, IcedError> {
        let mut asm = CodeAssembler::new(64)?;
        let (mut pass, mut end) = (asm.create_label(), asm.create_label());
        asm.test(rdi, rdi)?;
        asm.jz(end)?;
        match kind {
            Kind::Fma | Kind::Chain => self.start_sums(&mut asm)?,
            Kind::Read => {
                asm.test(rdx, rdx)?;
                asm.jz(end)?;
            }
        }
        asm.set_label(&mut pass)?;
        match kind {
            Kind::Fma => self.advance_sums(&mut asm, ACCUMULATORS)?,
            Kind::Chain => self.advance_sums(&mut asm, 1)?,
            Kind::Read => self.read(&mut asm)?,
        }
        asm.dec(rdi)?;
        asm.jnz(pass)?;
        asm.set_label(&mut end)?;
        asm.vzeroupper()?;
        asm.ret()?;
        // All jumps are relative: the code runs at any address.
        asm.assemble(0)
    }

    fn register(&self, i: usize) -> Register {
        self.first + i as u32
    }

    /// Every sum starts at the addend; the factor and the addend follow the sums.
    fn start_sums(&self, asm: &mut CodeAssembler) -> Result<(), IcedError> {
        self.broadcast(asm, ACCUMULATORS, FACTOR)?;
        for i in (0..ACCUMULATORS).chain([ACCUMULATORS + 1]) {
            self.broadcast(asm, i, ADDEND)?;
        }
        Ok(())
    }

    fn broadcast(&self, asm: &mut CodeAssembler, i: usize, x: f32) -> Result<(), IcedError> {
        let scalar = Register::XMM0 + i as u32;
        asm.mov(eax, x.to_bits())?;
        asm.add_instruction(Instruction::with2(Code::VEX_Vmovd_xmm_rm32, scalar, Register::EAX)?)?;
        asm.add_instruction(Instruction::with2(self.broadcast, self.register(i), scalar)?)
    }

    /// `sum = sum * factor + addend` for the first few sums, in turns.
    fn advance_sums(&self, asm: &mut CodeAssembler, sums: usize) -> Result<(), IcedError> {
        let [factor, addend] = [ACCUMULATORS, ACCUMULATORS + 1].map(|i| self.register(i));
        for i in 0..STEPS * ACCUMULATORS {
            let sum = self.register(i % sums);
            asm.add_instruction(Instruction::with3(self.fma, sum, factor, addend)?)?;
        }
        Ok(())
    }

    /// Loads every chunk.
    fn read(&self, asm: &mut CodeAssembler) -> Result<(), IcedError> {
        let vector = self.bits as usize / 8;
        let mut chunk: CodeLabel = asm.create_label();
        asm.mov(rax, rsi)?;
        asm.mov(rcx, rdx)?;
        asm.set_label(&mut chunk)?;
        for i in 0..LOADS {
            let place = MemoryOperand::with_base_displ(Register::RAX, (i * vector) as i64);
            asm.add_instruction(Instruction::with2(self.load, self.register(i), place)?)?;
        }
        asm.add(rax, (LOADS * vector) as i32)?;
        asm.dec(rcx)?;
        asm.jnz(chunk)
    }
}
