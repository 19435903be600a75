//! A part of a list of problems: which machine takes which.

use std::str::FromStr;

/// Every `count`-th item of a list, from the `index`-th on, counted from one. Long and short layers
/// come in runs, so taking turns gives every shard some of both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    index: usize,
    count: usize,
}

impl Shard {
    /// The items of this shard, in their order.
    pub fn of<T>(self, items: Vec<T>) -> Vec<T> {
        items.into_iter().skip(self.index - 1).step_by(self.count).collect()
    }
}

impl FromStr for Shard {
    type Err = String;

    fn from_str(text: &str) -> Result<Shard, String> {
        let wrong = || format!("expected I/N with I from 1 to N, such as 2/8, not `{text}`");
        let (index, count) = text.split_once('/').ok_or_else(wrong)?;
        let number = |text: &str| text.parse::<usize>().map_err(|_| wrong());
        let (index, count) = (number(index)?, number(count)?);
        match (1..=count).contains(&index) {
            true => Ok(Shard { index, count }),
            false => Err(wrong()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_are_a_partition() {
        for count in 1..12 {
            let shard = |index: usize| format!("{index}/{count}").parse::<Shard>().unwrap();
            let mut all: Vec<u32> =
                (1..=count).flat_map(|index| shard(index).of((0..10).collect())).collect();
            all.sort_unstable();
            assert_eq!(all, (0..10).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_shard_outside_of_its_count_is_refused() {
        for text in ["0/4", "5/4", "1", "1/0", "a/b", "-1/4", "1/4/2"] {
            assert!(text.parse::<Shard>().is_err(), "{text}");
        }
    }
}
