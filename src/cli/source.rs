//! Where problems come from: the command line, files, standard input, the suites built in.

use std::fmt;
use std::io::Read;
use std::path::Path;

use anyhow::{Context, anyhow};
use convgen_ir::problem::{Descriptor, DescriptorError, parse_list};

use super::failure::Hint;

/// The file name that means standard input.
pub const STDIN: &str = "-";

/// A line of a list.
#[derive(Clone, Debug)]
pub struct Line {
    /// The list it is from.
    pub file: String,
    /// Its number, counted from one.
    pub number: usize,
    /// The line as written.
    pub text: String,
    /// What it says.
    pub descriptor: Result<Descriptor, DescriptorError>,
}

impl Line {
    /// The line's descriptor, or its error with the place.
    pub fn into_descriptor(self) -> anyhow::Result<Descriptor> {
        let place = self.to_string();
        self.descriptor.map_err(|error| explained(&self.text, &error).context(place)).hint(help)
    }
}

/// The place: `file:line`.
impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.number)
    }
}

/// Reads one descriptor from the command line.
pub fn descriptor(text: &str) -> anyhow::Result<Descriptor> {
    text.parse().map_err(|error| explained(text, &error)).hint(help)
}

/// Reads a text file, or standard input for `-`.
pub fn read_text(path: &Path) -> anyhow::Result<String> {
    let mut text = String::new();
    let read = match path.as_os_str() == STDIN {
        true => std::io::stdin().read_to_string(&mut text).map(|_| ()),
        false => std::fs::read_to_string(path).map(|read| text = read),
    };
    read.with_context(|| format!("cannot read `{}`", path.display()))
        .hint(|| "give the path of a readable text file, or - for standard input".to_owned())?;
    Ok(text)
}

/// The lines of a list that are meant to be descriptors, right or wrong.
///
/// A list none of whose lines is a descriptor is refused: it is another kind of file.
pub fn lines(file: &str, text: &str) -> anyhow::Result<Vec<Line>> {
    let written: Vec<&str> = text.lines().collect();
    let line = |(number, descriptor): (usize, _)| Line {
        file: file.to_owned(),
        number,
        text: written.get(number - 1).copied().unwrap_or_default().to_owned(),
        descriptor,
    };
    let lines: Vec<Line> = parse_list(text).into_iter().map(line).collect();
    let Some(first) = lines.first() else {
        return Err(anyhow!("`{file}` holds no problem")).hint(help);
    };
    if lines.iter().all(|line| line.descriptor.is_err()) {
        first.clone().into_descriptor().context("no line is a problem, beginning with")?;
    }
    Ok(lines)
}

/// The error with the text and a mark under the word to blame.
pub fn explained(text: &str, error: &DescriptorError) -> anyhow::Error {
    let before = text.get(..error.at).map_or(0, |before| before.chars().count());
    let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    anyhow!("{error}\n  {text}\n  {:before$}^", "")
}

fn help() -> String {
    "a problem reads `conv2d ic64 oc64 ih56 iw56 kh3 kw3 ph1 pw1`; `convgen --help` explains it"
        .to_owned()
}
