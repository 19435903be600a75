//! Damaged texts: what is legal, with a few tokens changed, so that much of it stays almost legal.

use std::fs;
use std::path::{Path, PathBuf};

/// A generator of 64 random bits; every seed is as good as another.
pub struct Random(u64);

impl Random {
    /// The same for the same seed.
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    /// The next number, by the method of Steele, Lea and Flood.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below a limit, or zero.
    pub fn below(&mut self, limit: usize) -> usize {
        self.next() as usize % limit.max(1)
    }

    /// One of some.
    pub fn pick<'v, T>(&mut self, from: &'v [T]) -> &'v T {
        &from[self.below(from.len())]
    }
}

/// Numbers at which something changes.
const NUMBERS: [&str; 18] = [
    "0",
    "1",
    "2",
    "3",
    "4",
    "7",
    "8",
    "16",
    "-1",
    "255",
    "65536",
    "2147483648",
    "1099511627776",
    "4611686018427387904",
    "9223372036854775807",
    "18446744073709551616",
    "1e39",
    "N",
];

/// Bytes that begin or end something, and some that do neither.
const GARBAGE: [&str; 14] =
    ["{", "}", "[", "]", "(", ")", "|", "\"", "#", ";", "\0", "é", "\n", " in "];

/// A text with one to three changes; tokens may come from the other one.
pub fn mutant(text: &str, other: &str, random: &mut Random) -> String {
    let mut tokens = tokens(text);
    let others = self::tokens(other);
    for _ in 0..=random.below(3) {
        change(&mut tokens, &others, random);
    }
    tokens.concat()
}

fn change<'t>(tokens: &mut Vec<&'t str>, others: &[&'t str], random: &mut Random) {
    if tokens.is_empty() || others.is_empty() {
        return;
    }
    let at = random.below(tokens.len());
    let numbers: Vec<usize> = (0..tokens.len())
        .filter(|i| tokens[*i].starts_with(|c: char| c.is_ascii_digit()))
        .collect();
    match random.below(16) {
        0..=6 if !numbers.is_empty() => tokens[*random.pick(&numbers)] = *random.pick(&NUMBERS),
        0 | 1 => tokens[at] = *random.pick(others),
        2 => drop(tokens.remove(at)),
        3 => tokens.insert(at, *random.pick(&GARBAGE)),
        4 => tokens.truncate(at),
        5..=7 => tokens[at] = *random.pick(tokens),
        8 => tokens.insert(at, tokens[at]),
        9 => tokens.swap(at, at / 2),
        10 => {
            let from = random.below(others.len());
            let to = (from + random.below(30)).min(others.len());
            tokens.splice(at..at, others[from..to].iter().copied());
        }
        11 => drop(tokens.drain(at..(at + 5).min(tokens.len()))),
        12 => repeat_line(tokens, at),
        _ => {
            let with = tokens[random.below(tokens.len())];
            swap_words(tokens, at, with);
        }
    }
}

/// The line around a token, twice.
fn repeat_line(tokens: &mut Vec<&str>, at: usize) {
    let start = tokens[..at].iter().rposition(|token| *token == "\n").map_or(0, |i| i + 1);
    let end = tokens[at..].iter().position(|token| *token == "\n").map_or(tokens.len(), |i| at + i);
    let line: Vec<&str> = tokens[start..end].iter().copied().chain(["\n"]).collect();
    tokens.splice(start..start, line);
}

/// A word for a word: what is named stays well formed.
fn swap_words<'t>(tokens: &mut [&'t str], at: usize, with: &'t str) {
    let is_word = |token: &str| token.starts_with(|c: char| c.is_ascii_alphabetic());
    if is_word(tokens[at]) && is_word(with) {
        tokens[at] = with;
    }
}

/// Words, numbers, and every other character by itself.
fn tokens(text: &str) -> Vec<&str> {
    let kind = |c: char| match c {
        'a'..='z' | 'A'..='Z' | '_' => 1,
        '0'..='9' | '.' => 2,
        _ => 0,
    };
    let mut tokens = vec![];
    let mut start = 0;
    let mut last = 0;
    for (at, c) in text.char_indices() {
        if at > start && (kind(c) != last || last == 0) {
            tokens.push(&text[start..at]);
            start = at;
        }
        last = kind(c);
    }
    tokens.push(&text[start..]);
    tokens.retain(|token| !token.is_empty());
    tokens
}

/// Texts to damage, by what they are.
#[derive(Default)]
pub struct Seeds {
    /// One problem each.
    pub problems: Vec<String>,
    /// Whole nests.
    pub nests: Vec<String>,
    /// Whole schedules.
    pub schedules: Vec<String>,
}

impl Seeds {
    /// The sections of the test files, and the lines of the shape lists.
    pub fn read() -> Seeds {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut seeds = Seeds::default();
        for path in files(&root.join("tests/filetests"), "conv") {
            seeds.sections(&fs::read_to_string(path).expect("readable"));
        }
        for path in files(&root.join("cli/suites"), "txt") {
            let text = fs::read_to_string(path).expect("readable");
            let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
            seeds.problems.extend(lines.map(String::from));
        }
        seeds
    }

    fn sections(&mut self, text: &str) {
        let mut key = "";
        for line in text.lines() {
            match line {
                "problem:" | "schedule:" | "nest:" | "expect:" => {
                    key = line;
                    match key {
                        "nest:" => self.nests.push(String::new()),
                        "schedule:" => self.schedules.push(String::new()),
                        _ => {}
                    }
                    continue;
                }
                _ => {}
            }
            let line = line.split("# error").next().unwrap_or_default().trim_end();
            match key {
                "problem:" if !line.is_empty() => self.problems.push(line.to_string()),
                "schedule:" => {
                    self.schedules.last_mut().expect("begun").push_str(&(line.to_owned() + "\n"))
                }
                "nest:" => {
                    self.nests.last_mut().expect("begun").push_str(&(line.to_owned() + "\n"))
                }
                _ => {}
            }
        }
    }
}

fn files(directory: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = vec![];
    for entry in fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("readable").path();
        if path.is_dir() {
            found.extend(files(&path, extension));
        } else if path.extension().is_some_and(|e| e == extension) {
            found.push(path);
        }
    }
    found.sort();
    found
}
