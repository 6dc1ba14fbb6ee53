//! What a pass has to tell the sender, gathered from all rules, and the notifications of it.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use tracing::warn;

use super::dsn_bounce::Attachment;
use super::part::Part;
use super::{Disposition, End, Pass};
use crate::mail::{
    Action, Address, AttributeValue, Attributes, Composed, DsnLimits, DsnRequest, Envelope, Event, Mail, MailKey,
    MessageFacts, NewDsn, NewMail, NewMessage, Notice, Notification, Outcome, RecipientRequest, Recorded, Ret,
    Returned, ReversePath, Told, attribute, may_be_returned_whole,
};

/// Octets of a message that are returned at most: all of a short one, or its header.
const MAX_RETURNED: usize = 50_000;

/// What all notifications have in common.
#[derive(Clone)]
pub struct Notifications {
    /// Whom they come from.
    pub from: Address,
    /// Our name, for Reporting-MTA.
    pub hostname: String,
    /// The processor that they enter.
    pub processor: String,
    /// How many there may be.
    pub limits: DsnLimits,
    /// How late a mail is when its delay is told; `None` is at once, to whom asked for it.
    pub delay_warning: Option<Duration>,
    /// How long a mail is tried from its acceptance on, where that is known.
    pub tried_for: Option<Duration>,
    /// Who gets what is for an address; `None` for one of this machine that stands for nobody.
    pub addressees: Addressees,
}

/// Who gets what is for an address.
pub type Addressees = Arc<dyn Fn(&Address) -> Option<Vec<Address>> + Send + Sync>;

impl Default for Notifications {
    fn default() -> Self {
        Self {
            from: Address::parse("MAILER-DAEMON@localhost").expect("an address"),
            hostname: "localhost".to_owned(),
            processor: "relay".to_owned(),
            limits: DsnLimits::default(),
            delay_warning: None,
            tried_for: None,
            addressees: Arc::new(|address| Some(vec![address.clone()])),
        }
    }
}

impl Notifications {
    /// The notification that gathers what a sender was not told one by one: `told`, and so
    /// many more recipients. `None` where his mail goes to nobody.
    pub fn digest(
        &self,
        key: MailKey,
        sender: &Address,
        told: Vec<Told>,
        more: u64,
        now: DateTime<Utc>,
    ) -> Option<NewMail> {
        let to = (self.addressees)(sender).filter(|to| !to.is_empty())?;
        let utf8 = told.iter().any(|told| told.recipient.needs_smtputf8()) || sender.needs_smtputf8();
        let composed = Notification {
            recipients: told,
            digest: Some(more),
            to: ReversePath::Address(sender.clone()),
            from: self.from.clone(),
            hostname: self.hostname.clone(),
            envelope_id: None,
            arrived: None,
            until: None,
            prefix: None,
            words: None,
            returned: Returned::Nothing,
            utf8,
            date: now,
            random: rand::random(),
        }
        .compose();
        Some(self.mail(key, to, composed, attributes_of("digest")))
    }

    /// A composed notification as a mail: null reverse-path, and nothing asked for it.
    fn mail(&self, key: MailKey, to: Vec<Address>, composed: Composed, attributes: Attributes) -> NewMail {
        let mut envelope = Envelope::new(ReversePath::Null, to);
        envelope.smtputf8 = composed.utf8 || envelope.recipients.iter().any(Address::needs_smtputf8);
        let facts = MessageFacts {
            size: composed.message.len() as u64,
            eight_bit_header: composed.utf8,
            eight_bit_body: composed.eight_bit,
            received: 0,
        };
        NewMail {
            name: key.to_string(),
            key,
            envelope,
            client: None,
            state: self.processor.clone(),
            attributes,
            message: NewMessage::Whole(Bytes::from(composed.message)),
            facts,
            import_digest: None,
        }
    }
}

fn attributes_of(dsn: &str) -> Attributes {
    let mut attributes = Attributes::default();
    attributes.set(attribute::DSN, AttributeValue::Text(dsn.to_owned()));
    attributes
}

/// How a rule words its notifications.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wording {
    pub(super) sender: Option<Address>,
    pub(super) prefix: Option<String>,
    pub(super) attachment: Attachment,
    pub(super) words: Option<String>,
    pub(super) default_status: Option<String>,
}

/// Whether a sender is to be told of a recipient.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    Tell,
    /// He knows.
    Known,
    /// He does not want to know, or there is nothing to know.
    Nothing,
}

/// Whether a sender who asked this is to be told of `action`, where the last attempt came to
/// `outcome` (RFC 3461 section 4.1). After a failure nothing follows but a success that was
/// asked for.
pub(super) fn answer(action: Action, asked: &RecipientRequest, outcome: Option<&Recorded>) -> Answer {
    let is = |wanted: Outcome| outcome.is_some_and(|outcome| outcome.outcome == wanted);
    let wants = match action {
        Action::Failed => asked.asks_for(Event::Failure).unwrap_or(true),
        Action::Delayed => is(Outcome::Deferred) && asked.asks_for(Event::Delay).unwrap_or(true),
        // A next hop that offers DSN tells of it itself, or hands the wish on.
        Action::Relayed => {
            asked.asks_for(Event::Success) == Some(true) && !outcome.is_some_and(|outcome| outcome.dsn_handed_on)
        }
    };
    match wants {
        _ if asked.was_told(action) => Answer::Known,
        _ if action != Action::Relayed && asked.was_told(Action::Failed) => Answer::Known,
        true => Answer::Tell,
        false => Answer::Nothing,
    }
}

/// What one pass has to tell.
#[derive(Default)]
pub(super) struct Telling {
    /// Outcomes of this pass, by mailbox.
    outcomes: HashMap<String, Recorded>,
    /// What is told, one notification for each action.
    drafts: Vec<Draft>,
    /// What is noted of each recipient.
    notices: Vec<(Address, Notice)>,
}

/// A notification that is to be written at the end of the pass.
struct Draft {
    action: Action,
    sender: Address,
    to: Vec<Address>,
    key: MailKey,
    told: Vec<Told>,
    wording: Arc<Wording>,
}

impl Telling {
    /// Takes outcomes that may have to be told.
    pub(super) fn heard(&mut self, outcomes: &[Recorded]) {
        self.outcomes.extend(outcomes.iter().map(|one| (one.recipient.mailbox(), one.clone())));
    }

    /// Who stays where he was was told nothing: the pass did not happen for him.
    fn forget(&mut self, stays: &HashSet<String>) {
        for draft in &mut self.drafts {
            draft.told.retain(|told| !stays.contains(&told.recipient.mailbox()));
        }
        self.drafts.retain(|draft| !draft.told.is_empty());
        self.notices.retain(|(recipient, _)| !stays.contains(&recipient.mailbox()));
    }
}

impl Pass<'_> {
    /// What came of each recipient of a part: in this pass, else in the last attempt on record.
    pub(super) async fn outcomes(&self, part: &Part) -> Vec<Option<Recorded>> {
        let recipients = &part.mail.envelope.recipients;
        let of_pass = |recipient: &Address| self.telling().outcomes.get(&recipient.mailbox()).cloned();
        let found: Vec<_> = recipients.iter().map(of_pass).collect();
        if found.iter().all(Option::is_some) {
            return found;
        }
        let before = self.backing.last_outcomes(&part.mail).await;
        found.into_iter().zip(before).map(|(found, before)| found.or(before)).collect()
    }

    /// Takes what is to be told of a recipient; what is to be noted of it.
    pub(super) fn tell(
        &self,
        action: Action,
        sender: &Address,
        recipient: &Address,
        outcome: Option<Recorded>,
        asked: &DsnRequest,
        wording: &Arc<Wording>,
    ) -> Notice {
        let mut telling = self.telling();
        let at = self.known_at(outcome.as_ref());
        let notice = |dsn, note| Notice { action, at, dsn, note };
        let Some(to) = (self.pipeline.notifications.addressees)(sender).filter(|to| !to.is_empty()) else {
            let note = format!("told to nobody: {sender} is of this machine, and sendmail.aliases has nothing for it");
            telling.notices.push((recipient.clone(), notice(None, Some(note.clone()))));
            return notice(None, Some(note));
        };
        let draft = telling.drafts.iter().position(|draft| draft.action == action).unwrap_or_else(|| {
            let (key, wording) = ((self.new_key)(), Arc::clone(wording));
            telling.drafts.push(Draft { action, sender: sender.clone(), to, key, told: Vec::new(), wording });
            telling.drafts.len() - 1
        });
        let draft = &mut telling.drafts[draft];
        let status = draft.wording.default_status.clone().filter(|status| status.starts_with(action.class()));
        draft.told.push(Told {
            recipient: recipient.clone(),
            action,
            original: asked.of(recipient).orcpt.clone(),
            accepted: None,
            marks: Vec::new(),
            outcome,
            default_status: status.unwrap_or_else(|| format!("{}.0.0", action.class())),
        });
        let notice = notice(Some(draft.key.clone()), None);
        telling.notices.push((recipient.clone(), notice.clone()));
        notice
    }

    /// When it was known what is told: a pass may take long, and nothing is told before it happened.
    fn known_at(&self, outcome: Option<&Recorded>) -> DateTime<Utc> {
        outcome.map_or(self.now, |outcome| outcome.time.max(self.now))
    }

    /// Notes in all parts what was told, and writes the notifications.
    pub(super) async fn bear(&self, whole: &Mail, ended: &mut [Disposition]) {
        let mut telling = std::mem::take(&mut *self.telling());
        if telling.notices.is_empty() {
            return;
        }
        let stays = ended.iter().filter(|one| matches!(one.end, End::Stay(_)));
        telling.forget(&stays.flat_map(|one| &one.mail.envelope.recipients).map(Address::mailbox).collect());
        for one in ended.iter_mut() {
            note(&telling.notices, one);
        }
        if telling.drafts.is_empty() {
            return;
        }
        let row = self.backing.content().row(0).await.unwrap_or_else(|error| {
            warn!(mail.id = %whole.key, %error, "a notification returns nothing of the message, which cannot be read");
            Bytes::new()
        });
        let born: Vec<_> = telling.drafts.into_iter().map(|draft| self.written(draft, whole, &row)).collect();
        if let Some(first) = ended.first_mut() {
            first.born = born;
        }
    }

    fn written(&self, mut draft: Draft, whole: &Mail, row: &[u8]) -> NewDsn {
        let marks = marks(whole, row);
        for told in &mut draft.told {
            (told.accepted, told.marks) = (Some(whole.accepted), marks.clone());
        }
        let common = &self.pipeline.notifications;
        let requires_tls = whole.attributes.boolean(attribute::REQUIRE_TLS).unwrap_or(false);
        let date = draft.told.iter().map(|told| self.known_at(told.outcome.as_ref())).max().unwrap_or(self.now);
        let composed = Notification {
            recipients: draft.told.clone(),
            digest: None,
            to: ReversePath::Address(draft.sender.clone()),
            from: draft.wording.sender.clone().unwrap_or_else(|| common.from.clone()),
            hostname: common.hostname.clone(),
            envelope_id: whole.envelope.dsn.envid.clone(),
            arrived: Some(whole.accepted),
            until: self.tried_until(whole, date),
            prefix: draft.wording.prefix.clone(),
            words: draft.wording.words.clone(),
            returned: returned(&draft, whole, row, requires_tls),
            utf8: whole.envelope.smtputf8,
            date,
            random: rand::random(),
        }
        .compose();
        let mut attributes = attributes_of(whole.key.as_str());
        if requires_tls {
            attributes.set(attribute::PREFER_REQUIRE_TLS, AttributeValue::Boolean(true));
        }
        NewDsn {
            mail: common.mail(draft.key, draft.to, composed, attributes),
            sender: draft.sender,
            action: draft.action,
            told: draft.told,
            limits: common.limits,
        }
    }

    fn tried_until(&self, whole: &Mail, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let tried_for = TimeDelta::from_std(self.pipeline.notifications.tried_for?).ok()?;
        whole.accepted.checked_add_signed(tried_for).filter(|until| *until > now)
    }
}

/// Notes in a part what its sender was told, where it is not noted yet.
fn note(notices: &[(Address, Notice)], part: &mut Disposition) {
    let envelope = &mut part.mail.envelope;
    let here: HashSet<_> = envelope.recipients.iter().map(Address::mailbox).collect();
    for (recipient, notice) in notices.iter().filter(|(recipient, _)| here.contains(&recipient.mailbox())) {
        let known = &envelope.dsn.of(recipient).told;
        // That nobody was told is said once, not at each pass.
        let is_known = |one: &Notice| (one.action, &one.dsn, &one.note) == (notice.action, &notice.dsn, &notice.note);
        if !known.iter().any(is_known) {
            envelope.dsn.tell(recipient, notice.clone());
        }
    }
}

/// What is returned: RET beats the rule, but for a rule that returns nothing. All of a message
/// only where it failed, is short, and passes as it is.
fn returned(draft: &Draft, whole: &Mail, row: &[u8], requires_tls: bool) -> Returned {
    let attachment = draft.wording.attachment;
    let wants_all = match whole.envelope.dsn.ret {
        Some(ret) => ret == Ret::Full,
        None => attachment == Attachment::Message,
    };
    let header = header(row);
    if attachment == Attachment::Nothing || row.is_empty() {
        return Returned::Nothing;
    }
    // What was to go over TLS alone is not sent back by a way that may have none (RFC 8689 section 5).
    let fits = whole.facts.size == row.len() as u64 && row.len() <= MAX_RETURNED && may_be_returned_whole(row);
    let is_clean = whole.envelope.smtputf8 || header.is_ascii();
    if wants_all && draft.action == Action::Failed && !requires_tls && fits && is_clean {
        return Returned::Message(row.to_vec());
    }
    Returned::Header(header.to_vec())
}

/// What a sender knows his message by.
fn marks(whole: &Mail, row: &[u8]) -> Vec<String> {
    let envelope_id = whole.envelope.dsn.envid.as_ref().map(|id| format!("Envelope-Id: {id}"));
    let fields =
        ["Subject", "Message-ID"].into_iter().filter_map(|name| Some(format!("{name}: {}", field(row, name)?)));
    fields.chain(envelope_id).collect()
}

/// The first field of that name, its lines joined; beyond ASCII it may be what it is.
fn field(row: &[u8], name: &str) -> Option<String> {
    let text = String::from_utf8_lossy(header(row)).replace("\r\n ", " ").replace("\r\n\t", " ");
    let of_name = |line: &str| {
        let (before, value) = line.split_once(':')?;
        before.trim_end().eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
    };
    text.split("\r\n").find_map(of_name).filter(|value| !value.is_empty())
}

/// The header without the empty line; one that is too long is cut between two fields.
fn header(row: &[u8]) -> &[u8] {
    let end = row.windows(4).position(|four| four == b"\r\n\r\n").map_or(row.len(), |at| at + 2);
    let header = if row.starts_with(b"\r\n") { &[] } else { &row[..end] };
    if header.len() <= MAX_RETURNED {
        return header;
    }
    let begins_field = |at: &usize| header[*at..].starts_with(b"\r\n") && !matches!(header[at + 2], b' ' | b'\t');
    let cut = (0..MAX_RETURNED - 2).rev().find(begins_field).map_or(0, |at| at + 2);
    &header[..cut]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::{Notify, Stage};

    fn recorded(outcome: Outcome, handed_on: bool) -> Recorded {
        let recipient = Address::parse("b@x.example").expect("an address");
        let why = "scripted".to_owned();
        let known = Recorded::without_contact(recipient, outcome, Stage::Rcpt, why, DateTime::UNIX_EPOCH);
        Recorded { dsn_handed_on: handed_on, ..known }
    }

    #[test]
    fn each_is_told_what_he_asked_for_and_once() {
        use Action::{Delayed, Failed, Relayed};
        use Answer::{Known, Nothing, Tell};
        let (failed, deferred) = (recorded(Outcome::Failed, false), recorded(Outcome::Deferred, false));
        let (delivered, handed_on) = (recorded(Outcome::Delivered, false), recorded(Outcome::Delivered, true));
        for (notify, told, action, outcome, expected) in [
            (None, &[][..], Failed, Some(&failed), Tell),
            (None, &[], Failed, Some(&deferred), Tell),
            (None, &[], Failed, None, Tell),
            (None, &[], Delayed, Some(&deferred), Tell),
            (None, &[], Delayed, Some(&failed), Nothing),
            (None, &[], Delayed, None, Nothing),
            (None, &[], Relayed, Some(&delivered), Nothing),
            (Some("NEVER"), &[], Failed, Some(&failed), Nothing),
            (Some("NEVER"), &[], Delayed, Some(&deferred), Nothing),
            (Some("NEVER"), &[], Relayed, Some(&delivered), Nothing),
            (Some("SUCCESS"), &[], Failed, Some(&failed), Nothing),
            (Some("SUCCESS"), &[], Relayed, Some(&delivered), Tell),
            (Some("SUCCESS"), &[], Relayed, Some(&handed_on), Nothing),
            (Some("DELAY"), &[], Failed, Some(&failed), Nothing),
            (Some("DELAY"), &[], Delayed, Some(&deferred), Tell),
            (Some("FAILURE"), &[], Delayed, Some(&deferred), Nothing),
            (Some("FAILURE,DELAY"), &[Delayed], Delayed, Some(&deferred), Known),
            (Some("FAILURE,DELAY"), &[Delayed], Failed, Some(&failed), Tell),
            (Some("FAILURE,DELAY"), &[Failed], Failed, Some(&failed), Known),
            (Some("FAILURE,DELAY"), &[Failed], Delayed, Some(&deferred), Known),
            (Some("SUCCESS,FAILURE"), &[Failed], Relayed, Some(&delivered), Tell),
            (Some("SUCCESS,FAILURE"), &[Failed, Relayed], Relayed, Some(&delivered), Known),
        ] {
            let mut asked = RecipientRequest {
                notify: notify.map(|text| Notify::parse(text).expect(text)),
                ..RecipientRequest::default()
            };
            let notice = |action: &Action| Notice {
                action: *action,
                at: DateTime::UNIX_EPOCH,
                dsn: MailKey::parse("K"),
                note: None,
            };
            asked.told = told.iter().map(notice).collect();
            assert_eq!(answer(action, &asked, outcome), expected, "{notify:?} {told:?} {action:?} {outcome:?}");
        }
    }

    #[test]
    fn a_header_is_returned_as_it_is_or_cut_between_fields() {
        let short = b"A: 1\r\nB: 2\r\n 3\r\n\r\nbody\r\n";
        assert_eq!(header(short), b"A: 1\r\nB: 2\r\n 3\r\n");
        assert_eq!(header(b"A: 1\r\n"), b"A: 1\r\n");
        assert_eq!(header(b"\r\nbody"), b"");
        let folded = format!("A: 1\r\nB: {}\r\n", "x\r\n ".repeat(20_000));
        assert_eq!(header(folded.as_bytes()), b"A: 1\r\n");
        let many = "Some: field\r\n".repeat(10_000);
        let cut = header(many.as_bytes());
        assert!(cut.len() > MAX_RETURNED - 30 && cut.len() <= MAX_RETURNED && cut.ends_with(b"field\r\n"));
    }

    #[test]
    fn a_message_is_known_by_its_subject_and_numbers() {
        let row = b"From: a@x.example\r\nsubject : Minutes\r\n of\r\n\tMonday\r\nMESSAGE-ID:<1@x.example>\r\nSubject: no\r\n\r\nSubject: body";
        assert_eq!(field(row, "Subject").as_deref(), Some("Minutes of Monday"));
        assert_eq!(field(row, "Message-ID").as_deref(), Some("<1@x.example>"));
        assert_eq!(field(row, "To"), None);
        assert_eq!(field(b"Subject:\r\n\r\n", "Subject"), None, "an empty one says nothing");
        assert_eq!(field(b"Subject: \xff\r\n", "Subject").as_deref(), Some("\u{fffd}"));
    }
}
