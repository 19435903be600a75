//! Where problems come from: the command line, lists, ONNX models, standard input.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use anyhow::{Context, anyhow};
use clap::Args;
use convgen_ir::problem::{ConvProblem, Descriptor, DescriptorError, Driver, parse_list_as};
use convgen_onnx::{self as onnx, Unsupported};

use convgen_ir::separable::{Separable, SeparableTextError};

use super::failure::Hint;

/// The file name that means standard input.
pub const STDIN: &str = "-";

/// What a model leaves open.
#[derive(Args)]
pub struct ModelArgs {
    /// A size that an ONNX model leaves open, by its name in the model; for the batch, use --batch
    #[arg(long = "dim", value_name = "NAME=SIZE", value_parser = dimension)]
    dims: Vec<(String, u64)>,
}

/// An entry of a list: a line of text, or a convolution of a model.
#[derive(Clone, Debug)]
pub struct Line {
    /// The list it is from.
    pub file: String,
    /// Its number, counted from one.
    pub number: usize,
    /// The line as written.
    pub text: String,
    /// What it says.
    pub descriptor: Result<Descriptor, Blame>,
}

/// Why an entry is no problem to compile.
#[derive(Clone, Debug)]
pub enum Blame {
    /// It is not a descriptor.
    Text(DescriptorError),
    /// A model has a convolution that is not computed.
    Unsupported(Unsupported),
}

impl Blame {
    /// The reason, for text with a mark under the word to blame.
    pub fn explained(&self, text: &str) -> anyhow::Error {
        match self {
            Blame::Text(error) => explained(text, error),
            Blame::Unsupported(unsupported) => anyhow!("{unsupported}"),
        }
    }
}

impl Line {
    /// The line's descriptor, or its error with the place.
    pub fn into_descriptor(self) -> anyhow::Result<Descriptor> {
        let place = self.to_string();
        let explained = self.descriptor.map_err(|blame| blame.explained(&self.text).context(place));
        explained.hint(help)
    }
}

/// The place: `file:line`, or `file:number (node)` in a model.
impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.number)?;
        match &self.descriptor {
            Err(Blame::Unsupported(_)) => write!(f, " ({})", self.text),
            Ok(_) | Err(Blame::Text(_)) => Ok(()),
        }
    }
}

/// Reads a list of problems, or the convolutions of an ONNX model: a file whose name ends in
/// `.onnx` or that begins as models do.
pub fn read_lines(
    path: &Path,
    model: &ModelArgs,
    batch: Option<u64>,
    driver: Driver,
) -> anyhow::Result<Vec<Line>> {
    let file = path.display().to_string();
    let bytes = read(path)?;
    let is_onnx = path.extension().is_some_and(|extension| extension == "onnx");
    if is_onnx || onnx::is_model(&bytes) {
        return layers(&file, bytes, model, batch);
    }
    lines(&file, &text(path, bytes)?, driver)
}

/// The convolutions of a model.
fn layers(
    file: &str,
    bytes: Vec<u8>,
    model: &ModelArgs,
    batch: Option<u64>,
) -> anyhow::Result<Vec<Line>> {
    let options = onnx::Options { batch, dims: model.dims.iter().cloned().collect() };
    let layers = onnx::read(bytes, &options);
    let is_open = matches!(
        layers,
        Err(onnx::OnnxError::Dimension { .. } | onnx::OnnxError::NoDimension { .. })
    );
    let layers = layers.with_context(|| format!("`{file}`")).hint(|| match is_open {
        true => "give the size with --dim NAME=SIZE".to_owned(),
        false => "a list of problems is text, a model is what `onnx.save` writes".to_owned(),
    })?;
    if layers.is_empty() {
        return Err(anyhow!("`{file}` is a model without convolutions"));
    }
    let line = |(index, layer): (usize, onnx::Layer)| {
        let times = if layer.count == 1 { String::new() } else { format!(" x{}", layer.count) };
        let text = format!("{}{times}", layer.name);
        let name = Some(text.clone());
        let descriptor = layer.problem.map(|problem| Descriptor { problem, name });
        let descriptor = descriptor.map_err(Blame::Unsupported);
        Line { file: file.to_owned(), number: index + 1, text, descriptor }
    };
    Ok(layers.into_iter().enumerate().map(line).collect())
}

/// The problem of a model that has no other convolution.
pub fn only_problem(path: &Path, model: &ModelArgs) -> anyhow::Result<ConvProblem> {
    let file = path.display().to_string();
    let mut lines = layers(&file, read(path)?, model, None)?;
    match (lines.pop(), lines.len()) {
        (Some(line), 0) => Ok(line.into_descriptor()?.problem),
        (Some(last), others) => {
            let names: Vec<String> =
                lines.into_iter().chain([last]).map(|line| line.text).collect();
            let count = others + 1;
            Err(anyhow!("`{file}` has {count} convolutions, expected one: {}", names.join(", ")))
                .hint(|| "give the one meant as a descriptor, with --problem".to_owned())
        }
        (None, _) => Err(anyhow!("`{file}` is a model without convolutions")),
    }
}

/// Reads one descriptor from the command line.
pub fn descriptor(text: &str) -> anyhow::Result<Descriptor> {
    text.parse().map_err(|error| explained(text, &error)).hint(help)
}

/// Reads a pair of descriptors from the command line.
pub fn separable(text: &str) -> anyhow::Result<Separable> {
    text.parse().map_err(|error: SeparableTextError| marked(text, error.at(), &error)).hint(|| {
        "a pair reads `conv2d g8 ic8 oc8 ih9 iw9 kh3 kw3 -> conv2d ic8 oc4 ih7 iw7 kh1 kw1`"
            .to_owned()
    })
}

/// Reads a text file, or standard input for `-`.
pub fn read_text(path: &Path) -> anyhow::Result<String> {
    text(path, read(path)?)
}

/// As [`read_text`], of a file that has so many bytes at most.
pub fn read_short(path: &Path, limit: u64) -> anyhow::Result<String> {
    let mut bytes = Vec::new();
    let read = match path.as_os_str() == STDIN {
        true => std::io::stdin().take(limit + 1).read_to_end(&mut bytes),
        false => File::open(path).and_then(|file| file.take(limit + 1).read_to_end(&mut bytes)),
    };
    read.with_context(|| format!("cannot read `{}`", path.display())).hint(readable)?;
    if bytes.len() as u64 > limit {
        return Err(anyhow!("`{}` has more than {limit} bytes", path.display()));
    }
    text(path, bytes)
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let read = match path.as_os_str() == STDIN {
        true => std::io::stdin().read_to_end(&mut bytes).map(|_| ()),
        false => std::fs::read(path).map(|read| bytes = read),
    };
    read.with_context(|| format!("cannot read `{}`", path.display())).hint(readable)?;
    Ok(bytes)
}

fn text(path: &Path, bytes: Vec<u8>) -> anyhow::Result<String> {
    let text = String::from_utf8(bytes);
    text.with_context(|| format!("cannot read `{}` as text", path.display())).hint(readable)
}

fn readable() -> String {
    "give the path of a readable text file, or - for standard input".to_owned()
}

/// The lines of a list that are meant to be descriptors, right or wrong.
///
/// A list none of whose lines is a descriptor is refused: it is another kind of file.
fn lines(file: &str, text: &str, driver: Driver) -> anyhow::Result<Vec<Line>> {
    let written: Vec<&str> = text.lines().collect();
    let line = |(number, descriptor): (usize, Result<Descriptor, DescriptorError>)| Line {
        file: file.to_owned(),
        number,
        text: written.get(number - 1).copied().unwrap_or_default().to_owned(),
        descriptor: descriptor.map_err(Blame::Text),
    };
    let lines: Vec<Line> = parse_list_as(text, driver).into_iter().map(line).collect();
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
    marked(text, error.at, error)
}

fn marked(text: &str, at: usize, error: &dyn fmt::Display) -> anyhow::Error {
    let before = text.get(..at).map_or(0, |before| before.chars().count());
    let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    anyhow!("{error}\n  {text}\n  {:before$}^", "")
}

/// Reads `NAME=SIZE`.
fn dimension(text: &str) -> Result<(String, u64), String> {
    let (name, size) = text.split_once('=').ok_or("expected NAME=SIZE")?;
    match size.parse() {
        Ok(size @ 1..) => Ok((name.to_owned(), size)),
        Ok(0) | Err(_) => Err(format!("`{size}` is no size, expected a number from 1")),
    }
}

fn help() -> String {
    "a problem reads `conv2d ic64 oc64 ih56 iw56 kh3 kw3 ph1 pw1`; `convgen --help` explains it"
        .to_owned()
}
