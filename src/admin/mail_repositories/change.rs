//! Mails of a repository, changed: reprocessed, moved, removed, acknowledged.
//!
//! What may be long is a task; what is asked for with `dryRun=true` is only counted.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};

use super::super::actor::Actor;
use super::super::answer::{bulk_names, created, selection};
use super::super::body::{JsonBody, NoBody};
use super::super::error::Refusal;
use super::super::query::Query;
use super::super::{Shared, Site, State as SharedState};
use super::Names;
use crate::mail::{Address, MailKey, RepositoryPath};
use crate::operations::{Bounds, Done, Error, Selection, Verb};
use crate::store::{Error as StoreError, Place, Respool};
use crate::tasks::{Ended, Handle, NewTask, Together};

/// The queue that reprocessed mails enter.
const SPOOL: &str = "spool";

/// Mails that a move takes while its client waits; more are a task.
const MOVED_AT_ONCE: u64 = 1000;

/// What a bulk call that is a task is made of.
pub(in crate::admin) struct Work {
    /// James's word for such a task, or ours.
    pub(in crate::admin) kind: &'static str,
    /// Where the mails rest.
    pub(in crate::admin) place: Place,
    /// Which are meant.
    pub(in crate::admin) selection: Selection,
    /// What is done to them.
    pub(in crate::admin) verb: Verb,
    /// James's additionalInformation, as far as it is known before.
    pub(in crate::admin) parameters: Value,
    /// A dry run is asked for.
    pub(in crate::admin) dry_run: bool,
}

impl Work {
    /// Counts, or begins a task.
    async fn answer(self, shared: &Arc<Shared>, actor: &Actor, site: &Arc<Site>) -> Result<Response, Refusal> {
        if self.dry_run {
            return self.preview(shared, actor).await;
        }
        Ok(created(&self.begin(shared, actor, site).await?))
    }

    /// Begins the task; its id.
    pub(in crate::admin) async fn begin(
        self,
        shared: &Arc<Shared>,
        actor: &Actor,
        site: &Arc<Site>,
    ) -> Result<String, Refusal> {
        // What the task would refuse: who asked is gone by then.
        shared.asked_by(actor).operations().check(&self.place, &self.selection, &self.verb).await?;
        let initial = shared.context.store.size(&self.place).await?;
        let together = Together::InTurn(self.place_name());
        // What comes back while another call waits for its turn is not met by that one again.
        let selection = self.selection.until(shared.context.store.horizon().await?);
        let mut parameters = self.parameters;
        parameters["initialCount"] = initial.into();
        let new = NewTask { kind: self.kind, by: actor.operator(), parameters, expected: Some(initial), together };
        let (shared, site) = (Arc::clone(shared), Arc::clone(site));
        let (place, verb) = (self.place, self.verb);
        let tasks = Arc::clone(&shared.context.tasks);
        let work =
            move |handle| async move { carry_out(&shared, &site, &handle, &place, &selection, &verb, initial).await };
        Ok(tasks.begin(new, work).await?)
    }

    async fn preview(&self, shared: &Shared, actor: &Actor) -> Result<Response, Refusal> {
        let asked = shared.asked_by(actor);
        let preview = asked.operations().preview(&self.place, &self.selection, &self.verb).await?;
        Ok(Json(preview.json(&self.verb)).into_response())
    }

    fn place_name(&self) -> String {
        match &self.place {
            Place::Spool => SPOOL.to_owned(),
            Place::Repository(path) => path.to_string(),
        }
    }
}

/// The work of a task over the mails of a place that had `initial` of them.
pub(in crate::admin) async fn carry_out(
    shared: &Shared,
    site: &Arc<Site>,
    handle: &Handle,
    place: &Place,
    selection: &Selection,
    verb: &Verb,
    initial: u64,
) -> Ended {
    let asked = shared.asked(handle.by.clone(), Arc::clone(site), handle.stop().clone());
    let details = |done: &Done| {
        let met = done.mails + done.in_hand + done.unreadable;
        let mut details = done.json(verb);
        details["remainingCount"] = initial.saturating_sub(met).into();
        if done.unreadable > 0 {
            details["unreadable"] = done.unreadable.into();
        }
        details
    };
    let mut progress = |done: &Done| {
        if let Some(operation) = done.operation {
            handle.operation(operation);
        }
        handle.progress(done.mails, &details(done));
    };
    match asked.operations().carry_out(place, selection, verb, &mut progress).await {
        Ok(done) if done.stopped || done.unreadable > 0 => Ended::failed(details(&done)),
        Ok(done) => {
            progress(&done);
            Ended::completed(details(&done))
        }
        Err(error) => Ended::failed(json!({"error": public(&error)})),
    }
}

/// What a task may say of an error: what the store met stands in the log.
fn public(error: &Error) -> String {
    match error {
        Error::Store(StoreError::NoSuchMail(_) | StoreError::NoSuchRepository(_) | StoreError::InHand(_))
        | Error::Wrong(_)
        | Error::NoSuchGroup(_)
        | Error::NoSuchRepository(_)
        | Error::UnknownRepository(..)
        | Error::Refused(_) => error.to_string(),
        Error::Store(trouble) => {
            tracing::error!(error = %trouble, "a task failed");
            "the store is in trouble: see the log and /healthcheck".to_owned()
        }
    }
}

/// Removes all mails, or those that are meant: a task.
#[utoipa::path(delete, path = "/mailRepositories/{repository}/mails", tag = "mail repositories",
    params(
        ("repository" = String, Path, example = "var/mail/kept"),
        ("dryRun" = Option<bool>, Query),
        ("until" = Option<String>, Query),
    ),
    responses(
        (status = 200, description = "A dry run: what it would come to", body = Value),
        (status = 201, description = "The task", body = Value),
        (status = 400, description = "An unknown parameter", body = Refusal),
        (status = 404, description = "No such repository", body = Refusal),
    )
)]
pub(in crate::admin) async fn clear(
    State(shared): SharedState,
    actor: Actor,
    name: super::super::Name,
    query: Query,
    _: NoBody,
) -> Result<Response, Refusal> {
    query.only(&bulk_names(&[]))?;
    let Path(name) = name?;
    let (path, site) = (shared.repository(&name).await?, shared.site());
    let work = Work {
        kind: "clear-mail-repository",
        parameters: json!({"repositoryPath": path}),
        place: Place::Repository(path),
        selection: selection(&query, Bounds::default())?,
        verb: Verb::Remove,
        dry_run: query.boolean("dryRun", false)?,
    };
    work.answer(&shared, &actor, &site).await
}

/// The body of a call that moves.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(in crate::admin) struct Target {
    /// Where to: a path of a repository that is there.
    mail_repository: String,
}

impl Target {
    /// `None` where the body is blank: then it is no call that moves.
    fn read(JsonBody(body): &JsonBody) -> Result<Option<Self>, Refusal> {
        if body.iter().all(u8::is_ascii_whitespace) {
            return Ok(None);
        }
        let value: Value =
            serde_json::from_slice(body).map_err(|_| Refusal::invalid("Invalid JSON body".to_owned()))?;
        if value.get("mailRepository").is_none() {
            return Err(Refusal::invalid("'mailRepository' field is mandatory in request body".to_owned()));
        }
        let target = serde_json::from_value(value);
        target
            .map(Some)
            .map_err(|error| Refusal::invalid("Invalid JSON body".to_owned()).with_details(error.to_string()))
    }

    async fn path(&self, shared: &Shared) -> Result<RepositoryPath, Refusal> {
        let missing = |why: Refusal| {
            let message = format!("The target repository '{}' does not exist", self.mail_repository);
            Refusal::invalid(message).with_details(why.details().unwrap_or(why.message()))
        };
        shared.repository(&self.mail_repository).await.map_err(missing)
    }
}

/// Reprocesses mails, or with a body moves them.
#[utoipa::path(patch, path = "/mailRepositories/{repository}/mails", tag = "mail repositories",
    params(
        ("repository" = String, Path, example = "temporary"),
        ("action" = Option<String>, Query, example = "reprocess"),
        ("queue" = Option<String>, Query),
        ("processor" = Option<String>, Query, example = "relay"),
        ("consume" = Option<bool>, Query),
        ("limit" = Option<u64>, Query),
        ("maxRetries" = Option<u32>, Query),
        ("forRecipient" = Option<String>, Query),
        ("resetCounters" = Option<bool>, Query),
        ("dryRun" = Option<bool>, Query),
        ("until" = Option<String>, Query),
    ),
    request_body(content = Option<Target>, description = "Where to move them"),
    responses(
        (status = 200, description = "A dry run: what it would come to", body = Value),
        (status = 201, description = "The task", body = Value),
        (status = 204, description = "They are moved"),
        (status = 400, description = "An unknown parameter, processor, queue or target", body = Refusal),
        (status = 404, description = "No such repository", body = Refusal),
    )
)]
pub(in crate::admin) async fn all(
    State(shared): SharedState,
    actor: Actor,
    name: super::super::Name,
    query: Query,
    body: JsonBody,
) -> Result<Response, Refusal> {
    let Path(name) = name?;
    let (path, site) = (shared.repository(&name).await?, shared.site());
    match Target::read(&body)? {
        Some(target) => move_all(&shared, &actor, &site, path, &target, &query).await,
        None => reprocess_all(&shared, &actor, &site, path, &query).await,
    }
}

async fn move_all(
    shared: &Arc<Shared>,
    actor: &Actor,
    site: &Arc<Site>,
    from: RepositoryPath,
    target: &Target,
    query: &Query,
) -> Result<Response, Refusal> {
    query.only(&bulk_names(&["action"]))?;
    let to = target.path(shared).await?;
    let place = Place::Repository(from.clone());
    let selection = selection(query, Bounds::default())?;
    let work = Work {
        kind: "move-mails",
        parameters: json!({"repositoryPath": from, "targetRepositoryPath": to}),
        place: place.clone(),
        selection: selection.clone(),
        verb: Verb::Move { to },
        dry_run: query.boolean("dryRun", false)?,
    };
    if work.dry_run || shared.context.store.size(&place).await? > MOVED_AT_ONCE {
        return work.answer(shared, actor, site).await;
    }
    shared.asked_by(actor).operations().carry_out(&place, &selection, &work.verb, &mut |_| {}).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// The parameters of a call that reprocesses.
const REPROCESSING: [&str; 8] =
    ["action", "queue", "processor", "consume", "limit", "maxRetries", "forRecipient", "resetCounters"];

async fn reprocess_all(
    shared: &Arc<Shared>,
    actor: &Actor,
    site: &Arc<Site>,
    path: RepositoryPath,
    query: &Query,
) -> Result<Response, Refusal> {
    query.only(&bulk_names(&REPROCESSING))?;
    let how = reprocessing(query, site)?;
    let bounds = bounds(query)?;
    let parameters = json!({
        "repositoryPath": path,
        "targetQueue": SPOOL,
        "targetProcessor": query.get("processor"),
        "forRecipient": bounds.recipient,
        "consume": !how.copy,
        "limit": bounds.limit,
        "maxRetries": bounds.max_retries,
    });
    let work = Work {
        kind: "reprocessing-all",
        parameters,
        place: Place::Repository(path),
        selection: selection(query, bounds)?,
        verb: Verb::Reprocess(how),
        dry_run: query.boolean("dryRun", false)?,
    };
    work.answer(shared, actor, site).await
}

fn bounds(query: &Query) -> Result<Bounds, Refusal> {
    let max_retries = query.number("maxRetries")?.map(|most| u32::try_from(most).unwrap_or(u32::MAX));
    let recipient = query.read_as("forRecipient", |text| Address::parse(text).map_err(|error| error.to_string()))?;
    // As with James, 0 is no limit.
    let limit = query.number("limit")?.filter(|limit| *limit > 0).map(|limit| limit as u64);
    Ok(Bounds { max_retries, recipient, limit })
}

/// What a call that reprocesses asks for, checked before anything is done.
fn reprocessing(query: &Query, site: &Site) -> Result<Respool, Refusal> {
    const INVALID: &str = "Invalid arguments supplied in the user request";
    let details = match query.get("action") {
        Some("reprocess") => None,
        Some(other) => Some(format!(
            "Invalid value supplied for query parameter 'action': {other}. Supported values are [reprocess]"
        )),
        None => Some("'action' query parameter is compulsory. Supported values are [reprocess]".to_owned()),
    };
    if let Some(details) = details {
        return Err(Refusal::invalid(INVALID.to_owned()).with_details(details));
    }
    if let Some(queue) = query.get("queue").filter(|queue| *queue != SPOOL) {
        return Err(Refusal::invalid(format!("Can not find queue {queue}: there is {SPOOL}")));
    }
    let how = respool(site, query.get("processor"), query.boolean("resetCounters", false)?)?;
    Ok(Respool { copy: !query.boolean("consume", true)?, ..how })
}

/// How mails enter the spool: for `processor`, or as James has it in their own state, but for
/// one that would file them again at once: those go as new mail does.
pub(in crate::admin) fn respool(site: &Site, processor: Option<&str>, resets: bool) -> Result<Respool, Refusal> {
    let own = if processor.is_some() { Vec::new() } else { site.processors.delivering() };
    let processor = processor.unwrap_or(&site.processor).to_owned();
    site.processors.check_processor(&processor).map_err(Refusal::invalid)?;
    let reset = if resets { site.processors.counters() } else { Vec::new() };
    Ok(Respool { processor, own, reset, copy: false })
}

/// Removes a mail; one that is not there is no error.
#[utoipa::path(delete, path = "/mailRepositories/{repository}/mails/{key}", tag = "mail repositories",
    params(
        ("repository" = String, Path, example = "var/mail/kept"),
        ("key" = String, Path),
    ),
    responses(
        (status = 204, description = "It is not there any more"),
        (status = 400, description = "A parameter or a body: it reads none", body = Refusal),
        (status = 404, description = "No such repository", body = Refusal),
        (status = 409, description = "An attempt is under way", body = Refusal),
    )
)]
pub(in crate::admin) async fn remove(
    State(shared): SharedState,
    actor: Actor,
    names: Names,
    query: Query,
    _: NoBody,
) -> Result<StatusCode, Refusal> {
    query.only(&[])?;
    let Path((repository, key)) = names?;
    let path = shared.repository(&repository).await?;
    on_one(&shared, &actor, &path, &key, &Verb::Remove).await
}

/// Does something to one mail; one that is not there is no error, as with James.
async fn on_one(
    shared: &Shared,
    actor: &Actor,
    path: &RepositoryPath,
    key: &str,
    verb: &Verb,
) -> Result<StatusCode, Refusal> {
    let Some(key) = MailKey::parse(key) else { return Ok(StatusCode::NO_CONTENT) };
    match act_on(shared, actor, &Place::Repository(path.clone()), key, verb).await {
        Ok(_) | Err(Error::Store(StoreError::NoSuchMail(_))) => Ok(StatusCode::NO_CONTENT),
        Err(error) => Err(error.into()),
    }
}

/// Does something to one mail.
pub(in crate::admin) async fn act_on(
    shared: &Shared,
    actor: &Actor,
    place: &Place,
    key: MailKey,
    verb: &Verb,
) -> Result<Done, Error> {
    shared.asked_by(actor).operations().carry_out(place, &Selection::Mail(key), verb, &mut |_| {}).await
}

/// Reprocesses one mail, or with a body moves it.
#[utoipa::path(patch, path = "/mailRepositories/{repository}/mails/{key}", tag = "mail repositories",
    params(
        ("repository" = String, Path, example = "temporary"),
        ("key" = String, Path),
        ("action" = Option<String>, Query, example = "reprocess"),
        ("queue" = Option<String>, Query),
        ("processor" = Option<String>, Query, example = "relay"),
        ("consume" = Option<bool>, Query),
        ("resetCounters" = Option<bool>, Query),
    ),
    request_body(content = Option<Target>, description = "Where to move it"),
    responses(
        (status = 201, description = "The task; it fails where there is no such mail", body = Value),
        (status = 204, description = "It is moved, or was not there"),
        (status = 400, description = "An unknown parameter, processor, queue or target", body = Refusal),
        (status = 404, description = "No such repository, to move from", body = Refusal),
        (status = 409, description = "An attempt is under way", body = Refusal),
    )
)]
pub(in crate::admin) async fn one(
    State(shared): SharedState,
    actor: Actor,
    names: Names,
    query: Query,
    body: JsonBody,
) -> Result<Response, Refusal> {
    let Path((repository, key)) = names?;
    if let Some(target) = Target::read(&body)? {
        query.only(&["action"])?;
        let path = shared.repository(&repository).await?;
        let to = target.path(&shared).await?;
        return Ok(on_one(&shared, &actor, &path, &key, &Verb::Move { to }).await?.into_response());
    }
    query.only(&REPROCESSING)?;
    bounds(&query)?;
    reprocess_one(&shared, &actor, repository, key, &query).await
}

/// An unknown repository or key is found by the task, as with James.
async fn reprocess_one(
    shared: &Arc<Shared>,
    actor: &Actor,
    repository: String,
    key: String,
    query: &Query,
) -> Result<Response, Refusal> {
    let site = shared.site();
    let how = reprocessing(query, &site)?;
    let parameters = json!({
        "repositoryPath": repository,
        "targetQueue": SPOOL,
        "mailKey": key,
        "targetProcessor": query.get("processor"),
        "forRecipient": query.get("forRecipient"),
        "consume": !how.copy,
    });
    let verb = Verb::Reprocess(how);
    let new = NewTask {
        kind: "reprocessing-one",
        by: actor.operator(),
        parameters,
        expected: Some(1),
        together: Together::Always,
    };
    let of_task = Arc::clone(shared);
    let work = move |handle: Handle| async move {
        let Ok(path) = of_task.repository(&repository).await else {
            return Ended::failed(json!({"error": format!("{repository} does not exist")}));
        };
        let Some(key) = MailKey::parse(&key) else {
            return Ended::failed(json!({"error": format!("{key} can not be found")}));
        };
        carry_out(&of_task, &site, &handle, &Place::Repository(path), &Selection::Mail(key), &verb, 1).await
    };
    Ok(created(&shared.context.tasks.begin(new, work).await?))
}
