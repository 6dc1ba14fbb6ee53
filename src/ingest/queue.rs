//! `mailq` by way of the service: what waits, for a user who may not read the store.
//!
//! Behind the request the service sends a frame that says whose mails follow, a frame for
//! each of them or for what is wrong, and an empty one at the end.

use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};
use tokio::net::UnixStream;

use super::sendmail::{Invocation, Mode};
use super::submit::{
    ANSWER, PATIENCE, SubmitContext, hung_up, is_trusted, open_session, read_frame, within, write_frame, write_json,
};
use crate::audit::Waiting;
use crate::mail::Address;

/// Whose mails follow.
#[derive(Debug, Serialize, Deserialize)]
enum Heading {
    All,
    From(Address),
    Refused(String),
}

/// A mail, and where it waits.
#[derive(Debug, Serialize, Deserialize)]
struct Line {
    place: String,
    mail: Waiting,
}

/// A line, or why there are no more.
type Answered = Result<Line, String>;

/// Tells what waits: all of it to whoever could read the store, to any other user the mails
/// that bear his own address.
pub(super) async fn tell(stream: &mut UnixStream, uid: u32, context: &SubmitContext) -> io::Result<()> {
    let intake = context.intake.now();
    let heading = match (context.caller)(uid, &intake.here) {
        _ if is_trusted(uid) => Heading::All,
        Ok(caller) => Heading::From(caller.address),
        Err(why) => Heading::Refused(why),
    };
    write_json(stream, &heading).await?;
    let only = match &heading {
        Heading::All => None,
        Heading::From(address) => Some(address),
        Heading::Refused(_) => return Ok(()),
    };
    let mut queue = intake.spool.queue(intake.kept.clone(), only);
    loop {
        let page = match queue.next().await {
            Ok(Some(page)) => page,
            Ok(None) => return write_frame(stream, &[]).await,
            Err(error) => return write_json(stream, &Answered::Err(error.to_string())).await,
        };
        for mail in page.mails {
            let line = Answered::Ok(Line { place: page.place.clone(), mail });
            // Somebody may be reading it in a pager.
            within(PATIENCE, write_json(stream, &line)).await?;
        }
    }
}

/// What a service tells of its queue.
pub struct Told {
    stream: UnixStream,
    /// The only sender whose mails are shown; `None` where all are.
    pub only: Option<Address>,
}

impl Told {
    /// Asks the service at `path`.
    ///
    /// # Errors
    /// Where nobody listens there, or he tells this user nothing.
    pub async fn ask(path: &Path) -> io::Result<Self> {
        let asked = async {
            let mut stream = open_session(path, &Invocation { mode: Mode::List, ..Invocation::default() }).await?;
            let heading = read_frame(&mut stream).await.map_err(hung_up)?;
            Ok((stream, serde_json::from_slice(&heading)?))
        };
        match within(ANSWER, asked).await? {
            (stream, Heading::All) => Ok(Self { stream, only: None }),
            (stream, Heading::From(address)) => Ok(Self { stream, only: Some(address) }),
            (_, Heading::Refused(why)) => Err(io::Error::other(why)),
        }
    }

    /// The next mail and its place, oldest first in each; `None` behind the last.
    ///
    /// # Errors
    /// Where it ends before that: there may be more.
    pub async fn next(&mut self) -> io::Result<Option<(String, Waiting)>> {
        let frame = within(PATIENCE, read_frame(&mut self.stream)).await.map_err(hung_up)?;
        if frame.is_empty() {
            return Ok(None);
        }
        let Line { place, mail } = serde_json::from_slice::<Answered>(&frame)?.map_err(io::Error::other)?;
        Ok(Some((place, mail)))
    }
}
