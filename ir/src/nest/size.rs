//! How large a nest may be: what is larger is refused before anything is done that takes more than
//! linear time.

use super::{Access, Affine, Expr, MAX_LEVELS, Nest, Stmt};

/// The most terms of a sum: axes whose multiples an index or a condition adds. The longest of what
/// the scheduler picks has four, a random schedule of a dozen directives seven.
pub const MAX_TERMS: usize = 16;

/// The most statements of a nest, loops and conditions among them: some twenty times what the
/// scheduler picks.
pub const MAX_STATEMENTS: usize = 1 << 14;

/// A nest beyond its limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the nest has {what}, the limit is {limit}")]
pub struct Oversize {
    /// What it has too much of.
    pub what: &'static str,
    /// The most that is allowed.
    pub limit: usize,
    /// The statement that is too much, or has it: its number in the order of the text.
    pub at: usize,
}

impl Oversize {
    /// The fault of a nest with too many statements, for who counts them as they are made.
    pub const STATEMENTS: Oversize =
        Oversize { what: "more statements", limit: MAX_STATEMENTS, at: MAX_STATEMENTS };
}

impl Nest {
    /// Whether the nest is within [`MAX_STATEMENTS`], [`MAX_TERMS`] and [`MAX_LEVELS`].
    ///
    /// # Errors
    /// The first limit that it exceeds, in the order of the text.
    pub fn check_size(&self) -> Result<(), Oversize> {
        let mut count = Count { statements: 0 };
        count.block(&self.pack, 1)?;
        count.block(&self.body, 1)
    }
}

/// The statements of a block, those inside of them included.
pub fn count_statements(stmts: &[Stmt]) -> usize {
    let inside = |stmt: &Stmt| match stmt {
        Stmt::Loop(l) => count_statements(&l.body),
        Stmt::If(_, body) | Stmt::MicroKernel(body) => count_statements(body),
        Stmt::Declare(_) | Stmt::Let(..) | Stmt::Store(..) => 0,
    };
    stmts.iter().fold(stmts.len(), |count, stmt| count.saturating_add(inside(stmt)))
}

/// The statements met so far, the one at hand included.
struct Count {
    statements: usize,
}

impl Count {
    fn block(&mut self, stmts: &[Stmt], level: usize) -> Result<(), Oversize> {
        self.level(level)?;
        for stmt in stmts {
            self.statements = self.statements.saturating_add(1);
            if self.statements > MAX_STATEMENTS {
                return Err(Oversize::STATEMENTS);
            }
            match stmt {
                Stmt::Loop(l) => {
                    l.guards.iter().try_for_each(|guard| self.sum(guard.sum()))?;
                    l.fetch.iter().try_for_each(|fetch| self.access(&fetch.from))?;
                    self.block(&l.body, level.saturating_add(1))?;
                }
                Stmt::If(guards, body) => {
                    guards.iter().try_for_each(|guard| self.sum(guard.sum()))?;
                    self.block(body, level.saturating_add(1))?;
                }
                Stmt::MicroKernel(body) => self.block(body, level.saturating_add(1))?,
                Stmt::Declare(_) => {}
                Stmt::Let(_, value) => self.value(value, 1)?,
                Stmt::Store(dst, value) => {
                    self.access(dst)?;
                    self.value(value, 1)?;
                }
            }
        }
        Ok(())
    }

    fn value(&self, value: &Expr, level: usize) -> Result<(), Oversize> {
        self.level(level)?;
        if let Expr::Load(from) | Expr::Pad(_, from) = value {
            self.access(from)?;
        }
        let mut operands = value.operands();
        operands.try_for_each(|operand| self.value(operand, level.saturating_add(1)))
    }

    fn access(&self, access: &Access) -> Result<(), Oversize> {
        access.index.iter().try_for_each(|sum| self.sum(sum))
    }

    fn sum(&self, sum: &Affine) -> Result<(), Oversize> {
        let fits = sum.terms().len() <= MAX_TERMS;
        fits.then_some(()).ok_or_else(|| self.excess("a sum of more terms", MAX_TERMS))
    }

    fn level(&self, level: usize) -> Result<(), Oversize> {
        let fits = level <= MAX_LEVELS;
        let what = "blocks or operations nested deeper";
        fits.then_some(()).ok_or_else(|| self.excess(what, MAX_LEVELS))
    }

    fn excess(&self, what: &'static str, limit: usize) -> Oversize {
        Oversize { what, limit, at: self.statements.saturating_sub(1) }
    }
}
