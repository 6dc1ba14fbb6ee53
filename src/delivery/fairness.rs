//! Who is served next: with an idle session, with a new connection, or once an idle session
//! has made room for one.
//!
//! A hop that is not known to answer has one connection at a time, so that a dead peer
//! takes one and not all. While mail for another hop waits, a hop has at most half, and
//! a fifth of all is for hops that have no connection: a peer that answered once and then
//! stands still must not hold up whoever comes next.
//!
//! An idle session is for a mail that would otherwise connect to just that host: a session
//! with the second gateway must not draw the mail away from the first for as long as mail
//! comes, nor undo the random order of equal hosts.

/// One connection in so many is kept for hops that have none.
const KEPT: usize = 5;

/// How many connections there may be.
#[derive(Debug, Clone, Copy)]
pub(super) struct Capacity {
    /// In all.
    pub(super) all: usize,
    /// Of those, for hops that have no connection.
    pub(super) kept: usize,
}

impl Capacity {
    /// So many (at least one); with `one_hop` there will be no other hop than the first.
    pub(super) fn new(connections: usize, one_hop: bool) -> Self {
        Self { all: connections.max(1), kept: if one_hop { 0 } else { connections / KEPT } }
    }
}

/// What is to be known of a hop.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Load {
    /// Connections in use, or being made.
    pub(super) held: usize,
    /// Idle sessions.
    pub(super) idle: usize,
    /// It is known to answer.
    pub(super) answers: bool,
    /// Connections that its peer takes, where that is known.
    pub(super) limit: Option<usize>,
}

/// What there is to choose from.
pub(super) trait View {
    /// Hops that have somebody waiting, each once, the next to be served first.
    fn line(&self) -> impl Iterator<Item = &str>;
    /// The hop of each idle session, the one that is idle for longest first.
    fn idle(&self) -> impl Iterator<Item = &str>;
    /// Connections open or being opened, over all hops, idle ones included.
    fn open(&self) -> usize;
    /// What is to be known of a hop.
    fn load(&self, hop: &str) -> Load;
    /// Somebody who waits for the hop and an idle session of it that is for him, by their places.
    fn pair(&self, hop: &str) -> Option<(usize, usize)>;
}

/// What can be done for those who wait.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Next {
    /// The hop's idle session is for the one who waits there, by their places.
    Session(String, usize, usize),
    /// The first who waits for the hop may connect.
    Connection(String),
    /// An idle session of the hop stands in the way of somebody's connection.
    Retire(String),
}

impl Next {
    fn hop(&self) -> &str {
        match self {
            Self::Session(hop, ..) | Self::Connection(hop) | Self::Retire(hop) => hop,
        }
    }
}

/// The next in line that can be served.
pub(super) fn next(view: &impl View, capacity: Capacity) -> Option<Next> {
    let rules = Rules { view, capacity };
    let served = if view.open() < capacity.all {
        view.line().find_map(|hop| {
            rules.session_for(hop).or_else(|| rules.may_connect(hop).then(|| Next::Connection(hop.to_owned())))
        })
    } else {
        // Nobody may connect: of thousands that wait only those need to be asked.
        let place = |next: &Next| view.line().position(|waiting| waiting == next.hop());
        view.idle().filter_map(|hop| rules.session_for(hop)).min_by_key(place)
    };
    served.or_else(|| rules.evictable().map(Next::Retire))
}

struct Rules<'a, V> {
    view: &'a V,
    capacity: Capacity,
}

impl<V: View> Rules<'_, V> {
    /// How many connections are fair for `hop` now.
    fn share(&self, hop: &str, load: Load) -> usize {
        let others_wait = || self.view.line().any(|waiting| waiting != hop);
        match load.answers {
            true if others_wait() => (self.capacity.all / 2).max(1),
            true => self.capacity.all,
            false => 1,
        }
    }

    /// How many it may have now, by its share and its peer's limit.
    fn allowed(&self, hop: &str, load: Load) -> usize {
        self.share(hop, load).min(load.limit.unwrap_or(self.capacity.all))
    }

    /// Whether one connection more leaves those that are kept for hops without any, once
    /// `freed` were given back.
    fn has_room(&self, load: Load, freed: usize) -> bool {
        let has_none = load.held + load.idle == 0;
        let kept = if has_none { 0 } else { self.capacity.kept };
        self.view.open() + kept < self.capacity.all + freed
    }

    fn may_connect(&self, hop: &str) -> bool {
        let load = self.view.load(hop);
        self.has_room(load, 0) && load.held + load.idle < self.allowed(hop, load)
    }

    /// The hop's own idle session for somebody who waits for it.
    fn session_for(&self, hop: &str) -> Option<Next> {
        let load = self.view.load(hop);
        if load.idle == 0 || load.held >= self.share(hop, load) {
            return None;
        }
        self.view.pair(hop).map(|(waiting, idle)| Next::Session(hop.to_owned(), waiting, idle))
    }

    /// A hop that keeps an idle session in the way of somebody who waits.
    fn evictable(&self) -> Option<String> {
        let longest = self.view.idle().next()?;
        let idle = self.view.idle().count();
        let may_have_one = |hop: &&str| {
            let load = self.view.load(hop);
            load.held < self.allowed(hop, load) && self.has_room(load, idle)
        };
        let waits = self.view.line().find(may_have_one)?;
        let has_idle = self.view.load(waits).idle > 0;
        Some(if has_idle { waits } else { longest }.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Hops by name, in line if somebody waits; sessions in the order in which they were put back.
    #[derive(Default)]
    struct Site {
        hops: Vec<(&'static str, Load, usize)>,
        idle: Vec<&'static str>,
        fits_nobody: bool,
    }

    impl Site {
        /// `hop` has so many connections in use and is known to answer, and so many wait for it.
        fn known(mut self, hop: &'static str, held: usize, waiting: usize) -> Self {
            self.hops.push((hop, Load { held, answers: true, ..Load::default() }, waiting));
            self
        }

        /// The same of one that is not known to answer.
        fn unknown(mut self, hop: &'static str, held: usize, waiting: usize) -> Self {
            self.hops.push((hop, Load { held, ..Load::default() }, waiting));
            self
        }

        fn idle(mut self, hop: &'static str) -> Self {
            let load = self.hops.iter_mut().find(|(name, ..)| *name == hop).expect("a hop");
            load.1.idle += 1;
            self.idle.push(hop);
            self
        }

        fn limit(mut self, hop: &'static str, limit: usize) -> Self {
            let load = self.hops.iter_mut().find(|(name, ..)| *name == hop).expect("a hop");
            load.1.limit = Some(limit);
            self
        }

        fn that_fits_nobody(mut self) -> Self {
            self.fits_nobody = true;
            self
        }
    }

    impl View for Site {
        fn line(&self) -> impl Iterator<Item = &str> {
            self.hops.iter().filter(|(_, _, waiting)| *waiting > 0).map(|(hop, ..)| *hop)
        }

        fn idle(&self) -> impl Iterator<Item = &str> {
            self.idle.iter().copied()
        }

        fn open(&self) -> usize {
            self.hops.iter().map(|(_, load, _)| load.held + load.idle).sum()
        }

        fn load(&self, hop: &str) -> Load {
            self.hops.iter().find(|(name, ..)| *name == hop).map(|(_, load, _)| *load).unwrap_or_default()
        }

        fn pair(&self, hop: &str) -> Option<(usize, usize)> {
            let waiting = self.hops.iter().any(|(name, _, waiting)| *name == hop && *waiting > 0);
            (waiting && !self.fits_nobody).then_some((0, 0))
        }
    }

    fn told(next: Option<Next>) -> String {
        match next {
            None => "nobody".to_owned(),
            Some(Next::Session(hop, ..)) => format!("a session of {hop}"),
            Some(Next::Connection(hop)) => format!("a connection for {hop}"),
            Some(Next::Retire(hop)) => format!("retire one of {hop}"),
        }
    }

    #[test]
    fn who_is_served_next() {
        let many = Capacity { all: 10, kept: 2 };
        let four = Capacity { all: 4, kept: 0 };
        let one = Capacity { all: 1, kept: 0 };
        let site = Site::default;
        for (what, site, capacity, next) in [
            ("nobody waits", site().known("a", 3, 0), many, "nobody"),
            ("one not known has its first", site().unknown("a", 0, 9), many, "a connection for a"),
            ("and no second", site().unknown("a", 1, 9), many, "nobody"),
            ("one that answers has more", site().known("a", 7, 9), many, "a connection for a"),
            ("but those that are kept for others", site().known("a", 8, 9), many, "nobody"),
            ("who has none gets one of those", site().known("a", 8, 9).unknown("b", 0, 1), many, "a connection for b"),
            ("the last one too", site().known("a", 9, 9).unknown("b", 0, 1), many, "a connection for b"),
            ("and where there is none nobody does", site().known("a", 10, 9).unknown("b", 0, 1), many, "nobody"),
            ("half while another waits", site().known("a", 2, 9).known("b", 0, 9), four, "a connection for b"),
            ("no more than half", site().known("a", 2, 9).known("b", 2, 9), four, "nobody"),
            ("one of one", site().known("a", 0, 1).known("b", 0, 1), one, "a connection for a"),
            ("a limit of the peer", site().known("a", 2, 9).limit("a", 2), many, "nobody"),
            ("below that limit", site().known("a", 1, 9).limit("a", 2), many, "a connection for a"),
            ("a session before a connection", site().known("a", 1, 9).idle("a"), many, "a session of a"),
            ("whatever the limit", site().known("a", 2, 9).idle("a").limit("a", 1), many, "a session of a"),
            (
                "one who waits for another host connects",
                site().known("a", 0, 1).idle("a").that_fits_nobody(),
                many,
                "a connection for a",
            ),
            (
                "and where all is in use it makes room",
                site().known("a", 3, 1).idle("a").that_fits_nobody(),
                four,
                "retire one of a",
            ),
            ("so does another hop's", site().known("a", 3, 0).idle("a").unknown("b", 0, 1), four, "retire one of a"),
            (
                "the one idle for longest",
                site().known("a", 1, 0).known("c", 1, 0).idle("c").idle("a").unknown("b", 0, 1),
                four,
                "retire one of c",
            ),
            (
                "not for one who has his share",
                site().known("a", 1, 0).idle("a").idle("a").unknown("b", 1, 5),
                four,
                "nobody",
            ),
            ("the first in line", site().unknown("a", 0, 1).unknown("b", 0, 1), many, "a connection for a"),
            ("who can be served", site().unknown("a", 1, 1).unknown("b", 0, 1), many, "a connection for b"),
            (
                "sessions where all is in use",
                site().known("b", 1, 1).known("a", 1, 1).idle("a").idle("b"),
                four,
                "a session of b",
            ),
        ] {
            assert_eq!(told(super::next(&site, capacity)), next, "{what}");
        }
    }

    #[test]
    fn a_fifth_is_kept_where_there_are_several_hops() {
        for (connections, one_hop, all, kept) in
            [(10, false, 10, 2), (10, true, 10, 0), (4, false, 4, 0), (0, false, 1, 0)]
        {
            let capacity = Capacity::new(connections, one_hop);
            assert_eq!((capacity.all, capacity.kept), (all, kept), "{connections}, {one_hop}");
        }
    }
}
