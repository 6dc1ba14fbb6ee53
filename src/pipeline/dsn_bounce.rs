//! Mailet `DSNBounce`: the sender is told what became of his mail (RFC 3461 section 5.2).
//!
//! It decides for each recipient whether there is anything to tell; the pass gathers what all
//! rules have to tell, and bears one notification of it with its end.

use std::sync::Arc;

use super::Pass;
use super::mailet::{Ended, Step};
use super::part::Part;
use super::telling::{Answer, Wording, answer};
use crate::mail::{Action, Address, Mail, Outcome, Recorded, is_status};
use crate::yaml::{Fields, Node, Place, boolean, choice, text};

/// A rule's `DSNBounce`.
#[derive(Debug, Clone)]
pub(super) struct DsnBounce {
    /// What is told; where the rule does not say, it follows from what happened.
    pub(super) action: Option<Action>,
    pub(super) wording: Arc<Wording>,
    /// The part goes on; otherwise it ends here for those whose sender was told.
    pub(super) pass_through: bool,
}

/// How much of the message comes back where the sender does not say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Attachment {
    Heads,
    Message,
    Nothing,
}

const ACTIONS: [(&str, Action); 3] =
    [("failed", Action::Failed), ("delayed", Action::Delayed), ("relayed", Action::Relayed)];

const ATTACHMENTS: [(&str, Attachment); 3] =
    [("heads", Attachment::Heads), ("message", Attachment::Message), ("none", Attachment::Nothing)];

impl DsnBounce {
    pub(super) fn read(fields: &mut Fields<'_>) -> Self {
        let action = fields.optional("action", choice(&ACTIONS));
        let status_place = fields.node("defaultStatus").map(|node| node.place);
        let default_status = fields.optional("defaultStatus", status);
        let wording = Wording {
            sender: fields.optional("sender", notifier),
            prefix: fields.optional("prefix", text),
            attachment: fields.optional("attachment", choice(&ATTACHMENTS)).unwrap_or(Attachment::Heads),
            words: fields.optional("messageString", text),
            default_status,
        };
        if let (Some(status), Some(place)) = (&wording.default_status, status_place) {
            check_class(status, action.unwrap_or(Action::Failed), place, fields);
        }
        let pass_through = fields.optional("passThrough", boolean).unwrap_or(true);
        Self { action, wording: Arc::new(wording), pass_through }
    }

    pub(super) async fn run(&self, mut part: Part, pass: &Pass<'_>) -> Vec<Step> {
        let is_delivered = part.trail.outcome == Some(Outcome::Delivered);
        let action = self.action.unwrap_or(if is_delivered { Action::Relayed } else { Action::Failed });
        part.trail.given_up |= action == Action::Failed;
        let happened = (action == Action::Relayed) == is_delivered;
        let told = if happened { self.tell(action, &mut part, pass).await } else { part.each(|_| false) };
        if self.pass_through {
            return vec![Step::Next(part)];
        }
        let (told, untold) = part.split(&told);
        let end = if is_delivered { super::End::Delivered } else { super::End::Dropped };
        let ended = told.map(|part| Step::End(Ended::new(part, end)));
        ended.into_iter().chain(untold.map(Step::Next)).collect()
    }

    /// Tells what there is to tell; of whom the sender knows now, or knew before.
    async fn tell(&self, action: Action, part: &mut Part, pass: &Pass<'_>) -> Vec<bool> {
        let Some(sender) = part.mail.envelope.return_path().cloned() else { return part.each(|_| false) };
        let outcomes = pass.outcomes(part).await;
        let mut knows = Vec::with_capacity(outcomes.len());
        for (recipient, outcome) in part.mail.envelope.recipients.clone().iter().zip(outcomes) {
            knows.push(match answer(action, part.mail.envelope.dsn.of(recipient), outcome.as_ref()) {
                Answer::Tell if action == Action::Delayed && !is_late(&part.mail, outcome.as_ref(), pass) => false,
                Answer::Tell => {
                    let asked = &part.mail.envelope.dsn;
                    let notice = pass.tell(action, &sender, recipient, outcome, asked, &self.wording);
                    let is_told = notice.dsn.is_some();
                    part.mail.envelope.dsn.tell(recipient, notice);
                    is_told
                }
                Answer::Known => true,
                Answer::Nothing => false,
            });
        }
        knows
    }
}

/// Whether a mail is so late that its delay is told.
fn is_late(mail: &Mail, outcome: Option<&Recorded>, pass: &Pass<'_>) -> bool {
    let waited = outcome.and_then(|outcome| (outcome.time - mail.accepted).to_std().ok());
    waited.is_some_and(|waited| waited >= pass.pipeline.notifications.delay_warning.unwrap_or_default())
}

/// A sender of notifications: James's words for others stand in its documentation.
///
/// # Errors
/// What would be right: an address that every host on the way to a sender takes.
pub fn notifier(node: &Node) -> Result<Address, String> {
    let written = text(node)?;
    let bare = written.strip_prefix('<').and_then(|rest| rest.strip_suffix('>')).unwrap_or(&written);
    let address =
        Address::parse(bare).map_err(|error| format!("an address is expected here, not '{written}': {error}"))?;
    if address.needs_smtputf8() {
        return Err(format!(
            "an address in ASCII is expected here, since not every sender's host takes '{written}' (SMTPUTF8)"
        ));
    }
    Ok(address)
}

fn status(node: &Node) -> Result<String, String> {
    let written = text(node)?;
    if is_status(&written) { Ok(written) } else { Err(format!("'{written}' is no status: write it as 5.0.0")) }
}

fn check_class(status: &str, action: Action, place: Place, fields: &Fields<'_>) {
    if !status.starts_with(action.class()) {
        let message =
            format!("the status {status} is not of action {}: write it as {}.0.0", action.name(), action.class());
        fields.reading().problem(place, message);
    }
}
