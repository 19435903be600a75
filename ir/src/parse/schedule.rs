//! Schedules: one directive a line.

use super::cursor::Cursor;
use crate::elem::Layout;
use crate::lex::{Named, ParseError, ParseErrorKind, Token, TokenKind, lex};
use crate::schedule::{Directive, Schedule, Size, Tail};

/// The most directives of a schedule: several times those of the longest default. Each rewrites the
/// nest.
pub const MAX_DIRECTIVES: usize = 256;

/// Reads a schedule: directives separated by line ends or semicolons.
pub fn parse_schedule(text: &str) -> Result<Schedule, ParseError> {
    let mut parser = ScheduleParser { cursor: Cursor::new(lex(text)?) };
    let mut directives = Vec::new();
    loop {
        while parser.cursor.take_if_kind(TokenKind::LineEnd)
            || parser.cursor.take_if_kind(TokenKind::Semicolon)
        {}
        if parser.cursor.peek().kind == TokenKind::End {
            return Ok(Schedule { directives });
        }
        if directives.len() == MAX_DIRECTIVES {
            let limit = MAX_DIRECTIVES;
            return Err(parser.cursor.peek().error(ParseErrorKind::TooManyDirectives { limit }));
        }
        directives.push(parser.directive()?);
        if !parser.at_end_of_directive() {
            return Err(parser.cursor.peek().expected("end of line or `;`"));
        }
    }
}

struct ScheduleParser<'a> {
    cursor: Cursor<'a>,
}

impl ScheduleParser<'_> {
    fn at_end_of_directive(&self) -> bool {
        let kind = self.cursor.peek().kind;
        matches!(kind, TokenKind::LineEnd | TokenKind::Semicolon | TokenKind::End)
    }

    fn directive(&mut self) -> Result<Directive, ParseError> {
        if self.cursor.peek().kind != TokenKind::Word {
            return Err(self.cursor.peek().expected("a directive"));
        }
        let first = self.cursor.take();
        match first.text {
            "split" => self.split(),
            "reorder" => self.reorder(),
            "fuse" => Ok(Directive::Fuse { outer: self.axis()?, inner: self.axis()? }),
            "vectorize" => Ok(Directive::Vectorize { axis: self.axis()? }),
            "unroll" => Ok(Directive::Unroll { axis: self.axis()? }),
            "parallel" => Ok(Directive::Parallel { axis: self.axis()? }),
            "prefetch" => self.prefetch(),
            "rfactor" => Ok(Directive::Rfactor { axis: self.axis()? }),
            "accumulate" => {
                self.cursor.keyword("output", "`output`")?;
                Ok(Directive::AccumulateOutput { at: self.at()? })
            }
            "spill" => {
                self.cursor.keyword("sums", "`sums`")?;
                let at = self.at()?;
                let over = match self.at_end_of_directive() {
                    true => None,
                    false => {
                        self.cursor.keyword("over", "`over`")?;
                        Some(self.axis()?)
                    }
                };
                Ok(Directive::SpillSums { at, over })
            }
            "skip" => {
                self.cursor.keyword("padding", "`padding`")?;
                Ok(Directive::SkipPadding { at: self.at()? })
            }
            "peel" => Ok(Directive::Peel { axis: self.axis()? }),
            "pack" => self.pack(),
            word => match Size::ALL.into_iter().find(|size| size.name() == word) {
                Some(of) => {
                    let (axis, by) = self.axis_by()?;
                    Ok(Directive::Size { of, axis, by })
                }
                None => Err(first.unknown(Named::Directive)),
            },
        }
    }

    fn split(&mut self) -> Result<Directive, ParseError> {
        let (axis, by) = self.axis_by()?;
        let tail = match self.option("tail")? {
            Some(word) => Tail::ALL
                .into_iter()
                .find(|tail| tail.name() == word.text)
                .ok_or_else(|| word.unknown(Named::Tail))?,
            None => Tail::default(),
        };
        Ok(Directive::Split { axis, by, tail })
    }

    fn prefetch(&mut self) -> Result<Directive, ParseError> {
        let (axis, by) = self.axis_by()?;
        Ok(Directive::Prefetch { axis, by })
    }

    fn axis_by(&mut self) -> Result<(String, u32), ParseError> {
        let axis = self.axis()?;
        self.cursor.keyword("by", "`by`")?;
        Ok((axis, self.cursor.integer_up_to(u32::MAX.into())? as u32))
    }

    fn reorder(&mut self) -> Result<Directive, ParseError> {
        let mut axes = vec![self.axis()?];
        while !self.at_end_of_directive() {
            axes.push(self.axis()?);
        }
        Ok(Directive::Reorder { axes })
    }

    fn pack(&mut self) -> Result<Directive, ParseError> {
        if self.cursor.take_if("weights") {
            return Ok(Directive::PackWeights);
        }
        self.cursor.keyword("input", "`weights` or `input`")?;
        let at = self.at()?;
        let layout = match self.option("layout")? {
            Some(word) => {
                let layout = Layout::from_name(word.text);
                Some(layout.ok_or_else(|| word.unknown(Named::Layout))?)
            }
            None => None,
        };
        Ok(Directive::PackInput { at, layout })
    }

    fn at(&mut self) -> Result<String, ParseError> {
        self.cursor.keyword("at", "`at`")?;
        self.axis()
    }

    fn axis(&mut self) -> Result<String, ParseError> {
        Ok(self.cursor.name()?.text.to_owned())
    }

    /// The word after `name=`, if the option is given.
    fn option(&mut self, name: &str) -> Result<Option<Token<'_>>, ParseError> {
        if !self.cursor.take_if(name) {
            return Ok(None);
        }
        self.cursor.take_kind(TokenKind::Equals)?;
        self.cursor.take_kind(TokenKind::Word).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const FULL: &str = "\
split ow by 14 tail=cut
split oc by 32
split n by 4294967295 tail=pad
reorder a b c
fuse oh ow
vectorize oc.i
unroll ow.i
parallel oh
rfactor ic.i
accumulate output at ow.o
skip padding at kh
peel ow.o
pack weights
pack input at oh layout=nhwc
pack input at oh
tile oh by 4
points ow by 32
block oc by 64
merge oh by 2
register t by 12
copy ic by 64
ahead ic by 8
";

    #[test]
    fn canonical_schedules_print_as_they_are() {
        for text in [FULL, ""] {
            assert_eq!(parse_schedule(text).expect("accepted").to_string(), text);
        }
    }

    #[test]
    fn other_spellings_print_canonically() {
        let text = "; split a by 08 tail = guard;;unroll b # why\r\n\n  pack   weights # end";
        let schedule = parse_schedule(text).expect("accepted");
        assert_eq!(schedule.to_string(), "split a by 8\nunroll b\npack weights\n");
    }

    #[test]
    fn errors_name_the_place() {
        let cases = [
            ("\n  tiled oh", "line 2, column 3: unknown directive `tiled`"),
            ("\n  tile oh 4", "line 2, column 11: expected `by`, found `4`"),
            ("= oh", "line 1, column 1: expected a directive, found `=`"),
            ("split oh 3", "line 1, column 10: expected `by`, found `3`"),
            ("split oh by ow", "line 1, column 13: expected an integer, found `ow`"),
            ("split oh by 4294967296", "line 1, column 13: integer beyond the limit of 4294967295"),
            ("split oh by 3 tail=none", "line 1, column 20: unknown tail `none`"),
            ("split oh by 3 tail none", "line 1, column 20: expected `=`, found `none`"),
            ("reorder", "line 1, column 8: expected a name, found end of text"),
            ("fuse oh\now", "line 1, column 8: expected a name, found end of line"),
            ("fuse oh ow ic", "line 1, column 12: expected end of line or `;`, found `ic`"),
            ("unroll for", "line 1, column 8: `for` is a keyword, not a name"),
            ("accumulate input", "line 1, column 12: expected `output`, found `input`"),
            ("pack output", "line 1, column 6: expected `weights` or `input`, found `output`"),
            ("pack input oh", "line 1, column 12: expected `at`, found `oh`"),
            ("pack input at oh layout=x", "line 1, column 25: unknown layout `x`"),
            ("unroll oh\n\"", "line 2, column 1: unexpected character '\"'"),
        ];
        for (text, expected) in cases {
            assert_eq!(parse_schedule(text).expect_err("refused").to_string(), expected, "{text}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        /// What is accepted means the same after printing.
        #[test]
        fn mutated_texts_do_not_panic(
            mutations in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        ) {
            let mut bytes = FULL.as_bytes().to_vec();
            for (at, byte) in mutations {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            if let Ok(schedule) = parse_schedule(&String::from_utf8_lossy(&bytes)) {
                prop_assert_eq!(parse_schedule(&schedule.to_string()), Ok(schedule));
            }
        }
    }

    #[test]
    fn directives_are_limited() {
        let text = |count: usize| "unroll ow\n".repeat(count);
        assert!(parse_schedule(&text(MAX_DIRECTIVES)).is_ok());
        let refused = parse_schedule(&text(MAX_DIRECTIVES + 1)).expect_err("refused");
        let kind = ParseErrorKind::TooManyDirectives { limit: MAX_DIRECTIVES };
        assert_eq!((refused.line, refused.kind), (257, kind));
    }
}
