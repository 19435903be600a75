//! The problems of a command that measures: from the command line, a suite, a file, a model.

use std::io::Write;
use std::path::PathBuf;

use crate::suite;
use anyhow::{Context, anyhow};
use clap::Args;
use convgen_ir::problem::{ConvProblem, Descriptor, Driver};
use convgen_ir::separable::Separable;

use super::failure::Hint;
use super::output::title;
use super::source::{self, Blame, ModelArgs, STDIN};

/// Which problems.
#[derive(Args)]
pub struct ProblemsArg {
    /// A problem, as one quoted string or as several words
    #[arg(value_name = "DESCRIPTOR")]
    words: Vec<String>,
    /// The problems of a network built in; `convgen suites` lists them
    #[arg(long, value_name = "NAME")]
    suite: Option<String>,
    /// The problems of a file, one a line, or of an ONNX model; - for standard input
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Use this batch instead of the problem's own
    #[arg(long, value_name = "N")]
    batch: Option<u64>,
    #[command(flatten)]
    model: ModelArgs,
}

impl ProblemsArg {
    /// Whether the problems come from standard input.
    pub fn is_stdin(&self) -> bool {
        self.file.as_ref().is_some_and(|path| path.as_os_str() == STDIN)
    }

    /// The words of the command line, if they are meant as a pair of convolutions.
    pub fn pair(&self) -> Option<String> {
        let text = self.words.join(" ");
        Separable::is_meant(&text).then_some(text)
    }

    /// Whether problems are asked for besides those of the command line.
    pub fn has_others(&self) -> bool {
        self.suite.is_some() || self.file.is_some()
    }

    /// A pair over the batch asked for.
    pub fn apply_batch(&self, pair: &Separable) -> anyhow::Result<Separable> {
        let Some(batch) = self.batch else { return Ok(pair.clone()) };
        let over = |problem: &ConvProblem| problem.with_batch(batch);
        Ok(Separable::new(over(pair.depthwise())?, over(pair.pointwise())?)?)
    }

    /// The problems of the command line, of the suite and of the file, in this order.
    pub fn read(&self, driver: Driver) -> anyhow::Result<Vec<Descriptor>> {
        let mut problems = Vec::new();
        if !self.words.is_empty() {
            problems.push(source::descriptor(&self.words.join(" "))?);
        }
        if let Some(name) = &self.suite {
            let suite = suite::find(name).hint(|| "`convgen suites` describes them".to_owned())?;
            problems.extend(suite.descriptors()?);
        }
        if let Some(path) = &self.file {
            for line in source::read_lines(path, &self.model, self.batch, driver)? {
                match &line.descriptor {
                    // What a model has besides is still measured.
                    Err(Blame::Unsupported(unsupported)) => {
                        // Nobody is left to tell if standard error is closed.
                        let _ = writeln!(std::io::stderr(), "{line}: unsupported: {unsupported}");
                    }
                    Ok(_) | Err(Blame::Text(_)) => problems.push(line.into_descriptor()?),
                }
            }
        }
        if problems.is_empty() {
            return Err(anyhow!("no problem to measure"))
                .hint(|| "give a descriptor, --suite NAME or --file FILE".to_owned());
        }
        match self.batch {
            Some(batch) => problems.into_iter().map(|problem| with_batch(problem, batch)).collect(),
            None => Ok(problems),
        }
    }
}

fn with_batch(descriptor: Descriptor, batch: u64) -> anyhow::Result<Descriptor> {
    let problem = descriptor.problem.with_batch(batch).with_context(|| title(&descriptor))?;
    Ok(Descriptor { problem, ..descriptor })
}
