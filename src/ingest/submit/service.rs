//! The side of the service: what is done with one request.

use std::io;
use std::time::Duration;

use async_trait::async_trait;
use nix::unistd::Uid;
use serde_json::{Value, json};
use tokio::net::UnixStream;
use tracing::info;

use super::protocol::{Answer, PATIENCE, Refusal, Request, Want, read_frame, within, write_json};
use super::queue;
use crate::audit::PeerView;
use crate::clock::Clock;
use crate::ingest::intake::Intake;
use crate::ingest::listener::Control as ListenerControl;
use crate::ingest::local::Here;
use crate::ingest::sendmail::Invocation;
use crate::ingest::submission::{Caller, Input, submit};
use crate::live::Live;
use crate::mail::MailKey;
use crate::stop::Stop;

/// How long a client may take to say what it wants: the program knows that when it connects.
const REQUEST: Duration = Duration::from_secs(10);

/// How long the rest of a refused message is read, so that the client sees the answer.
const DRAIN: Duration = Duration::from_secs(30);

/// What the service takes messages with.
pub struct SubmitContext {
    /// What new mail meets.
    pub intake: Live<Intake>,
    /// The time.
    pub clock: Clock,
    /// What speaks SMTP with those who ask for that.
    pub smtp: ListenerControl,
    /// Asks it to end.
    pub stop: Stop,
    /// Who has this number on the machine; the error says why he cannot submit.
    pub caller: fn(u32, &Here) -> Result<Caller, String>,
}

pub(super) async fn serve_one(stream: UnixStream, uid: u32, context: &SubmitContext) {
    if let Err(error) = serve_request(stream, uid, context).await {
        info!(%error, uid, "the client of a submission went away");
    }
}

/// An error is the connection's.
async fn serve_request(mut stream: UnixStream, uid: u32, context: &SubmitContext) -> io::Result<()> {
    let frame = tokio::select! {
        () = context.stop.gentle.cancelled() => return Ok(()),
        frame = within(REQUEST, read_frame(&mut stream)) => frame?,
    };
    let request = match Request::read(&frame) {
        Ok(request) => request,
        Err(refusal) => return write_json(&mut stream, &Answer::<()>::Err(refusal)).await,
    };
    write_json(&mut stream, &Answer::Ok(())).await?;
    match request.want {
        Want::Submit => take(stream, &request.into_invocation(), uid, context).await,
        Want::Smtp => {
            context.smtp.speak(stream, uid, context.stop.clone()).await;
            Ok(())
        }
        Want::Verify => write_json(&mut stream, &verify(&request.into_invocation(), uid, context).await).await,
        Want::Peers => write_json(&mut stream, &peers(uid, context).await).await,
        Want::List => tokio::select! {
            () = context.stop.gentle.cancelled() => Ok(()),
            told = queue::tell(&mut stream, uid, context) => told,
        },
    }
}

/// What would be done for each recipient, as the service knows it. Whoever may not read its
/// configuration is told nothing.
async fn verify(invocation: &Invocation, uid: u32, context: &SubmitContext) -> Answer<Value> {
    if !is_trusted(uid) {
        return Ok(json!([]));
    }
    let intake = context.intake.now();
    let parties = invocation
        .parties(&intake.here)
        .map_err(|error| Refusal { exit: error.exit_code(), message: error.to_string() })?;
    Ok(json!(intake.spool.explain(&parties.recipients).await))
}

/// What is known of next hops, for who could read the store himself.
async fn peers(uid: u32, context: &SubmitContext) -> Answer<Vec<PeerView>> {
    if !is_trusted(uid) {
        return Err(Refusal {
            exit: 77,
            message: "only root and the user of the service are told of next hops".into(),
        });
    }
    context.intake.now().spool.peers().await.map_err(|error| Refusal::for_now(error.to_string()))
}

/// Whether he could read configuration and store himself.
pub(super) fn is_trusted(uid: u32) -> bool {
    uid == 0 || uid == Uid::effective().as_raw()
}

/// A message, from its first octet to the answer.
async fn take(stream: UnixStream, invocation: &Invocation, uid: u32, context: &SubmitContext) -> io::Result<()> {
    let mut frames = Frames { stream, ended: false, given_up: false, stop: &context.stop };
    let answer = accept(&mut frames, invocation, uid, context).await;
    if answer.is_err() && frames.given_up {
        // Without an answer the client knows that it is to go to the next service.
        return Err(io::Error::other("the service is stopping"));
    }
    // With octets unread the client would see a reset instead of the answer.
    let drained = async { while !frames.ended && frames.next().await.is_ok() {} };
    drop(tokio::time::timeout(DRAIN, drained).await);
    write_json(&mut frames.stream, &answer).await
}

async fn accept(
    frames: &mut Frames<'_>,
    invocation: &Invocation,
    uid: u32,
    context: &SubmitContext,
) -> Answer<MailKey> {
    let intake = context.intake.now();
    let caller = (context.caller)(uid, &intake.here).map_err(|message| Refusal { exit: 78, message })?;
    let key = submit(&intake.spool, invocation, &caller, &intake.here, context.clock.now(), frames)
        .await
        .map_err(|error| Refusal { exit: error.exit_code(), message: error.to_string() })?;
    info!(mail.id = %key, uid, "accepted over submit.sock");
    Ok(key)
}

/// What a client sends behind its request.
struct Frames<'a> {
    stream: UnixStream,
    /// The empty frame came: the client waits for the answer.
    ended: bool,
    /// There is no time for the rest.
    given_up: bool,
    stop: &'a Stop,
}

#[async_trait]
impl Input for Frames<'_> {
    async fn next(&mut self) -> io::Result<Vec<u8>> {
        let frame = tokio::select! {
            () = self.stop.hard.cancelled() => {
                self.given_up = true;
                return Err(io::Error::other("the service is stopping"));
            }
            frame = within(PATIENCE, read_frame(&mut self.stream)) => frame?,
        };
        self.ended = frame.is_empty();
        Ok(frame)
    }
}
