//! `convgen db`: look at tuning records, join them, pass them on, throw them away.
//!
//! Promises: a file is changed only by `merge`, `load` and `prune`, whole and under its lock; a
//! line that this version cannot read is named with its number and its reason, and stays until it
//! is pruned.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::PathBuf;

use anyhow::anyhow;
use clap::{Args, Subcommand};
use convgen::ir::ConvProblem;
use convgen::record::{Database, Inserted, Key, Record, Store};
use convgen::{Compiler, Host, Isa, Origin};

use super::args::DbArg;
use super::failure::{Hint, Verdict};
use super::output::{short, table};

const EXAMPLES: &str = "\
Examples:
  convgen db list
  convgen db list --only ic64 --db cluster.jsonl
  convgen db merge shard1.jsonl shard2.jsonl shard3.jsonl
  convgen db load
  convgen db export --here --output this_machine.jsonl
  convgen db prune --dry-run

A record says which schedule was measured to be the best one for a problem (of any batch), on a
target (architecture, instruction set, sizes of the caches), for calls of a number of threads. Every
command that compiles uses the record of exactly that problem, target and number of threads, after
the compiler has checked its schedule like any other; --no-db does without, --db FILE takes the records
of another file. The file is text, one JSON object a line: it may be sorted, cut, and put under version
control.";

/// The arguments of `convgen db`.
#[derive(Args)]
#[command(after_help = EXAMPLES, arg_required_else_help = true)]
pub struct DbArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Show the records, and the lines that are none
    List(ListArgs),
    /// Add the records of other files; the better record of each key stays
    Merge(MergeArgs),
    /// Add the records that ship with convgen for this machine
    Load(LoadArgs),
    /// Write records to standard output or to a new file
    Export(ExportArgs),
    /// Drop lines that this version cannot read, and records that are asked for
    Prune(PruneArgs),
    /// Show where the records are
    Path(PathArgs),
}

/// Which records.
#[derive(Args)]
struct Filter {
    /// Only records whose problem or target contains this text
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
    /// Only records for this machine, with any of its instruction sets
    #[arg(long)]
    here: bool,
}

#[derive(Args)]
#[command(after_help = "Example: convgen db list --here --only 'kh3 kw3'")]
struct ListArgs {
    #[command(flatten)]
    file: DbArg,
    #[command(flatten)]
    filter: Filter,
}

#[derive(Args)]
#[command(after_help = "Example: convgen db merge shard1.jsonl shard2.jsonl --db all.jsonl

The order of the files does not matter, and merging one twice changes nothing. Of two records with
one problem, target and number of threads, the one with fewer seconds an image stays.")]
struct MergeArgs {
    /// Files of records
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    #[command(flatten)]
    file: DbArg,
    /// Store one record at a time, and print its problem when it is on the disk
    #[arg(long, hide = true)]
    each: bool,
}

#[derive(Args)]
#[command(after_help = "Example: convgen db load

What a search found for the layers of ResNet-50, MobileNetV2 and VGG-16 on some CPUs. Those of this
machine's target are added as by merge: of two records the better one stays.")]
struct LoadArgs {
    #[command(flatten)]
    file: DbArg,
}

#[derive(Args)]
#[command(after_help = "Example: convgen db export --here --output this_machine.jsonl")]
struct ExportArgs {
    #[command(flatten)]
    file: DbArg,
    #[command(flatten)]
    filter: Filter,
    /// The file to write, which must not exist; standard output if not given
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

#[derive(Args)]
#[command(after_help = "Example: convgen db prune --other-targets --dry-run

Lines of other versions of convgen and lines that are no records are always dropped.")]
struct PruneArgs {
    #[command(flatten)]
    file: DbArg,
    /// Also drop records of other machines
    #[arg(long)]
    other_targets: bool,
    /// Also drop records for this machine whose schedule the compiler refuses
    #[arg(long)]
    refused: bool,
    /// Say what would be dropped, and change nothing
    #[arg(long)]
    dry_run: bool,
}

#[derive(Args)]
#[command(after_help = "Example: convgen db path")]
struct PathArgs {
    #[command(flatten)]
    file: DbArg,
}

/// Does what the action says.
pub fn db(args: &DbArgs, out: &mut impl Write) -> anyhow::Result<Verdict> {
    match &args.action {
        Action::List(args) => list(args, out),
        Action::Merge(args) => merge(args, out),
        Action::Load(args) => load(args, out),
        Action::Export(args) => export(args, out),
        Action::Prune(args) => prune(args, out),
        Action::Path(args) => path(args, out),
    }?;
    Ok(Verdict::Good)
}

fn path(args: &PathArgs, out: &mut impl Write) -> anyhow::Result<()> {
    Ok(writeln!(out, "{}", args.file.store()?.path().display())?)
}

fn list(args: &ListArgs, out: &mut impl Write) -> anyhow::Result<()> {
    let store = args.file.store()?;
    let database = args.file.load(&store)?;
    let records = args.filter.apply(&database);
    if !records.is_empty() {
        let columns = [
            "problem",
            "target",
            "threads",
            "algorithm",
            "batch",
            "ms",
            "default ms",
            "gain",
            "tried",
            "date",
        ];
        let mut table = table(&columns, 4..9);
        for record in &records {
            table.add_row(row(record));
        }
        writeln!(out, "{table}")?;
    }
    let (count, path) = (records.len(), store.path().display());
    writeln!(out, "{} in {path}", counted(count, "record"))?;
    unused(&store, &database, out)
}

fn row(record: &Record) -> Vec<String> {
    let problem: Result<ConvProblem, _> = record.key.problem().parse();
    vec![
        problem.map_or_else(|_| record.key.problem().to_owned(), |problem| described(&problem)),
        record.key.target().to_owned(),
        record.key.threads().to_string(),
        record.algorithm.to_string(),
        record.batch.to_string(),
        format!("{:.4}", record.seconds * 1e3),
        format!("{:.4}", record.default_seconds * 1e3),
        format!("{:.2}x", record.default_seconds / record.seconds),
        record.candidates.to_string(),
        record.date.clone(),
    ]
}

/// The problem in short, with what tells it from others of that shape.
fn described(problem: &ConvProblem) -> String {
    let mut text = format!("{} {}", problem.layout().name(), short(problem));
    if problem.bias() {
        text += " bias";
    }
    for op in problem.epilogue() {
        text += &format!(" | {op}");
    }
    text
}

/// The lines of the file that are no records, and the records that turn out to be unsound.
fn unused(store: &Store, database: &Database, out: &mut impl Write) -> anyhow::Result<()> {
    for skipped in database.skipped() {
        writeln!(out, "{}:{}: not used: {}", store.path().display(), skipped.line, skipped.reason)?;
    }
    let known = database.unread().count();
    let mut examined = database.clone();
    examined.examine();
    let before: BTreeSet<&[u8]> = database.unread().map(|(line, _)| line).collect();
    if examined.unread().count() > known {
        let found = examined.unread().filter(|(line, _)| !before.contains(line));
        for (line, reason) in found {
            let start = String::from_utf8_lossy(&line[..line.len().min(100)]).into_owned();
            let path = store.path().display();
            writeln!(out, "{path}: not used: {reason}\n  {}...", start.escape_debug())?;
        }
    }
    Ok(())
}

fn merge(args: &MergeArgs, out: &mut impl Write) -> anyhow::Result<()> {
    let store = args.file.store()?;
    let mut sources = Vec::new();
    for file in &args.files {
        let source = Store::at(file);
        let hint = || "merge takes files of tuning records".to_owned();
        // A file that is not there is a mistake here, not an empty database.
        if !source.exists().hint(hint)? {
            return Err(anyhow!("cannot read `{}`: there is no such file", file.display()));
        }
        let database = source.load().hint(hint)?;
        for skipped in database.skipped() {
            // Nobody is left to tell if standard error is closed.
            let _ = writeln!(
                std::io::stderr(),
                "warning: {}:{}: not used: {}",
                file.display(),
                skipped.line,
                skipped.reason
            );
        }
        sources.push(database);
    }
    if args.each {
        return sources.iter().try_for_each(|source| merge_each(&store, source, out));
    }
    add(&args.file, &store, &sources, out)
}

fn load(args: &LoadArgs, out: &mut impl Write) -> anyhow::Result<()> {
    let compilers = compilers(&Host::detect());
    let (mut shipped, all) = (Database::shipped(), Database::shipped().len());
    shipped.retain(|record| compilers.iter().any(|compiler| is_for(record, compiler)));
    if shipped.is_empty() {
        writeln!(out, "none of the {} that ship is for this machine", counted(all, "record"))?;
        return Ok(());
    }
    add(&args.file, &args.file.store()?, &[shipped], out)
}

/// Adds the records of databases to a file.
fn add(
    file: &DbArg,
    store: &Store,
    sources: &[Database],
    out: &mut impl Write,
) -> anyhow::Result<()> {
    let merged = store.update(|database| {
        let before = database.len();
        sources.iter().for_each(|source| database.merge(source));
        Ok((before, database.len()))
    });
    let (before, after) = merged.hint(|| file.other_file())?;
    let path = store.path().display();
    let added = counted(after.saturating_sub(before), "record");
    writeln!(out, "{added} added, {after} in {path}")?;
    Ok(())
}

fn merge_each(store: &Store, source: &Database, out: &mut impl Write) -> anyhow::Result<()> {
    for record in source.records() {
        let word = match store.insert(&record)? {
            Inserted::Stored => "stored",
            Inserted::Kept { .. } => "kept",
        };
        writeln!(out, "{word} {}", record.key.problem())?;
        out.flush()?;
    }
    Ok(())
}

fn export(args: &ExportArgs, out: &mut impl Write) -> anyhow::Result<()> {
    let database = args.file.load(&args.file.store()?)?;
    let mut exported = Database::new();
    for record in args.filter.apply(&database) {
        exported.insert(&record)?;
    }
    let Some(path) = &args.output else { return Ok(out.write_all(&exported.text())?) };
    Store::at(path)
        .create(&exported)
        .hint(|| "export writes a new file; to add records to one, use merge".to_owned())?;
    writeln!(out, "{} in {}", counted(exported.len(), "record"), path.display())?;
    Ok(())
}

fn prune(args: &PruneArgs, out: &mut impl Write) -> anyhow::Result<()> {
    let store = args.file.store()?;
    let compilers = compilers(&Host::detect());
    let pruned = |database: &mut Database| {
        let unread = database.retain_readable();
        let before = database.len();
        database.retain(|record| {
            let here = compilers.iter().find(|compiler| is_for(record, compiler));
            match here {
                None => !args.other_targets,
                Some(compiler) => !args.refused || !is_refused(record, compiler),
            }
        });
        (unread, before - database.len(), database.len())
    };
    let (unread, records, left) = match args.dry_run {
        true => pruned(&mut args.file.load(&store)?),
        false => {
            let updated = store.update(|database| Ok(pruned(database)));
            updated.hint(|| args.file.other_file())?
        }
    };
    let would = if args.dry_run { "would be " } else { "" };
    writeln!(
        out,
        "{} and {} {would}dropped, {} left in {}",
        counted(unread, "unreadable line"),
        counted(records, "record"),
        counted(left, "record"),
        store.path().display()
    )?;
    Ok(())
}

/// So many things of a kind.
fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

impl Filter {
    fn apply(&self, database: &Database) -> Vec<Record> {
        let compilers = if self.here { compilers(&Host::detect()) } else { Vec::new() };
        let only = |record: &Record| match &self.only {
            Some(only) => record.key.problem().contains(only) || record.key.target().contains(only),
            None => true,
        };
        let here = |record: &Record| {
            !self.here || compilers.iter().any(|compiler| is_for(record, compiler))
        };
        database.records().into_iter().filter(|record| only(record) && here(record)).collect()
    }
}

/// One compiler for each instruction set of this machine.
fn compilers(host: &Host) -> Vec<Compiler> {
    Isa::ALL.into_iter().filter_map(|isa| Compiler::new(host, isa).ok()).collect()
}

fn is_for(record: &Record, compiler: &Compiler) -> bool {
    record.key.target() == compiler.target().key()
}

/// Whether the compiler would fall back to its default pick.
fn is_refused(record: &Record, compiler: &Compiler) -> bool {
    let Ok(problem) = record.key.problem().parse::<ConvProblem>() else { return true };
    let mut alone = Database::new();
    let key = Key::new(&problem, compiler.target(), record.key.threads());
    if key != record.key || alone.insert(record).is_err() {
        return true;
    }
    let compiler = compiler.clone().with_database(alone.into()).with_threads(key.threads());
    match compiler.pick(&problem).origin {
        Origin::Record(_) => false,
        Origin::Refused { .. } | Origin::Default => true,
    }
}
