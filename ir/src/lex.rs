//! Characters to tokens, and the errors that both lexing and parsing report.
//!
//! The text is untrusted: its length is limited before anything else is looked at, and every error
//! has a line and a column. Tokens borrow the text. Blanks and comments (`#` to the end of the
//! line) separate tokens and are dropped; line ends are tokens, because schedules need them.

use std::fmt;

use thiserror::Error;

/// The longest text that is read, in bytes. The largest kernels print to some ten kilobytes; the
/// limit bounds the memory that a hostile text can ask for, and keeps sums of its numbers in range.
pub const MAX_TEXT_BYTES: usize = 4 << 20;

/// How much of a name an error repeats, in characters.
const MAX_EXCERPT: usize = 40;

/// A text that was refused, and the first character of what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("line {line}, column {column}: {kind}")]
pub struct ParseError {
    /// The line, counted from one.
    pub line: u32,
    /// The character in the line, counted from one.
    pub column: u32,
    /// What is wrong.
    pub kind: ParseErrorKind,
}

/// Why a text was refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ParseErrorKind {
    /// The whole text is over the limit.
    #[error("the text has {given} bytes, the limit is {limit}")]
    TextTooLong {
        /// Bytes of the text.
        given: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// A character that starts no token.
    #[error("unexpected character {found:?}")]
    UnexpectedCharacter {
        /// The character.
        found: char,
    },
    /// Another token belongs here.
    #[error("expected {expected}, found {found}")]
    Expected {
        /// What the grammar allows.
        expected: &'static str,
        /// What the text has.
        found: String,
    },
    /// A name that stands for nothing.
    #[error("unknown {what} `{name}`")]
    Unknown {
        /// What the name would have to be.
        what: Named,
        /// The name.
        name: String,
    },
    /// A name that is given while it still means something else.
    #[error("{what} `{name}` is declared twice")]
    DeclaredTwice {
        /// What is declared.
        what: Named,
        /// The name.
        name: String,
    },
    /// Blocks side by side declare one buffer, but not alike.
    #[error("buffer `{name}` was declared with another role, type or shape on line {line}")]
    DeclaredDifferently {
        /// The name.
        name: String,
        /// The first declaration.
        line: u32,
    },
    /// One axis is looped over as spatial and as reduction.
    #[error("axis `{name}` is a reduction in one loop and spatial in another")]
    MixedAxisKinds {
        /// The name of the axis.
        name: String,
    },
    /// A keyword where a name is declared.
    #[error("`{name}` is a keyword, not a name")]
    ReservedName {
        /// The keyword.
        name: String,
    },
    /// An integer, or a coefficient that several terms add up to, is too large.
    #[error("integer beyond the limit of {limit}")]
    IntegerTooLarge {
        /// The largest absolute value allowed.
        limit: i64,
    },
    /// A constant beyond the largest number of its type.
    #[error("constant `{literal}` overflows {elem}")]
    ConstantOverflows {
        /// The constant as written, without sign.
        literal: String,
        /// The type.
        elem: &'static str,
    },
    /// Loops and conditions inside one another.
    #[error("more than {limit} blocks inside one another")]
    BlocksTooDeep {
        /// Levels allowed.
        limit: usize,
    },
    /// A schedule of more rewrites than any needs.
    #[error("more than {limit} directives")]
    TooManyDirectives {
        /// Directives allowed.
        limit: usize,
    },
    /// Operations inside one another.
    #[error("more than {limit} operations inside one another")]
    ExpressionsTooDeep {
        /// Levels allowed.
        limit: usize,
    },
}

/// What a name in the text stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Named {
    /// A buffer.
    Buffer,
    /// A loop variable.
    Axis,
    /// A value bound by `let`.
    Value,
    /// An operation.
    Function,
    /// An element type.
    ElemType,
    /// An order of dimensions.
    Layout,
    /// A treatment of the last tile.
    Tail,
    /// A rewrite of a schedule.
    Directive,
}

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Named::Buffer => "buffer",
            Named::Axis => "loop variable",
            Named::Value => "value",
            Named::Function => "function",
            Named::ElemType => "element type",
            Named::Layout => "layout",
            Named::Tail => "tail",
            Named::Directive => "directive",
        })
    }
}

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TokenKind {
    Word,
    Integer,
    Float,
    OpenBrace,
    CloseBrace,
    OpenBracket,
    CloseBracket,
    OpenParen,
    CloseParen,
    Comma,
    Star,
    Plus,
    Minus,
    Less,
    AtLeast,
    Equals,
    Range,
    Semicolon,
    LineEnd,
    End,
}

impl TokenKind {
    /// Every token with one spelling; none is the beginning of a later one.
    const FIXED: [(&'static str, TokenKind); 16] = [
        ("{", TokenKind::OpenBrace),
        ("}", TokenKind::CloseBrace),
        ("[", TokenKind::OpenBracket),
        ("]", TokenKind::CloseBracket),
        ("(", TokenKind::OpenParen),
        (")", TokenKind::CloseParen),
        (",", TokenKind::Comma),
        ("*", TokenKind::Star),
        ("+", TokenKind::Plus),
        ("-", TokenKind::Minus),
        ("<", TokenKind::Less),
        (">=", TokenKind::AtLeast),
        ("=", TokenKind::Equals),
        ("..", TokenKind::Range),
        (";", TokenKind::Semicolon),
        ("\n", TokenKind::LineEnd),
    ];

    /// How an error calls a token that is missing.
    pub(crate) fn description(self) -> &'static str {
        match self {
            TokenKind::Word => "a name",
            TokenKind::Integer => "an integer",
            TokenKind::Float => "a number",
            TokenKind::OpenBrace => "`{`",
            TokenKind::CloseBrace => "`}`",
            TokenKind::OpenBracket => "`[`",
            TokenKind::CloseBracket => "`]`",
            TokenKind::OpenParen => "`(`",
            TokenKind::CloseParen => "`)`",
            TokenKind::Comma => "`,`",
            TokenKind::Star => "`*`",
            TokenKind::Plus => "`+`",
            TokenKind::Minus => "`-`",
            TokenKind::Less => "`<`",
            TokenKind::AtLeast => "`>=`",
            TokenKind::Equals => "`=`",
            TokenKind::Range => "`..`",
            TokenKind::Semicolon => "`;`",
            TokenKind::LineEnd => "end of line",
            TokenKind::End => "end of text",
        }
    }
}

/// A piece of the text.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Token<'a> {
    pub(crate) kind: TokenKind,
    pub(crate) text: &'a str,
    pub(crate) line: u32,
    pub(crate) column: u32,
}

impl<'a> Token<'a> {
    /// Whether this is that keyword.
    pub(crate) fn is(&self, keyword: &str) -> bool {
        self.kind == TokenKind::Word && self.text == keyword
    }

    /// Whether this is a constant without sign.
    pub(crate) fn is_number(&self) -> bool {
        self.kind == TokenKind::Integer || self.kind == TokenKind::Float
    }

    /// What is wrong here.
    pub(crate) fn error(&self, kind: ParseErrorKind) -> ParseError {
        ParseError { line: self.line, column: self.column, kind }
    }

    /// Something else belongs here.
    pub(crate) fn expected(&self, expected: &'static str) -> ParseError {
        let found = match self.text {
            "" | "\n" => self.kind.description().to_owned(),
            _ => format!("`{}`", self.excerpt()),
        };
        self.error(ParseErrorKind::Expected { expected, found })
    }

    /// The name here stands for nothing.
    pub(crate) fn unknown(&self, what: Named) -> ParseError {
        self.error(ParseErrorKind::Unknown { what, name: self.excerpt() })
    }

    /// The text, shortened for a message.
    pub(crate) fn excerpt(&self) -> String {
        match self.text.char_indices().nth(MAX_EXCERPT) {
            Some((end, _)) => format!("{}...", &self.text[..end]),
            None => self.text.to_owned(),
        }
    }
}

/// Splits a text into tokens; the last one is [`TokenKind::End`].
pub(crate) fn lex(text: &str) -> Result<Vec<Token<'_>>, ParseError> {
    if text.len() > MAX_TEXT_BYTES {
        let kind = ParseErrorKind::TextTooLong { given: text.len(), limit: MAX_TEXT_BYTES };
        return Err(ParseError { line: 1, column: 1, kind });
    }
    let mut lexer = Lexer { rest: text, line: 1, column: 1 };
    let mut tokens = Vec::new();
    loop {
        let token = lexer.token()?;
        tokens.push(token);
        if token.kind == TokenKind::End {
            return Ok(tokens);
        }
    }
}

/// What is left of the text, and where it starts.
struct Lexer<'a> {
    rest: &'a str,
    line: u32,
    column: u32,
}

impl<'a> Lexer<'a> {
    fn token(&mut self) -> Result<Token<'a>, ParseError> {
        self.skip_blanks();
        let here = Token { kind: TokenKind::End, text: "", line: self.line, column: self.column };
        let Some(first) = self.rest.chars().next() else { return Ok(here) };
        let (kind, length) = if first.is_ascii_alphabetic() || first == '_' {
            (TokenKind::Word, word_length(self.rest))
        } else if first.is_ascii_digit() {
            number(self.rest)
        } else {
            let fixed = TokenKind::FIXED.iter().find(|(text, _)| self.rest.starts_with(text));
            match fixed {
                Some((text, kind)) => (*kind, text.len()),
                None => {
                    return Err(here.error(ParseErrorKind::UnexpectedCharacter { found: first }));
                }
            }
        };
        Ok(Token { kind, text: self.take(length), ..here })
    }

    fn skip_blanks(&mut self) {
        let blanks = self.rest.len() - self.rest.trim_start_matches([' ', '\t', '\r']).len();
        self.take(blanks);
        if self.rest.starts_with('#') {
            self.take(self.rest.find('\n').unwrap_or(self.rest.len()));
        }
    }

    /// The next bytes. Only comments hold characters of several bytes, and nothing follows a
    /// comment on its line, so bytes count columns.
    fn take(&mut self, length: usize) -> &'a str {
        let (taken, rest) = self.rest.split_at(length);
        self.rest = rest;
        if taken == "\n" {
            self.line += 1;
            self.column = 1;
        } else {
            self.column += length as u32;
        }
        taken
    }
}

fn word_length(text: &str) -> usize {
    prefix(text, |c| c.is_ascii_alphanumeric() || c == '_' || c == '.')
}

/// `12`, `1.5`, `1e-7`, `1.5e3`; the first dot of `0..4` belongs to the range.
fn number(text: &str) -> (TokenKind, usize) {
    let digits = |text: &str| prefix(text, |c| c.is_ascii_digit());
    let integer = digits(text);
    let mut length = integer;
    if let Some(fraction) = text[length..].strip_prefix('.').map(digits).filter(|n| *n > 0) {
        length += 1 + fraction;
    }
    if let Some(exponent) = text[length..].strip_prefix(['e', 'E']) {
        let sign = exponent.starts_with(['+', '-']) as usize;
        let magnitude = digits(&exponent[sign..]);
        if magnitude > 0 {
            length += 1 + sign + magnitude;
        }
    }
    match length == integer {
        true => (TokenKind::Integer, length),
        false => (TokenKind::Float, length),
    }
}

fn prefix(text: &str, belongs: impl Fn(char) -> bool) -> usize {
    text.find(|c| !belongs(c)).unwrap_or(text.len())
}
