//! Orders the multiply-adds of a straight line so that the uses of a load stand together.
//!
//! ```text
//! a0 += x0*w0; a1 += x1*w0; a2 += x2*w0; a0 += x1*w1; a1 += x2*w1
//! ->
//! a0 += x0*w0; a1 += x1*w0; a0 += x1*w1; a2 += x2*w0; a1 += x2*w1
//! ```
//! Each `x` is then loaded once and dies before the next one, while the `w` stay in registers. The
//! products of one cell keep their order, so no bit changes. Multiply-adds that share no operand, as
//! those of different vectors of channels, are taken one set after the other. A line in which such an
//! order would exchange two products of one cell stays as it is.

use std::collections::HashMap;

use super::translate::{Cell, Op, Place, Step, Value};

/// Reorders every run of loads and multiply-adds in a line.
pub(super) fn share_loads(line: Vec<Step>) -> Vec<Step> {
    let mut result = Vec::with_capacity(line.len());
    let mut run = Run::default();
    for step in line {
        match step {
            Step::Define(value, Op::Load(place, mask)) => {
                run.places.insert(value, place);
                run.loads.push(Step::Define(value, Op::Load(place, mask)));
            }
            Step::Define(value, Op::Broadcast(place)) => {
                run.places.insert(value, place);
                run.loads.push(Step::Define(value, Op::Broadcast(place)));
            }
            Step::Define(value, Op::Const(bits)) => {
                run.loads.push(Step::Define(value, Op::Const(bits)));
            }
            Step::Accumulate(cell, a, b) => run.products.push(Product { cell, a, b }),
            Step::Define(..) | Step::Write(..) | Step::Store(..) | Step::Scatter(..) => {
                std::mem::take(&mut run).finish(&mut result);
                result.push(step);
            }
        }
    }
    run.finish(&mut result);
    result
}

#[derive(Clone, Copy)]
struct Product {
    cell: Cell,
    a: Value,
    b: Value,
}

/// Loads, constants and multiply-adds without a store between them.
#[derive(Default)]
struct Run {
    loads: Vec<Step>,
    places: HashMap<Value, Place>,
    products: Vec<Product>,
}

impl Run {
    fn finish(self, result: &mut Vec<Step>) {
        let products = self.ordered().unwrap_or_else(|| self.products.clone());
        // A load is carried out at its first use, so it may be defined before.
        result.extend(self.loads);
        let steps = products.into_iter().map(|p| Step::Accumulate(p.cell, p.a, p.b));
        result.extend(steps);
    }

    /// The products by set, then by the place of the operand that fewer of them use; none if two
    /// products of one cell would change places.
    fn ordered(&self) -> Option<Vec<Product>> {
        let mut uses: HashMap<Value, usize> = HashMap::new();
        for p in &self.products {
            *uses.entry(p.a).or_default() += 1;
            *uses.entry(p.b).or_default() += 1;
        }
        let sets = self.sets();
        let moving = |p: &Product| if uses[&p.a] <= uses[&p.b] { p.a } else { p.b };
        // A product of a constant stays with the one before it of its cell.
        let mut latest: HashMap<Cell, (i64, i32)> = HashMap::new();
        let mut place = |p: &Product| {
            let found = self.places.get(&moving(p));
            let before = latest.get(&p.cell).copied().unwrap_or((-1, i32::MIN));
            let place = found.map_or(before, |place| (place.stream as i64, place.displacement));
            latest.insert(p.cell, place);
            place
        };
        let places: Vec<(i64, i32)> = self.products.iter().map(&mut place).collect();
        let mut order: Vec<usize> = (0..self.products.len()).collect();
        order.sort_by_key(|i| (sets[*i], places[*i]));
        let mut last: HashMap<Cell, usize> = HashMap::new();
        let kept = order
            .iter()
            .all(|i| last.insert(self.products[*i].cell, *i).is_none_or(|before| before < *i));
        kept.then(|| order.into_iter().map(|i| self.products[i]).collect())
    }

    /// The set of each product: those that are linked by common operands, numbered as they begin.
    fn sets(&self) -> Vec<usize> {
        let mut parent: Vec<usize> = (0..self.products.len()).collect();
        let mut first: HashMap<Value, usize> = HashMap::new();
        for (i, p) in self.products.iter().enumerate() {
            for value in [p.a, p.b].into_iter().filter(|value| self.places.contains_key(value)) {
                let other = *first.entry(value).or_insert(i);
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
