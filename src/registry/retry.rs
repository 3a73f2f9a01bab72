//! When to try again: one policy for every call that does no harm when it is made twice.

use super::Limits;
use std::time::Duration;

/// Pauses between attempts at one call.
#[derive(Debug)]
pub(super) struct Pauses {
    left: u32,
    budget: Duration,
    next: Duration,
}

impl Pauses {
    pub(super) fn new(limits: &Limits) -> Self {
        Self { left: limits.retries, budget: limits.retry_budget, next: limits.first_pause }
    }

    /// Returns how long to pause before the next attempt; none if there shall be none. `asked` is what the
    /// registry asks for: a pause beyond the budget ends the attempts at once.
    pub(super) fn next(&mut self, asked: Option<Duration>) -> Option<Duration> {
        let pause = asked.unwrap_or(Duration::ZERO).max(self.next);
        self.left = self.left.checked_sub(1)?;
        self.budget = self.budget.checked_sub(pause)?;
        self.next *= 3;
        Some(pause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> Limits {
        let (first_pause, retry_budget) = (Duration::from_secs(1), Duration::from_secs(20));
        Limits { retries: 3, first_pause, retry_budget, ..Limits::default() }
    }

    #[test]
    fn pauses_grow_and_end() {
        let mut pauses = Pauses::new(&limits());
        let all: Vec<_> = std::iter::from_fn(|| pauses.next(None)).map(|pause| pause.as_secs()).collect();
        assert_eq!(all, [1, 3, 9]);
    }

    #[test]
    fn the_registry_is_heard_within_the_budget() {
        let mut pauses = Pauses::new(&limits());
        assert_eq!(pauses.next(Some(Duration::from_secs(12))), Some(Duration::from_secs(12)));
        assert_eq!(pauses.next(Some(Duration::from_secs(12))), None, "24 s are too many");
    }
}
