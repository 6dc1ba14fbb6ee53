//! Mails of a repository, looked at.

use std::net::IpAddr;
use std::sync::Arc;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use futures_util::stream;

use super::super::actor::Actor;
use super::super::answer::conditions;
use super::super::error::Refusal;
use super::super::query::Query;
use super::super::{Shared, State as SharedState};
use super::Names;
use crate::audit::{self, Evidence, Extent, MailFields, header_of, webadmin_mail_json};
use crate::clients::Role;
use crate::mail::{Mail, MailKey, MessageId};
use crate::store::{self, Cursor, Listed, MailFilter, Place, Span, Store};
use crate::yaml::parse_duration;

/// Mails read at once for a list.
const PAGE: usize = 500;

/// Mails looked at for it: a filter that finds nobody leaves the store to others in between.
const LOOKED_AT: usize = 20_000;

/// The keys of a repository's mails, oldest first.
#[utoipa::path(get, path = "/mailRepositories/{repository}/mails", tag = "mail repositories",
    params(
        ("repository" = String, Path, example = "temporary"),
        ("offset" = Option<u64>, Query),
        ("limit" = Option<u64>, Query),
        ("updatedBefore" = Option<String>, Query, example = "1h"),
        ("updatedAfter" = Option<String>, Query),
        ("sender" = Option<String>, Query),
        ("recipient" = Option<String>, Query),
        ("remoteAddress" = Option<String>, Query),
        ("domain" = Option<String>, Query),
        ("code" = Option<u16>, Query),
        ("nextHop" = Option<String>, Query),
        ("text" = Option<String>, Query),
        ("group" = Option<String>, Query),
        ("olderThan" = Option<String>, Query),
        ("newerThan" = Option<String>, Query),
        ("passes" = Option<i64>, Query),
        ("unacknowledged" = Option<bool>, Query),
    ),
    responses(
        (status = 200, description = "The keys", body = Vec<String>),
        (status = 400, description = "A parameter cannot be read", body = Refusal),
        (status = 404, description = "No such repository, or no such group", body = Refusal),
    )
)]
pub(in crate::admin) async fn keys(
    State(shared): SharedState,
    actor: Actor,
    name: super::super::Name,
    query: Query,
) -> Result<Response, Refusal> {
    let Path(name) = name?;
    let place = Place::Repository(shared.repository(&name).await?);
    if query.get("remoteHost").is_some() {
        let why = "remoteHost matches nobody: names of clients are not looked up; there is remoteAddress";
        return Err(Refusal::invalid(why.to_owned()));
    }
    let filter = filter(&shared, &actor, &place, &query).await?;
    let (offset, limit) = (query.offset()?, query.limit()?.unwrap_or(usize::MAX));
    let store = Arc::clone(&shared.context.store);
    let mut walk = Walk { store, place, filter, after: None, offset, left: limit, state: WalkState::Begins };
    walk.pass_over().await?;
    let body = Body::from_stream(stream::try_unfold(walk, Walk::next));
    Ok(([(header::CONTENT_TYPE, "application/json")], body).into_response())
}

/// James's filters, and ours beside them.
async fn filter(shared: &Shared, actor: &Actor, place: &Place, query: &Query) -> Result<MailFilter, Refusal> {
    let asked = shared.asked_by(actor);
    let operations = asked.operations();
    let mut filter = operations.listing(place, &conditions(query)?).await?;
    for (name, bound) in [("updatedBefore", &mut filter.before), ("updatedAfter", &mut filter.after)] {
        if let Some(age) = query.read_as(name, age)? {
            *bound = operations.now.checked_sub_signed(age);
        }
    }
    filter.client = query.get("remoteAddress").map(address);
    Ok(filter)
}

/// An IP address as mails have it; what is none is nobody's.
fn address(text: &str) -> String {
    text.parse::<IpAddr>().map_or_else(|_| text.to_owned(), |address| address.to_string())
}

/// An age: a bare number is of seconds.
fn age(text: &str) -> Result<chrono::TimeDelta, String> {
    let seconds = || text.parse().ok().map(std::time::Duration::from_secs);
    let age = seconds().or_else(|| parse_duration(text));
    let age = age.and_then(|age| chrono::TimeDelta::from_std(age).ok());
    age.ok_or_else(|| format!("{text:?} is no time such as 3600, 30m or 2d"))
}

/// A list of keys under way, page by page: nobody holds more than one.
struct Walk {
    store: Arc<dyn Store>,
    place: Place,
    filter: MailFilter,
    after: Option<Cursor>,
    offset: usize,
    left: usize,
    state: WalkState,
}

#[derive(PartialEq, Eq)]
enum WalkState {
    Begins,
    GoesOn,
    Ended,
}

impl Walk {
    /// Where nothing is asked of the mails, those before the offset need not be read.
    async fn pass_over(&mut self) -> Result<(), store::Error> {
        if self.offset > 0 && self.filter == MailFilter::default() {
            self.after = self.store.behind(&self.place, self.offset).await?;
            (self.offset, self.left) = (0, if self.after.is_some() { self.left } else { 0 });
        }
        Ok(())
    }

    async fn next(mut self) -> Result<Option<(Bytes, Self)>, store::Error> {
        if self.state == WalkState::Ended {
            return Ok(None);
        }
        let span = Span::of(PAGE).after(self.after.take()).look(LOOKED_AT);
        let page = self.store.list(&self.place, &self.filter, &span).await?;
        let mut text = if self.state == WalkState::Begins { "[".to_owned() } else { String::new() };
        for listed in &page.items {
            if self.offset > 0 {
                self.offset -= 1;
            } else if self.left > 0 {
                let comma = if self.state == WalkState::Begins { "" } else { "," };
                // A key has no sign that JSON escapes.
                text.push_str(&format!("{comma}\"{}\"", listed.mail.key));
                (self.state, self.left) = (WalkState::GoesOn, self.left - 1);
            }
        }
        self.after = page.next;
        if self.after.is_none() || self.left == 0 {
            text.push(']');
            self.state = WalkState::Ended;
        } else if self.state == WalkState::Begins {
            // Nothing yet, and the bracket must not be written twice.
            text.clear();
        }
        Ok(Some((text.into(), self)))
    }
}

/// The mail of a repository with that key.
pub(super) async fn find(shared: &Shared, repository: &str, key: &str) -> Result<Listed, Refusal> {
    let place = Place::Repository(shared.repository(repository).await?);
    let unknown = || Refusal::not_found(format!("Could not retrieve {key}"));
    let key = MailKey::parse(key).ok_or_else(unknown)?;
    Ok(shared.context.store.find(&place, &key).await?)
}

/// One mail, or with `Accept: message/rfc822` its message.
#[utoipa::path(get, path = "/mailRepositories/{repository}/mails/{key}", tag = "mail repositories",
    params(
        ("repository" = String, Path, example = "temporary"),
        ("key" = String, Path),
        ("additionalFields" = Option<String>, Query, example = "attributes,attempts"),
    ),
    responses(
        (status = 200, description = "The mail", content(
            (Value = "application/json"), (String = "message/rfc822")
        )),
        (status = 400, description = "An unknown field", body = Refusal),
        (status = 404, description = "No such repository or mail", body = Refusal),
    )
)]
pub(in crate::admin) async fn mail(
    State(shared): SharedState,
    names: Names,
    headers: HeaderMap,
    query: Query,
) -> Result<Response, Refusal> {
    let Path((repository, key)) = names?;
    let fields = MailFields::parse(query.get("additionalFields").unwrap_or_default()).map_err(|name| {
        Refusal::invalid(format!("The field '{name}' can't be requested in additionalFields parameter"))
    })?;
    let listed = find(&shared, &repository, &key).await?;
    let accepted = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    if wants_message(accepted) {
        return Ok(message(&shared, &listed.mail));
    }
    let store = &*shared.context.store;
    let header = if fields.has("headers") { audit::header(store, &listed.mail).await? } else { Vec::new() };
    let attempts = if fields.has("attempts") { store.attempts_of(&listed.mail).await? } else { Vec::new() };
    let operations = if fields.has("operations") { store.operations_of(&listed.mail.key).await? } else { Vec::new() };
    Ok(Json(webadmin_mail_json(&listed, &fields, &header, &attempts, &operations)).into_response())
}

/// Whether the message is wanted rather than JSON (RFC 9110 section 12.5.1): of what is named, the
/// one with the greater weight, else the one that is named first.
fn wants_message(accepted: &str) -> bool {
    let weight = |wanted: &str| {
        accepted.split(',').enumerate().find_map(|(at, range)| {
            let mut parts = range.split(';').map(str::trim);
            let named = parts.next()?.eq_ignore_ascii_case(wanted);
            let weight = parts.find_map(|part| part.strip_prefix("q=")?.parse().ok()).unwrap_or(1.0_f32);
            named.then_some((weight, at))
        })
    };
    match (weight("message/rfc822"), weight("application/json")) {
        (Some((message, at)), Some((json, after))) => {
            message > json || (message >= json && message > 0.0 && at < after)
        }
        (Some((message, _)), None) => message > 0.0,
        (None, _) => false,
    }
}

/// The stored message, octet for octet, row by row.
pub(in crate::admin) fn message(shared: &Shared, mail: &Mail) -> Response {
    let rows = Rows { store: Arc::clone(&shared.context.store), message: mail.message, number: 0 };
    let head = [
        (header::CONTENT_TYPE, "message/rfc822".to_owned()),
        (header::CONTENT_LENGTH, mail.facts.size.to_string()),
        (header::CONTENT_DISPOSITION, format!("attachment; filename=\"{}.eml\"", mail.key)),
    ];
    (head, Body::from_stream(stream::try_unfold(rows, Rows::next))).into_response()
}

struct Rows {
    store: Arc<dyn Store>,
    message: MessageId,
    number: u32,
}

impl Rows {
    async fn next(mut self) -> Result<Option<(Bytes, Self)>, store::Error> {
        let row = self.store.content(self.message, self.number).await?;
        self.number += 1;
        Ok(if row.is_empty() { None } else { Some((row, self)) })
    }
}

/// Evidence about one mail, to be handed to the other side.
#[utoipa::path(get, path = "/mailRepositories/{repository}/mails/{key}/bundle", tag = "mail repositories",
    params(
        ("repository" = String, Path, example = "permanent"),
        ("key" = String, Path),
        ("nextHop" = Option<String>, Query),
        ("message" = Option<bool>, Query),
        ("full" = Option<bool>, Query),
    ),
    responses(
        (status = 200, description = "A zip archive", body = Vec<u8>, content_type = "application/zip"),
        (status = 400, description = "Several next hops and none named, or none of that name", body = Refusal),
        (status = 403, description = "Not for this role", body = Refusal),
        (status = 404, description = "No such repository or mail", body = Refusal),
    )
)]
pub(in crate::admin) async fn evidence(
    State(shared): SharedState,
    actor: Actor,
    names: Names,
    query: Query,
) -> Result<Response, Refusal> {
    let Path((repository, key)) = names?;
    let listed = find(&shared, &repository, &key).await?;
    archive(&shared, &actor, &listed, &query).await
}

/// The bundle of a mail, as a query asks for it.
pub(in crate::admin) async fn archive(
    shared: &Shared,
    actor: &Actor,
    listed: &Listed,
    query: &Query,
) -> Result<Response, Refusal> {
    let extent = Extent { next_hop: query.get("nextHop"), full: query.boolean("full", false)? };
    if extent.full && actor.role == Role::ReadOnly {
        return Err(Refusal::forbidden("A read-only role is shown no full bundle"));
    }
    let attempts = shared.context.store.attempts_of(&listed.mail).await?;
    let whole = audit::message(&*shared.context.store, &listed.mail).await?;
    let message = query.boolean("message", false)?.then_some(whole.as_slice());
    let evidence = Evidence { listed, attempts: &attempts, header: header_of(&whole), message };
    let archive = audit::bundle(&evidence, extent).map_err(|why| Refusal::invalid(why.to_string()))?;
    let head = [
        (header::CONTENT_TYPE, "application/zip".to_owned()),
        (header::CONTENT_DISPOSITION, format!("attachment; filename=\"{}.zip\"", listed.mail.key)),
    ];
    Ok((head, archive).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_message_is_for_who_would_rather_have_it() {
        for (accepted, is_message) in [
            ("", false),
            ("*/*", false),
            ("message/rfc822", true),
            ("Message/RFC822; q=0.1, */*", true),
            ("message/rfc822, application/json", true),
            ("application/json, message/rfc822", false),
            ("application/json;q=0.5, message/rfc822", true),
            ("application/json, message/rfc822;q=0.5", false),
            ("message/rfc822;q=0", false),
        ] {
            assert_eq!(wants_message(accepted), is_message, "{accepted}");
        }
    }
}
