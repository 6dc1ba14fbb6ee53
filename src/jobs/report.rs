//! Job kind `report`: a digest of new failures by cause, mailed to those who look after them.

mod message;

use super::config::Mailing;
use super::runner::{Order, Runner};
use super::sweep::Swept;
use crate::audit::Digest;
use crate::mail::{AttributeValue, Envelope, MailKey, RepositoryPath, ReversePath, attribute};
use crate::spool::{AcceptError, Submission};
use crate::store::{Error, Horizon, MailFilter, Pages, Place};
use message::Heading;

/// Mails what came to rest in `repository` since the last report, or with
/// [`Order::all_due`] all there is. Nothing new: no mail. `selected` is the number of mails
/// reported. None is left out; one is reported twice where a crash comes behind the report.
pub(super) async fn run(
    runner: &Runner<'_>,
    order: Order<'_>,
    repository: &RepositoryPath,
    mailing: Option<&Mailing>,
    within: Horizon,
    swept: &mut Swept,
) -> Result<(), Error> {
    let Some(mailing) = mailing else {
        tracing::warn!(job = order.job, "the report is off: its list 'to' is empty");
        return Ok(());
    };
    let beyond = if order.all_due { None } else { runner.store.reported(order.job).await? };
    let new = MailFilter { beyond, within: Some(within.clone()), ..MailFilter::default() };
    let Some(digest) = gather(runner, repository, new).await? else {
        swept.trouble = Some("the report was given up: a stop was asked for".to_owned());
        return Ok(());
    };
    if digest.mails > 0 {
        match send(runner, repository, mailing, &digest).await {
            Ok(key) => swept.born.push(key),
            Err(AcceptError::Store(error)) => return Err(error),
            Err(other) => {
                swept.trouble = Some(format!("the report cannot be mailed: {other}"));
                return Ok(());
            }
        }
    }
    runner.handled(digest.mails, swept);
    runner.store.note_reported(order.job, &within).await
}

/// `None` where the run was stopped.
async fn gather(runner: &Runner<'_>, repository: &RepositoryPath, new: MailFilter) -> Result<Option<Digest>, Error> {
    let mut digest = Digest::default();
    let place = Place::Repository(repository.clone());
    let mut pages = Pages::new(runner.store, place, new);
    while let Some(page) = pages.next().await? {
        if runner.is_stopped() {
            return Ok(None);
        }
        let mails: Vec<_> = page.iter().map(|listed| listed.mail.clone()).collect();
        let outcomes = runner.store.last_outcomes(&mails).await?;
        for (listed, outcomes) in page.iter().zip(outcomes) {
            let known: Vec<_> = outcomes.into_iter().flatten().collect();
            digest.add(listed, &known);
        }
    }
    let sums = runner.store.sums().await?;
    let here = sums.into_iter().find(|(place, _)| *place == Place::Repository(repository.clone()));
    digest.unacknowledged = here.map_or(0, |(_, sums)| sums.unacknowledged);
    digest.held_back = runner.store.dsn_counts().await?.held_lately;
    Ok(Some(digest))
}

async fn send(
    runner: &Runner<'_>,
    repository: &RepositoryPath,
    mailing: &Mailing,
    digest: &Digest,
) -> Result<MailKey, AcceptError> {
    let heading = Heading { mailing, now: runner.clock.now(), random: rand::random() };
    let message = message::compose(&heading, repository, digest);
    let mut incoming = runner.spool.incoming();
    incoming.write(message.as_bytes()).await?;
    let mut envelope = Envelope::new(ReversePath::Null, mailing.to.clone());
    // Only then the header has octets outside ASCII.
    envelope.smtputf8 = !message.is_ascii();
    let mut submission = Submission::from(envelope);
    submission.attributes.set(attribute::OWN_MESSAGE, AttributeValue::Boolean(true));
    incoming.accept(submission).await
}
