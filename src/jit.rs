//! The only unsafe code: executable memory, function pointers, the call.
//!
//! # Obligations
//! Each `unsafe` block cites what it relies on.
//!
//! - **J1** The code was emitted by this crate from a `VerifiedNest`: all its accesses lie inside the
//!   buffers that the nest declares at the given batch (verifier rules V4, V5), whatever the values.
//! - **J2** A [`Call`] is built only after the length of every slice was compared with the buffer's
//!   shape at that batch; the borrows it holds keep the slices alive and the output unaliased.
//! - **J3** Two [`Tasks`] of one call never overlap: they come from splitting one range, and are
//!   consumed by running. Different tasks write different elements (V6), so they may run on
//!   different threads.
//! - **J4** Scratch is as long and as aligned as the nest asks for, and owned by the running thread.
//! - **J5** The code lives as long as the [`Code`] that owns it; function pointers never leave it, and
//!   a call borrows it. After `Code` is dropped none is left.
//! - **J6** The code was emitted for the features that a `Host` detected on this machine.
//! - **J7** A `Probe` holds code that keeps the promises of the module that alone makes them: the
//!   signature, no memory but the given chunks read, none written, only features of this host.
#![allow(unsafe_code)]

use std::marker::PhantomData;
use std::ops::Range;
use std::sync::Arc;

use convgen_ir::nest::BufferId;
use convgen_ir::verify::{SCRATCH_ALIGN, VerifiedNest};
use cranelift_codegen::Context;
use cranelift_codegen::ir::{Function, UserExternalName};
use cranelift_codegen::isa::TargetIsa;
use cranelift_frontend::FunctionBuilderContext;
use cranelift_jit::{JITBuilder, JITModule};
use cranelift_module::{FuncId, Linkage, Module, ModuleError, default_libcall_names};

use crate::codegen::{self, Entry};
use crate::error::{Error, RunError};
use crate::machine::probe::Probe;
use crate::target::Target;

/// The C signature of the kernel ABI; see [`codegen`].
type EntryPoint = unsafe extern "C" fn(*const *mut u8, i64, i64, i64, *mut u8);

/// The machine code of one nest, in memory of its own.
pub struct Code {
    nest: VerifiedNest,
    /// Taken only by `drop`.
    module: Option<JITModule>,
    body: EntryPoint,
    pack: Option<EntryPoint>,
    bytes: usize,
    /// The buffers of a call, in order: listed once, so that a call allocates nothing.
    arguments: Vec<BufferId>,
}

// SAFETY: the module is not touched after `new` until `drop` has the only reference; what is shared
// is immutable code and plain data.
unsafe impl Send for Code {}
// SAFETY: as above; running code needs no access to the module.
unsafe impl Sync for Code {}

impl Code {
    /// Compiles the entry points of a nest for this host.
    ///
    /// # Errors
    /// [`Error::Codegen`] if Cranelift refuses the code or the memory.
    pub(crate) fn new(
        nest: VerifiedNest,
        target: &Target,
        isa: &Arc<dyn TargetIsa>,
    ) -> Result<Code, Error> {
        let builder = JITBuilder::with_isa(Arc::clone(isa), default_libcall_names());
        let mut module = JITModule::new(builder);
        let mut bytes = 0;
        let defined = define(&mut module, &nest, target, "", &mut bytes);
        let finished = defined.and_then(|ids| {
            module.finalize_definitions().map_err(codegen_error)?;
            Ok(ids)
        });
        let ids = match finished {
            Ok(ids) => ids,
            Err(error) => {
                // SAFETY: J5: no pointer into the module was taken yet.
                unsafe { module.free_memory() };
                return Err(error);
            }
        };
        let entry = |wanted: Entry| {
            let id = ids.iter().find(|(entry, _)| *entry == wanted).map(|(_, id)| *id)?;
            let address = module.get_finalized_function(id);
            // SAFETY: J1, J6: the function was emitted with the signature of the kernel ABI for a
            // host with these features, and is finalized.
            Some(unsafe { std::mem::transmute::<*const u8, EntryPoint>(address) })
        };
        let (body, pack) = (entry(Entry::Body), entry(Entry::Pack));
        match body {
            Some(body) => {
                let arguments = Entry::Body.arguments(nest.nest());
                Ok(Code { nest, module: Some(module), body, pack, bytes, arguments })
            }
            None => Err(Error::Codegen { message: "the nest has no body".to_string() }),
        }
    }

    /// The nest the code was made from.
    pub fn nest(&self) -> &VerifiedNest {
        &self.nest
    }

    /// Bytes of machine code.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Runs the pack block; without one, copies the weights.
    ///
    /// # Errors
    /// If `weights` or `packed` is not as long as the nest's buffer.
    pub(crate) fn pack(&self, weights: &[f32], packed: &mut [f32]) -> Result<(), RunError> {
        let Some(pack) = self.pack else {
            check("weights", weights.len(), packed.len())?;
            packed.copy_from_slice(weights);
            return Ok(());
        };
        let ids = Entry::Pack.arguments(self.nest.nest());
        check("weights", weights.len(), self.elements(ids[0], 0))?;
        check("packed weights", packed.len(), self.elements(ids[1], 0))?;
        let arguments = [weights.as_ptr().cast_mut().cast::<u8>(), packed.as_mut_ptr().cast()];
        let mut scratch = Scratch::new();
        let scratch = scratch.reserve(self.nest.scratch_bytes());
        // SAFETY: J1, J4, J5; both lengths were just compared with the nest's shapes (J2), and the
        // code only reads the weights (V3).
        unsafe { pack(arguments.as_ptr(), 0, 0, 0, scratch) };
        Ok(())
    }

    /// Binds the buffers of a call: `inputs` in the order of
    /// [`arguments`](convgen_ir::interpret::arguments), each with the word for it in errors.
    ///
    /// # Errors
    /// The first slice of the wrong length.
    pub(crate) fn call<'a>(
        &'a self,
        batch: usize,
        inputs: impl IntoIterator<Item = (&'static str, &'a [f32])>,
        output: &'a mut [f32],
    ) -> Result<Call<'a>, RunError> {
        let ids = &self.arguments;
        if ids.len() > MAX_ARGUMENTS {
            return Err(RunError::Extras { given: ids.len(), expected: MAX_ARGUMENTS });
        }
        let mut arguments = Arguments { pointers: [std::ptr::null_mut(); MAX_ARGUMENTS], count: 0 };
        for (what, slice) in inputs {
            let id = ids.get(arguments.count).copied();
            check(what, slice.len(), id.map_or(0, |id| self.elements(id, batch)))?;
            arguments.push(slice.as_ptr().cast_mut().cast());
        }
        if arguments.count + 1 != ids.len() {
            return Err(RunError::Extras { given: arguments.count, expected: ids.len() - 1 });
        }
        check("output", output.len(), self.elements(ids[arguments.count], batch))?;
        arguments.push(output.as_mut_ptr().cast());
        Ok(Call { code: self, arguments, batch: batch as i64, borrows: PhantomData })
    }

    fn elements(&self, id: BufferId, batch: usize) -> usize {
        self.nest.nest().buffer(id).len(batch as i64) as usize
    }
}

impl Drop for Code {
    fn drop(&mut self) {
        if let Some(module) = self.module.take() {
            // SAFETY: J5: nobody else has a pointer into the module, and no call borrows `self`.
            unsafe { module.free_memory() };
        }
    }
}

fn check(what: &'static str, given: usize, expected: usize) -> Result<(), RunError> {
    if given == expected { Ok(()) } else { Err(RunError::Length { what, given, expected }) }
}

pub(crate) fn codegen_error(error: ModuleError) -> Error {
    Error::Codegen { message: error.to_string() }
}

/// Compiles every entry point into any module: this process's memory, or an object file. The names
/// of the functions begin with the prefix.
pub(crate) fn define(
    module: &mut impl Module,
    nest: &VerifiedNest,
    target: &Target,
    prefix: &str,
    bytes: &mut usize,
) -> Result<Vec<(Entry, FuncId)>, Error> {
    let mut context = Context::new();
    let mut builder = FunctionBuilderContext::new();
    let mut ids = Vec::new();
    for entry in Entry::of(nest.nest()) {
        let emitted = codegen::clif::emit(nest, entry, target, module.isa(), &mut builder);
        context.func = emitted.function;
        let name = format!("{prefix}{}", entry.symbol());
        let id = module
            .declare_function(&name, Linkage::Export, &context.func.signature)
            .map_err(codegen_error)?;
        let signature = codegen::clif::micro_kernel_signature(module.isa());
        for (number, kernel) in emitted.micro_kernels.iter().enumerate() {
            let name = format!("{name}_{number}");
            let micro = module
                .declare_function(&name, Linkage::Local, &signature)
                .map_err(codegen_error)?;
            module
                .define_function_bytes(micro, MICRO_KERNEL_ALIGN, &kernel.code, &[])
                .map_err(codegen_error)?;
            resolve_micro_kernel(&mut context.func, number as u32, micro);
            *bytes += kernel.code.len();
        }
        module.define_function(id, &mut context).map_err(codegen_error)?;
        *bytes += context.compiled_code().map_or(0, |code| code.code_buffer().len());
        module.clear_context(&mut context);
        ids.push((entry, id));
    }
    Ok(ids)
}

/// Micro-kernels start at a cache line.
const MICRO_KERNEL_ALIGN: u64 = 64;

/// Names the function behind a call of a micro-kernel.
fn resolve_micro_kernel(function: &mut Function, number: u32, id: FuncId) {
    let wanted = UserExternalName::new(codegen::clif::MICRO_KERNELS, number);
    let found = function.params.user_named_funcs().iter().find(|(_, name)| **name == wanted);
    if let Some(reference) = found.map(|(reference, _)| reference) {
        function.params.reset_user_func_name(reference, UserExternalName::new(0, id.as_u32()));
    }
}

/// Input, weights, bias, output, and an epilogue longer than any network's.
const MAX_ARGUMENTS: usize = 32;

/// One pointer a buffer, in the order of the ABI, without an allocation.
#[derive(Clone, Copy)]
struct Arguments {
    pointers: [*mut u8; MAX_ARGUMENTS],
    count: usize,
}

impl Arguments {
    fn push(&mut self, pointer: *mut u8) {
        // More arguments than places leave the count wrong, which `Code::call` refuses.
        if let Some(place) = self.pointers.get_mut(self.count) {
            *place = pointer;
        }
        self.count += 1;
    }
}

/// The buffers of one call, checked; to be run task by task.
pub struct Call<'a> {
    code: &'a Code,
    arguments: Arguments,
    batch: i64,
    borrows: PhantomData<(&'a [f32], &'a mut [f32])>,
}

// SAFETY: J2: the pointers stand for borrows, shared ones of the inputs and a unique one of the
// output; J3: tasks of a call write different elements.
unsafe impl Send for Call<'_> {}
// SAFETY: as above: a shared call only hands out its pointers to disjoint tasks.
unsafe impl Sync for Call<'_> {}

impl Call<'_> {
    /// All tasks of the call. Takes the call by unique reference, so that they exist once.
    pub fn tasks(&mut self) -> Tasks<'_> {
        Tasks { range: 0..self.code.nest.nest().tasks(self.batch), call: self }
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
        (self.range.end - self.range.start).max(0) as usize
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The first `count` tasks, and the rest.
    pub fn split_at(self, count: usize) -> (Tasks<'c>, Tasks<'c>) {
        let middle = self.range.start + count.min(self.len()) as i64;
        let (first, rest) = (self.range.start..middle, middle..self.range.end);
        (Tasks { call: self.call, range: first }, Tasks { call: self.call, range: rest })
    }

    /// Runs the tasks on this thread.
    pub fn run(self, scratch: &mut Scratch) {
        let call = self.call;
        let scratch = scratch.reserve(call.code.nest.scratch_bytes());
        // SAFETY: J1, J2, J3, J4, J5: the call checked the lengths, this value owns the range, and
        // the scratch is exclusively borrowed.
        unsafe {
            (call.code.body)(
                call.arguments.pointers.as_ptr(),
                call.batch,
                self.range.start,
                self.range.end,
                scratch,
            );
        }
    }
}

/// The scratch memory of one thread: grows to what kernels ask for and is kept.
#[derive(Default)]
pub struct Scratch {
    lines: Vec<Line>,
}

/// One aligned unit of scratch.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([u8; SCRATCH_ALIGN as usize]);

impl Scratch {
    /// No memory yet.
    pub fn new() -> Scratch {
        Scratch::default()
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.lines.len() * SCRATCH_ALIGN as usize
    }

    /// A pointer to at least this many bytes, all initialised.
    fn reserve(&mut self, bytes: i64) -> *mut u8 {
        let lines = (bytes.max(0) as usize).div_ceil(SCRATCH_ALIGN as usize);
        if self.lines.len() < lines {
            self.lines.resize(lines, Line([0; SCRATCH_ALIGN as usize]));
        }
        self.lines.as_mut_ptr().cast()
    }
}

/// The signature of a probe; see [`probe`](crate::machine::probe).
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
    module.define_function_bytes(id, PROBE_ALIGN, probe.bytes(), &[]).ok()?;
    module.finalize_definitions().ok()?;
    Some(id)
}

/// A cache line, so that the loop lies in as few as possible.
const PROBE_ALIGN: u64 = 64;
