//! The command line: one subcommand a file, each a thin layer over the library.
//!
//! Promises: results go to standard output, progress and errors to standard error. The exit code is
//! 0 if all went well, 1 if a kernel computed something wrong, 2 if the request could not be
//! carried out, which `error: ...` explains. A closed pipe on standard output ends the program
//! quietly.

mod args;
mod bench;
mod db;
mod explain;
mod failure;
mod machine;
mod memory;
mod npy;
mod output;
mod print;
mod problems;
mod run;
mod source;
mod suite;
mod suites;
mod tune;
mod verify;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use self::failure::{Verdict, is_broken_pipe, report};

const ABOUT: &str =
    "A compiler for convolutions: a problem in one line, a kernel in about a millisecond";

const LONG_ABOUT: &str = "\
A compiler for convolutions: a problem in one line, a kernel in about a millisecond.

A problem is a descriptor: the kind (conv1d, conv2d, conv3d), then words in any order.
  n g ic oc      batch, groups, input and output channels (n and g are 1 if left out)
  id ih iw       input sizes, depth height width; conv2d has ih iw, conv1d has iw
  kd kh kw       kernel sizes
  sd sh sw       strides
  dd dh dw       dilations (1 = dense)
  pd ph pw       paddings: of both sides (1) or of each (0:1)
  reflect replicate circular   what padding holds in place of zeros
  nhwc nchw      the layout; bias if one is added
  | relu | add   what happens to each sum, in order; quote the descriptor when it has a bar
Lines in the grammar of benchdnn (g32mb1ic128ih56oc128oh56kh3ph1) are read as well.";

const EXAMPLES: &str = "\
Examples:
  convgen bench --suite resnet50
  convgen bench conv2d ic64 oc64 ih56 iw56 kh3 kw3 ph1 pw1
  convgen verify shapes.txt --layout both
  convgen print --stage schedule conv2d ic64 oc64 ih56 iw56 kh1 kw1
  convgen explain 'conv2d ic64 oc64 ih56 iw56 kh3 kw3 bias | relu'
  convgen run --problem 'conv2d ic3 oc8 ih32 iw32 kh3 kw3' \\
      --input x.npy --weights w.npy --output y.npy

`convgen help COMMAND` says more about each.";

/// What the user asks for.
#[derive(Parser)]
#[command(version, about = ABOUT, long_about = LONG_ABOUT, after_help = EXAMPLES)]
#[command(propagate_version = true, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Compile, verify and time kernels, against the peak of this machine
    Bench(bench::BenchArgs),
    /// Hold the kernels of a list of problems against the interpreter and the reference
    Verify(verify::VerifyArgs),
    /// Show a problem at any stage of the compiler, from its text to machine code
    Print(print::PrintArgs),
    /// Convolve arrays in .npy files
    Run(run::RunArgs),
    /// Say which algorithm and schedule were chosen for a problem, and what they cost
    Explain(explain::ExplainArgs),
    /// Look at tuning records, join them, pass them on, throw them away
    Db(db::DbArgs),
    /// Measure schedules of problems and keep the best for every later compilation
    Tune(tune::TuneArgs),
    /// Show what the compiler knows of this machine, with its measured peaks
    Machine(machine::MachineArgs),
    /// List the networks built in, for `bench --suite`
    Suites(suites::SuitesArgs),
}

/// Reads the command line, does what it asks for, and says how that went.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let mut out = io::stdout().lock();
    let done = dispatch(&cli.command, &mut out).and_then(|verdict| {
        out.flush()?;
        Ok(verdict)
    });
    match done {
        Ok(Verdict::Good) => ExitCode::SUCCESS,
        Ok(Verdict::Wrong) => ExitCode::from(1),
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            report(&error);
            ExitCode::from(2)
        }
    }
}

fn dispatch(command: &Command, out: &mut impl Write) -> anyhow::Result<Verdict> {
    match command {
        Command::Bench(args) => bench::bench(args, out),
        Command::Verify(args) => verify::verify(args, out),
        Command::Print(args) => print::print(args, out),
        Command::Run(args) => run::run(args, out),
        Command::Explain(args) => explain::explain(args, out),
        Command::Db(args) => db::db(args, out),
        Command::Tune(args) => tune::tune(args, out),
        Command::Machine(args) => machine::machine(args, out),
        Command::Suites(args) => suites::suites(args, out),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_of_the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
