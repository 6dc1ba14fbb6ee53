//! How what runs is asked to end.

use std::sync::{Arc, OnceLock};

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

/// Ends one run while others go on: it begins nothing any more, and what it has under way is
/// broken off. Clones are the same request.
#[derive(Debug, Clone, Default)]
pub struct Cancellation(Arc<Request>);

#[derive(Debug, Default)]
struct Request {
    asked: CancellationToken,
    by: OnceLock<String>,
}

impl Cancellation {
    /// Asks for the end. Who asks first is the one who did.
    pub fn cancel(&self, by: &str) {
        self.0.by.get_or_init(|| by.to_owned());
        self.0.asked.cancel();
    }

    /// Who asked, where somebody did.
    pub fn by(&self) -> Option<&str> {
        self.0.by.get().map(String::as_str)
    }

    /// A token that is cancelled once somebody asks.
    pub fn token(&self) -> &CancellationToken {
        &self.0.asked
    }

    /// Waits until somebody asks.
    pub async fn asked(&self) {
        self.0.asked.cancelled().await;
    }
}
