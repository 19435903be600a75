//! What the command line reads files with, which is no part of the library.

#[allow(dead_code, reason = "only its hints are used here")]
#[path = "../../cli/src/failure.rs"]
mod failure;
#[allow(dead_code, reason = "only the reader is used here")]
#[path = "../../cli/src/npy.rs"]
pub mod npy;
