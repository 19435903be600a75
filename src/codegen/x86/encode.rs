//! The instruction set: each operation of a micro-kernel as instructions of either vector width.
//!
//! General registers: `rdi` holds the arguments, `rax` and `rcx` are scratch, the others are the
//! pointers of the streams in use and the counters of inner loops. The arguments are memory too:
//! there each stream moves with the loops outside of those. `k1` is the result of comparisons, `k2`
//! the mask of the current access. Constants come through `rax`, so the code needs no data.
//!
//! Here are the registers and the frame; `text` makes bytes of instructions, `loops` has counters
//! and moving pointers, `arithmetic` what stays in vector registers, `memory` loads, stores and
//! masks, and `transpose` those of lanes that lie apart.

mod arithmetic;
mod loops;
mod memory;
mod text;
mod transpose;

use std::cell::Cell;
use std::collections::BTreeSet;

use iced_x86::{Code, IcedError, Instruction, MemoryOperand, Register};

use super::program::{Mask, Place, Stream};
use super::{Unfit, unfit};
use crate::target::Vectors;
use text::{Label, Text};
pub(super) use transpose::{Rows, TRANSPOSE_REGISTERS};

/// A vector register by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Reg(pub(super) u8);

impl Reg {
    /// The register of that number.
    #[expect(clippy::cast_possible_truncation, reason = "there are at most 32 vector registers")]
    pub(super) fn numbered(number: usize) -> Reg {
        Reg(number as u8)
    }

    /// The register of that number among those that begin with one.
    #[expect(clippy::arithmetic_side_effects, reason = "there are 32 of each width")]
    fn among(self, first: Register) -> Register {
        first + u32::from(self.0)
    }
}

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

/// Where an argument of the function is.
fn argument(number: usize) -> MemoryOperand {
    MemoryOperand::with_base_displ(Register::RDI, product(number, 8))
}

/// A displacement; one that does not fit is refused when it is encoded.
fn product(number: usize, bytes: i64) -> i64 {
    i64::try_from(number).map_or(i64::MAX, |number| number.saturating_mul(bytes))
}

/// The largest frame in bytes: more would be a loop around loads and stores of it.
const MOST_FRAME: i32 = 64 << 10;

/// Bytes of the stack that end at an inaccessible page, at least.
const PAGE: i32 = 4096;

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
pub(super) struct Assembled {
    pub(super) code: Vec<u8>,
    pub(super) words: usize,
    pub(super) stack: u32,
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
    body: Text,
    /// Whether a pointer was asked for that is in no register.
    lost: Cell<bool>,
    /// The first lane that `k2` is known to select, and the one after the last.
    selected: Option<(i64, i64)>,
}

impl Encoder {
    pub(super) fn new(vectors: Vectors, streams: &[usize], arguments: usize) -> Encoder {
        Encoder {
            vectors,
            streams: streams.to_vec(),
            near: vec![],
            used: 0,
            words: arguments,
            body: Text::new(),
            lost: Cell::new(false),
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
        self.body.push(instruction);
    }

    fn vector(&self, reg: Reg) -> Register {
        let first = if self.wide() { Register::ZMM0 } else { Register::YMM0 };
        reg.among(first)
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

    /// Loads the pointers of streams; beside them there are so many counters.
    pub(super) fn bring(&mut self, streams: &BTreeSet<Stream>, counters: usize) {
        self.near = streams.iter().copied().collect();
        self.used = self.used.max(self.near.len().saturating_add(counters));
        for (at, stream) in streams.iter().enumerate() {
            let from = argument(self.streams[*stream]);
            self.push(Instruction::with2(Code::Mov_r64_rm64, GENERAL[at], from));
        }
    }

    /// Leaves the streams to memory.
    pub(super) fn forget(&mut self) {
        self.near.clear();
    }

    /// The whole function, saves, body and restores.
    pub(super) fn leave(self, slots: usize) -> Result<Assembled, Unfit> {
        if self.lost.get() {
            return unfit("a pointer is in no register");
        }
        let saved = GENERAL[..self.used].iter().skip(FIRST_SAVED);
        let frame = i32::try_from(product(slots, self.vector_bytes())).unwrap_or(i32::MAX);
        if frame > MOST_FRAME {
            return unfit("more is spilled than a frame holds");
        }
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
        match pieces {
            Some(pieces) => Ok(Assembled { code: pieces.concat(), words: self.words, stack }),
            None => unfit("an instruction has no encoding"),
        }
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

    /// Lanes of a register.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "8 or 16")]
    pub(super) fn lanes(&self) -> usize {
        self.vectors.lanes() as usize
    }

    /// Bytes of a register.
    fn vector_bytes(&self) -> i64 {
        self.vectors.lanes().saturating_mul(4)
    }

    /// The low four lanes of a register.
    fn low(&self, reg: Reg) -> Register {
        reg.among(Register::XMM0)
    }

    pub(super) fn is_whole(&self, mask: Mask) -> bool {
        mask.limit.is_none() && mask.first == 0 && mask.lanes == self.vectors.lanes()
    }

    /// Whether an operation can broadcast its memory operand.
    pub(super) fn folds_broadcasts(&self) -> bool {
        self.wide()
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

#[cfg(test)]
mod tests {
    use iced_x86::{Decoder, DecoderOptions, Mnemonic};

    use super::*;

    #[test]
    fn a_frame_touches_each_of_its_pages_on_the_way_down() {
        for (frame, touched) in [(0, 0), (64, 0), (4096, 0), (4160, 1), (12296, 3)] {
            let mut text = Text::new();
            make_room(&mut text, frame);
            let code = text.finish().expect("encoded");
            let steps: Vec<Instruction> =
                Decoder::new(64, &code, DecoderOptions::NONE).iter().collect();
            let moves = steps.iter().filter(|step| step.mnemonic() == Mnemonic::Sub);
            let moved: Vec<i32> = moves.map(|step| step.immediate32().cast_signed()).collect();
            assert_eq!(moved.iter().sum::<i32>(), frame);
            assert!(moved.iter().all(|bytes| *bytes <= PAGE));
            let touches = steps.iter().filter(|step| step.mnemonic() == Mnemonic::Mov);
            assert_eq!(touches.count(), touched, "{frame}");
        }
    }
}
