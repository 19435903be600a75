//! Text to nests and schedules: recursive descent, errors with line and column.
//!
//! Promises: no text makes it panic, overflow or recurse beyond [`MAX_LEVELS`]; what it returns has
//! every id in range, and prints to the canonical form of the text. It resolves names and knows the
//! grammar; whether a nest is legal, e.g. whether a buffer is still alive where it is used, or an
//! index has the right rank, is decided by [`verify`](crate::verify).
//!
//! Ids are given in the order of the text: axes by their first loop, buffers by their first
//! declaration, values by their first `let`. Blocks side by side may declare the same name again
//! and then mean the same buffer or value.

mod cursor;
mod expr;
mod names;
mod schedule;

pub use crate::lex::{MAX_TEXT_BYTES, Named, ParseError, ParseErrorKind};
pub use cursor::MAX_INTEGER;
pub use schedule::parse_schedule;

use crate::elem::ElemType;
use crate::lex::{TokenKind, lex};
use crate::nest::{AxisKind, Buffer, Dim, Fetch, Guard, Loop, Mode, Nest, Role, Stmt, Stripe};
use crate::source_map::SourceMap;
use cursor::Cursor;
use names::{Axes, Declared, Scope};

pub use crate::nest::MAX_LEVELS;

/// Reads a nest, and where its parts stand in the text.
pub fn parse_nest(text: &str) -> Result<(Nest, SourceMap), ParseError> {
    let mut tokens = lex(text)?;
    tokens.retain(|token| token.kind != TokenKind::LineEnd);
    let axes = Axes::collect(&tokens);
    let mut parser = NestParser {
        cursor: Cursor::new(tokens),
        axes,
        buffer_names: Scope::default(),
        buffers: vec![],
        local_names: Scope::default(),
        locals: vec![],
        map: SourceMap::default(),
        level: 0,
    };
    let nest = parser.nest()?;
    Ok((nest, parser.map))
}

/// The tables of the nest as far as it is read.
struct NestParser<'a> {
    cursor: Cursor<'a>,
    axes: Axes<'a>,
    buffer_names: Scope<'a>,
    buffers: Vec<Buffer>,
    local_names: Scope<'a>,
    locals: Vec<String>,
    map: SourceMap,
    /// Blocks around the next token, the nest's own not counted.
    level: usize,
}

impl<'a> NestParser<'a> {
    fn nest(&mut self) -> Result<Nest, ParseError> {
        self.cursor.keyword("nest", "`nest`")?;
        let name = self.cursor.take_kind(TokenKind::Word)?.text.to_owned();
        self.cursor.take_kind(TokenKind::OpenBrace)?;
        while let Some(role) = self.header_role() {
            self.declaration(role)?;
        }
        let pack = match self.cursor.take_if("pack") {
            true => self.block()?,
            false => vec![],
        };
        let body = self.stmts()?;
        self.cursor.take_kind(TokenKind::CloseBrace)?;
        self.cursor.take_kind(TokenKind::End)?;
        let (axes, buffers) = (self.axes.table(), std::mem::take(&mut self.buffers));
        Ok(Nest { name, axes, buffers, locals: std::mem::take(&mut self.locals), pack, body })
    }

    /// The role of the caller's buffer that is declared next. A store to a buffer of that name goes
    /// on with a bracket.
    fn header_role(&self) -> Option<Role> {
        let (role, after) = (self.cursor.peek(), self.cursor.peek_second());
        let declares = after.kind == TokenKind::Word;
        Role::ALL.into_iter().find(|r| declares && !r.is_local() && role.is(r.name()))
    }

    /// The role's keyword, then a name that only a caller's buffer may leave out.
    fn declaration(&mut self, role: Role) -> Result<Declared, ParseError> {
        let keyword = self.cursor.take();
        let mut name = keyword;
        if role.is_local() || self.cursor.peek_second().kind == TokenKind::Word {
            name = self.cursor.name()?;
        }
        let word = self.cursor.take_kind(TokenKind::Word)?;
        let elem = ElemType::from_name(word.text).ok_or_else(|| word.unknown(Named::ElemType))?;
        let dims = self.bracketed(NestParser::striped_dim)?;
        let (shape, mut stripes): (Vec<Dim>, Vec<Stripe>) = dims.into_iter().unzip();
        if stripes.iter().all(|stripe| *stripe == Stripe::ALL) {
            stripes.clear();
        }
        let declared = self.buffer_names.declare(name, Named::Buffer)?;
        let buffer = Buffer { stripes, ..Buffer::new(name.text, role, elem, shape) };
        match declared {
            Declared::New(_) => {
                self.buffers.push(buffer);
                self.map.buffers.push(keyword.line);
            }
            Declared::Again(id) if self.buffers[id as usize] == buffer => {}
            Declared::Again(id) => {
                let line = self.map.buffers[id as usize];
                let kind = ParseErrorKind::DeclaredDifferently { name: name.excerpt(), line };
                return Err(name.error(kind));
            }
        }
        Ok(declared)
    }

    /// An extent, and which part of it is written.
    fn striped_dim(&mut self) -> Result<(Dim, Stripe), ParseError> {
        let dim = self.dim()?;
        let from = if self.cursor.take_if("from") { self.cursor.integer()? } else { 0 };
        let by = if self.cursor.take_if("by") { self.cursor.integer()? } else { 1 };
        Ok((dim, Stripe { from, by }))
    }

    fn dim(&mut self) -> Result<Dim, ParseError> {
        if self.cursor.take_if("N") {
            return Ok(Dim::Batch);
        }
        match self.cursor.peek() {
            next if next.kind == TokenKind::Integer => Ok(Dim::Fixed(self.cursor.integer()?)),
            next => Err(next.expected("an extent or `N`")),
        }
    }

    /// `{ statements }`, in a scope of its own.
    fn block(&mut self) -> Result<Vec<Stmt>, ParseError> {
        let open = self.cursor.take_kind(TokenKind::OpenBrace)?;
        if self.level == MAX_LEVELS {
            return Err(open.error(ParseErrorKind::BlocksTooDeep { limit: MAX_LEVELS }));
        }
        self.level += 1;
        let outside = (self.buffer_names.mark(), self.local_names.mark());
        let stmts = self.stmts()?;
        self.cursor.take_kind(TokenKind::CloseBrace)?;
        self.buffer_names.close(outside.0);
        self.local_names.close(outside.1);
        self.level -= 1;
        Ok(stmts)
    }

    /// Statements up to the closing brace, which is left.
    fn stmts(&mut self) -> Result<Vec<Stmt>, ParseError> {
        let mut stmts = Vec::new();
        while self.cursor.peek().kind != TokenKind::CloseBrace {
            self.map.stmts.push(self.cursor.peek().line);
            stmts.push(self.stmt()?);
        }
        Ok(stmts)
    }

    fn stmt(&mut self) -> Result<Stmt, ParseError> {
        let first = self.cursor.peek();
        if first.kind != TokenKind::Word {
            return Err(first.expected("a statement or `}`"));
        }
        match first.text {
            "for" | "reduce" | "parallel" | "unroll" | "vector" => self.loop_(),
            "if" => {
                self.cursor.take();
                let guards = self.guards()?;
                Ok(Stmt::If(guards, self.block()?))
            }
            "micro_kernel" => {
                self.cursor.take();
                Ok(Stmt::MicroKernel(self.block()?))
            }
            "let" => self.let_(),
            "scratch" => self.local_buffer(Role::Scratch),
            "reg" => self.local_buffer(Role::Reg),
            text if names::is_reserved(text) => Err(first.expected("a statement or `}`")),
            _ => {
                let to = self.access()?;
                self.cursor.take_kind(TokenKind::Equals)?;
                Ok(Stmt::Store(to, self.expr()?))
            }
        }
    }

    fn local_buffer(&mut self, role: Role) -> Result<Stmt, ParseError> {
        Ok(Stmt::Declare(self.declaration(role)?.buffer()))
    }

    /// The name is bound after the value: a value cannot depend on itself.
    fn let_(&mut self) -> Result<Stmt, ParseError> {
        self.cursor.take();
        let name = self.cursor.name()?;
        self.cursor.take_kind(TokenKind::Equals)?;
        let value = self.expr()?;
        let declared = self.local_names.declare(name, Named::Value)?;
        if let Declared::New(_) = declared {
            self.locals.push(name.text.to_owned());
        }
        Ok(Stmt::Let(declared.local(), value))
    }

    fn loop_(&mut self) -> Result<Stmt, ParseError> {
        let (mode, kind) = self.loop_keywords();
        let name = self.cursor.name()?;
        self.cursor.keyword("in", "`in`")?;
        let axis = self.axes.looped(name, kind)?;
        let lo = self.cursor.signed_integer()?;
        self.cursor.take_kind(TokenKind::Range)?;
        let hi = match self.cursor.peek().kind == TokenKind::Minus {
            true => Dim::Fixed(self.cursor.signed_integer()?),
            false => self.dim()?,
        };
        let ahead = match self.cursor.take_if("ahead") {
            true => Some(self.cursor.integer_up_to(u32::MAX.into())? as u32),
            false => None,
        };
        let mut fetch = vec![];
        while self.cursor.take_if("fetch") {
            let count = self.cursor.integer_up_to(u32::MAX.into())? as u32;
            fetch.push(Fetch { count, from: self.access()? });
        }
        let cut = self.cursor.peek().is("cut");
        let guards = match cut || self.cursor.peek().is("where") {
            true => {
                self.cursor.take();
                self.guards()?
            }
            false => vec![],
        };
        let body = self.block()?;
        Ok(Stmt::Loop(Loop { axis, lo, hi, guards, cut, mode, ahead, fetch, body }))
    }

    /// `for`, `reduce`, or a mode with or without `reduce`.
    fn loop_keywords(&mut self) -> (Mode, AxisKind) {
        if self.cursor.take_if("for") {
            return (Mode::Serial, AxisKind::Spatial);
        }
        let mode = match self.cursor.peek().text {
            "parallel" => Mode::Parallel,
            "unroll" => Mode::Unroll,
            "vector" => Mode::Vector,
            _ => Mode::Serial,
        };
        if mode != Mode::Serial {
            self.cursor.take();
        }
        match self.cursor.take_if("reduce") {
            true => (mode, AxisKind::Reduction),
            false => (mode, AxisKind::Spatial),
        }
    }

    fn guards(&mut self) -> Result<Vec<Guard>, ParseError> {
        let mut guards = vec![self.guard()?];
        while self.cursor.take_if("and") {
            guards.push(self.guard()?);
        }
        Ok(guards)
    }

    fn guard(&mut self) -> Result<Guard, ParseError> {
        let sum = self.affine()?;
        if self.cursor.take_if_kind(TokenKind::Less) {
            return Ok(Guard::Below(sum, self.cursor.signed_integer()?));
        }
        if self.cursor.take_if_kind(TokenKind::AtLeast) {
            return Ok(Guard::AtLeast(sum, self.cursor.signed_integer()?));
        }
        Err(self.cursor.peek().expected("`<` or `>=`"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nest::{Access, Affine, AxisId};
    use crate::print::{access_text, affine_text, guard_text, print_nest, print_nest_with_map};
    use proptest::prelude::*;

    /// Every kind of statement, loop and value.
    const FULL: &str = "\
nest direct {
  input f32[N,56,56,64]
  weights f32[64,64,3,3]
  bias f32[64]
  residual r1 f32[N,56,56,64]
  output f32[N,56,56,64]
  packed panels f32[2,3,3,64,32]

  pack {
    for oc.o in 0..2 {
      for kh in 0..3 {
        for ic in 0..64 {
          vector oc.i in 0..32 {
            panels[oc.o,kh,0,ic,oc.i] = pad(weights[oc.o*32+oc.i,ic,kh,0])
          }
        }
      }
    }
  }

  parallel n in 0..N {
    parallel oh in 0..56 {
      scratch rows f32[3,58,64]
      for ow.o in 0..4 {
        reg acc f32[14,32]
        unroll ow.i in 0..14 cut ow.o*14+ow.i < 50 {
          vector oc.i in 0..32 {
            acc[ow.i,oc.i] = bias[oc.i]
          }
        }
        parallel reduce kd in 1..2 {
          reduce kr in 0..3 ahead 2 fetch 16 output[n,oh,0,kr*16] where oh+kr-1 >= 0 and oh+kr-1 < 56 {
            unroll reduce kw in 0..3 {
              vector reduce kv in -1..3 {
                acc[0,0] = fma(rows[kr,ow.o*14+kw*2,-kv+7], 1e-7, acc[0,0])
              }
            }
          }
        }
        if -oh+ow.o*14 < -50 {
          let y = max(0.0, acc[0,0])
          output[n,oh,ow.o,0] = select(y < 1.5, y, mul(y, -0.25))
        }
      }
      for ow.r in 3..4 {
        reg acc f32[14,32]
        let y = neg(r1[n,oh,ow.r,0])
        output[n,oh,ow.r,0] = add(y, acc[0,0])
      }
    }
  }
}
";

    fn nest(header: &str, body: &str) -> String {
        let names = "input f32[4]\n  output f32[4]\n";
        format!("nest t {{\n  {names}{header}\n{body}}}\n")
    }

    fn printed(text: &str) -> String {
        print_nest(&parse_nest(text).unwrap_or_else(|error| panic!("{error}\n{text}")).0)
    }

    fn error(text: &str) -> String {
        parse_nest(text).expect_err("refused").to_string()
    }

    #[test]
    fn canonical_texts_print_as_they_are() {
        let texts = [
            FULL,
            "nest empty {\n}\n",
            "nest header {\n  input x f32[]\n  output f32[1]\n}\n",
            "nest body {\n  reg acc f32[]\n  acc[] = -0.0\n}\n",
            "nest pack {\n  pack {\n    reg a f32[2]\n  }\n\n  reg b f32[2]\n}\n",
            "nest last {\n  output f32[2]\n\n  output[0] = 1.1754944e-38\n}\n",
            "nest constants {\n  reg a f32[]\n  let x = 3.4028235e38\n  let y = 1e-45\n}\n",
        ];
        for text in texts {
            let (nest, map) = parse_nest(text).unwrap_or_else(|error| panic!("{error}\n{text}"));
            assert_eq!(print_nest_with_map(&nest), (text.to_owned(), map));
            assert_eq!(nest.to_string(), text);
        }
    }

    #[test]
    fn other_spellings_print_canonically() {
        let text = "nest t{input input f32 [ 4 ] output f32[4] pack{} # empty\r\n
            for a in 0 .. 4 where 3+2*a-1*a>=-0{ for b in 0..4 {
            let y=sub(-3,0.10) output[b - 1 + a*1 + 0*b]=y }} if 0 < 1 { } }";
        let canonical =
            "nest t {\n  input f32[4]\n  output f32[4]\n\n  for a in 0..4 where a+3 >= 0 {
    for b in 0..4 {\n      let y = sub(-3.0, 0.1)\n      output[a+b-1] = y\n    }\n  }
  if 0 < 1 {\n  }\n}\n";
        assert_eq!(printed(text), canonical);
    }

    /// The first loop over `a` makes its id the smaller one; inside of `b` it comes second still.
    #[test]
    fn terms_are_ordered_by_depth() {
        let inner = "    for b in 0..2 {\n      for a in 0..2 {\n        output[b*2-a] = 0.0\n";
        let ends = "      }\n    }\n";
        let first = nest("\n  for a in 0..2 {\n  }\n  if 0 < 1 {", &format!("{inner}{ends}  }}\n"));
        assert_eq!(printed(&first), first);
        let (nest, _) = parse_nest(&first).expect("just printed");
        let sum = Affine::from_terms(-3, [(AxisId(1), -1), (AxisId(0), 4)]);
        assert_eq!(affine_text(&nest, &sum), "a*4-b-3");
        assert_eq!(guard_text(&nest, &Guard::AtLeast(sum.clone(), -1)), "a*4-b-3 >= -1");
        let access =
            Access { buffer: nest.find_buffer("output").expect("declared"), index: vec![sum] };
        assert_eq!(access_text(&nest, &access), "output[a*4-b-3]");
    }

    /// Variables out of scope come last, by name; the verifier refuses the nest.
    #[test]
    fn variables_out_of_scope_print() {
        let body = "  output[z+b] = 0.0\n  for z in 0..1 {\n    output[z+b] = 0.0\n  }
  for b in 0..1 {\n  }\n";
        let text = nest("", body);
        assert_eq!(printed(&text), text.replacen("z+b", "b+z", 1));
    }

    #[test]
    fn blocks_side_by_side_share_names() {
        let block = "  if 0 < 1 {\n    reg acc f32[2]\n    let y = acc[0]\n    acc[0] = y\n  }\n";
        let (nest, map) = parse_nest(&nest("", &block.repeat(3))).expect("accepted");
        assert_eq!((nest.buffers.len(), nest.locals.len()), (3, 1));
        assert_eq!(map.buffers, [2, 3, 6]);
        assert_eq!(map.stmts, [5, 6, 7, 8, 10, 11, 12, 13, 15, 16, 17, 18]);
    }

    #[test]
    fn the_map_names_the_lines_of_the_text_as_written() {
        let text =
            "nest t {\n input\nf32[1] pack {\n\n for i in 0..1 {\nlet y = 1 } } let x = 2\n}";
        let (_, map) = parse_nest(text).expect("accepted");
        assert_eq!(map, SourceMap { stmts: vec![5, 6, 6], buffers: vec![2] });
    }

    #[test]
    fn errors_name_the_place() {
        let cases = [
            ("nest t {", "line 1, column 9: expected a statement or `}`, found end of text"),
            ("loop", "line 1, column 1: expected `nest`, found `loop`"),
            ("nest 3", "line 1, column 6: expected a name, found `3`"),
            ("nest t {\n}\n}", "line 3, column 1: expected end of text, found `}`"),
            ("# caf\u{e9}\nnest \u{e9}", "line 2, column 6: unexpected character 'é'"),
            ("nest t { input f16[2] }", "line 1, column 16: unknown element type `f16`"),
            ("nest t { input f32[x] }", "line 1, column 20: expected an extent or `N`, found `x`"),
            ("nest t { input f32[1 2] }", "line 1, column 22: expected `,` or `]`, found `2`"),
            ("nest t { input if f32[1] }", "line 1, column 16: `if` is a keyword, not a name"),
            (
                "nest t { input f32[1] input f32[1] }",
                "line 1, column 23: buffer `input` is declared twice",
            ),
            ("nest t { input f32[1099511627777] }", TOO_LARGE_AT_20),
            ("nest t { input f32[99999999999999999999] }", TOO_LARGE_AT_20),
        ];
        for (text, expected) in cases {
            assert_eq!(error(text), expected, "{text}");
        }
    }

    const TOO_LARGE_AT_20: &str = "line 1, column 20: integer beyond the limit of 1099511627776";

    /// On line 6 of a nest with an input and an output.
    #[test]
    fn errors_in_statements_name_the_place() {
        let cases = [
            ("in[0] = 0", "1: expected a statement or `}`, found `in`"),
            ("let y = 1 pack { }", "11: expected a statement or `}`, found `pack`"),
            ("= 0", "1: expected a statement or `}`, found `=`"),
            ("output = 0", "8: expected `[`, found `=`"),
            ("out[0] = 0", "1: unknown buffer `out`"),
            ("output[0] = acc[0] reg acc f32[1]", "13: unknown buffer `acc`"),
            ("output[x] = 0", "8: unknown loop variable `x`"),
            ("output[-] = 0", "9: expected a loop variable or an integer, found `]`"),
            ("output[0] = y", "13: unknown value `y`"),
            ("let y = y", "9: unknown value `y`"),
            ("let y = 1 if 0 < 1 { let y = 2 }", "26: value `y` is declared twice"),
            ("reg a f32[1] reg a f32[1]", "18: buffer `a` is declared twice"),
            ("if 0 < 1 { reg a f32[1] } scratch a f32[1]", DIFFERS),
            ("output[0] = exp(1)", "13: unknown function `exp`"),
            ("output[0] = max(1)", "18: expected `,`, found `)`"),
            ("output[0] = select(1, 2, 3, 4)", "21: expected `<`, found `,`"),
            ("output[0] = pad(1)", "17: expected a name, found `1`"),
            ("output[0] = )", "13: expected a value, found `)`"),
            ("output[0] = -x", "14: expected a number, found `x`"),
            ("output[0] = -4e38", "14: constant `4e38` overflows f32"),
            ("for reduce a in 0..1 { }", "5: `reduce` is a keyword, not a name"),
            ("for 3 in 0..1 { }", "5: expected a name, found `3`"),
            ("for a of 0..1 { }", "7: expected `in`, found `of`"),
            ("for a in x { }", "10: expected an integer, found `x`"),
            ("for a in 0.1 { }", "10: expected an integer, found `0.1`"),
            ("for a in 0..1 { } reduce a in 0..1 { }", MIXED),
            ("for a in 0..1 where { }", "21: expected a loop variable or an integer, found `{`"),
            ("if 0 > 1 { }", "6: unexpected character '>'"),
            ("if 0 = 1 { }", "6: expected `<` or `>=`, found `=`"),
            ("for a in 0..1 cut a < 1 or a < 2 { }", "25: expected `{`, found `or`"),
            ("if 1099511627776+1 < 1 { }", "4: integer beyond the limit of 1099511627776"),
        ];
        for (stmt, expected) in cases {
            let expected = format!("line 6, column {expected}");
            assert_eq!(error(&nest("", &format!("\n{stmt}\n"))), expected, "{stmt}");
        }
    }

    const DIFFERS: &str = "35: buffer `a` was declared with another role, type or shape on line 6";
    const MIXED: &str = "26: axis `a` is a reduction in one loop and spatial in another";

    #[test]
    fn levels_are_limited() {
        let blocks = |n| nest("", &("if 0 < 1 {".repeat(n) + &"}".repeat(n)));
        assert!(parse_nest(&blocks(MAX_LEVELS)).is_ok());
        let too_deep = parse_nest(&blocks(200_000)).expect_err("refused").kind;
        assert_eq!(too_deep, ParseErrorKind::BlocksTooDeep { limit: MAX_LEVELS });
        let calls = |n| nest("", &format!("let y = {}1{}", "neg(".repeat(n), ")".repeat(n)));
        assert!(parse_nest(&calls(MAX_LEVELS - 1)).is_ok());
        let too_deep = parse_nest(&calls(200_000)).expect_err("refused").kind;
        assert_eq!(too_deep, ParseErrorKind::ExpressionsTooDeep { limit: MAX_LEVELS });
    }

    #[test]
    fn the_text_is_limited() {
        let text = " ".repeat(MAX_TEXT_BYTES + 1);
        let kind = ParseErrorKind::TextTooLong { given: text.len(), limit: MAX_TEXT_BYTES };
        assert_eq!(parse_nest(&text), Err(ParseError { line: 1, column: 1, kind }));
        let terms = "1099511627776+".repeat((MAX_TEXT_BYTES - 100) / 14);
        let kind =
            parse_nest(&nest("", &format!("output[{terms}1] = 0"))).expect_err("refused").kind;
        assert_eq!(kind, ParseErrorKind::IntegerTooLarge { limit: MAX_INTEGER });
        let message = error(&format!("nest t {{ {} = 0 }}", "x".repeat(1000)));
        assert!(message.len() < 100, "{message}");
    }

    /// What is accepted means the same after printing; nothing panics.
    fn check_untrusted(text: &str) {
        if let Ok((nest, _)) = parse_nest(text) {
            let (text, map) = print_nest_with_map(&nest);
            assert_eq!(parse_nest(&text), Ok((nest, map)), "{text}");
            assert_eq!(printed(&text), text);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn mutated_texts_do_not_panic(
            mutations in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        ) {
            let mut bytes = FULL.as_bytes().to_vec();
            for (at, byte) in mutations {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            check_untrusted(&String::from_utf8_lossy(&bytes));
        }

        /// Pieces of the text change places, which keeps more texts in the language than bytes do.
        #[test]
        fn shuffled_texts_do_not_panic(
            swaps in prop::collection::vec(any::<[prop::sample::Index; 2]>(), 1..4),
        ) {
            let mut words: Vec<&str> = FULL.split_inclusive([' ', '\n', ',', '[', '+']).collect();
            for [from, to] in swaps {
                let word = words[from.index(words.len())];
                let to = to.index(words.len());
                words[to] = word;
            }
            check_untrusted(&words.concat());
        }
    }
}
