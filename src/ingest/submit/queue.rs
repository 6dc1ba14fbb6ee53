//! `mailq` by way of the service: what waits, for a user who may not read the store.
//!
//! Behind the request the service sends a frame that says whose mails follow, a frame for
//! each of them or for what is wrong, and an empty one at the end.

use std::io;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::client::{Unanswered, begin, next_frame};
use super::protocol::{ANSWER, Answer, PATIENCE, Refusal, read_json, within, write_frame, write_json};
use super::service::{SubmitContext, is_trusted};
use crate::audit::{QueueTotal, Waiting};
use crate::ingest::intake::Intake;
use crate::ingest::sendmail::{Invocation, Mode};
use crate::mail::Address;

/// What stands in front of the mails.
#[derive(Debug, Serialize, Deserialize)]
struct Heading {
    /// The only sender whose mails follow; `None` where all do.
    only: Option<Address>,
    /// All that waits.
    total: QueueTotal,
}

/// A mail, and where it waits.
#[derive(Debug, Serialize, Deserialize)]
struct Line {
    place: String,
    mail: Waiting,
}

/// Tells what waits: all of it to whoever could read the store, to any other user the mails
/// that bear his own address.
pub(super) async fn tell(stream: &mut UnixStream, uid: u32, context: &SubmitContext) -> io::Result<()> {
    let intake = context.intake.now();
    let heading = heading(uid, context, &intake).await;
    write_json(stream, &heading).await?;
    let Ok(Heading { only, .. }) = &heading else { return Ok(()) };
    let mut queue = intake.spool.queue(intake.kept.clone(), only.as_ref());
    loop {
        let page = match queue.next().await {
            Ok(Some(page)) => page,
            Ok(None) => return write_frame(stream, &[]).await,
            Err(error) => return write_json(stream, &Answer::<Line>::Err(Refusal::for_now(error.to_string()))).await,
        };
        for mail in page.mails {
            let line = Answer::Ok(Line { place: page.place.clone(), mail });
            // Somebody may be reading it in a pager.
            within(PATIENCE, write_json(stream, &line)).await?;
        }
    }
}

async fn heading(uid: u32, context: &SubmitContext, intake: &Intake) -> Answer<Heading> {
    let only = match (context.caller)(uid, &intake.here) {
        _ if is_trusted(uid) => None,
        Ok(caller) => Some(caller.address),
        Err(message) => return Err(Refusal { exit: 78, message }),
    };
    let total = intake.spool.queue_total(&intake.kept).await;
    Ok(Heading { only, total: total.map_err(|error| Refusal::for_now(error.to_string()))? })
}

/// What a service tells of its queue.
pub struct Told {
    stream: UnixStream,
    /// The only sender whose mails are shown; `None` where all are.
    pub only: Option<Address>,
    /// All that waits.
    pub total: QueueTotal,
}

impl Told {
    /// Asks the service at `path`.
    ///
    /// # Errors
    /// [`Unanswered`].
    pub async fn ask(path: &Path) -> Result<Self, Unanswered> {
        let listing = Invocation { mode: Mode::List, ..Invocation::default() };
        let asked = async {
            let mut stream = begin(path, &listing, Duration::ZERO).await?;
            let heading: Answer<Heading> = read_json(&mut stream).await?;
            Ok((stream, heading?))
        };
        let late = |_| Unanswered::Connection(io::ErrorKind::TimedOut.into());
        match timeout(ANSWER, asked).await.map_err(late)? {
            Ok((stream, Heading { only, total })) => Ok(Self { stream, only, total }),
            Err(error) => Err(error),
        }
    }

    /// The next mail and its place, oldest first in each; `None` behind the last.
    ///
    /// # Errors
    /// Where it ends before that: there may be more.
    pub async fn next(&mut self) -> Result<Option<(String, Waiting)>, Unanswered> {
        let frame = next_frame(&mut self.stream).await?;
        if frame.is_empty() {
            return Ok(None);
        }
        let line: Answer<Line> = serde_json::from_slice(&frame).map_err(io::Error::from)?;
        let Line { place, mail } = line?;
        Ok(Some((place, mail)))
    }
}
