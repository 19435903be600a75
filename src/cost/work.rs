//! What the core itself does: vector operations, loads, waiting, and the loops around them.
//!
//! Straight code is what one iteration of the innermost loops carries out once unrolled loops are
//! expanded and vector loops are vectors. Equal loads of one iteration are one load, as in the
//! code. What becomes a micro-kernel is marked in the nest.

use std::collections::HashSet;

use convgen_ir::bounds::Context;
use convgen_ir::elem::ElemType;
use convgen_ir::nest::{Access, AxisId, BufferId, Expr, Loop, Mode, Nest, Role, Stmt, visit_exprs};

use super::trips::Ranges;
use super::{Rates, Term};
use crate::calibration::cycles::{
    DECODED, DEINTERLEAVING, INSERT, ISSUE_WIDTH, KERNEL_CALL, KERNEL_ITERATION, KERNEL_JUMP,
    KERNEL_LOOP_ENTRY, LOOP_ENTRY, LOOP_ITERATION, MISPREDICTION, NARROW_SUMS, PADDING_TEST,
    PREDICTED_TRIPS, SHUFFLES, STORED,
};
use crate::target::{CACHE_LINE, DEINTERLEAVED, Isa, L1_WAY_BYTES, Target};

/// A way of the first-level cache: addresses that differ by a multiple of it share a set.
const WAY: i64 = L1_WAY_BYTES as i64;

/// Bytes of a cache line.
const LINE: i64 = CACHE_LINE as i64;

/// Seconds of a call, by what they are spent on.
#[derive(Clone, Debug, Default)]
pub(super) struct Work {
    arithmetic: f64,
    loads: f64,
    latency: f64,
    loops: f64,
    copies: f64,
    /// Bytes of lines that fall out of a full set of the first-level cache before they are used up.
    pub(super) refetched: f64,
    /// What the terms say they counted.
    operations: f64,
    loaded: f64,
    calls: f64,
    scalar: bool,
}

impl Work {
    pub(super) fn of(nest: &Nest, target: &Target, rates: &Rates, batch: i64) -> Work {
        let ways = (target.caches().l1d as i64 / WAY).max(2);
        let mut walk = WorkCount {
            nest,
            target,
            rates,
            batch,
            ways,
            ranges: Ranges::default(),
            known: Context::default(),
            inside: vec![],
            work: Work::default(),
        };
        walk.run(&nest.body, 1.0, Code::Loops);
        walk.work
    }

    pub(super) fn terms(&self) -> Vec<Term> {
        let narrow = if self.scalar { ", some left to Cranelift" } else { "" };
        let term = |name, seconds, what| Term { name, seconds, what };
        vec![
            term(
                "arithmetic",
                self.arithmetic,
                format!("{:.3e} operations{narrow}", self.operations),
            ),
            term("loads", self.loads, format!("{:.3e} loads and stores", self.loaded)),
            term("latency", self.latency, "sums that wait for themselves".to_string()),
            term("loops", self.loops, format!("{:.3e} micro-kernels", self.calls)),
            term("copies", self.copies, "filling scratch, outside of register tiles".to_string()),
        ]
    }
}

/// Whose code a block is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Code {
    /// Around micro-kernels: Cranelift's.
    Loops,
    /// A micro-kernel: loops of wide vectors.
    Wide,
    /// The scope of a register tile that is left to Cranelift.
    Narrow,
}

/// The lanes and copies of the statement at hand.
#[derive(Clone)]
struct Written {
    unrolled: Vec<(AxisId, i64)>,
    lanes: Option<(AxisId, i64)>,
    /// The vector loop around that of the lanes, if there is one; the lanes are those of both.
    around: Option<AxisId>,
    /// The part of the copies that conditions leave.
    part: f64,
}

impl Default for Written {
    /// None of either.
    fn default() -> Written {
        Written { unrolled: vec![], lanes: None, around: None, part: 1.0 }
    }
}

impl Written {
    /// How often the statement is unrolled.
    fn copies(&self) -> f64 {
        self.part * self.unrolled.iter().map(|(_, trips)| trips).product::<i64>() as f64
    }
}

/// One run of straight code.
#[derive(Default)]
struct Straight {
    operations: f64,
    /// Micro-operations besides arithmetic and memory.
    others: f64,
    loads: f64,
    stores: f64,
    /// Multiply-adds into sums, and the sums.
    adds: f64,
    sums: f64,
    /// Whether it fills scratch.
    copies: bool,
    /// Distinct addresses: buffer, elements.
    seen: HashSet<(BufferId, i64)>,
    /// Further addresses of loads whose lanes lie apart.
    far: Vec<(BufferId, i64)>,
}

struct WorkCount<'n> {
    nest: &'n Nest,
    target: &'n Target,
    rates: &'n Rates,
    batch: i64,
    ways: i64,
    ranges: Ranges,
    known: Context,
    /// The loops around that are not unrolled, outermost first.
    inside: Vec<AxisId>,
    work: Work,
}

impl WorkCount<'_> {
    /// A block that runs `runs` times.
    fn run(&mut self, block: &[Stmt], runs: f64, code: Code) {
        let mut straight = Straight::default();
        let mut tiles = 0.0;
        self.stmts(block, runs, code, &Written::default(), &mut straight, &mut tiles);
    }

    fn stmts(
        &mut self,
        block: &[Stmt],
        runs: f64,
        mut code: Code,
        written: &Written,
        straight: &mut Straight,
        tiles: &mut f64,
    ) {
        for stmt in block {
            match stmt {
                Stmt::MicroKernel(body) => {
                    let runs = runs * written.copies();
                    self.call(runs);
                    self.run_all(body, runs, Code::Wide, *tiles);
                }
                Stmt::Loop(l) => self.loop_(l, runs, code, written, straight, tiles),
                Stmt::If(guards, body) => {
                    let part = self.ranges.fraction(guards);
                    let mut inner = self.known.clone();
                    inner.assume(guards);
                    let outer = std::mem::replace(&mut self.known, inner);
                    // A condition on lanes is a mask, one on what is unrolled leaves some out.
                    let in_vector = written.lanes.is_some();
                    if in_vector || !written.unrolled.is_empty() {
                        let part = if in_vector { written.part } else { written.part * part };
                        let inner = Written { part, ..written.clone() };
                        self.stmts(body, runs, code, &inner, straight, tiles);
                    } else {
                        self.run_all(body, runs * part, code, *tiles);
                    }
                    self.known = outer;
                }
                Stmt::Declare(id) if self.nest.buffer(*id).role == Role::Reg => {
                    *tiles += self.nest.buffer(*id).len(self.batch).unwrap_or(0) as f64;
                    if code == Code::Loops {
                        code = Code::Narrow;
                    }
                }
                Stmt::Declare(_) => {}
                Stmt::Let(..) | Stmt::Store(..) => self.add(stmt, code, written, straight),
            }
        }
        if written.unrolled.is_empty() && written.lanes.is_none() {
            self.finish(straight, runs, code, *tiles);
        }
    }

    fn call(&mut self, runs: f64) {
        self.work.calls += runs;
        self.work.loops += runs * KERNEL_CALL * self.rates.cycle;
    }

    fn loop_(
        &mut self,
        l: &Loop,
        runs: f64,
        code: Code,
        written: &Written,
        straight: &mut Straight,
        tiles: &mut f64,
    ) {
        match l.mode {
            Mode::Unroll | Mode::Vector => {
                let mut inner = written.clone();
                let trips = l.trip_count().unwrap_or(1);
                match l.mode {
                    Mode::Vector => {
                        inner.around = written.lanes.map(|(axis, _)| axis);
                        let lanes = written.lanes.map_or(trips, |(_, outer)| outer * trips);
                        inner.lanes = Some((l.axis, lanes));
                    }
                    Mode::Serial | Mode::Parallel | Mode::Unroll => {
                        inner.unrolled.push((l.axis, trips));
                    }
                }
                self.enter(l, |walk| {
                    walk.stmts(&l.body, runs, code, &inner, straight, tiles);
                });
            }
            Mode::Serial | Mode::Parallel => self.looped(l, runs, code, written, *tiles),
        }
    }

    /// A block of its own inside the scope of the same tiles.
    fn run_all(&mut self, block: &[Stmt], runs: f64, code: Code, mut tiles: f64) {
        let mut straight = Straight::default();
        self.stmts(block, runs, code, &Written::default(), &mut straight, &mut tiles);
    }

    fn looped(&mut self, l: &Loop, runs: f64, code: Code, written: &Written, tiles: f64) {
        let runs = runs * written.copies();
        let extent = (l.hi.at(self.batch) - l.lo).max(0) as f64;
        self.inside.push(l.axis);
        self.enter(l, |walk| {
            let trips = extent * walk.ranges.fraction(&l.guards);
            // A loop of one iteration is none.
            let counted = extent > 1.0;
            if counted {
                let end = if trips > PREDICTED_TRIPS { MISPREDICTION } else { 0.0 };
                let cycles = match code {
                    Code::Wide => KERNEL_JUMP * trips + KERNEL_LOOP_ENTRY + end,
                    Code::Loops | Code::Narrow => LOOP_ITERATION * trips + LOOP_ENTRY + end,
                };
                walk.work.loops += runs * cycles * walk.rates.cycle;
            }
            let others = if counted && code == Code::Wide { KERNEL_ITERATION } else { 0.0 };
            let mut straight = Straight { others, ..Straight::default() };
            let mut tiles = tiles;
            let written = Written::default();
            walk.stmts(&l.body, runs * trips, code, &written, &mut straight, &mut tiles);
        });
        self.inside.pop();
    }

    fn enter(&mut self, l: &Loop, f: impl FnOnce(&mut Self)) {
        self.ranges.enter(l.axis, l.lo, l.hi.at(self.batch));
        let mut inner = self.known.clone();
        inner.enter(l);
        let outer = std::mem::replace(&mut self.known, inner);
        f(self);
        self.known = outer;
        self.ranges.leave();
    }

    /// Dimensions in which a padded load may lie outside.
    fn unproven(&self, access: &Access, known: &Context) -> usize {
        let shape = &self.nest.buffer(access.buffer).shape;
        let inside = access.index.iter().zip(shape).filter(|(i, dim)| known.inside(i, **dim));
        access.index.len() - inside.count()
    }

    /// Elements by which an access moves with a variable.
    fn coefficient(&self, access: &Access, axis: AxisId) -> i64 {
        let strides = self.nest.buffer(access.buffer).strides();
        access.index.iter().zip(strides).map(|(index, s)| index.coefficient(axis) * s).sum()
    }

    fn width(&self, code: Code) -> i64 {
        match code {
            Code::Wide => i64::from(self.target.lanes()),
            Code::Loops | Code::Narrow => i64::from(Isa::Clif.lanes(ElemType::F32)),
        }
    }

    /// Adds a statement, with all its copies and lanes.
    fn add(&mut self, stmt: &Stmt, code: Code, written: &Written, straight: &mut Straight) {
        let copies = written.copies();
        let vectors = match written.lanes {
            Some((_, lanes)) => (lanes as u64).div_ceil(self.width(code) as u64) as f64,
            None => 1.0,
        };
        let each = copies * vectors;
        let mut fused = 0.0;
        visit_exprs(std::slice::from_ref(stmt), &mut |expr| match expr {
            Expr::Fma(..) => {
                straight.operations += each;
                fused += each;
            }
            Expr::Unary(..) | Expr::Binary(..) | Expr::Select { .. } => straight.operations += each,
            Expr::Load(access) => self.load(access, code, written, straight),
            Expr::Pad(_, access) => {
                self.load(access, code, written, straight);
                straight.others += each * PADDING_TEST * self.unproven(access, &self.known) as f64;
            }
            Expr::Const(_) | Expr::Local(_) => {}
        });
        if let Stmt::Store(to, _) = stmt {
            match self.nest.buffer(to.buffer).role {
                Role::Reg => {
                    let sums = self.addresses(to, code, written).len() as f64;
                    straight.adds += fused;
                    straight.sums += if fused > 0.0 { sums } else { 0.0 };
                }
                Role::Input
                | Role::Gradient
                | Role::Weights
                | Role::Bias
                | Role::Scale
                | Role::Residual
                | Role::Output
                | Role::Packed
                | Role::Scratch => self.store(to, each, code, written, straight),
            }
        }
    }

    /// Stores to memory; those of vectors whose lanes lie apart are transposed as loads are.
    fn store(
        &self,
        to: &Access,
        each: f64,
        code: Code,
        written: &Written,
        straight: &mut Straight,
    ) {
        straight.copies |= self.nest.buffer(to.buffer).role == Role::Scratch;
        let apart = self.apart(to, code, written);
        if apart == 1.0 || code != Code::Wide {
            straight.stores += each * apart;
            return;
        }
        let mut places: Vec<i64> = self.addresses(to, code, written).into_iter().collect();
        places.sort_unstable();
        let stores = quads(&places) * apart * written.part;
        straight.stores += stores;
        straight.others += stores + SHUFFLES * places.len() as f64;
    }

    fn load(&self, access: &Access, code: Code, written: &Written, straight: &mut Straight) {
        let apart = self.apart(access, code, written);
        let addresses = self.addresses(access, code, written);
        if self.nest.buffer(access.buffer).role == Role::Reg {
            // Lanes of a register that lie apart are brought together by a permutation.
            let permuted = apart > 1.0 && code == Code::Wide;
            straight.operations += if permuted { addresses.len() as f64 } else { 0.0 };
            return;
        }
        if apart > 1.0 && code == Code::Wide {
            let step = written.lanes.map_or(0, |(axis, _)| self.coefficient(access, axis));
            match step == DEINTERLEAVED as i64 {
                true => self.deinterleave(access.buffer, addresses, apart, straight),
                false => self.gather(access.buffer, addresses, (apart, step), straight),
            }
            return;
        }
        for address in addresses {
            if straight.seen.insert((access.buffer, address)) {
                straight.loads += apart;
                // Lanes of an outer vector loop are put side by side by a permutation.
                let spread =
                    written.lanes.is_some_and(|(axis, _)| self.coefficient(access, axis) == 0)
                        && written.around.is_some_and(|axis| self.coefficient(access, axis) != 0);
                straight.others += if spread { 1.0 } else { 0.0 };
                // An element put into its lane is an operation besides.
                straight.others += if apart > 1.0 { INSERT * apart } else { 0.0 };
            }
        }
    }

    /// Vectors of lanes that lie apart: four neighbours are loaded at a time, one load a lane, and
    /// transposed.
    fn gather(
        &self,
        buffer: BufferId,
        addresses: HashSet<i64>,
        (lanes, step): (f64, i64),
        straight: &mut Straight,
    ) {
        let new = addresses.into_iter().filter(|address| straight.seen.insert((buffer, *address)));
        let mut new: Vec<i64> = new.collect();
        new.sort_unstable();
        let quads = quads(&new);
        let of_lanes = new.iter().flat_map(|at| (1..lanes as i64).map(move |i| at + i * step));
        straight.far.extend(of_lanes.map(|at| (buffer, at)));
        straight.loads += quads * lanes;
        straight.others += quads * lanes + SHUFFLES * new.len() as f64;
    }

    /// Vectors of every second element: permutations of two vectors of neighbours, or of one where
    /// few lanes are used, which those that begin side by side share.
    fn deinterleave(
        &self,
        buffer: BufferId,
        addresses: HashSet<i64>,
        lanes: f64,
        straight: &mut Straight,
    ) {
        let width = i64::from(self.target.lanes());
        let new = addresses.into_iter().filter(|address| straight.seen.insert((buffer, *address)));
        let mut new: Vec<i64> = new.collect();
        new.sort_unstable();
        let halves = if lanes * 2.0 > width as f64 { 2.0 } else { 1.0 };
        straight.far.extend(new.iter().map(|at| (buffer, at + width)));
        straight.loads += halves * groups(&new, DEINTERLEAVED as i64);
        straight.operations += DEINTERLEAVING * new.len() as f64;
    }

    /// Loads or stores for one vector: its lanes, if they are no neighbours.
    fn apart(&self, access: &Access, code: Code, written: &Written) -> f64 {
        let Some((axis, lanes)) = written.lanes else { return 1.0 };
        match self.coefficient(access, axis) {
            0 | 1 => 1.0,
            _ => lanes.min(self.width(code)) as f64,
        }
    }

    /// The places of an access relative to the loops around: one a vector, or one a broadcast.
    fn addresses(&self, access: &Access, code: Code, written: &Written) -> HashSet<i64> {
        let shape = self.nest.buffer(access.buffer).strides();
        let start = access.index.iter().zip(shape).map(|(index, s)| index.constant * s).sum();
        let mut places = HashSet::from([start]);
        let width = self.width(code);
        let lanes = written.lanes.map(|(axis, lanes)| {
            let vectors = (lanes as u64).div_ceil(width as u64) as i64;
            (self.coefficient(access, axis) * width, vectors)
        });
        let unrolled = written.unrolled.iter();
        let steps = unrolled.map(|(axis, trips)| (self.coefficient(access, *axis), *trips));
        for (step, trips) in steps.chain(lanes).filter(|(step, _)| *step != 0) {
            places = places.iter().flat_map(|p| (0..trips).map(move |i| p + i * step)).collect();
        }
        places
    }

    /// Charges straight code that runs so often.
    fn finish(&mut self, straight: &mut Straight, runs: f64, code: Code, tiles: f64) {
        let one = std::mem::take(straight);
        let [fma, latency, load] = self.rates.vectors(code == Code::Wide);
        let spills = code == Code::Narrow && one.sums.max(tiles / 4.0) > NARROW_SUMS;
        let spilled = if spills { one.adds } else { 0.0 };
        let memory = one.loads + one.stores * 2.0 + spilled * 2.0;
        let started = one.operations + one.others + memory;
        let slower = match started {
            few if few <= DECODED => 1.0,
            some if some <= 2.0 * DECODED => 2.0,
            _ => 4.0,
        };
        let issue = started * slower / ISSUE_WIDTH * self.rates.cycle;
        let arithmetic = (one.operations * fma).max(issue);
        let loads = (memory * load - arithmetic).max(0.0);
        let depth = if one.sums > 0.0 { one.adds / one.sums } else { 0.0 };
        let latency = latency + if spills { STORED * self.rates.cycle } else { 0.0 };
        let waiting = (depth * latency - arithmetic - loads).max(0.0);
        self.work.operations += runs * one.operations;
        self.work.loaded += runs * memory;
        match code {
            Code::Wide | Code::Narrow if !one.copies => {
                self.work.arithmetic += runs * arithmetic;
                self.work.loads += runs * loads;
                self.work.latency += runs * waiting;
            }
            Code::Loops | Code::Wide | Code::Narrow => {
                self.work.copies += runs * (arithmetic + loads + waiting);
            }
        }
        self.work.scalar |= code == Code::Narrow;
        self.work.refetched += runs * self.conflicts(&one);
    }

    /// Bytes fetched again because more lines share a set than it has ways. A set holds them all
    /// only as long as it takes to come back to the first; each line then serves one iteration, not
    /// many.
    fn conflicts(&self, straight: &Straight) -> f64 {
        let mut lines: Vec<(i64, BufferId, i64)> = straight
            .seen
            .iter()
            .chain(&straight.far)
            .map(|(buffer, place)| {
                let bytes = place * self.nest.buffer(*buffer).elem.bytes() as i64;
                (bytes.rem_euclid(WAY) / LINE, *buffer, bytes.div_euclid(LINE))
            })
            .collect();
        lines.sort_unstable();
        lines.dedup();
        let sets = lines.chunk_by(|a, b| a.0 == b.0 && a.1 == b.1);
        // One way is left to the other operands that pass by.
        let full = sets.map(<[_]>::len).filter(|lines| *lines as i64 > self.ways - 1);
        full.map(|lines| (lines as i64 * LINE) as f64).sum()
    }
}

/// Groups of up to four neighbours.
fn quads(sorted: &[i64]) -> f64 {
    groups(sorted, 4)
}

/// Groups of up to so many neighbours.
fn groups(sorted: &[i64], neighbours: i64) -> f64 {
    let mut groups = 0.0;
    let mut end = i64::MIN;
    for address in sorted {
        if *address >= end {
            groups += 1.0;
            end = address + neighbours;
        }
    }
    groups
}
