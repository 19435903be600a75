//! Registers for transposes, which need several at once.

use super::super::encoder::{Encoder, Reg, Rows, TRANSPOSE_REGISTERS};
use super::super::{BuildError, Mask, Op, Place, QUAD, Value, refuse};
use super::{BORROWED, Home, Line, TRANSPOSED};

/// Registers beside those with the sums, and the slots of the frame that keep what was in them.
#[derive(Default)]
struct Borrowed {
    registers: Vec<Reg>,
    cells: Vec<(Reg, usize)>,
}

impl<E: Encoder> Line<'_, '_, E> {
    /// Loads elements whose lanes lie apart; the values are in registers then.
    pub(super) fn gather(
        &mut self,
        at: usize,
        (place, mask, bytes): (Place, Mask, i64),
        values: &[Option<Value>; QUAD],
    ) -> Result<(), BuildError> {
        if let [Some(value), None, None, None] = values {
            let to = self.allocate(*value, at, &[])?;
            let scratch = self.take(at, &[to])?;
            self.assembler.encoder.gather(to, scratch, place, mask, bytes);
            self.free.push(scratch);
            return Ok(());
        }
        let mut registers = Vec::new();
        for _ in 0..TRANSPOSE_REGISTERS {
            registers.push(self.take(at, &registers)?);
        }
        let Ok(five) = <[Reg; TRANSPOSE_REGISTERS]>::try_from(registers.clone()) else {
            return refuse("a transpose has too few registers");
        };
        let results = self.assembler.encoder.gather_quad(five, place, mask, bytes);
        let used = values.map(|value| value.filter(|value| self.next_use(*value, at).is_some()));
        for (value, register) in used.into_iter().zip(results) {
            if let Some(value) = value {
                self.hold(value, register);
                registers.retain(|other| *other != register);
            }
        }
        self.free.extend(registers);
        Ok(())
    }

    /// Stores vectors whose lanes lie apart and which are neighbours in memory.
    pub(super) fn scatter(
        &mut self,
        at: usize,
        (place, mask, bytes): (Place, Mask, i64),
        values: &[Value],
    ) -> Result<(), BuildError> {
        if let [value] = values {
            let from = self.register(*value, at, &[])?;
            let slot = self.slots(super::LANES, 1);
            self.assembler.encoder.scatter(place, mask, bytes, from, slot);
            return Ok(());
        }
        let loads: Option<Vec<Place>> = values.iter().map(|value| self.unloaded(*value)).collect();
        let rows = match &loads {
            Some(places) => Rows::Loads(places),
            None => {
                let width = usize::try_from(self.assembler.lanes).unwrap_or(0);
                let slot = self.slots(TRANSPOSED, width);
                for (slot, value) in (slot..).zip(values) {
                    let from = self.register(*value, at, &[])?;
                    self.assembler.encoder.spill(slot, from);
                }
                Rows::Slots(slot, values.len())
            }
        };
        let borrowed = self.borrow(TRANSPOSE_REGISTERS + 1, at)?;
        let Some((mask_register, five)) = borrowed.registers.split_last() else { return Ok(()) };
        let Ok(five) = <[Reg; TRANSPOSE_REGISTERS]>::try_from(five) else {
            return refuse("a transpose has too few registers");
        };
        self.assembler.encoder.scatter_all(five, *mask_register, rows, (place, mask, bytes));
        self.give_back(borrowed);
        Ok(())
    }

    /// Where a value is to be loaded from with all lanes, if it was not yet.
    fn unloaded(&self, value: Value) -> Option<Place> {
        let in_memory = matches!(self.home(value), Home::Memory);
        match self.definition(value) {
            Some(Op::Load(place, mask))
                if in_memory
                    && !self.assembler.frame.contains_key(&value)
                    && mask.is_whole(self.assembler.lanes) =>
            {
                Some(*place)
            }
            Some(_) | None => None,
        }
    }

    /// That many registers: free ones, then those of values, then those of sums.
    fn borrow(&mut self, count: usize, at: usize) -> Result<Borrowed, BuildError> {
        let mut borrowed = Borrowed::default();
        while borrowed.registers.len() < count {
            match self.take(at, &borrowed.registers) {
                Ok(register) => borrowed.registers.push(register),
                Err(_) => {
                    let cell = borrowed.cells.len();
                    if cell == self.assembler.cells {
                        return refuse("a transpose has too few registers");
                    }
                    let register = self.cell_register(cell);
                    let slot = self.slots(BORROWED, count).saturating_add(cell);
                    self.assembler.encoder.spill(slot, register);
                    borrowed.cells.push((register, slot));
                    borrowed.registers.push(register);
                }
            }
        }
        Ok(borrowed)
    }

    fn give_back(&mut self, borrowed: Borrowed) {
        for register in borrowed.registers {
            match borrowed.cells.iter().find(|(cell, _)| *cell == register) {
                Some((_, slot)) => self.assembler.encoder.reload(register, *slot),
                None => self.free.push(register),
            }
        }
    }

    /// Neighbouring slots of the frame that belong to no value, by the first of their keys; they
    /// are shared by all who use the key.
    fn slots(&mut self, key: Value, count: usize) -> usize {
        let slots = self.assembler.frame.len();
        if let Some(slot) = self.assembler.frame.get(&key) {
            return *slot;
        }
        let keys = (0..count).map(|i| key.saturating_sub(i));
        self.assembler.frame.extend(keys.zip(slots..));
        slots
    }
}
