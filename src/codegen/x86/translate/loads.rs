//! Loads of a scope: neighbours, single elements in every lane, lanes apart or spread, and padding.

use convgen_ir::PaddingMode;
use convgen_ir::nest::{Access, Affine, AxisId, Dim, Guard, Role};

use super::{
    Brought, Cell, LaneStep, Lanes, Mask, Op, OuterLanes, Place, Spread, Step, Translator, Value,
};
use crate::codegen::x86::{Argument, Unfit, unfit};

/// How many neighbouring elements a load can bring over and over.
const BROADCAST: [i64; 4] = [1, 2, 4, 8];

impl<'n> Translator<'n> {
    /// The lanes in which conditions hold, if these are on nothing but the lane and there is one.
    fn lanes_inside(&self, open: &[Guard], lanes: Lanes) -> Option<(i64, i64)> {
        let mut inside = (0, lanes.mask.lanes);
        for guard in open {
            let (outer, inner, constant) = self.resolve(guard.sum(), Some(lanes));
            let counts = guard.sum().coefficient(lanes.axis) == 1 && lanes.outer.is_none();
            if !outer.is_empty() || !inner.is_empty() || !counts {
                return None;
            }
            match guard {
                Guard::AtLeast(_, limit) => inside.0 = inside.0.max(limit - constant),
                Guard::Below(_, limit) => inside.1 = inside.1.min(limit - constant),
            }
        }
        (!open.is_empty()).then_some(inside)
    }

    /// The mask of the lanes in which `rest + lane < limit` holds.
    pub(super) fn limit(&mut self, guard: &Guard, lanes: Lanes) -> Result<Mask, Unfit> {
        let Guard::Below(sum, limit) = guard else { return unfit("a condition is a lower bound") };
        if sum.coefficient(lanes.axis) != 1 || lanes.outer.is_some() || lanes.mask.limit.is_some() {
            return unfit("a condition does not count lanes");
        }
        let left = sum.without(lanes.axis).scaled(-1).plus(*limit);
        let (outer, inner, constant) = self.resolve(&left, None);
        if !inner.is_empty() {
            return unfit("a condition depends on a loop of the scope");
        }
        let argument = self.argument(Argument::Sum(Affine::from_terms(constant, outer)));
        Ok(Mask { limit: Some((argument, lanes.start)), ..lanes.mask })
    }

    /// A load whose lanes lie apart.
    fn gather(&mut self, access: &'n Access, lanes: Lanes, step: i64) -> Result<Value, Unfit> {
        if lanes.mask.limit.is_some() {
            return unfit("lanes that lie apart are loaded up to a limit");
        }
        let place = self.place(access, lanes)?;
        let bytes = self.apart(access.buffer, place, step)?;
        if let Some(value) = self.line.gathers.get(&(place, lanes.mask, bytes)) {
            return Ok(*value);
        }
        let value = self.values;
        self.values += 1;
        self.push(Step::Gather(place, lanes.mask, bytes, [Some(value), None, None, None]))?;
        self.line.gathers.insert((place, lanes.mask, bytes), value);
        Ok(value)
    }

    /// A load; with a mask of its own if it is a padded one.
    pub(super) fn load(
        &mut self,
        access: &'n Access,
        lanes: Option<Lanes>,
        mask: Option<Mask>,
    ) -> Result<Value, Unfit> {
        let Some(lanes) = lanes else { return unfit("an element is loaded outside of vectors") };
        if self.nest.buffer(access.buffer).role == Role::Reg {
            return self.read(access, lanes);
        }
        self.line.read.insert(access.buffer);
        if self.line.written.contains(&access.buffer) {
            return unfit("memory is read in the line that writes it");
        }
        let offset = self.offset(access);
        let brought = match lanes.steps(&offset) {
            LaneStep::Same | LaneStep::Inner(_) | LaneStep::Outer(..) if mask.is_some() => {
                return unfit("a broadcast is padded");
            }
            LaneStep::Same => Brought::Elements(1),
            LaneStep::Inner(elements) if elements < self.width && BROADCAST.contains(&elements) => {
                Brought::Elements(elements as u8)
            }
            LaneStep::Inner(_) => return unfit("no load repeats as many elements"),
            LaneStep::Outer(stride, outer) => return self.spread(access, lanes, stride, outer),
            LaneStep::By(1) => Brought::Lanes(mask.unwrap_or(lanes.mask)),
            LaneStep::By(_) if mask.is_some() => return unfit("lanes that lie apart are padded"),
            LaneStep::By(step) => return self.gather(access, lanes, step),
            LaneStep::Uneven => return unfit("lanes are loaded unevenly"),
        };
        let place = self.place(access, lanes)?;
        self.load_at(place, brought)
    }

    fn load_at(&mut self, place: Place, brought: Brought) -> Result<Value, Unfit> {
        if let Some(value) = self.line.loads.get(&(place, brought)) {
            return Ok(*value);
        }
        let value = self.define(match brought {
            Brought::Lanes(mask) => Op::Load(place, mask),
            Brought::Elements(elements) => Op::Broadcast(place, elements),
        })?;
        self.line.loads.insert((place, brought), value);
        Ok(value)
    }

    /// What a register of a tile holds; or every so many of its lanes, where each sum is several.
    fn read(&mut self, access: &'n Access, lanes: Lanes) -> Result<Value, Unfit> {
        let offset = self.offset(access);
        let LaneStep::By(stride @ 2..) = lanes.steps(&offset) else {
            let cell = self.cell(access, lanes)?;
            return self.read_cell(cell);
        };
        let (tile, element) = self.element(access, lanes)?;
        let reach = (lanes.mask.lanes - 1).saturating_mul(stride);
        let (column, phase) = (element % tile.row, element % tile.row % self.width);
        if phase + reach >= self.width || column + reach >= tile.row {
            return unfit("lanes of a tile are not in one register");
        }
        let whole = self.read_cell(tile.cell(element, self.width))?;
        let [stride, phase, lanes] = [stride, phase, lanes.mask.lanes].map(|number| number as u8);
        self.permuted(whole, Spread { repeat: 1, stride, phase, lanes })
    }

    fn read_cell(&mut self, cell: Cell) -> Result<Value, Unfit> {
        if let Some(value) = self.line.cells.get(&cell) {
            return Ok(*value);
        }
        let value = self.define(Op::Read(cell))?;
        self.line.cells.insert(cell, value);
        Ok(value)
    }

    /// A load whose lanes move with the outer vector loop alone. Memory is taken in blocks of the stride:
    /// where each term of the offset and the buffer itself are whole blocks, all of the block of an
    /// element that V4 proves inside lies inside.
    fn spread(
        &mut self,
        access: &'n Access,
        lanes: Lanes,
        stride: i64,
        outer: OuterLanes,
    ) -> Result<Value, Unfit> {
        let offset = self.offset(access);
        let (terms, inner, constant) = self.resolve(&offset, Some(lanes));
        let whole = |terms: &[(AxisId, i64)]| terms.iter().all(|(_, step)| step % stride == 0);
        let length = self.nest.buffer(access.buffer).len(1).unwrap_or(0);
        if stride < 1 || length % stride != 0 || !whole(&terms) || !whole(&inner) {
            return unfit("lanes are spread from memory in no blocks");
        }
        if outer.trips * stride > self.width {
            return unfit("lanes are spread from more than a register");
        }
        let phase = constant.rem_euclid(stride);
        let place = self.place_at(access.buffer, terms, inner, constant - phase)?;
        let mask = Mask { first: 0, lanes: outer.trips * stride, limit: None };
        let block = self.load_at(place, Brought::Lanes(mask))?;
        let [repeat, stride, phase, lanes] =
            [outer.inner, stride, phase, lanes.mask.lanes].map(|number| number as u8);
        self.permuted(block, Spread { repeat, stride, phase, lanes })
    }

    /// Some lanes of a value.
    fn permuted(&mut self, from: Value, spread: Spread) -> Result<Value, Unfit> {
        if let Some(value) = self.line.spreads.get(&(from, spread)) {
            return Ok(*value);
        }
        let index = if spread.within_fours() { None } else { Some(self.index(spread)?) };
        let value = self.define(Op::Spread(from, index, spread))?;
        self.line.spreads.insert((from, spread), value);
        Ok(value)
    }

    fn index(&mut self, spread: Spread) -> Result<Value, Unfit> {
        if let Some(value) = self.line.indices.get(&spread) {
            return Ok(*value);
        }
        let value = self.define(Op::Index(spread))?;
        self.line.indices.insert(spread, value);
        Ok(value)
    }

    /// A padded load is a zero or a plain load where this is known, and a masked one if only the end of
    /// the lanes can be outside. Indices that stand for others are left to the surrounding code.
    pub(super) fn pad(
        &mut self,
        mode: PaddingMode,
        access: &'n Access,
        lanes: Option<Lanes>,
    ) -> Result<Value, Unfit> {
        let Some(vector) = lanes else { return unfit("an element is loaded outside of vectors") };
        let mut open = Vec::new();
        for (index, dim) in access.index.iter().zip(&self.nest.buffer(access.buffer).shape) {
            if let Dim::Fixed(extent) = dim {
                let ends = [Guard::AtLeast(index.clone(), 0), Guard::Below(index.clone(), *extent)];
                let zeros = mode == PaddingMode::Zeros;
                if zeros && ends.iter().any(|guard| self.known.never(guard)) {
                    return self.constant(0.0);
                }
                open.extend(ends.into_iter().filter(|guard| !self.known.always(guard)));
            }
        }
        if mode != PaddingMode::Zeros && !open.is_empty() {
            return unfit("padding is made of the input");
        }
        if let Some(lanes) = self.lanes_inside(&open, vector) {
            return match lanes {
                (first, end) if first >= end => self.constant(0.0),
                (first, end) => {
                    let mask = Mask { first, lanes: end, limit: None };
                    self.load(access, Some(vector), Some(mask))
                }
            };
        }
        match &open[..] {
            [] => self.load(access, lanes, None),
            [guard] => {
                // Inside an `if` on the same lanes the values outside are not stored.
                let unlimited = Lanes { mask: Mask { limit: None, ..vector.mask }, ..vector };
                let mask = self.limit(guard, unlimited)?;
                self.load(access, lanes, Some(mask))
            }
            [..] => unfit("a load is padded on several sides"),
        }
    }
}
