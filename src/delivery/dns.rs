//! Names: MX and addresses, each question asked once and its answer kept, so that a dead
//! name server costs a sweep a bounded time.
//!
//! A name out of a mail or out of the DNS is looked up as it is, from the root: the search
//! list would let whoever wrote it reach hosts of this network. It is for the names that
//! the operator wrote.

use std::collections::HashMap;
use std::future::Future;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hickory_resolver::proto::rr::{Name, RData, RecordType};
use tokio::sync::{OnceCell, Semaphore};
use tokio::time::Instant;
use tracing::{info, warn};

use super::config::DnsConfig;
use super::name_servers::{Manner, NameServers};
use super::system::{Stamp, System};

/// Questions under way at once.
const MAX_LOOKUPS: usize = 64;

/// After this long the root is asked for again.
const ASK_AGAIN: Duration = Duration::from_secs(5);

/// After this long the system's files are looked at again.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// For one query, and rounds over all servers, where nothing else is said.
const TIMEOUT: Duration = Duration::from_secs(5);
const ATTEMPTS: usize = 2;

/// Answers kept before expired ones are looked for; after that, twice as many as were left.
const PRUNE_ABOVE: usize = 10_000;

/// What the DNS says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer<T> {
    /// Records.
    Found(T),
    /// The name exists, but not with such records.
    NoData,
    /// NXDOMAIN.
    NoDomain,
    /// No answer that can be used.
    Trouble(Trouble),
}

impl<T> Answer<T> {
    /// Whether there is none, not even an error.
    fn is_silence(&self) -> bool {
        matches!(self, Self::Trouble(trouble) if trouble.whose != Whose::Theirs)
    }
}

/// Why there is no answer that can be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Trouble {
    /// In words, such as `SERVFAIL` or `timed out`.
    pub(super) cause: String,
    /// Who is to blame for it.
    pub(super) whose: Whose,
}

/// Whose fault it is that there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Whose {
    /// A name server has answered, with an error.
    Theirs,
    /// Nobody has answered.
    Unknown,
    /// The question could not be sent: out of descriptors, say.
    Ours,
}

/// An MX record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mx {
    /// Lower is better.
    pub(super) preference: u16,
    /// Without trailing dot; empty for the root, which is the null MX.
    pub(super) exchange: String,
}

/// The resolver and what it has learnt.
pub(super) struct Dns {
    config: DnsConfig,
    current: Mutex<Option<Current>>,
    lookups: Semaphore,
    keep_for: Option<Duration>,
    last_answer: Mutex<Option<Instant>>,
    /// One that could be used: records, or that there are none.
    last_use: Mutex<Option<Instant>>,
    /// When the root was asked for in vain.
    last_vain: Mutex<Option<Instant>>,
    mx: Memo<Answer<Vec<Mx>>>,
    addresses: Memo<Answer<Vec<IpAddr>>>,
}

/// What is in force, and when the system's files were last looked at.
struct Current {
    in_force: Arc<InForce>,
    looked: Instant,
    stamp: Stamp,
}

/// Whom to ask.
struct InForce {
    servers: NameServers,
    /// Where the configuration names no servers.
    system: Option<System>,
}

impl Dns {
    /// Looks at nothing yet: only deliveries need a resolver, and the system's files may
    /// come later than this program.
    pub(super) fn new(config: &DnsConfig, keep_for: Option<Duration>) -> Self {
        Self {
            config: config.clone(),
            current: Mutex::default(),
            lookups: Semaphore::new(MAX_LOOKUPS),
            keep_for,
            last_answer: Mutex::default(),
            last_use: Mutex::default(),
            last_vain: Mutex::default(),
            mx: Memo::new(keep_for),
            addresses: Memo::new(keep_for),
        }
    }

    /// Whom to ask now. What was learnt from others is forgotten once the files have changed.
    fn in_force(&self) -> Result<Arc<InForce>, String> {
        let mut current = lock(&self.current);
        let stamp = match &mut *current {
            Some(current) if !self.is_to_be_looked_at(current) => return Ok(Arc::clone(&current.in_force)),
            Some(current) => {
                current.looked = Instant::now();
                let stamp = Stamp::of(&self.config);
                if stamp == current.stamp {
                    return Ok(Arc::clone(&current.in_force));
                }
                stamp
            }
            None => Stamp::of(&self.config),
        };
        let in_force = Arc::new(InForce::make(&self.config)?);
        if current.is_some() {
            self.tell_of_change(&in_force);
            self.forget();
        }
        *current = Some(Current { in_force: Arc::clone(&in_force), looked: Instant::now(), stamp });
        Ok(in_force)
    }

    /// Before an answer that is kept: it may come from servers that are no longer asked.
    fn look_again(&self) {
        // Where it cannot be set up, the question says so.
        let _ = self.in_force();
    }

    fn is_to_be_looked_at(&self, current: &Current) -> bool {
        self.config.servers.is_empty() && current.looked.elapsed() >= LOOK_AGAIN
    }

    fn tell_of_change(&self, in_force: &InForce) {
        let path = &self.config.resolv_conf;
        info!("{} or {} has changed and was read again", path.display(), self.config.hosts.display());
        for warning in in_force.system.iter().flat_map(|system| system.warnings(path)) {
            warn!("{warning}");
        }
    }

    fn forget(&self) {
        self.mx.forget();
        self.addresses.forget();
        for last in [&self.last_answer, &self.last_use, &self.last_vain] {
            *lock(last) = None;
        }
    }

    /// Whether any name server has answered anything while answers are kept: in this sweep,
    /// or lately.
    pub(super) fn has_answered(&self) -> bool {
        self.is_recent(&self.last_answer)
    }

    /// Whether the name servers answer with errors alone: nothing that can be used came from
    /// them while answers are kept, and the root, which every resolver that works can look
    /// up, is an error too. One domain that is broken is not that.
    pub(super) async fn is_useless(&self) -> bool {
        if self.is_recent(&self.last_use) {
            return false;
        }
        let asked_lately = get(&self.last_vain).is_some_and(|vain| vain.elapsed() < ASK_AGAIN);
        if !asked_lately {
            // An answer that can be used is noted as one.
            self.ask("", RecordType::NS, |_| Some(())).await;
            if !self.is_recent(&self.last_use) {
                set(&self.last_vain);
            }
        }
        !self.is_recent(&self.last_use)
    }

    fn is_recent(&self, last: &Mutex<Option<Instant>>) -> bool {
        get(last).is_some_and(|last| self.keep_for.is_none_or(|keep_for| last.elapsed() < keep_for))
    }

    /// The MX records of `domain` (A-labels), in no order.
    pub(super) async fn mx(&self, domain: &str) -> Answer<Vec<Mx>> {
        self.look_again();
        self.mx
            .get(domain, async {
                self.ask(domain, RecordType::MX, |data| match data {
                    RData::MX(mx) => Some(Mx {
                        preference: mx.preference,
                        exchange: mx.exchange.to_ascii().trim_end_matches('.').to_ascii_lowercase(),
                    }),
                    _ => None,
                })
                .await
            })
            .await
    }

    /// The addresses of `host`, a name out of the DNS, IPv4 before IPv6. One family with
    /// addresses is enough, whatever became of the question for the other.
    pub(super) async fn addresses(&self, host: &str) -> Answer<Vec<IpAddr>> {
        // A name without a dot in the hosts' file is one of this network.
        let known = if host.contains('.') { self.in_hosts(host) } else { Vec::new() };
        if known.is_empty() { self.looked_up(host).await } else { Answer::Found(known) }
    }

    /// The addresses of `host` as the operator wrote it: in the hosts' file, or by the
    /// search list as resolv.conf(5) has it. A trailing dot makes it absolute.
    pub(super) async fn addresses_as_written(&self, host: &str) -> Answer<Vec<IpAddr>> {
        let known = self.in_hosts(host);
        if !known.is_empty() {
            return Answer::Found(known);
        }
        let mut worst = Answer::NoDomain;
        for candidate in self.candidates(host) {
            let answer = self.looked_up(&candidate).await;
            let goes_on = !matches!(&answer, Answer::Found(_)) && !answer.is_silence();
            worst = weightier(worst, answer);
            if !goes_on {
                break;
            }
        }
        worst
    }

    fn in_hosts(&self, host: &str) -> Vec<IpAddr> {
        let in_force = self.in_force().ok();
        in_force.and_then(|in_force| Some(in_force.system.as_ref()?.hosts.addresses(host))).unwrap_or_default()
    }

    fn candidates(&self, host: &str) -> Vec<String> {
        let in_force = self.in_force().ok();
        let searched = in_force.and_then(|in_force| Some(in_force.system.as_ref()?.resolv_conf.candidates(host)));
        searched.unwrap_or_else(|| vec![host.trim_end_matches('.').to_owned()])
    }

    async fn looked_up(&self, host: &str) -> Answer<Vec<IpAddr>> {
        self.look_again();
        self.addresses
            .get(host, async {
                let v4 = self.ask(host, RecordType::A, |data| match data {
                    RData::A(address) => Some(IpAddr::V4(address.0)),
                    _ => None,
                });
                if self.is_without_aaaa() {
                    return v4.await;
                }
                let v6 = self.ask(host, RecordType::AAAA, |data| match data {
                    RData::AAAA(address) => Some(IpAddr::V6(address.0)),
                    _ => None,
                });
                let (v4, v6) = tokio::join!(v4, v6);
                both_families(v4, v6)
            })
            .await
    }

    fn is_without_aaaa(&self) -> bool {
        self.in_force().is_ok_and(|in_force| in_force.system.as_ref().is_some_and(|system| system.resolv_conf.no_aaaa))
    }

    async fn ask<T>(&self, name: &str, kind: RecordType, pick: impl Fn(&RData) -> Option<T>) -> Answer<Vec<T>> {
        let Ok(name) = Name::from_ascii(format!("{name}.")) else { return Answer::NoDomain };
        let in_force = match self.in_force() {
            Ok(in_force) => in_force,
            Err(cause) => return Answer::Trouble(Trouble { cause, whose: Whose::Ours }),
        };
        let _permit = self.lookups.acquire().await;
        let mut answer = in_force.servers.ask(&name, kind, pick).await;
        match &mut answer {
            Answer::Trouble(trouble) if trouble.whose == Whose::Theirs => set(&self.last_answer),
            Answer::Trouble(trouble) => in_force.explain(trouble),
            _ => [&self.last_answer, &self.last_use].into_iter().for_each(set),
        }
        answer
    }
}

impl InForce {
    fn make(config: &DnsConfig) -> Result<Self, String> {
        let system = config.servers.is_empty().then(|| System::read(config));
        let said = system.as_ref().map(|system| &system.resolv_conf);
        let manner = Manner {
            timeout: config.timeout.or_else(|| said?.timeout).unwrap_or(TIMEOUT),
            attempts: config.attempts.or_else(|| said?.attempts).unwrap_or(ATTEMPTS).max(1),
            edns0: said.is_none_or(|said| said.edns0),
            tcp_only: said.is_some_and(|said| said.tcp_only),
        };
        let servers = system.as_ref().map_or_else(|| config.servers.clone(), |system| system.servers(config.port));
        Ok(Self { servers: NameServers::new(&servers, &manner)?, system })
    }

    /// Silence, where no name server is named, has that as its reason.
    fn explain(&self, trouble: &mut Trouble) {
        if let Some(why) = self.system.as_ref().and_then(|system| system.without_server.as_ref()) {
            trouble.cause = format!("{} ({why})", trouble.cause);
        }
    }
}

/// Of the answers for several forms of one name: addresses, else an error that may pass, else
/// that one of them exists.
fn weightier(one: Answer<Vec<IpAddr>>, other: Answer<Vec<IpAddr>>) -> Answer<Vec<IpAddr>> {
    let weight = |answer: &Answer<Vec<IpAddr>>| match answer {
        Answer::Found(_) => 3,
        Answer::Trouble(_) => 2,
        Answer::NoData => 1,
        Answer::NoDomain => 0,
    };
    if weight(&other) > weight(&one) { other } else { one }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn get(time: &Mutex<Option<Instant>>) -> Option<Instant> {
    *lock(time)
}

fn set(time: &Mutex<Option<Instant>>) {
    *lock(time) = Some(Instant::now());
}

fn both_families(v4: Answer<Vec<IpAddr>>, v6: Answer<Vec<IpAddr>>) -> Answer<Vec<IpAddr>> {
    match (v4, v6) {
        (Answer::Found(mut v4), Answer::Found(v6)) => {
            v4.extend(v6);
            Answer::Found(v4)
        }
        (Answer::Found(found), _) | (_, Answer::Found(found)) => Answer::Found(found),
        (Answer::Trouble(trouble), _) | (_, Answer::Trouble(trouble)) => Answer::Trouble(trouble),
        (Answer::NoDomain, Answer::NoDomain) => Answer::NoDomain,
        _ => Answer::NoData,
    }
}

/// Answers by name. Whoever asks while the question is under way waits for its answer.
struct Memo<T> {
    keep_for: Option<Duration>,
    kept: Mutex<Kept<T>>,
}

struct Kept<T> {
    by_name: HashMap<String, Asked<T>>,
    prune_above: usize,
}

impl<T> Default for Kept<T> {
    fn default() -> Self {
        Self { by_name: HashMap::new(), prune_above: PRUNE_ABOVE }
    }
}

/// When a question was asked, and its answer once there is one.
type Asked<T> = (Instant, Arc<OnceCell<T>>);

impl<T: Clone> Memo<T> {
    fn new(keep_for: Option<Duration>) -> Self {
        Self { keep_for, kept: Mutex::default() }
    }

    async fn get(&self, name: &str, look_up: impl Future<Output = T>) -> T {
        let cell = self.cell(name);
        cell.get_or_init(|| look_up).await.clone()
    }

    fn forget(&self) {
        *lock(&self.kept) = Kept::default();
    }

    fn cell(&self, name: &str) -> Arc<OnceCell<T>> {
        let now = Instant::now();
        let fresh = |asked: &Instant| self.keep_for.is_none_or(|keep_for| now.duration_since(*asked) < keep_for);
        let mut kept = lock(&self.kept);
        if let Some((_, cell)) = kept.by_name.get(name).filter(|(asked, _)| fresh(asked)) {
            return Arc::clone(cell);
        }
        if kept.by_name.len() > kept.prune_above {
            kept.by_name.retain(|_, (asked, _)| fresh(asked));
            kept.prune_above = PRUNE_ABOVE.max(2 * kept.by_name.len());
        }
        let cell = Arc::new(OnceCell::new());
        kept.by_name.insert(name.to_owned(), (now, Arc::clone(&cell)));
        cell
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_family_with_addresses_is_enough() {
        let found = |text: &str| Answer::Found(vec![text.parse::<IpAddr>().expect("address")]);
        let trouble = || Answer::Trouble(Trouble { cause: "SERVFAIL".into(), whose: Whose::Theirs });
        for (v4, v6, both) in [
            (found("192.0.2.1"), trouble(), found("192.0.2.1")),
            (trouble(), found("2001:db8::1"), found("2001:db8::1")),
            (Answer::NoData, trouble(), trouble()),
            (Answer::NoData, Answer::NoDomain, Answer::NoData),
            (Answer::NoDomain, Answer::NoDomain, Answer::NoDomain),
        ] {
            assert_eq!(both_families(v4, v6), both);
        }
    }

    #[tokio::test]
    async fn many_answers_that_are_kept_cost_the_next_question_nothing() {
        let memo = Memo::new(None);
        let ask = async |names: std::ops::Range<usize>| {
            let started = std::time::Instant::now();
            for name in names {
                memo.get(&name.to_string(), async { name }).await;
            }
            started.elapsed()
        };
        let first = ask(0..5_000).await;
        ask(5_000..2 * PRUNE_ABOVE).await;
        let last = ask(0..5_000).await;
        assert!(last < 20 * first, "{last:?} with {PRUNE_ABOVE} more in mind, {first:?} before");
    }

    #[tokio::test]
    async fn a_question_is_asked_once_and_again_when_its_answer_is_old() {
        let (kept, old) = (Memo::new(None), Memo::new(Some(Duration::ZERO)));
        for (memo, second) in [(&kept, 1), (&old, 2)] {
            assert_eq!(memo.get("a", async { 1 }).await, 1);
            assert_eq!(memo.get("a", async { 2 }).await, second);
            assert_eq!(memo.get("b", async { 3 }).await, 3);
        }
    }
}
