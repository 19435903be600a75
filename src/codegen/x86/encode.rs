//! The instruction set: each operation of a micro-kernel as instructions of either vector width.
//!
//! General registers: `rdi` holds the arguments, `rax` and `rcx` are scratch, the others are the
//! pointers of the streams in use and the counters of inner loops. The arguments are memory too: there
//! each stream moves with the loops outside of those. `k1` is the result of comparisons, `k2` the mask of the
//! current access. Constants come through `rax`, so the code needs no data.

mod transpose;

use std::cell::Cell;
use std::collections::BTreeSet;

use convgen_ir::nest::{BinaryOp, UnaryOp};
use iced_x86::{
    BlockEncoder, BlockEncoderOptions, Code, IcedError, Instruction, InstructionBlock,
    MemoryOperand, Register,
};

use super::translate::{Level, Mask, Place, Spread, Stream, Trips};
use super::{Unfit, Vectors, unfit};
pub(super) use transpose::TRANSPOSE_REGISTERS;

/// A vector register by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Reg(pub(super) u8);

/// The last operand of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operand {
    Register(Reg),
    /// Memory; one element in every lane if the flag is set.
    Memory(Place, bool),
}

impl Operand {
    pub(super) fn register(self) -> Option<Reg> {
        match self {
            Operand::Register(register) => Some(register),
            Operand::Memory(..) => None,
        }
    }
}

/// How many pointers and counters there can be at a time.
pub(super) const GENERAL_REGISTERS: usize = 12;

/// Pointers and counters, the ones a callee need not save first.
const GENERAL: [Register; GENERAL_REGISTERS] = [
    Register::RDX,
    Register::RSI,
    Register::R8,
    Register::R9,
    Register::R10,
    Register::R11,
    Register::RBX,
    Register::RBP,
    Register::R12,
    Register::R13,
    Register::R14,
    Register::R15,
];

/// The first of [`GENERAL`] that a callee saves.
const FIRST_SAVED: usize = 6;

const COMPARE_LESS: u32 = 0x11;
const COMPARE_LESS_OR_EQUAL: u32 = 0x12;
const COMPARE_ORDERED: u32 = 0x07;
const ROUND_TO_EVEN: u32 = 0x08;
/// Two to the power of 31: the first float beyond 32-bit integers.
const TWO_31: u32 = 0x4f00_0000;

/// Where an argument of the function is.
fn argument(number: usize) -> MemoryOperand {
    MemoryOperand::with_base_displ(Register::RDI, 8 * number as i64)
}

/// Writes one function.
pub(super) struct Encoder {
    vectors: Vectors,
    /// The argument that each stream is.
    streams: Vec<usize>,
    /// The streams whose pointers are in registers, in the order of these.
    near: Vec<Stream>,
    /// Registers that have been used.
    used: usize,
    /// Words at the arguments.
    words: usize,
    body: Vec<Instruction>,
    /// The first thing that could not be encoded.
    failed: Option<IcedError>,
    /// Whether a pointer was asked for that is in no register.
    lost: Cell<bool>,
    next_label: u64,
    /// The first lane that `k2` is known to select, and the one after the last.
    selected: Option<(i64, i64)>,
}

/// What counts a loop's iterations down.
#[derive(Clone, Copy)]
pub(super) enum Counter {
    Register(Register),
    /// A word at the arguments.
    Word(usize),
}

/// A loop that has begun: its counter, its first instruction and the one after its last, and the words
/// that hold its first value and its end, unless it has fixed ones.
pub(super) struct Begun {
    counter: Counter,
    top: u64,
    after: u64,
    bounds: Option<(usize, usize)>,
}

impl Encoder {
    pub(super) fn new(vectors: Vectors, streams: &[usize], arguments: usize) -> Encoder {
        Encoder {
            vectors,
            streams: streams.to_vec(),
            near: vec![],
            used: 0,
            words: arguments,
            body: vec![],
            failed: None,
            lost: Cell::new(false),
            next_label: 1,
            selected: None,
        }
    }

    fn wide(&self) -> bool {
        match self.vectors {
            Vectors::Avx2 => false,
            Vectors::Avx512 => true,
        }
    }

    fn push(&mut self, instruction: Result<Instruction, IcedError>) {
        match instruction {
            Ok(instruction) => self.body.push(instruction),
            Err(error) => {
                self.failed.get_or_insert(error);
            }
        }
    }

    fn vector(&self, reg: Reg) -> Register {
        let first = if self.wide() { Register::ZMM0 } else { Register::YMM0 };
        first + u32::from(reg.0)
    }

    fn memory(&self, place: Place, broadcast: bool) -> MemoryOperand {
        MemoryOperand::new(
            self.register(place.stream).unwrap_or_else(|| {
                self.lost.set(true);
                Register::RAX
            }),
            Register::None,
            1,
            i64::from(place.displacement),
            1,
            broadcast,
            Register::None,
        )
    }

    /// Loads the pointers of streams; beside them there are so many counters.
    pub(super) fn bring(&mut self, streams: &BTreeSet<Stream>, counters: usize) {
        self.near = streams.iter().copied().collect();
        self.used = self.used.max(self.near.len() + counters);
        for (at, stream) in streams.iter().enumerate() {
            let from = argument(self.streams[*stream]);
            self.push(Instruction::with2(Code::Mov_r64_rm64, GENERAL[at], from));
        }
    }

    /// Leaves the streams to memory.
    pub(super) fn forget(&mut self) {
        self.near.clear();
    }

    /// The whole function, saves, body and restores, and the number of words at its arguments.
    pub(super) fn leave(mut self, slots: usize) -> Result<(Vec<u8>, usize), Unfit> {
        let body = std::mem::take(&mut self.body);
        let saved: Vec<Register> = GENERAL[..self.used].iter().skip(FIRST_SAVED).copied().collect();
        let frame = (slots * 4 * self.vectors.lanes() as usize) as i32;
        for register in &saved {
            self.push(Instruction::with1(Code::Push_r64, *register));
        }
        if frame > 0 {
            self.push(Instruction::with2(Code::Sub_rm64_imm32, Register::RSP, frame));
        }
        self.body.extend(body);
        self.body.push(Instruction::with(Code::VEX_Vzeroupper));
        if frame > 0 {
            self.push(Instruction::with2(Code::Add_rm64_imm32, Register::RSP, frame));
        }
        for register in saved.iter().rev() {
            self.push(Instruction::with1(Code::Pop_r64, *register));
        }
        self.body.push(Instruction::with(Code::Retnq));
        if self.failed.is_some() {
            return unfit("an instruction has no encoding");
        }
        if self.lost.get() {
            return unfit("a pointer is in no register");
        }
        let block = InstructionBlock::new(&self.body, 0);
        match BlockEncoder::encode(64, block, BlockEncoderOptions::NONE) {
            Ok(encoded) => Ok((encoded.code_buffer, self.words)),
            Err(_) => unfit("an instruction has no encoding"),
        }
    }

    pub(super) fn counter(&self, depth: usize) -> Counter {
        Counter::Register(GENERAL[self.near.len() + depth])
    }

    pub(super) fn counter_in_memory(&mut self) -> Counter {
        Counter::Word(self.word())
    }

    fn word(&mut self) -> usize {
        self.words += 1;
        self.words - 1
    }

    pub(super) fn begin_loop(
        &mut self,
        counter: Counter,
        trips: &Trips,
        strides: &[(Stream, i64)],
    ) -> Begun {
        let bounds = self.bounds(trips);
        let begun = Begun { counter, top: self.label(), after: self.label(), bounds };
        match (trips, bounds) {
            (_, Some((first, end))) => {
                self.advance_by(first, strides, 1);
                let [first, end] = [first, end].map(argument);
                self.push(Instruction::with2(Code::Mov_r64_rm64, Register::RAX, end));
                self.push(Instruction::with2(Code::Sub_r64_rm64, Register::RAX, first));
                self.count_from_rax(counter);
                self.push(Instruction::with_branch(Code::Jle_rel32_64, begun.after));
            }
            (Trips::Fixed(trips), None) => {
                self.push(Instruction::with2(Code::Mov_r64_imm64, Register::RAX, *trips));
                self.count_from_rax(counter);
            }
            (Trips::Between { .. } | Trips::Within { .. }, None) => {}
        }
        self.place_label(begun.top);
        begun
    }

    /// Sets a counter; no flags change.
    fn count_from_rax(&mut self, counter: Counter) {
        self.push(match counter {
            Counter::Register(to) => Instruction::with2(Code::Mov_r64_rm64, to, Register::RAX),
            Counter::Word(word) => {
                Instruction::with2(Code::Mov_rm64_r64, argument(word), Register::RAX)
            }
        });
    }

    /// The words that hold the first value of a loop's variable and its end, which is no less.
    fn bounds(&mut self, trips: &Trips) -> Option<(usize, usize)> {
        let (lo, hi, at_least, below) = match trips {
            Trips::Fixed(_) => return None,
            Trips::Between { first, end } => return Some((*first, *end)),
            Trips::Within { lo, hi, at_least, below } => (*lo, *hi, at_least, below),
        };
        let (first, end) = (self.word(), self.word());
        self.extreme(Register::RAX, lo, at_least, Code::Cmovl_r64_rm64);
        self.extreme(Register::RCX, hi, below, Code::Cmovg_r64_rm64);
        self.push(Instruction::with2(Code::Cmp_r64_rm64, Register::RCX, Register::RAX));
        self.push(Instruction::with2(Code::Cmovl_r64_rm64, Register::RCX, Register::RAX));
        for (word, register) in [(first, Register::RAX), (end, Register::RCX)] {
            self.push(Instruction::with2(Code::Mov_rm64_r64, argument(word), register));
        }
        Some((first, end))
    }

    /// A number, or what the streams hold if the condition of the move prefers it.
    fn extreme(&mut self, to: Register, number: i64, streams: &[Stream], conditional: Code) {
        self.push(Instruction::with2(Code::Mov_r64_imm64, to, number));
        for stream in streams {
            let other = argument(self.streams[*stream]);
            self.push(Instruction::with2(Code::Cmp_r64_rm64, to, other));
            self.push(Instruction::with2(conditional, to, other));
        }
    }

    pub(super) fn end_loop(&mut self, begun: Begun, trips: &Trips, strides: &[(Stream, i64)]) {
        for (stream, bytes) in strides {
            self.advance(*stream, *bytes);
        }
        self.push(match begun.counter {
            Counter::Register(register) => Instruction::with1(Code::Dec_rm64, register),
            Counter::Word(word) => Instruction::with1(Code::Dec_rm64, argument(word)),
        });
        self.push(Instruction::with_branch(Code::Jne_rel32_64, begun.top));
        match (trips, begun.bounds) {
            (_, Some((_, end))) => {
                self.place_label(begun.after);
                self.advance_by(end, strides, -1);
            }
            (Trips::Fixed(trips), None) => {
                for (stream, bytes) in strides {
                    self.advance(*stream, -bytes * trips);
                }
            }
            (Trips::Between { .. } | Trips::Within { .. }, None) => {}
        }
    }

    /// The register of a stream, if it is in one.
    fn register(&self, stream: Stream) -> Option<Register> {
        self.near.iter().position(|near| *near == stream).map(|at| GENERAL[at])
    }

    /// Moves streams by an argument times their stride.
    fn advance_by(&mut self, by: usize, strides: &[(Stream, i64)], sign: i64) {
        for (stream, bytes) in strides {
            self.push(Instruction::with2(Code::Mov_r64_imm64, Register::RAX, sign * bytes));
            self.push(Instruction::with2(Code::Imul_r64_rm64, Register::RAX, argument(by)));
            self.add_rax(*stream);
        }
    }

    fn add_rax(&mut self, stream: Stream) {
        let home = argument(self.streams[stream]);
        self.push(match self.register(stream) {
            Some(register) => Instruction::with2(Code::Add_r64_rm64, register, Register::RAX),
            None => Instruction::with2(Code::Add_rm64_r64, home, Register::RAX),
        });
    }

    fn place_label(&mut self, label: u64) {
        let mut here = Instruction::with(Code::Nopd);
        here.set_ip(label);
        self.body.push(here);
        // Whoever jumps here may have selected other lanes.
        self.selected = None;
    }

    /// Brings the line at a place into a cache; no fault if there is no memory.
    pub(super) fn prefetch(&mut self, place: Place, level: Level) {
        let memory = self.memory(place, false);
        let code = match level {
            Level::L1 => Code::Prefetcht0_m8,
            Level::L2 => Code::Prefetcht1_m8,
        };
        self.push(Instruction::with1(code, memory));
    }

    fn advance(&mut self, stream: Stream, bytes: i64) {
        let Ok(bytes) = i32::try_from(bytes) else {
            self.push(Instruction::with2(Code::Mov_r64_imm64, Register::RAX, bytes));
            return self.add_rax(stream);
        };
        let home = argument(self.streams[stream]);
        self.push(match self.register(stream) {
            Some(register) => Instruction::with2(Code::Add_rm64_imm32, register, bytes),
            None => Instruction::with2(Code::Add_rm64_imm32, home, bytes),
        });
    }

    /// Lanes of a register.
    pub(super) fn lanes(&self) -> usize {
        self.vectors.lanes() as usize
    }

    pub(super) fn is_whole(&self, mask: Mask) -> bool {
        mask.limit.is_none() && mask.first == 0 && mask.lanes == self.vectors.lanes()
    }

    /// Whether an operation can broadcast its memory operand.
    pub(super) fn folds_broadcasts(&self) -> bool {
        self.wide()
    }

    pub(super) fn copy(&mut self, to: Reg, from: Reg) {
        if to != from {
            let code = if self.wide() {
                Code::EVEX_Vmovaps_zmm_k1z_zmmm512
            } else {
                Code::VEX_Vmovaps_ymm_ymmm256
            };
            self.push(Instruction::with2(code, self.vector(to), self.vector(from)));
        }
    }

    pub(super) fn zero(&mut self, to: Reg) {
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

    fn three(&mut self, code: Code, to: Reg, a: Reg, b: Reg) {
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
    pub(super) fn multiply_add(&mut self, to: Reg, a: Reg, b: Operand) {
        let code = if self.wide() {
            Code::EVEX_Vfmadd231ps_zmm_k1z_zmm_zmmm512b32_er
        } else {
            Code::VEX_Vfmadd231ps_ymm_ymm_ymmm256
        };
        self.three_operand(code, to, a, b);
    }

    pub(super) fn binary(&mut self, op: BinaryOp, to: Reg, a: Reg, b: Operand) {
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
    pub(super) fn unary(&mut self, op: UnaryOp, to: Reg, x: Reg, scratch: Reg) {
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
    pub(super) fn compare_less(&mut self, mask: Reg, a: Reg, b: Reg) {
        self.compare(COMPARE_LESS, mask, a, b);
    }

    /// Ends a selection.
    pub(super) fn blend(&mut self, to: Reg, mask: Reg, then: Reg, otherwise: Reg) {
        let [vt, vm, vx, vy] = [to, mask, then, otherwise].map(|reg| self.vector(reg));
        if self.wide() {
            let code = Code::EVEX_Vblendmps_zmm_k1z_zmm_zmmm512b32;
            self.push_masked(Instruction::with3(code, vt, vy, vx), Register::K1, false);
        } else {
            let code = Code::VEX_Vblendvps_ymm_ymm_ymmm256_ymm;
            self.push(Instruction::with4(code, vt, vy, vx, vm));
        }
    }

    fn push_masked(
        &mut self,
        instruction: Result<Instruction, IcedError>,
        mask: Register,
        zeroing: bool,
    ) {
        self.push(instruction.map(|mut instruction| {
            instruction.set_op_mask(mask);
            instruction.set_zeroing_masking(zeroing);
            instruction
        }));
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
        if self.wide() {
            let code = Code::EVEX_Vpbroadcastd_zmm_k1z_r32;
            self.push(Instruction::with2(code, self.vector(to), Register::EAX));
        } else {
            let low = Register::XMM0 + u32::from(to.0);
            self.push(Instruction::with2(Code::VEX_Vmovd_xmm_rm32, low, Register::EAX));
            self.push(Instruction::with2(Code::VEX_Vbroadcastss_ymm_xmm, self.vector(to), low));
        }
    }

    pub(super) fn broadcast(&mut self, to: Reg, place: Place) {
        let code = if self.wide() {
            Code::EVEX_Vbroadcastss_zmm_k1z_xmmm32
        } else {
            Code::VEX_Vbroadcastss_ymm_m32
        };
        let memory = self.memory(place, false);
        self.push(Instruction::with2(code, self.vector(to), memory));
    }

    /// The numbers of the lanes that a spread takes: bytes, widened.
    pub(super) fn index(&mut self, to: Reg, spread: Spread) {
        let lanes = self.vectors.lanes() as u8;
        let low = Register::XMM0 + u32::from(to.0);
        let eight = |first: u8| {
            let bytes = std::array::from_fn(|lane| match first + lane as u8 {
                lane if lane < lanes => spread.source(lane),
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
    pub(super) fn spread(&mut self, to: Reg, index: Reg, from: Operand) {
        let code = if self.wide() {
            Code::EVEX_Vpermps_zmm_k1z_zmm_zmmm512b32
        } else {
            Code::VEX_Vpermps_ymm_ymm_ymmm256
        };
        self.three_operand(code, to, index, from);
    }

    /// Lanes of every four by the same four numbers.
    pub(super) fn spread_fours(&mut self, to: Reg, from: Operand, spread: Spread) {
        let code = if self.wide() {
            Code::EVEX_Vpermilps_zmm_k1z_zmmm512b32_imm8
        } else {
            Code::VEX_Vpermilps_ymm_ymmm256_imm8
        };
        let order = |lane: u8| u32::from(lane / spread.repeat * spread.stride + spread.phase);
        let order: u32 = (0..4).map(|lane| order(lane) << (2 * lane)).sum();
        let to = self.vector(to);
        self.push(match from {
            Operand::Register(from) => Instruction::with3(code, to, self.vector(from), order),
            Operand::Memory(place, broadcast) => {
                Instruction::with3(code, to, self.memory(place, broadcast), order)
            }
        });
    }

    pub(super) fn load(&mut self, to: Reg, place: Place, mask: Mask) {
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
    pub(super) fn store(&mut self, place: Place, mask: Mask, from: Reg, scratch: Option<Reg>) {
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
    pub(super) fn scatter(&mut self, place: Place, mask: Mask, bytes: i32, from: Reg, slot: usize) {
        self.spill(slot, from);
        if mask.limit.is_some() {
            self.lane_count(mask);
        }
        let end = self.label();
        let slot = slot as i64 * 4 * self.vectors.lanes();
        for lane in 0..mask.lanes as i32 {
            if mask.limit.is_some() {
                self.push(Instruction::with2(Code::Cmp_rm32_imm32, Register::ECX, lane));
                self.push(Instruction::with_branch(Code::Jle_rel32_64, end));
            }
            let element = MemoryOperand::with_base_displ(Register::RSP, slot + i64::from(4 * lane));
            self.push(Instruction::with2(Code::Mov_r32_rm32, Register::EAX, element));
            let displacement = place.displacement + lane * bytes;
            let to = self.memory(Place { displacement, ..place }, false);
            self.push(Instruction::with2(Code::Mov_rm32_r32, to, Register::EAX));
        }
        if mask.limit.is_some() {
            self.place_label(end);
        }
    }

    /// A place to jump to that no other instruction has.
    fn label(&mut self) -> u64 {
        let label = self.next_label << 32;
        self.next_label += 1;
        label
    }

    /// The mask into `k2`, or as a vector into `to` where there are no mask registers.
    fn lane_mask(&mut self, mask: Mask, to: Reg) {
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
                let from = -1 << mask.first;
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
                let from = -1i64 << (8 * mask.first);
                self.push(Instruction::with2(Code::Mov_r64_imm64, Register::RCX, from));
                self.push(Instruction::with2(Code::And_r64_rm64, Register::RAX, Register::RCX));
            }
            let low = Register::XMM0 + u32::from(to.0);
            self.push(Instruction::with2(Code::VEX_Vmovq_xmm_rm64, low, Register::RAX));
            let code = Code::VEX_Vpmovsxbd_ymm_xmmm64;
            self.push(Instruction::with2(code, self.vector(to), low));
        }
    }

    /// The number of lanes of a mask into `ecx`.
    fn lane_count(&mut self, mask: Mask) {
        let lanes = mask.lanes as u32;
        let Some((argument, start)) = mask.limit else {
            return self.push(Instruction::with2(Code::Mov_r32_imm32, Register::ECX, lanes));
        };
        let left = self::argument(argument);
        self.push(Instruction::with2(Code::Mov_r32_rm32, Register::ECX, left));
        self.push(Instruction::with2(Code::Sub_rm32_imm32, Register::ECX, start as i32));
        self.push(Instruction::with2(Code::Mov_r32_imm32, Register::EAX, lanes));
        self.push(Instruction::with2(Code::Cmp_r32_rm32, Register::ECX, Register::EAX));
        self.push(Instruction::with2(Code::Cmovg_r32_rm32, Register::ECX, Register::EAX));
        self.push(Instruction::with2(Code::Xor_r32_rm32, Register::EAX, Register::EAX));
        self.push(Instruction::with2(Code::Test_rm32_r32, Register::ECX, Register::ECX));
        self.push(Instruction::with2(Code::Cmovs_r32_rm32, Register::ECX, Register::EAX));
    }

    fn slot(&self, slot: usize) -> MemoryOperand {
        let bytes = 4 * self.vectors.lanes();
        MemoryOperand::with_base_displ(Register::RSP, slot as i64 * bytes)
    }

    pub(super) fn spill(&mut self, slot: usize, from: Reg) {
        let code = if self.wide() {
            Code::EVEX_Vmovups_zmmm512_k1z_zmm
        } else {
            Code::VEX_Vmovups_ymmm256_ymm
        };
        self.push(Instruction::with2(code, self.slot(slot), self.vector(from)));
    }

    pub(super) fn reload(&mut self, to: Reg, slot: usize) {
        let code = if self.wide() {
            Code::EVEX_Vmovups_zmm_k1z_zmmm512
        } else {
            Code::VEX_Vmovups_ymm_ymmm256
        };
        self.push(Instruction::with2(code, self.vector(to), self.slot(slot)));
    }
}
