//! The problems to compile: those of a list of one's own, or one and more of each kind.

use convgen::ir::problem::{Descriptor, parse_list};

/// One problem or more of each kind.
const KINDS: &str = include_str!("kinds.txt");

/// The descriptors in the file that the environment variable `LAYERS` names, or else of each kind.
pub fn descriptors() -> Vec<Descriptor> {
    let text = match std::env::var("LAYERS") {
        Ok(path) => std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}")),
        Err(_) => KINDS.to_string(),
    };
    let read = |(line, descriptor): (usize, Result<Descriptor, _>)| {
        descriptor.unwrap_or_else(|error| panic!("line {line}: {error}"))
    };
    parse_list(&text).into_iter().map(read).collect()
}
