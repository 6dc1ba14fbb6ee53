//! `/mail-transfer-service`: a message taken over HTTP, as James takes it.

use std::io;
use std::sync::Arc;

use async_trait::async_trait;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::StatusCode;
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouterExt};
use utoipa_axum::routes;

use super::Shared;
use super::actor::Actor;
use super::body::{MOST_OCTETS, MessageBody};
use super::error::Refusal;
use super::query::Query;
use crate::audit::{header_field, header_of};
use crate::ingest::{Caller, Input, Invocation, Origin, SubmitError, submit};
use crate::mail::{Address, parse_address_list};

pub(super) fn routes() -> OpenApiRouter<Arc<Shared>> {
    let body = DefaultBodyLimit::max(MOST_OCTETS);
    OpenApiRouter::new().routes(routes!(take).map(|router| router.layer(body)))
}

/// Takes a message into the spool; from whom and for whom it is, its header says.
#[utoipa::path(post, path = "/mail-transfer-service", tag = "mail repositories",
    request_body(content = String, content_type = "message/rfc822"),
    responses(
        (status = 201, description = "It is taken: committed to the store"),
        (status = 400, description = "No message, or nobody named in it", body = Refusal),
        (status = 413, description = "It is too large"),
        (status = 503, description = "It cannot be taken now", body = Refusal),
    )
)]
async fn take(
    State(shared): super::State,
    actor: Actor,
    query: Query,
    MessageBody(body): MessageBody,
) -> Result<StatusCode, Refusal> {
    query.only(&[])?;
    let from = header_field(header_of(&body), "from").and_then(|list| parse_address_list(&list).ok());
    let from: Option<Address> = from.and_then(|list| list.into_iter().next());
    let Some(address) = from else {
        return Err(Refusal::invalid("The message has no From: with an address".to_owned()));
    };
    let intake = shared.context.intake.now();
    let invocation =
        Invocation { recipients_from_header: true, reverse_path: Some(address.to_string()), ..Invocation::default() };
    let caller = Caller { origin: Origin::Http(actor.address), address, full_name: None };
    let mut input = Whole(Some(body.to_vec()));
    let now = shared.context.clock.now();
    let key = submit(&intake.spool, &invocation, &caller, &intake.here, now, &mut input).await?;
    tracing::info!(mail.id = %key, by = %actor, "accepted over HTTP");
    Ok(StatusCode::CREATED)
}

/// A message that is all there.
struct Whole(Option<Vec<u8>>);

#[async_trait]
impl Input for Whole {
    async fn next(&mut self) -> io::Result<Vec<u8>> {
        Ok(self.0.take().unwrap_or_default())
    }
}

impl From<SubmitError> for Refusal {
    fn from(error: SubmitError) -> Self {
        match error.exit_code() {
            75 => Self::unavailable(error.to_string()),
            _ => Self::invalid(error.to_string()),
        }
    }
}
