//! `convgen print`: a problem at any stage of the compiler, as text.
//!
//! Promises: nests and schedules are printed as the language's parser reads them.

use std::fmt::Write as _;
use std::io::Write;
use std::path::PathBuf;

use anyhow::bail;
use clap::{Args, ValueEnum};
use convgen::algorithm::Algorithm;
use convgen::scheduler::separable;
use convgen::{Compiler, Error, Host, lower};
use convgen_ir::nest::Nest;
use convgen_ir::problem::ConvProblem;
use convgen_ir::schedule::Schedule;
use convgen_ir::toeplitz;
use convgen_ir::verify::VerifiedNest;

use super::args::{DescriptorArg, IsaArg, LayoutArg, ScheduleArg, scheduled};
use super::failure::{Hint, Verdict};
use super::{npy, source};

const EXAMPLES: &str = "\
Examples:
  convgen print conv2d ic64 oc64 ih56 iw56 kh3 kw3 ph1 pw1
  convgen print --stage nest conv1d ic8 oc8 iw64 kw3
  convgen print --stage schedule --directives conv1d ic8 oc8 iw64 kw3 > s.txt
  convgen print --stage lower --passes --schedule s.txt conv1d ic8 oc8 iw64 kw3
  convgen print --stage vir conv1d ic8 oc16 iw64 kw3
  convgen print --stage asm conv1d ic8 oc8 iw64 kw3
  convgen print --stage lower 'conv1d g8 ic8 oc8 iw64 kw3 -> conv1d ic8 oc4 iw62 kw1'
  convgen print --stage toeplitz conv1d ic1 oc1 iw6 kw3 pw1
  convgen print --stage toeplitz --format mtx --weights w.npy conv1d ic8 oc8 iw64 kw3 > t.mtx

The matrix of --stage toeplitz has a row for each output and a column for each input of one image;
bias and epilogue are left out. As text it shows the names of the weights; mtx (Matrix Market) and
csv list the entries, with the values of --weights, or else one plus the flat index of each weight.";

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
    /// With --stage toeplitz: how to write the matrix
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    format: Format,
    /// With --stage toeplitz and --format mtx or csv: the weights, in the order oihw
    #[arg(long, value_name = "W.npy")]
    weights: Option<PathBuf>,
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
    /// The micro-kernels, as vector operations
    Vir,
    /// The functions given to Cranelift
    Clif,
    /// Machine code
    Asm,
    /// The convolution as a matrix
    Toeplitz,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// All elements, each weight with its name
    Text,
    /// The entries, as Matrix Market has them
    Mtx,
    /// The entries, as comma-separated values
    Csv,
}

/// Prints the stage asked for.
pub fn print(args: &PrintArgs, out: &mut impl Write) -> anyhow::Result<Verdict> {
    if let Some(text) = args.descriptor.pair() {
        return pair(args, &text, out);
    }
    let descriptor = args.descriptor.read()?;
    let problem = args.layout.apply(&descriptor.problem);
    if args.stage == Stage::Toeplitz {
        return matrix(args, &problem, out);
    }
    let given = args.schedule.read()?;
    let compiler = args.isa.compiler(&Host::detect(), 1)?;
    let (algorithm, schedule) = given.plan(&problem, &compiler)?;
    let text = |algorithm, schedule| {
        Choice { compiler: &compiler, problem: &problem, algorithm, schedule }.text(args)
    };
    let text = match text(algorithm, &schedule) {
        // The pick gives way to a plainer one, which only its code shows.
        Err(Error::CodeSize { .. }) if given.is_nothing() => {
            let kernel = compiler.compile(&problem)?;
            text(kernel.algorithm(), kernel.schedule())
        }
        text => text,
    };
    write!(out, "{}", scheduled(text, &given)?)?;
    Ok(Verdict::Good)
}

/// Prints the fused nest of a pair, by its default schedules.
fn pair(args: &PrintArgs, text: &str, out: &mut impl Write) -> anyhow::Result<Verdict> {
    if args.schedule.is_given() || args.passes {
        bail!("a pair of convolutions is printed by its default schedules, without passes");
    }
    let separable = args.layout.apply_pair(&source::separable(text)?)?;
    let compiler = args.isa.compiler(&Host::detect(), 1)?;
    let plan = separable::plan(&separable, compiler.target());
    let lowered = || compiler.lower_separable(&separable, &plan);
    let text = match args.stage {
        Stage::Problem => format!("{separable}\n"),
        Stage::Schedule if args.directives => {
            format!("# depthwise\n{}# pointwise\n{}", plan.depthwise, plan.pointwise)
        }
        Stage::Schedule => Compiler::schedule_separable(&separable, &plan)?.to_string(),
        Stage::Lower => lowered()?.nest().to_string(),
        Stage::Vir => compiler.vir_text(&lowered()?)?,
        Stage::Clif => compiler.clif_text(&lowered()?),
        Stage::Asm => compiler.asm_text(&lowered()?)?,
        Stage::Nest | Stage::Toeplitz => bail!("a pair of convolutions is one nest when scheduled"),
    };
    write!(out, "{text}")?;
    Ok(Verdict::Good)
}

/// Prints the problem as a matrix.
fn matrix(
    args: &PrintArgs,
    problem: &ConvProblem,
    out: &mut impl Write,
) -> anyhow::Result<Verdict> {
    let smaller =
        || "give fewer channels or positions: the matrix is for small problems".to_owned();
    let matrix = toeplitz::symbolic(problem).hint(smaller)?;
    let weights = args.weights.as_ref().map(|path| {
        let shape: Vec<Option<u64>> = problem.weights_shape().into_iter().map(Some).collect();
        npy::read(path, "weights", &shape)
    });
    match (args.format, weights.transpose()?) {
        (Format::Text, None) => {
            let listed = || "--format mtx and --format csv list the entries alone".to_owned();
            write!(out, "{}", matrix.text(problem).hint(listed)?)?;
        }
        (Format::Text, Some(_)) => bail!("--weights needs --format mtx or --format csv"),
        (Format::Mtx, None) => matrix.numbered().write_mtx(out)?,
        (Format::Csv, None) => matrix.numbered().write_csv(out)?,
        (Format::Mtx, Some(w)) => matrix.with_weights(problem, &w.values)?.write_mtx(out)?,
        (Format::Csv, Some(w)) => matrix.with_weights(problem, &w.values)?.write_csv(out)?,
    }
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
            // The matrix is printed before there is a schedule.
            Stage::Problem | Stage::Toeplitz => format!("{}\n", self.problem),
            Stage::Nest if args.scheduled => self.directives_and_nest()?,
            Stage::Nest if self.algorithm == Algorithm::Fourier => joined(self.nests()?),
            Stage::Nest => {
                let target = self.compiler.target();
                let (parts, _) = self.algorithm.parts_for(self.problem, self.schedule, target)?;
                joined(parts.iter().map(|part| &part.nest))
            }
            Stage::Schedule if args.directives => {
                // Only what applies is shown.
                self.nests()?;
                self.schedule.to_string()
            }
            Stage::Schedule => self.directives_and_nest()?,
            Stage::Lower if args.passes => self.passes()?,
            Stage::Lower => joined(self.lowered()?.iter().map(VerifiedNest::nest)),
            Stage::Vir => {
                let lowered = self.lowered()?;
                let texts = lowered.iter().map(|nest| self.compiler.vir_text(nest));
                let text = joined(texts.collect::<Result<Vec<_>, _>>()?);
                let none = "# no micro-kernels: all loops are Cranelift's; see --stage clif\n";
                if text.trim().is_empty() { none.to_string() } else { text }
            }
            Stage::Clif => joined(self.lowered()?.iter().map(|n| self.compiler.clif_text(n))),
            Stage::Asm => joined(self.compiler.asm_texts(&self.lowered()?)?),
        })
    }

    fn nests(&self) -> Result<Vec<Nest>, Error> {
        if self.algorithm == Algorithm::Fourier {
            let (_, stages) = self.compiler.stages(self.problem, self.schedule)?;
            return Ok(stages.into_iter().map(VerifiedNest::into_nest).collect());
        }
        let target = self.compiler.target();
        Compiler::schedule_for(target, self.problem, self.algorithm, self.schedule)
    }

    fn lowered(&self) -> Result<Vec<VerifiedNest>, Error> {
        if self.algorithm == Algorithm::Fourier {
            return Ok(self.compiler.stages(self.problem, self.schedule)?.1.into());
        }
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
            let target = self.compiler.target();
            let lowered = lower::lower_traced(nest, &target.limits(), |pass, nest| {
                // Writing to a string never fails.
                let _ = write!(text, "\n# after {pass}\n{nest}");
            })?;
            let outlined = lower::outline(lowered, target);
            let _ = write!(text, "\n# after outline\n{}", outlined.nest());
            texts.push(text);
        }
        Ok(joined(texts))
    }
}

/// The texts of all parts, a blank line between them.
fn joined(texts: impl IntoIterator<Item = impl ToString>) -> String {
    texts.into_iter().map(|text| text.to_string()).collect::<Vec<_>>().join("\n")
}
