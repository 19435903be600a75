//! Loops: counters, and the pointers that move with them, as numbers modulo 2^64: on the way back a
//! pointer is where it was, however far it went.

use iced_x86::{Code, Instruction, Register};

use super::text::Label;
use super::{GENERAL, X64, argument};
use crate::vir::{Stream, Trips};

/// What counts a loop's iterations down.
#[derive(Clone, Copy)]
pub(super) enum Counter {
    Register(Register),
    /// A word at the arguments.
    Word(usize),
}

/// A loop that has begun: its counter, its first instruction and the one after its last, and the
/// words that hold its first value and its end, unless it has fixed ones.
pub(super) struct Begun {
    counter: Counter,
    top: Label,
    after: Label,
    bounds: Option<(usize, usize)>,
}

impl X64 {
    pub(super) fn counter(&self, depth: usize) -> Counter {
        Counter::Register(GENERAL[self.near.len().saturating_add(depth)])
    }

    pub(super) fn counter_in_memory(&mut self) -> Counter {
        Counter::Word(self.word())
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
                self.jump(Code::Jle_rel32_64, begun.after);
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
        self.jump(Code::Jne_rel32_64, begun.top);
        match (trips, begun.bounds) {
            (_, Some((_, end))) => {
                self.place_label(begun.after);
                self.advance_by(end, strides, -1);
            }
            (Trips::Fixed(trips), None) => {
                for (stream, bytes) in strides {
                    self.advance(*stream, bytes.wrapping_mul(*trips).wrapping_neg());
                }
            }
            (Trips::Between { .. } | Trips::Within { .. }, None) => {}
        }
    }

    /// Moves streams by an argument times their stride.
    fn advance_by(&mut self, by: usize, strides: &[(Stream, i64)], sign: i64) {
        for (stream, bytes) in strides {
            let bytes = bytes.wrapping_mul(sign);
            self.push(Instruction::with2(Code::Mov_r64_imm64, Register::RAX, bytes));
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
}
