//! A nest's machine code, called by the kernel ABI with every buffer between fences: packed weights
//! and scratch too, which a kernel's own calls place by themselves.
//!
//! The code is what the emitters give for the nest; only the linking is done here.

use std::iter;
use std::ops::Range;
use std::sync::Arc;

use convgen::check::same_bits;
use convgen::codegen::Entry;
use convgen::codegen::isa::clif::{self, Allocator, MICRO_KERNELS};
use convgen::target::CACHE_LINE;
use convgen::{Error, Host, Isa, Target, lower};
use convgen_ir::interpret;
use convgen_ir::nest::{BufferId, Role};
use convgen_ir::verify::VerifiedNest;
use cranelift_codegen::Context;
use cranelift_codegen::ir::UserExternalName;
use cranelift_codegen::isa::TargetIsa;
use cranelift_frontend::FunctionBuilderContext;
use cranelift_jit::{JITBuilder, JITModule};
use cranelift_module::{FuncId, Linkage, Module, default_libcall_names};

use super::fault::named;
use super::fence::{Edge, Fenced};

/// The kernel ABI; see [`convgen::codegen`].
type EntryPoint = unsafe extern "C" fn(*const *mut u8, i64, i64, i64, *mut u8);

/// An instruction set of this host.
pub struct Machine {
    target: Target,
    isa: Arc<dyn TargetIsa>,
}

impl Machine {
    /// # Errors
    /// If the host lacks the instruction set.
    pub fn new(host: &Host, isa: Isa) -> Result<Machine, Error> {
        let target = host.target(isa)?;
        let isa = clif::isa(&target, true, Allocator::Backtracking)?;
        Ok(Machine { target, isa })
    }
}

/// The linked code of one nest.
struct Raw<'n> {
    nest: &'n VerifiedNest,
    /// Taken only by `drop`.
    module: Option<JITModule>,
    entries: Vec<(Entry, EntryPoint)>,
}

impl<'n> Raw<'n> {
    fn new(nest: &'n VerifiedNest, machine: &Machine) -> Result<Raw<'n>, String> {
        let builder = JITBuilder::with_isa(Arc::clone(&machine.isa), default_libcall_names());
        let mut raw = Raw { nest, module: Some(JITModule::new(builder)), entries: vec![] };
        let Some(module) = &mut raw.module else { return Ok(raw) };
        let mut functions = vec![];
        let outlined = lower::outline(nest.clone(), &machine.target);
        for entry in Entry::of(nest.nest()) {
            functions.push((entry, define(module, &outlined, entry, machine)?));
        }
        module.finalize_definitions().map_err(|error| error.to_string())?;
        let entry = |(entry, id): &(Entry, FuncId)| {
            let address = module.get_finalized_function(*id);
            // SAFETY: the emitter gave the function the signature of the kernel ABI.
            (*entry, unsafe { std::mem::transmute::<*const u8, EntryPoint>(address) })
        };
        raw.entries = functions.iter().map(entry).collect();
        Ok(raw)
    }

    /// Carries out some tasks, or packs the weights.
    fn call(
        &self,
        entry: Entry,
        buffers: &[&Fenced],
        batch: i64,
        tasks: Range<i64>,
        scratch: &Fenced,
    ) {
        let ir = self.nest.nest();
        let expected =
            entry.arguments(ir).into_iter().map(|id| ir.buffer(id).len(batch).unwrap() as usize);
        assert!(expected.eq(buffers.iter().map(|buffer| buffer.values().len())), "lengths");
        assert!(scratch.addresses().len() as i64 >= self.nest.scratch_bytes(), "scratch");
        let pointers: Vec<*mut u8> = buffers.iter().map(|buffer| buffer.pointer()).collect();
        let function = self.entries.iter().find(|(known, _)| *known == entry);
        let Some((_, function)) = function else { return };
        // SAFETY: the nest is verified, so the code stays inside the buffers, whose lengths were
        // just compared; should it not, the pages around them end the process. No slice of a buffer
        // is alive.
        unsafe { function(pointers.as_ptr(), batch, tasks.start, tasks.end, scratch.pointer()) };
    }
}

impl Drop for Raw<'_> {
    fn drop(&mut self) {
        self.entries.clear();
        if let Some(module) = self.module.take() {
            // SAFETY: the function pointers are gone, and no call is running.
            unsafe { module.free_memory() };
        }
    }
}

/// Compiles an entry point and the micro-kernels that it calls.
fn define(
    module: &mut JITModule,
    nest: &VerifiedNest,
    entry: Entry,
    machine: &Machine,
) -> Result<FuncId, String> {
    let text = |error: cranelift_module::ModuleError| error.to_string();
    let mut builder = FunctionBuilderContext::new();
    let emitted =
        clif::emit(&nest.clone().into(), entry, &machine.target, &*machine.isa, &mut builder);
    let mut context = Context::for_function(emitted.function);
    let signature = clif::micro_kernel_signature(&*machine.isa);
    for (number, kernel) in emitted.micro_kernels.iter().enumerate() {
        let name = format!("{}_{number}", entry.symbol());
        let id = module.declare_function(&name, Linkage::Local, &signature).map_err(text)?;
        module.define_function_bytes(id, CACHE_LINE as u64, &kernel.code, &[]).map_err(text)?;
        let called = UserExternalName::new(MICRO_KERNELS, number as u32);
        let names = context.func.params.user_named_funcs();
        let found = names.iter().find(|(_, name)| **name == called).map(|(place, _)| place);
        if let Some(place) = found {
            let linked = UserExternalName::new(0, id.as_u32());
            context.func.params.reset_user_func_name(place, linked);
        }
    }
    let signature = context.func.signature.clone();
    let id = module.declare_function(entry.symbol(), Linkage::Export, &signature).map_err(text)?;
    module.define_function(id, &mut context).map_err(text)?;
    Ok(id)
}

/// Runs a nest's code at both edges, on values of its own: task by task from the last to the first,
/// scratch, packed weights and output being NaNs before. Nothing may be touched beyond a buffer,
/// and the bits must be the interpreter's. `case` is what is printed should the process end.
pub fn hold(nest: &VerifiedNest, machine: &Machine, batch: i64, case: &str) -> Result<(), String> {
    let raw = Raw::new(nest, machine)?;
    let given = Given::new(nest, batch);
    let (packed, output) = given.interpret(nest, batch)?;
    for edge in Edge::BOTH {
        let words = |error: String| format!("{edge:?}: {error}");
        let placed = Placed::new(nest, batch, &given, edge);
        let case = format!("{case}\n# buffers at their {edge:?}:{}", placed.table(nest));
        named(&case, || placed.run(&raw, batch, &packed, &output)).map_err(words)?;
    }
    Ok(())
}

/// What a nest reads: weights before packing, and the rest in the order of the ABI.
struct Given {
    weights: Vec<Vec<f32>>,
    others: Vec<(BufferId, Vec<f32>)>,
}

impl Given {
    fn new(nest: &VerifiedNest, batch: i64) -> Given {
        let ir = nest.nest();
        let mut state = 1;
        let mut fill =
            |id: BufferId| real_values(ir.buffer(id).len(batch).unwrap() as usize, &mut state);
        let weights = ir.find_all(Role::Weights).map(&mut fill).collect();
        let others = interpret::arguments(ir).into_iter();
        let others = others.filter(|id| !is_weights(ir.buffer(*id).role));
        Given { weights, others: others.map(|id| (id, fill(id))).collect() }
    }

    /// The packed weights and the output.
    fn interpret(
        &self,
        nest: &VerifiedNest,
        batch: i64,
    ) -> Result<(Vec<Vec<f32>>, Vec<f32>), String> {
        let ir = nest.nest();
        let weights: Vec<&[f32]> = self.weights.iter().map(Vec::as_slice).collect();
        let packed = interpret::pack_all(nest, &weights).map_err(|error| error.to_string())?;
        let mut weights = packed.iter().map(Vec::as_slice);
        let mut others = self.others.iter().map(|(_, values)| values.as_slice());
        let slices: Vec<&[f32]> = interpret::arguments(ir)
            .into_iter()
            .filter_map(|id| match is_weights(ir.buffer(id).role) {
                true => weights.next(),
                false => others.next(),
            })
            .collect();
        let len = ir.find_role(Role::Output).map_or(0, |id| ir.buffer(id).len(batch).unwrap());
        let mut output = vec![f32::NAN; len as usize];
        interpret::run(nest, batch, 0..ir.tasks(batch).unwrap(), &slices, &mut output)
            .map_err(|error| error.to_string())?;
        Ok((packed, output))
    }
}

/// The buffers of a call between fences.
struct Placed {
    weights: Vec<Fenced>,
    packed: Vec<Fenced>,
    others: Vec<(BufferId, Fenced)>,
    output: Fenced,
    scratch: Fenced,
}

impl Placed {
    fn new(nest: &VerifiedNest, batch: i64, given: &Given, edge: Edge) -> Placed {
        let ir = nest.nest();
        let undefined = |len: i64| Fenced::filled(len as usize, f32::NAN, edge);
        let fenced = |values: &Vec<f32>| Fenced::new(values, edge);
        let packed = ir.find_all(Role::Packed).map(|id| undefined(ir.buffer(id).len(0).unwrap()));
        let output = ir.find_role(Role::Output).map_or(0, |id| ir.buffer(id).len(batch).unwrap());
        Placed {
            weights: given.weights.iter().map(fenced).collect(),
            packed: packed.collect(),
            others: given.others.iter().map(|(id, values)| (*id, fenced(values))).collect(),
            output: undefined(output),
            scratch: undefined(nest.scratch_bytes() / size_of::<f32>() as i64),
        }
    }

    /// Where everything is, for who reads the address of a fault.
    fn table(&self, nest: &VerifiedNest) -> String {
        let line = |name: &str, place: &Fenced| {
            let Range { start, end } = place.addresses();
            format!("\n# {name} {start:#x}..{end:#x}")
        };
        let named = |(id, place): &(BufferId, Fenced)| line(&nest.nest().buffer(*id).name, place);
        let weights = self.weights.iter().map(|place| line("weights", place));
        let packed = self.packed.iter().map(|place| line("packed", place));
        let rest = [("output", &self.output), ("scratch", &self.scratch)];
        let rest = rest.into_iter().map(|(name, place)| line(name, place));
        weights.chain(packed).chain(self.others.iter().map(named)).chain(rest).collect()
    }

    fn run(
        mut self,
        raw: &Raw,
        batch: i64,
        packed: &[Vec<f32>],
        output: &[f32],
    ) -> Result<(), String> {
        let ir = raw.nest.nest();
        let reads_packed = ir.find_role(Role::Packed).is_some();
        if reads_packed {
            let buffers: Vec<&Fenced> = self.weights.iter().chain(&self.packed).collect();
            raw.call(Entry::Pack, &buffers, 0, 0..0, &self.scratch);
            for (got, want) in self.packed.iter().zip(packed) {
                same(got.values(), want).map_err(|error| format!("packed weights: {error}"))?;
            }
        }
        for task in (0..ir.tasks(batch).unwrap()).rev() {
            self.scratch.values_mut().fill(f32::NAN);
            let mut weights = if reads_packed { &self.packed } else { &self.weights }.iter();
            let mut others = self.others.iter().map(|(_, place)| place);
            let read = interpret::arguments(ir).into_iter().filter_map(|id| {
                match is_weights(ir.buffer(id).role) {
                    true => weights.next(),
                    false => others.next(),
                }
            });
            let buffers: Vec<&Fenced> = read.chain(iter::once(&self.output)).collect();
            raw.call(Entry::Body, &buffers, batch, task..task + 1, &self.scratch);
        }
        same(self.output.values(), output)?;
        self.intact()
    }

    fn intact(&self) -> Result<(), String> {
        let read = self.weights.iter().chain(self.others.iter().map(|(_, place)| place));
        let written = self.packed.iter().chain([&self.output]);
        read.chain(written).try_for_each(|place| place.intact("a buffer"))?;
        self.scratch.intact("the scratch")
    }
}

fn is_weights(role: Role) -> bool {
    match role {
        Role::Weights | Role::Packed => true,
        Role::Input
        | Role::Gradient
        | Role::Bias
        | Role::Scale
        | Role::Residual
        | Role::Output
        | Role::Scratch
        | Role::Reg => false,
    }
}

/// The first element whose bits differ.
pub fn same(got: &[f32], want: &[f32]) -> Result<(), String> {
    assert_eq!(got.len(), want.len());
    match got.iter().zip(want).position(|(got, want)| !same_bits(*got, *want)) {
        Some(i) => Err(format!("element {i} is {:?} instead of {:?}", got[i], want[i])),
        None => Ok(()),
    }
}

/// From -1 to 1: every operation rounds.
pub fn real_values(len: usize, state: &mut u64) -> Vec<f32> {
    let next = || {
        // The multiplier and increment of Knuth's MMIX generator; its high bits are good enough.
        *state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (*state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    iter::repeat_with(next).take(len).collect()
}
