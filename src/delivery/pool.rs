//! Connections: how many are open at once, and the idle sessions that wait for their next
//! hop's next mail. Who gets the next one is [`super::fairness`]'s to say.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::fairness::{Capacity, Load, Next, View, next};
use super::peers::{Known, Peers};

/// Hops that are held before those with nothing open are looked for.
const PRUNE_ABOVE: usize = 10_000;

/// Among so many who wait for a hop, one is looked for whom an idle session fits. More would
/// keep the first waiting, and all others while that is done.
const LOOK_AHEAD: usize = 64;

/// For each connection of a hop, how many of those who wait have their turn soon: what they do
/// before it is done for many at once.
const NEAR: usize = 2;

/// With fewer connections to a hop nobody begins ahead: there is little to do at once, and who has
/// begun is bound to this configuration, and in doubt after a death.
const BUSY: usize = 4;

/// Who may wait for one hop.
const CROWD: usize = 500;

/// The same where many wait, over all hops.
const CROWD_AMONG_MANY: usize = 16;
const MANY: usize = 2000;

/// Whether a session will do.
pub(super) type Fits<S> = Box<dyn Fn(&S) -> bool + Send>;

/// What ends a session.
pub(super) type Retire<S> = Box<dyn Fn(S, Permit<S>) + Send + Sync>;

/// The connections of one `RemoteDelivery`. `S` is a session.
pub(super) struct Pool<S: Send + 'static> {
    capacity: Capacity,
    /// How long a session stays open without a mail.
    idle_for: Duration,
    peers: Arc<Peers>,
    /// Ends an idle session politely; its connection is given back once the permit is dropped.
    retire: Retire<S>,
    state: Mutex<State<S>>,
}

struct State<S: Send + 'static> {
    hops: HashMap<String, Hop<S>>,
    /// Hops that have somebody waiting, each once, the next to be served first.
    line: VecDeque<String>,
    /// Connections open or being opened, over all hops.
    open: usize,
    /// The idle sessions of all hops, the one that is idle for longest first.
    idle: VecDeque<IdleSince>,
    /// Who waits, over all hops.
    waiting: usize,
    next_number: u64,
    /// There is a task that ends sessions which nobody wants.
    is_reaped: bool,
}

/// Since when a session is idle.
struct IdleSince {
    number: u64,
    hop: String,
    at: Instant,
}

struct Hop<S: Send + 'static> {
    /// Permits given out.
    held: usize,
    /// How many of those have a session with the peer.
    serving: usize,
    idle: Vec<Idle<S>>,
    waiting: VecDeque<Waiting<S>>,
}

struct Idle<S> {
    number: u64,
    session: S,
}

struct Waiting<S: Send + 'static> {
    turn: oneshot::Sender<Turn<S>>,
    /// Told, once, that the turn comes soon.
    near: Option<oneshot::Sender<()>>,
    fits: Fits<S>,
}

/// What somebody who waited gets.
pub(super) enum Turn<S: Send + 'static> {
    /// A connection, with an open session where there was an idle one.
    Permit(Permit<S>, Option<S>),
    /// The hop was found down: nothing to wait for.
    TurnedAway,
}

/// The right to one connection to a hop; given back when dropped.
pub(super) struct Permit<S: Send + 'static> {
    pool: Arc<Pool<S>>,
    hop: String,
    serves: bool,
}

impl<S: Send + 'static> Default for Hop<S> {
    fn default() -> Self {
        Self { held: 0, serving: 0, idle: Vec::new(), waiting: VecDeque::new() }
    }
}

impl<S: Send + 'static> Hop<S> {
    fn open(&self) -> usize {
        self.held + self.idle.len()
    }

    fn sessions(&self) -> usize {
        self.serving + self.idle.len()
    }

    /// Whoever is among the first who wait has his turn soon.
    fn tell_near(&mut self) {
        let near = if self.open() < BUSY { 0 } else { self.open() * NEAR };
        for near in self.waiting.iter_mut().take(near).filter_map(|waiting| waiting.near.take()) {
            // One who waits no more needs no word.
            let _ = near.send(());
        }
    }

    fn is_forgettable(&self) -> bool {
        self.open() == 0 && self.waiting.is_empty()
    }

    /// Somebody who waits and an idle session that is for him, by their places; with `any`
    /// whichever it is.
    fn pair(&self, any: bool) -> Option<(usize, usize)> {
        let waiting = self.waiting.iter().take(if self.idle.is_empty() { 0 } else { LOOK_AHEAD });
        waiting.enumerate().find_map(|(place, waiting)| {
            let idle = self.idle.iter().rposition(|idle| any || (waiting.fits)(&idle.session))?;
            Some((place, idle))
        })
    }
}

/// The state beside what is known of peers.
struct Beside<'a, S: Send + 'static> {
    state: &'a State<S>,
    known: Known<'a>,
}

impl<S: Send + 'static> View for Beside<'_, S> {
    fn line(&self) -> impl Iterator<Item = &str> {
        self.state.line.iter().map(String::as_str)
    }

    fn idle(&self) -> impl Iterator<Item = &str> {
        self.state.idle.iter().map(|since| since.hop.as_str())
    }

    fn open(&self) -> usize {
        self.state.open
    }

    fn load(&self, name: &str) -> Load {
        let hop = self.state.hops.get(name);
        Load {
            held: hop.map_or(0, |hop| hop.held),
            idle: hop.map_or(0, |hop| hop.idle.len()),
            answers: self.known.answers(name),
            limit: self.known.limit(name),
        }
    }

    /// Where the peer takes no more connections any session is for anybody.
    fn pair(&self, name: &str) -> Option<(usize, usize)> {
        self.state.hops.get(name)?.pair(self.known.limit(name).is_some())
    }
}

impl<S: Send + 'static> Pool<S> {
    /// So many connections. `retire` ends a session that was idle for `idle_for`, or in the way.
    pub(super) fn new(capacity: Capacity, idle_for: Duration, peers: Arc<Peers>, retire: Retire<S>) -> Arc<Self> {
        let state = State {
            hops: HashMap::new(),
            line: VecDeque::new(),
            open: 0,
            idle: VecDeque::new(),
            waiting: 0,
            next_number: 0,
            is_reaped: false,
        };
        Arc::new(Self { capacity, idle_for, peers, retire, state: Mutex::new(state) })
    }

    fn state(&self) -> MutexGuard<'_, State<S>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a connection to `hop`: an idle session where one `fits`.
    #[cfg(test)]
    pub(super) async fn acquire(self: &Arc<Self>, hop: &str, fits: Fits<S>) -> Turn<S> {
        self.acquire_told(hop, fits, oneshot::channel().0).await
    }

    /// The same; `near` is told when the turn comes soon, at a hop that answers.
    pub(super) async fn acquire_told(self: &Arc<Self>, hop: &str, fits: Fits<S>, near: oneshot::Sender<()>) -> Turn<S> {
        let receiver = {
            let mut state = self.state();
            state.prune();
            let (turn, receiver) = oneshot::channel();
            let waiting = &mut state.hop(hop).waiting;
            waiting.push_back(Waiting { turn, near: Some(near), fits });
            if waiting.len() == 1 {
                state.line.push_back(hop.to_owned());
            }
            state.waiting += 1;
            self.tell_near(&mut state, hop);
            receiver
        };
        self.serve();
        receiver.await.unwrap_or(Turn::TurnedAway)
    }

    /// Tells those who are next at a hop that answers.
    fn tell_near(&self, state: &mut State<S>, hop: &str) {
        if self.peers.known().answers(hop) {
            state.hop(hop).tell_near();
        }
    }

    /// How many wait for a connection.
    pub(super) fn waiting(&self) -> usize {
        self.state().waiting
    }

    /// Whether so many wait for `hop` that others had better wait elsewhere.
    pub(super) fn is_crowded(&self, hop: &str) -> bool {
        let state = self.state();
        let most = if state.waiting < MANY { CROWD } else { CROWD_AMONG_MANY };
        state.hops.get(hop).is_some_and(|hop| hop.waiting.len() >= most)
    }

    /// Connections open with `hop`, idle ones included, and how many wait for one.
    pub(super) fn load(&self, hop: &str) -> (usize, usize) {
        self.state().hops.get(hop).map_or((0, 0), |hop| (hop.open(), hop.waiting.len()))
    }

    /// Sessions with `hop`, idle ones included.
    pub(super) fn sessions(&self, hop: &str) -> usize {
        self.state().hops.get(hop).map_or(0, Hop::sessions)
    }

    /// Everybody who waits for `hop` is to look for himself what became of it.
    pub(super) fn turn_away(&self, hop: &str) {
        let mut state = self.state();
        state.leave_line(hop);
        let turned_away = std::mem::take(&mut state.hop(hop).waiting);
        state.waiting -= turned_away.len();
        drop(state);
        for waiting in turned_away {
            let _ = waiting.turn.send(Turn::TurnedAway);
        }
    }

    /// Ends all idle sessions.
    pub(super) fn retire_all(self: &Arc<Self>) {
        while let Some((session, permit)) = self.take_idle(|_| true) {
            (self.retire)(session, permit);
        }
    }

    /// Ends the idle sessions that nobody wanted for long enough. Returns when to look again,
    /// where there are others.
    fn retire_unwanted(self: &Arc<Self>) -> Option<Instant> {
        let now = Instant::now();
        while let Some((session, permit)) = self.take_idle(|idle| idle.at + self.idle_for <= now) {
            (self.retire)(session, permit);
        }
        let mut state = self.state();
        let next = state.idle.front().map(|idle| idle.at + self.idle_for);
        state.is_reaped = next.is_some();
        next
    }

    /// Has idle sessions end in their time. One task does it, for as long as there are any.
    fn reap(self: &Arc<Self>) {
        if std::mem::replace(&mut self.state().is_reaped, true) {
            return;
        }
        let pool: Weak<Self> = Arc::downgrade(self);
        let mut next = Some(Instant::now() + self.idle_for);
        tokio::spawn(async move {
            while let Some(at) = next {
                tokio::time::sleep_until(at).await;
                next = pool.upgrade().and_then(|pool| pool.retire_unwanted());
            }
        });
    }

    /// The session that is idle for longest among those.
    fn take_idle(self: &Arc<Self>, which: impl Fn(&IdleSince) -> bool) -> Option<(S, Permit<S>)> {
        let mut state = self.state();
        let at = state.idle.iter().position(which)?;
        let IdleSince { number, hop: name, .. } = state.idle.remove(at)?;
        let hop = state.hops.get_mut(&name)?;
        let place = hop.idle.iter().position(|idle| idle.number == number)?;
        let idle = hop.idle.swap_remove(place);
        hop.held += 1;
        hop.serving += 1;
        drop(state);
        Some((idle.session, Permit { pool: Arc::clone(self), hop: name, serves: true }))
    }

    /// Gives out what can be given out.
    fn serve(self: &Arc<Self>) {
        loop {
            let mut state = self.state();
            let found = next(&Beside { state: &state, known: self.peers.known() }, self.capacity);
            let (name, waiting, idle) = match found {
                Some(Next::Session(name, waiting, idle)) => (name, waiting, Some(idle)),
                Some(Next::Connection(name)) => (name, 0, None),
                Some(Next::Retire(name)) => {
                    drop(state);
                    // Its connection serves whoever waits when it is given back.
                    if let Some((session, permit)) = self.take_idle(|idle| idle.hop == name) {
                        (self.retire)(session, permit);
                    }
                    return;
                }
                None => return,
            };
            let Some((turn, session)) = state.hand_out(&name, waiting, idle) else { continue };
            self.tell_near(&mut state, &name);
            drop(state);
            // Whoever waited may be gone just now: the permit is dropped, outside of the lock.
            let permit = Permit { pool: Arc::clone(self), hop: name, serves: session.is_some() };
            if let Err(Turn::Permit(permit, Some(session))) = turn.send(Turn::Permit(permit, session)) {
                permit.keep(session);
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

    /// Counts a connection or a session for one who waits; none where he gave up waiting.
    fn hand_out(
        &mut self,
        name: &str,
        waiting: usize,
        idle: Option<usize>,
    ) -> Option<(oneshot::Sender<Turn<S>>, Option<S>)> {
        let taken = self.hop(name).waiting.remove(waiting);
        self.waiting -= usize::from(taken.is_some());
        let Some(waiting) = taken.filter(|waiting| !waiting.turn.is_closed()) else {
            self.turn_taken(name);
            return None;
        };
        let hop = self.hop(name);
        hop.held += 1;
        let session = idle.map(|idle| hop.idle.remove(idle));
        match &session {
            Some(idle) => {
                hop.serving += 1;
                self.idle.retain(|since| since.number != idle.number);
            }
            None => self.open += 1,
        }
        self.turn_taken(name);
        Some((waiting.turn, session.map(|idle| idle.session)))
    }

    /// `name` goes to the end of the line, or out of it.
    fn turn_taken(&mut self, name: &str) {
        self.leave_line(name);
        if !self.hop(name).waiting.is_empty() {
            self.line.push_back(name.to_owned());
        }
    }

    /// Whose turn it was stands near the front.
    fn leave_line(&mut self, name: &str) {
        if let Some(place) = self.line.iter().position(|waiting| waiting == name) {
            self.line.remove(place);
        }
    }
}

impl<S: Send + 'static> Permit<S> {
    /// There is a session with the peer now: it answers, and may have more connections.
    pub(super) fn begin_serving(&mut self) {
        if !std::mem::replace(&mut self.serves, true) {
            self.pool.state().hop(&self.hop).serving += 1;
            self.pool.peers.note_session(&self.hop);
            self.pool.serve();
        }
    }

    /// The session is over.
    pub(super) fn end_serving(&mut self) {
        if std::mem::replace(&mut self.serves, false) {
            let mut state = self.pool.state();
            let hop = state.hop(&self.hop);
            hop.serving = hop.serving.saturating_sub(1);
        }
    }

    /// Gives the connection back with its session open, for the hop's next mail.
    pub(super) fn keep(self, session: S) {
        let pool = Arc::clone(&self.pool);
        self.put_back(session);
        pool.reap();
    }

    fn put_back(self, session: S) {
        let mut state = self.pool.state();
        let number = state.next_number;
        state.next_number += 1;
        state.hop(&self.hop).idle.push(Idle { number, session });
        // Two of the same connection, until the permit is dropped.
        state.open += 1;
        state.idle.push_back(IdleSince { number, hop: self.hop.clone(), at: Instant::now() });
        drop(state);
        // Dropping the permit now takes it from those held, and serves whoever waits.
    }
}

impl<S: Send + 'static> Drop for Permit<S> {
    fn drop(&mut self) {
        self.end_serving();
        {
            let mut state = self.pool.state();
            let hop = state.hop(&self.hop);
            hop.held = hop.held.saturating_sub(1);
            state.open = state.open.saturating_sub(1);
        }
        self.pool.serve();
    }
}

#[cfg(test)]
mod tests;
