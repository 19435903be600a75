//! Loads of a scope: neighbours, single elements in every lane, lanes apart or spread, and padding.

use convgen_ir::PaddingMode;
use convgen_ir::nest::{Access, Affine, AxisId, Dim, Guard, Role, Scalar};

use super::{
    Brought, Builder, Cell, Lane, LanePermute, LaneStep, Lanes, Mask, Op, OuterLanes, Place, Step,
    Value,
};
use crate::exact;
use crate::target::DEINTERLEAVED;
use crate::vir::{Argument, BuildError, LaneNumbers, fit, refuse};

/// How many neighbouring elements a load can bring over and over.
const BROADCAST: [i64; 4] = [1, 2, 4, 8];

/// The furthest lane that a limit is compared with: the limits are clamped to 2^30, so all that are
/// clamped lie beyond each lane up to this one.
const FURTHEST_LANE: i32 = 1 << 29;

impl<'n> Builder<'n> {
    /// The lanes in which conditions hold, if these are on nothing but the lane and there is one.
    fn lanes_inside(&self, open: &[Guard], lanes: Lanes) -> Result<Option<(i64, i64)>, BuildError> {
        let mut inside = (0, lanes.mask.lanes);
        for guard in open {
            let (outer, inner, constant) = self.resolve(guard.sum(), Some(lanes))?;
            let step = guard.sum().coefficient(lanes.axis);
            if !outer.is_empty() || !inner.is_empty() || step < 1 || lanes.outer.is_some() {
                return Ok(None);
            }
            // The first lane in which `step * lane + constant` reaches the limit.
            let reaches = |limit: i64| {
                let left = limit.saturating_sub(constant);
                left.saturating_add(step.saturating_sub(1)).checked_div_euclid(step)
            };
            match guard {
                Guard::AtLeast(_, limit) => inside.0 = inside.0.max(fit(reaches(*limit))?),
                Guard::Below(_, limit) => inside.1 = inside.1.min(fit(reaches(*limit))?),
            }
        }
        Ok((!open.is_empty()).then_some(inside))
    }

    /// The mask of the lanes in which `rest + lane < limit` holds.
    pub(super) fn limit(&mut self, guard: &Guard, lanes: Lanes) -> Result<Mask, BuildError> {
        let Guard::Below(sum, limit) = guard else { return refuse("a condition is a lower bound") };
        if sum.coefficient(lanes.axis) != 1 || lanes.outer.is_some() || lanes.mask.limit.is_some() {
            return refuse("a condition does not count lanes");
        }
        let left = fit(exact::minus(*limit, &sum.without(lanes.axis)))?;
        let (outer, inner, constant) = self.resolve(&left, None)?;
        if !inner.is_empty() {
            return refuse("a condition depends on a loop of the scope");
        }
        let left = Affine::from_terms(constant, outer);
        if !exact::fits(&left, self.around) {
            return refuse("a condition exceeds 64 bits");
        }
        let first = i32::try_from(lanes.start).ok().filter(|first| *first <= FURTHEST_LANE);
        let Some(first) = first else { return refuse("a condition counts lanes from too far") };
        let argument = self.argument(Argument::Sum(left));
        Ok(Mask { limit: Some((argument, first)), ..lanes.mask })
    }

    /// A load whose lanes lie apart; with a mask of its own if it is a padded one.
    fn gather(
        &mut self,
        access: &'n Access,
        lanes: Lanes,
        step: i64,
        mask: Option<Mask>,
    ) -> Result<Value, BuildError> {
        if mask.is_some() && u64::try_from(step) != Ok(DEINTERLEAVED) {
            return refuse("lanes that lie apart are padded");
        }
        let mask = mask.unwrap_or(lanes.mask);
        if mask.limit.is_some() {
            return refuse("lanes that lie apart are loaded up to a limit");
        }
        let place = self.place(access, lanes)?;
        let bytes = self.apart(access.buffer, place, step)?;
        if let Some(value) = self.line.gathers.get(&(place, mask, bytes)) {
            return Ok(*value);
        }
        let value = self.new_value(self.lane_of(access.buffer));
        self.push(Step::Gather(place, mask, bytes, [Some(value), None, None, None]))?;
        self.line.gathers.insert((place, mask, bytes), value);
        Ok(value)
    }

    /// A load; with a mask of its own if it is a padded one.
    pub(super) fn load(
        &mut self,
        access: &'n Access,
        lanes: Option<Lanes>,
        mask: Option<Mask>,
    ) -> Result<Value, BuildError> {
        let Some(lanes) = lanes else { return refuse("an element is loaded outside of vectors") };
        if self.nest.buffer(access.buffer).role == Role::Reg {
            return self.read(access, lanes);
        }
        self.line.read.insert(access.buffer);
        if self.line.written.contains(&access.buffer) {
            return refuse("memory is read in the line that writes it");
        }
        let offset = self.offset(access)?;
        let brought = match lanes.steps(&offset) {
            LaneStep::Same | LaneStep::Inner(_) | LaneStep::Outer(..) if mask.is_some() => {
                return refuse("a broadcast is padded");
            }
            LaneStep::Same => Brought::Elements(1),
            LaneStep::Inner(elements) if elements < self.width && BROADCAST.contains(&elements) => {
                Brought::Elements(fit(u8::try_from(elements).ok())?)
            }
            LaneStep::Inner(_) => return refuse("no load repeats as many elements"),
            LaneStep::Outer(stride, outer) => return self.spread(access, lanes, stride, outer),
            LaneStep::By(1) => Brought::Lanes(mask.unwrap_or(lanes.mask)),
            LaneStep::By(step) => return self.gather(access, lanes, step, mask),
            LaneStep::Uneven => return refuse("lanes are loaded unevenly"),
        };
        // Of a condition on lanes only masks know: an element for all of them is loaded also where
        // it holds in none, and V4 may have proved it inside by that condition.
        let masked = matches!(brought, Brought::Lanes(_)) || lanes.mask.limit.is_none();
        if !masked && !self.is_inside(access) {
            return refuse("an element is loaded where a condition may not hold");
        }
        let place = self.place(access, lanes)?;
        self.load_at(self.lane_of(access.buffer), place, brought)
    }

    /// Whether an access is in bounds by what holds in all lanes.
    fn is_inside(&self, access: &Access) -> bool {
        let shape = &self.nest.buffer(access.buffer).shape;
        access.index.iter().zip(shape).all(|(index, extent)| self.known.inside(index, *extent))
    }

    fn load_at(&mut self, lane: Lane, place: Place, brought: Brought) -> Result<Value, BuildError> {
        if let Some(value) = self.line.loads.get(&(place, brought)) {
            return Ok(*value);
        }
        let load = match brought {
            Brought::Lanes(mask) => Op::Load(place, mask),
            Brought::Elements(elements) => Op::Broadcast(place, elements),
        };
        let value = self.define(lane, load)?;
        self.line.loads.insert((place, brought), value);
        Ok(value)
    }

    /// What a register of a tile holds; or every so many of its lanes, where each sum is several.
    fn read(&mut self, access: &'n Access, lanes: Lanes) -> Result<Value, BuildError> {
        let offset = self.offset(access)?;
        let LaneStep::By(stride @ 2..) = lanes.steps(&offset) else {
            let cell = self.cell(access, lanes)?;
            return self.read_cell(self.lane_of(access.buffer), cell);
        };
        let (tile, element) = self.element(access, lanes)?;
        let reach = lanes.mask.lanes.saturating_sub(1).saturating_mul(stride);
        let column = tile.column(element)?;
        let phase = fit(column.checked_rem_euclid(self.width))?;
        if phase.saturating_add(reach) >= self.width || column.saturating_add(reach) >= tile.row {
            return refuse("lanes of a tile are not in one register");
        }
        let cell = tile.cell(element, self.width)?;
        let whole = self.read_cell(self.lane_of(access.buffer), cell)?;
        let spread = spread_of(1, stride, phase, lanes)?;
        self.permuted(whole, spread)
    }

    fn read_cell(&mut self, lane: Lane, cell: Cell) -> Result<Value, BuildError> {
        if let Some(value) = self.line.cells.get(&cell) {
            return Ok(*value);
        }
        let value = self.define(lane, Op::Read(cell))?;
        self.line.cells.insert(cell, value);
        Ok(value)
    }

    /// A load whose lanes move with the outer vector loop alone. Memory is taken in blocks of the
    /// stride: where each term of the offset and the buffer itself are whole blocks, all of the
    /// block of an element that V4 proves inside lies inside.
    fn spread(
        &mut self,
        access: &'n Access,
        lanes: Lanes,
        stride: i64,
        outer: OuterLanes,
    ) -> Result<Value, BuildError> {
        let offset = self.offset(access)?;
        let (terms, inner, constant) = self.resolve(&offset, Some(lanes))?;
        let blocks = |number: i64| number.checked_rem(stride) == Some(0);
        let whole = |terms: &[(AxisId, i64)]| terms.iter().all(|(_, step)| blocks(*step));
        let length = self.nest.buffer(access.buffer).len(1);
        if stride < 1 || !length.is_some_and(blocks) || !whole(&terms) || !whole(&inner) {
            return refuse("lanes are spread from memory in no blocks");
        }
        let loaded = outer.trips.saturating_mul(stride);
        if loaded > self.width {
            return refuse("lanes are spread from more than a register");
        }
        let phase = fit(constant.checked_rem_euclid(stride))?;
        let first = fit(constant.checked_sub(phase))?;
        let place = self.place_at(access.buffer, terms, inner, first)?;
        let mask = Mask { first: 0, lanes: loaded, limit: None };
        let block = self.load_at(self.lane_of(access.buffer), place, Brought::Lanes(mask))?;
        let spread = spread_of(outer.inner, stride, phase, lanes)?;
        self.permuted(block, spread)
    }

    /// Some lanes of a value.
    fn permuted(&mut self, from: Value, spread: LanePermute) -> Result<Value, BuildError> {
        if let Some(value) = self.line.spreads.get(&(from, spread)) {
            return Ok(*value);
        }
        let lane = self.lane(from);
        let index = if spread.within_fours() { None } else { Some(self.index(lane, spread)?) };
        let value = self.define(lane, Op::Permute(from, index, spread))?;
        self.line.spreads.insert((from, spread), value);
        Ok(value)
    }

    /// The numbers of lanes that permute those of a kind.
    fn index(&mut self, of: Lane, spread: LanePermute) -> Result<Value, BuildError> {
        if let Some(value) = self.line.indices.get(&spread) {
            return Ok(*value);
        }
        let (Lane::Elem(elem) | Lane::Index(elem)) = of;
        let value = self.define(Lane::Index(elem), Op::Index(LaneNumbers::Permute(spread)))?;
        self.line.indices.insert(spread, value);
        Ok(value)
    }

    /// A padded load is a zero or a plain load where this is known, and a masked one if only the
    /// end of the lanes can be outside. Indices that stand for others are left to the surrounding
    /// code.
    pub(super) fn pad(
        &mut self,
        mode: PaddingMode,
        access: &'n Access,
        lanes: Option<Lanes>,
    ) -> Result<Value, BuildError> {
        let Some(vector) = lanes else { return refuse("an element is loaded outside of vectors") };
        let mut open = Vec::new();
        for (index, dim) in access.index.iter().zip(&self.nest.buffer(access.buffer).shape) {
            if let Dim::Fixed(extent) = dim {
                let ends = [Guard::AtLeast(index.clone(), 0), Guard::Below(index.clone(), *extent)];
                let zeros = mode == PaddingMode::Zeros;
                if zeros && ends.iter().any(|guard| self.known.never(guard)) {
                    return self.constant(Scalar::F32(0.0));
                }
                open.extend(ends.into_iter().filter(|guard| !self.known.always(guard)));
            }
        }
        if mode != PaddingMode::Zeros && !open.is_empty() {
            return refuse("padding is made of the input");
        }
        if let Some(lanes) = self.lanes_inside(&open, vector)? {
            return match lanes {
                (first, end) if first >= end => self.constant(Scalar::F32(0.0)),
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
            [..] => refuse("a load is padded on several sides"),
        }
    }
}

/// A spread of all lanes, by numbers below those of a register.
fn spread_of(
    repeat: i64,
    stride: i64,
    phase: i64,
    lanes: Lanes,
) -> Result<LanePermute, BuildError> {
    let small = |number: i64| fit(u8::try_from(number).ok());
    let [repeat, stride, phase] = [small(repeat)?, small(stride)?, small(phase)?];
    Ok(LanePermute { repeat, stride, phase, lanes: small(lanes.mask.lanes)? })
}
