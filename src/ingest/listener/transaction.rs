//! What MAIL began: all the state that belongs to one mail, and nothing of another's.

use std::collections::HashMap;

use tracing::info;

use super::answer::Answer;
use super::session::Client;
use crate::mail::{Address, Envelope, MailKey, RecipientRequest, ReversePath};
use crate::smtp::MailParameters;

/// One transaction, open or not. Every end of it is [`Transaction::reset`].
#[derive(Debug)]
pub(super) struct Transaction {
    client: Client,
    /// Where a user is named in log lines.
    user: Option<String>,
    state: State,
}

#[derive(Debug, Default)]
struct State {
    reverse_path: Option<ReversePath>,
    /// What was said with MAIL.
    parameters: MailParameters,
    recipients: Vec<Address>,
    /// What is asked for each, by what makes them one mailbox.
    mailboxes: HashMap<String, RecipientRequest>,
    /// The first refusal, and how many there were.
    refusal: Option<String>,
    refused: usize,
    /// Octets of the message, where it came to that.
    size: u64,
}

impl Transaction {
    pub(super) fn new(client: Client) -> Self {
        Self { client, user: None, state: State::default() }
    }

    pub(super) fn set_user(&mut self, user: Option<String>) {
        self.user = user;
    }

    /// MAIL was taken.
    pub(super) fn open(&mut self, reverse_path: ReversePath, parameters: MailParameters) {
        self.state.reverse_path = Some(reverse_path);
        self.state.parameters = parameters;
    }

    pub(super) fn is_open(&self) -> bool {
        self.state.reverse_path.is_some()
    }

    /// Whether MAIL said SMTPUTF8.
    pub(super) fn is_smtputf8(&self) -> bool {
        self.state.parameters.smtputf8
    }

    pub(super) fn recipients(&self) -> &[Address] {
        &self.state.recipients
    }

    /// Whether somebody was named, and nobody taken.
    pub(super) fn refused_all(&self) -> bool {
        self.state.recipients.is_empty() && self.state.refused > 0
    }

    /// Takes recipients, each once, with what is asked for them; none of them, and false, where
    /// there would be more than `limit`.
    pub(super) fn add(&mut self, recipients: Vec<Address>, request: &RecipientRequest, limit: usize) -> bool {
        let state = &mut self.state;
        let (mut new, mut known) = (Vec::new(), Vec::new());
        for recipient in recipients {
            let mailbox = recipient.mailbox();
            if state.mailboxes.contains_key(&mailbox) {
                known.push(mailbox);
            } else if !new.iter().any(|(other, _)| *other == mailbox) {
                new.push((mailbox, recipient));
            }
        }
        if state.recipients.len() + new.len() > limit {
            return false;
        }
        for mailbox in known {
            state.mailboxes.entry(mailbox).and_modify(|there| there.join(request.clone()));
        }
        for (mailbox, recipient) in new {
            state.mailboxes.insert(mailbox, request.clone());
            state.recipients.push(recipient);
        }
        true
    }

    /// The message has come, or what there will be of it.
    pub(super) fn set_size(&mut self, octets: u64) {
        self.state.size = octets;
    }

    /// Something of it was refused; `why` in words for the log.
    pub(super) fn refuse(&mut self, why: impl std::fmt::Display) {
        self.state.refused += 1;
        self.state.refusal.get_or_insert_with(|| why.to_string().trim_end().to_owned());
    }

    /// Something of it was refused with this answer.
    pub(super) fn refuse_with(&mut self, answer: Answer) -> Answer {
        self.refuse(&answer);
        answer
    }

    /// What is submitted. `None` where MAIL was not said.
    pub(super) fn envelope(&self) -> Option<Envelope> {
        let reverse_path = self.state.reverse_path.clone()?;
        let State { parameters, recipients, mailboxes, .. } = &self.state;
        let mut envelope = Envelope::new(reverse_path, recipients.clone());
        envelope.smtputf8 = parameters.smtputf8;
        envelope.dsn.ret = parameters.ret;
        envelope.dsn.envid.clone_from(&parameters.envid);
        for recipient in recipients {
            let request = mailboxes.get(&recipient.mailbox()).cloned().unwrap_or_default();
            envelope.dsn.ask(recipient, request);
        }
        Some(envelope)
    }

    /// It became a mail: the one line of the log that says so.
    pub(super) fn accepted(&mut self, key: &MailKey) {
        info!(
            mail.id = %key,
            client = %self.client,
            user = self.user,
            reverse_path = self.state.reverse_path.as_ref().map(tracing::field::display),
            recipients = self.state.recipients.len(),
            refused = self.state.refused,
            // The first of them: the mail went on without it.
            reply = self.state.refusal.as_ref().map(|refusal| refusal.escape_debug().to_string()),
            size = self.state.size,
            "mail accepted"
        );
        self.state.refusal = None;
    }

    /// Ends it, however it went; what was refused and did not become a mail gets its line
    /// in the log. Nothing of it is left for the next.
    pub(super) fn reset(&mut self) {
        let ended = std::mem::take(&mut self.state);
        let Some(refusal) = ended.refusal else { return };
        info!(
            client = %self.client,
            user = self.user,
            reverse_path = ended.reverse_path.as_ref().map(tracing::field::display),
            recipients = ended.recipients.len(),
            refused = ended.refused,
            size = ended.size,
            reply = refusal.escape_debug().to_string(),
            "mail refused"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::{Notify, Ret};

    #[test]
    fn nothing_of_a_transaction_is_left_for_the_next() {
        let address = |text: &str| vec![Address::parse(text).expect("an address")];
        let mut transaction = Transaction::new(Client::User(1000));
        let asked = RecipientRequest { notify: Some(Notify::NEVER), ..RecipientRequest::default() };
        let nothing = RecipientRequest::default();
        let parameters = MailParameters { smtputf8: true, ret: Some(Ret::Full), ..MailParameters::default() };
        transaction.open(ReversePath::Null, parameters);
        assert!(transaction.add(address("a@x.example"), &asked, 2));
        assert!(transaction.add(address("a@X.example"), &asked, 2));
        assert!(transaction.add(address("b@x.example"), &asked, 2));
        assert!(!transaction.add(address("c@x.example"), &asked, 2));
        assert!(!transaction.add([address("b@x.example"), address("c@x.example")].concat(), &nothing, 2));
        assert!(transaction.add(address("b@x.example"), &nothing, 2), "who is there already is no further one");
        transaction.refuse("550 no");
        transaction.set_size(5);
        let envelope = transaction.envelope().expect("open");
        assert_eq!((envelope.recipients.len(), envelope.smtputf8, envelope.dsn.ret), (2, true, Some(Ret::Full)));
        let notify = |at: usize| envelope.dsn.of(&envelope.recipients[at]).notify;
        assert_eq!((notify(0), notify(1)), (Some(Notify::NEVER), None), "the second time nothing was asked for b");
        transaction.reset();
        let state = &transaction.state;
        assert!(!transaction.is_open() && transaction.envelope().is_none() && !transaction.refused_all());
        assert!(
            state.recipients.is_empty()
                && state.mailboxes.is_empty()
                && state.parameters == MailParameters::default()
                && state.size == 0
        );
    }
}
