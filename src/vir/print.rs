//! Programs as text: the form is on the first page of [`vir`](super).

use std::fmt::Write as _;

use convgen_ir::elem::ElemType;
use convgen_ir::nest::{Affine, Loop, Nest};
use convgen_ir::print::{affine_text, guard_text};

use super::{
    Argument, Deinterleave, Item, Lane, LaneNumbers, LanePermute, Level, Mask, Op, Place, Program,
    Step, Stream, Trips, Value,
};

/// The text of a program that was built of a scope of a nest.
pub(crate) fn print(nest: &Nest, program: &Program) -> String {
    let head = format!("micro-kernel of {} cells of {} lanes {{\n", program.cells, program.lanes);
    let mut printer = Printer { nest, program, text: head, depth: 1 };
    printer.arguments();
    printer.items(&program.items);
    printer.text += "}\n";
    printer.text
}

struct Printer<'p> {
    nest: &'p Nest,
    program: &'p Program,
    text: String,
    depth: usize,
}

impl Printer<'_> {
    fn line(&mut self, text: &str) {
        // Writing to a string never fails.
        let _ = writeln!(self.text, "{:width$}{text}", "", width = self.depth.saturating_mul(2));
    }

    fn arguments(&mut self) {
        for (number, argument) in self.program.arguments.iter().enumerate() {
            let streams = self.program.streams.iter().enumerate();
            let named = streams.filter(|(_, begin)| **begin == number);
            let names: String = named.map(|(stream, _)| format!("p{stream} = ")).collect();
            let text = self.argument(argument);
            self.line(&format!("{names}a{number} = {text}"));
        }
    }

    fn argument(&self, argument: &Argument) -> String {
        let sum = |sum: &Affine| affine_text(self.nest, sum);
        let of_loop = |end: &str, l: &Loop| {
            let axis = affine_text(self.nest, &Affine::axis(l.axis));
            let hi = l.hi.fixed().map_or("N".to_string(), |hi| hi.to_string());
            let guards = l.guards.iter().map(|guard| guard_text(self.nest, guard));
            let guards = guards.collect::<Vec<_>>().join(" and ");
            let condition = if guards.is_empty() { guards } else { format!(" if {guards}") };
            format!("{end}({axis} in {}..{hi}{condition})", l.lo)
        };
        match argument {
            Argument::Pointer(buffer, terms) => {
                let offset = Affine::from_terms(0, terms.iter().copied());
                format!("&{}[{}]", self.nest.buffer(*buffer).name, sum(&offset))
            }
            Argument::Sum(affine) => format!("clamped({})", sum(affine)),
            Argument::Number(affine) => format!("({})", sum(affine)),
            Argument::First(l) => of_loop("first", l),
            Argument::End(l) => of_loop("end", l),
        }
    }

    fn items(&mut self, items: &[Item]) {
        for item in items {
            match item {
                Item::Line(steps) => {
                    for step in steps {
                        let text = self.step(step);
                        self.line(&text);
                    }
                }
                Item::Loop { trips, strides, body } => {
                    self.line(&format!("loop {} {{", trips_text(trips)));
                    self.depth = self.depth.saturating_add(1);
                    self.items(body);
                    let moves: Vec<String> = strides
                        .iter()
                        .filter(|(_, bytes)| *bytes != 0)
                        .map(|(stream, bytes)| format!("p{stream} += {bytes}"))
                        .collect();
                    if !moves.is_empty() {
                        self.line(&moves.join(", "));
                    }
                    self.depth = self.depth.saturating_sub(1);
                    self.line("}");
                }
            }
        }
    }

    /// The lanes that a load or store touches; nothing if it is all of them.
    fn lanes(&self, mask: Mask) -> String {
        if mask.is_whole(self.program.lanes) {
            return String::new();
        }
        let limit = match mask.limit {
            Some((argument, start)) => format!(" below a{argument} - {start}"),
            None => String::new(),
        };
        format!(" [{}..{}{limit}]", mask.first, mask.lanes)
    }

    fn typed(&self, value: Value) -> String {
        format!("v{value}: {}", self.program.types[value])
    }

    fn step(&self, step: &Step) -> String {
        match step {
            Step::Define(value, op) => format!("{} = {}", self.typed(*value), self.op(*value, op)),
            Step::Write(cell, value) => format!("c{cell} = v{value}"),
            Step::Accumulate(cell, a, b) => format!("c{cell} += v{a} * v{b}"),
            Step::Store(place, mask, value) => {
                format!("store {}{}, v{value}", place_text(*place), self.lanes(*mask))
            }
            Step::Gather(place, mask, bytes, values) => {
                let names = values.map(|value| value.map_or("_".into(), |value| self.typed(value)));
                let last = names.iter().rposition(|name| name != "_").unwrap_or(0);
                let names = names[..=last].join(", ");
                let place = place_text(*place);
                format!("{names} = gather {place} by {bytes}{}", self.lanes(*mask))
            }
            Step::Scatter(place, mask, bytes, values) => {
                let names: Vec<String> = values.iter().map(|value| format!("v{value}")).collect();
                let (place, names) = (place_text(*place), names.join(", "));
                format!("scatter {place} by {bytes}{}, {names}", self.lanes(*mask))
            }
            Step::Prefetch(place, level) => {
                let level = match level {
                    Level::L1 => "l1",
                    Level::L2 => "l2",
                };
                format!("prefetch {level} {}", place_text(*place))
            }
        }
    }

    fn op(&self, value: Value, op: &Op) -> String {
        match op {
            Op::Load(place, mask) => format!("load {}{}", place_text(*place), self.lanes(*mask)),
            Op::Broadcast(place, 1) => format!("broadcast {}", place_text(*place)),
            Op::Broadcast(place, elements) => {
                format!("broadcast {} [0..{elements}]", place_text(*place))
            }
            Op::Const(bits) => match self.program.types[value].lane {
                Lane::Elem(ElemType::F32) => format!("{:?}", f32::from_bits(*bits)),
                Lane::Index(_) => bits.to_string(),
            },
            Op::Index(LaneNumbers::Permute(permute)) => permute_text(*permute),
            Op::Index(LaneNumbers::Deinterleave(Deinterleave { phases: [lower, upper] })) => {
                format!("l*2+{lower}, l*2+{upper}")
            }
            Op::Permute(from, Some(index), _) => format!("permute v{from} by v{index}"),
            Op::Permute(from, None, permute) => {
                format!("permute v{from} by {}", permute_text(*permute))
            }
            Op::Deinterleave([a, b], Some(index), _) => {
                format!("deinterleave v{a}, v{b} by v{index}")
            }
            Op::Deinterleave([a, b], None, Deinterleave { phases: [lower, upper] }) => {
                format!("deinterleave v{a}, v{b} by l*2+{lower}, l*2+{upper}")
            }
            Op::Read(cell) => format!("c{cell}"),
            Op::Unary(op, x) => format!("{} v{x}", op.name()),
            Op::Binary(op, a, b) => format!("{} v{a}, v{b}", op.name()),
            Op::Fma(a, b, c) => format!("fma v{a}, v{b}, v{c}"),
            Op::Select([a, b, then, otherwise]) => {
                format!("select v{a} < v{b}, v{then}, v{otherwise}")
            }
        }
    }
}

fn place_text(place: Place) -> String {
    format!("p{} + {}", place.stream, place.displacement)
}

fn permute_text(permute: LanePermute) -> String {
    let LanePermute { repeat, stride, phase, lanes } = permute;
    format!("l/{repeat}*{stride}+{phase} [0..{lanes}]")
}

fn trips_text(trips: &Trips) -> String {
    let ends = |number: i64, streams: &[Stream], extreme: &str| match streams {
        [] => number.to_string(),
        _ => {
            let names: Vec<String> = streams.iter().map(|stream| format!("p{stream}")).collect();
            format!("{extreme}({number}, {})", names.join(", "))
        }
    };
    match trips {
        Trips::Fixed(trips) => trips.to_string(),
        Trips::Between { first, end } => format!("a{first}..a{end}"),
        Trips::Within { lo, hi, at_least, below } => {
            format!("{}..{}", ends(*lo, at_least, "max"), ends(*hi, below, "min"))
        }
    }
}
