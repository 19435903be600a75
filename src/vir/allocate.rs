//! Registers for the values of each straight line, and the frame around them.
//!
//! Cells are pinned from the last register down. Values live from their definition to their last
//! use in the registers below; when none is free the value whose next use is furthest goes: loads
//! and constants are simply loaded again, others are spilled to the frame. A load that is used
//! once, by an operation that takes memory, is never loaded into a register at all.

mod transpose;

use rustc_hash::FxHashMap as HashMap;
use smallvec::{SmallVec, smallvec};
use std::collections::BTreeSet;

use super::encoder::{Encoder, Operand, Reg};
use super::{
    BuildError, Item, LaneNumbers, MIN_POOL, Mask, Op, Place, Program, Step, Stream, Value, refuse,
};
use crate::target::VectorUnit;

/// The largest frame in bytes: more would be a loop around loads and stores of it.
const MOST_FRAME: i64 = 64 << 10;

/// Writes the body of a function; how many slots of a register each its frame has.
///
/// # Errors
/// If the registers do not suffice.
pub(crate) fn allocate(
    program: &Program,
    unit: VectorUnit,
    encoder: &mut impl Encoder,
) -> Result<usize, BuildError> {
    // An operation has up to four operands and a result.
    if program.cells.saturating_add(MIN_POOL) > unit.registers {
        return refuse("the tile leaves too few registers");
    }
    let Program { lanes, cells, .. } = *program;
    let mut assembler =
        Assembler { encoder, unit, lanes, cells, frame: HashMap::default(), hoisted: vec![] };
    assembler.hoist(&program.items);
    assembler.block(&program.items)?;
    let slots = assembler.frame.len();
    let bytes = i64::try_from(slots).map_or(i64::MAX, |slots| slots.saturating_mul(unit.bytes));
    match bytes > MOST_FRAME {
        true => refuse("more is spilled than a frame holds"),
        false => Ok(slots),
    }
}

/// No value: the frame's key of the slot for single lanes.
const LANES: Value = Value::MAX;

/// The keys of the slots of vectors that are transposed, from this one down.
const TRANSPOSED: Value = LANES - 1;

/// The keys of the slots of sums whose registers a transpose uses, from this one down.
const BORROWED: Value = TRANSPOSED - 32;

/// The keys of the slots of what is made once, from this one down.
const HOISTED: Value = BORROWED - 32;

/// What takes some instructions to make, and one to load.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Repeated {
    /// Numbers of lanes.
    Index(LaneNumbers),
    /// A mask of an access.
    Mask(Mask),
}

/// How often the lines of some items take each, as often as given for one line.
fn count_repeated(items: &[Item], lanes: i64, weight: usize, found: &mut Vec<(Repeated, usize)>) {
    for item in items {
        match item {
            Item::Line(steps) => {
                for repeated in steps.iter().filter_map(|step| repeated(step, lanes)) {
                    match found.iter_mut().find(|(other, _)| *other == repeated) {
                        Some((_, count)) => *count = count.saturating_add(weight),
                        None => found.push((repeated, weight)),
                    }
                }
            }
            Item::Loop { body, .. } => {
                count_repeated(body, lanes, weight.saturating_mul(WORTH_HOISTING), found)
            }
        }
    }
}

/// Uses from which on it pays to make a value once and load it each time.
const WORTH_HOISTING: usize = 3;

fn repeated(step: &Step, lanes: i64) -> Option<Repeated> {
    match step {
        Step::Define(_, Op::Index(numbers)) => Some(Repeated::Index(*numbers)),
        Step::Define(_, Op::Load(_, mask)) | Step::Store(_, mask, _) => {
            let some = !mask.is_whole(lanes) && mask.limit.is_none();
            some.then_some(Repeated::Mask(*mask))
        }
        Step::Define(..)
        | Step::Write(..)
        | Step::Accumulate(..)
        | Step::Gather(..)
        | Step::Prefetch(..)
        | Step::Scatter(..) => None,
    }
}

fn loop_depth(items: &[Item]) -> usize {
    let depth = |item: &Item| match item {
        Item::Line(_) => 0,
        Item::Loop { body, .. } => loop_depth(body).saturating_add(1),
    };
    items.iter().map(depth).max().unwrap_or(0)
}

/// Items that find registers for their pointers and counters.
#[derive(Default)]
struct Fitting {
    items: usize,
    streams: BTreeSet<Stream>,
    depth: usize,
}

/// As many of the first items as fit together.
fn fitting(items: &[Item], pointers: usize) -> Fitting {
    let mut fitting = Fitting::default();
    for item in items {
        let item = std::slice::from_ref(item);
        let mut used = fitting.streams.clone();
        streams(item, &mut used);
        let depth = fitting.depth.max(loop_depth(item));
        if used.len().saturating_add(depth) > pointers {
            break;
        }
        fitting = Fitting { items: fitting.items.saturating_add(1), streams: used, depth };
    }
    fitting
}

/// The streams by which some items reach memory.
fn streams(items: &[Item], found: &mut BTreeSet<Stream>) {
    for item in items {
        match item {
            Item::Line(steps) => found.extend(steps.iter().filter_map(place).map(|p| p.stream)),
            Item::Loop { body, .. } => streams(body, found),
        }
    }
}

/// The memory that a step touches.
fn place(step: &Step) -> Option<Place> {
    match step {
        Step::Define(_, Op::Load(place, _) | Op::Broadcast(place, _))
        | Step::Prefetch(place, _)
        | Step::Store(place, ..)
        | Step::Gather(place, ..)
        | Step::Scatter(place, ..) => Some(*place),
        Step::Define(
            _,
            Op::Const(_)
            | Op::Index(_)
            | Op::Permute(..)
            | Op::Deinterleave(..)
            | Op::Read(_)
            | Op::Unary(..)
            | Op::Binary(..)
            | Op::Fma(..)
            | Op::Select(_),
        )
        | Step::Write(..)
        | Step::Accumulate(..) => None,
    }
}

struct Assembler<'e, E> {
    encoder: &'e mut E,
    unit: VectorUnit,
    lanes: i64,
    cells: usize,
    /// The frame slot of each spilled value.
    frame: HashMap<Value, usize>,
    /// What is in slots of the frame, by the keys from [`HOISTED`] down.
    hoisted: Vec<Repeated>,
}

impl<E: Encoder> Assembler<'_, E> {
    /// Makes what is taken again and again once, and puts it into the frame.
    fn hoist(&mut self, items: &[Item]) {
        let mut found = vec![];
        count_repeated(items, self.lanes, 1, &mut found);
        // Those that are used most find registers.
        found.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        let worth = found.into_iter().filter(|(_, count)| *count >= WORTH_HOISTING);
        self.hoisted = worth.map(|(repeated, _)| repeated).collect();
        for (slot, repeated) in self.hoisted.iter().enumerate() {
            // `allocate` saw that some registers are no cells.
            let passing = Reg::numbered(0);
            match repeated {
                Repeated::Index(numbers) => {
                    self.encoder.index(passing, *numbers);
                    self.encoder.spill(slot, passing);
                }
                Repeated::Mask(mask) => self.encoder.keep_mask(*mask, passing, slot),
            }
            self.frame.insert(HOISTED.saturating_sub(slot), slot);
        }
    }

    /// The slot of the frame that has it, if one does.
    fn slot_of(&self, repeated: Repeated) -> Option<usize> {
        self.hoisted.iter().position(|other| *other == repeated)
    }

    /// Items one after the other, as many at a time as find registers for their pointers and
    /// counters. Where a loop alone does not, its counter stays in memory, as do the pointers
    /// around its items.
    fn block(&mut self, items: &[Item]) -> Result<(), BuildError> {
        let mut rest = items;
        while let [first, others @ ..] = rest {
            let fitting = fitting(rest, self.unit.pointers);
            if fitting.items > 0 {
                let (near, others) = rest.split_at(fitting.items);
                self.encoder.bring(&fitting.streams, fitting.depth);
                self.near(near, 0)?;
                self.encoder.forget();
                rest = others;
                continue;
            }
            match first {
                Item::Line(_) => return refuse("more pointers than registers"),
                Item::Loop { trips, strides, body } => {
                    let counter = self.encoder.counter_in_memory();
                    let begun = self.encoder.begin_loop(counter, trips, strides);
                    self.block(body)?;
                    self.encoder.end_loop(begun, trips, strides);
                }
            }
            rest = others;
        }
        Ok(())
    }

    /// Items whose pointers are in registers.
    fn near(&mut self, items: &[Item], depth: usize) -> Result<(), BuildError> {
        for item in items {
            match item {
                Item::Line(steps) => self.line(steps)?,
                Item::Loop { trips, strides, body } => {
                    let counter = self.encoder.counter(depth);
                    let begun = self.encoder.begin_loop(counter, trips, strides);
                    self.near(body, depth.saturating_add(1))?;
                    self.encoder.end_loop(begun, trips, strides);
                }
            }
        }
        Ok(())
    }

    fn line(&mut self, steps: &[Step]) -> Result<(), BuildError> {
        let mut line = Line::new(self, steps);
        for at in 0..steps.len() {
            line.step(at)?;
        }
        Ok(())
    }
}

/// Where a value is.
#[derive(Clone, Copy, PartialEq)]
enum Home {
    /// In a register of the pool.
    Pool(Reg),
    /// In a cell's register.
    Cell(Reg),
    /// Nowhere: in memory, to be loaded at its use.
    Memory,
}

/// What is known of a value of a line.
#[derive(Clone, Default)]
struct Known<'a> {
    /// The steps that use it, ascending.
    uses: SmallVec<[usize; 4]>,
    definition: Option<&'a Op>,
    /// Where it is, from its definition to its last use.
    home: Option<Home>,
}

struct Line<'a, 'e, E> {
    assembler: &'a mut Assembler<'e, E>,
    steps: &'a [Step],
    /// The values of the line are numbered from this one on.
    first: Value,
    values: Vec<Known<'a>>,
    /// The value in each register of the pool.
    pool: Vec<Option<Value>>,
    /// Values that are what a cell holds.
    readers: Vec<Value>,
    free: Vec<Reg>,
}

impl<'a, 'e, E: Encoder> Line<'a, 'e, E> {
    fn new(assembler: &'a mut Assembler<'e, E>, steps: &'a [Step]) -> Line<'a, 'e, E> {
        let defined = || steps.iter().flat_map(defined);
        let first = defined().min().unwrap_or(0);
        let count = defined().max().map_or(0, |last| last.saturating_sub(first).saturating_add(1));
        let pool = assembler.unit.registers.saturating_sub(assembler.cells);
        let free = (0..pool).rev().map(Reg::numbered).collect();
        let mut line = Line {
            assembler,
            steps,
            first,
            values: vec![Known::default(); count],
            pool: vec![None; pool],
            readers: vec![],
            free,
        };
        for (at, step) in steps.iter().enumerate() {
            for value in operands(step) {
                if let Some(known) = line.known_mut(value) {
                    known.uses.push(at);
                }
            }
            if let Step::Define(value, op) = step
                && let Some(known) = line.known_mut(*value)
            {
                known.definition = Some(op);
            }
        }
        line
    }

    /// What is known of a value; nothing if it is of another line.
    fn known(&self, value: Value) -> Option<&Known<'a>> {
        self.values.get(value.checked_sub(self.first)?)
    }

    fn known_mut(&mut self, value: Value) -> Option<&mut Known<'a>> {
        self.values.get_mut(value.checked_sub(self.first)?)
    }

    fn definition(&self, value: Value) -> Option<&'a Op> {
        self.known(value)?.definition
    }

    fn set_home(&mut self, value: Value, home: Home) {
        if let Some(known) = self.known_mut(value) {
            known.home = Some(home);
        }
    }

    fn step(&mut self, at: usize) -> Result<(), BuildError> {
        match &self.steps[at] {
            Step::Define(value, op) => self.define(*value, op, at)?,
            Step::Write(cell, value) => {
                self.not_read_later(*cell, at)?;
                let to = self.cell_register(*cell);
                match self.definition(*value) {
                    Some(Op::Const(0)) if self.home(*value) == Home::Memory => {
                        self.assembler.encoder.zero(to);
                    }
                    Some(_) | None => {
                        let from = self.register(*value, at, &[])?;
                        self.assembler.encoder.copy(to, from);
                    }
                }
            }
            Step::Accumulate(cell, a, b) => {
                self.not_read_later(*cell, at)?;
                let to = self.cell_register(*cell);
                let (a, b) = if self.foldable(*a, at) { (*b, *a) } else { (*a, *b) };
                let a = self.register(a, at, &[b])?;
                let b = self.operand(b, at, &[a])?;
                self.assembler.encoder.multiply_add(to, a, b);
            }
            Step::Gather(place, mask, bytes, values) => {
                self.gather(at, (*place, *mask, *bytes), values)?;
            }
            Step::Scatter(place, mask, bytes, values) => {
                self.scatter(at, (*place, *mask, *bytes), values)?;
            }
            Step::Prefetch(place, level) => self.assembler.encoder.prefetch(*place, *level),
            Step::Store(place, mask, value) => {
                let from = self.register(*value, at, &[])?;
                if mask.is_whole(self.assembler.lanes) {
                    self.assembler.encoder.store(*place, *mask, from, None);
                } else {
                    let scratch = self.take(at, &[from])?;
                    self.assembler.encoder.store(*place, *mask, from, Some(scratch));
                    self.free.push(scratch);
                }
            }
        }
        self.release(at);
        Ok(())
    }

    fn define(&mut self, value: Value, op: &Op, at: usize) -> Result<(), BuildError> {
        if self.next_use(value, at).is_none() {
            return Ok(());
        }
        match op {
            Op::Load(..) | Op::Broadcast(..) | Op::Const(_) | Op::Index(_) => {
                // Loaded at the first use.
                self.set_home(value, Home::Memory);
            }
            Op::Read(cell) => {
                let register = self.cell_register(*cell);
                self.set_home(value, Home::Cell(register));
                self.readers.push(value);
            }
            Op::Unary(op, x) => {
                let x = self.register(*x, at, &[])?;
                let to = self.allocate(value, at, &[x])?;
                let scratch = self.take(at, &[x, to])?;
                self.assembler.encoder.unary(*op, to, x, scratch);
                self.free.push(scratch);
            }
            Op::Permute(from, None, spread) => {
                let from = self.operand(*from, at, &[])?;
                let keep: Vec<Reg> = from.register().into_iter().collect();
                let to = self.allocate(value, at, &keep)?;
                self.assembler.encoder.permute_fours(to, from, *spread);
            }
            Op::Permute(from, Some(index), _) => {
                let index = self.register(*index, at, &[*from])?;
                let from = self.operand(*from, at, &[index])?;
                let to = self.allocate(value, at, &[index, from.register().unwrap_or(index)])?;
                self.assembler.encoder.permute(to, index, from);
            }
            Op::Deinterleave([a, b], index, how) => {
                let index = index.map(|index| self.register(index, at, &[*a, *b])).transpose()?;
                let first = self.register_beside(*a, at, index.as_slice())?;
                let kept: Vec<Reg> = index.into_iter().chain([first]).collect();
                let second = self.operand(*b, at, &kept)?;
                let kept: Vec<Reg> = kept.into_iter().chain(second.register()).collect();
                let to = self.succeed(value, *a, at, &kept)?;
                self.assembler.encoder.deinterleave(to, index, (first, second), *how);
            }
            Op::Binary(op, a, b) => {
                let a = self.register(*a, at, &[*b])?;
                let b = self.operand(*b, at, &[a])?;
                let to = self.allocate(value, at, &[a, b.register().unwrap_or(a)])?;
                self.assembler.encoder.binary(*op, to, a, b);
            }
            Op::Fma(a, b, c) => {
                let [a, b, c] = self.three([*a, *b, *c], at)?;
                let to = self.allocate(value, at, &[a, b, c])?;
                self.assembler.encoder.copy(to, c);
                self.assembler.encoder.multiply_add(to, a, Operand::Register(b));
            }
            Op::Select([a, b, then, otherwise]) => {
                let a = self.register(*a, at, &[*b])?;
                let b = self.register_beside(*b, at, &[a])?;
                let mask = self.take(at, &[a, b])?;
                self.assembler.encoder.compare_less(mask, a, b);
                let then = self.register_beside(*then, at, &[mask])?;
                let otherwise = self.register_beside(*otherwise, at, &[mask, then])?;
                let to = self.allocate(value, at, &[mask, then, otherwise])?;
                self.assembler.encoder.blend(to, mask, then, otherwise);
                self.free.push(mask);
            }
        }
        Ok(())
    }

    fn three(&mut self, values: [Value; 3], at: usize) -> Result<[Reg; 3], BuildError> {
        let a = self.register(values[0], at, &values[1..])?;
        let b = self.register_beside(values[1], at, &[a])?;
        let c = self.register_beside(values[2], at, &[a, b])?;
        Ok([a, b, c])
    }

    fn home(&self, value: Value) -> Home {
        self.known(value).and_then(|known| known.home).unwrap_or(Home::Memory)
    }

    fn cell_register(&self, cell: usize) -> Reg {
        // `allocate` saw that there are more registers than cells.
        Reg::numbered(self.assembler.unit.registers.saturating_sub(cell.saturating_add(1)))
    }

    /// A cell must not change while its old value is still wanted.
    fn not_read_later(&self, cell: usize, at: usize) -> Result<(), BuildError> {
        let register = self.cell_register(cell);
        let wanted = self.readers.iter().any(|value| {
            let later = self.next_use(*value, at.saturating_add(1));
            self.home(*value) == Home::Cell(register) && later.is_some()
        });
        if wanted { refuse("a tile changes while its old value is wanted") } else { Ok(()) }
    }

    fn next_use(&self, value: Value, from: usize) -> Option<usize> {
        let uses = &self.known(value)?.uses;
        uses.get(uses.partition_point(|at| *at < from)).copied()
    }

    /// Whether a value can be a memory operand at its only use.
    fn foldable(&self, value: Value, at: usize) -> bool {
        let once = self.known(value).is_some_and(|known| known.uses[..] == [at]);
        once && self.home(value) == Home::Memory
            && match self.definition(value) {
                Some(Op::Load(_, mask)) => mask.is_whole(self.assembler.lanes),
                Some(Op::Broadcast(_, 1)) => self.assembler.unit.broadcast_operands,
                Some(_) | None => false,
            }
    }

    /// A register or a memory operand for a value.
    fn operand(&mut self, value: Value, at: usize, keep: &[Reg]) -> Result<Operand, BuildError> {
        if self.foldable(value, at) {
            match self.definition(value) {
                Some(Op::Load(place, _)) => return Ok(Operand::Memory(*place, false)),
                Some(Op::Broadcast(place, 1)) => return Ok(Operand::Memory(*place, true)),
                Some(_) | None => {}
            }
        }
        Ok(Operand::Register(self.register_beside(value, at, keep)?))
    }

    /// The register of a value, loaded if need be, without evicting `others`.
    fn register(&mut self, value: Value, at: usize, others: &[Value]) -> Result<Reg, BuildError> {
        let keep: Vec<Reg> = others
            .iter()
            .filter_map(|other| match self.home(*other) {
                Home::Pool(register) | Home::Cell(register) => Some(register),
                Home::Memory => None,
            })
            .collect();
        self.register_beside(value, at, &keep)
    }

    fn register_beside(
        &mut self,
        value: Value,
        at: usize,
        keep: &[Reg],
    ) -> Result<Reg, BuildError> {
        match self.home(value) {
            Home::Pool(register) | Home::Cell(register) => return Ok(register),
            Home::Memory => {}
        }
        let to = self.allocate(value, at, keep)?;
        if let Some(slot) = self.assembler.frame.get(&value) {
            self.assembler.encoder.reload(to, *slot);
            return Ok(to);
        }
        match self.definition(value) {
            Some(Op::Load(place, mask)) => self.assembler.encoder.load(to, *place, *mask),
            Some(Op::Broadcast(place, elements)) => {
                self.assembler.encoder.broadcast(to, *place, *elements);
            }
            Some(Op::Const(bits)) => self.assembler.encoder.constant(to, *bits),
            Some(Op::Index(numbers)) => match self.assembler.slot_of(Repeated::Index(*numbers)) {
                Some(slot) => self.assembler.encoder.reload(to, slot),
                None => self.assembler.encoder.index(to, *numbers),
            },
            Some(
                Op::Permute(..)
                | Op::Deinterleave(..)
                | Op::Read(_)
                | Op::Unary(..)
                | Op::Binary(..)
                | Op::Fma(..)
                | Op::Select(_),
            )
            | None => return refuse("a value crosses a loop"),
        }
        Ok(to)
    }

    /// A free register for a value, made free if need be.
    fn allocate(&mut self, value: Value, at: usize, keep: &[Reg]) -> Result<Reg, BuildError> {
        let register = self.take(at, keep)?;
        self.hold(value, register);
        Ok(register)
    }

    /// The register of a value that is used here for the last time, for another value; or a free
    /// one.
    fn succeed(
        &mut self,
        value: Value,
        last: Value,
        at: usize,
        keep: &[Reg],
    ) -> Result<Reg, BuildError> {
        match self.home(last) {
            Home::Pool(register) if self.next_use(last, at.saturating_add(1)).is_none() => {
                if let Some(known) = self.known_mut(last) {
                    known.home = None;
                }
                self.hold(value, register);
                Ok(register)
            }
            Home::Pool(_) | Home::Cell(_) | Home::Memory => self.allocate(value, at, keep),
        }
    }

    /// Puts a value into a register of the pool.
    fn hold(&mut self, value: Value, register: Reg) {
        self.set_home(value, Home::Pool(register));
        self.pool[usize::from(register.0)] = Some(value);
    }

    /// A free register.
    fn take(&mut self, at: usize, keep: &[Reg]) -> Result<Reg, BuildError> {
        match self.free.pop() {
            Some(register) => Ok(register),
            None => self.evict(at, keep),
        }
    }

    /// Frees the register of the value that is used again last.
    fn evict(&mut self, at: usize, keep: &[Reg]) -> Result<Reg, BuildError> {
        let registers = (0..).map(Reg).zip(&self.pool);
        let candidates = registers.filter(|(register, _)| !keep.contains(register)).filter_map(
            |(register, value)| {
                let value = (*value)?;
                Some((self.next_use(value, at).unwrap_or(usize::MAX), value, register))
            },
        );
        let Some((_, value, register)) = candidates.max() else {
            return refuse("an operation has more operands than registers");
        };
        let again = match self.definition(value) {
            Some(Op::Load(..) | Op::Broadcast(..) | Op::Const(_)) => true,
            Some(Op::Index(numbers)) => {
                let hoisted = self.assembler.slot_of(Repeated::Index(*numbers)).is_some();
                hoisted || self.assembler.frame.contains_key(&value)
            }
            Some(_) | None => self.assembler.frame.contains_key(&value),
        };
        if !again {
            let slot = self.assembler.frame.len();
            self.assembler.frame.insert(value, slot);
            self.assembler.encoder.spill(slot, register);
        }
        self.set_home(value, Home::Memory);
        self.pool[usize::from(register.0)] = None;
        Ok(register)
    }

    /// Frees the registers of values that are not used after this step.
    fn release(&mut self, at: usize) {
        let step = &self.steps[at];
        for value in operands(step).into_iter().chain(defined(step)) {
            self.release_value(value, at);
        }
    }

    fn release_value(&mut self, value: Value, at: usize) {
        if self.next_use(value, at.saturating_add(1)).is_some() {
            return;
        }
        match self.known_mut(value).and_then(|known| known.home.take()) {
            Some(Home::Pool(register)) => {
                self.pool[usize::from(register.0)] = None;
                self.free.push(register);
            }
            Some(Home::Cell(_)) => self.readers.retain(|reader| *reader != value),
            Some(Home::Memory) | None => {}
        }
    }
}

/// The values a step defines.
fn defined(step: &Step) -> SmallVec<[Value; 4]> {
    match step {
        Step::Define(value, _) => smallvec![*value],
        Step::Gather(_, _, _, values) => values.iter().flatten().copied().collect(),
        Step::Write(..)
        | Step::Accumulate(..)
        | Step::Store(..)
        | Step::Prefetch(..)
        | Step::Scatter(..) => smallvec![],
    }
}

/// The values a step uses.
fn operands(step: &Step) -> SmallVec<[Value; 4]> {
    match step {
        Step::Define(_, op) => match op {
            Op::Load(..) | Op::Broadcast(..) | Op::Const(_) | Op::Index(_) | Op::Read(_) => {
                smallvec![]
            }
            Op::Permute(from, index, _) => [*from].into_iter().chain(*index).collect(),
            Op::Deinterleave(from, index, _) => from.iter().copied().chain(*index).collect(),
            Op::Unary(_, x) => smallvec![*x],
            Op::Binary(_, a, b) => smallvec![*a, *b],
            Op::Fma(a, b, c) => smallvec![*a, *b, *c],
            Op::Select(values) => SmallVec::from_slice(values),
        },
        Step::Write(_, value) | Step::Store(_, _, value) => smallvec![*value],
        Step::Scatter(_, _, _, values) => SmallVec::from_slice(values),
        Step::Gather(..) | Step::Prefetch(..) => smallvec![],
        Step::Accumulate(_, a, b) => smallvec![*a, *b],
    }
}
