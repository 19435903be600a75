//! What one core of this machine can do at best: what rows are held against.

use std::fmt;

use anyhow::anyhow;
use convgen::machine::{Bandwidth, cache_bandwidth, peak_gflops};
use convgen::timing::CacheState;
use convgen::{Host, Isa};

/// How long the peak is measured, in seconds.
const PEAK_SECONDS: f64 = 0.2;
/// How long the bandwidth of each cache is measured, in seconds.
const CACHE_SECONDS: f64 = 0.05;

/// Where data lie that no cache holds.
const MEMORY: &str = "memory";

/// The peak of one core at the vector width of an ISA, and its caches.
#[derive(Clone, Debug)]
pub struct Machine {
    /// The ISA.
    pub isa: Isa,
    /// Multiply-adds in registers.
    pub peak_gflops: f64,
    /// The bytes of each cache, and how fast it is read.
    caches: Vec<(usize, Bandwidth)>,
}

impl Machine {
    /// A machine of which these are known: each cache's bytes, and how fast it is read.
    pub fn new(isa: Isa, peak_gflops: f64, caches: Vec<(usize, Bandwidth)>) -> Machine {
        Machine { isa, peak_gflops, caches }
    }

    /// Measures now.
    pub fn measure(host: &Host, isa: Isa) -> anyhow::Result<Machine> {
        let bits = isa.vector_bits();
        let peaks = peak_gflops(host, PEAK_SECONDS);
        let peak = peaks.iter().find(|(width, _)| *width == bits);
        let (_, peak) = peak.ok_or_else(|| anyhow!("no peak was measured at {bits} bits"))?;
        let sizes = [host.caches().l1d, host.caches().l2, host.caches().l3];
        let caches = sizes.into_iter().zip(cache_bandwidth(host, CACHE_SECONDS)).collect();
        Ok(Machine::new(isa, *peak, caches))
    }

    /// How fast a cache is read.
    pub fn gb_per_s(&self, level: &str) -> Option<f64> {
        let found = self.caches.iter().find(|(_, bandwidth)| bandwidth.level == level);
        found.map(|(_, bandwidth)| bandwidth.gb_s)
    }

    /// Where so many bytes come from: the smallest cache that holds them, if they are in any.
    pub fn data_in(&self, bytes: u64, caches: CacheState) -> &'static str {
        match caches {
            CacheState::Warm => self.holds(bytes),
            CacheState::Cold => MEMORY,
        }
    }

    /// The smallest cache that holds so many bytes.
    fn holds(&self, bytes: u64) -> &'static str {
        let found = self.caches.iter().find(|(size, _)| bytes <= *size as u64);
        found.map_or(MEMORY, |(_, bandwidth)| bandwidth.level)
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, one core: peak {:.1} GFLOP/s", self.isa, self.peak_gflops)?;
        for (at, (_, Bandwidth { level, gb_s, .. })) in self.caches.iter().enumerate() {
            let before = if at == 0 { "; reads" } else { "," };
            write!(f, "{before} {gb_s:.0} GB/s from {level}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_lie_in_the_smallest_cache_that_holds_them() {
        let cache = |level, bytes, gb_s| (bytes, Bandwidth { level, bytes: bytes / 2, gb_s });
        let caches = vec![cache("L1", 100, 40.0), cache("L2", 1000, 20.0)];
        let machine = Machine::new(Isa::Clif, 12.34, caches);
        assert_eq!([100, 101, 1001].map(|bytes| machine.holds(bytes)), ["L1", "L2", MEMORY]);
        assert_eq!((machine.gb_per_s("L2"), machine.gb_per_s("L3")), (Some(20.0), None));
        let from = |state| machine.data_in(1, state);
        assert_eq!([CacheState::Warm, CacheState::Cold].map(from), ["L1", MEMORY]);
        let text = "clif, one core: peak 12.3 GFLOP/s; reads 40 GB/s from L1, 20 GB/s from L2";
        assert_eq!(machine.to_string(), text);
    }
}
