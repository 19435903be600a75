//! The marks of micro-kernels, which say nothing about what a nest computes.

use std::collections::BTreeSet;

use super::{Nest, Stmt};

impl Nest {
    /// Puts blocks into `micro_kernel { .. }`: those that begin with the statements of these
    /// numbers, in the order of the text. A loop is one by itself; a declaration is one with the
    /// rest of its block.
    pub fn mark_micro_kernels(&mut self, begins: &BTreeSet<usize>) {
        let mut number = 0;
        for block in [&mut self.pack, &mut self.body] {
            mark(block, begins, &mut number);
        }
    }

    /// Whether some block is marked.
    pub fn has_micro_kernels(&self) -> bool {
        !self.micro_kernels().is_empty()
    }

    /// The blocks that are marked, in the order of the text. None is in another one if
    /// [`Nest::mark_micro_kernels`] marked them.
    pub fn micro_kernels(&self) -> Vec<&[Stmt]> {
        let mut found = vec![];
        visit(&self.pack, &mut found);
        visit(&self.body, &mut found);
        found
    }

    /// Takes all marks away; for each statement that is left, its number before. None if there were
    /// no marks: all keep theirs.
    pub fn unmark_micro_kernels(&mut self) -> Vec<u32> {
        if !self.has_micro_kernels() {
            return vec![];
        }
        let mut unmarked = Unmarked::default();
        unmarked.block(&mut self.pack);
        unmarked.block(&mut self.body);
        unmarked.numbers
    }
}

fn visit<'n>(block: &'n [Stmt], found: &mut Vec<&'n [Stmt]>) {
    for stmt in block {
        match stmt {
            Stmt::MicroKernel(body) => {
                found.push(body);
                visit(body, found);
            }
            Stmt::Loop(l) => visit(&l.body, found),
            Stmt::If(_, body) => visit(body, found),
            Stmt::Declare(_) | Stmt::Let(..) | Stmt::Store(..) => {}
        }
    }
}

/// Statements as they are met, in the order of the text.
#[derive(Default)]
struct Unmarked {
    /// How many were met.
    met: u32,
    /// The numbers of those that are no marks.
    numbers: Vec<u32>,
}

impl Unmarked {
    fn block(&mut self, block: &mut Vec<Stmt>) {
        for mut stmt in std::mem::take(block) {
            let number = self.met;
            self.met = number.saturating_add(1);
            if let Stmt::MicroKernel(mut body) = stmt {
                self.block(&mut body);
                block.extend(body);
                continue;
            }
            self.numbers.push(number);
            match &mut stmt {
                Stmt::Loop(l) => self.block(&mut l.body),
                Stmt::If(_, body) | Stmt::MicroKernel(body) => self.block(body),
                Stmt::Declare(_) | Stmt::Let(..) | Stmt::Store(..) => {}
            }
            block.push(stmt);
        }
    }
}

fn mark(block: &mut Vec<Stmt>, begins: &BTreeSet<usize>, number: &mut usize) {
    let mut rest = std::mem::take(block).into_iter();
    while let Some(mut stmt) = rest.next() {
        let begun = begins.contains(number);
        *number = number.saturating_add(1);
        match &mut stmt {
            Stmt::Loop(l) => mark(&mut l.body, begins, number),
            Stmt::If(_, body) | Stmt::MicroKernel(body) => mark(body, begins, number),
            Stmt::Declare(_) | Stmt::Let(..) | Stmt::Store(..) => {}
        }
        match stmt {
            Stmt::Loop(_) if begun => block.push(Stmt::MicroKernel(vec![stmt])),
            Stmt::Declare(_) if begun => {
                let mut scope: Vec<Stmt> = rest.by_ref().collect();
                mark(&mut scope, begins, number);
                scope.insert(0, stmt);
                block.push(Stmt::MicroKernel(scope));
            }
            Stmt::Loop(_)
            | Stmt::If(..)
            | Stmt::MicroKernel(_)
            | Stmt::Declare(_)
            | Stmt::Let(..)
            | Stmt::Store(..) => block.push(stmt),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse::parse_nest;
    use crate::print::print_nest;

    #[test]
    fn a_loop_is_marked_alone_and_a_declaration_with_what_follows() {
        let text = "nest n {
          input f32[N,8]
          output f32[N,8]
          parallel n in 0..N {
            vector i in 0..8 { output[n,i] = input[n,i] }
            if n < 1 {
              output[n,0] = 1.0
              reg acc f32[8]
              vector i in 0..8 { acc[i] = input[n,i] }
              vector i in 0..8 { output[n,i] = acc[i] }
            }
          }
        }";
        let (mut nest, _) = parse_nest(text).expect("a nest");
        nest.mark_micro_kernels(&BTreeSet::from([1, 5]));
        let marked = print_nest(&nest);
        let want = "\
nest n {
  input f32[N,8]
  output f32[N,8]

  parallel n in 0..N {
    micro_kernel {
      vector i in 0..8 {
        output[n,i] = input[n,i]
      }
    }
    if n < 1 {
      output[n,0] = 1.0
      micro_kernel {
        reg acc f32[8]
        vector i in 0..8 {
          acc[i] = input[n,i]
        }
        vector i in 0..8 {
          output[n,i] = acc[i]
        }
      }
    }
  }
}
";
        assert_eq!(marked, want);
        assert_eq!(parse_nest(&marked).expect("its own text").0, nest);
        nest.unmark_micro_kernels();
        assert_eq!(nest, parse_nest(text).expect("a nest").0);
    }
}
