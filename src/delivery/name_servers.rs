//! Asking name servers: each in its turn, and none left out before a question is given up.
//!
//! The first of them is asked first, as resolv.conf(5) has it, but for those that were
//! silent lately: a dead one costs the questions of a sweep one time-out and not one each.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use hickory_resolver::Resolver;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts};
use hickory_resolver::lookup::Lookup;
use hickory_resolver::net::runtime::{DnsUdpSocket, RuntimeProvider, TokioRuntimeProvider, TokioTime};
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use nix::errno::Errno;
use tokio::net::UdpSocket;
use tokio::time::Instant;

use super::dns::{Answer, Trouble, Whose};

/// So long a server that was silent is asked after the others.
const SILENT_FOR: Duration = Duration::from_secs(30);

/// How questions are asked.
pub(super) struct Manner {
    /// For one query.
    pub(super) timeout: Duration,
    /// Rounds over all servers, at least 1.
    pub(super) attempts: usize,
    /// Long answers are welcome.
    pub(super) edns0: bool,
    /// Never over UDP.
    pub(super) tcp_only: bool,
}

/// All name servers.
pub(super) struct NameServers {
    servers: Vec<NameServer>,
    attempts: usize,
    /// No server has longer for one question and what its answer leads to.
    patience: Duration,
}

struct NameServer {
    /// Asks with EDNS, where that is wanted.
    edns: Option<Resolver<ByInterface>>,
    /// Asks without it: not every server and firewall bears it.
    plain: Resolver<ByInterface>,
    /// It answers questions without EDNS alone.
    bears_no_edns: AtomicBool,
    silent: Mutex<Option<Instant>>,
}

impl NameServers {
    /// # Errors
    /// A sentence of the resolver.
    pub(super) fn new(servers: &[SocketAddr], manner: &Manner) -> Result<Self, String> {
        let servers = servers.iter().map(|&server| NameServer::new(server, manner)).collect::<Result<_, _>>();
        Ok(Self {
            servers: servers.map_err(|error| format!("the resolver cannot be set up: {error}"))?,
            attempts: manner.attempts,
            patience: manner.timeout + Duration::from_secs(1),
        })
    }

    /// Asks until one has an answer that can be used. An error may be the first to come,
    /// whatever the others know.
    pub(super) async fn ask<T>(
        &self,
        name: &Name,
        kind: RecordType,
        pick: impl Fn(&RData) -> Option<T>,
    ) -> Answer<Vec<T>> {
        let mut trouble = None;
        for round in 0..self.attempts {
            for server in self.in_order() {
                match server.ask(name, kind, round, self.patience, &pick).await {
                    Answer::Trouble(found) => trouble = Some(weightier(trouble, found)),
                    answer => return answer,
                }
            }
        }
        let nobody = || Trouble { cause: "there is no name server".to_owned(), whose: Whose::Ours };
        Answer::Trouble(trouble.unwrap_or_else(nobody))
    }

    fn in_order(&self) -> Vec<&NameServer> {
        let mut servers: Vec<_> = self.servers.iter().collect();
        servers.sort_by_key(|server| server.is_silent());
        servers
    }
}

/// Of two troubles the one that says more: an answer, then what kept us from asking.
fn weightier(one: Option<Trouble>, other: Trouble) -> Trouble {
    let weight = |trouble: &Trouble| match trouble.whose {
        Whose::Theirs => 2,
        Whose::Ours => 1,
        Whose::Unknown => 0,
    };
    match one {
        Some(one) if weight(&one) >= weight(&other) => one,
        _ => other,
    }
}

impl NameServer {
    fn new(server: SocketAddr, manner: &Manner) -> Result<Self, NetError> {
        let edns = manner.edns0.then(|| resolver(server, manner, true)).transpose()?;
        let plain = resolver(server, manner, false)?;
        Ok(Self { edns, plain, bears_no_edns: AtomicBool::default(), silent: Mutex::default() })
    }

    async fn ask<T>(
        &self,
        name: &Name,
        kind: RecordType,
        round: usize,
        patience: Duration,
        pick: impl Fn(&RData) -> Option<T>,
    ) -> Answer<Vec<T>> {
        let with_edns = !self.bears_no_edns.load(Ordering::Relaxed) && (round == 0 || !self.is_silent());
        let answer = self.ask_with(with_edns, name, kind, patience, pick).await;
        let is_silent = matches!(&answer, Answer::Trouble(trouble) if trouble.whose == Whose::Unknown);
        *self.silent.lock().unwrap_or_else(PoisonError::into_inner) = is_silent.then(Instant::now);
        answer
    }

    /// Asks, and once more without EDNS where it may be that which the server does not bear: at
    /// once where it says so (RFC 6891 section 7), in the next round where it says nothing.
    async fn ask_with<T>(
        &self,
        with_edns: bool,
        name: &Name,
        kind: RecordType,
        patience: Duration,
        pick: impl Fn(&RData) -> Option<T>,
    ) -> Answer<Vec<T>> {
        if let Some(edns) = self.edns.as_ref().filter(|_| with_edns) {
            let answer = asked(edns, name, kind, patience, &pick).await;
            if !is_without_edns(&answer) {
                return answer;
            }
        }
        let answer = asked(&self.plain, name, kind, patience, pick).await;
        self.bears_no_edns.store(!matches!(answer, Answer::Trouble(_)), Ordering::Relaxed);
        answer
    }

    fn is_silent(&self) -> bool {
        let silent = *self.silent.lock().unwrap_or_else(PoisonError::into_inner);
        silent.is_some_and(|silent| silent.elapsed() < SILENT_FOR)
    }
}

/// What asks one server.
fn resolver(server: SocketAddr, manner: &Manner, edns0: bool) -> Result<Resolver<ByInterface>, NetError> {
    let on_port = |mut connection: ConnectionConfig| {
        connection.port = server.port();
        connection
    };
    let udp = (!manner.tcp_only).then(|| on_port(ConnectionConfig::udp()));
    let connections = udp.into_iter().chain([on_port(ConnectionConfig::tcp())]).collect();
    let config = NameServerConfig::new(server.ip(), true, connections);
    let scope = if let SocketAddr::V6(server) = server { server.scope_id() } else { 0 };
    let provider = ByInterface { tokio: TokioRuntimeProvider::default(), scope };
    let config = ResolverConfig::from_parts(None, Vec::new(), vec![config]);
    let mut builder = Resolver::builder_with_config(config, provider);
    let options = builder.options_mut();
    set(options, manner);
    options.edns0 = edns0;
    builder.build()
}

async fn asked<T>(
    resolver: &Resolver<ByInterface>,
    name: &Name,
    kind: RecordType,
    patience: Duration,
    pick: impl Fn(&RData) -> Option<T>,
) -> Answer<Vec<T>> {
    match tokio::time::timeout(patience, resolver.lookup(name.clone(), kind)).await {
        Err(_) => Answer::Trouble(Trouble { cause: "timed out".to_owned(), whose: Whose::Unknown }),
        Ok(Err(error)) => without_records(&error),
        Ok(Ok(lookup)) => {
            let records: Vec<T> = belonging(&lookup).filter_map(|record| pick(&record.data)).collect();
            // A CNAME that leads nowhere leaves an answer without what was asked for.
            if records.is_empty() { Answer::NoData } else { Answer::Found(records) }
        }
    }
}

/// Whether a server says that it does not understand a question with EDNS.
fn is_without_edns<T>(answer: &Answer<T>) -> bool {
    matches!(answer, Answer::Trouble(trouble) if ["FORMERR", "NOTIMP", "BADVERS"].contains(&trouble.cause.as_str()))
}

fn set(options: &mut ResolverOpts, manner: &Manner) {
    options.timeout = manner.timeout;
    options.use_hosts_file = ResolveHosts::Never;
    // The crate counts what follows the first query; rounds are ours.
    options.attempts = 0;
    // Answers are kept above, where failures are too; a domain that is set up again is to
    // be seen by the next sweep.
    options.cache_size = 0;
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

/// What a failed lookup means.
fn without_records<T>(error: &NetError) -> Answer<T> {
    let trouble = |cause: String, whose| Answer::Trouble(Trouble { cause, whose });
    match error {
        NetError::Dns(DnsError::NoRecordsFound(none)) => match none.response_code {
            ResponseCode::NXDomain => Answer::NoDomain,
            // It was to ask others itself (RFC 2308 section 2.2).
            ResponseCode::NoError if none.soa.is_none() && none.ns.as_ref().is_some_and(|ns| !ns.is_empty()) => {
                trouble("it only names other servers, as one that is no resolver does".to_owned(), Whose::Theirs)
            }
            ResponseCode::NoError => Answer::NoData,
            code => trouble(name_of(code), Whose::Theirs),
        },
        NetError::Dns(DnsError::ResponseCode(ResponseCode::NXDomain)) => Answer::NoDomain,
        NetError::Dns(DnsError::ResponseCode(code)) => trouble(name_of(*code), Whose::Theirs),
        NetError::Dns(error) => trouble(error.to_string(), Whose::Theirs),
        NetError::Truncated => trouble("a truncated answer, and none over TCP".to_owned(), Whose::Theirs),
        NetError::Timeout => trouble("timed out".to_owned(), Whose::Unknown),
        NetError::Io(error) if !is_out_of_descriptors(error) => {
            trouble("no name server could be reached".to_owned(), Whose::Unknown)
        }
        // The crate has this for what it could not even open a socket for.
        NetError::NoConnections | NetError::Io(_) => {
            trouble("no socket for a question to a name server can be opened".to_owned(), Whose::Ours)
        }
        // What cannot be read may come from anybody.
        other => trouble(other.to_string(), Whose::Unknown),
    }
}

fn is_out_of_descriptors(error: &io::Error) -> bool {
    matches!(error.raw_os_error().map(Errno::from_raw), Some(Errno::EMFILE | Errno::ENFILE))
}

/// As operators know it: `SERVFAIL`, `REFUSED`.
fn name_of(code: ResponseCode) -> String {
    match code {
        ResponseCode::Unknown(NO_ANSWER) => {
            "it answers nothing and asks nobody, as a server without recursion".to_owned()
        }
        code => format!("{code:?}").to_uppercase(),
    }
}

/// A response code that nobody has, for [`mark_no_answer`].
const NO_ANSWER: u16 = 15;

/// Marks what came from a server that neither knows the name itself nor asks others (RFC 1035 section
/// 4.1.1: neither AA nor RA), and has nothing to say of it: the crate would take it for the word that
/// there is no such record. It keeps the flags to itself, so that they are read here.
fn mark_no_answer(message: &mut [u8]) {
    let &mut [_, _, ref mut flags, ref mut code, _, _, 0, 0, 0, 0, ..] = message else { return };
    let (is_response, is_authority) = (*flags & 0x80 != 0, *flags & 0x04 != 0);
    let (has_recursion, is_no_error) = (*code & 0x80 != 0, *code % 16 == 0);
    // Cut short, it is asked for again over TCP.
    let is_cut = *flags & 0x02 != 0;
    if is_response && is_no_error && !is_authority && !has_recursion && !is_cut {
        *code |= 0x0f;
    }
}

/// Sockets to a server whose address may be one of an interface (`fe80::1%eth0`), which the
/// crate has no place for.
#[derive(Clone)]
struct ByInterface {
    tokio: TokioRuntimeProvider,
    scope: u32,
}

fn on_interface(mut address: SocketAddr, scope: u32) -> SocketAddr {
    if let SocketAddr::V6(address) = &mut address {
        address.set_scope_id(scope);
    }
    address
}

impl RuntimeProvider for ByInterface {
    type Handle = <TokioRuntimeProvider as RuntimeProvider>::Handle;
    type Timer = TokioTime;
    type Udp = UdpByInterface;
    type Tcp = <TokioRuntimeProvider as RuntimeProvider>::Tcp;

    fn create_handle(&self) -> Self::Handle {
        self.tokio.create_handle()
    }

    fn connect_tcp(
        &self,
        server: SocketAddr,
        bind: Option<SocketAddr>,
        timeout: Option<Duration>,
    ) -> Pin<Box<dyn Send + Future<Output = io::Result<Self::Tcp>>>> {
        self.tokio.connect_tcp(on_interface(server, self.scope), bind, timeout)
    }

    fn bind_udp(
        &self,
        local: SocketAddr,
        _server: SocketAddr,
    ) -> Pin<Box<dyn Send + Future<Output = io::Result<Self::Udp>>>> {
        let scope = self.scope;
        Box::pin(async move { Ok(UdpByInterface { socket: UdpSocket::bind(local).await?, scope }) })
    }
}

struct UdpByInterface {
    socket: UdpSocket,
    scope: u32,
}

impl DnsUdpSocket for UdpByInterface {
    type Time = TokioTime;

    fn poll_recv_from(&self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<(usize, SocketAddr)>> {
        let received = DnsUdpSocket::poll_recv_from(&self.socket, cx, buffer);
        if let Poll::Ready(Ok((octets, _))) = received {
            mark_no_answer(&mut buffer[..octets]);
        }
        received
    }

    fn poll_send_to(&self, cx: &mut Context<'_>, octets: &[u8], target: SocketAddr) -> Poll<io::Result<usize>> {
        self.socket.poll_send_to(cx, octets, on_interface(target, self.scope))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_that_could_not_be_sent_is_our_own_trouble() {
        let io = |code: Errno| NetError::from(io::Error::from_raw_os_error(code as i32));
        for (error, whose) in [
            (NetError::Timeout, Whose::Unknown),
            (io(Errno::ECONNREFUSED), Whose::Unknown),
            (io(Errno::EMFILE), Whose::Ours),
            (NetError::NoConnections, Whose::Ours),
            (NetError::Truncated, Whose::Theirs),
        ] {
            let Answer::Trouble(trouble) = without_records::<()>(&error) else { panic!("{error}") };
            assert_eq!(trouble.whose, whose, "{error}");
        }
    }

    #[test]
    fn an_empty_answer_of_who_neither_knows_nor_asks_is_none() {
        for (flags, counts, is_none) in [
            ([0x81, 0x00], [1, 0, 0, 0], true),
            ([0x81, 0x00], [1, 0, 0, 1], true),
            ([0x81, 0x80], [1, 0, 0, 0], false),
            ([0x85, 0x00], [1, 0, 0, 0], false),
            ([0x81, 0x00], [1, 1, 0, 0], false),
            ([0x81, 0x00], [1, 0, 1, 0], false),
            ([0x81, 0x03], [1, 0, 0, 0], false),
            ([0x83, 0x00], [1, 0, 0, 0], false),
            ([0x01, 0x00], [1, 0, 0, 0], false),
        ] {
            let mut message = [&[7, 7], &flags[..], &counts.map(|count| [0, count]).concat()].concat();
            let before = message.clone();
            mark_no_answer(&mut message);
            assert_eq!(message[3] & 0x0f == 0x0f, is_none, "{before:?}");
            assert_eq!(message != before, is_none, "{before:?}");
        }
        let mut short = [0x81, 0x00];
        mark_no_answer(&mut short);
        assert_eq!(short, [0x81, 0x00]);
    }

    #[test]
    fn an_error_says_more_than_silence() {
        let trouble = |whose| Trouble { cause: format!("{whose:?}"), whose };
        for (one, other, told) in [
            (None, Whose::Unknown, Whose::Unknown),
            (Some(Whose::Theirs), Whose::Unknown, Whose::Theirs),
            (Some(Whose::Unknown), Whose::Theirs, Whose::Theirs),
            (Some(Whose::Unknown), Whose::Ours, Whose::Ours),
            (Some(Whose::Theirs), Whose::Ours, Whose::Theirs),
        ] {
            assert_eq!(weightier(one.map(trouble), trouble(other)).whose, told, "{one:?} {other:?}");
        }
    }
}
