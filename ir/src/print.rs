//! The one printer: nests and schedules as canonical text.
//!
//! Promises: what [`parse`](crate::parse) accepts prints to a text that parses to an equal nest,
//! and equal nests print alike. The order of the terms of a sum follows the loops around it,
//! outermost first, so it does not depend on the ids a transform happened to give out. Printing
//! never fails: a nest that no verifier would accept prints as well as it can.

use std::borrow::Cow;
use std::fmt;

use crate::nest::{
    Access, Affine, AxisId, AxisKind, Buffer, BufferId, Expr, Fetch, Guard, LocalId, Loop, Mode,
    Nest, Scalar, Stmt, Stripe,
};
use crate::schedule::{Directive, Schedule, Tail};
use crate::source_map::SourceMap;

/// The canonical text of a nest.
pub fn print_nest(nest: &Nest) -> String {
    print_nest_with_map(nest).0
}

/// The canonical text of a nest, and where its statements and buffers stand in it.
pub fn print_nest_with_map(nest: &Nest) -> (String, SourceMap) {
    let mut printer = Printer::new(nest);
    printer.nest();
    (printer.text, printer.map)
}

/// An access outside its place in the nest, e.g. in a message.
pub fn access_text(nest: &Nest, access: &Access) -> String {
    Names::everywhere(nest).access(access)
}

/// A sum outside its place in the nest, e.g. in a message.
pub fn affine_text(nest: &Nest, sum: &Affine) -> String {
    Names::everywhere(nest).affine(sum)
}

/// A condition outside its place in the nest, e.g. in a message.
pub fn guard_text(nest: &Nest, guard: &Guard) -> String {
    Names::everywhere(nest).guard(guard)
}

impl fmt::Display for Nest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&print_nest(self))
    }
}

impl fmt::Display for Schedule {
    /// One directive a line, each line ended.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.directives.iter().try_for_each(|directive| writeln!(f, "{directive}"))
    }
}

impl fmt::Display for Directive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Directive::Split { axis, by, tail: Tail::Guard } => write!(f, "split {axis} by {by}"),
            Directive::Split { axis, by, tail: tail @ (Tail::Cut | Tail::Pad) } => {
                write!(f, "split {axis} by {by} tail={}", tail.name())
            }
            Directive::Reorder { axes } => write!(f, "reorder {}", axes.join(" ")),
            Directive::Fuse { outer, inner } => write!(f, "fuse {outer} {inner}"),
            Directive::Vectorize { axis } => write!(f, "vectorize {axis}"),
            Directive::Unroll { axis } => write!(f, "unroll {axis}"),
            Directive::Parallel { axis } => write!(f, "parallel {axis}"),
            Directive::Prefetch { axis, by } => write!(f, "prefetch {axis} by {by}"),
            Directive::Rfactor { axis } => write!(f, "rfactor {axis}"),
            Directive::AccumulateOutput { at } => write!(f, "accumulate output at {at}"),
            Directive::SpillSums { at, over: None } => write!(f, "spill sums at {at}"),
            Directive::SpillSums { at, over: Some(over) } => {
                write!(f, "spill sums at {at} over {over}")
            }
            Directive::SkipPadding { at } => write!(f, "skip padding at {at}"),
            Directive::Peel { axis } => write!(f, "peel {axis}"),
            Directive::Size { of, axis, by } => write!(f, "{} {axis} by {by}", of.name()),
            Directive::PackWeights => f.write_str("pack weights"),
            Directive::PackInput { at, layout: None } => write!(f, "pack input at {at}"),
            Directive::PackInput { at, layout: Some(layout) } => {
                write!(f, "pack input at {at} layout={}", layout.name())
            }
        }
    }
}

/// The keywords in front of the loop variable.
fn loop_keywords(mode: Mode, kind: AxisKind) -> &'static str {
    match (mode, kind) {
        (Mode::Serial, AxisKind::Spatial) => "for",
        (Mode::Serial, AxisKind::Reduction) => "reduce",
        (Mode::Parallel, AxisKind::Spatial) => "parallel",
        (Mode::Parallel, AxisKind::Reduction) => "parallel reduce",
        (Mode::Unroll, AxisKind::Spatial) => "unroll",
        (Mode::Unroll, AxisKind::Reduction) => "unroll reduce",
        (Mode::Vector, AxisKind::Spatial) => "vector",
        (Mode::Vector, AxisKind::Reduction) => "vector reduce",
    }
}

/// Writes lines and remembers which statement each belongs to.
struct Printer<'a> {
    names: Names<'a>,
    text: String,
    line: u32,
    level: usize,
    map: SourceMap,
}

impl<'a> Printer<'a> {
    fn new(nest: &'a Nest) -> Printer<'a> {
        let map = SourceMap { stmts: vec![], buffers: vec![0; nest.buffers.len()] };
        let names = Names { nest, scope: vec![] };
        Printer { names, text: String::new(), line: 1, level: 0, map }
    }

    /// The parts that are not empty, a blank line between them.
    fn nest(&mut self) {
        let nest = self.names.nest;
        self.open(&format!("nest {}", nest.name));
        self.header();
        if !nest.pack.is_empty() {
            self.part();
            self.open("pack");
            self.block(&nest.pack);
            self.close();
        }
        if !nest.body.is_empty() {
            self.part();
            self.block(&nest.body);
        }
        self.close();
    }

    fn header(&mut self) {
        let nest = self.names.nest;
        for id in nest.buffer_ids().filter(|id| !nest.buffer(*id).role.is_local()) {
            self.declare(id);
        }
    }

    /// A blank line, unless this is the first part.
    fn part(&mut self) {
        if self.line > 2 {
            self.end_line();
        }
    }

    fn block(&mut self, stmts: &[Stmt]) {
        for stmt in stmts {
            self.map.stmts.push(self.line);
            self.stmt(stmt);
        }
    }

    fn stmt(&mut self, stmt: &Stmt) {
        match stmt {
            Stmt::Loop(l) => self.loop_(l),
            Stmt::If(guards, body) => {
                self.open(&format!("if{}", self.names.guards(guards)));
                self.block(body);
                self.close();
            }
            Stmt::MicroKernel(body) => {
                self.open("micro_kernel");
                self.block(body);
                self.close();
            }
            Stmt::Declare(id) => self.declare(*id),
            Stmt::Let(id, value) => {
                let name = self.names.local(*id);
                self.put(&format!("let {name} = {}", self.names.expr(value)));
            }
            Stmt::Store(to, value) => {
                self.put(&format!("{} = {}", self.names.access(to), self.names.expr(value)));
            }
        }
    }

    fn loop_(&mut self, l: &Loop) {
        let kind = self.names.nest.axes.get(l.axis.index()).map(|axis| axis.kind);
        let name = self.names.axis(l.axis);
        self.names.scope.push(l.axis);
        let keywords = loop_keywords(l.mode, kind.unwrap_or(AxisKind::Spatial));
        let mut line = format!("{keywords} {name} in {}..{}", l.lo, l.hi);
        if let Some(ahead) = l.ahead {
            line += &format!(" ahead {ahead}");
        }
        for Fetch { count, from } in &l.fetch {
            line += &format!(" fetch {count} {}", self.names.access(from));
        }
        if !l.guards.is_empty() {
            line += if l.cut { " cut" } else { " where" };
            line += &self.names.guards(&l.guards);
        }
        self.open(&line);
        self.block(&l.body);
        self.close();
        self.names.scope.pop();
    }

    fn declare(&mut self, id: BufferId) {
        if let Some(line) = self.map.buffers.get_mut(id.index())
            && *line == 0
        {
            *line = self.line;
        }
        match self.names.nest.buffers.get(id.index()) {
            Some(buffer) => self.put(&declaration(buffer)),
            None => self.put(&format!("reg {}", self.names.buffer(id))),
        }
    }

    fn open(&mut self, head: &str) {
        self.put(&format!("{head} {{"));
        self.level += 1;
    }

    fn close(&mut self) {
        self.level -= 1;
        self.put("}");
    }

    fn put(&mut self, line: &str) {
        self.text.extend(std::iter::repeat_n("  ", self.level));
        self.text.push_str(line);
        self.end_line();
    }

    fn end_line(&mut self) {
        self.text.push('\n');
        self.line += 1;
    }
}

/// The role, the name unless it is the role's, type and shape.
fn declaration(buffer: &Buffer) -> String {
    let role = buffer.role.name();
    let name = match buffer.role.is_local() || buffer.name != role {
        true => format!(" {}", buffer.name),
        false => String::new(),
    };
    let extents: Vec<String> = buffer
        .shape
        .iter()
        .enumerate()
        .map(|(dim, extent)| match buffer.stripe(dim) {
            Stripe::ALL => extent.to_string(),
            Stripe { from: 0, by } => format!("{extent} by {by}"),
            Stripe { from, by } => format!("{extent} from {from} by {by}"),
        })
        .collect();
    format!("{role}{name} {}[{}]", buffer.elem.name(), extents.join(","))
}

/// Turns ids into names; knows the loops around, outermost first.
struct Names<'a> {
    nest: &'a Nest,
    scope: Vec<AxisId>,
}

impl<'a> Names<'a> {
    /// Outside of any loop: variables rank by id.
    fn everywhere(nest: &'a Nest) -> Names<'a> {
        Names { nest, scope: (0..nest.axes.len() as u32).map(AxisId).collect() }
    }

    fn expr(&self, expr: &Expr) -> String {
        match expr {
            Expr::Const(Scalar::F32(value)) => format!("{value:?}"),
            Expr::Local(id) => self.local(*id).into_owned(),
            Expr::Load(access) => self.access(access),
            Expr::Pad(mode, access) => format!("{}({})", mode.function(), self.access(access)),
            Expr::Unary(op, _) => self.call(op.name(), expr),
            Expr::Binary(op, ..) => self.call(op.name(), expr),
            Expr::Fma(..) => self.call("fma", expr),
            Expr::Select { a, b, then, otherwise } => {
                let [a, b, then, otherwise] = [a, b, then, otherwise].map(|x| self.expr(x));
                format!("select({a} < {b}, {then}, {otherwise})")
            }
        }
    }

    fn call(&self, function: &str, expr: &Expr) -> String {
        format!(
            "{function}({})",
            joined(&expr.operands().collect::<Vec<_>>(), ", ", |x| self.expr(x))
        )
    }

    fn access(&self, access: &Access) -> String {
        let name = self.buffer(access.buffer);
        format!("{name}[{}]", joined(&access.index, ",", |sum| self.affine(sum)))
    }

    /// With a space in front.
    fn guards(&self, guards: &[Guard]) -> String {
        match guards {
            [] => String::new(),
            guards => format!(" {}", joined(guards, " and ", |guard| self.guard(guard))),
        }
    }

    fn guard(&self, guard: &Guard) -> String {
        match guard {
            Guard::Below(sum, limit) => format!("{} < {limit}", self.affine(sum)),
            Guard::AtLeast(sum, limit) => format!("{} >= {limit}", self.affine(sum)),
        }
    }

    fn affine(&self, sum: &Affine) -> String {
        let mut terms = sum.terms().to_vec();
        terms.sort_by_key(|(axis, _)| self.rank(*axis));
        let mut text = String::new();
        for (axis, coefficient) in terms {
            push_sign(&mut text, coefficient);
            text += &self.axis(axis);
            if coefficient.unsigned_abs() != 1 {
                text += &format!("*{}", coefficient.unsigned_abs());
            }
        }
        if sum.constant != 0 || text.is_empty() {
            push_sign(&mut text, sum.constant);
            text += &sum.constant.unsigned_abs().to_string();
        }
        text
    }

    /// Variables of the loops around by depth, all others after them by name.
    fn rank(&self, axis: AxisId) -> (usize, Cow<'a, str>) {
        match self.scope.iter().position(|around| *around == axis) {
            Some(depth) => (depth, Cow::Borrowed("")),
            None => (self.scope.len(), self.axis(axis)),
        }
    }

    fn buffer(&self, id: BufferId) -> Cow<'a, str> {
        name_or_number(self.nest.buffers.get(id.index()).map(|buffer| &buffer.name), id.0)
    }

    fn axis(&self, id: AxisId) -> Cow<'a, str> {
        name_or_number(self.nest.axes.get(id.index()).map(|axis| &axis.name), id.0)
    }

    fn local(&self, id: LocalId) -> Cow<'a, str> {
        name_or_number(self.nest.locals.get(id.index()), id.0)
    }
}

/// What a table calls an entry, or the number of one that it does not have.
fn name_or_number(name: Option<&String>, number: u32) -> Cow<'_, str> {
    name.map_or_else(|| Cow::Owned(format!("?{number}")), |name| Cow::Borrowed(name.as_str()))
}

/// A minus, or the plus that a first term does without.
fn push_sign(text: &mut String, value: i64) {
    if value < 0 {
        text.push('-');
    } else if !text.is_empty() {
        text.push('+');
    }
}

fn joined<T>(items: &[T], separator: &str, text: impl FnMut(&T) -> String) -> String {
    items.iter().map(text).collect::<Vec<_>>().join(separator)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::elem::ElemType;
    use crate::nest::{Axis, Dim, Role};

    /// The parser's tests cover what can be read back; this nest cannot.
    #[test]
    fn illegal_nests_print() {
        let (buffer, axis) = (BufferId(0), AxisId(0));
        let acc = Buffer::new("acc", Role::Reg, ElemType::F32, vec![]);
        let output =
            Buffer { name: "y".into(), role: Role::Output, shape: vec![Dim::Batch], ..acc.clone() };
        let index = vec![Affine::from_terms(i64::MIN, [(axis, i64::MIN)])];
        let store = Stmt::Store(Access { buffer, index }, Expr::f32(f32::NAN));
        let nest = Nest {
            name: "odd".into(),
            axes: vec![Axis { name: "i".into(), kind: AxisKind::Spatial }],
            buffers: vec![acc, output],
            locals: vec![],
            pack: vec![],
            body: vec![Stmt::If(vec![], vec![store])],
        };
        let text = "nest odd {\n  output y f32[N]\n\n  if {
    acc[-i*9223372036854775808-9223372036854775808] = NaN\n  }\n}\n";
        let map = SourceMap { stmts: vec![4, 5], buffers: vec![0, 2] };
        assert_eq!(print_nest_with_map(&nest), (text.to_owned(), map));
    }
}
