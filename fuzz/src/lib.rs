//! Programs that damaged texts and files are fed to: none may panic, crash, hang, or compute
//! another thing than the interpreter does.
//!
//! Each module of [`targets`] is one function from bytes to nothing, which panics where something
//! is wrong. cargo-fuzz runs them by `fuzz_targets/`; [`drive`] runs them on the stable compiler,
//! on inputs that [`mutate`] makes from the [`corpus`], each in a process with a limit of time and
//! memory.
//!
//! The modules are part of two crates: this one, and the project's test `tests/fuzz.rs`, which is
//! the bounded run of every change.

pub mod cli;
pub mod corpus;
pub mod drive;
#[path = "../../tests/common/fault.rs"]
pub mod fault;
#[path = "../../tests/common/fence.rs"]
pub mod fence;
#[allow(dead_code, reason = "the corpus is read in another way here")]
#[path = "../../tests/common/mutants.rs"]
pub mod mutants;
pub mod mutate;
#[path = "../../tests/common/raw.rs"]
pub mod raw;
pub mod targets;
