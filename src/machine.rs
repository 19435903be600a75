//! What this machine can do at best, measured: the figures that kernels are held against.
//!
//! Promises: the loops measured are written instruction by instruction, so the figures do not
//! depend on what the Rust compiler made of them; all are of one core. Does not: load more than one
//! core, or keep anything: each call measures anew.

use convgen_ir::elem::ElemType;

use crate::calibration::{Profile, Rates, WIDTHS};
use crate::codegen::probe::Probe;
use crate::jit::ProbeCode;
use crate::target::{CACHE_LINE, Host, Isa};
use crate::timing;

/// Cycles of a multiply-add that waits for the one before, on every core that a profile ships for:
/// what a cycle is told by.
const LATENCY_CYCLES: f64 = 4.0;

/// Seconds of one call of a probe, about: the call itself is then nothing.
const CALL_SECONDS: f64 = 200e-6;

/// The most bytes read to measure main memory, whatever the caches.
const MAX_BYTES: usize = 1 << 30;

/// How fast one core reads from one level of memory.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bandwidth {
    /// `L1`, `L2`, `L3` or `DRAM`.
    pub level: &'static str,
    /// Bytes read over and over.
    pub bytes: usize,
    /// Gigabytes a second.
    pub gb_s: f64,
}

/// Second-level caches that fit what is read of a third-level one.
const SHARE_OF_L3: usize = 4;

/// The rate of single-precision multiply-adds of one core in GFLOP/s (two operations each), fused
/// if the host can, at a vector width. None if the host lacks the width, or refuses executable
/// memory.
pub fn fma_peak(host: &Host, vector_bits: u32, seconds: f64) -> Option<f64> {
    let probe = Probe::fma(host, vector_bits)?;
    let flops = probe.flops();
    let code = ProbeCode::new(probe)?;
    Some(flops / pass_seconds(&code, &[], seconds) / 1e9)
}

/// [`fma_peak`] at every width the host has: bits and GFLOP/s.
pub fn peak_gflops(host: &Host, seconds: f64) -> Vec<(u32, f64)> {
    let peak = |bits| fma_peak(host, bits, seconds).map(|gflops| (bits, gflops));
    WIDTHS.into_iter().filter_map(peak).collect()
}

/// The read bandwidth of one core from each cache, at most half full, and from main memory. Empty
/// if the host refuses executable memory.
pub fn bandwidth(host: &Host, seconds: f64) -> Vec<Bandwidth> {
    let memory = (4 * host.caches().l3).clamp(64 << 20, MAX_BYTES);
    let levels = cache_levels(host).into_iter().chain([("DRAM", memory)]);
    read_bandwidth(host, levels, seconds)
}

/// As [`bandwidth`], but from the caches alone: main memory takes the longest to measure.
pub fn cache_bandwidth(host: &Host, seconds: f64) -> Vec<Bandwidth> {
    read_bandwidth(host, cache_levels(host), seconds)
}

/// The caches and half of what each holds; of one shared by many cores, a core's tensors are a
/// small part, and others may keep the rest.
fn cache_levels(host: &Host) -> [(&'static str, usize); 3] {
    let caches = host.caches();
    let l3 = (caches.l3 / 2).min(SHARE_OF_L3 * caches.l2);
    [("L1", caches.l1d / 2), ("L2", caches.l2 / 2), ("L3", l3)]
}

fn read_bandwidth(
    host: &Host,
    levels: impl IntoIterator<Item = (&'static str, usize)>,
    seconds: f64,
) -> Vec<Bandwidth> {
    let widest = WIDTHS.into_iter().rev().find_map(|bits| Probe::read(host, bits));
    let Some(code) = widest.and_then(ProbeCode::new) else { return vec![] };
    let measure = |(level, bytes): (&'static str, usize)| Bandwidth {
        level,
        bytes,
        gb_s: read_gb_s(&code, bytes, seconds),
    };
    levels.into_iter().map(measure).collect()
}

/// The profile of one core of this machine, each rate measured for that many seconds; those of
/// widths that the host lacks, and of shuffles, are those known of it. None if the host refuses
/// executable memory.
pub fn profile(host: &Host, seconds: f64) -> Option<Profile> {
    let measured = WIDTHS.map(|bits| vector_rates(host, bits, seconds));
    let cycle = measured[0]?[1] / LATENCY_CYCLES;
    let bandwidth = bandwidth(host, seconds);
    let bytes = |level| {
        let found = bandwidth.iter().find(|b| b.level == level && b.gb_s > 0.0);
        found.map(|b| b.gb_s * 1e9 * cycle)
    };
    let mut profile = Profile {
        cycle_ns: cycle * 1e9,
        latency: LATENCY_CYCLES,
        l2: bytes("L2")?,
        l3: bytes("L3")?,
        memory: bytes("DRAM")?,
        ..*host.profile()
    };
    for (width, rates) in measured.into_iter().enumerate() {
        if let Some([fma, _, load]) = rates {
            (profile.fma[width], profile.load[width]) = (fma / cycle, load / cycle);
        }
    }
    Some(profile)
}

/// The rates of one core that the cost model counts with, measured for that many seconds each. None
/// if the host lacks the vectors, or refuses executable memory.
pub fn rates(host: &Host, isa: Isa, seconds: f64) -> Option<Rates> {
    let bits = isa.vector_bits();
    Probe::fma(host, bits)?;
    Some(profile(host, seconds)?.rates(bits, true))
}

/// Seconds of a vector multiply-add, of one that waits for the one before, and of a load that hits
/// the first-level cache. None if the host lacks the width, or refuses executable memory.
pub fn vector_rates(host: &Host, bits: u32, seconds: f64) -> Option<[f64; 3]> {
    let operation = |probe: Probe| {
        let operations = probe.flops() / (2.0 * f64::from(bits / ElemType::F32.bits()));
        let code = ProbeCode::new(probe)?;
        Some(pass_seconds(&code, &[], seconds) / operations)
    };
    let fma = operation(Probe::fma(host, bits)?)?;
    let latency = operation(Probe::chain(host, bits)?)?;
    let code = ProbeCode::new(Probe::read(host, bits)?)?;
    let gb_s = read_gb_s(&code, host.caches().l1d / 2, seconds);
    Some([fma, latency, f64::from(bits / 8) / (gb_s * 1e9)])
}

/// Seconds of one pass over the data.
fn pass_seconds(code: &ProbeCode, data: &[f32], seconds: f64) -> f64 {
    let mut passes = 1;
    while timing::once(|| code.run(passes, data)).1 < CALL_SECONDS {
        passes *= 2;
    }
    timing::time(seconds, 1, || code.run(passes, data)).min / passes as f64
}

fn read_gb_s(code: &ProbeCode, bytes: usize, seconds: f64) -> f64 {
    let chunk = code.chunk_bytes().max(CACHE_LINE);
    let bytes = (bytes / chunk).max(1) * chunk;
    let float = size_of::<f32>();
    // Written, not zeroed: pages that were never written may all be the same one.
    let memory = vec![1.0_f32; (bytes + CACHE_LINE) / float];
    // No vector lies across two lines.
    let start = memory.as_ptr().align_offset(CACHE_LINE).min(CACHE_LINE / float);
    let data = &memory[start..start + bytes / float];
    bytes as f64 / pass_seconds(code, data, seconds) / 1e9
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECONDS: f64 = 1e-3;

    /// Measurements that may be disturbed before the rates are held to be wrong.
    const ATTEMPTS: usize = 20;

    #[test]
    fn every_host_has_128_bits() {
        let host = Host::detect();
        let peaks = peak_gflops(&host, SECONDS);
        assert_eq!(peaks[0].0, 128);
        assert!(peaks.iter().all(|(_, gflops)| *gflops > 0.0), "{peaks:?}");
        assert_eq!(fma_peak(&host, 64, SECONDS), None);
    }

    #[test]
    fn widths_are_those_the_host_has() {
        let host = Host::detect();
        let has = |bits| fma_peak(&host, bits, SECONDS).is_some();
        assert_eq!(has(256), host.has("avx2") && host.has("fma"));
        assert_eq!(has(512), host.has("avx512f") && host.has("avx2") && host.has("fma"));
    }

    #[test]
    fn a_multiply_add_that_waits_takes_longer() {
        let host = Host::detect();
        for isa in Isa::ALL {
            let measured = rates(&host, isa, SECONDS);
            assert_eq!(
                measured.is_some(),
                isa == Isa::Clif || fma_peak(&host, isa.vector_bits(), SECONDS).is_some()
            );
            let waits =
                |rates: Rates| rates.fma < rates.latency && rates.load > 0.0 && rates.l2 > 0.0;
            // Another process may have had the core during one of the measurements.
            let again = || (0..ATTEMPTS).any(|_| rates(&host, isa, SECONDS).is_some_and(waits));
            assert!(measured.is_none_or(waits) || again(), "{measured:?}");
        }
    }

    #[test]
    fn every_level_is_read() {
        let host = Host::detect();
        let bandwidths = bandwidth(&host, SECONDS);
        let levels: Vec<&str> = bandwidths.iter().map(|b| b.level).collect();
        assert_eq!(levels, ["L1", "L2", "L3", "DRAM"]);
        assert!(bandwidths.iter().all(|b| b.gb_s > 0.0 && b.bytes > 0), "{bandwidths:?}");
        let caches = cache_bandwidth(&host, SECONDS);
        let sizes =
            |read: &[Bandwidth]| read.iter().map(|b| (b.level, b.bytes)).collect::<Vec<_>>();
        assert_eq!(sizes(&caches), sizes(&bandwidths[..3]));
    }
}
