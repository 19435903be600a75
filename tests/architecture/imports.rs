//! Who imports whom, read from the source: paths that begin with `crate`, `super` or `self`,
//! outside of comments, strings and test modules.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// The modules of a crate by their paths, `codegen::isa::clif`; the root is the empty path.
pub struct Crate {
    modules: BTreeMap<String, Module>,
}

/// What a file says.
struct Module {
    /// Every path that it names, absolute, as written.
    paths: Vec<Vec<String>>,
    /// Names that its `use` declarations bind, with the path of each.
    names: BTreeMap<String, Vec<String>>,
}

impl Crate {
    /// Reads the files below a folder `src`.
    pub fn read(src: &Path) -> Crate {
        let mut modules = BTreeMap::new();
        let mut open = vec![src.to_path_buf()];
        while let Some(folder) = open.pop() {
            for entry in fs::read_dir(&folder).expect("a folder") {
                let path = entry.expect("an entry").path();
                if path.is_dir() {
                    open.push(path);
                } else if path.extension().is_some_and(|extension| extension == "rs") {
                    let name = module_name(src, &path);
                    let text = code(&fs::read_to_string(&path).expect("text"));
                    modules.insert(name.clone(), Module::read(&name, &text));
                }
            }
        }
        let tests: Vec<String> =
            modules.keys().filter(|name| is_test(src, name)).cloned().collect();
        tests.iter().for_each(|name| drop(modules.remove(name)));
        Crate { modules }
    }

    /// For each file the files that it imports from, but for those that it lies in and that lie in
    /// it: what a parent and its children share is theirs.
    pub fn imports(&self) -> BTreeMap<&str, BTreeSet<&str>> {
        let of = |(name, module): (&'_ String, &'_ Module)| {
            let found = module.paths.iter().filter_map(|path| self.resolve(path, 0));
            found.filter(|other| !related(name, other)).collect::<BTreeSet<&str>>()
        };
        self.modules.iter().map(|entry| (entry.0.as_str(), of(entry))).collect()
    }

    /// The file that a path leads to: the deepest module of it, or the one that the name behind it
    /// comes from.
    fn resolve(&self, path: &[String], depth: usize) -> Option<&str> {
        let deepest = (0..=path.len())
            .rev()
            .find(|len| self.modules.contains_key(&path[..*len].join("::")))?;
        let (name, module) = self.modules.get_key_value(&path[..deepest].join("::"))?;
        let renamed = path.get(deepest).and_then(|next| module.names.get(next));
        match renamed {
            Some(other) if depth < 8 => self.resolve(other, depth + 1),
            _ => Some(name),
        }
    }
}

/// Circles of files: each as the files that lie on it.
pub fn circles(imports: &BTreeMap<&str, BTreeSet<&str>>) -> Vec<Vec<String>> {
    let reach: BTreeMap<&str, BTreeSet<&str>> =
        imports.keys().map(|name| (*name, reachable(imports, name))).collect();
    let mut found: BTreeSet<Vec<String>> = BTreeSet::new();
    for (name, others) in &reach {
        if others.contains(name) {
            let circle = others.iter().filter(|other| reach[*other].contains(name));
            found.insert(circle.map(ToString::to_string).collect());
        }
    }
    found.into_iter().collect()
}

fn reachable<'a>(imports: &BTreeMap<&'a str, BTreeSet<&'a str>>, from: &str) -> BTreeSet<&'a str> {
    let mut seen = BTreeSet::new();
    let mut open: Vec<&str> = imports[from].iter().copied().collect();
    while let Some(name) = open.pop() {
        if seen.insert(name) {
            open.extend(imports[name].iter());
        }
    }
    seen
}

fn related(a: &str, b: &str) -> bool {
    let inside = |inner: &str, outer: &str| {
        outer.is_empty() || inner == outer || inner.starts_with(&format!("{outer}::"))
    };
    inside(a, b) || inside(b, a)
}

fn module_name(src: &Path, path: &Path) -> String {
    let relative = path.strip_prefix(src).expect("below it").with_extension("");
    let parts: Vec<&str> = relative.iter().map(|part| part.to_str().expect("text")).collect();
    match parts[..] {
        ["lib" | "main"] => String::new(),
        _ => parts.join("::"),
    }
}

/// Whether a module, or one that it lies in, is declared for tests alone.
fn is_test(src: &Path, name: &str) -> bool {
    let parts: Vec<&str> = name.split("::").collect();
    (1..=parts.len()).any(|len| {
        let (parent, own) = (&parts[..len - 1], parts[len - 1]);
        let file = match parent {
            [] => src.join("lib.rs"),
            _ => src.join(parent.join("/")).with_extension("rs"),
        };
        let text = fs::read_to_string(file).unwrap_or_default();
        let Some(at) = text.find(&format!("\nmod {own};")) else { return false };
        let attributes = text[..at].rsplit("\n\n").next().unwrap_or_default();
        attributes.contains("#[cfg(test)]")
    })
}

/// The text without comments, strings and what follows the first test module.
fn code(text: &str) -> String {
    let text = match text.find("#[cfg(test)]\nmod tests") {
        Some(at) => &text[..at],
        None => text,
    };
    let lines = text.lines().map(|line| line.split("//").next().unwrap_or_default());
    let outside = |line: &str| line.split('"').step_by(2).collect::<Vec<_>>().join("\"\"");
    lines.map(outside).collect::<Vec<_>>().join("\n")
}

impl Module {
    fn read(name: &str, text: &str) -> Module {
        let own: Vec<String> =
            if name.is_empty() { vec![] } else { name.split("::").map(String::from).collect() };
        let tokens = tokens(text);
        let (mut paths, mut names) = (vec![], BTreeMap::new());
        let mut at = 0;
        while at < tokens.len() {
            let declared = tokens[at] == "use";
            let start = at + usize::from(declared);
            let base = match tokens.get(start).map(String::as_str) {
                Some("crate") => Some(vec![]),
                Some("self") => Some(own.clone()),
                Some("super") => Some(own[..own.len().saturating_sub(1)].to_vec()),
                // A child or a name of this file.
                Some(_) if declared => Some(own.clone()),
                _ => None,
            };
            let rooted =
                matches!(tokens.get(start).map(String::as_str), Some("crate" | "self" | "super"));
            let follows = !rooted || tokens.get(start + 1).is_some_and(|token| token == "::");
            let (Some(base), true) = (base, follows) else {
                at += 1;
                continue;
            };
            let first = if rooted { start + 2 } else { start };
            let mut bound = vec![];
            at = tree(&tokens, first, base, &mut bound).max(at + 1);
            for (alias, path) in bound {
                if declared {
                    names.insert(alias, path.clone());
                }
                if rooted {
                    paths.push(path);
                }
            }
        }
        Module { paths, names }
    }
}

/// Reads a tree of a `use` declaration, or a path in code; gives the place behind it.
fn tree(
    tokens: &[String],
    mut at: usize,
    mut path: Vec<String>,
    bound: &mut Vec<(String, Vec<String>)>,
) -> usize {
    loop {
        match tokens.get(at).map(String::as_str) {
            Some("{") => {
                at += 1;
                while tokens.get(at).is_some_and(|token| token != "}") {
                    at = tree(tokens, at, path.clone(), bound).max(at + 1);
                    at += usize::from(tokens.get(at).is_some_and(|token| token == ","));
                }
                return at + 1;
            }
            Some("super") => drop(path.pop()),
            Some("self" | "*") => {}
            Some(name) => path.push(name.to_owned()),
            None => return at,
        }
        at += 1;
        match tokens.get(at).map(String::as_str) {
            Some("::") => at += 1,
            Some("as") => {
                let alias = tokens.get(at + 1).cloned().unwrap_or_default();
                bound.push((alias, path));
                return at + 2;
            }
            _ => {
                bound.push((path.last().cloned().unwrap_or_default(), path));
                return at;
            }
        }
    }
}

/// Words and what joins paths; everything else ends one.
fn tokens(text: &str) -> Vec<String> {
    let mut found: Vec<String> = vec![];
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let word: usize =
            rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').map(char::len_utf8).sum();
        let len = match first {
            _ if word > 0 => word,
            ':' if rest.starts_with("::") => 2,
            _ => first.len_utf8(),
        };
        if !first.is_whitespace() {
            found.push(rest[..len].to_owned());
        }
        rest = &rest[len..];
    }
    found
}
