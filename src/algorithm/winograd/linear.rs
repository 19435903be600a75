//! A matrix of constants times a vector of values, as few operations of the language.
//!
//! Two columns whose entries differ in sign alone are replaced by the sum and the difference of
//! their inputs (the output transform); two rows of which this holds are the sum and the difference
//! of two shorter sums (input and weights). What is left are chains of multiply-adds in the order
//! of the inputs, of which a factor of one is an addition.

use convgen_ir::nest::{BinaryOp, Expr, Nest, Stmt, UnaryOp};

use super::toom::{Matrix, Rational};

/// Writes `let`s for the shared sums and returns the rows.
pub(super) fn times(
    matrix: &Matrix,
    inputs: Vec<Expr>,
    name: &str,
    nest: &mut Nest,
    out: &mut Vec<Stmt>,
) -> Vec<Expr> {
    let mut writer = LinearWriter { name, nest, out };
    let (columns, inputs) = writer.pair_columns(transposed(matrix, inputs.len()), inputs);
    writer.rows(&transposed(&columns, matrix.len()), &inputs)
}

/// Operations that [`times`] writes, loads and stores aside.
pub(super) fn operations(matrix: &Matrix) -> u64 {
    let width = matrix.first().map_or(0, Vec::len);
    let (mut nest, mut out) = (Nest::new("count"), vec![]);
    let rows = times(matrix, vec![Expr::f32(1.0); width], "x", &mut nest, &mut out);
    let mut count = 0;
    let mut visit = |value: &Expr| {
        value.visit(&mut |expr| {
            count += match expr {
                Expr::Const(_) | Expr::Local(_) | Expr::Load(_) | Expr::Pad(..) => 0,
                Expr::Unary(..) | Expr::Binary(..) | Expr::Fma(..) | Expr::Select { .. } => 1,
            };
        });
    };
    for stmt in &out {
        match stmt {
            Stmt::Let(_, value) | Stmt::Store(_, value) => visit(value),
            Stmt::Loop(_) | Stmt::If(..) | Stmt::MicroKernel(_) | Stmt::Declare(_) => {}
        }
    }
    rows.iter().for_each(visit);
    count
}

fn transposed(matrix: &[Vec<Rational>], width: usize) -> Matrix {
    (0..width).map(|column| matrix.iter().map(|row| row[column]).collect()).collect()
}

/// The places where two lines agree, and where they are opposite, if they are nothing else and both
/// happens.
fn mirrored(a: &[Rational], b: &[Rational]) -> bool {
    let mut signs = [false; 2];
    a.iter().zip(b).all(|(a, b)| {
        let zero = *a == Rational::ZERO;
        signs[0] |= !zero && a == b;
        signs[1] |= !zero && *a == b.negated();
        a == b || *a == b.negated()
    }) && signs == [true; 2]
}

/// The first two lines that mirror one another.
fn first_pair(lines: &[Vec<Rational>]) -> Option<(usize, usize)> {
    (0..lines.len()).find_map(|i| {
        let other = (i + 1..lines.len()).find(|k| mirrored(&lines[i], &lines[*k]));
        other.map(|k| (i, k))
    })
}

struct LinearWriter<'a> {
    name: &'a str,
    nest: &'a mut Nest,
    out: &'a mut Vec<Stmt>,
}

impl LinearWriter<'_> {
    fn bound(&mut self, value: Expr) -> Expr {
        let local = self.nest.add_local(format!("{}{}", self.name, self.nest.locals.len()));
        self.out.push(Stmt::Let(local, value));
        Expr::Local(local)
    }

    /// Replaces mirrored columns and their inputs until there are none.
    fn pair_columns(&mut self, mut columns: Matrix, mut inputs: Vec<Expr>) -> (Matrix, Vec<Expr>) {
        while let Some((i, k)) = first_pair(&columns) {
            let (a, b) = (inputs[i].clone(), inputs[k].clone());
            let sum = self.bound(Expr::binary(BinaryOp::Add, a.clone(), b.clone()));
            let difference = self.bound(Expr::binary(BinaryOp::Sub, a, b));
            let split = |same: bool| -> Vec<Rational> {
                let entries = columns[i].iter().zip(&columns[k]);
                entries.map(|(a, b)| if (a == b) == same { *a } else { Rational::ZERO }).collect()
            };
            let (same, opposite) = (split(true), split(false));
            (columns[i], columns[k]) = (same, opposite);
            (inputs[i], inputs[k]) = (sum, difference);
        }
        (columns, inputs)
    }

    fn rows(&mut self, rows: &Matrix, inputs: &[Expr]) -> Vec<Expr> {
        let mut values: Vec<Option<Expr>> = vec![None; rows.len()];
        for i in 0..rows.len() {
            if values[i].is_some() {
                continue;
            }
            let free = |k: &usize| values[*k].is_none() && mirrored(&rows[i], &rows[*k]);
            match (i + 1..rows.len()).find(free) {
                Some(k) => {
                    let part = |same: bool| -> Vec<Rational> {
                        let entries = rows[i].iter().zip(&rows[k]);
                        let kept = |(a, b): (&Rational, &Rational)| match (a == b) == same {
                            true => *a,
                            false => Rational::ZERO,
                        };
                        entries.map(kept).collect()
                    };
                    let (common, opposite) =
                        (self.chain(&part(true), inputs), self.chain(&part(false), inputs));
                    let (common, opposite) = (self.bound(common), self.bound(opposite));
                    let [a, b] = [BinaryOp::Add, BinaryOp::Sub]
                        .map(|op| Expr::binary(op, common.clone(), opposite.clone()));
                    (values[i], values[k]) = (Some(a), Some(b));
                }
                None => values[i] = Some(self.chain(&rows[i], inputs)),
            }
        }
        values.into_iter().flatten().collect()
    }

    /// A sum of products, from a term with a factor of one on, if there is one.
    fn chain(&mut self, row: &[Rational], inputs: &[Expr]) -> Expr {
        let terms: Vec<(Rational, &Expr)> = row
            .iter()
            .zip(inputs)
            .filter(|(factor, _)| **factor != Rational::ZERO)
            .map(|(factor, input)| (*factor, input))
            .collect();
        let one = |sign: Rational| terms.iter().position(|(factor, _)| *factor == sign);
        let first = one(Rational::ONE).or(one(Rational::ONE.negated())).unwrap_or(0);
        let Some((factor, input)) = terms.get(first) else { return Expr::f32(0.0) };
        let start = product(*factor, (*input).clone());
        let rest = terms.iter().enumerate().filter(|(i, _)| *i != first);
        rest.fold(start, |sum, (_, (factor, input))| {
            let input = (*input).clone();
            match (*factor == Rational::ONE, factor.negated() == Rational::ONE) {
                (true, _) => Expr::binary(BinaryOp::Add, sum, input),
                (_, true) => Expr::binary(BinaryOp::Sub, sum, input),
                (false, false) => Expr::fma(input, Expr::f32(factor.to_f32()), sum),
            }
        })
    }
}

fn product(factor: Rational, input: Expr) -> Expr {
    match (factor == Rational::ONE, factor.negated() == Rational::ONE) {
        (true, _) => input,
        (_, true) => Expr::unary(UnaryOp::Neg, input),
        (false, false) => Expr::binary(BinaryOp::Mul, input, Expr::f32(factor.to_f32())),
    }
}
