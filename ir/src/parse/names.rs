//! What the names of a nest stand for.

use std::collections::BTreeMap;

use crate::lex::{Named, ParseError, ParseErrorKind, Token, TokenKind};
use crate::nest::{Axis, AxisId, AxisKind, BufferId, LocalId};

/// The words that cannot name a buffer, an axis or a value; `N` is the batch size.
const RESERVED: [&str; 19] = [
    "nest",
    "pack",
    "for",
    "reduce",
    "parallel",
    "unroll",
    "vector",
    "in",
    "ahead",
    "fetch",
    "where",
    "cut",
    "and",
    "if",
    "let",
    "scratch",
    "reg",
    "micro_kernel",
    "N",
];

/// Whether a word is a keyword.
pub(super) fn is_reserved(word: &str) -> bool {
    RESERVED.contains(&word)
}

/// The loop variables of a text.
pub(super) struct Axes<'a> {
    ids: BTreeMap<&'a str, AxisId>,
    table: Vec<Axis>,
}

impl<'a> Axes<'a> {
    /// Collects them before anything else is read: an index may name an axis whose loops all come
    /// later, and it is for the verifier to say that it is not in scope.
    pub(super) fn collect(tokens: &[Token<'a>]) -> Axes<'a> {
        let mut axes = Axes { ids: BTreeMap::new(), table: vec![] };
        for window in tokens.windows(3) {
            if let [keyword, name, next] = window
                && next.is("in")
                && name.kind == TokenKind::Word
                && !axes.ids.contains_key(name.text)
            {
                let kind = match keyword.is("reduce") {
                    true => AxisKind::Reduction,
                    false => AxisKind::Spatial,
                };
                axes.ids.insert(name.text, AxisId(axes.table.len() as u32));
                axes.table.push(Axis { name: name.text.to_owned(), kind });
            }
        }
        axes
    }

    /// The variable of a loop.
    pub(super) fn looped(&self, name: Token<'a>, kind: AxisKind) -> Result<AxisId, ParseError> {
        let id = self.used(name)?;
        match self.table[id.0 as usize].kind == kind {
            true => Ok(id),
            false => Err(name.error(ParseErrorKind::MixedAxisKinds { name: name.excerpt() })),
        }
    }

    /// A variable in a sum.
    pub(super) fn used(&self, name: Token<'a>) -> Result<AxisId, ParseError> {
        self.ids.get(name.text).copied().ok_or_else(|| name.unknown(Named::Axis))
    }

    /// The axes, by id.
    pub(super) fn table(&self) -> Vec<Axis> {
        self.table.clone()
    }
}

/// Names that are declared in blocks. Outside of its block a name keeps its meaning, so that a
/// block further down can declare it again and the verifier can tell a use that comes too late.
#[derive(Default)]
pub(super) struct Scope<'a> {
    ids: BTreeMap<&'a str, u32>,
    /// By id: whether its block is still open.
    open: Vec<bool>,
    /// The ids whose blocks are open, innermost last.
    stack: Vec<u32>,
}

/// What a declaration did.
#[derive(Clone, Copy)]
pub(super) enum Declared {
    /// The name is new; its id is the next one.
    New(u32),
    /// A block that is closed declared it before.
    Again(u32),
}

impl Declared {
    fn id(self) -> u32 {
        match self {
            Declared::New(id) | Declared::Again(id) => id,
        }
    }

    pub(super) fn buffer(self) -> BufferId {
        BufferId(self.id())
    }

    pub(super) fn local(self) -> LocalId {
        LocalId(self.id())
    }
}

impl<'a> Scope<'a> {
    /// Declares a name in the innermost block.
    pub(super) fn declare(&mut self, name: Token<'a>, what: Named) -> Result<Declared, ParseError> {
        let declared = match self.ids.get(name.text) {
            Some(id) if self.open[*id as usize] => {
                let kind = ParseErrorKind::DeclaredTwice { what, name: name.excerpt() };
                return Err(name.error(kind));
            }
            Some(id) => Declared::Again(*id),
            None => Declared::New(self.open.len() as u32),
        };
        if let Declared::New(id) = declared {
            self.ids.insert(name.text, id);
            self.open.push(false);
        }
        self.open[declared.id() as usize] = true;
        self.stack.push(declared.id());
        Ok(declared)
    }

    /// The beginning of a block.
    pub(super) fn mark(&self) -> usize {
        self.stack.len()
    }

    /// The end of the block that began at the mark.
    pub(super) fn close(&mut self, mark: usize) {
        for id in self.stack.drain(mark..) {
            self.open[id as usize] = false;
        }
    }

    pub(super) fn buffer(&self, name: Token<'a>) -> Result<BufferId, ParseError> {
        self.find(name, Named::Buffer).map(BufferId)
    }

    pub(super) fn local(&self, name: Token<'a>) -> Result<LocalId, ParseError> {
        self.find(name, Named::Value).map(LocalId)
    }

    fn find(&self, name: Token<'a>, what: Named) -> Result<u32, ParseError> {
        self.ids.get(name.text).copied().ok_or_else(|| name.unknown(what))
    }
}
