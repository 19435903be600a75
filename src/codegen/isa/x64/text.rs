//! Machine code as it grows: each instruction becomes bytes at once, jumps go to labels.
//!
//! A jump back is short if it can be. A jump forward is a long one, whose distance is filled in at
//! the end.

use iced_x86::{Code, Encoder, IcedError, Instruction};

/// Bytes that a jump back may cross to be short, its own included.
const SHORT: u64 = 128;

/// A place to jump to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::codegen) struct Label(usize);

/// Position-independent machine code.
pub(in crate::codegen) struct Text {
    encoder: Encoder,
    length: u64,
    /// Where each label is, if that is known yet.
    places: Vec<Option<u64>>,
    /// Jumps forward: where they end, and where they go.
    forward: Vec<(u64, Label)>,
    /// Whether something could not be encoded.
    failed: bool,
}

impl Text {
    pub(in crate::codegen) fn new() -> Text {
        let encoder = Encoder::new(64);
        Text { encoder, length: 0, places: vec![], forward: vec![], failed: false }
    }

    pub(in crate::codegen) fn push(&mut self, instruction: Result<Instruction, IcedError>) {
        let encoded =
            instruction.and_then(|instruction| self.encoder.encode(&instruction, self.length));
        match encoded {
            Ok(bytes) => self.length = self.length.saturating_add(bytes as u64),
            Err(_) => self.failed = true,
        }
    }

    /// A label that no place has yet.
    pub(in crate::codegen) fn label(&mut self) -> Label {
        let label = Label(self.places.len());
        self.places.push(None);
        label
    }

    /// Gives a label this place.
    pub(in crate::codegen) fn place(&mut self, label: Label) {
        self.places[label.0] = Some(self.length);
    }

    /// A jump, by the code of its long form.
    pub(in crate::codegen) fn jump(&mut self, long: Code, to: Label) {
        match self.places[to.0] {
            Some(place) => {
                let back = self.length.saturating_sub(place);
                let near = back <= SHORT - MOST_SHORT_JUMP;
                let code = if near { long.as_short_branch() } else { long };
                self.push(Instruction::with_branch(code, place));
            }
            None => {
                self.push(Instruction::with_branch(long, self.length));
                self.forward.push((self.length, to));
            }
        }
    }

    /// The bytes; none if an instruction could not be encoded, or a jump goes nowhere.
    pub(in crate::codegen) fn finish(mut self) -> Option<Vec<u8>> {
        let mut bytes = self.encoder.take_buffer();
        for (end, label) in self.forward {
            let distance = i32::try_from(self.places[label.0]?.checked_sub(end)?).ok()?;
            let end = usize::try_from(end).ok()?;
            bytes.get_mut(end.checked_sub(4)?..end)?.copy_from_slice(&distance.to_le_bytes());
        }
        (!self.failed).then_some(bytes)
    }
}

/// Bytes of a short conditional jump.
const MOST_SHORT_JUMP: u64 = 2;
