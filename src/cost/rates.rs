//! How fast a core does the few things that the cost model counts.

use crate::target::Target;

/// Cycles that a multiply-add takes, on nearly every CPU.
const LATENCY_CYCLES: f64 = 4.0;

/// Seconds of one core, each of one thing.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rates {
    /// A vector multiply-add among many independent ones, at the target's vector width.
    pub fma: f64,
    /// A vector multiply-add that waits for the one before it.
    pub latency: f64,
    /// A vector load that hits the first-level cache, at the target's vector width.
    pub load: f64,
    /// The same three at 128 bits, for what Cranelift emits.
    pub narrow: [f64; 3],
    /// A byte from the second-level cache.
    pub l2: f64,
    /// A byte from the third-level cache.
    pub l3: f64,
    /// A byte from main memory.
    pub memory: f64,
}

impl Rates {
    /// Rates of a core of the last ten years, where none were measured: two multiply-adds and two
    /// loads a cycle, a latency of four, a cycle of a third of a nanosecond. Ranks candidates; its
    /// seconds mean little.
    pub fn nominal(target: &Target) -> Rates {
        const CYCLE: f64 = 1e-9 / 3.0;
        let fused = if target.fma() { 1.0 } else { 8.0 };
        // Some cores do operations of 512 bits in two halves.
        let wide = if target.isa().vector_bits() > 256 { 0.75 * CYCLE } else { 0.5 * CYCLE };
        Rates {
            fma: wide * fused,
            latency: LATENCY_CYCLES * CYCLE,
            load: wide,
            narrow: [0.5 * CYCLE * fused, LATENCY_CYCLES * CYCLE, 0.5 * CYCLE],
            l2: CYCLE / 32.0,
            l3: CYCLE / 12.0,
            memory: CYCLE / 6.0,
        }
    }

    /// A clock cycle, taken from the latency of a multiply-add.
    pub fn cycle(&self) -> f64 {
        self.latency / LATENCY_CYCLES
    }

    /// Seconds of a vector operation, of one that waits, and of a load: of a micro-kernel's
    /// vectors, or of Cranelift's.
    pub fn vectors(&self, wide: bool) -> [f64; 3] {
        if wide { [self.fma, self.latency, self.load] } else { self.narrow }
    }
}
