//! A DNS server on UDP and TCP whose zones are a text in the test.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hickory_proto::op::{Message, Metadata, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, CNAME, MX, NS};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::runtime::Runtime;

/// A running DNS server. Its zones are lines of a name and one of
///
/// ```text
/// x.example       MX 10 mx.x.example        null.example  MX 0 .
/// mx.x.example    A 127.0.0.2               mx6.example   AAAA ::1
/// alias.example   CNAME x.example
/// broken.example  SERVFAIL                  (or REFUSED, FORMERR, NOTIMP)
/// half.example    SERVFAIL AAAA             only for this type of record (or NXDOMAIN)
/// silent.example  SILENT                    no answer at all
/// odd.example     GARBAGE                   octets that are no DNS message
/// large.example   TRUNCATED                 the answers come over TCP only
/// cut.example     CUT                       truncated, and TCP connections are closed
/// stray.example   STRAY other.example A 127.0.0.2    also answered, of a name not asked for
/// extra.example   EXTRA other.example A 127.0.0.2    in the additional section
/// slow.example    DELAY 500                 milliseconds before the answer
/// old.example     NOEDNS FORMERR            to a question with EDNS only (or NOTIMP, SILENT)
/// lame.example    REFERRAL ns.example       no answer, but who might have one
/// deaf.example    NORECURSION               what is known here, and nobody else is asked
/// own.example     AUTHORITY                 the same, by whose word it is
/// ```
///
/// A name that is absent, and has none below it, does not exist (NXDOMAIN). Blank lines and
/// what follows `;` are left out. Dropping the server ends it.
pub(crate) struct Zones {
    address: SocketAddr,
    served: Arc<Zone>,
    runtime: Option<Runtime>,
}

struct Zone {
    entries: Mutex<HashMap<Name, Vec<Entry>>>,
    queries: Mutex<HashMap<(Name, RecordType), usize>>,
}

#[derive(Clone)]
enum Entry {
    Data(RData),
    Code(ResponseCode),
    CodeOf(RecordType, ResponseCode),
    Silent,
    Garbage,
    Truncated,
    Cut,
    Stray(Record),
    Extra(Record),
    Delay(Duration),
    NoEdns(Option<ResponseCode>),
    Referral(Record),
    NoRecursion { authority: bool },
}

#[derive(Clone, Copy, PartialEq)]
enum Transport {
    Udp,
    Tcp,
}

impl Zones {
    /// Serves these zones on a free loopback address and port.
    pub(crate) fn start(text: &str) -> Self {
        Self::serve(text, (super::fresh_loopback(), 0).into())
    }

    /// Serves these zones beside others, at the same port of another address.
    pub(crate) fn beside(other: &Self, text: &str) -> Self {
        Self::serve(text, (super::fresh_loopback(), other.address.port()).into())
    }

    fn serve(text: &str, address: SocketAddr) -> Self {
        let zones = Arc::new(Zone { entries: Mutex::new(entries(text)), queries: Mutex::default() });
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
        let (udp, tcp) = runtime.block_on(listen(address));
        let address = udp.local_addr().expect("bound");
        runtime.spawn(serve_udp(Arc::new(udp), zones.clone()));
        runtime.spawn(serve_tcp(tcp, zones.clone()));
        Self { address, served: zones, runtime: Some(runtime) }
    }

    /// Serves other zones from now on.
    pub(crate) fn replace(&self, text: &str) {
        *self.served.entries.lock().expect("no thread panics with it") = entries(text);
    }

    /// Where it listens, for `dns.servers`.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// How often a name was asked for, whatever the type.
    pub(crate) fn queries(&self, name: &str) -> usize {
        let (name, counts) = (key(name), self.served.queries.lock().expect("no thread panics with it"));
        counts.iter().filter(|((asked, _), _)| *asked == name).map(|(_, count)| count).sum()
    }

    /// How often a name was asked for with this type.
    pub(crate) fn queries_of(&self, name: &str, record_type: RecordType) -> usize {
        let counts = self.served.queries.lock().expect("no thread panics with it");
        counts.get(&(key(name), record_type)).copied().unwrap_or(0)
    }
}

impl Drop for Zones {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

fn entries(text: &str) -> HashMap<Name, Vec<Entry>> {
    let mut entries: HashMap<Name, Vec<Entry>> = HashMap::new();
    for line in text.lines() {
        let words: Vec<_> = line.split(';').next().unwrap_or_default().split_whitespace().collect();
        if let [name, entry @ ..] = words.as_slice() {
            entries.entry(key(name)).or_default().push(parse(entry).unwrap_or_else(|| panic!("no zone line: {line}")));
        }
    }
    entries
}

fn parse(words: &[&str]) -> Option<Entry> {
    Some(match *words {
        ["MX", preference, host] => Entry::Data(RData::MX(MX::new(preference.parse().ok()?, key(host)))),
        ["A", address] => Entry::Data(RData::A(A(address.parse().ok()?))),
        ["AAAA", address] => Entry::Data(RData::AAAA(AAAA(address.parse().ok()?))),
        ["CNAME", target] => Entry::Data(RData::CNAME(CNAME(key(target)))),
        ["NXDOMAIN", of] => Entry::CodeOf(of.parse().ok()?, ResponseCode::NXDomain),
        ["SERVFAIL", of] => Entry::CodeOf(of.parse().ok()?, ResponseCode::ServFail),
        ["SERVFAIL"] => Entry::Code(ResponseCode::ServFail),
        ["REFUSED"] => Entry::Code(ResponseCode::Refused),
        ["FORMERR"] => Entry::Code(ResponseCode::FormErr),
        ["NOTIMP"] => Entry::Code(ResponseCode::NotImp),
        ["NOEDNS", "FORMERR"] => Entry::NoEdns(Some(ResponseCode::FormErr)),
        ["NOEDNS", "NOTIMP"] => Entry::NoEdns(Some(ResponseCode::NotImp)),
        ["NOEDNS", "SILENT"] => Entry::NoEdns(None),
        ["REFERRAL", to] => Entry::Referral(Record::from_rdata(Name::root(), 60, RData::NS(NS(key(to))))),
        ["NORECURSION"] => Entry::NoRecursion { authority: false },
        ["AUTHORITY"] => Entry::NoRecursion { authority: true },
        ["SILENT"] => Entry::Silent,
        ["GARBAGE"] => Entry::Garbage,
        ["TRUNCATED"] => Entry::Truncated,
        ["CUT"] => Entry::Cut,
        ["STRAY", name, "A", address] => Entry::Stray(address_record(name, address)?),
        ["EXTRA", name, "A", address] => Entry::Extra(address_record(name, address)?),
        ["DELAY", millis] => Entry::Delay(Duration::from_millis(millis.parse().ok()?)),
        _ => return None,
    })
}

fn address_record(name: &str, address: &str) -> Option<Record> {
    Some(Record::from_rdata(key(name), 60, RData::A(A(address.parse().ok()?))))
}

/// A name for comparing: absolute, in lower case.
fn key(name: &str) -> Name {
    let mut name = Name::from_ascii(name).expect("a name").to_lowercase();
    name.set_fqdn(true);
    name
}

async fn listen(address: SocketAddr) -> (UdpSocket, TcpListener) {
    let udp = UdpSocket::bind(address).await.expect("a free port");
    let tcp = TcpListener::bind(udp.local_addr().expect("bound")).await.expect("the same port, on our own address");
    (udp, tcp)
}

async fn serve_udp(socket: Arc<UdpSocket>, zones: Arc<Zone>) {
    let mut query = [0; 4096];
    while let Ok((length, client)) = socket.recv_from(&mut query).await {
        let (query, socket, zones) = (query[..length].to_vec(), socket.clone(), zones.clone());
        tokio::spawn(async move {
            if let Some(answer) = zones.answer(&query, Transport::Udp).await {
                // A client that has gone wants no answer.
                let _ = socket.send_to(&answer, client).await;
            }
        });
    }
}

async fn serve_tcp(listener: TcpListener, zones: Arc<Zone>) {
    while let Ok((stream, _)) = listener.accept().await {
        let zones = zones.clone();
        // Its error is the client's leaving.
        tokio::spawn(async move { serve_stream(stream, &zones).await });
    }
}

async fn serve_stream(mut stream: TcpStream, zones: &Zone) -> std::io::Result<()> {
    loop {
        let mut query = vec![0; usize::from(stream.read_u16().await?)];
        stream.read_exact(&mut query).await?;
        if let Some(answer) = zones.answer(&query, Transport::Tcp).await {
            if answer.is_empty() {
                return Ok(());
            }
            stream.write_u16(u16::try_from(answer.len()).expect("a DNS message")).await?;
            stream.write_all(&answer).await?;
        }
    }
}

impl Zone {
    async fn answer(&self, query: &[u8], transport: Transport) -> Option<Vec<u8>> {
        let query = Message::from_vec(query).ok()?;
        let asked = query.queries.first()?;
        let (name, record_type) = (asked.name().to_lowercase(), asked.query_type());
        *self.queries.lock().expect("no thread panics with it").entry((name.clone(), record_type)).or_default() += 1;
        let known = self.entries.lock().expect("no thread panics with it").clone();
        let entries = known.get(&name).map_or(&[][..], Vec::as_slice);

        let mut answer = Message::response(query.metadata.id, query.metadata.op_code);
        answer.metadata = Metadata::response_from_request(&query.metadata);
        answer.metadata.recursion_available = true;
        answer.add_query(asked.clone());
        answer.metadata.response_code = code(&known, &name);
        answer.add_answers(records(&known, &name, record_type, 8));
        for entry in entries {
            match entry {
                Entry::Code(code) => answer.metadata.response_code = *code,
                Entry::CodeOf(of, code) if *of == record_type => answer.metadata.response_code = *code,
                Entry::NoEdns(refusal) if query.edns.is_some() => {
                    answer = answer.truncate();
                    answer.metadata.truncation = false;
                    answer.metadata.response_code = (*refusal)?;
                }
                Entry::Referral(record) => answer.authorities.push(record.clone()),
                Entry::NoRecursion { authority } => {
                    answer.metadata.recursion_available = false;
                    answer.metadata.authoritative = *authority;
                }
                Entry::Silent => return None,
                Entry::Garbage => return Some(b"\xffthis is no DNS message".to_vec()),
                Entry::Truncated | Entry::Cut if transport == Transport::Udp => answer = answer.truncate(),
                Entry::Cut => return Some(Vec::new()),
                Entry::Stray(record) => answer.answers.push(record.clone()),
                Entry::Extra(record) => answer.additionals.push(record.clone()),
                Entry::Data(_) | Entry::CodeOf(..) | Entry::NoEdns(_) | Entry::Truncated => {}
                Entry::Delay(time) => tokio::time::sleep(*time).await,
            }
        }
        let octets = answer.to_vec().expect("our own message");
        let fits = transport == Transport::Tcp || octets.len() <= usize::from(query.max_payload());
        if fits { Some(octets) } else { answer.truncate().to_vec().ok() }
    }
}

/// NXDOMAIN only where neither the name nor one below it is there.
fn code(entries: &HashMap<Name, Vec<Entry>>, name: &Name) -> ResponseCode {
    if entries.keys().any(|known| name.zone_of(known)) { ResponseCode::NoError } else { ResponseCode::NXDomain }
}

/// The records of this type, behind the alias that leads to them.
fn records(entries: &HashMap<Name, Vec<Entry>>, name: &Name, record_type: RecordType, aliases: u32) -> Vec<Record> {
    let mut found = Vec::new();
    for entry in entries.get(name).into_iter().flatten() {
        let Entry::Data(data) = entry else { continue };
        let is_alias = data.record_type() == RecordType::CNAME && record_type != RecordType::CNAME;
        if data.record_type() == record_type || is_alias {
            found.push(Record::from_rdata(name.clone(), 60, data.clone()));
        }
        if let (RData::CNAME(target), true, 1..) = (data, is_alias, aliases) {
            found.extend(records(entries, &target.0, record_type, aliases - 1));
        }
    }
    found
}
