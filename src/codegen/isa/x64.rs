//! x86-64: each operation of a micro-kernel as instructions, 256 or 512 bits wide.
//!
//! General registers: `rdi` holds the arguments, `rax` and `rcx` are scratch, the others are the
//! pointers of the streams in use and the counters of inner loops. The arguments are memory too:
//! there each stream moves with the loops outside of those. `k1` is the result of comparisons, `k2`
//! the mask of the current access, the others masks of the whole function. Constants come through
//! `rax`, so the code needs no data.
//!
//! Here are the registers and the frame; `opcodes` is the table of instructions, `text` makes bytes
//! of them, `loops` has counters and moving pointers, `arithmetic` what stays in vector registers,
//! `memory` loads, stores and masks, and `transpose` those of lanes that lie apart.

mod arithmetic;
mod loops;
mod memory;
mod opcodes;
#[cfg(test)]
mod tests;
pub(in crate::codegen) mod text;
mod transpose;

use std::cell::Cell;
use std::collections::BTreeSet;

use convgen_ir::elem::ElemType;
use convgen_ir::nest::{BinaryOp, UnaryOp};
use iced_x86::{Code, IcedError, Instruction, MemoryOperand, Register};

use crate::exact::size_of;
use crate::target::{Isa, PAGE_BYTES, VectorUnit};
use crate::vir::allocate::allocate;
use crate::vir::encoder::{Encoder, Operand, Reg, Rows, TRANSPOSE_REGISTERS};
use crate::vir::{
    BuildError, Deinterleave, LaneNumbers, LanePermute, Level, Mask, Place, Program, QUAD, Stream,
    Trips,
};
use arithmetic::COMPARE_LESS;
use loops::{Begun, Counter};
use opcodes::{Form, Operation, opcode};
use text::{Label, Text};

/// Pointers and counters, the ones a callee need not save first.
const GENERAL: [Register; VectorUnit::X64_POINTERS] = [
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

/// Where an argument of the function is.
fn argument(number: usize) -> MemoryOperand {
    MemoryOperand::with_base_displ(Register::RDI, product(number, 8))
}

/// A displacement; one that does not fit is refused when it is encoded.
fn product(number: usize, bytes: i64) -> i64 {
    i64::try_from(number).map_or(i64::MAX, |number| number.saturating_mul(bytes))
}

/// Bytes of the stack that end at an inaccessible page, at least.
#[expect(clippy::cast_possible_truncation, clippy::cast_possible_wrap, reason = "4096")]
const PAGE: i32 = PAGE_BYTES as i32;

/// Moves the stack pointer down. Each page is touched before the next one, so that a stack that is
/// too small ends at its guard page and nowhere else.
fn make_room(text: &mut Text, frame: i32) {
    let mut left = frame;
    while left > PAGE {
        text.push(Instruction::with2(Code::Sub_rm64_imm32, Register::RSP, PAGE));
        let top = MemoryOperand::with_base(Register::RSP);
        text.push(Instruction::with2(Code::Mov_rm32_imm32, top, 0));
        left = left.saturating_sub(PAGE);
    }
    if left > 0 {
        text.push(Instruction::with2(Code::Sub_rm64_imm32, Register::RSP, left));
    }
}

/// A function: its code, the words at its arguments, and the bytes of stack that it needs.
pub(super) struct Function {
    pub(super) code: Vec<u8>,
    pub(super) words: usize,
    pub(super) stack: u32,
}

/// Writes a micro-kernel.
///
/// # Errors
/// If the registers do not suffice, or an instruction cannot hold a number.
pub(super) fn function(
    program: &Program,
    isa: Isa,
    unit: VectorUnit,
) -> Result<Function, BuildError> {
    let no_form = BuildError { reason: "the instruction set has no micro-kernels" };
    let form = Form::of(isa).ok_or(no_form)?;
    let mut encoder = X64 {
        form,
        elem: ElemType::F32,
        lanes: program.lanes,
        bytes: unit.bytes,
        streams: program.streams.clone(),
        near: vec![],
        used: 0,
        words: program.arguments.len(),
        body: Text::new(),
        lost: Cell::new(false),
        selected: None,
        kept: vec![],
    };
    let slots = allocate(program, unit, &mut encoder)?;
    encoder.finish(slots).ok_or(BuildError { reason: "an instruction has no encoding" })
}

/// The instructions of a function as text, one a line.
pub(super) fn disassemble(code: &[u8]) -> String {
    use iced_x86::{Decoder, DecoderOptions, Formatter, IntelFormatter};
    let mut formatter = IntelFormatter::new();
    let mut text = String::new();
    for instruction in &mut Decoder::new(64, code, DecoderOptions::NONE) {
        let mut line = String::new();
        formatter.format(&instruction, &mut line);
        text += &format!("  {line}\n");
    }
    text
}

/// Writes one function.
struct X64 {
    form: Form,
    elem: ElemType,
    /// Lanes and bytes of a register.
    lanes: i64,
    bytes: i64,
    /// The argument that each stream is.
    streams: Vec<usize>,
    /// The streams whose pointers are in registers, in the order of these.
    near: Vec<Stream>,
    /// Registers that have been used.
    used: usize,
    /// Words at the arguments.
    words: usize,
    body: Text,
    /// Whether a pointer was asked for that is in no register.
    lost: Cell<bool>,
    /// The first lane that `k2` is known to select, and the one after the last.
    selected: Option<(i64, i64)>,
    /// Masks that were made for the whole function.
    kept: Vec<(Mask, Kept)>,
}

/// Where a mask is kept.
#[derive(Clone, Copy)]
enum Kept {
    Register(Register),
    /// A slot of the frame.
    Slot(usize),
}

/// The mask registers of masks that are kept.
const KEPT: [Register; 5] = [Register::K3, Register::K4, Register::K5, Register::K6, Register::K7];

impl X64 {
    fn opcode(&self, operation: Operation) -> Code {
        opcode(operation, self.elem, self.form)
    }

    fn push(&mut self, instruction: Result<Instruction, IcedError>) {
        self.body.push(instruction);
    }

    fn vector(&self, reg: Reg) -> Register {
        among(reg, self.form.first_register())
    }

    fn memory(&self, place: Place, broadcast: bool) -> MemoryOperand {
        MemoryOperand::new(
            self.register(place.stream).unwrap_or_else(|| {
                self.lost.set(true);
                Register::RAX
            }),
            Register::None,
            1,
            place.displacement,
            1,
            broadcast,
            Register::None,
        )
    }

    fn bring(&mut self, streams: &BTreeSet<Stream>, counters: usize) {
        self.near = streams.iter().copied().collect();
        self.used = self.used.max(self.near.len().saturating_add(counters));
        for (at, stream) in streams.iter().enumerate() {
            let from = argument(self.streams[*stream]);
            self.push(Instruction::with2(Code::Mov_r64_rm64, GENERAL[at], from));
        }
    }

    /// The whole function, saves, body and restores; none if an instruction has no encoding.
    fn finish(self, slots: usize) -> Option<Function> {
        if self.lost.get() {
            return None;
        }
        let saved = GENERAL[..self.used].iter().skip(FIRST_SAVED);
        let frame = i32::try_from(product(slots, self.bytes)).ok()?;
        let (mut begin, mut end) = (Text::new(), Text::new());
        for register in saved.clone() {
            begin.push(Instruction::with1(Code::Push_r64, *register));
        }
        make_room(&mut begin, frame);
        // What was saved, and the address to return to.
        let words = i32::try_from(saved.len().saturating_add(1)).unwrap_or(i32::MAX);
        let stack = words.saturating_mul(8).saturating_add(frame).unsigned_abs();
        end.push(Ok(Instruction::with(Code::VEX_Vzeroupper)));
        if frame > 0 {
            end.push(Instruction::with2(Code::Add_rm64_imm32, Register::RSP, frame));
        }
        for register in saved.rev() {
            end.push(Instruction::with1(Code::Pop_r64, *register));
        }
        end.push(Ok(Instruction::with(Code::Retnq)));
        let pieces: Option<Vec<Vec<u8>>> =
            [begin, self.body, end].into_iter().map(Text::finish).collect();
        Some(Function { code: pieces?.concat(), words: self.words, stack })
    }

    fn word(&mut self) -> usize {
        let word = self.words;
        self.words = word.saturating_add(1);
        word
    }

    /// The register of a stream, if it is in one.
    fn register(&self, stream: Stream) -> Option<Register> {
        self.near.iter().position(|near| *near == stream).map(|at| GENERAL[at])
    }

    fn label(&mut self) -> Label {
        self.body.label()
    }

    fn jump(&mut self, long: Code, to: Label) {
        self.body.jump(long, to);
    }

    fn place_label(&mut self, label: Label) {
        self.body.place(label);
        // Whoever jumps here may have selected other lanes.
        self.selected = None;
    }

    /// Bytes of an element.
    fn elem_bytes(&self) -> i64 {
        size_of(self.elem)
    }

    /// The low four lanes of a register.
    fn low(&self, reg: Reg) -> Register {
        among(reg, Register::XMM0)
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
}

/// The register of that number among those that begin with one.
#[expect(clippy::arithmetic_side_effects, reason = "there are 32 of each width")]
fn among(reg: Reg, first: Register) -> Register {
    first + u32::from(reg.0)
}

impl Encoder for X64 {
    type Counter = Counter;
    type Begun = Begun;

    fn bring(&mut self, streams: &BTreeSet<Stream>, counters: usize) {
        X64::bring(self, streams, counters);
    }

    fn forget(&mut self) {
        self.near.clear();
    }

    fn counter(&self, depth: usize) -> Counter {
        X64::counter(self, depth)
    }

    fn counter_in_memory(&mut self) -> Counter {
        X64::counter_in_memory(self)
    }

    fn begin_loop(&mut self, counter: Counter, trips: &Trips, strides: &[(Stream, i64)]) -> Begun {
        X64::begin_loop(self, counter, trips, strides)
    }

    fn end_loop(&mut self, begun: Begun, trips: &Trips, strides: &[(Stream, i64)]) {
        X64::end_loop(self, begun, trips, strides);
    }

    fn keep_mask(&mut self, mask: Mask, passing: Reg, slot: usize) {
        X64::keep_mask(self, mask, passing, slot);
    }

    fn load(&mut self, to: Reg, place: Place, mask: Mask) {
        X64::load(self, to, place, mask);
    }

    fn broadcast(&mut self, to: Reg, place: Place, elements: u8) {
        X64::broadcast(self, to, place, elements);
    }

    fn store(&mut self, place: Place, mask: Mask, from: Reg, scratch: Option<Reg>) {
        X64::store(self, place, mask, from, scratch);
    }

    fn prefetch(&mut self, place: Place, level: Level) {
        X64::prefetch(self, place, level);
    }

    fn gather(&mut self, to: Reg, scratch: Reg, place: Place, mask: Mask, bytes: i64) {
        X64::gather(self, to, scratch, place, mask, bytes);
    }

    fn gather_quad(
        &mut self,
        registers: [Reg; TRANSPOSE_REGISTERS],
        place: Place,
        mask: Mask,
        bytes: i64,
    ) -> [Reg; QUAD] {
        X64::gather_quad(self, registers, place, mask, bytes)
    }

    fn scatter(&mut self, place: Place, mask: Mask, bytes: i64, from: Reg, slot: usize) {
        X64::scatter(self, place, mask, bytes, from, slot);
    }

    fn scatter_all(
        &mut self,
        registers: [Reg; TRANSPOSE_REGISTERS],
        mask_register: Reg,
        rows: Rows,
        to: (Place, Mask, i64),
    ) {
        X64::scatter_all(self, registers, mask_register, rows, to);
    }

    fn spill(&mut self, slot: usize, from: Reg) {
        X64::spill(self, slot, from);
    }

    fn reload(&mut self, to: Reg, slot: usize) {
        X64::reload(self, to, slot);
    }

    fn copy(&mut self, to: Reg, from: Reg) {
        X64::copy(self, to, from);
    }

    fn zero(&mut self, to: Reg) {
        X64::zero(self, to);
    }

    fn constant(&mut self, to: Reg, bits: u32) {
        X64::constant(self, to, bits);
    }

    fn multiply_add(&mut self, to: Reg, a: Reg, b: Operand) {
        self.three_operand(Operation::MultiplyAdd, to, a, b);
    }

    fn unary(&mut self, op: UnaryOp, to: Reg, x: Reg, scratch: Reg) {
        X64::unary(self, op, to, x, scratch);
    }

    fn binary(&mut self, op: BinaryOp, to: Reg, a: Reg, b: Operand) {
        self.three_operand(Operation::Binary(op), to, a, b);
    }

    fn compare_less(&mut self, mask: Reg, a: Reg, b: Reg) {
        self.compare(COMPARE_LESS, mask, a, b);
    }

    fn blend(&mut self, to: Reg, mask: Reg, then: Reg, otherwise: Reg) {
        X64::blend(self, to, mask, then, otherwise);
    }

    fn index(&mut self, to: Reg, numbers: LaneNumbers) {
        X64::index(self, to, numbers);
    }

    fn permute(&mut self, to: Reg, index: Reg, from: Operand) {
        self.three_operand(Operation::Permute, to, index, from);
    }

    fn permute_fours(&mut self, to: Reg, from: Operand, permute: LanePermute) {
        X64::permute_fours(self, to, from, permute);
    }

    fn deinterleave(
        &mut self,
        to: Reg,
        index: Option<Reg>,
        from: (Reg, Operand),
        deinterleave: Deinterleave,
    ) {
        X64::deinterleave(self, to, index, from, deinterleave);
    }
}
