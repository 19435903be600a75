//! Lines that move between the levels of memory: footprints of accesses, loop by loop.
//!
//! The **working set** of a loop is what its accesses touch in one whole run. For a cache, the
//! loops fall into those whose working set it holds and those whose it does not. A loop whose
//! iterations fit, but which does not itself, brings in its whole working set once a run: what
//! neighbouring iterations share is still there. A loop whose iterations do not fit brings in what
//! its parts do, each time. If the whole nest fits, a repeated call brings in nothing.

use convgen_ir::nest::{Access, AxisId, Buffer, Mode, Nest, Role, Stmt, visit_accesses};

use super::trips::Ranges;
use super::{Rates, Term};
use crate::calibration::cycles::USABLE_CACHE;
use crate::target::{CACHE_LINE, Target};

/// Bytes of a cache line.
const LINE: f64 = CACHE_LINE as f64;

/// Bytes that move from each level into the one before it, in a call.
pub(super) struct Traffic {
    l2: f64,
    l3: f64,
    memory: f64,
}

impl Traffic {
    pub(super) fn of(nest: &Nest, target: &Target, batch: i64) -> Traffic {
        let mut walk = TrafficCount { nest, batch, ranges: Ranges::default() };
        let whole = walk.block(&nest.body);
        let caches = target.caches();
        let into = |cache: usize| {
            let capacity = cache as f64 * USABLE_CACHE;
            if whole.iteration <= capacity { 0.0 } else { whole.traffic(capacity) }
        };
        Traffic { l2: into(caches.l1d), l3: into(caches.l2), memory: into(caches.l3) }
    }

    /// `refetched` bytes come from the second level besides: lines that fell out of full sets.
    pub(super) fn terms(&self, rates: &Rates, refetched: f64) -> Vec<Term> {
        let levels = [
            ("L2", self.l2 + refetched, rates.l2),
            ("L3", self.l3, rates.l3),
            ("memory", self.memory, rates.memory),
        ];
        let term = |(name, bytes, rate): (&'static str, f64, f64)| Term {
            name,
            seconds: bytes * rate,
            what: format!("{:.0} KiB at {:.1} GB/s", bytes / 1024.0, 1e-9 / rate),
        };
        levels.into_iter().map(term).collect()
    }
}

/// A block of statements, or a loop around one.
struct LoopTraffic {
    /// How often it runs in one run of what is around it.
    trips: f64,
    /// Bytes touched in one iteration, and in all.
    iteration: f64,
    whole: f64,
    /// The accesses inside, as far as the loops inside have spread them.
    spread: Vec<Footprint>,
    parts: Vec<LoopTraffic>,
}

impl LoopTraffic {
    /// Bytes brought into a cache by one run. The part itself does not fit.
    fn traffic(&self, capacity: f64) -> f64 {
        if self.iteration <= capacity {
            return self.whole;
        }
        let of = |part: &LoopTraffic| match part.whole <= capacity {
            true => part.whole,
            false => part.traffic(capacity),
        };
        // A statement by itself always fits: it touches some lines.
        let parts: f64 = self.parts.iter().map(of).sum();
        self.trips * if self.parts.is_empty() { self.iteration } else { parts }
    }
}

/// An access and the elements that the loops so far make of it.
#[derive(Clone)]
struct Footprint {
    access: Access,
    /// Lines moved for one touched: two where what is written is first fetched, and later put back.
    weight: f64,
    /// A dimension: the largest index less the smallest, and how many are touched.
    dims: Vec<(i64, i64)>,
}

impl Footprint {
    fn new(access: &Access, weight: f64) -> Footprint {
        Footprint { access: access.clone(), weight, dims: vec![(0, 1); access.index.len()] }
    }

    /// What a loop of some iterations makes of it.
    fn over(&mut self, axis: AxisId, trips: i64) {
        for ((span, count), index) in self.dims.iter_mut().zip(&self.access.index) {
            let coefficient = index.coefficient(axis).abs();
            if coefficient > 0 {
                *span += coefficient * (trips - 1);
                *count = count.saturating_mul(trips).min(*span + 1);
            }
        }
    }

    /// Bytes of the lines touched.
    fn bytes(&self, buffer: &Buffer, batch: i64) -> f64 {
        let element = buffer.elem.bytes() as f64;
        let (mut run, mut others, mut broken) = (1.0, 1.0, false);
        for ((span, count), dim) in self.dims.iter().zip(&buffer.shape).rev() {
            // A padded index may leave its dimension: nothing is fetched there.
            let (extent, count) = (dim.at(batch), (*count).min(dim.at(batch)));
            if broken {
                others *= count as f64;
                continue;
            }
            let apart = (*span + 1) as f64 / count as f64;
            run *= count as f64 * apart.min(LINE / element);
            broken = count < extent;
        }
        others * (run * element / LINE).ceil() * LINE * self.weight
    }
}

struct TrafficCount<'n> {
    nest: &'n Nest,
    batch: i64,
    ranges: Ranges,
}

impl TrafficCount<'_> {
    fn block(&mut self, block: &[Stmt]) -> LoopTraffic {
        let mut parts = Vec::new();
        let mut spread: Vec<Footprint> = Vec::new();
        for stmt in block {
            match stmt {
                Stmt::Loop(l) => {
                    let (lo, hi) = (l.lo, l.hi.at(self.batch));
                    self.ranges.enter(l.axis, lo, hi);
                    let fraction = self.ranges.fraction(&l.guards);
                    let mut part = self.block(&l.body);
                    self.ranges.leave();
                    part.trips = (hi - lo).max(0) as f64 * fraction;
                    let trips = (part.trips.ceil() as i64).max(1);
                    part.spread.iter_mut().for_each(|spread| spread.over(l.axis, trips));
                    part.whole = self.bytes(&part.spread);
                    spread.extend(part.spread.iter().cloned());
                    // Unrolled iterations and lanes are no loops of their own to a cache.
                    if matches!(l.mode, Mode::Serial | Mode::Parallel) {
                        parts.push(part);
                    }
                }
                Stmt::If(guards, body) => {
                    let fraction = self.ranges.fraction(guards);
                    let mut part = self.block(body);
                    part.trips = fraction;
                    spread.extend(part.spread.iter().cloned());
                    parts.push(part);
                }
                Stmt::MicroKernel(body) => {
                    let part = self.block(body);
                    spread.extend(part.spread.iter().cloned());
                    parts.extend(part.parts);
                }
                Stmt::Declare(_) => {}
                Stmt::Let(..) | Stmt::Store(..) => self.touch(stmt, &mut spread),
            }
        }
        let iteration = self.bytes(&spread);
        LoopTraffic { trips: 1.0, iteration, whole: iteration, spread, parts }
    }

    fn touch(&self, stmt: &Stmt, spread: &mut Vec<Footprint>) {
        visit_accesses(std::slice::from_ref(stmt), &mut |access, stored| {
            let role = self.nest.buffer(access.buffer).role;
            if role != Role::Reg {
                let weight = if stored && role == Role::Output { 2.0 } else { 1.0 };
                spread.push(Footprint::new(access, weight));
            }
        });
    }

    /// Bytes of all buffers: of each, the access that touches most stands for all.
    fn bytes(&self, spread: &[Footprint]) -> f64 {
        let mut most: Vec<(u32, f64)> = Vec::new();
        for access in spread {
            let id = access.access.buffer;
            let bytes = access.bytes(self.nest.buffer(id), self.batch);
            match most.iter_mut().find(|(buffer, _)| *buffer == id.0) {
                Some((_, most)) => *most = most.max(bytes),
                None => most.push((id.0, bytes)),
            }
        }
        most.iter().map(|(_, bytes)| bytes).sum()
    }
}
