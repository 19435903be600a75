//! Ahead-of-time code: a nest as a relocatable object file, for this machine or for another.
//!
//! Promises: the object defines `<prefix>convgen_body` and, if the nest packs its weights,
//! `<prefix>convgen_pack`, both with the kernel ABI below; with different prefixes any number of
//! objects link into one program. The bits are those of the JIT: it is the
//! same code path. Does not: run the code, or check that any machine has the target's features.
//!
//! # The kernel ABI
//! Both entry points of a kernel have the C signature
//! ```text
//! fn(arguments: *const *mut u8, batch: i64, first_task: i64, end_task: i64, scratch: *mut u8)
//! ```
//! - `arguments` points to one pointer a buffer: for the body, the buffers that
//!   [`arguments`](convgen_ir::interpret::arguments) lists and then the output; for the pack block,
//!   all weights and then all packed weights. Each buffer is as long as its shape at `batch` says
//!   and aligned to its element.
//! - Tasks `first_task..end_task` are carried out; the number of a task has the parallel loops as
//!   digits, outermost first. The pack block ignores the range.
//! - `scratch` points to [`scratch_bytes`](convgen_ir::verify::VerifiedNest::scratch_bytes) of
//!   memory aligned to [`SCRATCH_ALIGN`](convgen_ir::verify::SCRATCH_ALIGN) that nobody else uses
//!   during the call.
//!
//! # The stack
//! A function needs at most 256 KiB of stack: most need some hundred bytes, those with more values
//! alive than registers some thousand. A frame of more than a page touches one page after the other,
//! so a thread whose stack is too small ends at its guard page and writes nothing else.

use convgen_ir::verify::VerifiedNest;
use cranelift_module::default_libcall_names;
use cranelift_object::{ObjectBuilder, ObjectModule};

use crate::codegen::isa::clif;
use crate::error::Error;
use crate::link::{CodeSizes, codegen_error, define};
use crate::lower::Outlined;
use crate::target::Target;

/// The object file of a nest in the format of the target's operating system: ELF, Mach-O or COFF.
/// The code is position-independent.
///
/// # Errors
/// [`Error::Codegen`] if Cranelift does not know the target or its object format,
/// [`Error::CodeSize`] if the code is too large.
pub fn object(nest: &VerifiedNest, target: &Target, prefix: &str) -> Result<Vec<u8>, Error> {
    let isa = clif::isa(target, false, clif::Allocator::Backtracking)?;
    let entries = clif::emit_all(&[Outlined::new(nest.clone(), target)], target, &*isa)?;
    let entries = entries.into_iter().flatten().collect();
    let builder = ObjectBuilder::new(isa, format!("{prefix}convgen"), default_libcall_names());
    let mut module = ObjectModule::new(builder.map_err(codegen_error)?);
    define(&mut module, entries, None, prefix, &mut CodeSizes::default())?;
    module.finish().emit().map_err(|error| Error::Codegen { message: error.to_string() })
}

#[cfg(test)]
mod tests {
    use convgen_ir::problem::{ConvProblem, ConvSpec};

    use super::*;
    use crate::target::{Caches, Isa};
    use crate::{Compiler, lower, scheduler};

    fn object_for(triple: &str) -> Vec<u8> {
        let target = Target::new(triple.parse().unwrap(), Isa::Clif, true, Caches::TYPICAL, 1);
        let target = target.unwrap();
        let problem = ConvProblem::new(ConvSpec::conv1d(4, 8, 16, 3)).unwrap();
        let (algorithm, schedule) = scheduler::default_schedule(&problem, &target);
        let nests = Compiler::schedule(&problem, algorithm, &schedule).unwrap();
        let nest = lower::lower(nests[0].clone(), &target.limits()).unwrap();
        object(&nest, &target, "k1_").unwrap()
    }

    fn mentions(object: &[u8], name: &str) -> bool {
        object.windows(name.len()).any(|window| window == name.as_bytes())
    }

    #[test]
    fn objects_have_the_format_and_the_names() {
        let formats: [(&str, &[u8]); 4] = [
            ("x86_64-unknown-linux-gnu", b"\x7fELF"),
            ("aarch64-unknown-linux-gnu", b"\x7fELF"),
            ("aarch64-apple-darwin", b"\xcf\xfa\xed\xfe"),
            ("x86_64-pc-windows-msvc", b"\x64\x86"),
        ];
        for (triple, magic) in formats {
            let object = object_for(triple);
            assert!(object.starts_with(magic), "{triple}");
            assert!(mentions(&object, "k1_convgen_body"), "{triple}");
            assert!(mentions(&object, "k1_convgen_pack"), "{triple}");
        }
    }
}
