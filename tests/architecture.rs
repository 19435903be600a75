//! The order of the modules: written once, on the first page of the library, and held here against
//! the imports.

#[path = "architecture/imports.rs"]
mod imports;
#[path = "architecture/picture.rs"]
mod picture;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use imports::{Crate, circles};

/// Every crate of the workspace.
const CRATES: [&str; 5] = ["", "cli", "ir", "nn", "onnx"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_path_buf()
}

fn read(member: &str) -> Crate {
    Crate::read(&root().join(member).join("src"))
}

/// The floors of the library, the lowest first: the block below `# Floors` in its documentation.
fn floors() -> Vec<Vec<String>> {
    let text = fs::read_to_string(root().join("src/lib.rs")).expect("text");
    let block = text.split("//! # Floors").nth(1).expect("the section");
    let block = block.split("//! ```").nth(1).expect("the block");
    let lines = block.lines().filter_map(|line| line.strip_prefix("//! "));
    let floor = |line: &str| line.split_whitespace().map(String::from).collect::<Vec<_>>();
    let mut floors: Vec<Vec<String>> = lines.map(floor).filter(|floor| !floor.is_empty()).collect();
    floors.reverse();
    floors
}

/// What each module of the library imports.
fn modules() -> BTreeMap<String, Vec<String>> {
    let library = read("");
    let top = |name: &str| name.split("::").next().unwrap_or_default().to_owned();
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, others) in library.imports().into_iter().filter(|(name, _)| !name.is_empty()) {
        let of = found.entry(top(name)).or_default();
        of.extend(others.into_iter().map(top).filter(|other| *other != top(name)));
    }
    for others in found.values_mut() {
        others.sort();
        others.dedup();
    }
    found
}

#[test]
fn no_module_imports_one_of_its_floor_or_above() {
    let floors = floors();
    let floor = |name: &str| {
        let found = floors.iter().position(|floor| floor.iter().any(|other| other == name));
        found.unwrap_or_else(|| panic!("`{name}` is on no floor: see `# Floors` in src/lib.rs"))
    };
    let modules = modules();
    assert!(modules.len() > 20, "{modules:?}");
    let mut arrows = 0;
    let mut upward = vec![];
    for (name, others) in &modules {
        for other in others {
            arrows += 1;
            if floor(other) >= floor(name) {
                upward.push(format!("{name} -> {other}"));
            }
        }
    }
    assert!(arrows > 60, "{arrows} imports were found");
    assert!(upward.is_empty(), "these run up: {upward:#?}");
    let known: usize = floors.iter().map(Vec::len).sum();
    assert_eq!(known, modules.len(), "a floor names what is no module");
}

#[test]
fn no_files_import_in_a_circle() {
    for member in CRATES {
        let read = read(member);
        let imports = read.imports();
        assert!(imports.len() > 5, "{member}: {imports:?}");
        assert_eq!(circles(&imports), Vec::<Vec<String>>::new(), "in `{member}/src`");
    }
}

/// `INSTA_UPDATE=always` writes the picture.
#[test]
fn the_picture_of_the_imports_is_up_to_date() {
    let path = root().join("docs/src/imports.svg");
    let drawn = picture::draw(&floors(), &modules());
    if std::env::var("INSTA_UPDATE").is_ok_and(|update| update == "always") {
        fs::write(&path, &drawn).expect("a file can be written");
    }
    let held = fs::read_to_string(&path).expect("a picture");
    assert!(held == drawn, "{} is old: run this test with INSTA_UPDATE=always", path.display());
}
