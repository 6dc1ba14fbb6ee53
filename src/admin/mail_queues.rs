//! `/mailQueues`: the spool, and under the names that James has for them, the outgoing
//! queues, which here are the same mails.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Shared;
use super::actor::Actor;
use super::answer::created;
use super::body::{self, JsonBody, NoBody};
use super::error::Refusal;
use super::mail_repositories::carry_out;
use super::query::Query;
use crate::mail::MailKey;
use crate::operations::{Conditions, Selection, Verb};
use crate::store::{Listed, MailFilter, Place, Span};
use crate::tasks::{Handle, NewTask, Together};

const SPOOL: &str = "spool";

/// Mails of a list where nothing is said, and at most.
const MAILS: usize = 100;
const MOST_MAILS: usize = 10_000;

/// What a removal may ask for, one at a time.
const CRITERIA: [&str; 3] = ["sender", "recipient", "name"];

pub(super) fn routes() -> OpenApiRouter<Arc<Shared>> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(one)).routes(routes!(mails, remove, flush))
}

/// A queue.
#[derive(Serialize, utoipa::ToSchema)]
struct Queue {
    name: String,
    /// Mails waiting or in hand.
    size: u64,
}

fn names(shared: &Shared) -> BTreeSet<String> {
    let settings = shared.settings();
    let outgoing = settings.site.processors.deliveries().into_iter().map(|delivery| delivery.outgoing.clone());
    outgoing.chain([SPOOL.to_owned()]).collect()
}

/// The names of the queues.
#[utoipa::path(get, path = "/mailQueues", tag = "mail queues", responses(
    (status = 200, description = "The spool, and the outgoing queues of the configuration", body = Vec<String>)
))]
async fn list(State(shared): super::State) -> Json<BTreeSet<String>> {
    Json(names(&shared))
}

/// Waiting or in hand: 0 means that all are settled.
#[utoipa::path(get, path = "/mailQueues/{name}", tag = "mail queues",
    params(("name" = String, Path, description = "The queue", example = "spool")),
    responses(
        (status = 200, description = "Its size", body = Queue),
        (status = 400, description = "The name is no text", body = Refusal),
        (status = 404, description = "No such queue", body = Refusal),
    )
)]
async fn one(State(shared): super::State, name: super::Name) -> Result<Json<Queue>, Refusal> {
    let Path(name) = name?;
    known(&shared, &name)?;
    let size = shared.context.store.size(&Place::Spool).await?;
    Ok(Json(Queue { name, size }))
}

/// Refuses a queue that there is not. Every queue is the spool: the others are its names.
fn known(shared: &Shared, name: &str) -> Result<(), Refusal> {
    let names = names(shared);
    if names.contains(name) {
        return Ok(());
    }
    Err(Refusal::not_among(format!("{name} can not be found"), names.iter().map(String::as_str)))
}

/// A mail in a queue.
#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
struct Queued {
    name: String,
    /// Ours: under which it is found.
    key: String,
    sender: Option<String>,
    recipients: Vec<String>,
    /// Nothing waits for a time here.
    next_delivery: Option<String>,
}

impl Queued {
    fn new(listed: &Listed) -> Self {
        let mail = &listed.mail;
        Self {
            name: mail.name.clone(),
            key: mail.key.to_string(),
            sender: mail.envelope.reverse_path.address().map(ToString::to_string),
            recipients: mail.envelope.recipients.iter().map(ToString::to_string).collect(),
            next_delivery: None,
        }
    }
}

/// The mails of a queue, oldest first.
#[utoipa::path(get, path = "/mailQueues/{name}/mails", tag = "mail queues",
    params(
        ("name" = String, Path, example = "spool"),
        ("limit" = Option<u64>, Query),
        ("delayed" = Option<bool>, Query),
    ),
    responses(
        (status = 200, description = "The mails", body = Vec<Queued>),
        (status = 400, description = "A parameter cannot be read", body = Refusal),
        (status = 404, description = "No such queue", body = Refusal),
    )
)]
async fn mails(State(shared): super::State, name: super::Name, query: Query) -> Result<Json<Vec<Queued>>, Refusal> {
    let Path(name) = name?;
    known(&shared, &name)?;
    let limit = query.limit()?.unwrap_or(MAILS);
    let delayed = query.boolean("delayed", false)?;
    let span = Span::of(limit.min(MOST_MAILS));
    let page = shared.context.store.list(&Place::Spool, &MailFilter::default(), &span).await?;
    Ok(Json(if delayed { Vec::new() } else { page.items.iter().map(Queued::new).collect() }))
}

/// Removes the mails of a queue, or those of one sender, recipient or name: a task.
#[utoipa::path(delete, path = "/mailQueues/{name}/mails", tag = "mail queues",
    params(
        ("name" = String, Path, example = "outgoing"),
        ("sender" = Option<String>, Query, example = "nobody@x.example"),
        ("recipient" = Option<String>, Query),
        ("name" = Option<String>, Query),
    ),
    responses(
        (status = 201, description = "The task", body = serde_json::Value),
        (status = 400, description = "An unknown parameter, or more than one of them", body = Refusal),
        (status = 404, description = "No such queue", body = Refusal),
    )
)]
async fn remove(
    State(shared): super::State,
    actor: Actor,
    name: super::Name,
    query: Query,
    _: NoBody,
) -> Result<Response, Refusal> {
    query.only(&CRITERIA)?;
    let Path(name) = name?;
    known(&shared, &name)?;
    let given: Vec<_> = CRITERIA.into_iter().filter_map(|one| Some((one, query.get(one)?))).collect();
    let unknown = |key: &str| Refusal::invalid(format!("{key:?} is no key of a mail"));
    let (kind, selection) = match given[..] {
        [] => ("clear-mail-queue", Selection::matching(Conditions::default())),
        [("name", key)] => {
            let key = MailKey::parse(key).ok_or_else(|| unknown(key))?;
            ("delete-mails-from-mail-queue", Selection::Mail(key))
        }
        [(one, value)] => {
            ("delete-mails-from-mail-queue", Selection::matching(Conditions::default().with(one, value)?))
        }
        _ => return Err(Refusal::invalid("You should provide only one of the query parameters".to_owned())),
    };
    let initial = shared.context.store.size(&Place::Spool).await?;
    let mut parameters = json!({"mailQueueName": name, "queue": name, "initialCount": initial});
    for (one, value) in given {
        parameters[one] = value.into();
    }
    let (by, together) = (actor.operator(), Together::InTurn(SPOOL.to_owned()));
    let new = NewTask { kind, by, parameters, expected: Some(initial), together };
    let (of_task, site) = (Arc::clone(&shared), shared.site());
    let work = move |handle: Handle| async move {
        carry_out(&of_task, &site, &handle, &Place::Spool, &selection, &Verb::Remove, initial).await
    };
    Ok(created(&shared.context.tasks.begin(new, work).await?))
}

/// The body of a flush.
#[derive(Deserialize, Default, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
struct Flush {
    /// `false`.
    delayed: Option<bool>,
}

/// Has the queue looked at now. Nothing waits for a time here, so that all of it is taken up already.
#[utoipa::path(patch, path = "/mailQueues/{name}/mails", tag = "mail queues",
    params(
        ("name" = String, Path, example = "spool"),
        ("delayed" = bool, Query),
    ),
    request_body(content = Flush, description = "What they are to become"),
    responses(
        (status = 204, description = "They are taken up"),
        (status = 400, description = "Another value than James knows", body = Refusal),
        (status = 404, description = "No such queue", body = Refusal),
    )
)]
async fn flush(
    State(shared): super::State,
    _actor: Actor,
    name: super::Name,
    query: Query,
    body: JsonBody,
) -> Result<StatusCode, Refusal> {
    query.only(&["delayed"])?;
    let Path(name) = name?;
    known(&shared, &name)?;
    let Flush { delayed } = body::object(&body)?;
    if delayed != Some(false) || !query.boolean("delayed", false)? {
        return Err(Refusal::invalid("Only delayed=true with {\"delayed\": false} can be asked for".to_owned()));
    }
    Ok(StatusCode::NO_CONTENT)
}
