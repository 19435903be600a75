//! The pipeline, stage by stage: problem, schedule, nest, verified nest, code.

mod pick;
mod separable;

use std::sync::Arc;

use convgen_ir::nest::Nest;
use convgen_ir::problem::ConvProblem;
use convgen_ir::schedule::Schedule;
use convgen_ir::verify::VerifiedNest;
use cranelift_codegen::isa::TargetIsa;
use cranelift_frontend::FunctionBuilderContext;

use crate::accuracy::Accuracy;
use crate::algorithm::Algorithm;
use crate::codegen::Entry;
use crate::codegen::isa::clif::{self, Allocator, Emitted};
use crate::error::Error;
use crate::fourier::{Plan, Transforms};
use crate::jit::Code;
use crate::lower::Outlined;
use crate::record::Database;
use crate::runtime::{Kernel, NestKernel};
use crate::target::{Host, Isa, Target};
use crate::{codegen, scheduler, stages};

pub use self::pick::{Origin, Pick};

/// Compiles problems for one target. Building one sets up Cranelift once; it is cheap to share.
#[derive(Clone)]
pub struct Compiler {
    target: Target,
    isa: Arc<dyn TargetIsa>,
    /// The same, for code around micro-kernels.
    quick: Arc<dyn TargetIsa>,
    records: Arc<Database>,
    /// The threads its kernels are meant for.
    threads: usize,
}

/// What a code generator compiles.
enum Lowered {
    /// The nests that write the output.
    Nests(Vec<Outlined>),
    /// The tiles of transforms, the products between them and the last stage.
    Stages(Box<(Plan, [Outlined; 2])>),
}

impl Compiler {
    /// A compiler for the machine this process runs on, with the widest vectors that it has: the
    /// fast path.
    ///
    /// # Errors
    /// [`Error::Target`] if no code is generated for this kind of CPU.
    pub fn host() -> Result<Compiler, Error> {
        let host = Host::detect();
        Compiler::new(&host, host.widest_isa())
    }

    /// A compiler for the machine this process runs on, with a given instruction set.
    ///
    /// # Errors
    /// [`Error::Target`] if the host lacks what the instruction set needs.
    pub fn new(host: &Host, isa: Isa) -> Result<Compiler, Error> {
        Compiler::for_target(host.target(isa)?, true)
    }

    /// As [`Compiler::new`], but never uses fused multiply-add instructions: for tests of the code
    /// that old hosts get. Same bits, slower.
    ///
    /// # Errors
    /// As [`Compiler::new`].
    pub fn without_fma(host: &Host, isa: Isa) -> Result<Compiler, Error> {
        Compiler::for_target(host.target(isa)?.without_fma(host.profile()), true)
    }

    fn for_target(target: Target, host: bool) -> Result<Compiler, Error> {
        let isa = clif::isa(&target, host, Allocator::Backtracking)?;
        let quick = clif::isa(&target, host, Allocator::SinglePass)?;
        Ok(Compiler { target, isa, quick, records: Arc::default(), threads: 1 })
    }

    /// The same with the tuning records of this database, which may be that of a file,
    /// [`Store::load`](crate::record::Store::load). Without any, every problem gets the default
    /// pick.
    pub fn with_database(mut self, records: Arc<Database>) -> Compiler {
        self.records = records;
        self
    }

    /// The same for kernels whose calls are shared by that many threads; for one if not said. It
    /// decides which tuning record fits, and nothing else: a kernel runs on any number.
    pub fn with_threads(mut self, threads: usize) -> Compiler {
        self.threads = threads;
        self
    }

    /// The same, choosing among the algorithms and the orders of sums that this accuracy allows.
    pub fn with_accuracy(mut self, accuracy: Accuracy) -> Compiler {
        self.target = self.target.with_accuracy(accuracy);
        self
    }

    /// Which algorithms and orders of sums it chooses among.
    pub fn accuracy(&self) -> Accuracy {
        self.target.accuracy()
    }

    /// The target.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// Compiles with the algorithm and the schedule of [`Compiler::pick`]. Every legal problem
    /// compiles: what the code generator refuses is computed as a plainer sum.
    ///
    /// # Errors
    /// [`Error::Verify`], [`Error::CodeSize`] or [`Error::Codegen`] if sizes beyond every limit,
    /// memory or code are refused.
    pub fn compile(&self, problem: &ConvProblem) -> Result<Kernel, Error> {
        let (Pick { algorithm, schedule, .. }, lowered) = self.pick_and_lower(problem);
        let compiled = lowered.map(|lowered| self.kernel(problem, algorithm, schedule, lowered));
        match compiled {
            Some(Ok(kernel)) => Ok(kernel),
            Some(Err(_)) | None => self.compile_sum(problem),
        }
    }

    /// Compiles the defining sum, with the first of its default schedules whose code is accepted
    /// too: no record and no other algorithm decides.
    ///
    /// # Errors
    /// As [`Compiler::compile`].
    pub fn compile_sum(&self, problem: &ConvProblem) -> Result<Kernel, Error> {
        scheduler::first_legal(problem, &self.target, None, |sum| {
            let lowered = Lowered::Nests(sum.nests);
            self.kernel(problem, Algorithm::Direct, sum.schedule, lowered)
        })
    }

    /// Compiles with the given algorithm and schedule.
    ///
    /// # Errors
    /// The stage that refuses, with its reason.
    pub fn compile_with(
        &self,
        problem: &ConvProblem,
        algorithm: Algorithm,
        schedule: &Schedule,
    ) -> Result<Kernel, Error> {
        let schedule = self.completed(problem, algorithm, schedule)?;
        let lowered = self.lower_all(problem, algorithm, &schedule)?;
        self.kernel(problem, algorithm, schedule, lowered)
    }

    /// The schedule with all decisions in it, as [`Kernel::schedule`] gives it: where an algorithm
    /// of tiles has none, its default sizes.
    ///
    /// # Errors
    /// [`Error::Unsupported`] if the algorithm does not compute the problem.
    pub fn completed(
        &self,
        problem: &ConvProblem,
        algorithm: Algorithm,
        schedule: &Schedule,
    ) -> Result<Schedule, Error> {
        Ok(stages::completed(&self.target, problem, algorithm, schedule)?)
    }

    fn kernel(
        &self,
        problem: &ConvProblem,
        algorithm: Algorithm,
        schedule: Schedule,
        lowered: Lowered,
    ) -> Result<Kernel, Error> {
        let (code, transforms) = match lowered {
            Lowered::Nests(nests) => (self.code(nests)?, None),
            Lowered::Stages(stages) => {
                let (plan, [products, finish]) = *stages;
                let products = self.code(vec![products])?;
                let transforms = Arc::new(Transforms::new(problem, plan, products));
                (self.code(vec![finish])?.after(transforms.clone())?, Some(transforms))
            }
        };
        Ok(Kernel::new(problem.clone(), algorithm, schedule, &self.target, code, transforms))
    }

    /// As [`Compiler::lower`], also of an algorithm of stages; all decisions are in the schedule.
    fn lower_all(
        &self,
        problem: &ConvProblem,
        algorithm: Algorithm,
        schedule: &Schedule,
    ) -> Result<Lowered, Error> {
        match algorithm {
            Algorithm::Fourier => {
                let stages = stages::lower_fourier(&self.target, problem, schedule)?;
                Ok(Lowered::Stages(Box::new(stages)))
            }
            Algorithm::Direct | Algorithm::Winograd => {
                let nests = stages::lower_for(&self.target, problem, algorithm, schedule)?;
                Ok(Lowered::Nests(nests))
            }
        }
    }

    /// The tiles of the Fourier form of a problem, and its generated stages: products and last
    /// stage.
    ///
    /// # Errors
    /// [`Error::Unsupported`] outside its domain, [`Error::Sizes`] if those of the schedule do not
    /// fit.
    pub fn stages(
        &self,
        problem: &ConvProblem,
        schedule: &Schedule,
    ) -> Result<(Plan, [VerifiedNest; 2]), Error> {
        let schedule = self.completed(problem, Algorithm::Fourier, schedule)?;
        let (plan, stages) = stages::lower_fourier(&self.target, problem, &schedule)?;
        Ok((plan, stages.map(Outlined::into_nest)))
    }

    /// The scheduled nests of a problem, one a part, before lowering.
    ///
    /// # Errors
    /// [`Error::Unsupported`] or [`Error::Transform`].
    pub fn schedule(
        problem: &ConvProblem,
        algorithm: Algorithm,
        schedule: &Schedule,
    ) -> Result<Vec<Nest>, Error> {
        stages::schedule(problem, algorithm, schedule)
    }

    /// As [`Compiler::schedule`], also of an algorithm whose nests are written for a target.
    ///
    /// # Errors
    /// As [`Compiler::schedule`].
    pub fn schedule_for(
        target: &Target,
        problem: &ConvProblem,
        algorithm: Algorithm,
        schedule: &Schedule,
    ) -> Result<Vec<Nest>, Error> {
        let schedule = stages::completed(target, problem, algorithm, schedule)?;
        stages::schedule_for(target, problem, algorithm, &schedule)
    }

    /// The verified nests of a problem: together they write every element of the output once.
    ///
    /// # Errors
    /// [`Error::Unsupported`], [`Error::Transform`] or [`Error::Verify`].
    pub fn lower(
        &self,
        problem: &ConvProblem,
        algorithm: Algorithm,
        schedule: &Schedule,
    ) -> Result<Vec<VerifiedNest>, Error> {
        let schedule = self.completed(problem, algorithm, schedule)?;
        let nests = stages::lower_for(&self.target, problem, algorithm, &schedule)?;
        Ok(nests.into_iter().map(Outlined::into_nest).collect())
    }

    /// Compiles a nest of the caller's own, one without weights and bias;
    /// [`lower`](crate::lower::lower) makes one of what was parsed or built.
    ///
    /// # Errors
    /// [`Error::Codegen`] or [`Error::CodeSize`].
    pub fn compile_nest(&self, nest: VerifiedNest) -> Result<NestKernel, Error> {
        self.code(vec![Outlined::new(nest, &self.target)]).map(NestKernel::new)
    }

    /// The machine code of a kernel's nests, ready to run; micro-kernels where they are marked.
    ///
    /// # Errors
    /// [`Error::Codegen`] or [`Error::CodeSize`].
    #[doc(hidden)]
    pub fn code<N: Into<Outlined>>(&self, nests: Vec<N>) -> Result<Code, Error> {
        let nests = nests.into_iter().map(Into::into).collect();
        Code::new(nests, &self.target, &self.isa, &*self.quick)
    }

    /// The Cranelift functions of a nest: what [`Compiler::code`] compiles.
    #[doc(hidden)]
    pub fn emit(&self, nest: &VerifiedNest) -> Vec<(Entry, Emitted)> {
        let nest = Outlined::from(nest.clone());
        clif::emit_entries(&nest, &self.target, &*self.isa, &mut FunctionBuilderContext::new())
    }

    /// The Cranelift functions of a nest as text.
    pub fn clif_text(&self, nest: &VerifiedNest) -> String {
        let functions = self.emit(nest).into_iter();
        let texts =
            functions.map(|(entry, f)| format!("; {}\n{}", entry.symbol(), f.function.display()));
        texts.collect::<Vec<_>>().join("\n")
    }

    /// The micro-kernels of a nest as text, in the vector IR; each is named as its function is.
    ///
    /// # Errors
    /// [`Error::Codegen`] if Cranelift does not know the machine.
    pub fn vir_text(&self, nest: &VerifiedNest) -> Result<String, Error> {
        codegen::vir_text(nest, &self.target)
    }

    /// The machine code of a nest as text, in Cranelift's own assembly syntax.
    ///
    /// # Errors
    /// [`Error::Codegen`] or [`Error::CodeSize`].
    pub fn asm_text(&self, nest: &VerifiedNest) -> Result<String, Error> {
        Ok(self.asm_texts(std::slice::from_ref(nest))?.concat())
    }

    /// The machine code of the nests of a kernel as text.
    ///
    /// # Errors
    /// As [`Compiler::asm_text`].
    pub fn asm_texts(&self, nests: &[VerifiedNest]) -> Result<Vec<String>, Error> {
        let text = |(entry, emitted): (Entry, Emitted)| {
            let code = clif::assembly(emitted, &*self.isa)?;
            Ok::<String, Error>(format!("; {}\n{code}", entry.symbol()))
        };
        let nests: Vec<Outlined> = nests.iter().cloned().map(Outlined::from).collect();
        let nests = clif::emit_all(&nests, &self.target, &*self.isa)?.into_iter();
        nests.map(|entries| entries.into_iter().map(text).collect()).collect()
    }
}
