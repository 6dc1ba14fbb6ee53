//! A panic of some work as a value: it is that work's failure, and nobody else's.

use std::any::Any;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::Poll;

/// What `work` yields.
///
/// # Errors
/// The words of its panic.
pub async fn caught<F: Future + Unpin>(mut work: F) -> Result<F::Output, String> {
    poll_fn(|cx| match catch_unwind(AssertUnwindSafe(|| Pin::new(&mut work).poll(cx))) {
        Ok(polled) => polled.map(Ok),
        Err(panic) => Poll::Ready(Err(words_of(&*panic))),
    })
    .await
}

fn words_of(panic: &(dyn Any + Send)) -> String {
    let words = panic.downcast_ref::<&str>().map(|&words| words.to_owned());
    words.or_else(|| panic.downcast_ref().cloned()).unwrap_or_else(|| "without a word".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_told_in_its_words() {
        assert_eq!(caught(Box::pin(async { 7 })).await, Ok(7));
        let later = async {
            tokio::task::yield_now().await;
            panic!("as it is");
        };
        let ended: Result<(), String> = caught(Box::pin(later)).await;
        assert_eq!(ended, Err("as it is".to_owned()));
        let number = 7;
        let formatted = async move {
            panic!("number {number}");
        };
        let ended: Result<(), String> = caught(Box::pin(formatted)).await;
        assert_eq!(ended, Err("number 7".to_owned()));
        let wordless = async {
            std::panic::panic_any(1_u8);
        };
        let ended: Result<(), String> = caught(Box::pin(wordless)).await;
        assert_eq!(ended, Err("without a word".to_owned()));
    }
}
