//! Connections: how many are open at once, who gets the next one, and the idle ones that
//! wait for their next hop's next mail.
//!
//! A hop that is not known to answer has one connection at a time, so that a dead peer
//! takes one slot and not all. While mail for another hop waits, a hop has at most half, and
//! a fifth of all is for hops that have no connection: a peer that answered once and then
//! stands still must not hold up whoever comes next.
//!
//! An idle session is for a mail that would otherwise connect to just that host: a session
//! with the second gateway must not draw the mail away from the first for as long as mail
//! comes, nor undo the random order of equal hosts.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

/// Hops that are remembered before those with nothing open are looked for.
const PRUNE_ABOVE: usize = 10_000;

/// Among so many who wait for a hop, one is looked for whom an idle session fits. More would
/// keep the first waiting, and all others while that is done.
const LOOK_AHEAD: usize = 64;

/// One slot in so many is kept for hops that have no connection.
const KEPT: usize = 5;

/// Whether a session will do.
pub(super) type Fits<S> = Box<dyn Fn(&S) -> bool + Send>;

/// What ends a session.
pub(super) type Retire<S> = Box<dyn Fn(S, Slot<S>) + Send + Sync>;

/// The connections of one `RemoteDelivery`. `S` is a session.
pub(super) struct Slots<S: Send + 'static> {
    /// How long a hop's limit holds; `None`: as long as this lives.
    limited_for: Option<Duration>,
    /// Ends an idle session politely; its slot is free once the given one is dropped.
    retire: Retire<S>,
    state: Mutex<State<S>>,
}

struct State<S: Send + 'static> {
    capacity: usize,
    /// Of those slots, for hops that have no connection.
    kept: usize,
    hops: HashMap<String, Hop<S>>,
    /// Hops that have somebody waiting, each once, the next to be served first.
    turns: VecDeque<String>,
    /// Connections open or being opened, over all hops.
    open: usize,
    /// Of those, the hop of each idle session, the one that is idle for longest first.
    idle: VecDeque<String>,
    /// Who waits, over all hops.
    waiting: usize,
    next_idle: u64,
}

struct Hop<S: Send + 'static> {
    /// Slots given out.
    held: usize,
    /// How many of those have a session with the peer.
    serving: usize,
    idle: Vec<Idle<S>>,
    waiting: VecDeque<Waiting<S>>,
    known: bool,
    delivered: bool,
    /// Rounds of refused connections since the last session, while there was none, and when the
    /// last began.
    refusals: u32,
    refused: Option<Instant>,
    limit: Option<(usize, Option<Instant>)>,
}

struct Idle<S> {
    number: u64,
    session: S,
}

struct Waiting<S: Send + 'static> {
    turn: oneshot::Sender<Turn<S>>,
    fits: Fits<S>,
}

/// What can be done for those who wait.
enum Next {
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

/// What somebody who waited gets.
pub(super) enum Turn<S: Send + 'static> {
    /// A slot, with an open session where there was an idle one.
    Slot(Slot<S>, Option<S>),
    /// The hop was found down: nothing to wait for.
    TurnedAway,
}

/// The right to one connection to a hop; given back when dropped.
pub(super) struct Slot<S: Send + 'static> {
    slots: Arc<Slots<S>>,
    hop: String,
    serves: bool,
}

impl<S: Send + 'static> Default for Hop<S> {
    fn default() -> Self {
        Self {
            held: 0,
            serving: 0,
            idle: Vec::new(),
            waiting: VecDeque::new(),
            known: false,
            delivered: false,
            refusals: 0,
            refused: None,
            limit: None,
        }
    }
}

impl<S: Send + 'static> Hop<S> {
    fn open(&self) -> usize {
        self.held + self.idle.len()
    }

    fn sessions(&self) -> usize {
        self.serving + self.idle.len()
    }

    fn is_forgettable(&self) -> bool {
        self.open() == 0 && self.waiting.is_empty()
    }

    /// The peer's limit of connections, while it holds.
    fn limit(&self) -> Option<usize> {
        self.limit.filter(|(_, until)| until.is_none_or(|until| Instant::now() < until)).map(|(limit, _)| limit)
    }

    /// Somebody who waits and an idle session that is for him, by their places. Where the
    /// peer takes no more connections any session is for anybody.
    fn pair(&self) -> Option<(usize, usize)> {
        let any = self.limit().is_some();
        let waiting = self.waiting.iter().take(if self.idle.is_empty() { 0 } else { LOOK_AHEAD });
        waiting.enumerate().find_map(|(place, waiting)| {
            let idle = self.idle.iter().rposition(|idle| any || (waiting.fits)(&idle.session))?;
            Some((place, idle))
        })
    }
}

impl<S: Send + 'static> Slots<S> {
    /// At most `capacity` connections (at least one); with `one_hop` there will be no other hop
    /// than the first.
    pub(super) fn new(capacity: usize, one_hop: bool, limited_for: Option<Duration>, retire: Retire<S>) -> Arc<Self> {
        let kept = if one_hop { 0 } else { capacity / KEPT };
        let state = State {
            capacity: capacity.max(1),
            kept,
            hops: HashMap::new(),
            turns: VecDeque::new(),
            open: 0,
            idle: VecDeque::new(),
            waiting: 0,
            next_idle: 0,
        };
        Arc::new(Self { limited_for, retire, state: Mutex::new(state) })
    }

    fn state(&self) -> MutexGuard<'_, State<S>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a connection to `hop`: an idle session where one `fits`.
    pub(super) async fn acquire(self: &Arc<Self>, hop: &str, fits: Fits<S>) -> Turn<S> {
        let receiver = {
            let mut state = self.state();
            state.prune();
            let (turn, receiver) = oneshot::channel();
            let waiting = &mut state.hop(hop).waiting;
            waiting.push_back(Waiting { turn, fits });
            if waiting.len() == 1 {
                state.turns.push_back(hop.to_owned());
            }
            state.waiting += 1;
            receiver
        };
        self.serve();
        receiver.await.unwrap_or(Turn::TurnedAway)
    }

    /// How many wait for a connection.
    pub(super) fn waiting(&self) -> usize {
        self.state().waiting
    }

    /// A session with `hop` has delivered mail.
    pub(super) fn note_delivery(&self, hop: &str) {
        self.state().hop(hop).delivered = true;
    }

    /// Whether a session with `hop` has delivered mail.
    pub(super) fn has_delivered(&self, hop: &str) -> bool {
        self.state().hops.get(hop).is_some_and(|hop| hop.delivered)
    }

    /// A connection was refused and there is no session; how often that is so now. Several
    /// within one `round` are told the same: they knocked together.
    pub(super) fn note_refusal(&self, hop: &str, round: Duration) -> u32 {
        let (mut state, now) = (self.state(), Instant::now());
        let hop = state.hop(hop);
        if hop.refused.is_none_or(|began| now - began >= round) {
            hop.refused = Some(now);
            hop.refusals = hop.refusals.saturating_add(1);
        }
        hop.refusals
    }

    /// How often that was so since the last session.
    pub(super) fn refusals(&self, hop: &str) -> u32 {
        self.state().hops.get(hop).map_or(0, |hop| hop.refusals)
    }

    /// Sessions with `hop`, idle ones included.
    pub(super) fn sessions(&self, hop: &str) -> usize {
        self.state().hops.get(hop).map_or(0, Hop::sessions)
    }

    /// `hop` takes no more connections than it has sessions now.
    pub(super) fn limit_to_sessions(&self, hop: &str) {
        let until = self.limited_for.map(|limited_for| Instant::now() + limited_for);
        let mut state = self.state();
        let hop = state.hop(hop);
        hop.limit = Some((hop.sessions().max(1), until));
    }

    /// Everybody who waits for `hop` is to look for himself what became of it. That it
    /// answered once is no promise any more, in a service neither that it delivered.
    pub(super) fn turn_away(&self, hop: &str) {
        let mut state = self.state();
        state.leave_line(hop);
        let hop = state.hop(hop);
        hop.known = false;
        hop.delivered &= self.limited_for.is_none();
        let turned_away = std::mem::take(&mut hop.waiting);
        state.waiting -= turned_away.len();
        drop(state);
        for waiting in turned_away {
            let _ = waiting.turn.send(Turn::TurnedAway);
        }
    }

    /// Ends all idle sessions.
    pub(super) fn retire_all(self: &Arc<Self>) {
        let hops: Vec<String> = self.state().hops.keys().cloned().collect();
        for hop in hops {
            while let Some((session, slot)) = self.take_idle(&hop, |_| true) {
                (self.retire)(session, slot);
            }
        }
    }

    /// Ends an idle session that nobody wanted for a while.
    fn retire_idle(self: &Arc<Self>, hop: &str, number: u64) {
        if let Some((session, slot)) = self.take_idle(hop, |idle| idle.number == number) {
            (self.retire)(session, slot);
        }
    }

    fn take_idle(self: &Arc<Self>, name: &str, which: impl Fn(&Idle<S>) -> bool) -> Option<(S, Slot<S>)> {
        let mut state = self.state();
        let hop = state.hops.get_mut(name)?;
        let at = hop.idle.iter().position(which)?;
        let idle = hop.idle.swap_remove(at);
        hop.held += 1;
        hop.serving += 1;
        state.no_longer_idle(name);
        drop(state);
        Some((idle.session, Slot { slots: Arc::clone(self), hop: name.to_owned(), serves: true }))
    }

    /// Gives out what can be given out.
    fn serve(self: &Arc<Self>) {
        loop {
            let mut state = self.state();
            let (name, waiting, idle) = match state.next() {
                Some(Next::Session(name, waiting, idle)) => (name, waiting, Some(idle)),
                Some(Next::Connection(name)) => (name, 0, None),
                Some(Next::Retire(name)) => {
                    drop(state);
                    // Its slot serves whoever waits when it is given back.
                    if let Some((session, slot)) = self.take_idle(&name, |_| true) {
                        (self.retire)(session, slot);
                    }
                    return;
                }
                None => return,
            };
            let taken = state.hop(&name).waiting.remove(waiting);
            state.waiting -= usize::from(taken.is_some());
            // Whoever gave up waiting is passed over.
            let Some(waiting) = taken.filter(|waiting| !waiting.turn.is_closed()) else {
                state.turn_taken(&name);
                continue;
            };
            let hop = state.hop(&name);
            let session = idle.map(|idle| hop.idle.remove(idle).session);
            hop.held += 1;
            hop.serving += usize::from(session.is_some());
            match session {
                Some(_) => state.no_longer_idle(&name),
                None => state.open += 1,
            }
            state.turn_taken(&name);
            drop(state);
            // Whoever waited may be gone just now: the slot is dropped, outside of the lock.
            let slot = Slot { slots: Arc::clone(self), hop: name, serves: session.is_some() };
            if let Err(Turn::Slot(slot, Some(session))) = waiting.turn.send(Turn::Slot(slot, session)) {
                slot.keep(session);
            }
        }
    }
}

impl<S: Send + 'static> State<S> {
    fn hop(&mut self, name: &str) -> &mut Hop<S> {
        if !self.hops.contains_key(name) {
            self.hops.insert(name.to_owned(), Hop::default());
        }
        self.hops.get_mut(name).expect("it was put in")
    }

    fn prune(&mut self) {
        if self.hops.len() > PRUNE_ABOVE {
            self.hops.retain(|_, hop| !hop.is_forgettable());
        }
    }

    /// How many connections are fair for `name` now.
    fn share(&self, name: &str) -> usize {
        let others_wait = self.turns.iter().any(|waiting| waiting != name);
        match self.hops.get(name) {
            Some(hop) if hop.known && others_wait => (self.capacity / 2).max(1),
            Some(hop) if hop.known => self.capacity,
            _ => 1,
        }
    }

    /// Whether one more connection leaves the slots that are kept for hops without any, once
    /// `freed` were given back.
    fn has_room(&self, name: &str, freed: usize) -> bool {
        let has_none = self.hops.get(name).is_none_or(|hop| hop.open() == 0);
        let kept = if has_none { 0 } else { self.kept };
        self.open + kept < self.capacity + freed
    }

    /// How many slots `name` may have now, by its share and its peer's limit.
    fn allowed(&self, name: &str) -> usize {
        let limit = self.hops.get(name).and_then(Hop::limit).unwrap_or(self.capacity);
        self.share(name).min(limit)
    }

    /// The next in turn that can be served: with an idle session of the hop's own, with a
    /// new connection, or once an idle session has made room for that.
    fn next(&self) -> Option<Next> {
        let served = if self.open < self.capacity {
            self.turns.iter().find_map(|name| {
                let may_connect = || {
                    let open = self.hops.get(name).map_or(0, Hop::open);
                    self.has_room(name, 0) && open < self.allowed(name)
                };
                self.session_for(name).or_else(|| may_connect().then(|| Next::Connection(name.clone())))
            })
        } else {
            // Nobody may connect: of thousands that wait only those need to be asked.
            let place = |next: &Next| self.turns.iter().position(|waiting| waiting == next.hop());
            self.idle.iter().filter_map(|name| self.session_for(name)).min_by_key(place)
        };
        served.or_else(|| self.evictable().map(Next::Retire))
    }

    /// The hop's own idle session for somebody who waits for it.
    fn session_for(&self, name: &str) -> Option<Next> {
        let hop = self.hops.get(name).filter(|hop| hop.held < self.share(name))?;
        hop.pair().map(|(waiting, idle)| Next::Session(name.to_owned(), waiting, idle))
    }

    /// A hop that keeps an idle session in the way of somebody who waits.
    fn evictable(&self) -> Option<String> {
        let longest = self.idle.front()?;
        let has_idle = |name: &&String| self.hops.get(*name).is_some_and(|hop| !hop.idle.is_empty());
        let may_have_one = |name: &&String| {
            let is_allowed = self.hops.get(*name).is_some_and(|hop| hop.held < self.allowed(name));
            is_allowed && self.has_room(name, self.idle.len())
        };
        let waits = self.turns.iter().find(may_have_one)?;
        Some(waits).filter(has_idle).or(Some(longest)).cloned()
    }

    /// `name` goes to the end of the line, or out of it.
    fn turn_taken(&mut self, name: &str) {
        self.leave_line(name);
        if !self.hop(name).waiting.is_empty() {
            self.turns.push_back(name.to_owned());
        }
    }

    /// One idle session less of `name`.
    fn no_longer_idle(&mut self, name: &str) {
        if let Some(place) = self.idle.iter().position(|idle| idle == name) {
            self.idle.remove(place);
        }
    }

    /// Whose turn it was stands near the front.
    fn leave_line(&mut self, name: &str) {
        if let Some(place) = self.turns.iter().position(|waiting| waiting == name) {
            self.turns.remove(place);
        }
    }
}

impl<S: Send + 'static> Slot<S> {
    /// There is a session with the peer now: it answers, and may have more connections.
    pub(super) fn begin_serving(&mut self) {
        if !std::mem::replace(&mut self.serves, true) {
            let mut state = self.slots.state();
            let hop = state.hop(&self.hop);
            hop.serving += 1;
            hop.known = true;
            (hop.refusals, hop.refused) = (0, None);
            drop(state);
            self.slots.serve();
        }
    }

    /// The session is over.
    pub(super) fn end_serving(&mut self) {
        if std::mem::replace(&mut self.serves, false) {
            let mut state = self.slots.state();
            let hop = state.hop(&self.hop);
            hop.serving = hop.serving.saturating_sub(1);
        }
    }

    /// Gives the slot back with its session open, for the hop's next mail. After
    /// `idle_for` without one the session is ended.
    pub(super) fn keep_for(self, session: S, idle_for: Duration) {
        let (slots, hop) = (Arc::downgrade(&self.slots), self.hop.clone());
        let number = self.keep(session);
        tokio::spawn(async move {
            tokio::time::sleep(idle_for).await;
            if let Some(slots) = slots.upgrade() {
                slots.retire_idle(&hop, number);
            }
        });
    }

    fn keep(self, session: S) -> u64 {
        let mut state = self.slots.state();
        let number = state.next_idle;
        state.next_idle += 1;
        state.hop(&self.hop).idle.push(Idle { number, session });
        // Two of the same connection, until the slot is dropped.
        state.open += 1;
        state.idle.push_back(self.hop.clone());
        drop(state);
        number
        // Dropping the slot now takes it from those held, and serves whoever waits.
    }
}

impl<S: Send + 'static> Drop for Slot<S> {
    fn drop(&mut self) {
        self.end_serving();
        {
            let mut state = self.slots.state();
            let hop = state.hop(&self.hop);
            hop.held = hop.held.saturating_sub(1);
            state.open = state.open.saturating_sub(1);
        }
        self.slots.serve();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Session = u32;

    fn slots(capacity: usize) -> Arc<Slots<Session>> {
        Slots::new(capacity, true, None, Box::new(|_, slot| drop(slot)))
    }

    fn any() -> Fits<Session> {
        Box::new(|_| true)
    }

    /// Who has got a slot among those who asked, without waiting.
    async fn ready(waiting: &mut Vec<tokio::task::JoinHandle<Turn<Session>>>) -> Vec<Slot<Session>> {
        for _ in 0..50 {
            tokio::task::yield_now().await;
        }
        let (done, still): (Vec<_>, Vec<_>) =
            std::mem::take(waiting).into_iter().partition(tokio::task::JoinHandle::is_finished);
        *waiting = still;
        let mut slots = Vec::new();
        for handle in done {
            if let Turn::Slot(slot, _) = handle.await.expect("no panic") {
                slots.push(slot);
            }
        }
        slots
    }

    fn ask(
        slots: &Arc<Slots<Session>>,
        hop: &'static str,
        times: usize,
    ) -> Vec<tokio::task::JoinHandle<Turn<Session>>> {
        let ask = |_| {
            let slots = Arc::clone(slots);
            tokio::spawn(async move { slots.acquire(hop, any()).await })
        };
        (0..times).map(ask).collect()
    }

    /// What is counted is what there is.
    fn check(slots: &Slots<Session>) {
        let state = slots.state();
        assert_eq!(state.open, state.hops.values().map(Hop::open).sum::<usize>());
        assert_eq!(state.idle.len(), state.hops.values().map(|hop| hop.idle.len()).sum::<usize>());
        let waiting = state.hops.values().filter(|hop| !hop.waiting.is_empty()).count();
        assert_eq!(state.turns.len(), waiting);
        assert_eq!(state.waiting, state.hops.values().map(|hop| hop.waiting.len()).sum::<usize>());
    }

    /// Lets `hop` have answered.
    async fn know(slots: &Arc<Slots<Session>>, hop: &str) {
        let Turn::Slot(mut slot, None) = slots.acquire(hop, any()).await else { panic!("no slot") };
        slot.begin_serving();
    }

    #[tokio::test]
    async fn a_hop_that_has_not_answered_has_one_connection() {
        let slots = slots(10);
        let mut waiting = ask(&slots, "black.example", 100);
        let mut held = ready(&mut waiting).await;
        assert_eq!(held.len(), 1);
        held[0].begin_serving();
        assert_eq!(ready(&mut waiting).await.len(), 9, "once it answers it has all, since nobody else waits");
    }

    #[tokio::test]
    async fn a_hop_has_half_while_another_one_waits() {
        let slots = slots(4);
        know(&slots, "a.example").await;
        know(&slots, "b.example").await;
        let mut for_a = ask(&slots, "a.example", 20);
        let mut held = ready(&mut for_a).await;
        assert_eq!(held.len(), 4);
        let mut for_b = ask(&slots, "b.example", 20);
        assert_eq!(ready(&mut for_b).await.len(), 0);
        held.truncate(2);
        let held_by_b = ready(&mut for_b).await;
        assert_eq!((held_by_b.len(), ready(&mut for_a).await.len()), (2, 0));
    }

    #[tokio::test]
    async fn a_peer_that_stands_still_leaves_slots_for_others() {
        let slots: Arc<Slots<Session>> = Slots::new(10, false, None, Box::new(|_, slot| drop(slot)));
        know(&slots, "still.example").await;
        let mut waiting = ask(&slots, "still.example", 100);
        let held = ready(&mut waiting).await;
        assert_eq!(held.len(), 8, "nobody else waits, and somebody may come");
        let mut held_by_others = Vec::new();
        for hop in ["other.example", "third.example"] {
            let given = ready(&mut ask(&slots, hop, 1)).await;
            assert_eq!(given.len(), 1, "{hop}");
            held_by_others.extend(given);
        }
    }

    #[tokio::test]
    async fn an_idle_session_is_handed_on_or_makes_room() {
        let slots = slots(1);
        let Turn::Slot(slot, None) = slots.acquire("a.example", any()).await else { panic!("no slot") };
        slot.keep_for(7, Duration::from_hours(1));
        let Turn::Slot(slot, Some(7)) = slots.acquire("a.example", any()).await else { panic!("no session") };
        slot.keep_for(8, Duration::from_hours(1));
        let Turn::Slot(_slot, None) = slots.acquire("b.example", any()).await else { panic!("no room was made") };
        assert_eq!(slots.sessions("a.example"), 0);
    }

    #[tokio::test]
    async fn an_idle_session_is_for_whom_it_fits_and_makes_room_for_others() {
        let slots = slots(2);
        know(&slots, "a.example").await;
        let mut held = ready(&mut ask(&slots, "a.example", 2)).await;
        let wants = |wanted: Session| {
            let slots = Arc::clone(&slots);
            tokio::spawn(async move { slots.acquire("a.example", Box::new(move |session| *session == wanted)).await })
        };
        let (other, fitting) = (wants(8), wants(7));
        assert_eq!(ready(&mut Vec::new()).await.len(), 0, "both wait");
        held.pop().expect("a slot").keep_for(7, Duration::from_hours(1));
        let Ok(Turn::Slot(slot, Some(7))) = fitting.await else { panic!("it was not passed on") };
        slot.keep_for(7, Duration::from_hours(1));
        let Ok(Turn::Slot(_slot, None)) = other.await else { panic!("no room was made") };
        assert_eq!(slots.sessions("a.example"), 0);
    }

    #[tokio::test]
    async fn where_the_peer_takes_no_more_connections_any_session_fits() {
        let slots = slots(4);
        let Turn::Slot(mut slot, _) = slots.acquire("a.example", any()).await else { panic!("no slot") };
        slot.begin_serving();
        slots.limit_to_sessions("a.example");
        slot.keep_for(7, Duration::from_hours(1));
        let turn = slots.acquire("a.example", Box::new(|_| false)).await;
        assert!(matches!(turn, Turn::Slot(_, Some(7))));
    }

    #[tokio::test]
    async fn a_limit_makes_the_others_wait_for_an_open_session() {
        let slots = slots(10);
        know(&slots, "a.example").await;
        let mut waiting = ask(&slots, "a.example", 3);
        let mut held = ready(&mut waiting).await;
        assert_eq!(held.len(), 3);
        held[0].begin_serving();
        held[1].begin_serving();
        slots.limit_to_sessions("a.example");
        drop(held.pop());
        let mut waiting = ask(&slots, "a.example", 2);
        assert_eq!(ready(&mut waiting).await.len(), 0, "the peer takes two");
        held.pop().expect("a slot").keep_for(1, Duration::from_hours(1));
        assert_eq!(ready(&mut waiting).await.len(), 1);
    }

    #[tokio::test]
    async fn idle_sessions_are_used_whatever_the_limit_and_however_many_there_are() {
        let slots = slots(4);
        know(&slots, "a.example").await;
        let mut held = ready(&mut ask(&slots, "a.example", 4)).await;
        assert_eq!(held.len(), 4);
        slots.limit_to_sessions("a.example");
        for slot in held.drain(..) {
            slot.keep_for(1, Duration::from_hours(1));
        }
        let mut for_b = ask(&slots, "b.example", 2);
        let _held_by_b = ready(&mut for_b).await;
        assert_eq!(slots.sessions("a.example"), 3, "one made room for the other hop, whose second mail still waits");
        assert_eq!(ready(&mut ask(&slots, "a.example", 4)).await.len(), 2, "half of all");
    }

    #[tokio::test]
    async fn refusals_of_one_round_are_one() {
        let slots = slots(2);
        let round = Duration::from_millis(100);
        let refusal = || slots.note_refusal("a.example", round);
        assert_eq!([refusal(), refusal(), refusal()], [1, 1, 1]);
        tokio::time::sleep(round).await;
        assert_eq!([refusal(), refusal()], [2, 2]);
        assert_eq!(slots.refusals("a.example"), 2);
        know(&slots, "a.example").await;
        assert_eq!(slots.refusals("a.example"), 0);
    }

    #[tokio::test]
    async fn whoever_waits_for_a_dead_hop_is_told() {
        let slots = slots(2);
        let mut waiting = ask(&slots, "dead.example", 5);
        let _held = ready(&mut waiting).await;
        assert_eq!(slots.waiting(), 4);
        check(&slots);
        slots.turn_away("dead.example");
        assert_eq!(slots.waiting(), 0);
        for handle in waiting {
            assert!(matches!(handle.await.expect("no panic"), Turn::TurnedAway));
        }
    }

    #[tokio::test]
    async fn what_answered_once_and_was_then_found_down_begins_anew() {
        for in_service in [false, true] {
            let limited_for = in_service.then_some(Duration::from_mins(1));
            let slots = Slots::new(10, true, limited_for, Box::new(|_, slot| drop(slot)));
            know(&slots, "a.example").await;
            slots.note_delivery("a.example");
            assert_eq!(ready(&mut ask(&slots, "a.example", 5)).await.len(), 5);
            slots.turn_away("a.example");
            assert_eq!(ready(&mut ask(&slots, "a.example", 5)).await.len(), 1);
            assert_eq!(slots.has_delivered("a.example"), !in_service, "a sweep remembers that to its end");
            check(&slots);
        }
    }

    /// With thousands of hops, each choice among them would be paid for thousands of times.
    #[tokio::test]
    async fn thousands_of_hops_are_served_one_after_the_other() {
        let slots = slots(10);
        let hops = 5000;
        let mut served = tokio::task::JoinSet::new();
        for hop in 0..hops {
            let slots = Arc::clone(&slots);
            served.spawn(async move {
                let Turn::Slot(mut slot, _) = slots.acquire(&format!("{hop}.example"), any()).await else { return 0 };
                slot.begin_serving();
                tokio::task::yield_now().await;
                if hop % 2 == 0 {
                    slot.keep_for(1, Duration::from_hours(1));
                }
                1
            });
        }
        assert_eq!(served.join_all().await.into_iter().sum::<usize>(), hops);
        check(&slots);
        slots.retire_all();
        check(&slots);
        assert_eq!(slots.state().open, 0);
    }

    #[tokio::test]
    async fn a_slot_for_somebody_who_is_gone_goes_to_the_next() {
        let slots = slots(1);
        let Turn::Slot(slot, _) = slots.acquire("a.example", any()).await else { panic!("no slot") };
        let gone = ask(&slots, "a.example", 1).pop().expect("one");
        tokio::task::yield_now().await;
        gone.abort();
        let _ = gone.await;
        let mut waiting = ask(&slots, "a.example", 1);
        tokio::task::yield_now().await;
        drop(slot);
        assert_eq!(ready(&mut waiting).await.len(), 1);
    }
}
