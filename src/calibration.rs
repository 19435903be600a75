//! How fast a core does the few things that estimates count: every measured rate, with its machine.
//!
//! A [`Profile`] is that of one kind of core, in clock cycles. The crate ships those of the cores
//! that it was measured on; [`Core::of`] gives an unknown one the nearest. `convgen machine
//! --calibrate` measures one of this machine, and a compiler that is asked to takes that instead.
//!
//! Does not: measure, which is `machine`'s business, or decide anything.

pub(crate) mod cycles;

use std::hash::{Hash, Hasher};

use serde::{Deserialize, Serialize};

/// The widths of vectors that rates are known of, in bits.
pub const WIDTHS: [u32; 3] = [128, 256, 512];

/// Cycles that a multiply-add takes without an instruction for it: a call for each lane.
const UNFUSED: f64 = 8.0;

/// The rates of one kind of core.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// Nanoseconds of a clock cycle.
    pub cycle_ns: f64,
    /// Cycles of a multiply-add that waits for the one before it.
    pub latency: f64,
    /// Cycles of a multiply-add among many independent ones, of 128, 256 and 512 bits.
    pub fma: [f64; 3],
    /// Cycles of a load that hits the first-level cache, of the same widths.
    pub load: [f64; 3],
    /// Cycles of a shuffle among many, of the same widths.
    pub shuffle: [f64; 3],
    /// Bytes a cycle from the second-level cache.
    pub l2: f64,
    /// Bytes a cycle from the third-level cache.
    pub l3: f64,
    /// Bytes a cycle from main memory.
    pub memory: f64,
}

/// A core that a profile ships for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Core {
    /// Two multiply-adds and two loads a cycle; of 512 bits, a mean of the cores that do them whole
    /// and of those that do them in two halves.
    Typical,
    /// AMD family 25: 512 bits are two halves.
    Zen4,
    /// AMD family 26.
    Zen5,
    /// Intel family 6.
    EmeraldRapids,
}

/// What a processor says that it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CpuId {
    /// `GenuineIntel`, `AuthenticAMD`.
    pub vendor: String,
    /// Family, the extended one included.
    pub family: u32,
}

impl Core {
    /// The core of a processor, or the nearest: another with 512-bit vectors of the same vendor.
    pub fn of(id: &CpuId, has_512_bits: bool) -> Core {
        match (id.vendor.as_str(), id.family) {
            _ if !has_512_bits => Core::Typical,
            ("AuthenticAMD", 0..=25) => Core::Zen4,
            ("AuthenticAMD", _) => Core::Zen5,
            ("GenuineIntel", _) => Core::EmeraldRapids,
            (_, _) => Core::Typical,
        }
    }

    /// Its rates.
    pub fn profile(self) -> Profile {
        match self {
            // What any 64-bit core of the last ten years does; in cycles of a third of a
            // nanosecond.
            Core::Typical => Profile {
                cycle_ns: 1.0 / 3.0,
                latency: 4.0,
                fma: [0.5, 0.5, 0.75],
                load: [0.5, 0.5, 0.75],
                shuffle: [0.5, 0.5, 0.75],
                l2: 32.0,
                l3: 12.0,
                memory: 6.0,
            },
            // EPYC (family 25, model 17), 2026-11, a loop of independent multiply-adds: 118 GFLOP/s
            // at 256 bits and at 512. Loads as in AMD's Software Optimization Guide 57647; the
            // caches were not measured alone and are those of the typical core.
            Core::Zen4 => Profile {
                cycle_ns: 0.27,
                latency: 4.0,
                fma: [0.5, 0.5, 1.0],
                load: [0.5, 0.5, 1.0],
                shuffle: [0.5, 0.5, 1.0],
                l2: 32.0,
                l3: 12.0,
                memory: 6.0,
            },
            // EPYC (family 26), 2026-11, loops of multiply-adds and of reads of 32 KiB, 512 KiB, 8
            // MiB and 512 MiB, the best of three quiet runs: 61, 122 and 244 GFLOP/s at the three
            // widths, 478, 241, 109 and 39 GB/s. Narrower loads as in AMD's guide 58455.
            Core::Zen5 => Profile {
                cycle_ns: 0.26,
                latency: 4.0,
                fma: [0.5, 0.5, 0.5],
                load: [0.5, 0.5, 0.5],
                shuffle: [0.5, 0.5, 0.5],
                l2: 62.0,
                l3: 28.0,
                memory: 10.0,
            },
            // Xeon (family 6, model 207), 2026-11-30, `convgen machine`, the best of four runs.
            Core::EmeraldRapids => Profile {
                cycle_ns: 0.334,
                latency: 4.0,
                fma: [0.5, 0.5, 0.54],
                load: [0.35, 0.35, 0.5],
                // One port shuffles 512 bits: Intel's Optimization Reference Manual.
                shuffle: [0.5, 0.5, 1.0],
                l2: 49.0,
                l3: 10.0,
                memory: 3.8,
            },
        }
    }
}

/// What a text lacks to be a profile.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ProfileError {
    /// It is not the JSON of one.
    #[error("no profile: {0}")]
    Syntax(String),
    /// A rate is none of a core.
    #[error("`{name}` of the profile is {given:e}, expected 1e-6 to 1e6")]
    Rate {
        /// Which.
        name: &'static str,
        /// What is given.
        given: f64,
    },
}

impl Profile {
    /// Reads the JSON that [`Profile::to_json`] writes.
    ///
    /// # Errors
    /// What is missing, unknown, or no positive number.
    pub fn from_json(text: &str) -> Result<Profile, ProfileError> {
        let profile: Profile =
            serde_json::from_str(text).map_err(|error| ProfileError::Syntax(error.to_string()))?;
        let wrong = profile.numbers().into_iter().find(|(_, rate)| !(1e-6..=1e6).contains(rate));
        match wrong {
            Some((name, given)) => Err(ProfileError::Rate { name, given }),
            None => Ok(profile),
        }
    }

    /// The profile as one JSON object.
    pub fn to_json(&self) -> String {
        // Numbers in a struct are always JSON.
        serde_json::to_string(self).unwrap_or_default()
    }

    fn numbers(&self) -> Vec<(&'static str, f64)> {
        let Profile { cycle_ns, latency, fma, load, shuffle, l2, l3, memory } = *self;
        let single = [
            ("cycle_ns", cycle_ns),
            ("latency", latency),
            ("l2", l2),
            ("l3", l3),
            ("memory", memory),
        ];
        let wide = [("fma", fma), ("load", load), ("shuffle", shuffle)];
        let wide = wide.into_iter().flat_map(|(name, rates)| rates.map(|rate| (name, rate)));
        single.into_iter().chain(wide).collect()
    }

    /// The rates of code of so many bits a vector; without fused multiply-adds these are calls.
    pub fn rates(&self, bits: u32, fused: bool) -> Rates {
        let cycle = self.cycle_ns * 1e-9;
        let width = WIDTHS.iter().position(|width| *width == bits).unwrap_or(0);
        let calls = if fused { 1.0 } else { UNFUSED };
        let vectors = |width: usize| {
            [self.fma[width] * calls, self.latency, self.load[width]].map(|cycles| cycles * cycle)
        };
        let [fma, latency, load] = vectors(width);
        Rates {
            cycle,
            fma,
            latency,
            load,
            shuffle: self.shuffle[width] * cycle,
            narrow: vectors(0),
            l2: cycle / self.l2,
            l3: cycle / self.l3,
            memory: cycle / self.memory,
        }
    }
}

/// Seconds of one core, each of one thing.
#[derive(Clone, Copy, Debug)]
pub struct Rates {
    /// A clock cycle.
    pub cycle: f64,
    /// A vector multiply-add among many independent ones, at the target's vector width.
    pub fma: f64,
    /// A vector multiply-add that waits for the one before it.
    pub latency: f64,
    /// A vector load that hits the first-level cache, at the target's vector width.
    pub load: f64,
    /// A shuffle of a vector among many, at the target's vector width.
    pub shuffle: f64,
    /// A multiply-add, one that waits and a load at 128 bits, for what Cranelift emits.
    pub narrow: [f64; 3],
    /// A byte from the second-level cache.
    pub l2: f64,
    /// A byte from the third-level cache.
    pub l3: f64,
    /// A byte from main memory.
    pub memory: f64,
}

impl Rates {
    /// Seconds of a vector operation, of one that waits, and of a load: of a micro-kernel's
    /// vectors, or of Cranelift's.
    pub fn vectors(&self, wide: bool) -> [f64; 3] {
        if wide { [self.fma, self.latency, self.load] } else { self.narrow }
    }

    fn bits(&self) -> [u64; 11] {
        let Rates { cycle, fma, latency, load, shuffle, narrow: [a, b, c], l2, l3, memory } = *self;
        [cycle, fma, latency, load, shuffle, a, b, c, l2, l3, memory].map(f64::to_bits)
    }
}

/// Targets are keys, and rates part of them: equal if their bits are.
impl PartialEq for Rates {
    fn eq(&self, other: &Rates) -> bool {
        self.bits() == other.bits()
    }
}

impl Eq for Rates {}

impl Hash for Rates {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.bits().hash(state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(vendor: &str, family: u32) -> CpuId {
        CpuId { vendor: vendor.to_string(), family }
    }

    #[test]
    fn an_unknown_core_has_the_nearest_profile() {
        let cores = [
            (id("AuthenticAMD", 25), true, Core::Zen4),
            (id("AuthenticAMD", 26), true, Core::Zen5),
            (id("AuthenticAMD", 27), true, Core::Zen5),
            (id("AuthenticAMD", 23), false, Core::Typical),
            (id("GenuineIntel", 6), true, Core::EmeraldRapids),
            (id("GenuineIntel", 6), false, Core::Typical),
            (id("", 0), false, Core::Typical),
        ];
        for (id, wide, core) in cores {
            assert_eq!(Core::of(&id, wide), core, "{id:?}");
        }
    }

    #[test]
    fn a_profile_is_read_as_it_is_written() {
        for core in [Core::Typical, Core::Zen4, Core::Zen5, Core::EmeraldRapids] {
            let profile = core.profile();
            assert_eq!(Profile::from_json(&profile.to_json()), Ok(profile));
        }
        let broken = Profile { l3: 0.0, ..Core::Zen4.profile() };
        let refused = ProfileError::Rate { name: "l3", given: 0.0 };
        assert_eq!(Profile::from_json(&broken.to_json()), Err(refused));
        for text in ["", "{}", "[1]", "{\"cycle_ns\": 1e999}"] {
            assert!(matches!(Profile::from_json(text), Err(ProfileError::Syntax(_))), "{text}");
        }
    }

    #[test]
    fn rates_are_cycles_of_a_width() {
        let rates = Core::Zen4.profile().rates(512, true);
        assert_eq!((rates.fma, rates.narrow[0]), (rates.cycle, 0.5 * rates.cycle));
        let calls = Core::Zen4.profile().rates(128, false);
        assert_eq!((calls.fma, calls.load), (8.0 * 0.5 * calls.cycle, 0.5 * calls.cycle));
    }
}
