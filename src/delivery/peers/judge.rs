//! What a connection that did not come to MAIL says of its peer.

use crate::delivery::outcome::{Decision, Event, Finding};
use crate::delivery::step::{Broken, Step};

/// How often a peer that has ended all our sessions may refuse the next before it is down.
pub(super) const LIMIT_TRIES: u32 = 3;

/// What is known beside the finding.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::delivery) struct Circumstances {
    /// Sessions that are open with the next hop.
    pub(in crate::delivery) sessions: usize,
    /// It has delivered mail of ours.
    pub(in crate::delivery) delivered: bool,
    /// How often connections were refused since the last session, this time included.
    pub(in crate::delivery) refusals: u32,
    /// There is no other host to be tried.
    pub(in crate::delivery) last_host: bool,
    /// Some of the mail's recipients were asked already: nobody waits with them.
    pub(in crate::delivery) asked: bool,
}

/// How far a finding reaches beyond the mail that it was made with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::delivery) enum Reach {
    /// The address does not answer, whoever asks.
    Address,
    /// The host does not take mail for this next hop.
    Host,
    /// No host of the next hop does.
    Hop,
}

/// What it says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::delivery) enum Judgement {
    /// The number of our connections is what the peer has enough of.
    Limit {
        /// No session is there to be waited for: only time can help.
        alone: bool,
    },
    /// Nothing of the peer, which serves us over another session.
    Nothing,
    /// That it is in trouble; and how far that reaches, where the next mail need not meet it
    /// again.
    Trouble(Option<Reach>),
}

/// A peer that greets with 4xx while it serves us elsewhere, or has just done so, means the
/// number of our connections; so does one that serves us and closes a further connection
/// without a word, where there is no other host to try. Where there is no session to wait
/// for, only time can help, and not for ever: a peer that has ended all our sessions and then
/// refused each try is down too, since the next mail would wait in vain as well.
pub(super) fn judge(finding: &Finding, seen: Circumstances) -> Judgement {
    if matches!(finding.event, Event::Broken(Broken::Cancelled(_))) {
        return Judgement::Nothing;
    }
    let alone = seen.sessions == 0;
    if !seen.asked {
        match limit(finding) {
            Some(Limit::InWords) if !alone => return Judgement::Limit { alone },
            Some(Limit::ByClosing) if !alone && seen.last_host => return Judgement::Limit { alone },
            Some(Limit::InWords) if seen.delivered && seen.refusals <= LIMIT_TRIES => {
                return Judgement::Limit { alone };
            }
            _ => {}
        }
    }
    let is_new = matches!(finding.step, Step::Connect | Step::Banner | Step::Ehlo | Step::Helo);
    if !alone && is_new {
        Judgement::Nothing
    } else if finding.reply().is_some() && seen.refusals > LIMIT_TRIES {
        Judgement::Trouble(Some(Reach::Host))
    } else {
        Judgement::Trouble(reach(finding))
    }
}

/// How a peer tells that it takes no more connections.
enum Limit {
    InWords,
    ByClosing,
}

fn limit(finding: &Finding) -> Option<Limit> {
    match (finding.step, &finding.event) {
        (Step::Banner | Step::Ehlo, Event::Reply(reply)) if reply.class() == 4 => Some(Limit::InWords),
        (Step::Connect | Step::Banner, Event::Broken(Broken::Closed | Broken::Io(_))) => Some(Limit::ByClosing),
        _ => None,
    }
}

/// Whether this would be one refusal more of a peer that has delivered before.
pub(super) fn is_refusal(finding: &Finding, seen: Circumstances) -> bool {
    !seen.asked && seen.sessions == 0 && seen.delivered && matches!(limit(finding), Some(Limit::InWords))
}

fn reach(finding: &Finding) -> Option<Reach> {
    match (finding.step, &finding.event) {
        // Trouble of our own says nothing about the peer, and garbage not that it is dead.
        (
            _,
            Event::Broken(Broken::Stopped | Broken::NoRoute | Broken::NotSmtp(_)) | Event::Decision(Decision::Own(_)),
        ) => None,
        (Step::Connect | Step::Banner, Event::Broken(_)) => Some(Reach::Address),
        (Step::Banner, Event::Reply(reply)) if reply.class() == 5 => Some(Reach::Host),
        // Whatever it greets with, it takes nobody's mail. Where policy lets us go on without
        // TLS, that is not what ends a session.
        (_, Event::Broken(Broken::Handshake(_)) | Event::Decision(Decision::TlsPolicy(_)))
        | (Step::Ehlo | Step::Helo | Step::Starttls, _) => Some(Reach::Host),
        // Once is enough, in whatever way: no account is to be locked by a sweep.
        (Step::Auth, _) => Some(Reach::Hop),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::smtp::{NotSmtp, Reply, ReplyReader};

    use super::*;

    fn said(step: Step, line: &str) -> Finding {
        let reply: Reply = ReplyReader::default().push(format!("{line}\r\n").as_bytes()).expect("SMTP").expect("whole");
        Finding::at(step, Ok(reply))
    }

    fn broken(step: Step, broken: Broken) -> Finding {
        Finding::at(step, Err(broken))
    }

    #[test]
    fn what_a_refusal_says_depends_on_whether_it_serves_us_elsewhere() {
        let busy = || said(Step::Banner, "421 4.7.0 too many connections");
        let closed = || broken(Step::Banner, Broken::Closed);
        let seen = Circumstances { refusals: 1, ..Circumstances::default() };
        let (with_sessions, has_delivered) =
            (Circumstances { sessions: 2, ..seen }, Circumstances { delivered: true, ..seen });
        let limit = |alone| Judgement::Limit { alone };
        let cancelled = || broken(Step::Banner, Broken::Cancelled("anna".into()));
        for (what, finding, seen, says) in [
            ("broken off by us", cancelled(), seen, Judgement::Nothing),
            ("broken off beside a session", cancelled(), with_sessions, Judgement::Nothing),
            ("4xx beside a session", busy(), with_sessions, limit(false)),
            ("4xx to EHLO beside a session", said(Step::Ehlo, "450 busy"), with_sessions, limit(false)),
            ("for whom others were asked", busy(), Circumstances { asked: true, ..with_sessions }, Judgement::Nothing),
            ("closed beside a session", closed(), Circumstances { last_host: true, ..with_sessions }, limit(false)),
            ("closed, and there are more hosts", closed(), with_sessions, Judgement::Nothing),
            ("5xx beside a session", said(Step::Banner, "554 no"), with_sessions, Judgement::Nothing),
            (
                "silent beside a session",
                broken(Step::Banner, Broken::TimedOut(Duration::ZERO)),
                with_sessions,
                Judgement::Nothing,
            ),
            (
                "AUTH refused beside a session",
                said(Step::Auth, "535 no"),
                with_sessions,
                Judgement::Trouble(Some(Reach::Hop)),
            ),
            ("4xx after deliveries", busy(), has_delivered, limit(true)),
            ("4xx after deliveries, the last try", busy(), Circumstances { refusals: 3, ..has_delivered }, limit(true)),
            (
                "and one more",
                busy(),
                Circumstances { refusals: 4, ..has_delivered },
                Judgement::Trouble(Some(Reach::Host)),
            ),
            ("4xx of one that never served us", busy(), seen, Judgement::Trouble(None)),
            (
                "closed after deliveries",
                closed(),
                Circumstances { last_host: true, ..has_delivered },
                Judgement::Trouble(Some(Reach::Address)),
            ),
        ] {
            assert_eq!(judge(&finding, seen), says, "{what}");
        }
    }

    #[test]
    fn trouble_reaches_as_far_as_it_can_be_known_to() {
        let seen = Circumstances::default();
        for (finding, reach) in [
            (broken(Step::Connect, Broken::Io("connection refused".into())), Some(Reach::Address)),
            (broken(Step::Banner, Broken::TimedOut(Duration::from_secs(1))), Some(Reach::Address)),
            (said(Step::Banner, "554 go away"), Some(Reach::Host)),
            (said(Step::Banner, "421 busy"), None),
            (said(Step::Helo, "502 no"), Some(Reach::Host)),
            (broken(Step::Ehlo, Broken::Closed), Some(Reach::Host)),
            (broken(Step::Connect, Broken::Handshake("no".into())), Some(Reach::Address)),
            (broken(Step::Starttls, Broken::Handshake("no".into())), Some(Reach::Host)),
            (Finding::decided(Step::Starttls, Decision::TlsPolicy("no".into())), Some(Reach::Host)),
            (Finding::decided(Step::Auth, Decision::NoAuth("not offered".into())), Some(Reach::Hop)),
            (broken(Step::Auth, Broken::TimedOut(Duration::from_secs(1))), Some(Reach::Hop)),
            (broken(Step::Connect, Broken::NoRoute), None),
            (broken(Step::Ehlo, Broken::Stopped), None),
            (broken(Step::Banner, Broken::NotSmtp(NotSmtp::LongLine)), None),
            (Finding::decided(Step::Connect, Decision::Own("out of descriptors".into())), None),
            (broken(Step::Rcpt, Broken::Closed), None),
        ] {
            assert_eq!(judge(&finding, seen), Judgement::Trouble(reach), "{finding:?}");
        }
    }
}
