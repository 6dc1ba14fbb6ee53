//! The DNS server of the tests, seen by a raw client.

use std::io::{Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use hickory_proto::op::{Message, Query, ResponseCode};
use hickory_proto::rr::{Name, RecordType};

use crate::support::fresh_loopback;
use crate::support::zones::Zones;

fn question(name: &str, record_type: RecordType) -> Message {
    let mut message = Message::query();
    message.add_query(Query::query(Name::from_ascii(name).expect("a name"), record_type));
    message
}

/// The octets that come back over UDP within a second.
fn raw(zones: &Zones, name: &str, record_type: RecordType) -> Option<Vec<u8>> {
    let socket = UdpSocket::bind((fresh_loopback(), 0)).expect("a free port");
    socket.set_read_timeout(Some(Duration::from_secs(1))).expect("a time-out");
    socket.send_to(&question(name, record_type).to_vec().expect("octets"), zones.address()).expect("sent");
    let mut answer = vec![0; 4096];
    let length = socket.recv(&mut answer).ok()?;
    answer.truncate(length);
    Some(answer)
}

fn ask(zones: &Zones, name: &str, record_type: RecordType) -> Message {
    Message::from_vec(&raw(zones, name, record_type).expect("an answer")).expect("a DNS message")
}

fn data(message: &Message) -> Vec<String> {
    message.answers.iter().map(|record| format!("{} {}", record.record_type(), record.data)).collect()
}

#[test]
fn records_aliases_and_absence_are_answered() {
    let zones = Zones::start(
        "x.example      MX 10 mx.x.example
         x.example      MX 20 mx2.x.example     ; the second
         mx.x.example   A 127.0.0.2
         mx.x.example   AAAA ::1
         null.example   MX 0 .
         alias.example  CNAME x.example",
    );
    let mx = ["MX 10 mx.x.example.", "MX 20 mx2.x.example."];
    assert_eq!(data(&ask(&zones, "X.Example.", RecordType::MX)), mx);
    assert_eq!(data(&ask(&zones, "mx.x.example.", RecordType::AAAA)), ["AAAA ::1"]);
    assert_eq!(data(&ask(&zones, "null.example.", RecordType::MX)), ["MX 0 ."]);
    assert_eq!(data(&ask(&zones, "alias.example.", RecordType::MX)), ["CNAME x.example.", mx[0], mx[1]]);
    assert_eq!(ask(&zones, "absent.example.", RecordType::MX).metadata.response_code, ResponseCode::NXDomain);
    let no_data = ask(&zones, "x.example.", RecordType::A);
    assert_eq!((no_data.metadata.response_code, no_data.answers.len()), (ResponseCode::NoError, 0));
    assert_eq!((zones.queries("x.example"), zones.queries_of("x.example", RecordType::MX)), (2, 1));
}

#[test]
fn trouble_comes_as_it_was_ordered() {
    let zones = Zones::start(
        "broken.example SERVFAIL
         closed.example REFUSED
         silent.example SILENT
         odd.example    GARBAGE
         slow.example   DELAY 300
         slow.example   A 127.0.0.3",
    );
    let code = |name| ask(&zones, name, RecordType::MX).metadata.response_code;
    assert_eq!(code("broken.example."), ResponseCode::ServFail);
    assert_eq!(code("closed.example."), ResponseCode::Refused);
    assert_eq!(raw(&zones, "silent.example.", RecordType::MX), None);
    assert!(Message::from_vec(&raw(&zones, "odd.example.", RecordType::MX).expect("octets")).is_err());
    let asked = Instant::now();
    assert_eq!(data(&ask(&zones, "slow.example.", RecordType::A)), ["A 127.0.0.3"]);
    assert!(asked.elapsed() >= Duration::from_millis(300));
}

#[test]
fn a_truncated_answer_is_whole_over_tcp() {
    let zones = Zones::start("large.example TRUNCATED\n large.example MX 10 mx.example");
    let short = ask(&zones, "large.example.", RecordType::MX);
    assert!(short.metadata.truncation && short.answers.is_empty());

    let query = question("large.example.", RecordType::MX).to_vec().expect("octets");
    let mut stream = TcpStream::connect(zones.address()).expect("connected");
    stream.write_all(&u16::try_from(query.len()).expect("short").to_be_bytes()).expect("sent");
    stream.write_all(&query).expect("sent");
    let mut length = [0; 2];
    stream.read_exact(&mut length).expect("an answer");
    let mut answer = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut answer).expect("an answer");
    assert_eq!(data(&Message::from_vec(&answer).expect("a DNS message")), ["MX 10 mx.example."]);
}
