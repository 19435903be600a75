//! Random schedules: steps that name no axis but point at the loops the nest has at that moment.
//!
//! Half of them are drawn step by step, which finds odd combinations; half follow the order in
//! which a good schedule is written, which finds register tiles, panels and copies together. A step
//! whose directive is refused is skipped.

use convgen::transform;
use convgen_ir::Layout;
use convgen_ir::nest::{AxisKind, Loop, Mode, Nest, Stmt, visit_loops};
use convgen_ir::schedule::{Directive, Tail};
use proptest::prelude::*;
use proptest::sample::Index;

/// A directive before its axes are known.
#[derive(Clone, Debug)]
pub enum Step {
    /// One of the loops that can be split.
    Split(Index, u32, Tail),
    /// Some loops of a chain, by the order of the keys.
    Reorder(Index, Vec<(bool, u8)>),
    /// Two neighbours of a chain.
    Fuse(Index, Index),
    /// One of the innermost loops.
    Vectorize(Index),
    /// Any serial loop.
    Unroll(Index),
    /// The outermost serial loop.
    Parallel,
    /// One of the innermost reductions: a sum for each iteration.
    Rfactor(Index),
    /// One of the loops around spatial loops: a register tile whose lanes are those of the
    /// innermost and, beside them, so many iterations of a reduction.
    SumLanes(Index, u32),
    /// One of the loops around spatial loops: a register tile of them, its inner loop unrolled or
    /// a vector, its other loops unrolled.
    Tile(Index, bool),
    /// The tile alone, which is legal if its loops are in registers already.
    Accumulate(Index),
    /// One of the loops around a tile of sums, and perhaps one of the reductions.
    Spill(Index, Option<Index>),
    /// One of the serial loops, and how far it looks ahead.
    Prefetch(Index, u32),
    /// One of the reductions whose taps may fall on padding.
    SkipPadding(Index),
    /// One of the loops around accesses of the input.
    Peel(Index),
    /// The weights.
    PackWeights,
    /// Any loop.
    PackInput(Index, Option<Layout>),
}

/// A list of steps.
pub fn steps() -> impl Strategy<Value = Vec<Step>> {
    prop_oneof![prop::collection::vec(step(), 1..=10), ordered()]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => split(),
        3 => reorder(),
        1 => fuse(),
        2 => vectorize(),
        2 => unroll(),
        2 => Just(Step::Parallel),
        3 => tile(),
        4 => prop_oneof![accumulate(), spill(), prefetch(), rfactor(), sum_lanes()],
        1 => Just(Step::PackWeights),
        3 => prop_oneof![pack_input(), skip_padding(), peel()],
    ]
}

fn ordered() -> impl Strategy<Value = Vec<Step>> {
    let shape = (some(prop_oneof![4 => split(), 1 => fuse()], 4), some(reorder(), 2));
    let tasks = (some(Just(Step::Parallel), 3), some(prop_oneof![pack_input(), skip_padding()], 1));
    let tile = prop_oneof![3 => tile(), 1 => sum_lanes()].prop_map(|step| vec![step]);
    let tile = (tile, some(vectorize(), 1), some(unroll(), 2));
    let panels =
        (some(Just(Step::PackWeights), 1), some(prop_oneof![3 => pack_input(), 2 => peel()], 1));
    let memory = (some(spill(), 1), some(prefetch(), 1));
    (shape, tasks, tile, memory, panels).prop_map(|((a, b), (c, d), (e, f, g), (h, i), (j, k))| {
        [a, b, c, d, e, f, g, h, i, j, k].concat()
    })
}

fn some(step: impl Strategy<Value = Step>, most: usize) -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec(step, 0..=most)
}

fn split() -> impl Strategy<Value = Step> {
    let by =
        prop_oneof![3 => prop::sample::select(&[4, 8, 16, 32][..]), 2 => 2..=7u32, 1 => 1..=20u32];
    (any::<Index>(), by, prop::sample::select(&Tail::ALL[..]))
        .prop_map(|(axis, by, tail)| Step::Split(axis, by, tail))
}

fn reorder() -> impl Strategy<Value = Step> {
    let keys = prop::collection::vec((prop::bool::weighted(0.7), any::<u8>()), 8);
    (any::<Index>(), keys).prop_map(|(chain, keys)| Step::Reorder(chain, keys))
}

fn spill() -> impl Strategy<Value = Step> {
    any::<(Index, bool, Index)>()
        .prop_map(|(at, blocks, over)| Step::Spill(at, blocks.then_some(over)))
}

fn prefetch() -> impl Strategy<Value = Step> {
    (any::<Index>(), 0..=9u32).prop_map(|(axis, by)| Step::Prefetch(axis, by))
}

fn fuse() -> impl Strategy<Value = Step> {
    any::<(Index, Index)>().prop_map(|(chain, at)| Step::Fuse(chain, at))
}

fn vectorize() -> impl Strategy<Value = Step> {
    any::<Index>().prop_map(Step::Vectorize)
}

fn unroll() -> impl Strategy<Value = Step> {
    any::<Index>().prop_map(Step::Unroll)
}

fn tile() -> impl Strategy<Value = Step> {
    (any::<Index>(), prop::bool::weighted(0.8)).prop_map(|(at, vector)| Step::Tile(at, vector))
}

fn rfactor() -> impl Strategy<Value = Step> {
    any::<Index>().prop_map(Step::Rfactor)
}

fn sum_lanes() -> impl Strategy<Value = Step> {
    (any::<Index>(), prop::sample::select(&[2, 4, 8, 3][..]))
        .prop_map(|(at, by)| Step::SumLanes(at, by))
}

fn accumulate() -> impl Strategy<Value = Step> {
    any::<Index>().prop_map(Step::Accumulate)
}

fn skip_padding() -> impl Strategy<Value = Step> {
    any::<Index>().prop_map(Step::SkipPadding)
}

fn peel() -> impl Strategy<Value = Step> {
    any::<Index>().prop_map(Step::Peel)
}

fn pack_input() -> impl Strategy<Value = Step> {
    let layout = prop::option::of(prop::sample::select(Layout::ALL));
    (any::<Index>(), layout).prop_map(|(at, layout)| Step::PackInput(at, layout))
}

/// A directive that a nest accepted, and the nest after it.
pub struct Applied {
    /// The directive.
    pub directive: Directive,
    /// The nest.
    pub nest: Nest,
    /// Whether the order of some sum may have changed, here or before.
    pub reassociated: bool,
}

/// Applies the steps to a nest, one by one; those that are refused are left out.
pub fn apply(unscheduled: &Nest, steps: &[Step]) -> Vec<Applied> {
    let mut applied: Vec<Applied> = vec![];
    for step in steps {
        let latest = applied.last().map_or(unscheduled, |last| &last.nest);
        for directive in resolve(step, latest).unwrap_or_default() {
            let (nest, before) = match applied.last() {
                Some(last) => (&last.nest, last.reassociated),
                None => (unscheduled, false),
            };
            let Ok(rewritten) = transform::apply_one(nest, &directive) else { continue };
            let reassociated = before || moves_reductions(nest, &rewritten, &directive);
            applied.push(Applied { directive, nest: rewritten, reassociated });
        }
    }
    applied
}

/// Whether two reductions change places, perhaps because a loop between them moves, one becomes
/// several sums, or taps are left out.
fn moves_reductions(before: &Nest, after: &Nest, directive: &Directive) -> bool {
    match directive {
        Directive::SkipPadding { .. } | Directive::Rfactor { .. } => true,
        Directive::Reorder { .. } => reductions(before) != reductions(after),
        Directive::Split { .. }
        | Directive::Fuse { .. }
        | Directive::Vectorize { .. }
        | Directive::Unroll { .. }
        | Directive::Parallel { .. }
        | Directive::Prefetch { .. }
        | Directive::AccumulateOutput { .. }
        | Directive::SpillSums { .. }
        | Directive::Peel { .. }
        | Directive::PackWeights
        | Directive::PackInput { .. }
        | Directive::Size { .. } => false,
    }
}

/// The reductions of a nest, outermost first.
fn reductions(nest: &Nest) -> Vec<String> {
    let mut seen = std::collections::HashSet::new();
    let reductions = loops(nest).into_iter().filter(|l| l.reduction).map(|l| l.name);
    reductions.filter(|name| seen.insert(name.clone())).collect()
}

/// What a step needs to know of a loop.
struct Found {
    name: String,
    reduction: bool,
    serial: bool,
    innermost: bool,
    extent: Option<i64>,
    /// The spatial loops that make up its body, one in the other, and their extents.
    tile: Vec<(String, i64)>,
}

/// Elements of a register tile: what the smallest machine spills and the largest keeps.
const TILE: i64 = 256;

impl Found {
    fn is_small_tile(&self) -> bool {
        let elements: i64 = self.tile.iter().map(|(_, extent)| extent).product();
        !self.tile.is_empty() && elements <= TILE
    }
}

fn loops(nest: &Nest) -> Vec<Found> {
    let mut found = vec![];
    visit_loops(&nest.body, &mut |l| {
        let mut inner = 0;
        visit_loops(&l.body, &mut |_| inner += 1);
        found.push(Found {
            name: nest.axis(l.axis).name.clone(),
            reduction: nest.axis(l.axis).kind == AxisKind::Reduction,
            serial: l.mode == Mode::Serial,
            innermost: inner == 0,
            extent: l.trip_count(),
            tile: tile_loops(nest, l),
        });
    });
    found
}

fn tile_loops(nest: &Nest, mut l: &Loop) -> Vec<(String, i64)> {
    let mut tile = vec![];
    while let Some(inner) = only_loop(&l.body) {
        let axis = nest.axis(inner.axis);
        let (AxisKind::Spatial, Some(extent)) = (axis.kind, inner.trip_count()) else { break };
        tile.push((axis.name.clone(), extent));
        l = inner;
    }
    tile
}

fn only_loop(block: &[Stmt]) -> Option<&Loop> {
    match block {
        [Stmt::Loop(l)] => Some(l),
        _ => None,
    }
}

/// The longest runs of serial loops directly inside one another.
fn chains(nest: &Nest) -> Vec<Vec<String>> {
    fn visit(nest: &Nest, block: &[Stmt], chains: &mut Vec<Vec<String>>) {
        for stmt in block {
            match stmt {
                Stmt::Loop(first) => {
                    let (mut chain, mut last) = (vec![first], first);
                    while let Some(l) = only_loop(&last.body) {
                        chain.push(l);
                        last = l;
                    }
                    chain.retain(|l| l.mode == Mode::Serial);
                    chains.push(chain.iter().map(|l| nest.axis(l.axis).name.clone()).collect());
                    visit(nest, &last.body, chains);
                }
                Stmt::If(_, body) | Stmt::MicroKernel(body) => visit(nest, body, chains),
                Stmt::Declare(_) | Stmt::Let(..) | Stmt::Store(..) => {}
            }
        }
    }
    let mut all = vec![];
    visit(nest, &nest.body, &mut all);
    all.retain(|chain| chain.len() > 1);
    all
}

/// The directives a step stands for, if the nest has the loops it wants.
fn resolve(step: &Step, nest: &Nest) -> Option<Vec<Directive>> {
    let pick = |index: &Index, wanted: fn(&Found) -> bool| {
        let loops: Vec<String> = loops(nest).into_iter().filter(wanted).map(|l| l.name).collect();
        (!loops.is_empty()).then(|| index.get(&loops).clone())
    };
    let directive = match step {
        Step::Split(axis, by, tail) => {
            let axis = pick(axis, |l| l.serial && l.extent.is_some_and(|extent| extent > 1))?;
            let found = loops(nest).into_iter().find(|l| l.name == axis)?;
            let by = (*by).min(found.extent? as u32);
            Directive::Split { axis, by, tail: *tail }
        }
        Step::Reorder(chain, keys) => {
            let chains = chains(nest);
            let chain = (!chains.is_empty()).then(|| chain.get(&chains))?;
            let mut named: Vec<(u8, &String)> = keys
                .iter()
                .zip(chain)
                .filter_map(|((take, key), name)| take.then_some((*key, name)))
                .collect();
            named.sort();
            let _two = named.get(1)?;
            Directive::Reorder { axes: named.into_iter().map(|(_, name)| name.clone()).collect() }
        }
        Step::Fuse(chain, at) => {
            let chains = chains(nest);
            let chain = (!chains.is_empty()).then(|| chain.get(&chains))?;
            let pairs: Vec<&[String]> = chain.windows(2).collect();
            let pair = at.get(&pairs);
            Directive::Fuse { outer: pair[0].clone(), inner: pair[1].clone() }
        }
        Step::Vectorize(axis) => {
            let usable = |l: &Found| {
                l.innermost && l.serial && !l.reduction && l.extent.is_some_and(|extent| extent > 1)
            };
            Directive::Vectorize { axis: pick(axis, usable)? }
        }
        Step::Unroll(axis) => Directive::Unroll { axis: pick(axis, |l| l.serial)? },
        Step::Parallel => {
            let axis = loops(nest).into_iter().find(|l| l.serial)?.name;
            Directive::Parallel { axis }
        }
        Step::Tile(at, vector) => {
            let at = pick(at, Found::is_small_tile)?;
            let tile = loops(nest).into_iter().find(|l| l.name == at)?.tile;
            let (inner, lanes) = tile.last()?.clone();
            let outer = tile[..tile.len() - 1].iter().map(|(axis, _)| axis.clone());
            let mut directives = vec![
                Directive::AccumulateOutput { at },
                match *vector && lanes > 1 {
                    true => Directive::Vectorize { axis: inner },
                    false => Directive::Unroll { axis: inner },
                },
            ];
            directives.extend(outer.map(|axis| Directive::Unroll { axis }));
            return Some(directives);
        }
        Step::Rfactor(axis) => {
            let axis = pick(axis, |l| l.reduction && l.innermost && l.serial)?;
            Directive::Rfactor { axis }
        }
        Step::SumLanes(at, by) => {
            let at = pick(at, Found::is_small_tile)?;
            let found = loops(nest);
            let tile = found.iter().find(|l| l.name == at)?.tile.clone();
            let sum = found.iter().find(|l| l.reduction && l.innermost && l.serial)?;
            let whole = sum.extent == Some(i64::from(*by));
            let (split, sums) = match whole {
                true => (None, sum.name.clone()),
                false => {
                    let (axis, tail) = (sum.name.clone(), Tail::Guard);
                    let by = (*by).min(sum.extent? as u32);
                    (Some(Directive::Split { axis, by, tail }), format!("{}.i", sum.name))
                }
            };
            let (inner, _) = tile.last()?.clone();
            let outer = tile[..tile.len() - 1].iter().map(|(axis, _)| axis.clone());
            let mut directives: Vec<Directive> = split.into_iter().collect();
            directives.extend([
                Directive::Rfactor { axis: sums.clone() },
                Directive::AccumulateOutput { at },
                Directive::Vectorize { axis: sums },
                Directive::Vectorize { axis: inner },
            ]);
            directives.extend(outer.map(|axis| Directive::Unroll { axis }));
            return Some(directives);
        }
        Step::Accumulate(at) => {
            Directive::AccumulateOutput { at: pick(at, |l| !l.tile.is_empty())? }
        }
        Step::Spill(at, over) => {
            let at = pick(at, |_| true)?;
            let over = match over {
                Some(over) => Some(pick(over, |l| l.reduction)?),
                None => None,
            };
            Directive::SpillSums { at, over }
        }
        Step::Prefetch(axis, by) => {
            Directive::Prefetch { axis: pick(axis, |l| l.serial)?, by: *by }
        }
        Step::SkipPadding(at) => {
            let tap = |l: &Found| l.reduction && l.name.starts_with('k');
            Directive::SkipPadding { at: pick(at, tap)? }
        }
        Step::Peel(axis) => {
            let outer = |l: &Found| l.name.starts_with('o') && l.serial;
            Directive::Peel { axis: pick(axis, outer)? }
        }
        Step::PackWeights => Directive::PackWeights,
        Step::PackInput(at, layout) => {
            Directive::PackInput { at: pick(at, |_| true)?, layout: *layout }
        }
    };
    Some(vec![directive])
}
