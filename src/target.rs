//! What a kernel is compiled for, as plain data, and the proof that a host has it.
//!
//! A [`Target`] can be written down for any machine, to print or to cross-compile. Code runs only
//! where a [`Host`] vouches for it: the sole way to get one is detection.

use std::fmt;
use std::str::FromStr;

use convgen_ir::elem::ElemType;
use convgen_ir::every;
use convgen_ir::verify::Limits;
use target_lexicon::{Architecture, Triple};

use crate::accuracy::Accuracy;
use crate::calibration::{Core, CpuId, Profile, Rates};
use crate::exact::size_of;

/// Bytes of a cache line, on nearly every CPU, and of the widest vector register.
pub const CACHE_LINE: usize = 64;

/// Bytes of a small page: what a system maps at once, and what is written as one stream.
pub const PAGE_BYTES: usize = 4096;

/// Bytes of one way of a first-level cache: a page, on every CPU that looks it up by virtual
/// address. On 1x1 layers of 1024 channels tiles of 14 rows reach 77 % of the peak, tiles of 7 rows
/// 97 %.
pub const L1_WAY_BYTES: usize = PAGE_BYTES;

/// Bytes that a thread of a call works in, at most: the scratch of a task, and what lies between
/// the stages of a transform. Twice a large second-level cache: what is written there is read again
/// from the second or third level.
pub const WORKSPACE_BYTES: u64 = 4 << 20;

/// Registers that a micro-kernel needs for operands: two vectors of weights, a broadcast, and one
/// for what the epilogue computes. With fewer it is left to Cranelift where a mask or an epilogue
/// needs some.
pub(crate) const MICRO_KERNEL_OPERANDS: u64 = 4;

/// Multiply-adds in the body of the innermost loop: enough to hide the loop's own instructions, few
/// enough that compiling them stays well below a millisecond.
pub(crate) const UNROLLED_STEPS: u64 = 32;

/// Bytes of a stream between what is read and what is fetched: at 30 GB/s some 140 ns, what the
/// third-level cache of a server takes to answer. Winograd over 512 channels of 14x14: 281 GFLOP/s
/// without, 313 with 1 or 4 KiB, 298 with 8.
const LOOK_AHEAD_BYTES: u64 = 4096;

/// The instruction set an emitter writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Isa {
    /// Cranelift's own: 128-bit vectors, every host.
    Clif,
    /// Micro-kernels of 256 bits inside Cranelift's code: AVX2, FMA and BMI2.
    Avx2,
    /// Micro-kernels of 512 bits inside Cranelift's code: AVX-512 F, DQ, BW and VL.
    Avx512,
}

impl Isa {
    /// Every instruction set of this build, the plainest first.
    pub const ALL: [Isa; 3] = every!(Isa { Clif, Avx2, Avx512 });

    /// The name in kernels' names and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Isa::Clif => "clif",
            Isa::Avx2 => "avx2",
            Isa::Avx512 => "avx512",
        }
    }

    /// Bits of one vector register.
    pub fn vector_bits(self) -> u32 {
        self.unit().map_or(128, VectorUnit::bits)
    }

    /// Elements of one vector register.
    pub fn lanes(self, elem: ElemType) -> u32 {
        self.vector_bits() / elem.bits()
    }

    /// What micro-kernels are made for; none where Cranelift writes all code.
    fn unit(self) -> Option<VectorUnit> {
        let x64 = |bytes, registers, evex| VectorUnit {
            bytes,
            registers,
            pointers: VectorUnit::X64_POINTERS,
            broadcast_operands: evex,
            mask_registers: evex,
            masked_access: true,
            permutes: true,
            permutes_two: evex,
            prefetches: true,
        };
        match self {
            Isa::Clif => None,
            Isa::Avx2 => Some(x64(32, 16, false)),
            Isa::Avx512 => Some(x64(64, 32, true)),
        }
    }

    /// The features of x86-64 that it needs.
    fn features(self) -> &'static [&'static str] {
        match self {
            Isa::Clif => &["sse4.1"],
            Isa::Avx2 => &["avx2", "fma", "bmi2"],
            Isa::Avx512 => &["avx512f", "avx512dq", "avx512bw", "avx512vl", "fma", "bmi2"],
        }
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The vector registers of an instruction set and what its instructions do with them: all that
/// the passes of a micro-kernel know of a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct VectorUnit {
    /// Bytes of a register.
    pub bytes: i64,
    /// Vector registers.
    pub registers: usize,
    /// General registers for pointers and counters.
    pub pointers: usize,
    /// Whether an arithmetic instruction can take one element of memory for all lanes.
    pub broadcast_operands: bool,
    /// Whether masks have registers of their own; else they are vectors.
    pub mask_registers: bool,
    /// Whether a load or store of some lanes touches no memory of the others.
    pub masked_access: bool,
    /// Whether lanes can be put in any order by one instruction.
    pub permutes: bool,
    /// Whether one instruction can take the lanes of two registers in any order.
    pub permutes_two: bool,
    /// Whether lines of memory can be fetched ahead.
    pub prefetches: bool,
}

impl VectorUnit {
    /// Bits of a register.
    pub fn bits(self) -> u32 {
        self.bytes.unsigned_abs() as u32 * 8
    }

    /// The registers of x86-64 that are neither the stack, the arguments, nor scratch.
    pub(crate) const X64_POINTERS: usize = 12;

    /// Elements in a register.
    pub fn lanes(self, elem: ElemType) -> i64 {
        self.bytes / size_of(elem)
    }
}

/// A name that is no instruction set of this build.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no instruction set `{given}` in this build; there is: {known}")]
pub struct UnknownIsa {
    /// The name.
    pub given: String,
    /// The names that exist.
    pub known: String,
}

impl FromStr for Isa {
    type Err = UnknownIsa;

    fn from_str(name: &str) -> Result<Isa, UnknownIsa> {
        Isa::ALL.into_iter().find(|isa| isa.name() == name).ok_or_else(|| UnknownIsa {
            given: name.to_string(),
            known: Isa::ALL.map(Isa::name).join(", "),
        })
    }
}

/// Sums that hide the latency of two multiply-adds a cycle: smaller tiles take as long as one of
/// these. 3x3 over 512 channels of 7x7 at 256 bits: 65 % of the peak by tiles of 4x2 and 3x2, 101 %
/// of 4x3 and 3x3 vectors.
pub(crate) const LATENCY_SUMS: u64 = 8;

/// Elements from lane to lane of a vector that is made of two whole ones: every second element.
pub(crate) const DEINTERLEAVED: u64 = 2;

/// Bytes of each level of cache that one core sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Caches {
    /// First level, data.
    pub l1d: usize,
    /// Second level.
    pub l2: usize,
    /// Third level.
    pub l3: usize,
}

impl Caches {
    /// What nearly every 64-bit CPU of the last ten years has at least; used where nothing is
    /// known.
    pub const TYPICAL: Caches = Caches { l1d: 32 << 10, l2: 512 << 10, l3: 4 << 20 };
}

/// Everything the compiler may know about a machine, and how exact its code shall be.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Target {
    triple: Triple,
    isa: Isa,
    fma: bool,
    caches: Caches,
    cores: usize,
    accuracy: Accuracy,
    rates: Rates,
}

/// A machine that no emitter writes for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the message names every field")]
pub enum TargetError {
    #[error("no code is generated for {architecture}, only for x86_64 and aarch64")]
    Architecture { architecture: String },
    #[error("this CPU lacks {feature}, which {isa} needs")]
    Feature { isa: Isa, feature: &'static str },
}

impl Target {
    /// A target by its triple, with the rates of a [typical core](Core::Typical); `fma` says
    /// whether it has fused multiply-add instructions.
    ///
    /// # Errors
    /// If no emitter writes for the triple's architecture.
    pub fn new(
        triple: Triple,
        isa: Isa,
        fma: bool,
        caches: Caches,
        cores: usize,
    ) -> Result<Target, TargetError> {
        match triple.architecture {
            Architecture::X86_64 | Architecture::Aarch64(_) => {
                let (accuracy, profile) = (Accuracy::default(), Core::Typical.profile());
                let rates = profile.rates(isa.vector_bits(), fma);
                Ok(Target { triple, isa, fma, caches, cores, accuracy, rates })
            }
            other => Err(TargetError::Architecture { architecture: other.to_string() }),
        }
    }

    /// Architecture, operating system, ABI.
    pub fn triple(&self) -> &Triple {
        &self.triple
    }

    /// The instruction set.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// Whether a fused multiply-add is one instruction.
    pub fn fma(&self) -> bool {
        self.fma
    }

    /// The caches of a core.
    pub fn caches(&self) -> Caches {
        self.caches
    }

    /// Cores that run tasks.
    pub fn cores(&self) -> usize {
        self.cores
    }

    /// What code for it may round.
    pub fn accuracy(&self) -> Accuracy {
        self.accuracy
    }

    /// The same, of code of another accuracy.
    pub fn with_accuracy(self, accuracy: Accuracy) -> Target {
        Target { accuracy, ..self }
    }

    /// The same, of a core with the rates of a profile.
    pub fn with_profile(self, profile: &Profile) -> Target {
        let rates = profile.rates(self.isa.vector_bits(), self.fma);
        Target { rates, ..self }
    }

    /// How fast a core does what estimates count.
    pub fn rates(&self) -> &Rates {
        &self.rates
    }

    /// What decides which schedule is the fastest, as one line: the architecture, the instruction
    /// set (which implies its features), fused multiply-add, and the bytes of each level of cache.
    /// Cores are left out: what counts is how many threads a call has.
    pub fn key(&self) -> String {
        let fma = if self.fma { "fma" } else { "no-fma" };
        let Caches { l1d, l2, l3 } = self.caches;
        format!("{} {} {fma} l1d{l1d} l2{l2} l3{l3}", self.triple.architecture, self.isa)
    }

    /// What micro-kernels are made for; none where Cranelift writes all code.
    pub fn unit(&self) -> Option<VectorUnit> {
        self.isa.unit()
    }

    /// Whether loops over register tiles become micro-kernels, with sums in all registers.
    pub fn has_micro_kernels(&self) -> bool {
        self.unit().is_some()
    }

    /// Whether a vector may touch some of its lanes only: see [`VectorUnit::masked_access`].
    pub fn has_masks(&self) -> bool {
        self.unit().is_some_and(|unit| unit.masked_access)
    }

    /// Vectors that so many lanes are: the last one masked; without masks those that are whole, and
    /// what is left is done lane by lane.
    pub(crate) fn vectors_for(&self, lanes: u64) -> u64 {
        let width = u64::from(self.lanes());
        if self.has_masks() { lanes.div_ceil(width) } else { (lanes / width).max(1) }
    }

    /// Vectors, and single elements where the last one is not masked, that so many neighbours take.
    pub(crate) fn operations_for(&self, neighbours: u64) -> u64 {
        let width = u64::from(self.lanes());
        match self.has_masks() {
            true => neighbours.div_ceil(width),
            false => neighbours / width + neighbours % width,
        }
    }

    /// Whether lanes can be put in any order: see [`VectorUnit::permutes`].
    pub fn has_permutes(&self) -> bool {
        self.unit().is_some_and(|unit| unit.permutes)
    }

    /// Whether code fetches ahead: see [`VectorUnit::prefetches`].
    pub fn has_prefetch(&self) -> bool {
        self.unit().is_some_and(|unit| unit.prefetches)
    }

    /// Single floats in a vector.
    pub fn lanes(&self) -> u32 {
        self.isa.lanes(ElemType::F32)
    }

    /// How many iterations a loop should look ahead that reads a stream of so many bytes, `step` of
    /// them an iteration; none where a cache near the core holds the stream, or where nothing is
    /// emitted for it.
    pub fn ahead(&self, bytes: u64, step: u64) -> Option<u32> {
        let far = bytes > self.caches.l2 as u64 / 2 && self.has_prefetch();
        far.then(|| LOOK_AHEAD_BYTES.div_ceil(step.max(1)) as u32)
    }

    /// Vector registers.
    pub fn registers(&self) -> u32 {
        match (self.unit(), self.triple.architecture) {
            (Some(unit), _) => unit.registers as u32,
            (None, Architecture::Aarch64(_)) => 32,
            (None, _) => 16,
        }
    }

    /// The same target without fused multiply-add instructions, of a core with the rates of a
    /// profile.
    pub fn without_fma(mut self, profile: &Profile) -> Target {
        self.fma = false;
        self.with_profile(profile)
    }

    /// What the verifier grants a nest: register tiles of 4 KiB, twice the largest register file
    /// (what does not fit is spilled by Cranelift, correctly, but in more than linear time),
    /// scratch up to [`WORKSPACE_BYTES`], and code up to some megabytes.
    pub fn limits(&self) -> Limits {
        let scratch_bytes = WORKSPACE_BYTES as i64;
        Limits { reg_bytes: 4 << 10, scratch_bytes, unrolled: 1 << 15 }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fma = if self.fma { "fma" } else { "no fma" };
        write!(
            f,
            "{} {}: {} registers of {} lanes, {fma}",
            self.triple.architecture,
            self.isa,
            self.registers(),
            self.lanes()
        )
    }
}

/// The machine this process runs on. Holding one proves that its features were detected.
#[derive(Clone, Debug)]
pub struct Host {
    cpu: String,
    features: Vec<&'static str>,
    caches: Caches,
    cores: usize,
    profile: Profile,
}

impl Host {
    /// Asks the CPU.
    pub fn detect() -> Host {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let features = detect::features();
        let core = Core::of(&detect::id(), features.contains(&"avx512f"));
        let (cpu, caches, profile) = (detect::cpu(), detect::caches(), core.profile());
        Host { cpu, features, caches, cores, profile }
    }

    /// The same, but its cores have the rates of a profile, such as one measured on it.
    pub fn with_profile(self, profile: Profile) -> Host {
        Host { profile, ..self }
    }

    /// The rates of its cores: shipped for the CPU or the nearest to it, or given.
    pub fn profile(&self) -> &Profile {
        &self.profile
    }

    /// The CPU's name for itself.
    pub fn cpu_name(&self) -> &str {
        &self.cpu
    }

    /// The vector features the CPU and the operating system offer.
    pub fn features(&self) -> &[&'static str] {
        &self.features
    }

    /// Whether a feature was detected.
    pub fn has(&self, feature: &str) -> bool {
        self.features.contains(&feature)
    }

    /// The caches of a core.
    pub fn caches(&self) -> Caches {
        self.caches
    }

    /// Cores this process may use.
    pub fn cores(&self) -> usize {
        self.cores
    }

    /// The widest instruction set that this machine has.
    pub fn widest_isa(&self) -> Isa {
        let wider = Isa::ALL.into_iter().rev().find(|isa| self.target(*isa).is_ok());
        wider.unwrap_or(Isa::Clif)
    }

    /// This machine as a target of an instruction set.
    ///
    /// # Errors
    /// The feature that is missing, by name.
    pub fn target(&self, isa: Isa) -> Result<Target, TargetError> {
        let fma = match Triple::host().architecture {
            Architecture::X86_64 => {
                if let Some(feature) = isa.features().iter().find(|f| !self.has(f)) {
                    return Err(TargetError::Feature { isa, feature });
                }
                self.has("fma")
            }
            other if isa.unit().is_some() => {
                return Err(TargetError::Architecture { architecture: other.to_string() });
            }
            // Every 64-bit Arm has fmla; other architectures are refused by `Target::new`.
            _ => true,
        };
        let target = Target::new(Triple::host(), isa, fma, self.caches, self.cores)?;
        Ok(target.with_profile(&self.profile))
    }
}

#[cfg(target_arch = "x86_64")]
mod detect {
    //! Features as the standard library sees them (which includes what the operating system saves),
    //! caches and the name by CPUID.

    use std::arch::x86_64::{__cpuid, __cpuid_count, CpuidResult};

    use super::{Caches, CpuId};

    /// The first of the extended leaves, which count on their own.
    const EXTENDED: u32 = 1 << 31;
    /// The processor's name for itself, 16 bytes a leaf.
    const NAME: [u32; 3] = [EXTENDED + 2, EXTENDED + 3, EXTENDED + 4];
    /// Sizes of caches in fields of their own, by AMD's processors.
    const L1: u32 = EXTENDED + 5;
    const L2_AND_L3: u32 = EXTENDED + 6;
    /// A list of caches by their shapes: Intel's leaf, and AMD's.
    const LISTS: [u32; 2] = [4, EXTENDED + 0x1d];
    /// More than there are caches in a list.
    const MOST_CACHES: u32 = 16;

    /// A part of a leaf, if the processor has the leaf.
    fn leaf(number: u32, part: u32) -> Option<CpuidResult> {
        let last = __cpuid(number & EXTENDED).eax;
        (number <= last).then(|| __cpuid_count(number, part))
    }

    pub(super) fn cpu() -> String {
        let words = NAME.into_iter().filter_map(|number| leaf(number, 0));
        let words = words.flat_map(|leaf| [leaf.eax, leaf.ebx, leaf.ecx, leaf.edx]);
        let bytes = words.flat_map(u32::to_le_bytes).take_while(|byte| *byte != 0);
        match String::from_utf8_lossy(&bytes.collect::<Vec<u8>>()).trim() {
            "" => "unknown x86-64".to_string(),
            name => name.to_string(),
        }
    }

    /// Vendor, and the family with its extension from the first word of leaf 1.
    pub(super) fn id() -> CpuId {
        let vendor = leaf(0, 0).map(|leaf| [leaf.ebx, leaf.edx, leaf.ecx]).unwrap_or_default();
        let vendor: Vec<u8> = vendor.into_iter().flat_map(u32::to_le_bytes).collect();
        let word = leaf(1, 0).map_or(0, |leaf| leaf.eax);
        let family = word >> 8 & 15;
        let family = if family == 15 { family + (word >> 20 & 255) } else { family };
        CpuId { vendor: String::from_utf8_lossy(&vendor).into_owned(), family }
    }

    pub(super) fn features() -> Vec<&'static str> {
        let all = probed().into_iter();
        all.filter_map(|(name, present)| present.then_some(name)).collect()
    }

    /// Every feature that is asked for, and whether it is there.
    pub(super) fn probed() -> [(&'static str, bool); 9] {
        [
            ("sse4.1", std::is_x86_feature_detected!("sse4.1")),
            ("avx", std::is_x86_feature_detected!("avx")),
            ("avx2", std::is_x86_feature_detected!("avx2")),
            ("fma", std::is_x86_feature_detected!("fma")),
            ("bmi2", std::is_x86_feature_detected!("bmi2")),
            ("avx512f", std::is_x86_feature_detected!("avx512f")),
            ("avx512vl", std::is_x86_feature_detected!("avx512vl")),
            ("avx512dq", std::is_x86_feature_detected!("avx512dq")),
            ("avx512bw", std::is_x86_feature_detected!("avx512bw")),
        ]
    }

    pub(super) fn caches() -> Caches {
        let mut caches = Caches::TYPICAL;
        let mut note = |level: u32, bytes: usize| match (level, bytes) {
            (_, 0) => {}
            (1, _) => caches.l1d = bytes,
            (2, _) => caches.l2 = bytes,
            (3, _) => caches.l3 = bytes,
            (_, _) => {}
        };
        // Older AMD processors have only these, which give the third level of the whole package.
        // Where there is a list too, it knows what one core sees.
        if let Some(l1) = leaf(L1, 0) {
            note(1, (l1.ecx as usize >> 24) << 10);
        }
        if let Some(outer) = leaf(L2_AND_L3, 0) {
            note(2, (outer.ecx as usize >> 16) << 10);
            note(3, (outer.edx as usize >> 18) << 19);
        }
        for list in LISTS {
            let parts = (0..MOST_CACHES).map_while(|part| leaf(list, part));
            for cache in parts.take_while(|cache| cache.eax & 31 != 0) {
                // 1 is data, 2 instructions, 3 both.
                if cache.eax & 31 != 2 {
                    note(cache.eax >> 5 & 7, bytes(cache));
                }
            }
        }
        caches
    }

    /// Ways, partitions of a line, bytes of one, and sets, each less one.
    fn bytes(cache: CpuidResult) -> usize {
        let fields = [cache.ebx >> 22, cache.ebx >> 12 & 0x3ff, cache.ebx & 0xfff, cache.ecx];
        fields.into_iter().map(|field| field as usize + 1).product()
    }
}

#[cfg(not(target_arch = "x86_64"))]
mod detect {
    //! Nothing is asked: Cranelift's vectors are part of the base architecture.

    use super::{Caches, CpuId};

    pub(super) fn cpu() -> String {
        std::env::consts::ARCH.to_string()
    }

    pub(super) fn id() -> CpuId {
        CpuId { vendor: String::new(), family: 0 }
    }

    pub(super) fn features() -> Vec<&'static str> {
        vec![]
    }

    pub(super) fn caches() -> Caches {
        Caches::TYPICAL
    }
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::*;

    #[test]
    fn every_feature_of_an_instruction_set_is_asked_for() {
        let asked = detect::probed().map(|(name, _)| name);
        for isa in Isa::ALL {
            assert!(isa.features().iter().all(|feature| asked.contains(feature)), "{isa}");
        }
    }
}
