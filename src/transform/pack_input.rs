//! `pack input at l layout=x`
//!
//! ```text
//! for l { .. pad(input[o(l)+i(v)]) .. }
//! ->
//! for l { scratch rows[c]; for c { rows[c] = 0.0 }
//!         for c where 0 <= o(l)+c and o(l)+c < extent { rows[c] = input[o(l)+c] } .. rows[i(v)] .. }
//! ```
//! `v` are the variables of loops inside `l`, and the box `c` holds every value of `i(v)`, up to
//! where a loop's guard ends it. Dimensions on which nothing inside `l` depends are left out;
//! `layout` puts the others in another order: channels last, or the columns of each channel of a
//! row one after the other, from the beginning of a cache line on. Padding is met once in the copy,
//! which leaves zeros where it is, never in the loops below; where nothing is padding, no zeros are
//! written. Conditions that are numbers shorten the loops. Padding that is made of the input is
//! loaded as such by the copy, without zeros and conditions. No bit changes.
//!
//! Precondition: all reads of the input inside `l` have one index, and the same box in every loop
//! over `l`; no variable that the index has inside `l` runs over the batch.

use std::cmp::Ordering;

use convgen_ir::PaddingMode;
use convgen_ir::elem::{ElemType, Layout};
use convgen_ir::nest::{
    Access, Affine, AxisId, AxisKind, Buffer, BufferId, Dim, Expr, Guard, Loop, Nest, Role, Stmt,
    visit_exprs, visit_exprs_mut,
};

use super::{Refusal, axis_with_loop, loads_role, loops_around_load, replace_loops, span};
use crate::target::{CACHE_LINE, L1_WAY_BYTES};

pub(super) fn apply(nest: &mut Nest, at: &str, layout: Option<Layout>) -> Result<(), Refusal> {
    let axis = axis_with_loop(nest, at)?;
    let unread = || Refusal::InputNotRead { axis: at.to_string() };
    let mixed = || Refusal::InputShapes { axis: at.to_string() };
    let mut copy: Option<Copy> = None;
    let mut body = std::mem::take(&mut nest.body);
    let result = replace_loops(&mut body, axis, &mut |mut l| {
        let window = CopyWindow::of(nest, at, &l.body)?.aligned(nest, layout);
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

/// Elements before the columns of a row, and all of them, that make column zero of the input begin
/// a cache line if `first` is the first one of the row: none if that made short rows half as long
/// again.
pub(crate) fn aligned_columns(first: i64, columns: i64, elem: ElemType) -> (i64, i64) {
    let elements = |bytes: usize| (bytes / elem.bytes()) as i64;
    let line = elements(CACHE_LINE);
    let lead = first.rem_euclid(line);
    let length = (lead + columns + line - 1) / line * line;
    // Rows a multiple of half a way apart would lie in two sets of a cache.
    let length = length + if length % elements(L1_WAY_BYTES / 2) == 0 { line } else { 0 };
    if 2 * length > 3 * columns { (0, columns) } else { (lead, length) }
}

/// What a loop's body reads of the input.
struct CopyWindow {
    source: Access,
    /// What the copy finds outside; none if it never looks there.
    padding: Option<PaddingMode>,
    /// A dimension: its index split into the part of outer loops and the constant, and the part of
    /// inner loops; and the smallest and largest value of the inner part.
    dims: Vec<(Affine, Affine, i64, i64)>,
}

impl CopyWindow {
    /// The window of the loop over the axis named `at`.
    fn of(nest: &Nest, at: &str, body: &[Stmt]) -> Result<CopyWindow, Refusal> {
        if !loads_role(body, Role::Input, nest) {
            return Err(Refusal::InputNotRead { axis: at.to_string() });
        }
        let mut sources: Vec<(Access, Option<PaddingMode>)> = Vec::new();
        visit_exprs(body, &mut |expr| match expr {
            Expr::Load(a) if nest.buffer(a.buffer).role == Role::Input => {
                sources.push((a.clone(), None));
            }
            Expr::Pad(mode, a) if nest.buffer(a.buffer).role == Role::Input => {
                sources.push((a.clone(), Some(*mode)));
            }
            Expr::Load(_)
            | Expr::Pad(..)
            | Expr::Const(_)
            | Expr::Local(_)
            | Expr::Unary(..)
            | Expr::Binary(..)
            | Expr::Fma(..)
            | Expr::Select { .. } => {}
        });
        let (source, padding) = sources[0].clone();
        if sources.iter().any(|other| *other != (source.clone(), padding)) {
            return Err(Refusal::InputShapes { axis: at.to_string() });
        }
        let inner = loops_around_load(body, Role::Input, nest).unwrap_or_default();
        let moves = |l: &&&Loop| source.index.iter().any(|index| index.mentions(l.axis));
        if let Some(l) = inner.iter().filter(moves).find(|l| l.trip_count().is_none()) {
            return Err(Refusal::BatchLength { axis: nest.axis(l.axis).name.clone() });
        }
        let mut guards: Vec<&Guard> = inner.iter().flat_map(|l| &l.guards).collect();
        let dims = source
            .index
            .iter()
            .map(|index| {
                let within = index.part(|a| inner.iter().any(|l| l.axis == a));
                let (lo, mut hi) = span(&within, &inner);
                guards.retain(|guard| match guard {
                    Guard::Below(sum, end) if *sum == within => {
                        hi = hi.min(end - 1).max(lo);
                        false
                    }
                    Guard::Below(..) | Guard::AtLeast(..) => true,
                });
                (index - &within, within, lo, hi)
            })
            .collect();
        // The box reaches beyond what other guards let a tile read.
        let beyond = (!guards.is_empty()).then_some(PaddingMode::Zeros);
        Ok(CopyWindow { source, padding: padding.or(beyond), dims })
    }

    /// With padding around the columns that makes whole cache lines of those of a row, if they
    /// become neighbours in the copy: stores of vectors then touch one line each.
    fn aligned(mut self, nest: &Nest, layout: Option<Layout>) -> CopyWindow {
        let columns = self.dims.len() - 2;
        let becomes = layout == Some(Layout::ChannelsFirst)
            && source_layout(nest, &self) == Layout::ChannelsLast;
        let (outer, _, lo, hi) = &self.dims[columns];
        if let (true, true, Some(first)) =
            (becomes, self.has_zeros(), outer.plus(*lo).as_constant())
            && hi > lo
        {
            let elem = nest.buffer(self.source.buffer).elem;
            let (lead, length) = aligned_columns(first, hi - lo + 1, elem);
            let first = lo - lead;
            (self.dims[columns].2, self.dims[columns].3) = (first, first + length - 1);
        }
        self
    }

    /// Whether some of it is padding, and that is zeros.
    fn has_zeros(&self) -> bool {
        self.padding == Some(PaddingMode::Zeros)
    }

    /// The conditions under which a dimension of an access is no padding.
    fn inside(nest: &Nest, access: &Access, dim: usize) -> Vec<Guard> {
        let index = &access.index[dim];
        let extent = nest.buffer(access.buffer).shape[dim].fixed();
        let below = extent.map(|extent| Guard::Below(index.clone(), extent));
        [Guard::AtLeast(index.clone(), 0)].into_iter().chain(below).collect()
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
    /// An axis for each of them, of the loops that write zeros.
    zeros: Vec<AxisId>,
}

impl Copy {
    /// None if the nest has such a copy already.
    fn new(nest: &mut Nest, window: &CopyWindow, layout: Option<Layout>) -> Option<Copy> {
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
                (0..rank - 2).chain([rank - 1, rank - 2]).collect()
            }
            (Some(_) | None, _) => (0..rank).collect(),
        };
        let names = dim_names(source_layout(nest, window), rank);
        let kept: Vec<(usize, AxisId)> = order
            .into_iter()
            .filter(|d| extents[*d] > 1 || window.dims[*d].1 != Affine::default())
            .map(|d| (d, nest.add_axis(format!("copy.{}", names[d]), AxisKind::Spatial)))
            .collect();
        let zeros = kept.iter().filter(|_| window.has_zeros());
        let zeros = zeros
            .map(|(d, _)| nest.add_axis(format!("zero.{}", names[*d]), AxisKind::Spatial))
            .collect();
        let shape = kept.iter().map(|(d, _)| Dim::Fixed(extents[*d])).collect();
        let elem = nest.buffer(window.source.buffer).elem;
        let rows = nest.add_buffer(Buffer::new("rows", Role::Scratch, elem, shape));
        Some(Copy { extents, rows, kept, zeros })
    }

    /// Makes the reads of the window reads of the copy.
    fn redirect(&self, window: &CopyWindow, body: &mut [Stmt]) {
        let index = self.kept.iter().map(|(d, _)| {
            let (_, within, lo, _) = &window.dims[*d];
            within.plus(-lo)
        });
        let copied = Access { buffer: self.rows, index: index.collect() };
        visit_exprs_mut(body, &mut |expr| {
            if let Expr::Load(access) | Expr::Pad(_, access) = expr
                && *access == window.source
            {
                *expr = Expr::Load(copied.clone());
            }
        });
    }

    /// The declaration and the loops that fill the copy.
    fn statements(&self, nest: &Nest, window: &CopyWindow) -> Vec<Stmt> {
        let ranges: Vec<CopyRange> = (0..window.dims.len())
            .map(|d| CopyRange::new(nest, window, d, self.extents[d]))
            .collect();
        let axis_of = |d| self.kept.iter().find(|(kept, _)| *kept == d).map(|(_, axis)| *axis);
        let place =
            |d: usize| &ranges[d].from + &axis_of(d).map_or(Affine::default(), Affine::axis);
        let source = Access {
            buffer: window.source.buffer,
            index: (0..window.dims.len()).map(place).collect(),
        };
        let guards = |d: usize| match ranges[d].guarded {
            true => CopyWindow::inside(nest, &source, d),
            false => vec![],
        };
        let index = self.kept.iter().map(|(d, axis)| Affine::axis(*axis).plus(ranges[*d].skipped));
        let to = Access { buffer: self.rows, index: index.collect() };
        let value = match window.padding {
            Some(mode) if !window.has_zeros() => Expr::Pad(mode, source.clone()),
            Some(_) | None => Expr::Load(source.clone()),
        };
        let store = Stmt::Store(to, value);
        let mut copied = self.kept.iter().rev().fold(vec![store], |body, (d, axis)| {
            let l = Loop::new(*axis, Dim::Fixed(ranges[*d].length), body);
            vec![Stmt::Loop(Loop { guards: guards(*d), ..l })]
        });
        let single = (0..ranges.len()).filter(|d| axis_of(*d).is_none());
        let conditions: Vec<Guard> = single.flat_map(guards).collect();
        if !conditions.is_empty() {
            copied = vec![Stmt::If(conditions, copied)];
        }
        let zeros = if window.has_zeros() { self.zeros(&ranges) } else { vec![] };
        [Stmt::Declare(self.rows)].into_iter().chain(zeros).chain(copied).collect()
    }

    /// Zeros where nothing is copied: of each dimension what lies before and behind, all of it
    /// where the ends move; of the dimensions around it only what is copied, of those inside all.
    fn zeros(&self, ranges: &[CopyRange]) -> Vec<Stmt> {
        let kept = |d: usize| self.kept.iter().any(|(other, _)| *other == d);
        if (0..ranges.len()).any(|d| !kept(d) && ranges[d].guarded) {
            // Perhaps nothing is copied.
            let all = self.kept.first().map_or((0, 1), |(d, _)| (0, self.extents[*d]));
            return vec![self.slab(ranges, 0, all)];
        }
        let mut slabs = Vec::new();
        for (at, (d, _)) in self.kept.iter().enumerate().rev() {
            let CopyRange { skipped, length, guarded, .. } = ranges[*d];
            let extent = self.extents[*d];
            let end = skipped + length;
            let parts = match guarded {
                true => {
                    slabs.clear();
                    vec![(0, extent)]
                }
                false => vec![(0, skipped), (end, extent - end)],
            };
            let parts = parts.into_iter().filter(|(_, length)| *length > 0);
            slabs.extend(parts.map(|part| self.slab(ranges, at, part)));
        }
        slabs
    }

    /// Zeros of a part of one of the kept dimensions.
    fn slab(&self, ranges: &[CopyRange], at: usize, part: (i64, i64)) -> Stmt {
        let along = |(i, (d, _)): (usize, &(usize, AxisId))| match i.cmp(&at) {
            Ordering::Less => (ranges[*d].skipped, ranges[*d].length),
            Ordering::Equal => part,
            Ordering::Greater => (0, self.extents[*d]),
        };
        let parts: Vec<(i64, i64)> = self.kept.iter().enumerate().map(along).collect();
        let index = parts
            .iter()
            .zip(&self.zeros)
            .map(|((start, _), axis)| Affine::axis(*axis).plus(*start));
        let store = Access { buffer: self.rows, index: index.collect() };
        let zero = Stmt::Store(store, Expr::f32(0.0));
        parts.iter().zip(&self.zeros).rev().fold(zero, |body, ((_, length), axis)| {
            Stmt::Loop(Loop::new(*axis, Dim::Fixed(*length), vec![body]))
        })
    }
}

/// What is copied along one dimension.
struct CopyRange {
    /// The first index of the input.
    from: Affine,
    /// Where it comes to lie, and how many indices are copied from there on.
    skipped: i64,
    length: i64,
    /// Whether some of them may be padding.
    guarded: bool,
}

impl CopyRange {
    fn new(nest: &Nest, window: &CopyWindow, dim: usize, extent: i64) -> CopyRange {
        let (outer, _, lo, _) = &window.dims[dim];
        let from = outer.plus(*lo);
        let whole = CopyRange { from: from.clone(), skipped: 0, length: extent, guarded: false };
        let Dim::Fixed(there_are) = nest.buffer(window.source.buffer).shape[dim] else {
            return whole;
        };
        if !window.has_zeros() {
            return whole;
        }
        let Some(first) = from.as_constant() else { return CopyRange { guarded: true, ..whole } };
        let skipped = (-first).clamp(0, extent);
        let length = (there_are - first).clamp(skipped, extent) - skipped;
        match length {
            // No loop is empty: one that never runs stands for it.
            0 => CopyRange { guarded: true, ..whole },
            _ => CopyRange { from: from.plus(skipped), skipped, length, guarded: false },
        }
    }
}

/// The layout the input was declared with: its channel dimension is the one that `ic` or `g` index.
fn source_layout(nest: &Nest, window: &CopyWindow) -> Layout {
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
