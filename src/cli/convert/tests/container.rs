//! Containers as somebody may have them.

use std::fmt::Write;

use proptest::prelude::*;
use proptest::sample::subsequence;

/// Whom the mail is for: `d` is taken, `f` refused, `r` put off by every peer.
pub(super) const RECIPIENTS: [&str; 6] =
    ["d1@x.example", "f1@x.example", "r1@x.example", "d2@y.example", "f2@y.example", "r2@y.example"];

/// Attributes; a scanner may set the first.
pub(super) const ATTRIBUTES: [&str; 3] = ["org.apache.james.infected", "a1", "a2"];

/// The processors by their numbers. Mail goes to higher numbers only; RemoteDelivery stands in the first three.
pub(super) const PROCESSORS: [&str; 6] = ["root", "transport", "relay", "bounces", "denied", "error"];

const FIRST_FOR_FAILURES: usize = 3;

#[derive(Debug, Clone)]
pub(super) struct Container(pub(super) Vec<Vec<Pair>>);

#[derive(Debug, Clone)]
pub(super) struct Pair {
    pub(super) matcher: Matcher,
    pub(super) inverted: bool,
    pub(super) mailet: Mailet,
}

#[derive(Debug, Clone)]
pub(super) enum Matcher {
    All,
    SenderIsNull,
    RecipientIs(Vec<&'static str>),
    /// SMTPAuthSuccessful: true of all whom the listener lets in.
    MayRelay,
    /// False of what comes in.
    SentByMailet,
    RecipientIsLocal,
    /// Somebody else's.
    Own(usize),
    HasAttribute(usize),
    Temporary,
    Permanent,
    AtMost(u32),
    And(Vec<Matcher>),
    Or(Vec<Matcher>),
    Xor(Vec<Matcher>),
    Not(Box<Matcher>),
}

#[derive(Debug, Clone)]
pub(super) enum Mailet {
    Deliver {
        peer: usize,
        retries: usize,
        bounce: Option<usize>,
    },
    Keep {
        place: &'static str,
        passes: bool,
    },
    Go(usize),
    Null,
    Set(usize),
    Remove(usize),
    /// Tells the sender or the postmaster.
    Tell {
        class: &'static str,
        passes: bool,
    },
    /// Somebody else's.
    Own(usize),
    LocalDelivery,
    Forward {
        passes: bool,
    },
    ClamAvScan,
    /// One that changes nothing about where mail goes.
    Plain(&'static str),
    Log {
        passes: bool,
    },
}

fn any_matcher() -> impl Strategy<Value = Matcher> {
    let one = prop_oneof![
        8 => Just(Matcher::All),
        1 => Just(Matcher::SenderIsNull),
        3 => subsequence(RECIPIENTS.to_vec(), 1..=4).prop_map(Matcher::RecipientIs),
        2 => Just(Matcher::MayRelay),
        1 => Just(Matcher::SentByMailet),
        1 => Just(Matcher::RecipientIsLocal),
        2 => (0..4_usize).prop_map(Matcher::Own),
        2 => (0..3_usize).prop_map(Matcher::HasAttribute),
        1 => Just(Matcher::Temporary),
        1 => Just(Matcher::Permanent),
        1 => (1..3_u32).prop_map(Matcher::AtMost),
    ];
    one.prop_recursive(2, 6, 3, |inner| {
        let several = || proptest::collection::vec(inner.clone(), 0..=3);
        prop_oneof![
            several().prop_map(Matcher::And),
            several().prop_map(Matcher::Or),
            several().prop_map(Matcher::Xor),
            inner.clone().prop_map(|one| Matcher::Not(Box::new(one))),
        ]
    })
}

fn any_mailet(processor: usize) -> BoxedStrategy<Mailet> {
    let place = || prop_oneof![Just("var/mail/kept"), Just("var/mail/later")];
    let tell = prop_oneof![Just("Bounce"), Just("DSNBounce"), Just("NotifySender"), Just("NotifyPostmaster")];
    let plain = prop_oneof![
        Just(r#"class="PostmasterAlias"/>"#),
        Just(r#"class="SetMimeHeader"><name>X-A</name><value>true</value></mailet>"#),
        Just(r#"class="MetricsMailet"><metricName>m</metricName></mailet>"#),
    ];
    let last = PROCESSORS.len() - 1;
    let ends = prop_oneof![
        3 => (place(), any::<bool>()).prop_map(|(place, passes)| Mailet::Keep { place, passes }),
        3 => Just(Mailet::Null),
        1 => any::<bool>().prop_map(|passes| Mailet::Log { passes }),
        1 => any::<bool>().prop_map(|passes| Mailet::Forward { passes }),
        1 => Just(Mailet::LocalDelivery),
        2 => (tell, any::<bool>()).prop_map(|(class, passes)| Mailet::Tell { class, passes }),
        2 => (0..4_usize).prop_map(Mailet::Own),
        2 => (0..3_usize).prop_map(Mailet::Set),
        1 => (0..3_usize).prop_map(Mailet::Remove),
        1 => Just(Mailet::ClamAvScan),
        1 => Just(Mailet::Plain(r#"class="RemoveMimeHeader"><name>bcc</name></mailet>"#)),
        2 => plain.prop_map(Mailet::Plain),
    ];
    let goes = (processor + 1..=last.max(processor + 1)).prop_map(|to| Mailet::Go(to.min(PROCESSORS.len() - 1)));
    let bounce = proptest::option::weighted(0.8, FIRST_FOR_FAILURES..PROCESSORS.len());
    let deliver =
        (0..3_usize, 0..3_usize, bounce).prop_map(|(peer, retries, bounce)| Mailet::Deliver { peer, retries, bounce });
    match processor {
        0..FIRST_FOR_FAILURES => prop_oneof![10 => ends, 5 => goes, 6 => deliver].boxed(),
        last_one if last_one == last => ends.boxed(),
        _ => prop_oneof![10 => ends, 2 => goes].boxed(),
    }
}

fn any_processor(number: usize) -> impl Strategy<Value = Vec<Pair>> {
    let pair = (any_matcher(), proptest::bool::weighted(0.15), any_mailet(number));
    let pair = pair.prop_map(|(matcher, inverted, mailet)| Pair { matcher, inverted, mailet });
    proptest::collection::vec(pair, 0..5)
}

pub(super) fn any_container() -> impl Strategy<Value = Container> {
    let processors: Vec<_> = (0..PROCESSORS.len()).map(any_processor).collect();
    (processors, any::<bool>()).prop_map(|(processors, foreign)| {
        let container = Container(processors);
        if foreign { container } else { container.done_here() }
    })
}

impl Container {
    pub(super) fn xml(&self) -> String {
        let mut xml = "<mailetcontainer><processors>\n".to_owned();
        for (number, pairs) in self.0.iter().enumerate() {
            let _ = writeln!(xml, "<processor state=\"{}\">", PROCESSORS[number]);
            for (at, pair) in pairs.iter().enumerate() {
                pair.write(&mut xml, &format!("m{at}"));
            }
            xml.push_str("</processor>\n");
        }
        xml + "</processors></mailetcontainer>\n"
    }

    /// The same with other pairs in place of those that have no counterpart.
    fn done_here(mut self) -> Self {
        for pair in self.0.iter_mut().flatten() {
            if pair.matcher.has_something_to_tell() {
                pair.matcher = Matcher::RecipientIs(RECIPIENTS[..2].to_vec());
            }
            if let Mailet::Deliver { bounce, .. } = &mut pair.mailet {
                bounce.get_or_insert(FIRST_FOR_FAILURES);
            }
            if pair.mailet.has_something_to_tell() {
                pair.mailet = Mailet::Null;
            }
        }
        self
    }

    /// Whether something of it is not done here, for certain.
    pub(super) fn has_something_to_tell(&self) -> bool {
        self.0.iter().flatten().any(|pair| {
            let matches = pair.matcher.truth().map(|truth| truth != pair.inverted);
            pair.matcher.has_something_to_tell() || pair.mailet.has_something_to_tell() && matches != Some(false)
        })
    }

    /// Whether all of it is done here.
    pub(super) fn has_nothing_to_tell(&self) -> bool {
        let tells = |pair: &Pair| {
            let deletes_all = matches!(pair.mailet, Mailet::Null) && pair.matcher.asks_who_may_relay();
            pair.matcher.has_something_to_tell() || pair.mailet.has_something_to_tell() || deletes_all
        };
        // Where a container counts passes itself, what counts otherwise here is said.
        let counts = |pair: &Pair| pair.matcher.any(&|one| matches!(one, Matcher::AtMost(_)));
        // Behind what tells the sender a Null keeps, and that is said.
        let pairs = || self.0.iter().flatten();
        let keeps = pairs().any(|pair| matches!(pair.mailet, Mailet::Tell { .. }))
            && pairs().any(|pair| matches!(pair.mailet, Mailet::Null));
        // An attribute of James's own that no mailet sets is one that only James can have set.
        let asks = |pair: &Pair| pair.matcher.any(&|one| matches!(one, Matcher::HasAttribute(0)));
        let set_by_james = pairs().any(asks) && !pairs().any(|pair| matches!(pair.mailet, Mailet::Set(0)));
        !keeps && !set_by_james && !pairs().any(|pair| tells(pair) || counts(pair))
    }
}

impl Pair {
    fn write(&self, xml: &mut String, name: &str) {
        let key = if self.inverted { "notmatch" } else { "match" };
        let written = self.matcher.simple().unwrap_or_else(|| {
            xml.push_str(&self.matcher.composite(&format!(" name=\"{name}\"")));
            name.to_owned()
        });
        let _ = writeln!(xml, "<mailet {key}=\"{written}\" {}", self.mailet.written());
    }
}

impl Matcher {
    /// As an attribute, where it has no others in it.
    fn simple(&self) -> Option<String> {
        Some(match self {
            Self::All => "All".to_owned(),
            Self::SenderIsNull => "SenderIsNull".to_owned(),
            Self::RecipientIs(those) => format!("RecipientIs={}", those.join(",")),
            Self::MayRelay => "SMTPAuthSuccessful".to_owned(),
            Self::SentByMailet => "SentByMailet".to_owned(),
            Self::RecipientIsLocal => "RecipientIsLocal".to_owned(),
            Self::Own(number) => format!("org.example.Own{number}"),
            Self::HasAttribute(number) => format!("HasMailAttribute={}", ATTRIBUTES[*number]),
            Self::Temporary => "IsRemoteDeliveryTemporaryError".to_owned(),
            Self::Permanent => "IsRemoteDeliveryPermanentError".to_owned(),
            Self::AtMost(limit) => format!("AtMost={limit}"),
            Self::And(_) | Self::Or(_) | Self::Xor(_) | Self::Not(_) => return None,
        })
    }

    fn composite(&self, name: &str) -> String {
        let (class, inner): (_, Vec<&Self>) = match self {
            Self::And(inner) => ("And", inner.iter().collect()),
            Self::Or(inner) => ("Or", inner.iter().collect()),
            Self::Xor(inner) => ("Xor", inner.iter().collect()),
            Self::Not(inner) => ("Not", vec![&**inner]),
            simple => return format!("<matcher{name} match=\"{}\"/>", simple.simple().unwrap_or_default()),
        };
        let inner: String = inner.into_iter().map(|one| one.composite("")).collect();
        format!("<matcher{name} match=\"org.apache.james.mailetcontainer.impl.matchers.{class}\">{inner}</matcher>\n")
    }

    /// Whether it matches whatever the mail, or never.
    fn truth(&self) -> Option<bool> {
        let each = |inner: &[Self]| inner.iter().map(Self::truth).collect::<Vec<_>>();
        match self {
            Self::All | Self::MayRelay => Some(true),
            Self::SentByMailet | Self::RecipientIsLocal => Some(false),
            Self::And(inner) if inner.is_empty() || each(inner).contains(&Some(false)) => Some(false),
            Self::Or(inner) if each(inner).contains(&Some(true)) => Some(true),
            Self::And(inner) => each(inner).into_iter().all(|one| one == Some(true)).then_some(true),
            Self::Or(inner) => each(inner).into_iter().all(|one| one == Some(false)).then_some(false),
            Self::Xor(inner) => each(inner).into_iter().try_fold(false, |so_far, one| Some(so_far != one?)),
            Self::Not(inner) => inner.truth().map(|truth| !truth),
            _ => None,
        }
    }

    fn has_something_to_tell(&self) -> bool {
        self.any(&|one| matches!(one, Self::Own(_) | Self::RecipientIsLocal))
    }

    fn asks_who_may_relay(&self) -> bool {
        self.any(&|one| matches!(one, Self::MayRelay))
    }

    /// Whether it, or one within it, is such a one.
    fn any(&self, is: &dyn Fn(&Self) -> bool) -> bool {
        is(self)
            || match self {
                Self::And(inner) | Self::Or(inner) | Self::Xor(inner) => inner.iter().any(|one| one.any(is)),
                Self::Not(inner) => inner.any(is),
                _ => false,
            }
    }
}

impl Mailet {
    /// From its class on.
    fn written(&self) -> String {
        let passes =
            |class: &str, passes: &bool| format!("class=\"{class}\"><passThrough>{passes}</passThrough></mailet>");
        match self {
            Self::Deliver { peer, retries, bounce } => {
                let bounce = bounce.map(|to| format!("<bounceProcessor>{}</bounceProcessor>", PROCESSORS[to]));
                format!(
                    "class=\"RemoteDelivery\"><outgoing>peer{peer}</outgoing><maxRetries>{retries}</maxRetries>{}</mailet>",
                    bounce.unwrap_or_default()
                )
            }
            Self::Keep { place, passes } => format!(
                "class=\"ToRepository\"><repositoryPath>file://{place}/</repositoryPath><passThrough>{passes}</passThrough></mailet>"
            ),
            Self::Go(to) => format!("class=\"ToProcessor\"><processor>{}</processor></mailet>", PROCESSORS[*to]),
            Self::Null => "class=\"Null\"/>".to_owned(),
            Self::Set(number) => {
                let name = ATTRIBUTES[*number];
                format!("class=\"SetMailAttribute\"><{name}>true</{name}></mailet>")
            }
            Self::Remove(number) => {
                format!("class=\"RemoveMailAttribute\"><name>{}</name></mailet>", ATTRIBUTES[*number])
            }
            Self::Tell { class, passes: passing } => passes(class, passing),
            Self::Own(number) => format!("class=\"org.example.mailets.Own{number}\"/>"),
            Self::LocalDelivery => "class=\"LocalDelivery\"/>".to_owned(),
            Self::Forward { passes: passing } => passes("Forward", passing),
            Self::ClamAvScan => "class=\"ClamAVScan\"/>".to_owned(),
            Self::Plain(written) => (*written).to_owned(),
            Self::Log { passes: passing } => passes("LogMessage", passing),
        }
    }

    fn has_something_to_tell(&self) -> bool {
        match self {
            // What was told the sender he is told.
            Self::Tell { class, .. } => *class == "NotifyPostmaster",
            Self::Own(_) | Self::LocalDelivery | Self::Forward { .. } | Self::ClamAvScan => true,
            Self::Deliver { bounce, .. } => bounce.is_none(),
            Self::Plain(written) => written.contains("RemoveMimeHeader"),
            _ => false,
        }
    }
}
