//! How much a function may write to the log: so many lines a second, the rest is counted and told.

use crate::Mono;
use sedge_protocol::FunctionName;
use std::collections::BTreeMap;

/// What becomes of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is kept; so many were dropped since the last one that was.
    Keep {
        /// Lines that were dropped.
        dropped: u64,
    },
    /// It is dropped.
    Drop,
}

/// Counts the lines of each function within the present second.
#[derive(Debug)]
pub struct Flow {
    per_second_max: u32,
    functions: BTreeMap<FunctionName, Second>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Second {
    number: u64,
    lines: u32,
    dropped: u64,
}

impl Flow {
    /// At most so many lines of a function in a second.
    #[must_use]
    pub fn new(per_second_max: u32) -> Self {
        Self { per_second_max, functions: BTreeMap::new() }
    }

    /// Decides about one line of `function`.
    pub fn line(&mut self, function: &FunctionName, now: Mono) -> Verdict {
        let number = now.0 / 1000;
        if !self.functions.contains_key(function) {
            // Who has been silent since the second before needs no memory; what was dropped is told with the next line.
            self.functions.retain(|_, second| second.number + 1 >= number || second.dropped > 0);
        }
        let second = self.functions.entry(function.clone()).or_default();
        if second.number != number {
            *second = Second { number, lines: 0, dropped: second.dropped };
        }
        if second.lines >= self.per_second_max {
            second.dropped += 1;
            return Verdict::Drop;
        }
        second.lines += 1;
        Verdict::Keep { dropped: std::mem::take(&mut second.dropped) }
    }

    /// Functions that lost lines and have been silent since the second of it, each with how many; told once.
    pub fn untold(&mut self, now: Mono) -> Vec<(FunctionName, u64)> {
        let number = now.0 / 1000;
        let silent = self.functions.iter_mut().filter(|(_, second)| second.number < number && second.dropped > 0);
        silent.map(|(function, second)| (function.clone(), std::mem::take(&mut second.dropped))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_function_that_writes_much_is_cut_and_told_and_another_is_not() {
        let (loud, quiet): (FunctionName, FunctionName) = ("loud".parse().unwrap(), "quiet".parse().unwrap());
        let mut flow = Flow::new(2);
        let verdicts: Vec<Verdict> = (0..4).map(|_| flow.line(&loud, Mono(5_000))).collect();
        assert_eq!(verdicts, [Verdict::Keep { dropped: 0 }, Verdict::Keep { dropped: 0 }, Verdict::Drop, Verdict::Drop]);
        assert_eq!(flow.line(&quiet, Mono(5_999)), Verdict::Keep { dropped: 0 });
        assert_eq!(flow.line(&loud, Mono(6_000)), Verdict::Keep { dropped: 2 });
        assert_eq!(flow.line(&loud, Mono(6_000)), Verdict::Keep { dropped: 0 }, "told once");
    }

    #[test]
    fn what_a_function_lost_is_told_also_when_it_falls_silent() {
        let loud: FunctionName = "loud".parse().unwrap();
        let mut flow = Flow::new(1);
        for _ in 0..4 {
            flow.line(&loud, Mono(5_000));
        }
        assert_eq!(flow.untold(Mono(5_999)), [], "it may go on within its second");
        assert_eq!(flow.untold(Mono(6_000)), [(loud.clone(), 3)]);
        assert_eq!(flow.untold(Mono(6_000)), [], "told once");
        assert_eq!(flow.line(&loud, Mono(6_000)), Verdict::Keep { dropped: 0 });
    }
}
