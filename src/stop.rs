//! How what runs is asked to end.

use tokio_util::sync::CancellationToken;

/// Asks work to end: first gently, later at once. Clones are the same request.
#[derive(Debug, Clone, Default)]
pub struct Stop {
    /// Nothing new is begun: no attempt, no connection, no transaction of a client. What is
    /// under way may end.
    pub gentle: CancellationToken,
    /// What is under way is given up: a delivery is deferred, in doubt where the final dot was
    /// sent; a client is told 421 where that can be said. A commit under way still ends.
    pub hard: CancellationToken,
}

impl Stop {
    /// A request that also holds for what is asked to end gently by the child alone, as the
    /// parts that a reload replaces are.
    #[must_use]
    pub fn child(&self) -> Self {
        Self { gentle: self.gentle.child_token(), hard: self.hard.clone() }
    }
}
