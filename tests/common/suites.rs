//! The networks of `convgen bench --suite`, as files of the repository.

use std::path::Path;

use convgen::ir::problem::{Descriptor, parse_list};

/// The problems of a suite.
pub fn suite(name: &str) -> Vec<Descriptor> {
    let file = folder().join(format!("{name}.txt"));
    let text = std::fs::read_to_string(&file)
        .unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let lines = parse_list(&text).into_iter();
    lines.map(|(_, descriptor)| descriptor.expect("every line is a descriptor")).collect()
}

/// The names of all suites, in alphabetical order.
#[allow(dead_code, reason = "some users ask for one suite by name")]
pub fn names() -> Vec<String> {
    let files = std::fs::read_dir(folder()).expect("a folder");
    let name = |path: &Path| path.file_stem()?.to_str().map(str::to_owned);
    let mut names: Vec<String> =
        files.filter_map(|file| name(&file.expect("an entry").path())).collect();
    names.sort();
    names
}

fn folder() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("cli/suites")
}
