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
}

const TERMS: Oversize = Oversize { what: "a sum of more terms", limit: MAX_TERMS };
const STATEMENTS: Oversize = Oversize { what: "more statements", limit: MAX_STATEMENTS };
const LEVELS: Oversize = Oversize { what: "blocks nested deeper", limit: MAX_LEVELS };

impl Oversize {
    /// The fault of a nest with too many statements, for who counts them as they are made.
    pub const STATEMENTS: Oversize = STATEMENTS;
}

impl Nest {
    /// Whether the nest is within [`MAX_STATEMENTS`], [`MAX_TERMS`] and [`MAX_LEVELS`].
    ///
    /// # Errors
    /// The first limit that it exceeds, in the order of the text.
    pub fn check_size(&self) -> Result<(), Oversize> {
        let mut left = MAX_STATEMENTS;
        block(&self.pack, MAX_LEVELS, &mut left)?;
        block(&self.body, MAX_LEVELS, &mut left)
    }
}

/// The statements of a block, those inside of them included.
pub fn count_statements(stmts: &[Stmt]) -> usize {
    let inside = |stmt: &Stmt| match stmt {
        Stmt::Loop(l) => count_statements(&l.body),
        Stmt::If(_, body) => count_statements(body),
        Stmt::Declare(_) | Stmt::Let(..) | Stmt::Store(..) => 0,
    };
    stmts.iter().fold(stmts.len(), |count, stmt| count.saturating_add(inside(stmt)))
}

fn block(stmts: &[Stmt], levels: usize, left: &mut usize) -> Result<(), Oversize> {
    let inner = levels.checked_sub(1).ok_or(LEVELS)?;
    for stmt in stmts {
        *left = left.checked_sub(1).ok_or(STATEMENTS)?;
        match stmt {
            Stmt::Loop(l) => {
                l.guards.iter().try_for_each(|guard| sum(guard.sum()))?;
                l.fetch.iter().try_for_each(|fetch| access(&fetch.from))?;
                block(&l.body, inner, left)?;
            }
            Stmt::If(guards, body) => {
                guards.iter().try_for_each(|guard| sum(guard.sum()))?;
                block(body, inner, left)?;
            }
            Stmt::Declare(_) => {}
            Stmt::Let(_, given) => value(given, MAX_LEVELS)?,
            Stmt::Store(dst, given) => {
                access(dst)?;
                value(given, MAX_LEVELS)?;
            }
        }
    }
    Ok(())
}

fn value(expr: &Expr, levels: usize) -> Result<(), Oversize> {
    let inner = levels.checked_sub(1).ok_or(LEVELS)?;
    if let Expr::Load(from) | Expr::Pad(_, from) = expr {
        access(from)?;
    }
    let mut operands = expr.operands();
    operands.try_for_each(|operand| value(operand, inner))
}

fn access(access: &Access) -> Result<(), Oversize> {
    access.index.iter().try_for_each(sum)
}

fn sum(sum: &Affine) -> Result<(), Oversize> {
    if sum.terms().len() > MAX_TERMS { Err(TERMS) } else { Ok(()) }
}
