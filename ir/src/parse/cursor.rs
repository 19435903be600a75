//! A place in the tokens, and the small steps every rule of the grammar is made of.

use super::names::is_reserved;
use crate::lex::{ParseError, ParseErrorKind, Token, TokenKind};

/// The largest absolute value of an integer in an index, a bound or a shape: more elements than a
/// machine holds, and so far below the range of i64 that all integers of a text can be added up.
pub const MAX_INTEGER: i64 = 1 << 40;

/// The tokens and the next one; the end repeats forever.
pub(super) struct Cursor<'a> {
    tokens: Vec<Token<'a>>,
    next: usize,
}

impl<'a> Cursor<'a> {
    /// The last token must be [`TokenKind::End`], as the lexer leaves it.
    pub(super) fn new(tokens: Vec<Token<'a>>) -> Cursor<'a> {
        Cursor { tokens, next: 0 }
    }

    pub(super) fn peek(&self) -> Token<'a> {
        self.tokens[self.next]
    }

    pub(super) fn peek_second(&self) -> Token<'a> {
        self.tokens[(self.next + 1).min(self.tokens.len() - 1)]
    }

    pub(super) fn take(&mut self) -> Token<'a> {
        let token = self.peek();
        self.next = (self.next + 1).min(self.tokens.len() - 1);
        token
    }

    pub(super) fn take_kind(&mut self, kind: TokenKind) -> Result<Token<'a>, ParseError> {
        match self.peek() {
            token if token.kind == kind => Ok(self.take()),
            token => Err(token.expected(kind.description())),
        }
    }

    pub(super) fn take_if_kind(&mut self, kind: TokenKind) -> bool {
        let here = self.peek().kind == kind;
        if here {
            self.take();
        }
        here
    }

    /// Steps over a keyword, if it is next.
    pub(super) fn take_if(&mut self, keyword: &str) -> bool {
        let here = self.peek().is(keyword);
        if here {
            self.take();
        }
        here
    }

    /// Steps over a keyword that must be next.
    pub(super) fn keyword(
        &mut self,
        keyword: &str,
        expected: &'static str,
    ) -> Result<(), ParseError> {
        match self.take_if(keyword) {
            true => Ok(()),
            false => Err(self.peek().expected(expected)),
        }
    }

    /// A name that the text gives to something.
    pub(super) fn name(&mut self) -> Result<Token<'a>, ParseError> {
        let name = self.take_kind(TokenKind::Word)?;
        match is_reserved(name.text) {
            true => Err(name.error(ParseErrorKind::ReservedName { name: name.excerpt() })),
            false => Ok(name),
        }
    }

    /// Digits, up to [`MAX_INTEGER`].
    pub(super) fn integer(&mut self) -> Result<i64, ParseError> {
        self.integer_up_to(MAX_INTEGER)
    }

    /// Digits, up to a limit.
    pub(super) fn integer_up_to(&mut self, limit: i64) -> Result<i64, ParseError> {
        let token = self.take_kind(TokenKind::Integer)?;
        match token.text.parse::<i64>() {
            Ok(value) if value <= limit => Ok(value),
            Ok(_) | Err(_) => Err(token.error(ParseErrorKind::IntegerTooLarge { limit })),
        }
    }

    /// Digits, with or without a minus in front.
    pub(super) fn signed_integer(&mut self) -> Result<i64, ParseError> {
        match self.take_if_kind(TokenKind::Minus) {
            true => Ok(-self.integer()?),
            false => self.integer(),
        }
    }
}
