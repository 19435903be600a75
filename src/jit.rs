//! The only unsafe code: executable memory, function pointers, the call.
//!
//! # Obligations
//! Each `unsafe` block cites what it relies on.
//!
//! - **J1** The code was emitted by this crate from a `VerifiedNest`: all its accesses lie inside
//!   the buffers that the nest declares at the given batch (verifier rules V4, V5), whatever the
//!   values.
//! - **J2** A [`Call`] is built only after the length of every slice was compared with the buffer's
//!   shape at that batch, both exact, and the tasks were counted; the borrows it holds keep the
//!   slices alive and the output unaliased. Where the input of a task is computed, its length was
//!   compared when the code was made.
//! - **J3** Two [`Tasks`] of one call never overlap: they come from splitting one range, and are
//!   consumed by running. Different tasks write different elements (V6 within a nest; the nests of
//!   a kernel write different stripes, by V12 and `Compiler::lower`), so they may run on different
//!   threads.
//! - **J4** Scratch is as long and as aligned as the nest asks for, and owned by the running
//!   thread.
//! - **J5** The code lives as long as the [`Code`] that owns it; function pointers never leave it,
//!   and a call borrows it. After `Code` is dropped none is left.
//! - **J6** The code was emitted for the features that a `Host` detected on this machine.
//! - **J7** A `Probe` holds code that keeps the promises of the module that alone makes them: the
//!   signature, no memory but the given chunks read, none written, only features of this host.
//! - **J8** Instructions that set how this thread rounds leave what Rust relies on: the control
//!   word of the C calling convention while Rust and kernels run, and the caller's own afterwards.
#![allow(unsafe_code)]
#![deny(clippy::arithmetic_side_effects, clippy::cast_possible_truncation)]

mod scratch;
pub(crate) mod stage;

use std::marker::PhantomData;
use std::ops::Range;
use std::sync::Arc;

use convgen_ir::nest::{BufferId, Nest, Role};
use convgen_ir::verify::VerifiedNest;
use cranelift_codegen::isa::TargetIsa;
use cranelift_jit::{JITBuilder, JITModule};
use cranelift_module::{FuncId, Linkage, Module, default_libcall_names};

pub use self::scratch::Scratch;
use self::stage::Stage;
use crate::codegen::probe::Probe;
use crate::codegen::{self, Entry};
use crate::error::{Error, RunError};
use crate::held;
use crate::link::{CodeSizes, codegen_error, define, part_prefix};
use crate::lower::Outlined;
use crate::target::{CACHE_LINE, Target};

/// The C signature of the kernel ABI; see [`codegen`].
type EntryPoint = unsafe extern "C" fn(*const *mut u8, i64, i64, i64, *mut u8);

/// The machine code of the nests of one kernel, in memory of its own.
pub struct Code {
    parts: Vec<CompiledPart>,
    /// Taken only by `drop`.
    module: Option<JITModule>,
    sizes: CodeSizes,
    /// Bytes of scratch that the hungriest part needs.
    scratch_bytes: i64,
    /// What computes the nest's input for each task, where that is not the caller's.
    stage: Option<Arc<dyn Stage>>,
}

/// One nest, which writes a part of the output, and its code.
struct CompiledPart {
    nest: VerifiedNest,
    body: EntryPoint,
    pack: Option<EntryPoint>,
    /// The buffers of a call, in order, with their roles: listed once, so that a call allocates
    /// nothing.
    arguments: Vec<(BufferId, Role)>,
    /// Which of the kernel's packed weights are this part's.
    packed: Range<usize>,
}

// SAFETY: the module is not touched after `new` until `drop` has the only reference; what is shared
// is immutable code and plain data.
unsafe impl Send for Code {}
// SAFETY: as above; running code needs no access to the module.
unsafe impl Sync for Code {}

impl Code {
    /// Compiles the entry points of a kernel's nests for this host, those that are loops around
    /// calls the quick way.
    ///
    /// # Errors
    /// [`Error::Codegen`] if Cranelift refuses the code or the memory, [`Error::CodeSize`] if it is
    /// too much.
    pub(crate) fn new(
        nests: Vec<Outlined>,
        target: &Target,
        isa: &Arc<dyn TargetIsa>,
        quick: &dyn TargetIsa,
    ) -> Result<Code, Error> {
        let builder = JITBuilder::with_isa(Arc::clone(isa), default_libcall_names());
        let module = JITModule::new(builder);
        // Dropping this frees the module, also when a later step fails.
        let mut code = Code {
            parts: vec![],
            module: Some(module),
            sizes: CodeSizes::default(),
            scratch_bytes: 0,
            stage: None,
        };
        let Some(module) = &mut code.module else { return Ok(code) };
        let mut functions = Vec::new();
        let emitted = codegen::isa::clif::emit_all(&nests, target, &**isa)?;
        for (number, entries) in emitted.into_iter().enumerate() {
            let prefix = part_prefix(number);
            functions.push(define(module, entries, Some(quick), &prefix, &mut code.sizes)?);
        }
        module.finalize_definitions().map_err(codegen_error)?;
        let mut packed = 0;
        for (nest, functions) in nests.into_iter().zip(functions) {
            let part = CompiledPart::new(nest.into_nest(), &functions, module, packed)?;
            packed = part.packed.end;
            code.scratch_bytes = code.scratch_bytes.max(part.nest.scratch_bytes());
            code.parts.push(part);
        }
        Ok(code)
    }

    /// The same code as the last stage of a kernel: its input is what the stage before leaves for a
    /// task.
    ///
    /// # Errors
    /// [`RunError::Length`] if the nest's input is not of that length.
    pub(crate) fn after(mut self, stage: Arc<dyn Stage>) -> Result<Code, RunError> {
        for part in &self.parts {
            let inputs = part.arguments.iter().filter(|(_, role)| *role == Role::Input);
            for (id, _) in inputs {
                check("input", stage.output_len(), part.elements(*id, 0))?;
            }
        }
        self.stage = Some(stage);
        Ok(self)
    }

    /// The nests the code was made from: together they write every element of the output once.
    pub fn nests(&self) -> impl ExactSizeIterator<Item = &VerifiedNest> {
        self.parts.iter().map(|part| &part.nest)
    }

    /// Bytes of scratch that a thread of a call needs.
    pub fn scratch_bytes(&self) -> i64 {
        let stage = self.stage.as_ref().map_or(0, |stage| stage.workspace_bytes());
        self.scratch_bytes.saturating_add_unsigned(stage as u64)
    }

    /// The number of packed weights, of all parts.
    pub fn packed_len(&self) -> usize {
        match &self.stage {
            Some(stage) => stage.packed_len(),
            None => self.parts.last().map_or(0, |part| part.packed.end),
        }
    }

    /// The number of tasks of a call with that many images, of all parts, if an `i64` holds it.
    pub fn tasks(&self, batch: usize) -> Option<i64> {
        let batch = i64::try_from(batch).ok()?;
        self.parts.iter().try_fold(0_i64, |sum, part| sum.checked_add(part.tasks(batch)?))
    }

    /// Bytes of machine code.
    pub fn bytes(&self) -> usize {
        let own =
            self.sizes.functions.iter().fold(0_usize, |sum, bytes| sum.saturating_add(*bytes));
        own.saturating_add(self.stage.as_ref().map_or(0, |stage| stage.code_bytes()))
    }

    /// Bytes of memory held, about: the code, its tables and its nests.
    pub(crate) fn held_bytes(&self) -> usize {
        let parts = self.parts.iter().map(|part| {
            let table = size_of_val(&part.arguments[..]).saturating_add(size_of::<CompiledPart>());
            table.saturating_add(held::nest(part.nest.nest()))
        });
        let stage = self.stage.as_ref().map_or(0, |stage| stage.held_bytes());
        parts.fold(held::code(&self.sizes.functions), usize::saturating_add).saturating_add(stage)
    }

    /// Bytes of stack that a call needs.
    pub(crate) fn stack_bytes(&self) -> u32 {
        let stage = self.stage.as_ref().map_or(0, |stage| stage.stack_bytes());
        self.sizes.stack.max(stage)
    }

    /// Compares weights with what [`pack`](Code::pack) reads: before memory is asked for to pack
    /// them into.
    ///
    /// # Errors
    /// If `weights` is not as long as the nests' buffers.
    pub(crate) fn check_weights(&self, weights: &[&[f32]]) -> Result<(), RunError> {
        if let Some(stage) = &self.stage {
            return stage.check_weights(weights.first().copied().unwrap_or_default());
        }
        self.parts.iter().try_for_each(|part| part.sources(weights).map(drop))
    }

    /// Runs the pack blocks on one slice for each weights buffer of a nest; a part without a pack
    /// block gets a copy of the weights.
    ///
    /// # Errors
    /// If `weights` or `packed` is not as long as the nests' buffers.
    pub(crate) fn pack(&self, weights: &[&[f32]], packed: &mut [f32]) -> Result<(), RunError> {
        check("packed weights", packed.len(), Some(self.packed_len()))?;
        let _environment = FloatEnvironment::of_kernels();
        if let Some(stage) = &self.stage {
            return stage.pack(weights.first().copied().unwrap_or_default(), packed);
        }
        self.parts.iter().try_for_each(|part| part.pack(weights, &mut packed[part.packed.clone()]))
    }

    /// Binds the buffers of a call.
    ///
    /// # Errors
    /// The first slice that is missing or of the wrong length, or more images than can be counted.
    pub(crate) fn call<'a>(
        &'a self,
        images: usize,
        inputs: Inputs<'a>,
        output: &'a mut [f32],
    ) -> Result<Call<'a>, RunError> {
        if let Some(stage) = &self.stage {
            check("input", inputs.input.len(), stage.input_len(images))?;
            check("packed weights", inputs.weights.len(), Some(stage.packed_len()))?;
        }
        let counted = i64::try_from(images).ok().zip(self.tasks(images));
        let Some((batch, tasks)) = counted else {
            return Err(RunError::Images { given: images });
        };
        for part in &self.parts {
            part.slices(&inputs, |what, id, slice| match slice {
                Some(_) if what == INPUT && self.stage.is_some() => Ok(()),
                Some(slice) => check(what, slice.len(), part.elements(id, batch)),
                None => check("output", output.len(), part.elements(id, batch)),
            })?;
        }
        let output = output.as_mut_ptr();
        Ok(Call { code: self, inputs, output, batch, tasks, borrows: PhantomData })
    }
}

impl CompiledPart {
    /// The finalized functions of a nest; its packed weights follow those before it.
    fn new(
        nest: VerifiedNest,
        functions: &[(Entry, FuncId)],
        module: &JITModule,
        packed: usize,
    ) -> Result<CompiledPart, Error> {
        let entry = |wanted: Entry| {
            let id = functions.iter().find(|(entry, _)| *entry == wanted).map(|(_, id)| *id)?;
            let address = module.get_finalized_function(id);
            // SAFETY: J1, J6: the function was emitted with the signature of the kernel ABI for a
            // host with these features, and is finalized.
            Some(unsafe { std::mem::transmute::<*const u8, EntryPoint>(address) })
        };
        let ir = nest.nest();
        let arguments: Vec<(BufferId, Role)> =
            Entry::Body.arguments(ir).into_iter().map(|id| (id, ir.buffer(id).role)).collect();
        if arguments.len() > MAX_ARGUMENTS {
            let (given, limit) = (arguments.len(), MAX_ARGUMENTS);
            return Err(Error::CodeSize { what: "buffers a call", given, limit });
        }
        let Some(body) = entry(Entry::Body) else {
            return Err(Error::Codegen { message: "the nest has no body".to_string() });
        };
        let end = ir
            .find_all(ir.weights_role())
            .try_fold(packed, |end, id| end.checked_add(elements(ir, id, 0)?));
        let Some(end) = end else {
            return Err(RunError::Length {
                what: "packed weights",
                given: packed,
                expected: usize::MAX,
            }
            .into());
        };
        let pack = entry(Entry::Pack);
        Ok(CompiledPart { nest, body, pack, arguments, packed: packed..end })
    }

    /// The number of tasks, if an `i64` holds it.
    fn tasks(&self, batch: i64) -> Option<i64> {
        self.nest.nest().tasks(batch)
    }

    /// The number of elements of a buffer, if this machine can address so many.
    fn elements(&self, id: BufferId, batch: i64) -> Option<usize> {
        elements(self.nest.nest(), id, batch)
    }

    /// The slice of each weights buffer of the nest.
    fn sources<'w>(&self, weights: &[&'w [f32]]) -> Result<Vec<&'w [f32]>, RunError> {
        let mut given = weights.iter().copied();
        let ids = self.nest.nest().find_all(Role::Weights);
        ids.map(|id| {
            let source = given.next().unwrap_or_default();
            check("weights", source.len(), self.elements(id, 0))?;
            Ok(source)
        })
        .collect()
    }

    fn pack(&self, weights: &[&[f32]], packed: &mut [f32]) -> Result<(), RunError> {
        let ir = self.nest.nest();
        let sources = self.sources(weights)?;
        check("packed weights", packed.len(), Some(self.packed.len()))?;
        let mut rest = packed;
        let Some(pack) = self.pack else {
            for source in sources {
                let (place, after) = rest.split_at_mut(source.len());
                place.copy_from_slice(source);
                rest = after;
            }
            return Ok(());
        };
        let mut arguments: Vec<*mut u8> =
            sources.iter().map(|source| source.as_ptr().cast_mut().cast()).collect();
        for id in ir.find_all(Role::Packed) {
            // All of them together are as long as `packed`.
            let (place, after) = rest.split_at_mut(self.elements(id, 0).unwrap_or(0));
            arguments.push(place.as_mut_ptr().cast());
            rest = after;
        }
        let mut scratch = Scratch::new();
        let scratch = scratch.reserve(self.nest.scratch_bytes());
        // SAFETY: J1, J4, J5; all lengths were just compared with the nest's shapes (J2), and the
        // code only reads the weights (V3).
        unsafe { pack(arguments.as_ptr(), 0, 0, 0, scratch) };
        Ok(())
    }

    /// Visits the buffers of a call in the order of the ABI: the word for each in errors, and its
    /// slice, or nothing for the output.
    fn slices<'a>(
        &self,
        inputs: &Inputs<'a>,
        mut visit: impl FnMut(&'static str, BufferId, Option<&'a [f32]>) -> Result<(), RunError>,
    ) -> Result<(), RunError> {
        let mut extras = inputs.extras.iter();
        let mut biases = inputs.biases.iter().flatten();
        let mut weights = inputs.weights.get(self.packed.clone()).unwrap_or(&[]);
        for (id, role) in &self.arguments {
            let (what, slice) = match role {
                Role::Input => (INPUT, inputs.input),
                Role::Weights | Role::Packed => {
                    let elements = self.elements(*id, 0).unwrap_or(usize::MAX);
                    let (own, rest) = weights.split_at_checked(elements).unwrap_or((weights, &[]));
                    weights = rest;
                    ("packed weights", own)
                }
                Role::Bias => ("bias", biases.next().copied().unwrap_or(&[])),
                Role::Gradient => ("gradient", extras.next().copied().unwrap_or(&[])),
                Role::Scale | Role::Residual => {
                    ("epilogue argument", extras.next().copied().unwrap_or(&[]))
                }
                Role::Output | Role::Scratch | Role::Reg => {
                    visit("output", *id, None)?;
                    continue;
                }
            };
            visit(what, *id, Some(slice))?;
        }
        Ok(())
    }
}

/// The word for the input in errors.
const INPUT: &str = "input";

/// Sums that one nest computes at most: a convolution, or a depthwise one and a pointwise one.
pub(crate) const MAX_SUMS: usize = 2;

/// What a call reads.
#[derive(Clone, Copy)]
pub(crate) struct Inputs<'a> {
    pub(crate) input: &'a [f32],
    /// Of all parts, one after the other.
    pub(crate) weights: &'a [f32],
    /// That of each sum of the nest, in order.
    pub(crate) biases: [Option<&'a [f32]>; MAX_SUMS],
    pub(crate) extras: &'a [&'a [f32]],
}

impl Drop for Code {
    fn drop(&mut self) {
        if let Some(module) = self.module.take() {
            // SAFETY: J5: nobody else has a pointer into the module, and no call borrows `self`.
            unsafe { module.free_memory() };
        }
    }
}

/// Compares a length with that of a buffer; none is one that no slice has.
fn check(what: &'static str, given: usize, expected: Option<usize>) -> Result<(), RunError> {
    match expected {
        Some(expected) if given == expected => Ok(()),
        Some(expected) => Err(RunError::Length { what, given, expected }),
        None => Err(RunError::Length { what, given, expected: usize::MAX }),
    }
}

/// The number of elements of a buffer, if this machine can address so many.
fn elements(nest: &Nest, id: BufferId, batch: i64) -> Option<usize> {
    nest.buffer(id).len(batch).and_then(|elements| usize::try_from(elements).ok())
}

/// Input, output, weights and bias of two sums, and what the longest epilogues of both take.
const MAX_ARGUMENTS: usize = 40;

/// The buffers of one call, checked; to be run task by task.
pub struct Call<'a> {
    code: &'a Code,
    inputs: Inputs<'a>,
    output: *mut f32,
    batch: i64,
    /// Of all parts.
    tasks: i64,
    borrows: PhantomData<&'a mut [f32]>,
}

// SAFETY: J2: the pointers stand for borrows, shared ones of the inputs and a unique one of the
// output; J3: tasks of a call write different elements.
unsafe impl Send for Call<'_> {}
// SAFETY: as above: a shared call only hands out its pointers to disjoint tasks.
unsafe impl Sync for Call<'_> {}

impl Call<'_> {
    /// The number of images.
    pub(crate) fn batch(&self) -> usize {
        usize::try_from(self.batch).unwrap_or(0)
    }

    /// All tasks of the call. Takes the call by unique reference, so that they exist once.
    pub fn tasks(&mut self) -> Tasks<'_> {
        Tasks { range: 0..self.tasks, call: self }
    }

    /// One pointer a buffer of the part, in the order of the ABI, without an allocation.
    fn pointers(&self, part: &CompiledPart, inputs: &Inputs) -> [*mut u8; MAX_ARGUMENTS] {
        let mut pointers = [std::ptr::null_mut(); MAX_ARGUMENTS];
        let mut places = pointers.iter_mut();
        // Visiting does not fail, and there are places enough: `CompiledPart::new` counted the
        // arguments.
        let _ = part.slices(inputs, |_, _, slice| {
            if let Some(place) = places.next() {
                *place = slice.map_or(self.output, |slice| slice.as_ptr().cast_mut()).cast();
            }
            Ok(())
        });
        pointers
    }
}

/// A range of tasks of a call that nobody else has.
pub struct Tasks<'c> {
    call: &'c Call<'c>,
    range: Range<i64>,
}

impl<'c> Tasks<'c> {
    /// The number of tasks.
    pub fn len(&self) -> usize {
        let len = self.range.end.saturating_sub(self.range.start);
        usize::try_from(len).unwrap_or(0)
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The first `count` tasks, and the rest.
    pub fn split_at(self, count: usize) -> (Tasks<'c>, Tasks<'c>) {
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        let middle = self.range.start.saturating_add(count).min(self.range.end);
        let (first, rest) = (self.range.start..middle, middle..self.range.end);
        (Tasks { call: self.call, range: first }, Tasks { call: self.call, range: rest })
    }

    /// Runs the tasks on this thread.
    pub fn run(self, scratch: &mut Scratch) {
        let call = self.call;
        let _environment = FloatEnvironment::of_kernels();
        if let Some(stage) = call.code.stage.as_deref() {
            return self.run_stages(stage, scratch);
        }
        let scratch = scratch.reserve(call.code.scratch_bytes);
        let mut first = 0_i64;
        for part in &call.code.parts {
            // All of them were counted when the call was made.
            let count = part.tasks(call.batch).unwrap_or(0);
            // The tasks of this part are numbered from `first` on.
            let start = self.range.start.saturating_sub(first).max(0);
            let end = self.range.end.saturating_sub(first).min(count);
            first = first.saturating_add(count);
            if start >= end {
                continue;
            }
            let pointers = call.pointers(part, &call.inputs);
            // SAFETY: J1, J2, J3, J4, J5: the call checked the lengths, this value owns the range,
            // and the scratch is exclusively borrowed.
            unsafe { (part.body)(pointers.as_ptr(), call.batch, start, end, scratch) };
        }
    }

    /// Runs the tasks one by one, each on the input that the stage before computes for it.
    fn run_stages(self, stage: &dyn Stage, scratch: &mut Scratch) {
        let call = self.call;
        let mut workspace = stage.workspace(scratch.workspace.take());
        let lines = scratch.reserve(call.code.scratch_bytes);
        for task in self.range {
            let Ok(number) = usize::try_from(task) else { break };
            // The lengths that could be refused were compared when the code and the call were made.
            let Some(input) = stage.run(&call.inputs, number, &mut *workspace) else { break };
            if input.len() != stage.output_len() {
                break;
            }
            for part in &call.code.parts {
                let pointers = call.pointers(part, &Inputs { input, ..call.inputs });
                let end = task.saturating_add(1);
                // SAFETY: J1, J2, J3, J4, J5: as in `run`; the input has the length of
                // `output_len`.
                unsafe { (part.body)(pointers.as_ptr(), call.batch, task, end, lines) };
            }
        }
        scratch.workspace = Some(workspace);
    }
}

/// How this thread computes with floats while kernels run: as the language says, whatever the
/// caller has set. A program that flushes denormals, as audio hosts do, would otherwise get other
/// bits on its own thread than on those of a pool. What was set comes back on drop.
struct FloatEnvironment {
    /// What the caller has set, if it is something else.
    caller: Option<ControlWord>,
}

impl FloatEnvironment {
    /// Rounding to nearest, denormals kept, no exception trapped.
    fn of_kernels() -> FloatEnvironment {
        let given = control_word();
        let wanted = (given & STATUS) | STANDARD;
        let caller = (given != wanted).then_some(given);
        if caller.is_some() {
            set_control_word(wanted);
        }
        FloatEnvironment { caller }
    }
}

impl Drop for FloatEnvironment {
    fn drop(&mut self) {
        if let Some(caller) = self.caller {
            set_control_word(caller);
        }
    }
}

/// The control and status word of SSE and AVX: `MXCSR`.
#[cfg(target_arch = "x86_64")]
type ControlWord = u32;
/// The exceptions so far, which are the caller's to read.
#[cfg(target_arch = "x86_64")]
const STATUS: ControlWord = 0x3f;
/// Every exception masked, rounding to nearest, neither flush to zero nor denormals as zeros.
#[cfg(target_arch = "x86_64")]
const STANDARD: ControlWord = 0x1f80;

#[cfg(target_arch = "x86_64")]
fn control_word() -> ControlWord {
    let mut word: ControlWord = 0;
    // SAFETY: J8: writes the four bytes of `word`, and changes nothing.
    unsafe { std::arch::asm!("stmxcsr [{}]", in(reg) &raw mut word, options(nostack)) };
    word
}

#[cfg(target_arch = "x86_64")]
fn set_control_word(word: ControlWord) {
    // SAFETY: J8: the word is the standard one, or one that this thread had; reserved bits are zero
    // in both.
    unsafe { std::arch::asm!("ldmxcsr [{}]", in(reg) &raw const word, options(nostack)) };
}

/// The control register of 64-bit Arm: `FPCR`. Exceptions are in another register.
#[cfg(target_arch = "aarch64")]
type ControlWord = u64;
#[cfg(target_arch = "aarch64")]
const STATUS: ControlWord = 0;
/// No exception trapped, rounding to nearest, denormals and NaNs kept.
#[cfg(target_arch = "aarch64")]
const STANDARD: ControlWord = 0;

#[cfg(target_arch = "aarch64")]
fn control_word() -> ControlWord {
    let word: ControlWord;
    // SAFETY: J8: reads a register.
    unsafe { std::arch::asm!("mrs {}, fpcr", out(reg) word, options(nostack)) };
    word
}

#[cfg(target_arch = "aarch64")]
fn set_control_word(word: ControlWord) {
    // SAFETY: J8: the word is the standard one, or one that this thread had.
    unsafe { std::arch::asm!("msr fpcr, {}", in(reg) word, options(nostack)) };
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
type ControlWord = u32;
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
const STATUS: ControlWord = 0;
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
const STANDARD: ControlWord = 0;

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn control_word() -> ControlWord {
    STANDARD
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn set_control_word(_: ControlWord) {}

/// The signature of a probe; see [`probe`](crate::codegen::probe).
#[cfg(target_arch = "x86_64")]
type ProbeEntry = unsafe extern "sysv64" fn(u64, *const u8, u64);
#[cfg(not(target_arch = "x86_64"))]
type ProbeEntry = unsafe extern "C" fn(u64, *const u8, u64);

/// A loop that measures the machine, in memory of its own.
pub(crate) struct ProbeCode {
    probe: Probe,
    /// Taken only by `drop`.
    module: Option<JITModule>,
    entry: ProbeEntry,
}

impl ProbeCode {
    /// Makes the code executable; nothing if the host refuses the memory.
    pub(crate) fn new(probe: Probe) -> Option<ProbeCode> {
        let mut module = JITModule::new(JITBuilder::new(default_libcall_names()).ok()?);
        let Some(id) = define_probe(&mut module, &probe) else {
            // SAFETY: J5: no pointer into the module was taken yet.
            unsafe { module.free_memory() };
            return None;
        };
        let address = module.get_finalized_function(id);
        // SAFETY: J7: the code has this signature, and is finalized.
        let entry = unsafe { std::mem::transmute::<*const u8, ProbeEntry>(address) };
        Some(ProbeCode { probe, module: Some(module), entry })
    }

    /// The bytes that [`run`](ProbeCode::run) reads are a multiple of this; 0 if it reads none.
    pub(crate) fn chunk_bytes(&self) -> usize {
        self.probe.chunk_bytes()
    }

    /// Runs that many passes, over the whole chunks of `data` if the probe reads.
    pub(crate) fn run(&self, passes: u64, data: &[f32]) {
        let chunks = size_of_val(data).checked_div(self.chunk_bytes()).unwrap_or(0);
        // SAFETY: J5, J7: the chunks lie inside of `data`, which is borrowed for the call.
        unsafe { (self.entry)(passes, data.as_ptr().cast(), chunks as u64) };
    }
}

impl Drop for ProbeCode {
    fn drop(&mut self) {
        if let Some(module) = self.module.take() {
            // SAFETY: J5: the only other pointer into the module dies with `self`.
            unsafe { module.free_memory() };
        }
    }
}

fn define_probe(module: &mut JITModule, probe: &Probe) -> Option<FuncId> {
    // The signature is Rust's alone: Cranelift compiles no call of it.
    let signature = module.make_signature();
    let id = module.declare_function("convgen_probe", Linkage::Export, &signature).ok()?;
    // At a cache line, so that the loop lies in as few as possible.
    module.define_function_bytes(id, CACHE_LINE as u64, probe.bytes(), &[]).ok()?;
    module.finalize_definitions().ok()?;
    Some(id)
}
