//! The convolutions of a model as lines of JSON, one a node, for scripts.
//!
//! `cargo run -p convgen-onnx --example list -- model.onnx [--batch N] [--dim NAME=SIZE]...`
//!
//! A line has `name`, and `problem`, `input` and `output`, the shapes, or `reason`. A model that is
//! refused is one line with `error`, and `dim` if a size is left open.

use std::process::ExitCode;

use convgen_onnx::{Layer, OnnxError, Options, read_nodes};

fn main() -> ExitCode {
    let (path, options) = match arguments() {
        Ok(given) => given,
        Err(wrong) => {
            eprintln!("{wrong}\nlist MODEL.onnx [--batch N] [--dim NAME=SIZE]...");
            return ExitCode::FAILURE;
        }
    };
    let file = match std::fs::read(&path) {
        Ok(file) => file,
        Err(error) => {
            eprintln!("`{path}`: {error}");
            return ExitCode::FAILURE;
        }
    };
    match read_nodes(file, &options) {
        Ok(layers) => layers.iter().for_each(|layer| println!("{}", line(layer))),
        Err(error) => println!("{}", refused(&error)),
    }
    ExitCode::SUCCESS
}

fn arguments() -> Result<(String, Options), String> {
    let mut options = Options::default();
    let mut path = None;
    let mut given = std::env::args().skip(1);
    while let Some(argument) = given.next() {
        let mut value = || given.next().ok_or(format!("{argument} needs a value"));
        match argument.as_str() {
            "--batch" => options.batch = Some(number(&value()?)?),
            "--dim" => {
                let value = value()?;
                let (name, size) = value.rsplit_once('=').ok_or(format!("{value}: NAME=SIZE"))?;
                options.dims.insert(name.to_owned(), number(size)?);
            }
            _ => path = Some(argument),
        }
    }
    Ok((path.ok_or("no model is given")?, options))
}

fn number(text: &str) -> Result<u64, String> {
    text.parse().map_err(|error| format!("{text}: {error}"))
}

fn line(layer: &Layer) -> String {
    let name = quoted(&layer.name);
    match &layer.problem {
        Ok(problem) => format!(
            "{{\"name\": {name}, \"problem\": {}, \"input\": {:?}, \"output\": {:?}}}",
            quoted(&problem.to_string()),
            problem.input_shape(problem.batch()),
            problem.output_shape(problem.batch()),
        ),
        Err(reason) => {
            format!("{{\"name\": {name}, \"reason\": {}}}", quoted(&reason.to_string()))
        }
    }
}

fn refused(error: &OnnxError) -> String {
    let dim = match error {
        OnnxError::Dimension { place, .. } => format!(", \"dim\": {}", quoted(place)),
        OnnxError::Proto(_)
        | OnnxError::NoGraph
        | OnnxError::Initializer { .. }
        | OnnxError::Input { .. }
        | OnnxError::Node { .. }
        | OnnxError::NoDimension { .. } => String::new(),
    };
    format!("{{\"error\": {}{dim}}}", quoted(&error.to_string()))
}

/// A JSON string.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c.is_control() => out.push_str(&format!("\\u{:04x}", c as u32)),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}
