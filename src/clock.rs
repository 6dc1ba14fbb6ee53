//! The one clock: made in `main`, passed down; nothing else reads the time of day.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use chrono::{DateTime, Utc};

/// Wall time for records and due times, monotonic time for durations.
#[derive(Clone)]
pub struct Clock {
    wall: Arc<dyn Fn() -> DateTime<Utc> + Send + Sync>,
}

impl Clock {
    /// The machine's clock.
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the time of day")]
    pub fn system() -> Self {
        Self { wall: Arc::new(Utc::now) }
    }

    /// A clock whose wall time a test sets.
    pub fn scripted(wall: impl Fn() -> DateTime<Utc> + Send + Sync + 'static) -> Self {
        Self { wall: Arc::new(wall) }
    }

    /// The time of day; may jump in either direction.
    pub fn now(&self) -> DateTime<Utc> {
        (self.wall)()
    }

    /// A point of monotonic time, for durations.
    pub fn instant(&self) -> Instant {
        Instant::now()
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clock")
    }
}
