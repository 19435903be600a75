//! Orders the multiply-adds of a straight line so that the uses of a load stand together.
//!
//! ```text
//! a0 += x0*w0; a1 += x1*w0; a2 += x2*w0; a0 += x1*w1; a1 += x2*w1
//! ->
//! a0 += x0*w0; a1 += x1*w0; a0 += x1*w1; a2 += x2*w0; a1 += x2*w1
//! ```
//! Each `x` is then loaded once and dies before the next one, while the `w` stay in registers.
//! Several permutations of one `x` follow each other, each at its first use, or each permutation of
//! all of them. The products of one cell keep their order, so no bit changes. Multiply-adds that
//! share no operand, as those of different vectors of channels, are taken one set after the other.
//! A line in which such an order would exchange two products of one cell stays as it is.

use rustc_hash::FxHashMap as HashMap;

use super::{Cell, Op, Place, Step, Stream, Value};

/// Reorders every run of loads and multiply-adds in a line.
pub(super) fn cluster_uses(line: Vec<Step>) -> Vec<Step> {
    let mut result = Vec::with_capacity(line.len());
    let mut run = Run::default();
    for step in line {
        match step {
            Step::Define(value, Op::Load(place, mask)) => {
                run.places.insert(value, Origin { load: value, place, phase: 0 });
                run.loads.push(Step::Define(value, Op::Load(place, mask)));
            }
            Step::Define(value, Op::Broadcast(place, elements)) => {
                run.places.insert(value, Origin { load: value, place, phase: 0 });
                run.loads.push(Step::Define(value, Op::Broadcast(place, elements)));
            }
            Step::Define(value, Op::Const(bits)) => {
                run.loads.push(Step::Define(value, Op::Const(bits)));
            }
            Step::Define(value, Op::Index(spread)) => {
                run.loads.push(Step::Define(value, Op::Index(spread)));
            }
            Step::Define(value, Op::Permute(from, index, spread))
                if run.places.contains_key(&from) =>
            {
                let place = run.places[&from];
                run.places.insert(value, Origin { phase: spread.phase, ..place });
                run.spreads.push((value, Op::Permute(from, index, spread)));
            }
            Step::Define(value, Op::Deinterleave([from, other], index, deinterleave))
                if run.places.contains_key(&from) || run.places.contains_key(&other) =>
            {
                let of_first = run.places.get(&from).copied();
                let place = of_first.unwrap_or_else(|| run.places[&other]);
                let [phase, _] = deinterleave.phases;
                run.places.insert(value, Origin { phase, ..place });
                run.spreads.push((value, Op::Deinterleave([from, other], index, deinterleave)));
            }
            Step::Accumulate(cell, a, b) => run.products.push(Product { cell, a, b }),
            Step::Define(..)
            | Step::Prefetch(..)
            | Step::Write(..)
            | Step::Store(..)
            | Step::Gather(..)
            | Step::Scatter(..) => {
                std::mem::take(&mut run).finish(&mut result);
                result.push(step);
            }
        }
    }
    run.finish(&mut result);
    result
}

/// Where a product's operand comes from: a stream, a displacement and the first of its lanes.
type LoadKey = (Option<Stream>, i64, u8);

#[derive(Clone, Copy)]
struct Product {
    cell: Cell,
    a: Value,
    b: Value,
}

/// Where an operand comes from: what was loaded, from where, and which of its lanes.
#[derive(Clone, Copy)]
struct Origin {
    load: Value,
    place: Place,
    phase: u8,
}

/// Loads, constants and multiply-adds without a store between them.
#[derive(Default)]
struct Run {
    loads: Vec<Step>,
    /// Permutations of loads, in the order of their definition.
    spreads: Vec<(Value, Op)>,
    places: HashMap<Value, Origin>,
    products: Vec<Product>,
}

impl Run {
    fn finish(self, result: &mut Vec<Step>) {
        let products = self.ordered().unwrap_or_else(|| self.products.clone());
        // A load is carried out at its first use, so it may be defined before.
        result.extend(self.loads);
        // A permutation is carried out where it is defined: before its first use.
        let mut spreads: HashMap<Value, Op> = self.spreads.iter().cloned().collect();
        for p in products {
            let used = [p.a, p.b].into_iter();
            result.extend(used.filter_map(|value| {
                spreads.remove(&value).map(|spread| Step::Define(value, spread))
            }));
            result.push(Step::Accumulate(p.cell, p.a, p.b));
        }
        let later = self.spreads.into_iter().filter(|(value, _)| spreads.contains_key(value));
        result.extend(later.map(|(value, spread)| Step::Define(value, spread)));
    }

    /// The products by set, then by the place of the operand that fewer of them use and by its
    /// permutation, or the other way round; none if either way two products of one cell would
    /// change places.
    fn ordered(&self) -> Option<Vec<Product>> {
        let mut uses: HashMap<Value, usize> = HashMap::default();
        for value in self.products.iter().flat_map(|p| [p.a, p.b]) {
            let count = uses.entry(value).or_default();
            *count = count.saturating_add(1);
        }
        let sets = self.sets();
        let moving = |p: &Product| if uses[&p.a] <= uses[&p.b] { p.a } else { p.b };
        // A product of a constant stays with the one before it of its cell.
        let mut latest: HashMap<Cell, LoadKey> = HashMap::default();
        let mut place = |p: &Product| {
            let found = self.places.get(&moving(p));
            let before = latest.get(&p.cell).copied().unwrap_or((None, i64::MIN, 0));
            let place = found.map_or(before, |Origin { place, phase, .. }| {
                (Some(place.stream), place.displacement, *phase)
            });
            latest.insert(p.cell, place);
            place
        };
        let places: Vec<LoadKey> = self.products.iter().map(&mut place).collect();
        self.sorted(|i| (sets[i], places[i]))
            .or_else(|| self.sorted(|i| (sets[i], places[i].2, places[i])))
            .or_else(|| self.sorted(|i| places[i]).filter(|_| self.has_deinterleaves()))
    }

    /// Whether a permutation that is kept for later costs more than the loads of other operands.
    /// Taps of one parity share no window with the others, so they are sets, which each sum meets
    /// in turn.
    fn has_deinterleaves(&self) -> bool {
        self.spreads.iter().any(|(_, op)| matches!(op, Op::Deinterleave(..)))
    }

    /// The products by a key, if those of each cell stay in order.
    fn sorted<K: Ord>(&self, key: impl Fn(usize) -> K) -> Option<Vec<Product>> {
        let mut order: Vec<usize> = (0..self.products.len()).collect();
        order.sort_by_key(|i| key(*i));
        let mut last: HashMap<Cell, usize> = HashMap::default();
        let kept = order
            .iter()
            .all(|i| last.insert(self.products[*i].cell, *i).is_none_or(|before| before < *i));
        kept.then(|| order.into_iter().map(|i| self.products[i]).collect())
    }

    /// The set of each product: those that are linked by common operands, numbered as they begin.
    fn sets(&self) -> Vec<usize> {
        let mut parent: Vec<usize> = (0..self.products.len()).collect();
        let mut first: HashMap<Value, usize> = HashMap::default();
        for (i, p) in self.products.iter().enumerate() {
            for origin in [p.a, p.b].into_iter().filter_map(|value| self.places.get(&value)) {
                let other = *first.entry(origin.load).or_insert(i);
                let (a, b) = (root(&mut parent, i), root(&mut parent, other));
                parent[a.max(b)] = a.min(b);
            }
        }
        (0..self.products.len()).map(|i| root(&mut parent, i)).collect()
    }
}

/// The representative of a set: its first product.
fn root(parent: &mut [usize], mut i: usize) -> usize {
    while parent[i] != i {
        parent[i] = parent[parent[i]];
        i = parent[i];
    }
    i
}
