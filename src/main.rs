//! The command line of convgen; all of it is in [`cli`].

mod cli;

fn main() -> std::process::ExitCode {
    cli::main()
}
