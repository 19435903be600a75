//! `pack input at l layout=x`
//!
//! ```text
//! for l { .. pad(input[o(l)+i(v)]) .. }
//! ->
//! for l { scratch rows[c]; for c { rows[c] = pad(input[o(l)+c]) } .. rows[i(v)] .. }
//! ```
//! `v` are the variables of loops inside `l`, and the box `c` holds every value of `i(v)`. Dimensions on
//! which nothing inside `l` depends are left out. Padding is met once in the copy, never in the loops
//! below. No bit changes. If `layout` puts the dimensions in another order, the copy is
//! ```text
//! for z { rows[z] = 0.0 }; for c where o(l)+c >= 0 and o(l)+c < E { rows[c] = input[o(l)+c] }
//! ```
//! where something is padded, zeros by vectors: loops over plain loads, whose lanes may then be those of another dimension
//! than that of the neighbours in memory. Where `o(l)` is a number the loop has fewer iterations instead.
//!
//! Precondition: all reads of the input inside `l` have one index, and the same box in every loop
//! over `l`; no variable that the index has inside `l` runs over the batch.

use convgen_ir::elem::Layout;
use convgen_ir::nest::{
    Access, Affine, AxisId, AxisKind, Buffer, BufferId, Dim, Expr, Guard, Loop, Mode, Nest, Role,
    Stmt, visit_exprs, visit_exprs_mut,
};

use super::{Refusal, axis_with_loop, loads_role, loops_around_load, replace_loops, span};

pub(super) fn apply(nest: &mut Nest, at: &str, layout: Option<Layout>) -> Result<(), Refusal> {
    let axis = axis_with_loop(nest, at)?;
    let unread = || Refusal::InputNotRead { axis: at.to_string() };
    let mixed = || Refusal::InputShapes { axis: at.to_string() };
    let mut copy: Option<Copy> = None;
    let mut body = std::mem::take(&mut nest.body);
    let result = replace_loops(&mut body, axis, &mut |mut l| {
        let window = Window::of(nest, at, &l.body)?;
        if copy.is_none() {
            copy = Some(Copy::new(nest, &window, layout).ok_or_else(unread)?);
        }
        let copy = copy.as_ref().filter(|c| c.extents == window.extents()).ok_or_else(mixed)?;
        copy.redirect(&window, &mut l.body);
        l.body.splice(0..0, copy.statements(nest, &window));
        Ok(Stmt::Loop(l))
    });
    nest.body = body;
    result
}

/// What a loop's body reads of the input.
struct Window {
    source: Access,
    padded: bool,
    /// A dimension: its index split into the part of outer loops and the constant, and the part of
    /// inner loops; and the smallest and largest value of the inner part.
    dims: Vec<(Affine, Affine, i64, i64)>,
}

impl Window {
    /// The window of the loop over the axis named `at`.
    fn of(nest: &Nest, at: &str, body: &[Stmt]) -> Result<Window, Refusal> {
        if !loads_role(body, Role::Input, nest) {
            return Err(Refusal::InputNotRead { axis: at.to_string() });
        }
        let mut sources: Vec<(Access, bool)> = Vec::new();
        visit_exprs(body, &mut |expr| match expr {
            Expr::Load(a) if nest.buffer(a.buffer).role == Role::Input => {
                sources.push((a.clone(), false));
            }
            Expr::Pad(a) if nest.buffer(a.buffer).role == Role::Input => {
                sources.push((a.clone(), true));
            }
            Expr::Load(_)
            | Expr::Pad(_)
            | Expr::Const(_)
            | Expr::Local(_)
            | Expr::Unary(..)
            | Expr::Binary(..)
            | Expr::Fma(..)
            | Expr::Select { .. } => {}
        });
        let (source, padded) = sources[0].clone();
        if sources.iter().any(|other| *other != (source.clone(), padded)) {
            return Err(Refusal::InputShapes { axis: at.to_string() });
        }
        let inner = loops_around_load(body, Role::Input, nest).unwrap_or_default();
        let moves = |l: &&&Loop| source.index.iter().any(|index| index.mentions(l.axis));
        if let Some(l) = inner.iter().filter(moves).find(|l| l.trip_count().is_none()) {
            return Err(Refusal::BatchLength { axis: nest.axis(l.axis).name.clone() });
        }
        // The box of a guarded tile reaches beyond what the guard lets the tile read.
        let padded = padded || inner.iter().any(|l| !l.guards.is_empty());
        let dims = source
            .index
            .iter()
            .map(|index| {
                let within = index.part(|a| inner.iter().any(|l| l.axis == a));
                let (lo, hi) = span(&within, &inner);
                (index - &within, within, lo, hi)
            })
            .collect();
        Ok(Window { source, padded, dims })
    }

    fn extents(&self) -> Vec<i64> {
        self.dims.iter().map(|(_, _, lo, hi)| hi - lo + 1).collect()
    }
}

/// The scratch buffer and the axes of the copy, shared by all loops over the axis.
struct Copy {
    extents: Vec<i64>,
    rows: BufferId,
    /// The dimensions of the input that the copy keeps, in the order of the copy.
    kept: Vec<(usize, AxisId)>,
    /// The axes of the loops that write zeros first, of the same dimensions, if the order is another.
    zeros: Option<Vec<AxisId>>,
}

impl Copy {
    /// None if the nest has such a copy already.
    fn new(nest: &mut Nest, window: &Window, layout: Option<Layout>) -> Option<Copy> {
        if nest.find_buffer("rows").is_some() {
            return None;
        }
        let extents = window.extents();
        let rank = extents.len();
        let order: Vec<usize> = match (layout, source_layout(nest, window)) {
            (Some(Layout::ChannelsLast), Layout::ChannelsFirst) => {
                [0].into_iter().chain(2..rank).chain([1]).collect()
            }
            (Some(Layout::ChannelsFirst), Layout::ChannelsLast) => {
                [0, rank - 1].into_iter().chain(1..rank - 1).collect()
            }
            (Some(_) | None, _) => (0..rank).collect(),
        };
        let reordered = layout.is_some();
        let names = dim_names(source_layout(nest, window), rank);
        let kept: Vec<(usize, AxisId)> = order
            .into_iter()
            .filter(|d| extents[*d] > 1 || window.dims[*d].1 != Affine::default())
            .map(|d| (d, nest.add_axis(format!("copy.{}", names[d]), AxisKind::Spatial)))
            .collect();
        let shape = kept.iter().map(|(d, _)| Dim::Fixed(extents[*d])).collect();
        let elem = nest.buffer(window.source.buffer).elem;
        let buffer = Buffer::new("rows", Role::Scratch, elem, shape);
        let rows = nest.add_buffer(buffer);
        let zeros = (reordered && window.padded).then(|| {
            let names = kept.iter().map(|(d, _)| format!("zero.{}", names[*d]));
            names.map(|name| nest.add_axis(name, AxisKind::Spatial)).collect()
        });
        Some(Copy { extents, rows, kept, zeros })
    }

    /// Makes the reads of the window reads of the copy.
    fn redirect(&self, window: &Window, body: &mut [Stmt]) {
        let index = self.kept.iter().map(|(d, _)| {
            let (_, within, lo, _) = &window.dims[*d];
            within.plus(-lo)
        });
        let copied = Access { buffer: self.rows, index: index.collect() };
        visit_exprs_mut(body, &mut |expr| {
            if let Expr::Load(access) | Expr::Pad(access) = expr
                && *access == window.source
            {
                *expr = Expr::Load(copied.clone());
            }
        });
    }

    /// The declaration and the loops that fill the copy.
    fn statements(&self, nest: &Nest, window: &Window) -> Vec<Stmt> {
        let inside = self
            .zeros
            .as_ref()
            .and_then(|zeros| Some([self.zeros(zeros), self.inside(nest, window)?].concat()));
        let mut filled = vec![Stmt::Declare(self.rows)];
        filled.extend(inside.unwrap_or_else(|| self.everything(window)));
        filled
    }

    /// The loops that copy all of the box.
    fn everything(&self, window: &Window) -> Vec<Stmt> {
        let source = Access { buffer: window.source.buffer, index: self.source(window) };
        let value = if window.padded { Expr::Pad(source) } else { Expr::Load(source) };
        let index = self.kept.iter().map(|(_, axis)| Affine::axis(*axis)).collect();
        let store = vec![Stmt::Store(Access { buffer: self.rows, index }, value)];
        self.kept.iter().rev().fold(store, |body, (d, axis)| {
            vec![Stmt::Loop(Loop::new(*axis, Dim::Fixed(self.extents[*d]), body))]
        })
    }

    fn zeros(&self, axes: &[AxisId]) -> Vec<Stmt> {
        let index = axes.iter().map(|axis| Affine::axis(*axis)).collect();
        let store = vec![Stmt::Store(Access { buffer: self.rows, index }, Expr::f32(0.0))];
        let extents = self.kept.iter().map(|(d, _)| self.extents[*d]);
        let mut loops = axes
            .iter()
            .zip(extents)
            .rev()
            .map(|(axis, extent)| Loop::new(*axis, Dim::Fixed(extent), vec![]));
        // What is neighbours in the copy is written by vectors.
        let lanes = loops.next().map(|l| match l.hi {
            Dim::Fixed(..2) | Dim::Batch => l,
            Dim::Fixed(_) => Loop { mode: Mode::Vector, ..l },
        });
        let block = lanes.into_iter().chain(loops);
        block.fold(store, |body, l| vec![Stmt::Loop(l.with_body(body))])
    }

    /// The loops that copy what is inside of the input; none if nothing is.
    fn inside(&self, nest: &Nest, window: &Window) -> Option<Vec<Stmt>> {
        let shape = &nest.buffer(window.source.buffer).shape;
        let mut source = self.source(window);
        let mut to: Vec<Affine> = self.kept.iter().map(|(_, axis)| Affine::axis(*axis)).collect();
        let mut loops = Vec::new();
        for (place, (d, axis)) in self.kept.iter().enumerate() {
            let mut l = Loop::new(*axis, Dim::Fixed(self.extents[*d]), vec![]);
            if let Dim::Fixed(extent) = shape[*d] {
                let first = source[*d].without(*axis);
                if first == Affine::constant(first.constant) {
                    let low = (-first.constant).clamp(0, self.extents[*d]);
                    let high = (extent - first.constant).clamp(low, self.extents[*d]);
                    l.hi = Dim::Fixed(high - low);
                    source[*d] = source[*d].plus(low);
                    to[place] = to[place].plus(low);
                } else {
                    l.guards = bounds(&source[*d], extent);
                }
            }
            loops.push(l);
        }
        if loops.iter().any(|l| l.hi == Dim::Fixed(0)) {
            return None;
        }
        let kept = |d: &usize| self.kept.iter().any(|(kept, _)| kept == d);
        let fixed = (0..shape.len()).filter(|d| !kept(d));
        let around: Vec<Guard> = fixed
            .filter_map(|d| shape[d].fixed().map(|extent| bounds(&source[d], extent)))
            .flatten()
            .filter(|guard| !guard.sum().terms().is_empty() || !holds(guard))
            .collect();
        let value = Expr::Load(Access { buffer: window.source.buffer, index: source });
        let store = vec![Stmt::Store(Access { buffer: self.rows, index: to }, value)];
        let copy =
            loops.into_iter().rev().fold(store, |body, l| vec![Stmt::Loop(l.with_body(body))]);
        Some(if around.is_empty() { copy } else { vec![Stmt::If(around, copy)] })
    }

    /// The index of the input at the axes of the copy.
    fn source(&self, window: &Window) -> Vec<Affine> {
        let index = (0..window.dims.len()).map(|d| {
            let (outer, _, lo, _) = &window.dims[d];
            let axis = self.kept.iter().find(|(kept, _)| *kept == d).map(|(_, axis)| *axis);
            &outer.plus(*lo) + &axis.map_or(Affine::default(), Affine::axis)
        });
        index.collect()
    }
}

fn bounds(index: &Affine, extent: i64) -> Vec<Guard> {
    vec![Guard::AtLeast(index.clone(), 0), Guard::Below(index.clone(), extent)]
}

/// Whether a guard on a number holds.
fn holds(guard: &Guard) -> bool {
    match guard {
        Guard::Below(sum, limit) => sum.constant < *limit,
        Guard::AtLeast(sum, limit) => sum.constant >= *limit,
    }
}

/// The layout the input was declared with: its channel dimension is the one that `ic` or `g` index.
fn source_layout(nest: &Nest, window: &Window) -> Layout {
    let reduction_alone = |index: &Affine| {
        index.terms().iter().any(|(axis, _)| {
            let name = nest.axis(*axis).name.as_str();
            name == "ic" || name == "g" || name.starts_with("ic.") || name.starts_with("g.")
        })
    };
    match window.source.index.get(1).is_some_and(reduction_alone) {
        true => Layout::ChannelsFirst,
        false => Layout::ChannelsLast,
    }
}

fn dim_names(layout: Layout, rank: usize) -> Vec<&'static str> {
    let spatial: &[&str] = match rank {
        0..=3 => &["w"],
        4 => &["h", "w"],
        _ => &["d", "h", "w"],
    };
    let mut names = vec!["n"];
    match layout {
        Layout::ChannelsFirst => {
            names.push("c");
            names.extend(spatial);
        }
        Layout::ChannelsLast => {
            names.extend(spatial);
            names.push("c");
        }
    }
    names
}
