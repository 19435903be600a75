//! Puts functions together: Cranelift's entry points and the micro-kernels that they call, in a
//! module that is this process's memory or an object file.
//!
//! Does not: emit code, make it executable, or run it.

#![deny(clippy::arithmetic_side_effects, clippy::cast_possible_truncation)]

use cranelift_codegen::Context;
use cranelift_codegen::control::ControlPlane;
use cranelift_codegen::ir::{Function, UserExternalName};
use cranelift_codegen::isa::TargetIsa;
use cranelift_module::{FuncId, Linkage, Module, ModuleError, ModuleReloc};

use crate::codegen::isa::clif::Emitted;
use crate::codegen::{self, Entry};
use crate::error::Error;
use crate::target::CACHE_LINE;

/// What functions take.
#[derive(Default)]
pub(crate) struct CodeSizes {
    /// The bytes of machine code of each.
    pub(crate) functions: Vec<usize>,
    /// The bytes of stack of the one that needs most of it, with what it calls.
    pub(crate) stack: u32,
}

/// The prefix of a part's symbols: none for the first, which is the only one of most kernels.
pub(crate) fn part_prefix(number: usize) -> String {
    if number == 0 { String::new() } else { format!("part{number}_") }
}

pub(crate) fn codegen_error(error: ModuleError) -> Error {
    Error::Codegen { message: error.to_string() }
}

/// Compiles the entry points of a nest into any module: this process's memory, or an object file.
/// The names of the functions begin with the prefix. Loops around calls may be compiled another way
/// than the module says.
pub(crate) fn define(
    module: &mut impl Module,
    entries: Vec<(Entry, Emitted)>,
    quick: Option<&dyn TargetIsa>,
    prefix: &str,
    sizes: &mut CodeSizes,
) -> Result<Vec<(Entry, FuncId)>, Error> {
    let mut context = Context::new();
    let mut ids = Vec::new();
    for (entry, emitted) in entries {
        context.func = emitted.function;
        let name = format!("{prefix}{}", entry.symbol());
        let id = module
            .declare_function(&name, Linkage::Export, &context.func.signature)
            .map_err(codegen_error)?;
        let signature = codegen::isa::clif::micro_kernel_signature(module.isa());
        for (number, kernel) in (0_u32..).zip(&emitted.micro_kernels) {
            let name = format!("{name}_{number}");
            let micro = module
                .declare_function(&name, Linkage::Local, &signature)
                .map_err(codegen_error)?;
            module
                .define_function_bytes(micro, MICRO_KERNEL_ALIGN, &kernel.code, &[])
                .map_err(codegen_error)?;
            resolve_micro_kernel(&mut context.func, number, micro);
            sizes.functions.push(kernel.code.len());
        }
        match quick.filter(|_| emitted.calls_alone) {
            Some(isa) => define_with(module, id, &mut context, isa)?,
            None => module.define_function(id, &mut context).map_err(codegen_error)?,
        }
        if let Some(code) = context.compiled_code() {
            sizes.functions.push(code.code_buffer().len());
            let stack = codegen::isa::clif::stack_bytes(code, &emitted.micro_kernels)?;
            sizes.stack = sizes.stack.max(stack);
        }
        module.clear_context(&mut context);
        ids.push((entry, id));
    }
    Ok(ids)
}

/// As [`Module::define_function`], by another compiler for the same machine.
fn define_with(
    module: &mut impl Module,
    id: FuncId,
    context: &mut Context,
    isa: &dyn TargetIsa,
) -> Result<(), Error> {
    let compiled = context.compile(isa, &mut ControlPlane::default());
    compiled.map_err(|error| Error::Codegen { message: format!("{:?}", error.inner) })?;
    let Some(compiled) = context.compiled_code() else { return Ok(()) };
    let relocations = compiled.buffer.relocs().iter();
    let relocations: Vec<ModuleReloc> = relocations
        .map(|relocation| ModuleReloc::from_mach_reloc(relocation, &context.func, id))
        .collect();
    let align = compiled.buffer.alignment.max(isa.function_alignment().minimum);
    module
        .define_function_bytes(id, u64::from(align), compiled.code_buffer(), &relocations)
        .map_err(codegen_error)
}

/// Micro-kernels start at a cache line.
const MICRO_KERNEL_ALIGN: u64 = CACHE_LINE as u64;

/// Names the function behind a call of a micro-kernel.
fn resolve_micro_kernel(function: &mut Function, number: u32, id: FuncId) {
    let wanted = UserExternalName::new(codegen::isa::clif::MICRO_KERNELS, number);
    let found = function.params.user_named_funcs().iter().find(|(_, name)| **name == wanted);
    if let Some(reference) = found.map(|(reference, _)| reference) {
        function.params.reset_user_func_name(reference, UserExternalName::new(0, id.as_u32()));
    }
}
