//! Names: MX and addresses, each question asked once and its answer kept, so that a dead
//! name server costs a sweep a bounded time.

use std::collections::HashMap;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts};
use hickory_resolver::lookup::Lookup;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use hickory_resolver::system_conf;
use nix::errno::Errno;
use tokio::sync::{OnceCell, Semaphore};
use tokio::time::Instant;

use super::config::DnsConfig;

/// Questions under way at once.
const MAX_LOOKUPS: usize = 64;

/// After this long the root is asked for again.
const ASK_AGAIN: Duration = Duration::from_secs(5);

/// Answers kept before expired ones are looked for.
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
    /// Whether a name server has answered, with an error.
    fn is_error(&self) -> bool {
        matches!(self, Self::Trouble(trouble) if trouble.whose == Whose::Theirs)
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
    Nobodys,
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
    resolver: TokioResolver,
    /// Where there are several name servers, each by itself.
    each: Vec<TokioResolver>,
    /// Names without a dot are looked up in the system's search domains.
    searches: bool,
    /// No question takes longer than this.
    budget: Duration,
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

impl Dns {
    /// # Errors
    /// A sentence where the system's resolver configuration cannot be read.
    pub(super) fn new(config: &DnsConfig, keep_for: Option<Duration>) -> Result<Self, String> {
        let attempts = config.attempts.max(1);
        let (resolver, each) =
            resolvers(config, attempts).map_err(|error| format!("the resolver cannot be set up: {error}"))?;
        Ok(Self {
            resolver,
            each,
            searches: config.servers.is_empty(),
            budget: config.timeout * u32::try_from(attempts).unwrap_or(u32::MAX) + Duration::from_secs(1),
            lookups: Semaphore::new(MAX_LOOKUPS),
            keep_for,
            last_answer: Mutex::default(),
            last_use: Mutex::default(),
            last_vain: Mutex::default(),
            mx: Memo::new(keep_for),
            addresses: Memo::new(keep_for),
        })
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

    /// The addresses of `host`, IPv4 before IPv6. One family with addresses is enough,
    /// whatever became of the question for the other.
    pub(super) async fn addresses(&self, host: &str) -> Answer<Vec<IpAddr>> {
        self.addresses
            .get(host, async {
                let v4 = self.ask(host, RecordType::A, |data| match data {
                    RData::A(address) => Some(IpAddr::V4(address.0)),
                    _ => None,
                });
                let v6 = self.ask(host, RecordType::AAAA, |data| match data {
                    RData::AAAA(address) => Some(IpAddr::V6(address.0)),
                    _ => None,
                });
                let (v4, v6) = tokio::join!(v4, v6);
                both_families(v4, v6)
            })
            .await
    }

    async fn ask<T>(&self, name: &str, kind: RecordType, pick: impl Fn(&RData) -> Option<T>) -> Answer<Vec<T>> {
        let Ok(name) = self.absolute(name) else { return Answer::NoDomain };
        let _permit = self.lookups.acquire().await;
        let mut answer = self.look_up(&self.resolver, &name, kind, &pick).await;
        // Of several servers an error may be the first to come, whatever the others know.
        for one in &self.each {
            if !answer.is_error() {
                break;
            }
            let other = self.look_up(one, &name, kind, &pick).await;
            if !matches!(other, Answer::Trouble(_)) {
                answer = other;
            }
        }
        match &answer {
            answer if answer.is_error() => set(&self.last_answer),
            Answer::Trouble(_) => {}
            _ => [&self.last_answer, &self.last_use].into_iter().for_each(set),
        }
        answer
    }

    async fn look_up<T>(
        &self,
        resolver: &TokioResolver,
        name: &Name,
        kind: RecordType,
        pick: impl Fn(&RData) -> Option<T>,
    ) -> Answer<Vec<T>> {
        match tokio::time::timeout(self.budget, resolver.lookup(name.clone(), kind)).await {
            Err(_) => Answer::Trouble(Trouble { cause: "timed out".to_owned(), whose: Whose::Nobodys }),
            Ok(Err(error)) => without_records(&error),
            Ok(Ok(lookup)) => {
                let records: Vec<T> = belonging(&lookup).filter_map(|record| pick(&record.data)).collect();
                // A CNAME that leads nowhere leaves an answer without what was asked for.
                if records.is_empty() { Answer::NoData } else { Answer::Found(records) }
            }
        }
    }

    /// `name` from the root, so that no search domain is appended; a single label is left
    /// to the system's search domains.
    fn absolute(&self, name: &str) -> Result<Name, ()> {
        let relative = self.searches && !name.contains('.');
        let text = if relative { name.to_owned() } else { format!("{name}.") };
        Name::from_ascii(text).map_err(|_| ())
    }
}

fn get(time: &Mutex<Option<Instant>>) -> Option<Instant> {
    *time.lock().unwrap_or_else(PoisonError::into_inner)
}

fn set(time: &Mutex<Option<Instant>>) {
    *time.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
}

/// The resolver that asks all name servers, and one for each where there are several.
fn resolvers(config: &DnsConfig, attempts: usize) -> Result<(TokioResolver, Vec<TokioResolver>), NetError> {
    let (all, mut options) = if config.servers.is_empty() {
        system_conf::read_system_conf()?
    } else {
        let mut options = ResolverOpts::default();
        options.use_hosts_file = ResolveHosts::Never;
        let servers = config.servers.iter().copied().map(name_server).collect();
        (ResolverConfig::from_parts(None, Vec::new(), servers), options)
    };
    options.timeout = config.timeout;
    // The crate counts what follows the first query.
    options.attempts = attempts - 1;
    // Answers are kept here, where failures are too; a domain that is set up again is to
    // be seen by the next sweep.
    options.cache_size = 0;
    let build = |config: ResolverConfig| {
        let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        *builder.options_mut() = options.clone();
        builder.build()
    };
    let one = |server: &NameServerConfig| {
        build(ResolverConfig::from_parts(all.domain().cloned(), all.search().to_vec(), vec![server.clone()]))
    };
    let several = if all.name_servers().len() > 1 { all.name_servers() } else { &[] };
    let each = several.iter().map(one).collect::<Result<_, _>>()?;
    Ok((build(all)?, each))
}

fn name_server(server: SocketAddr) -> NameServerConfig {
    let on_port = |mut connection: ConnectionConfig| {
        connection.port = server.port();
        connection
    };
    let connections = vec![on_port(ConnectionConfig::udp()), on_port(ConnectionConfig::tcp())];
    NameServerConfig::new(server.ip(), true, connections)
}

/// The records of the name that was asked for, or of the one its aliases lead to: a server
/// may send along others, which would let one domain speak for another.
fn belonging(lookup: &Lookup) -> impl Iterator<Item = &Record> {
    let mut owners = vec![lookup.query().name()];
    lookup.answers().iter().filter(move |record| {
        let belongs = owners.contains(&&record.name);
        if let (RData::CNAME(target), true) = (&record.data, belongs) {
            owners.push(&target.0);
        }
        belongs
    })
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

/// What a failed lookup means.
fn without_records<T>(error: &NetError) -> Answer<T> {
    let trouble = |cause: String, whose| Answer::Trouble(Trouble { cause, whose });
    match error {
        NetError::Dns(DnsError::NoRecordsFound(none)) => match none.response_code {
            ResponseCode::NXDomain => Answer::NoDomain,
            ResponseCode::NoError => Answer::NoData,
            code => trouble(name_of(code), Whose::Theirs),
        },
        NetError::Dns(DnsError::ResponseCode(ResponseCode::NXDomain)) => Answer::NoDomain,
        NetError::Dns(DnsError::ResponseCode(code)) => trouble(name_of(*code), Whose::Theirs),
        NetError::Dns(error) => trouble(error.to_string(), Whose::Theirs),
        NetError::Truncated => trouble("a truncated answer, and none over TCP".to_owned(), Whose::Theirs),
        NetError::Timeout => trouble("timed out".to_owned(), Whose::Nobodys),
        NetError::Io(error) if !is_out_of_descriptors(error) => {
            trouble("no name server could be reached".to_owned(), Whose::Nobodys)
        }
        // The crate has this for what it could not even open a socket for.
        NetError::NoConnections | NetError::Io(_) => {
            trouble("no socket for a question to a name server can be opened".to_owned(), Whose::Ours)
        }
        // What cannot be read may come from anybody.
        other => trouble(other.to_string(), Whose::Nobodys),
    }
}

fn is_out_of_descriptors(error: &std::io::Error) -> bool {
    matches!(error.raw_os_error().map(Errno::from_raw), Some(Errno::EMFILE | Errno::ENFILE))
}

/// As operators know it: `SERVFAIL`, `REFUSED`.
fn name_of(code: ResponseCode) -> String {
    format!("{code:?}").to_uppercase()
}

/// Answers by name. Whoever asks while the question is under way waits for its answer.
struct Memo<T> {
    keep_for: Option<Duration>,
    kept: Mutex<HashMap<String, Asked<T>>>,
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

    fn cell(&self, name: &str) -> Arc<OnceCell<T>> {
        let now = Instant::now();
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = |asked: &Instant| self.keep_for.is_none_or(|keep_for| now.duration_since(*asked) < keep_for);
        if kept.len() > PRUNE_ABOVE {
            kept.retain(|_, (asked, _)| fresh(asked));
        }
        match kept.get(name) {
            Some((asked, cell)) if fresh(asked) => Arc::clone(cell),
            _ => {
                let cell = Arc::new(OnceCell::new());
                kept.insert(name.to_owned(), (now, Arc::clone(&cell)));
                cell
            }
        }
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

    #[test]
    fn a_question_that_could_not_be_sent_is_our_own_trouble() {
        let io = |code: Errno| NetError::from(std::io::Error::from_raw_os_error(code as i32));
        for (error, whose) in [
            (NetError::Timeout, Whose::Nobodys),
            (io(Errno::ECONNREFUSED), Whose::Nobodys),
            (io(Errno::EMFILE), Whose::Ours),
            (NetError::NoConnections, Whose::Ours),
            (NetError::Truncated, Whose::Theirs),
        ] {
            let Answer::Trouble(trouble) = without_records::<()>(&error) else { panic!("{error}") };
            assert_eq!(trouble.whose, whose, "{error}");
        }
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
