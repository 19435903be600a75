//! What the other rules rely on: the nest is within its [size](crate::nest::Nest::check_size), so
//! that stages may recurse, every id names an entry of its table, and every buffer of the nest's
//! own is declared by a statement.
//!
//! A text satisfies all of this, since the parser gives out the ids. A [`Nest`](crate::nest::Nest)
//! is plain data, which a rewrite may leave in any state.

use super::{Check, Checker, Fault, Place, VerifyError};
use crate::nest::{Access, Affine, AxisId, BufferId, Expr, LocalId, Stmt};

/// The most buffers of a nest: some ten times what the longest schedules declare.
const MAX_BUFFERS: usize = 1 << 12;

impl Checker<'_> {
    /// V1 and V10 for the nest as data.
    pub(super) fn structure(&mut self) -> Check {
        let (given, limit) = (self.nest.buffers.len(), MAX_BUFFERS);
        if given > limit {
            let (what, given) = ("the number of buffers".to_string(), given as i128);
            let fault = Fault::Size { what, given, low: 0, high: limit as i128 };
            return Err(VerifyError { place: Place::Nest, fault });
        }
        self.nest.check_size()?;
        let mut declared = vec![false; given];
        self.ids_of_block(&self.nest.pack, &mut declared)?;
        self.ids_of_block(&self.nest.body, &mut declared)?;
        self.stmt = 0;
        for (id, declared) in self.nest.buffer_ids().zip(declared) {
            let buffer = self.nest.buffer(id);
            if buffer.role.is_local() && !declared {
                let fault = Fault::Undeclared { name: buffer.name.clone() };
                return Err(VerifyError { place: Place::Buffer(id), fault });
            }
        }
        Ok(())
    }

    fn ids_of_block(&mut self, block: &[Stmt], declared: &mut [bool]) -> Check {
        for stmt in block {
            self.stmt = self.stmt.saturating_add(1);
            match stmt {
                Stmt::Loop(l) => {
                    self.axis_id(l.axis)?;
                    l.guards.iter().try_for_each(|guard| self.ids_of_sum(guard.sum()))?;
                    l.fetch.iter().try_for_each(|fetch| self.ids_of_access(&fetch.from))?;
                    self.ids_of_block(&l.body, declared)?;
                }
                Stmt::If(guards, body) => {
                    guards.iter().try_for_each(|guard| self.ids_of_sum(guard.sum()))?;
                    self.ids_of_block(body, declared)?;
                }
                Stmt::MicroKernel(body) => self.ids_of_block(body, declared)?,
                Stmt::Declare(id) => {
                    self.buffer_id(*id)?;
                    declared[id.index()] = true;
                }
                Stmt::Let(id, value) => {
                    self.local_id(*id)?;
                    self.ids_of_value(value)?;
                }
                Stmt::Store(dst, value) => {
                    self.ids_of_access(dst)?;
                    self.ids_of_value(value)?;
                }
            }
        }
        Ok(())
    }

    fn ids_of_value(&self, value: &Expr) -> Check {
        match value {
            Expr::Local(id) => self.local_id(*id)?,
            Expr::Load(access) | Expr::Pad(_, access) => self.ids_of_access(access)?,
            Expr::Const(_)
            | Expr::Unary(..)
            | Expr::Binary(..)
            | Expr::Fma(..)
            | Expr::Select { .. } => {}
        }
        let mut operands = value.operands();
        operands.try_for_each(|operand| self.ids_of_value(operand))
    }

    fn ids_of_access(&self, access: &Access) -> Check {
        self.buffer_id(access.buffer)?;
        access.index.iter().try_for_each(|sum| self.ids_of_sum(sum))
    }

    fn ids_of_sum(&self, sum: &Affine) -> Check {
        sum.terms().iter().try_for_each(|(axis, _)| self.axis_id(*axis))
    }

    fn buffer_id(&self, id: BufferId) -> Check {
        self.id("buffer", id.0, self.nest.buffers.len())
    }

    fn axis_id(&self, id: AxisId) -> Check {
        self.id("axis", id.0, self.nest.axes.len())
    }

    fn local_id(&self, id: LocalId) -> Check {
        self.id("value", id.0, self.nest.locals.len())
    }

    fn id(&self, what: &'static str, id: u32, count: usize) -> Check {
        match (id as usize) < count {
            true => Ok(()),
            false => self.fail(Fault::UnknownId { what, id, count }),
        }
    }
}

#[cfg(test)]
#[expect(clippy::arithmetic_side_effects, reason = "the tests count")]
mod tests {
    use crate::nest::{
        Access, Affine, AxisId, Buffer, BufferId, Dim, Expr, Fetch, Guard, LocalId, MAX_LEVELS,
        Mode, Nest, Role, Stmt, Stripe, UnaryOp, map_affines, visit_loops_mut,
    };
    use crate::parse::parse_nest;
    use crate::print::print_nest;
    use crate::verify::{Limits, Rule, verify};

    const TEXT: &str = "nest sample {
  input f32[N,8]
  weights f32[4,2]
  output f32[N,4]
  packed f32[2,4]
  pack {
    for o in 0..4 {
      for k in 0..2 {
        packed[k,o] = weights[o,k]
      }
    }
  }
  parallel n in 0..N {
    scratch row f32[8]
    for i in 0..8 fetch 4 input[n,i+1] {
      row[i] = input[n,i]
    }
    reg acc f32[4]
    vector o in 0..4 {
      acc[o] = 0.0
    }
    reduce t in 0..2 ahead 1 {
      vector o in 0..4 where t+o < 9 {
        let x = pad(row[2*o+t-1])
        acc[o] = fma(x, packed[t,o], acc[o])
      }
    }
    for y in 0..4 where y >= 0 {
      output[n,y] = 1.0
    }
  }
}
";

    fn sample() -> Nest {
        parse_nest(TEXT).unwrap().0
    }

    fn rule(nest: Nest) -> Option<Rule> {
        // A message is made of what is there, whatever that is.
        let _ = print_nest(&nest);
        let error = verify(nest, &Limits::INTERPRETER).err()?;
        assert!(!error.to_string().is_empty());
        Some(error.fault.rule())
    }

    #[test]
    fn the_sample_is_legal() {
        assert_eq!(rule(sample()), None);
    }

    #[test]
    fn a_buffer_that_no_statement_declares_is_refused() {
        for role in [Role::Scratch, Role::Reg] {
            let mut nest = sample();
            nest.add_buffer(Buffer { role, name: "lost".into(), ..nest.buffers[0].clone() });
            nest.buffers.last_mut().unwrap().shape = vec![Dim::Fixed(1 << 20)];
            assert_eq!(rule(nest.clone()), Some(Rule::V1));
            nest.drop_unused_buffers();
            assert_eq!(nest, sample());
        }
    }

    #[test]
    fn a_used_buffer_keeps_its_entry() {
        let mut nest = sample();
        let lost = Buffer { role: Role::Scratch, name: "lost".into(), ..nest.buffers[0].clone() };
        nest.buffers.insert(4, lost);
        let at = |id: BufferId| if id.0 >= 4 { BufferId(id.0 + 1) } else { id };
        fn shift(block: &mut [Stmt], at: &impl Fn(BufferId) -> BufferId) {
            for stmt in block {
                match stmt {
                    Stmt::Loop(l) => shift(&mut l.body, at),
                    Stmt::If(_, body) | Stmt::MicroKernel(body) => shift(body, at),
                    Stmt::Declare(id) => *id = at(*id),
                    Stmt::Let(_, value) => shift_value(value, at),
                    Stmt::Store(dst, value) => {
                        dst.buffer = at(dst.buffer);
                        shift_value(value, at);
                    }
                }
            }
        }
        fn shift_value(value: &mut Expr, at: &impl Fn(BufferId) -> BufferId) {
            value.visit_mut(&mut |x| {
                if let Expr::Load(access) | Expr::Pad(_, access) = x {
                    access.buffer = at(access.buffer);
                }
            });
        }
        shift(&mut nest.body, &at);
        nest.drop_unused_buffers();
        assert_eq!(nest, sample());
    }

    #[test]
    fn ids_beyond_their_tables_are_refused() {
        let far = 1_000_000;
        let access = || Access { buffer: BufferId(far), index: vec![] };
        let stmts = [
            Stmt::Declare(BufferId(far)),
            Stmt::Let(LocalId(far), Expr::f32(0.0)),
            Stmt::Let(LocalId(0), Expr::Local(LocalId(far))),
            Stmt::Let(LocalId(0), Expr::Load(access())),
            Stmt::Store(access(), Expr::f32(0.0)),
            Stmt::If(vec![Guard::Below(Affine::axis(AxisId(far)), 0)], vec![]),
            Stmt::Loop(crate::nest::Loop::new(AxisId(far), Dim::Fixed(1), vec![])),
        ];
        for stmt in stmts {
            for in_pack in [true, false] {
                let mut nest = sample();
                if in_pack { &mut nest.pack } else { &mut nest.body }.push(stmt.clone());
                assert_eq!(rule(nest), Some(Rule::V1), "{stmt:?}");
            }
        }
        let mut nest = sample();
        let fetch = Fetch { count: 1, from: access() };
        visit_loops_mut(&mut nest.body, &mut |l| l.fetch.push(fetch.clone()));
        assert_eq!(rule(nest), Some(Rule::V1));
    }

    #[test]
    fn what_is_nested_deeper_than_the_stages_recurse_is_refused() {
        let mut nest = sample();
        for _ in 0..MAX_LEVELS {
            nest.body = vec![Stmt::If(vec![], nest.body)];
        }
        assert_eq!(rule(nest), Some(Rule::V10));
        let mut nest = sample();
        let mut value = Expr::f32(0.0);
        for _ in 0..MAX_LEVELS {
            value = Expr::unary(UnaryOp::Neg, value);
        }
        nest.body.push(Stmt::Let(LocalId(0), value));
        assert_eq!(rule(nest), Some(Rule::V10));
    }

    /// Whatever is compared with something else a statement is counted before, also what has no
    /// index.
    #[test]
    fn the_work_of_checking_is_bounded() {
        let scratch = |shape: &str, stores: &[String]| {
            format!(
                "nest x {{ input f32[4] output f32[4] for i in 0..4 {{ output[i] = 0.0 }} \
                 scratch s f32[{shape}] for a in 0..4 {{ for b in 0..4 {{ {} }} }} }}",
                stores.join("\n")
            )
        };
        let apart: Vec<String> =
            (0..6_000).map(|i| format!("s[{},{}] = 1.0", i / 80 * 2, i % 80 * 2)).collect();
        let under = format!("if {} {{", vec!["a+b >= 0"; 6_000].join(" and "));
        let mut guarded = vec!["s[] = 1.0".to_string(); 6_000];
        guarded.insert(0, under);
        guarded.push("}".to_string());
        for text in [scratch("160,160", &apart), scratch("", &guarded)] {
            assert_eq!(rule(parse_nest(&text).unwrap().0), Some(Rule::V8));
        }
    }

    /// Every number of a nest at the ends of its type, one at a time: an answer, never a panic.
    #[test]
    fn numbers_at_the_ends_of_their_type_are_answered() {
        const ENDS: [i64; 12] = [
            i64::MIN,
            i64::MIN + 1,
            -(1 << 62),
            -(1 << 41),
            -(1 << 32),
            -1,
            0,
            1 << 31,
            1 << 40,
            1 << 62,
            i64::MAX - 1,
            i64::MAX,
        ];
        let mut refused = 0;
        for end in ENDS {
            for place in 0.. {
                let mut nest = sample();
                if !replace_number(&mut nest, place, end) {
                    break;
                }
                refused += usize::from(rule(nest).is_some());
            }
        }
        assert!(refused > 300, "{refused}");
    }

    /// Replaces the number at a place, counted over all numbers of the nest; false behind the last.
    fn replace_number(nest: &mut Nest, place: usize, with: i64) -> bool {
        let mut left = place as i64;
        let mut visit = |number: &mut i64| {
            if left == 0 {
                *number = with;
            }
            left -= 1;
        };
        for buffer in &mut nest.buffers {
            for dim in &mut buffer.shape {
                if let Dim::Fixed(extent) = dim {
                    visit(extent);
                }
            }
            if buffer.role == Role::Output {
                let mut stripe = Stripe::ALL;
                visit(&mut stripe.from);
                visit(&mut stripe.by);
                buffer.stripes = vec![Stripe::ALL, stripe];
            }
        }
        for block in [&mut nest.pack, &mut nest.body] {
            visit_loops_mut(block, &mut |l| {
                visit(&mut l.lo);
                if let Dim::Fixed(hi) = &mut l.hi {
                    visit(hi);
                }
                for guard in &mut l.guards {
                    let (Guard::Below(_, limit) | Guard::AtLeast(_, limit)) = guard;
                    visit(limit);
                }
                if l.mode == Mode::Serial {
                    let mut limit = i64::MAX;
                    visit(&mut limit);
                    l.guards.push(Guard::Below(Affine::axis(l.axis), limit));
                }
            });
            map_affines(block, &mut |sum| {
                visit(&mut sum.constant);
                let terms = sum.terms().iter().map(|(axis, coefficient)| {
                    let mut coefficient = *coefficient;
                    visit(&mut coefficient);
                    (*axis, coefficient)
                });
                *sum = Affine::from_terms(sum.constant, terms.collect::<Vec<_>>());
            });
        }
        left < 0
    }
}
