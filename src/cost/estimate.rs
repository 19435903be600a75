//! The time of a call in closed form, by what it is spent on: what plans and tiles of all
//! algorithms are chosen by.

use std::fmt;
use std::iter::Sum;
use std::ops::Add;

use super::EXPOSED;

/// Seconds of a call on one core, by what they are spent on.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Estimate {
    /// Products, with the loads that they do not hide and the waits of small tiles.
    pub products: f64,
    /// What begins and ends each tile: loops, epilogue and stores, or the transforms.
    pub tiles: f64,
    /// Copies of the input.
    pub copies: f64,
    /// Lines from beyond the first-level cache.
    pub traffic: f64,
}

impl Estimate {
    /// All of them: data is fetched while the core computes, but for a part.
    pub fn seconds(&self) -> f64 {
        let compute = self.products + self.tiles + self.copies;
        compute.max(self.traffic) + EXPOSED * compute.min(self.traffic)
    }

    /// That of so many alike.
    pub fn times(self, count: f64) -> Estimate {
        let Estimate { products, tiles, copies, traffic } = self;
        Estimate {
            products: products * count,
            tiles: tiles * count,
            copies: copies * count,
            traffic: traffic * count,
        }
    }
}

impl Add for Estimate {
    type Output = Estimate;

    fn add(self, other: Estimate) -> Estimate {
        Estimate {
            products: self.products + other.products,
            tiles: self.tiles + other.tiles,
            copies: self.copies + other.copies,
            traffic: self.traffic + other.traffic,
        }
    }
}

impl Sum for Estimate {
    fn sum<I: Iterator<Item = Estimate>>(all: I) -> Estimate {
        all.fold(Estimate::default(), Add::add)
    }
}

impl fmt::Display for Estimate {
    /// Microseconds, and what they are made of.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let us = |seconds: f64| seconds * 1e6;
        let Estimate { products, tiles, copies, traffic } = *self;
        write!(
            f,
            "{:.3} us (products {:.3}, tiles {:.3}, copies {:.3}, traffic {:.3})",
            us(self.seconds()),
            us(products),
            us(tiles),
            us(copies),
            us(traffic)
        )
    }
}
