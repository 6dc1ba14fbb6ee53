//! What a configuration does with the mail: the real configuration and the real pipeline,
//! with attempts that follow a script.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use chrono::DateTime;

use super::container::RECIPIENTS;
use super::write_files;
use crate::config::{self, Source};
use crate::delivery::{Attempted, Checkpoint, Content, MemoryContent, NotBegun, Request};
use crate::jobs;
use crate::mail::{Address, Attributes, DialogueEntry, Mail, MailKey, Outcome, Planned, Recorded, Stage};
use crate::pipeline::{self, Deliver, End, Pipeline, Verdict};

/// A configuration that was loaded.
pub(super) struct Ours {
    config: config::Config,
    /// The repositories that a job sweeps, with the processor that it takes their mail through.
    pub(super) jobs: BTreeMap<String, String>,
}

/// What became of the mail to a recipient.
#[derive(Debug, Default, Clone)]
pub(super) struct Fate {
    /// The peers that tried.
    pub(super) reached: BTreeSet<String>,
    /// It, or a copy, was kept; or it was delivered.
    cared_for: bool,
}

impl Fate {
    /// Whether it was deleted and nobody knows.
    pub(super) fn is_lost(&self) -> bool {
        !self.cared_for
    }
}

type Tried = Arc<Mutex<Vec<(String, String)>>>;

/// A peer that answers by the first letter of the recipient.
struct Peer {
    name: String,
    tried: Tried,
}

#[async_trait]
impl Deliver for Peer {
    async fn attempt(&self, request: Request, checkpoint: &dyn Checkpoint) -> Attempted {
        checkpoint.begin(&request.attributes, &[]).await.expect("the test's checkpoint says yes");
        let names = request.recipients.iter().map(|to| (self.name.clone(), to.to_string()));
        self.tried.lock().expect("no panic").extend(names);
        Attempted::Done(request.recipients.iter().map(answer).collect())
    }
}

fn answer(recipient: &Address) -> Recorded {
    let outcome = match recipient.local_part().chars().next() {
        Some('d') => Outcome::Delivered,
        Some('f') => Outcome::Failed,
        _ => Outcome::Deferred,
    };
    Recorded::without_contact(recipient.clone(), outcome, Stage::Rcpt, "scripted".into(), DateTime::UNIX_EPOCH)
}

struct Nothing;

impl crate::pipeline::Backing for Nothing {}

#[async_trait]
impl Checkpoint for Nothing {
    async fn begin(&self, _: &Attributes, _: &[Planned]) -> Result<(), NotBegun> {
        Ok(())
    }
    async fn record(&self, _: &[Recorded], _: &[DialogueEntry]) {}
    fn content(&self) -> Arc<dyn Content> {
        Arc::new(MemoryContent(b"Subject: x\r\n\r\nx\r\n".to_vec().into()))
    }
}

impl Ours {
    /// `None` where the configuration is refused.
    pub(super) fn load(yaml: &str) -> Option<Self> {
        let folder = tempfile::tempdir().expect("a folder");
        write_files(yaml, folder.path());
        let config = config::load(&Source::File(folder.path().join("redeliver.yaml"))).ok()?;
        let jobs = config.jobs.values().filter_map(|job| match job {
            jobs::Config::Reprocess(job) => Some((job.repository.to_string(), job.processor.clone())),
            _ => None,
        });
        let jobs = jobs.collect();
        Some(Self { config, jobs })
    }

    /// A mail to all recipients, taken round by the jobs until it rests: their fates in order.
    pub(super) fn run(&self, null_sender: bool) -> Vec<Fate> {
        let tried = Tried::default();
        let peer = |delivery: &crate::delivery::Config| -> Result<Arc<dyn Deliver>, String> {
            Ok(Arc::new(Peer { name: delivery.outgoing.clone(), tried: Arc::clone(&tried) }))
        };
        let pipeline = Pipeline::new(self.config.processors.clone(), peer).expect("a pipeline");
        let mut mail = pipeline::test_mail(if null_sender { "<>" } else { "s@z.example" }, &RECIPIENTS);
        self.config.smtp.processor.clone_into(&mut mail.state);
        let mut fates: BTreeMap<String, Fate> = BTreeMap::new();
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(self.passes(&pipeline, mail, &mut fates));
        for (peer, recipient) in tried.lock().expect("no panic").iter() {
            fates.entry(recipient.clone()).or_default().reached.insert(peer.clone());
        }
        RECIPIENTS.iter().map(|recipient| fates.get(*recipient).cloned().unwrap_or_default()).collect()
    }

    async fn passes(&self, pipeline: &Pipeline, mail: Mail, fates: &mut BTreeMap<String, Fate>) {
        let next = AtomicU64::new(0);
        let new_key = || MailKey::parse(&format!("NEW{}", next.fetch_add(1, Ordering::Relaxed))).expect("a key");
        let mut waiting = vec![(mail, 0)];
        while let Some((mail, passes)) = waiting.pop() {
            for end in pipeline.run(mail, &Nothing, DateTime::UNIX_EPOCH, &new_key).await {
                if !matches!(end.end, End::Dropped) {
                    for recipient in &end.mail.envelope.recipients {
                        fates.entry(recipient.to_string()).or_default().cared_for |=
                            self.is_an_end(&end.end, end.verdict, passes);
                    }
                }
                if let (End::Repository(path), false) = (&end.end, end.verdict == Verdict::Copy)
                    && let Some(processor) = self.jobs.get(path.as_str()).filter(|_| passes < MOST_PASSES)
                {
                    let mut mail = end.mail;
                    processor.clone_into(&mut mail.state);
                    waiting.push((mail, passes + 1));
                }
            }
        }
    }

    /// Whether the mail rests, and no job takes it round again.
    fn is_an_end(&self, end: &End, verdict: Verdict, passes: usize) -> bool {
        let swept = matches!(end, End::Repository(path) if self.jobs.contains_key(path.as_str()));
        !swept || verdict == Verdict::Copy || passes >= MOST_PASSES
    }
}

/// More than any limit of a generated container.
const MOST_PASSES: usize = 12;
