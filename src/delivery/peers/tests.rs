use super::super::outcome::Decision;
use super::super::step::{Broken, Step};
use super::*;

fn target(last: u8) -> Target {
    Target {
        next_hop: "x.example".into(),
        host: format!("mx{last}"),
        address: ([192, 0, 2, last], 25).into(),
        preference: None,
    }
}

fn peers(keep_for: Option<Duration>) -> Arc<Peers> {
    Peers::new(Clock::system(), keep_for)
}

fn learn(peers: &Peers, hop: &str, contact: &Contact, finding: &Finding) -> Judgement {
    peers.judge(hop, contact, finding, Circumstances::default())
}

fn broken(step: Step, broken: Broken) -> Finding {
    Finding::at(step, Err(broken))
}

#[test]
fn a_hop_is_down_when_all_its_addresses_are() {
    let peers = peers(None);
    let targets = [target(1), target(2)];
    learn(
        &peers,
        "x.example",
        &Contact::to(&targets[1]),
        &broken(Step::Connect, Broken::Io("connection refused".into())),
    );
    assert!(peers.down("x.example", &targets).is_none());
    learn(&peers, "x.example", &Contact::to(&targets[0]), &broken(Step::Banner, Broken::Closed));
    let first = peers.down("x.example", &targets).expect("down");
    assert_eq!(first.cause, "connecting to mx2 (192.0.2.2:25): connection refused", "the first failure is named");
    let other = Target { next_hop: "other.example".into(), host: "mail".into(), ..target(1) };
    let shared = peers.down("other.example", &[other]).expect("an address is dead for all hops");
    assert_eq!((shared.target.next_hop.as_str(), shared.target.host.as_str()), ("other.example", "mail"));
    assert!(shared.cause.starts_with("mail (192.0.2.1:25) has the address of a host in trouble: "), "{}", shared.cause);
    let same = Target { next_hop: "other.example".into(), ..target(1) };
    let same = peers.down("other.example", &[same]).expect("down");
    assert_eq!(same.target.next_hop, "other.example");
    assert!(!same.cause.contains("has the address"), "{}", same.cause);
}

#[test]
fn one_refused_auth_takes_the_hop_down_and_trouble_of_our_own_nothing() {
    let peers = peers(None);
    let targets = [target(1), target(2)];
    for finding in [
        broken(Step::Connect, Broken::Stopped),
        broken(Step::Connect, Broken::NoRoute),
        Finding::decided(Step::Connect, Decision::Own("out of descriptors".into())),
        broken(Step::Rcpt, Broken::Closed),
        broken(Step::Ehlo, Broken::Stopped),
        Finding::at(Step::Banner, Err(Broken::NotSmtp(crate::smtp::NotSmtp::LongLine))),
    ] {
        learn(&peers, "x.example", &Contact::to(&targets[0]), &finding);
    }
    assert!(peers.down_at("x.example", &targets[0]).is_none());
    let refused = Finding::decided(Step::Auth, Decision::NoAuth("not offered".into()));
    learn(&peers, "x.example", &Contact::to(&targets[0]), &refused);
    assert!(peers.down("x.example", &targets).is_some());
    assert!(peers.down("y.example", &targets).is_none());
}

#[test]
fn whoever_greets_and_goes_no_further_is_as_dead_as_another() {
    for (step, event) in [
        (Step::Ehlo, Broken::TimedOut(Duration::from_secs(1))),
        (Step::Ehlo, Broken::Closed),
        (Step::Helo, Broken::Closed),
        (Step::Starttls, Broken::Closed),
        (Step::Auth, Broken::Closed),
        (Step::Auth, Broken::TimedOut(Duration::from_secs(1))),
    ] {
        let (peers, target) = (peers(None), target(1));
        learn(&peers, "x.example", &Contact::to(&target), &broken(step, event));
        assert!(peers.down("x.example", std::slice::from_ref(&target)).is_some(), "{step:?}");
    }
}

#[test]
fn what_is_old_is_forgotten() {
    let peers = peers(Some(Duration::ZERO));
    let target = target(1);
    learn(&peers, "x.example", &Contact::to(&target), &broken(Step::Connect, Broken::Closed));
    peers.note_clear_text(target.address, "it hangs");
    assert!(peers.down_at("x.example", &target).is_none());
    assert_eq!(peers.clear_text(target.address), None);
}

fn refused() -> Finding {
    let reply = crate::smtp::ReplyReader::default().push(b"421 4.7.0 busy\r\n").expect("SMTP").expect("whole");
    Finding::at(Step::Banner, Ok(reply))
}

fn delivered() -> Recorded {
    let recipient = Address::parse("a@x.example").expect("an address");
    let time = Clock::system().now();
    Recorded::without_contact(recipient, Outcome::Delivered, Stage::EndOfData, String::new(), time)
}

#[tokio::test(start_paused = true)]
async fn refusals_of_one_round_are_one() {
    let (peers, contact) = (peers(None), Contact::to(&target(1)));
    peers.note_outcomes("x.example", &[delivered()]);
    let refusal = || {
        peers.judge("x.example", &contact, &refused(), Circumstances::default());
        peers.book().standing("x.example").refusals
    };
    assert_eq!([refusal(), refusal(), refusal()], [1, 1, 1]);
    tokio::time::sleep(LIMIT_PAUSE / 2).await;
    assert_eq!([refusal(), refusal()], [2, 2]);
    peers.note_session("x.example");
    assert_eq!(peers.book().standing("x.example").refusals, 0);
}

#[test]
fn what_answered_once_and_was_then_found_down_begins_anew() {
    for keep_for in [None, Some(Duration::from_mins(1))] {
        let (peers, contact) = (peers(keep_for), Contact::to(&target(1)));
        peers.note_session("x.example");
        peers.note_outcomes("x.example", &[delivered()]);
        assert!(peers.known().answers("x.example"));
        learn(&peers, "x.example", &contact, &broken(Step::Connect, Broken::Closed));
        assert!(!peers.known().answers("x.example"));
        let remembers = peers.book().standing("x.example").delivered;
        assert_eq!(remembers, keep_for.is_none(), "a sweep remembers that to its end");
    }
}

#[test]
fn a_limit_holds_as_long_as_what_is_known() {
    for (keep_for, limit) in [(None, Some(2)), (Some(Duration::from_mins(1)), Some(2)), (Some(Duration::ZERO), None)] {
        let (peers, contact) = (peers(keep_for), Contact::to(&target(1)));
        let seen = Circumstances { sessions: 2, ..Circumstances::default() };
        assert_eq!(peers.judge("x.example", &contact, &refused(), seen), Judgement::Limit { alone: false });
        assert_eq!(peers.known().limit("x.example"), limit, "{keep_for:?}");
    }
}

#[test]
fn what_is_known_of_a_next_hop_is_shown() {
    let (peers, targets) = (peers(None), [target(1)]);
    peers.note_outcomes("y.example", &[delivered(), delivered()]);
    learn(&peers, "x.example", &Contact::to(&targets[0]), &broken(Step::Banner, Broken::Closed));
    assert!(peers.down("x.example", &targets).is_some());
    let [x, y] = &peers.seen()[..] else { panic!("two") };
    assert_eq!((&*x.next_hop, x.last_outcome, x.outcomes), ("x.example", None, Outcomes::default()));
    let cause = x.down.as_ref().map(|down| down.cause.as_str());
    assert_eq!(cause, Some("mx1 (192.0.2.1:25): the connection was closed (waiting for its greeting)"));
    assert_eq!((&*y.next_hop, y.last_outcome, &y.down), ("y.example", Some(Outcome::Delivered), &None));
    assert_eq!(y.outcomes, Outcomes { delivered: 2, deferred: 0, failed: 0 });
    peers.note_session("x.example");
    assert_eq!(peers.seen()[0].down, None, "it answers again");
}

#[test]
fn no_more_next_hops_are_remembered_than_there_is_room_for() {
    let peers = peers(None);
    for hop in 0..=PRUNE_ABOVE {
        peers.note_session(&format!("{hop}.example"));
    }
    assert!(peers.seen().len() <= PRUNE_ABOVE / 2 + 1, "{}", peers.seen().len());
    assert!(peers.known().answers(&format!("{PRUNE_ABOVE}.example")), "the newer ones stay");
}
