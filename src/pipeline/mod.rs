//! Processors: what happens to a mail, as pairs of matcher and mailet.
//!
//! [`Pipeline::run`] takes a mail from the processor that its `state` names to its ends,
//! splitting it by recipients on the way. Knows no store: what must be durable before
//! contact goes through the [`Checkpoint`] that the caller gives.

mod add_header;
mod check;
mod config;
mod dkim_sign;
mod dsn_bounce;
mod log_message;
mod mail_attribute;
mod mailet;
mod matcher;
mod metrics_mailet;
mod null;
mod on_exception;
mod part;
mod pattern;
mod remote_delivery;
mod run;
mod set_error_message;
mod set_reverse_path;
mod silence;
mod telling;
#[cfg(test)]
mod tests;
mod to_processor;
mod to_repository;
mod vain;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use chrono::{DateTime, Utc};

use crate::delivery::{self, Checkpoint, Explanation, Peer};
use crate::dkim::Signatory;
use crate::mail::{Address, Attributes, Mail, MailKey, NewDsn, Recorded, RepositoryPath, attribute};

pub use config::{Config, ERROR_PROCESSOR, repository};
pub use dsn_bounce::notifier;
pub use matcher::{check_matcher, is_matcher};
#[cfg(test)]
pub(crate) use part::tests::mail as test_mail;
pub use remote_delivery::Deliver;
pub use silence::{Silence, Taker, Untold};
use telling::Telling;
pub use telling::{Addressees, Notifications};
pub use vain::{Kept, Vain};

/// What a pass needs of its caller: what an attempt needs, and the record of earlier ones.
#[async_trait]
pub trait Backing: Checkpoint {
    /// The last outcome on record of each recipient of a part of the mail, in their order.
    async fn last_outcomes(&self, part: &Mail) -> Vec<Option<Recorded>> {
        vec![None; part.envelope.recipients.len()]
    }
}

/// Where a part of a mail came to its end, and why there.
#[derive(Debug)]
pub struct Disposition {
    /// The part: recipients, attributes, state and error as it ended.
    ///
    /// At most one part that stays or rests keeps the key: the one that stays, else the
    /// deferred one, else the first in configuration order. Other parts that rest have a
    /// new key and the old one as origin. What is delivered or dropped has the old key,
    /// since it names the mail whose recipients are done.
    pub mail: Mail,
    /// Where it is to be.
    pub end: End,
    /// How its recipients count in a run.
    pub verdict: Verdict,
    /// Outcomes of an attempt that does not count; only where it stays.
    pub uncounted: Vec<Recorded>,
    /// Notifications of what became of it and of the other parts: they come to the spool with
    /// its end, or not at all.
    pub born: Vec<NewDsn>,
}

/// A place for a part of a mail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// Its recipients have it.
    Delivered,
    /// At rest in a repository.
    Repository(RepositoryPath),
    /// Taken out by mailet `Null`.
    Dropped,
    /// Back where it was taken from, unchanged and uncounted: a stop, or trouble of our
    /// own with its cause.
    Stay(Option<String>),
}

/// How a part's recipients count in a run's result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Delivered.
    Delivered,
    /// Kept for a next pass.
    Deferred,
    /// Refused for good.
    Failed,
    /// Failed for good because the limit of passes is used up.
    Promoted,
    /// In an error repository, or left where it was by trouble of our own.
    Error,
    /// Left where it was by a stop or a deadline.
    Left,
    /// A copy that `passThrough` set aside: its recipients count where the original ends.
    Copy,
}

/// The processors, ready to run.
pub struct Pipeline {
    config: Config,
    deliveries: Vec<Arc<dyn Deliver>>,
    /// In whose names is signed, by those names.
    signatories: BTreeMap<String, Arc<Signatory>>,
    /// Who signs what redeliver writes itself.
    own: Option<Arc<Signatory>>,
    /// What notifications have in common.
    notifications: Notifications,
}

/// One mail's way through the processors.
struct Pass<'a> {
    pipeline: &'a Pipeline,
    backing: &'a dyn Backing,
    now: DateTime<Utc>,
    /// Makes keys.
    new_key: &'a (dyn Fn() -> MailKey + Sync),
    telling: Mutex<Telling>,
}

impl Pass<'_> {
    /// What makes the attempts of the `RemoteDelivery` with this number.
    fn deliver(&self, number: usize) -> &dyn Deliver {
        self.pipeline.deliveries[number].as_ref()
    }

    /// What there is to tell so far.
    fn telling(&self) -> MutexGuard<'_, Telling> {
        self.telling.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes outcomes of this pass, where a rule may tell of them.
    fn heard(&self, outcomes: &[Recorded]) {
        if self.pipeline.config.tells() {
            self.telling().heard(outcomes);
        }
    }
}

impl Pipeline {
    /// Processors as configured; `deliver` makes what carries out each `RemoteDelivery`.
    ///
    /// # Errors
    /// What `deliver` says of settings that cannot be carried out.
    pub fn new(
        config: Config,
        deliver: impl Fn(&delivery::Config) -> Result<Arc<dyn Deliver>, String>,
    ) -> Result<Self, String> {
        let deliveries = config.deliveries().into_iter().map(deliver).collect::<Result<_, _>>()?;
        let signatories = config.signatories().map(|signatory| (signatory.name(), Arc::clone(signatory))).collect();
        Ok(Self { config, deliveries, signatories, own: None, notifications: Notifications::default() })
    }

    /// With this in all notifications.
    #[must_use]
    pub fn notifying(self, notifications: Notifications) -> Self {
        Self { notifications, ..self }
    }

    /// What all notifications have in common.
    pub fn notifications(&self) -> &Notifications {
        &self.notifications
    }

    /// With this one to sign what redeliver writes itself.
    #[must_use]
    pub fn signing_own(self, own: Option<Arc<Signatory>>) -> Self {
        Self { own, ..self }
    }

    /// Who signs a mail with these attributes when it is sent.
    fn signatories(&self, attributes: &Attributes) -> Vec<Arc<Signatory>> {
        let marked = attributes.text(attribute::DKIM_SIGN).unwrap_or_default();
        let marked = marked.split(',').filter_map(|name| self.signatories.get(name));
        let is_own =
            attributes.boolean(attribute::OWN_MESSAGE).unwrap_or(false) || attributes.get(attribute::DSN).is_some();
        let mut found: Vec<Arc<Signatory>> = marked.chain(self.own.as_ref().filter(|_| is_own)).cloned().collect();
        found.sort_by_key(|signatory| signatory.name());
        found.dedup_by_key(|signatory| signatory.name());
        found
    }

    /// What each `RemoteDelivery` would do for each of `recipients`.
    pub async fn explain(&self, recipients: &[Address]) -> Vec<Explanation> {
        let mut explained = Vec::new();
        for recipient in recipients {
            for delivery in &self.deliveries {
                explained.extend(delivery.explain(recipient).await);
            }
        }
        explained
    }

    /// How many attempts wait for a connection.
    pub fn waiting(&self) -> usize {
        self.deliveries.iter().map(|delivery| delivery.waiting()).sum()
    }

    /// How many of them for `next_hop`.
    pub fn waiting_for(&self, next_hop: &str) -> usize {
        self.deliveries.iter().map(|delivery| delivery.waiting_for(next_hop)).sum()
    }

    /// Whether a rule sets copies aside: what was done of a pass then shows, though it ends with
    /// nothing attempted.
    pub fn sets_copies_aside(&self) -> bool {
        self.config.sets_copies_aside()
    }

    /// The next hops that were seen lately, with what is known of them, for each `RemoteDelivery`.
    pub fn peers(&self) -> Vec<Peer> {
        self.deliveries.iter().flat_map(|delivery| delivery.peers()).collect()
    }

    /// Ends the sessions that were kept open for further mails.
    pub async fn close(&self) {
        for delivery in &self.deliveries {
            delivery.close().await;
        }
    }

    /// The configuration it was made of.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// What every `MetricsMailet` has counted in this process, by name.
    pub fn metrics(&self) -> BTreeMap<&str, u64> {
        self.config.metrics()
    }

    /// Runs `mail` from the processor its state names to its ends; every recipient is in
    /// exactly one disposition that is no copy. `new_key` names the parts of a split.
    pub async fn run(
        &self,
        mail: Mail,
        backing: &dyn Backing,
        now: DateTime<Utc>,
        new_key: &(dyn Fn() -> MailKey + Sync),
    ) -> Vec<Disposition> {
        let pass = Pass { pipeline: self, backing, now, new_key, telling: Mutex::default() };
        let ended = run::to_its_ends(mail.clone(), &pass).await;
        let mut dispositions = run::dispositions(ended, &mail, now, new_key);
        pass.bear(&mail, &mut dispositions).await;
        dispositions
    }
}
