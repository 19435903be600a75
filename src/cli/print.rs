//! `convgen print`: a problem at any stage of the compiler, as text.
//!
//! Promises: nests and schedules are printed as the language's parser reads them.

use std::fmt::Write as _;
use std::io::Write;

use clap::{Args, ValueEnum};
use convgen::algorithm::Algorithm;
use convgen::{Compiler, Error, Host, lower};
use convgen_ir::nest::Nest;
use convgen_ir::problem::ConvProblem;
use convgen_ir::schedule::Schedule;
use convgen_ir::verify::VerifiedNest;

use super::args::{DescriptorArg, IsaArg, LayoutArg, ScheduleArg, scheduled};
use super::failure::Verdict;

const EXAMPLES: &str = "\
Examples:
  convgen print conv2d ic64 oc64 ih56 iw56 kh3 kw3 ph1 pw1
  convgen print --stage nest conv1d ic8 oc8 iw64 kw3
  convgen print --stage schedule --directives conv1d ic8 oc8 iw64 kw3 > s.txt
  convgen print --stage lower --passes --schedule s.txt conv1d ic8 oc8 iw64 kw3
  convgen print --stage asm conv1d ic8 oc8 iw64 kw3";

/// The arguments of `convgen print`.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct PrintArgs {
    /// Which stage to show
    #[arg(long, value_name = "STAGE", default_value = "schedule")]
    stage: Stage,
    /// With --stage nest: the scheduled nest, as --stage schedule shows it
    #[arg(long)]
    scheduled: bool,
    /// With --stage schedule: the directives alone, as --schedule reads them
    #[arg(long)]
    directives: bool,
    /// With --stage lower: the nest after each pass
    #[arg(long)]
    passes: bool,
    #[command(flatten)]
    layout: LayoutArg,
    #[command(flatten)]
    isa: IsaArg,
    #[command(flatten)]
    schedule: ScheduleArg,
    #[command(flatten)]
    descriptor: DescriptorArg,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Stage {
    /// The canonical descriptor
    Problem,
    /// The loop nest before scheduling
    Nest,
    /// The schedule, and the nest it makes
    Schedule,
    /// The nest the code is made from
    Lower,
    /// The functions given to Cranelift
    Clif,
    /// Machine code
    Asm,
}

/// Prints the stage asked for.
pub fn print(args: &PrintArgs, out: &mut impl Write) -> anyhow::Result<Verdict> {
    let descriptor = args.descriptor.read()?;
    let problem = args.layout.apply(&descriptor.problem);
    let given = args.schedule.read()?;
    let compiler = args.isa.compiler(&Host::detect(), 1)?;
    let (algorithm, schedule) = given.plan(&problem, &compiler)?;
    let choice = Choice { compiler: &compiler, problem: &problem, algorithm, schedule: &schedule };
    let text = choice.text(args);
    write!(out, "{}", scheduled(text, &given)?)?;
    Ok(Verdict::Good)
}

/// What the stages are made from.
struct Choice<'a> {
    compiler: &'a Compiler,
    problem: &'a ConvProblem,
    algorithm: Algorithm,
    schedule: &'a Schedule,
}

impl Choice<'_> {
    fn text(&self, args: &PrintArgs) -> Result<String, Error> {
        Ok(match args.stage {
            Stage::Problem => format!("{}\n", self.problem),
            Stage::Nest if args.scheduled => self.directives_and_nest()?,
            Stage::Nest => joined(self.algorithm.parts(self.problem)?.iter().map(|p| &p.nest)),
            Stage::Schedule if args.directives => self.schedule.to_string(),
            Stage::Schedule => self.directives_and_nest()?,
            Stage::Lower if args.passes => self.passes()?,
            Stage::Lower => joined(self.lowered()?.iter().map(VerifiedNest::nest)),
            Stage::Clif => joined(self.lowered()?.iter().map(|n| self.compiler.clif_text(n))),
            Stage::Asm => {
                let nests = self.lowered()?;
                let texts = nests.iter().map(|nest| self.compiler.asm_text(nest));
                joined(texts.collect::<Result<Vec<_>, _>>()?)
            }
        })
    }

    fn nests(&self) -> Result<Vec<Nest>, Error> {
        Compiler::schedule(self.problem, self.algorithm, self.schedule)
    }

    fn lowered(&self) -> Result<Vec<VerifiedNest>, Error> {
        self.compiler.lower(self.problem, self.algorithm, self.schedule)
    }

    /// The directives, then what they make of the nest.
    fn directives_and_nest(&self) -> Result<String, Error> {
        let (problem, schedule) = (self.problem, self.schedule);
        Ok(format!("# {}: {problem}\n{schedule}\n{}", self.algorithm, joined(self.nests()?)))
    }

    /// The nests after each pass, each under the pass's name.
    fn passes(&self) -> Result<String, Error> {
        let mut texts = Vec::new();
        for nest in self.nests()? {
            let mut text = format!("# scheduled\n{nest}");
            lower::lower_traced(nest, &self.compiler.target().limits(), |pass, nest| {
                // Writing to a string never fails.
                let _ = write!(text, "\n# after {pass}\n{nest}");
            })?;
            texts.push(text);
        }
        Ok(joined(texts))
    }
}

/// The texts of all parts, a blank line between them.
fn joined(texts: impl IntoIterator<Item = impl ToString>) -> String {
    texts.into_iter().map(|text| text.to_string()).collect::<Vec<_>>().join("\n")
}
