//! AUTH (RFC 4954): PLAIN, else LOGIN, as the peer offers them.

use lettre::transport::smtp::authentication::{Credentials as LettreCredentials, Mechanism};
use lettre::transport::smtp::commands::Auth;

use crate::smtp::Reply;

use super::config::Credentials;
use super::session::Session;
use super::step::Broken;

/// Those that need nothing but a password, in the order in which they are tried.
const MECHANISMS: [Mechanism; 2] = [Mechanism::Plain, Mechanism::Login];

/// Why there is no verdict of the peer.
pub(super) enum NotTried {
    /// In words.
    Impossible(String),
    Broken(Broken),
}

/// Says AUTH with the first mechanism that the peer lets us use. Its reply to the last one
/// tried is returned, whatever it is.
pub(super) async fn authenticate(session: &mut Session, credentials: &Credentials) -> Result<Reply, NotTried> {
    let mut refusal = None;
    for mechanism in MECHANISMS {
        if !session.offers.auth.contains(&mechanism.to_string()) {
            continue;
        }
        let lines =
            lines(mechanism, credentials).ok_or_else(|| NotTried::Impossible("AUTH cannot be said".to_owned()))?;
        let reply = exchange(session, lines).await.map_err(NotTried::Broken)?;
        if !is_of_mechanism(&reply) {
            return Ok(reply);
        }
        refusal = Some(reply);
    }
    refusal.ok_or_else(|| NotTried::Impossible(no_mechanism(&session.offers.auth)))
}

/// What stands in the way, with what is offered instead.
fn no_mechanism(offered: &[String]) -> String {
    let neither = "it offers neither AUTH PLAIN nor AUTH LOGIN";
    if offered.is_empty() { neither.to_owned() } else { format!("{neither}, but {}", offered.join(" ")) }
}

/// Whether a refusal is about the mechanism (RFC 4954 sections 4 and 6): no password was
/// judged, and another mechanism may do.
fn is_of_mechanism(reply: &Reply) -> bool {
    matches!(reply.code(), 504 | 534)
}

/// The lines of an exchange: the command, and what follows each challenge.
fn lines(mechanism: Mechanism, credentials: &Credentials) -> Option<Vec<String>> {
    let secret = LettreCredentials::new(credentials.username.clone(), credentials.password.reveal().to_owned());
    let command = Auth::new(mechanism, secret.clone(), None).ok()?.to_string();
    // lettre picks what it answers by the challenge's words; peers are not agreed on them.
    let answer = |challenge: &str| {
        Auth::new(Mechanism::Login, secret.clone(), Some(challenge.to_owned())).ok().map(|answer| answer.to_string())
    };
    if mechanism == Mechanism::Login {
        return Some(vec![command, answer("Username:")?, answer("Password:")?]);
    }
    // Some ask again for what came with the command.
    let initial = command.rsplit(' ').next()?.to_owned();
    Some(vec![command, initial])
}

async fn exchange(session: &mut Session, lines: Vec<String>) -> Result<Reply, Broken> {
    let mut lines = lines.into_iter();
    let mut reply = session.say(&lines.next().unwrap_or_default()).await?;
    for line in lines {
        if reply.class() != 3 {
            break;
        }
        reply = session.say(&line).await?;
    }
    Ok(reply)
}
