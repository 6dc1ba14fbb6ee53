//! A value that a reload replaces while others use it.

use std::sync::{Arc, PoisonError, RwLock};

/// A value in force. Clones are handles to the same one, so that a reload is seen by all;
/// who has taken the value keeps it as it was for as long as he holds it.
pub struct Live<T>(Arc<RwLock<Arc<T>>>);

impl<T> Live<T> {
    /// A handle to `value`.
    pub fn new(value: impl Into<Arc<T>>) -> Self {
        Self(Arc::new(RwLock::new(value.into())))
    }

    /// The value in force now.
    pub fn now(&self) -> Arc<T> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts another in force.
    pub fn replace(&self, value: impl Into<Arc<T>>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = value.into();
    }
}

impl<T> Clone for Live<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_handles_see_what_is_in_force_and_a_taken_value_stays() {
        let live = Live::new(1);
        let other = live.clone();
        let taken = other.now();
        live.replace(2);
        assert_eq!((*taken, *other.now(), *live.now()), (1, 2, 2));
    }
}
