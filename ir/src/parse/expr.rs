//! What stands inside of a statement: accesses, sums of loop variables, values.

use super::cursor::MAX_INTEGER;
use super::{MAX_LEVELS, NestParser};
use crate::elem::ElemType;
use crate::lex::{Named, ParseError, ParseErrorKind, Token, TokenKind};
use crate::nest::{Access, Affine, AxisId, BinaryOp, Expr, UnaryOp};
use crate::padding::PaddingMode;

impl<'a> NestParser<'a> {
    pub(super) fn access(&mut self) -> Result<Access, ParseError> {
        let name = self.cursor.take_kind(TokenKind::Word)?;
        if self.cursor.peek().kind != TokenKind::OpenBracket {
            return Err(self.cursor.peek().expected("`[`"));
        }
        let buffer = self.buffer_names.buffer(name)?;
        Ok(Access { buffer, index: self.bracketed(NestParser::affine)? })
    }

    /// `[item, item]` or `[]`
    pub(super) fn bracketed<T>(
        &mut self,
        mut item: impl FnMut(&mut Self) -> Result<T, ParseError>,
    ) -> Result<Vec<T>, ParseError> {
        self.cursor.take_kind(TokenKind::OpenBracket)?;
        let mut items = Vec::new();
        if self.cursor.take_if_kind(TokenKind::CloseBracket) {
            return Ok(items);
        }
        loop {
            items.push(item(self)?);
            if self.cursor.take_if_kind(TokenKind::CloseBracket) {
                return Ok(items);
            }
            if !self.cursor.take_if_kind(TokenKind::Comma) {
                return Err(self.cursor.peek().expected("`,` or `]`"));
            }
        }
    }

    /// Terms in any order. A text has fewer than 2^22 terms of at most 2^40 each: sums do not
    /// overflow before they are checked.
    pub(super) fn affine(&mut self) -> Result<Affine, ParseError> {
        let start = self.cursor.peek();
        let mut constant = 0;
        let mut terms = Vec::new();
        let mut sign = if self.cursor.take_if_kind(TokenKind::Minus) { -1 } else { 1 };
        loop {
            match self.term()? {
                (Some(axis), coefficient) => terms.push((axis, sign * coefficient)),
                (None, number) => constant += sign * number,
            }
            if self.cursor.take_if_kind(TokenKind::Plus) {
                sign = 1;
            } else if self.cursor.take_if_kind(TokenKind::Minus) {
                sign = -1;
            } else {
                break;
            }
        }
        let sum = Affine::from_terms(constant, terms);
        let largest = sum.terms().iter().map(|(_, c)| c.abs()).fold(constant.abs(), i64::max);
        match largest <= MAX_INTEGER {
            true => Ok(sum),
            false => Err(start.error(ParseErrorKind::IntegerTooLarge { limit: MAX_INTEGER })),
        }
    }

    /// `3`, `ow`, `ow*3` or `3*ow`
    fn term(&mut self) -> Result<(Option<AxisId>, i64), ParseError> {
        let first = self.cursor.peek();
        if first.kind == TokenKind::Integer {
            let number = self.cursor.integer()?;
            let variable = match self.cursor.take_if_kind(TokenKind::Star) {
                true => Some(self.variable()?),
                false => None,
            };
            return Ok((variable, number));
        }
        if first.kind != TokenKind::Word {
            return Err(first.expected("a loop variable or an integer"));
        }
        let variable = Some(self.variable()?);
        match self.cursor.take_if_kind(TokenKind::Star) {
            true => Ok((variable, self.cursor.integer()?)),
            false => Ok((variable, 1)),
        }
    }

    fn variable(&mut self) -> Result<AxisId, ParseError> {
        let name = self.cursor.take_kind(TokenKind::Word)?;
        self.axes.used(name)
    }

    pub(super) fn expr(&mut self) -> Result<Expr, ParseError> {
        self.expr_at(1)
    }

    fn expr_at(&mut self, level: usize) -> Result<Expr, ParseError> {
        let first = self.cursor.peek();
        if level > MAX_LEVELS {
            return Err(first.error(ParseErrorKind::ExpressionsTooDeep { limit: MAX_LEVELS }));
        }
        if first.kind == TokenKind::Minus || first.is_number() {
            return self.constant();
        }
        if first.kind != TokenKind::Word {
            return Err(first.expected("a value"));
        }
        let second = self.cursor.peek_second();
        if second.kind == TokenKind::OpenParen {
            self.call(level)
        } else if second.kind == TokenKind::OpenBracket {
            Ok(Expr::Load(self.access()?))
        } else {
            let name = self.cursor.take();
            self.local_names.local(name).map(Expr::Local)
        }
    }

    /// An f32, the only element type there is.
    fn constant(&mut self) -> Result<Expr, ParseError> {
        let negative = self.cursor.take_if_kind(TokenKind::Minus);
        let token = self.cursor.take();
        if !token.is_number() {
            return Err(token.expected("a number"));
        }
        match token.text.parse::<f32>().ok().filter(|value| value.is_finite()) {
            Some(value) => Ok(Expr::f32(if negative { -value } else { value })),
            None => {
                let (literal, elem) = (token.excerpt(), ElemType::F32.name());
                Err(token.error(ParseErrorKind::ConstantOverflows { literal, elem }))
            }
        }
    }

    fn call(&mut self, level: usize) -> Result<Expr, ParseError> {
        let function = self.cursor.take();
        self.cursor.take_kind(TokenKind::OpenParen)?;
        let value = self.arguments(function, level + 1)?;
        self.cursor.take_kind(TokenKind::CloseParen)?;
        Ok(value)
    }

    fn arguments(&mut self, function: Token<'a>, level: usize) -> Result<Expr, ParseError> {
        let name = function.text;
        if let Some(mode) = PaddingMode::from_function(name) {
            return Ok(Expr::Pad(mode, self.access()?));
        }
        if name == "select" {
            let a = self.expr_at(level)?;
            self.cursor.take_kind(TokenKind::Less)?;
            let b = self.expr_at(level)?;
            return Ok(Expr::select(a, b, self.next_expr(level)?, self.next_expr(level)?));
        }
        if name == "fma" {
            let a = self.expr_at(level)?;
            return Ok(Expr::fma(a, self.next_expr(level)?, self.next_expr(level)?));
        }
        if let Some(op) = UnaryOp::ALL.into_iter().find(|op| op.name() == name) {
            return Ok(Expr::unary(op, self.expr_at(level)?));
        }
        match BinaryOp::ALL.into_iter().find(|op| op.name() == name) {
            Some(op) => {
                let a = self.expr_at(level)?;
                Ok(Expr::binary(op, a, self.next_expr(level)?))
            }
            None => Err(function.unknown(Named::Function)),
        }
    }

    /// `, value`
    fn next_expr(&mut self, level: usize) -> Result<Expr, ParseError> {
        self.cursor.take_kind(TokenKind::Comma)?;
        self.expr_at(level)
    }
}
