//! A scope as loops around straight lines of vector operations.
//!
//! Vector loops become groups of lanes, the last one masked; two of them, one in the other, share
//! one register; unrolled loops are expanded. Within a straight line equal loads and constants are
//! one value: a broadcast or a vector of weights is loaded once a step, however many multiply-adds
//! use it.
//!
//! A load that moves with the outer of two vector loops only, as the input of grouped convolutions
//! does, is a vector load of the blocks of memory that its lanes lie in, and a permutation of it:
//! ```text
//! x[S*i + p], lanes (i, j)  ->  v = load x[0..S*I];  v[p], v[p], .. v[S+p], v[S+p], ..
//! ```
//! The load is one value for every `p`, and the permutation one for every use.

mod loads;
mod loops;
mod prefetch;

use std::collections::hash_map::Entry;
use std::rc::Rc;

use rustc_hash::{FxHashMap as HashMap, FxHashSet as HashSet};
use smallvec::SmallVec;

use convgen_ir::bounds::Context;
use convgen_ir::elem::ElemType;
use convgen_ir::nest::{
    Access, Affine, AxisId, BufferId, Expr, Guard, LocalId, Nest, Role, Scalar, Stmt,
    in_two_vectors,
};

use super::cluster::cluster_uses;
use super::deinterleave::form_deinterleaves;
use super::permute::form_transposes;
use super::{
    Argument, BuildError, Cell, Item, Lane, LanePermute, Level, MIN_POOL, Mask, Op, Outside, Place,
    Program, Step, Stream, Trips, Value, VectorType, fit, refuse,
};
use crate::exact;
use crate::target::VectorUnit;

/// Steps of one micro-kernel at most: keeps the code within the instruction cache.
const MAX_STEPS: usize = 4096;

/// Steps that are built for one nest, at most: eight times what the verifier grants it. Scopes in
/// one another may be tried one after the other, and each that is refused was built in vain.
pub(crate) const MOST_BUILT: usize = 1 << 18;

/// Builds the micro-kernel of a scope, of no more than so many steps, which are taken from the
/// budget.
pub(crate) fn build<'n>(
    nest: &'n Nest,
    scope: &'n [Stmt],
    outside: &Outside<'n>,
    unit: VectorUnit,
    budget: &mut usize,
) -> Result<Program, BuildError> {
    let mut builder = Builder {
        nest,
        width: unit.lanes(ElemType::F32),
        unit,
        budget,
        variables: outside.variables.to_vec(),
        outer: outside.variables.len(),
        known: outside.known.clone(),
        around: outside.known,
        offsets: HashMap::default(),
        lows: HashMap::default(),
        tiles: HashMap::default(),
        cells: 0,
        most_cells: 0,
        streams: vec![],
        arguments: vec![],
        finished: vec![],
        line: StraightLine::default(),
        types: vec![],
        steps: 0,
        locals: HashMap::default(),
        prefetch: PrefetchScope::outside(nest, outside),
    };
    builder.block(scope, None)?;
    builder.end_line();
    if builder.steps == 0 {
        return refuse("there is nothing to do");
    }
    Ok(Program {
        items: builder.finished,
        lanes: builder.width,
        types: builder.types,
        cells: builder.most_cells,
        streams: builder.streams.iter().map(|stream| stream.argument).collect(),
        arguments: builder.arguments,
    })
}

/// Terms of a sum.
type Terms = SmallVec<[(AxisId, i64); 4]>;

/// What moves with loops of the scope.
struct StreamInfo {
    what: Moving,
    outer: Terms,
    inner: Terms,
    argument: usize,
}

/// What a stream is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Moving {
    /// A pointer into a buffer that is read or written at a fixed combination of loop variables.
    Pointer(BufferId),
    /// Such a combination itself, with this number added.
    Number(i64),
}

/// The lanes that statements are built for.
#[derive(Clone, Copy)]
struct Lanes {
    /// The innermost vector loop.
    axis: AxisId,
    /// The value of its variable in the first lane.
    start: i64,
    mask: Mask,
    /// The vector loop around it, if there is one.
    outer: Option<OuterLanes>,
}

/// The outer of two vector loops.
#[derive(Clone, Copy)]
struct OuterLanes {
    axis: AxisId,
    start: i64,
    /// Iterations of each loop.
    trips: i64,
    inner: i64,
}

/// How an element moves from lane to lane.
enum LaneStep {
    /// Not at all.
    Same,
    /// By that many elements.
    By(i64),
    /// By that many elements from one iteration of the outer loop to the next, not within one.
    Outer(i64, OuterLanes),
    /// By one element within an iteration of the outer loop, the same for each, so many times.
    Inner(i64),
    /// In another way.
    Uneven,
}

impl Lanes {
    fn steps(&self, offset: &Affine) -> LaneStep {
        let step = offset.coefficient(self.axis);
        let outer = self.outer.map(|outer| (offset.coefficient(outer.axis), outer));
        match (step, outer) {
            (0, None | Some((0, _))) => LaneStep::Same,
            (0, Some((by, outer))) => LaneStep::Outer(by, outer),
            (by, None) => LaneStep::By(by),
            (by, Some((far, outer))) if by.checked_mul(outer.inner) == Some(far) => {
                LaneStep::By(by)
            }
            (1, Some((0, outer))) => LaneStep::Inner(outer.inner),
            (_, Some(_)) => LaneStep::Uneven,
        }
    }
}

/// What a load brings: some lanes, or so many elements over and over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Brought {
    Lanes(Mask),
    Elements(u8),
}

/// A straight line under construction.
#[derive(Default)]
struct StraightLine {
    steps: Vec<Step>,
    loads: HashMap<(Place, Brought), Value>,
    gathers: HashMap<(Place, Mask, i64), Value>,
    spreads: HashMap<(Value, LanePermute), Value>,
    indices: HashMap<LanePermute, Value>,
    constants: HashMap<u32, Value>,
    cells: HashMap<Cell, Value>,
    /// Memory that the line reads and writes: not the same, so loads and stores may change places.
    read: HashSet<BufferId>,
    written: HashSet<BufferId>,
}

/// The cells of a register tile.
#[derive(Clone, Copy)]
struct Tile {
    first: Cell,
    /// Elements of one row, whose groups of lanes are a cell each.
    row: i64,
    groups: i64,
    cells: usize,
}

impl Tile {
    /// The place of an element in its row.
    fn column(&self, element: i64) -> Result<i64, BuildError> {
        fit(element.checked_rem_euclid(self.row))
    }

    /// The cell that holds an element.
    fn cell(&self, element: i64, width: i64) -> Result<Cell, BuildError> {
        let row = fit(element.checked_div_euclid(self.row))?;
        let group = fit(self.column(element)?.checked_div_euclid(width))?;
        let cell = row.checked_mul(self.groups).and_then(|first| first.checked_add(group));
        match cell.and_then(|cell| usize::try_from(cell).ok()) {
            Some(cell) if cell < self.cells => fit(self.first.checked_add(cell)),
            Some(_) | None => refuse("a tile has no such element"),
        }
    }
}

struct Builder<'n> {
    nest: &'n Nest,
    width: i64,
    unit: VectorUnit,
    /// Steps that may still be built.
    budget: &'n mut usize,
    /// Loop variables, outermost first; a number if unrolled.
    variables: Vec<(AxisId, Option<i64>)>,
    /// How many of them are outside of the scope.
    outer: usize,
    known: Context,
    /// What is known outside of the scope, where the arguments are computed.
    around: &'n Context,
    /// The flat offset of each access met so far, by where it stands in the scope.
    offsets: HashMap<*const Access, Rc<Affine>>,
    /// The first values of the loops of the scope.
    lows: HashMap<AxisId, i64>,
    tiles: HashMap<BufferId, Tile>,
    /// Cells of the tiles in scope, and the most that there were.
    cells: usize,
    most_cells: usize,
    streams: Vec<StreamInfo>,
    arguments: Vec<Argument>,
    finished: Vec<Item>,
    line: StraightLine,
    /// The type of each value.
    types: Vec<VectorType>,
    steps: usize,
    locals: HashMap<LocalId, Value>,
    /// The innermost loop around that looks ahead.
    prefetch: Option<PrefetchScope>,
}

/// A loop that looks ahead.
#[derive(Clone, Debug)]
struct PrefetchScope {
    axis: AxisId,
    /// By how many of its iterations.
    by: i64,
    /// The loops between it and this place, outermost first, with their trips, those that guards
    /// cut short too.
    between: Vec<(AxisId, i64)>,
}

impl<'n> Builder<'n> {
    fn block(&mut self, block: &'n [Stmt], lanes: Option<Lanes>) -> Result<(), BuildError> {
        let outside = self.cells;
        let mut rest = block;
        while let [stmt, later @ ..] = rest {
            rest = later;
            match stmt {
                Stmt::Loop(l) => self.loop_(l)?,
                Stmt::If(guards, body) => self.guarded(guards, body, lanes)?,
                Stmt::MicroKernel(body) => self.block(body, lanes)?,
                Stmt::Declare(id) => self.declare(*id, later)?,
                Stmt::Let(id, value) => {
                    let value = self.expr(value, lanes)?;
                    self.locals.insert(*id, value);
                }
                Stmt::Store(dst, value) => self.store(dst, value, lanes)?,
            }
        }
        // Tiles of this block are gone, and their registers free.
        self.cells = outside;
        Ok(())
    }

    fn declare(&mut self, id: BufferId, scope: &[Stmt]) -> Result<(), BuildError> {
        let buffer = self.nest.buffer(id);
        if buffer.role != Role::Reg {
            return refuse("scratch is declared inside the scope");
        }
        if buffer.shape.is_empty() {
            return refuse("the sum is a single element");
        }
        // The dimensions of two vector loops are one row.
        let dims = if in_two_vectors(id, scope) { 2 } else { 1 };
        let row = buffer.shape.iter().rev().take(dims).filter_map(|dim| dim.fixed()).product();
        let row: i64 = row;
        let groups = row.saturating_add(self.width.saturating_sub(1)).div_euclid(self.width);
        let rows = fit(buffer.len(0).and_then(|elements| elements.checked_div(row)))?;
        let cells = fit(rows.checked_mul(groups).and_then(|cells| usize::try_from(cells).ok()))?;
        self.tiles.insert(id, Tile { first: self.cells, row, groups, cells });
        self.cells = fit(self.cells.checked_add(cells))?;
        self.most_cells = self.most_cells.max(self.cells);
        if self.cells.saturating_add(MIN_POOL) > self.unit.registers {
            return refuse("the tile leaves too few registers");
        }
        Ok(())
    }

    fn end_line(&mut self) {
        let line = std::mem::take(&mut self.line);
        // Values live in registers to the end of their line.
        self.locals.clear();
        if !line.steps.is_empty() {
            let steps = form_deinterleaves(line.steps, &mut self.types, self.unit);
            let steps = form_transposes(steps, &self.types);
            self.finished.push(Item::Line(cluster_uses(steps)));
        }
    }

    fn push(&mut self, step: Step) -> Result<(), BuildError> {
        self.line.steps.push(step);
        self.count(1)
    }

    /// Counts steps, or what takes as many instructions.
    fn count(&mut self, steps: usize) -> Result<(), BuildError> {
        self.steps = self.steps.saturating_add(steps);
        *self.budget = self.budget.saturating_sub(steps);
        if self.steps > MAX_STEPS {
            return refuse("the scope is too long");
        }
        if *self.budget == 0 { refuse("too much was tried") } else { Ok(()) }
    }

    /// A value of lanes of a kind.
    fn new_value(&mut self, lane: Lane) -> Value {
        let value = self.types.len();
        self.types.push(VectorType { lane, lanes: self.width });
        value
    }

    fn define(&mut self, lane: Lane, op: Op) -> Result<Value, BuildError> {
        let value = self.new_value(lane);
        self.push(Step::Define(value, op))?;
        Ok(value)
    }

    /// An `if` inside a vector: stores are masked. Outside of vectors it must be known.
    fn guarded(
        &mut self,
        guards: &[Guard],
        body: &'n [Stmt],
        lanes: Option<Lanes>,
    ) -> Result<(), BuildError> {
        if guards.iter().any(|guard| self.known.never(guard)) {
            return Ok(());
        }
        let open: Vec<&Guard> = guards.iter().filter(|g| !self.known.always(g)).collect();
        let Some(lanes) = lanes else {
            return match open.is_empty() {
                true => self.block(body, None),
                false => refuse("an `if` outside of vectors is decided at run time"),
            };
        };
        let mask = match open[..] {
            [] => lanes.mask,
            [guard] => self.limit(guard, lanes)?,
            [..] => return refuse("an `if` has several conditions"),
        };
        self.block(body, Some(Lanes { mask, ..lanes }))
    }

    fn argument(&mut self, argument: Argument) -> usize {
        let found = self.arguments.iter().position(|other| *other == argument);
        found.unwrap_or_else(|| {
            let number = self.arguments.len();
            self.arguments.push(argument);
            number
        })
    }

    /// A sum as terms of outer variables, terms of loops of the scope, and a number.
    fn resolve(
        &self,
        sum: &Affine,
        lanes: Option<Lanes>,
    ) -> Result<(Terms, Terms, i64), BuildError> {
        let (mut outer, mut inner, mut constant) = (Terms::new(), Terms::new(), sum.constant);
        let mut add = |coefficient: i64, value: i64| {
            let term = coefficient.checked_mul(value);
            constant = fit(term.and_then(|term| constant.checked_add(term)))?;
            Ok(())
        };
        for (i, (axis, number)) in self.variables.iter().enumerate() {
            let coefficient = sum.coefficient(*axis);
            match number {
                _ if coefficient == 0 => {}
                Some(value) => add(coefficient, *value)?,
                None if i < self.outer => outer.push((*axis, coefficient)),
                None => {
                    inner.push((*axis, coefficient));
                    add(coefficient, self.lows.get(axis).copied().unwrap_or(0))?;
                }
            }
        }
        if let Some(lanes) = lanes {
            add(sum.coefficient(lanes.axis), lanes.start)?;
            if let Some(l) = lanes.outer {
                add(sum.coefficient(l.axis), l.start)?;
            }
        }
        Ok((outer, inner, constant))
    }

    /// The flat offset of an access in elements.
    fn offset(&mut self, access: &'n Access) -> Result<Rc<Affine>, BuildError> {
        match self.offsets.entry(std::ptr::from_ref(access)) {
            Entry::Occupied(known) => Ok(Rc::clone(known.get())),
            Entry::Vacant(place) => {
                let strides = self.nest.buffer(access.buffer).strides();
                let offset = Rc::new(fit(exact::offset(access, &strides))?);
                Ok(Rc::clone(place.insert(offset)))
            }
        }
    }

    fn place(&mut self, access: &'n Access, lanes: Lanes) -> Result<Place, BuildError> {
        let offset = self.offset(access)?;
        let (outer, inner, constant) = self.resolve(&offset, Some(lanes))?;
        self.place_at(access.buffer, outer, inner, constant)
    }

    /// The place of the element at these terms and this number.
    fn place_at(
        &mut self,
        buffer: BufferId,
        outer: Terms,
        inner: Terms,
        constant: i64,
    ) -> Result<Place, BuildError> {
        let displacement = fit(constant.checked_mul(self.elem_bytes(buffer)))?;
        if i32::try_from(displacement).is_err() {
            return refuse("a displacement exceeds 32 bits");
        }
        let stream = self.stream(Moving::Pointer(buffer), outer, inner);
        Ok(Place { stream, displacement })
    }

    /// A stream; each begins as an argument of its own, which moves with it.
    fn stream(&mut self, what: Moving, outer: Terms, inner: Terms) -> Stream {
        let same = |s: &StreamInfo| s.what == what && s.outer == outer && s.inner == inner;
        self.streams.iter().position(same).unwrap_or_else(|| {
            let argument = self.arguments.len();
            self.arguments.push(match what {
                Moving::Pointer(buffer) => Argument::Pointer(buffer, outer.to_vec()),
                Moving::Number(constant) => {
                    Argument::Number(Affine::from_terms(constant, outer.iter().copied()))
                }
            });
            let stream = self.streams.len();
            self.streams.push(StreamInfo { what, outer, inner, argument });
            stream
        })
    }

    /// What the lanes of a value are.
    fn lane(&self, value: Value) -> Lane {
        self.types[value].lane
    }

    /// What the lanes of a value from a buffer are.
    fn lane_of(&self, buffer: BufferId) -> Lane {
        Lane::Elem(self.nest.buffer(buffer).elem)
    }

    fn elem_bytes(&self, buffer: BufferId) -> i64 {
        exact::size_of(self.nest.buffer(buffer).elem)
    }

    fn store(
        &mut self,
        dst: &'n Access,
        value: &'n Expr,
        lanes: Option<Lanes>,
    ) -> Result<(), BuildError> {
        let Some(lanes) = lanes else { return refuse("an element is stored outside of vectors") };
        if self.nest.buffer(dst.buffer).role == Role::Reg {
            if lanes.mask.limit.is_some() {
                return refuse("a tile changes in some of its lanes");
            }
            let cell = self.cell(dst, lanes)?;
            if let Expr::Fma(a, b, c) = value
                && matches!(&**c, Expr::Load(access) if access == dst)
            {
                let [a, b] = [self.expr(a, Some(lanes))?, self.expr(b, Some(lanes))?];
                self.line.cells.remove(&cell);
                return self.push(Step::Accumulate(cell, a, b));
            }
            let value = self.expr(value, Some(lanes))?;
            self.line.cells.remove(&cell);
            return self.push(Step::Write(cell, value));
        }
        let value = self.expr(value, Some(lanes))?;
        self.line.written.insert(dst.buffer);
        if self.line.read.contains(&dst.buffer) {
            return refuse("memory is written in the line that reads it");
        }
        let offset = self.offset(dst)?;
        let LaneStep::By(stride) = lanes.steps(&offset) else {
            return refuse("lanes are stored unevenly");
        };
        let place = self.place(dst, lanes)?;
        if stride == 1 {
            return self.push(Step::Store(place, lanes.mask, value));
        }
        let bytes = self.apart(dst.buffer, place, stride)?;
        self.push(Step::Scatter(place, lanes.mask, bytes, vec![value]))
    }

    /// Bytes from lane to lane, if all lanes and a few elements beyond are within a displacement.
    fn apart(&self, buffer: BufferId, place: Place, step: i64) -> Result<i64, BuildError> {
        let bytes = step.saturating_mul(self.elem_bytes(buffer));
        let reach = bytes.saturating_mul(self.width).saturating_add(place.displacement);
        match (i32::try_from(bytes), i32::try_from(reach)) {
            (Ok(_), Ok(_)) => Ok(bytes),
            (Ok(_) | Err(_), _) => refuse("lanes lie too far apart"),
        }
    }

    /// The tile of an access, and which of its elements is in the first lane.
    fn element(&mut self, access: &'n Access, lanes: Lanes) -> Result<(Tile, i64), BuildError> {
        let offset = self.offset(access)?;
        let (outer, inner, element) = self.resolve(&offset, Some(lanes))?;
        if !outer.is_empty() || !inner.is_empty() {
            return refuse("a tile has no fixed address");
        }
        match self.tiles.get(&access.buffer) {
            Some(tile) => Ok((*tile, element)),
            None => refuse("a register tile is declared outside of the scope"),
        }
    }

    /// The cell of a tile that a group of lanes is.
    fn cell(&mut self, access: &'n Access, lanes: Lanes) -> Result<Cell, BuildError> {
        let offset = self.offset(access)?;
        let (tile, element) = self.element(access, lanes)?;
        let column = tile.column(element)?;
        // Other lanes of the cell would change with these.
        let whole = lanes.mask.lanes == self.width.min(tile.row.saturating_sub(column));
        let first = column.checked_rem(self.width) == Some(0);
        if !matches!(lanes.steps(&offset), LaneStep::By(1)) || !first || !whole {
            return refuse("lanes of a tile are not in one register");
        }
        tile.cell(element, self.width)
    }

    fn constant(&mut self, number: Scalar) -> Result<Value, BuildError> {
        let (elem, bits) = match number {
            Scalar::F32(number) => (ElemType::F32, number.to_bits()),
        };
        if let Some(value) = self.line.constants.get(&bits) {
            return Ok(*value);
        }
        let value = self.define(Lane::Elem(elem), Op::Const(bits))?;
        self.line.constants.insert(bits, value);
        Ok(value)
    }

    fn expr(&mut self, expr: &'n Expr, lanes: Option<Lanes>) -> Result<Value, BuildError> {
        match expr {
            Expr::Const(number) => self.constant(*number),
            Expr::Local(id) => match self.locals.get(id) {
                Some(value) => Ok(*value),
                None => refuse("a name is bound outside of the scope"),
            },
            Expr::Load(access) => self.load(access, lanes, None),
            Expr::Pad(mode, access) => self.pad(*mode, access, lanes),
            Expr::Unary(op, x) => {
                let x = self.expr(x, lanes)?;
                self.define(self.lane(x), Op::Unary(*op, x))
            }
            Expr::Binary(op, a, b) => {
                let [a, b] = [self.expr(a, lanes)?, self.expr(b, lanes)?];
                self.define(self.lane(a), Op::Binary(*op, a, b))
            }
            Expr::Fma(a, b, c) => {
                let [a, b, c] = [self.expr(a, lanes)?, self.expr(b, lanes)?, self.expr(c, lanes)?];
                self.define(self.lane(c), Op::Fma(a, b, c))
            }
            Expr::Select { a, b, then, otherwise } => {
                let mut values = [0; 4];
                for (value, operand) in values.iter_mut().zip([a, b, then, otherwise]) {
                    *value = self.expr(operand, lanes)?;
                }
                self.define(self.lane(values[2]), Op::Select(values))
            }
        }
    }
}
