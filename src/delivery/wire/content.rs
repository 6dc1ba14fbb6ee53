//! The content on its way out, watched for a reply that comes too early.

use std::task::{Context, Poll, ready};

use super::state::State;
use crate::delivery::step::{Broken, Step};

impl State {
    /// Sends content, watching for a reply that comes before its end.
    pub(super) fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        octets: &[u8],
        sent: &mut usize,
        last: bool,
    ) -> Poll<bool> {
        loop {
            if self.poll_limits(cx).is_ready() {
                return Poll::Ready(false);
            }
            let _ = self.poll_fill(cx);
            let answered = !self.incoming.is_empty() && self.awaiting.front() == Some(&Step::Content);
            if self.broken.is_some() || answered {
                return Poll::Ready(false);
            }
            let stream = match self.stream.io() {
                Ok(stream) => stream,
                Err(error) => {
                    self.break_off(Broken::from_io(&error));
                    continue;
                }
            };
            let result = if *sent < octets.len() {
                stream.poll_write(cx, &octets[*sent..])
            } else {
                stream.poll_flush(cx).map_ok(|()| 0)
            };
            match ready!(result) {
                Ok(0) if *sent == octets.len() => return Poll::Ready(true),
                Ok(count) => {
                    *sent += count;
                    self.deadlines.progress(count);
                    // From its first octet on the final dot may arrive.
                    if last && *sent > octets.len().saturating_sub(3) {
                        self.awaiting.clear();
                        self.awaiting.push_back(Step::EndOfData);
                        self.deadlines.start(Step::EndOfData);
                    }
                }
                // The reply that says why may be there to be read.
                Err(_) => return Poll::Ready(false),
            }
        }
    }
}
