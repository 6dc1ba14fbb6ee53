use crate::clock::Clock;

use super::*;

type Session = u32;

const LONG: Duration = Duration::from_hours(1);

fn of(capacity: Capacity, idle_for: Duration) -> Arc<Pool<Session>> {
    let peers = Peers::new(Clock::system(), None);
    Pool::new(capacity, idle_for, peers, Box::new(|_, permit| drop(permit)))
}

/// So many connections, for one hop.
fn pool(connections: usize) -> Arc<Pool<Session>> {
    of(Capacity::new(connections, true), LONG)
}

fn any() -> Fits<Session> {
    Box::new(|_| true)
}

/// Who has got a permit among those who asked, without waiting.
async fn ready(waiting: &mut Vec<tokio::task::JoinHandle<Turn<Session>>>) -> Vec<Permit<Session>> {
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
    let (done, still): (Vec<_>, Vec<_>) =
        std::mem::take(waiting).into_iter().partition(tokio::task::JoinHandle::is_finished);
    *waiting = still;
    let mut permits = Vec::new();
    for handle in done {
        if let Turn::Permit(permit, _) = handle.await.expect("no panic") {
            permits.push(permit);
        }
    }
    permits
}

fn ask(pool: &Arc<Pool<Session>>, hop: &'static str, times: usize) -> Vec<tokio::task::JoinHandle<Turn<Session>>> {
    let ask = |_| {
        let pool = Arc::clone(pool);
        tokio::spawn(async move { pool.acquire(hop, any()).await })
    };
    (0..times).map(ask).collect()
}

/// What is counted is what there is.
fn check(pool: &Pool<Session>) {
    let state = pool.state();
    assert_eq!(state.open, state.hops.values().map(Hop::open).sum::<usize>());
    assert_eq!(state.idle.len(), state.hops.values().map(|hop| hop.idle.len()).sum::<usize>());
    let waiting = state.hops.values().filter(|hop| !hop.waiting.is_empty()).count();
    assert_eq!(state.line.len(), waiting);
    assert_eq!(state.waiting, state.hops.values().map(|hop| hop.waiting.len()).sum::<usize>());
}

/// `hop` takes no more connections than it has sessions now.
fn limit_to_sessions(pool: &Pool<Session>, hop: &str) {
    pool.peers.limit(hop, pool.sessions(hop).max(1));
}

/// Lets `hop` have answered.
async fn know(pool: &Arc<Pool<Session>>, hop: &str) {
    let Turn::Permit(mut permit, None) = pool.acquire(hop, any()).await else { panic!("no permit") };
    permit.begin_serving();
}

#[tokio::test]
async fn a_hop_that_has_not_answered_has_one_connection() {
    let pool = pool(10);
    let mut waiting = ask(&pool, "black.example", 100);
    let mut held = ready(&mut waiting).await;
    assert_eq!(held.len(), 1);
    held[0].begin_serving();
    assert_eq!(ready(&mut waiting).await.len(), 9, "once it answers it has all, since nobody else waits");
}

#[tokio::test]
async fn a_hop_has_half_while_another_one_waits() {
    let pool = pool(4);
    know(&pool, "a.example").await;
    know(&pool, "b.example").await;
    let mut for_a = ask(&pool, "a.example", 20);
    let mut held = ready(&mut for_a).await;
    assert_eq!(held.len(), 4);
    let mut for_b = ask(&pool, "b.example", 20);
    assert_eq!(ready(&mut for_b).await.len(), 0);
    held.truncate(2);
    let held_by_b = ready(&mut for_b).await;
    assert_eq!((held_by_b.len(), ready(&mut for_a).await.len()), (2, 0));
}

#[tokio::test]
async fn a_peer_that_stands_still_leaves_connections_for_others() {
    let pool = of(Capacity::new(10, false), LONG);
    know(&pool, "still.example").await;
    let mut waiting = ask(&pool, "still.example", 100);
    let held = ready(&mut waiting).await;
    assert_eq!(held.len(), 8, "nobody else waits, and somebody may come");
    let mut held_by_others = Vec::new();
    for hop in ["other.example", "third.example"] {
        let given = ready(&mut ask(&pool, hop, 1)).await;
        assert_eq!(given.len(), 1, "{hop}");
        held_by_others.extend(given);
    }
}

#[tokio::test]
async fn an_idle_session_is_handed_on_or_makes_room() {
    let pool = pool(1);
    let Turn::Permit(permit, None) = pool.acquire("a.example", any()).await else { panic!("no permit") };
    permit.keep(7);
    let Turn::Permit(permit, Some(7)) = pool.acquire("a.example", any()).await else { panic!("no session") };
    permit.keep(8);
    let Turn::Permit(_permit, None) = pool.acquire("b.example", any()).await else { panic!("no room was made") };
    assert_eq!(pool.sessions("a.example"), 0);
}

#[tokio::test]
async fn an_idle_session_is_for_whom_it_fits_and_makes_room_for_others() {
    let pool = pool(2);
    know(&pool, "a.example").await;
    let mut held = ready(&mut ask(&pool, "a.example", 2)).await;
    let wants = |wanted: Session| {
        let pool = Arc::clone(&pool);
        tokio::spawn(async move { pool.acquire("a.example", Box::new(move |session| *session == wanted)).await })
    };
    let (other, fitting) = (wants(8), wants(7));
    assert_eq!(ready(&mut Vec::new()).await.len(), 0, "both wait");
    held.pop().expect("a permit").keep(7);
    let Ok(Turn::Permit(permit, Some(7))) = fitting.await else { panic!("it was not passed on") };
    permit.keep(7);
    let Ok(Turn::Permit(_permit, None)) = other.await else { panic!("no room was made") };
    assert_eq!(pool.sessions("a.example"), 0);
}

#[tokio::test]
async fn where_the_peer_takes_no_more_connections_any_session_fits() {
    let pool = pool(4);
    let Turn::Permit(mut permit, _) = pool.acquire("a.example", any()).await else { panic!("no permit") };
    permit.begin_serving();
    limit_to_sessions(&pool, "a.example");
    permit.keep(7);
    let turn = pool.acquire("a.example", Box::new(|_| false)).await;
    assert!(matches!(turn, Turn::Permit(_, Some(7))));
}

#[tokio::test]
async fn a_limit_makes_the_others_wait_for_an_open_session() {
    let pool = pool(10);
    know(&pool, "a.example").await;
    let mut waiting = ask(&pool, "a.example", 3);
    let mut held = ready(&mut waiting).await;
    assert_eq!(held.len(), 3);
    held[0].begin_serving();
    held[1].begin_serving();
    limit_to_sessions(&pool, "a.example");
    drop(held.pop());
    let mut waiting = ask(&pool, "a.example", 2);
    assert_eq!(ready(&mut waiting).await.len(), 0, "the peer takes two");
    held.pop().expect("a permit").keep(1);
    assert_eq!(ready(&mut waiting).await.len(), 1);
}

#[tokio::test]
async fn idle_sessions_are_used_whatever_the_limit_and_however_many_there_are() {
    let pool = pool(4);
    know(&pool, "a.example").await;
    let mut held = ready(&mut ask(&pool, "a.example", 4)).await;
    assert_eq!(held.len(), 4);
    limit_to_sessions(&pool, "a.example");
    for permit in held.drain(..) {
        permit.keep(1);
    }
    let mut for_b = ask(&pool, "b.example", 2);
    let _held_by_b = ready(&mut for_b).await;
    assert_eq!(pool.sessions("a.example"), 3, "one made room for the other hop, whose second mail still waits");
    assert_eq!(ready(&mut ask(&pool, "a.example", 4)).await.len(), 2, "half of all");
}

#[tokio::test]
async fn whoever_waits_for_a_dead_hop_is_told() {
    let pool = pool(2);
    let mut waiting = ask(&pool, "dead.example", 5);
    let _held = ready(&mut waiting).await;
    assert_eq!(pool.waiting(), 4);
    check(&pool);
    pool.turn_away("dead.example");
    assert_eq!(pool.waiting(), 0);
    for handle in waiting {
        assert!(matches!(handle.await.expect("no panic"), Turn::TurnedAway));
    }
}

/// With thousands of hops, each choice among them would be paid for thousands of times.
#[tokio::test]
async fn thousands_of_hops_are_served_one_after_the_other() {
    let pool = pool(10);
    let hops = 5000;
    let mut served = tokio::task::JoinSet::new();
    for hop in 0..hops {
        let pool = Arc::clone(&pool);
        served.spawn(async move {
            let Turn::Permit(mut permit, _) = pool.acquire(&format!("{hop}.example"), any()).await else { return 0 };
            permit.begin_serving();
            tokio::task::yield_now().await;
            if hop % 2 == 0 {
                permit.keep(1);
            }
            1
        });
    }
    assert_eq!(served.join_all().await.into_iter().sum::<usize>(), hops);
    check(&pool);
    pool.retire_all();
    check(&pool);
    assert_eq!(pool.state().open, 0);
}

#[tokio::test]
async fn a_slot_for_somebody_who_is_gone_goes_to_the_next() {
    let pool = pool(1);
    let Turn::Permit(permit, _) = pool.acquire("a.example", any()).await else { panic!("no permit") };
    let gone = ask(&pool, "a.example", 1).pop().expect("one");
    tokio::task::yield_now().await;
    gone.abort();
    let _ = gone.await;
    let mut waiting = ask(&pool, "a.example", 1);
    tokio::task::yield_now().await;
    drop(permit);
    assert_eq!(ready(&mut waiting).await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn sessions_that_nobody_wants_end_in_their_time_by_one_task() {
    let pool = of(Capacity::new(10, true), Duration::from_secs(5));
    know(&pool, "a.example").await;
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let before = tasks();
    for permit in ready(&mut ask(&pool, "a.example", 10)).await {
        permit.keep(7);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(tasks() - before, 1);
    assert_eq!(pool.sessions("a.example"), 10);
    tokio::time::sleep(Duration::from_millis(4_450)).await;
    assert_eq!(pool.sessions("a.example"), 5, "those that are idle for five seconds are gone");
    check(&pool);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!((pool.sessions("a.example"), tasks() - before), (0, 0), "and then nothing is left to do");
    let Turn::Permit(permit, None) = pool.acquire("a.example", any()).await else { panic!("no connection") };
    permit.keep(8);
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert_eq!(pool.sessions("a.example"), 0, "it begins anew");
    check(&pool);
}

#[tokio::test]
async fn what_answered_and_was_then_turned_away_begins_anew() {
    let pool = pool(10);
    know(&pool, "a.example").await;
    assert_eq!(ready(&mut ask(&pool, "a.example", 5)).await.len(), 5);
    let target = crate::delivery::routing::Target {
        next_hop: "a.example".into(),
        host: "mx".into(),
        address: ([192, 0, 2, 1], 25).into(),
        preference: None,
    };
    let contact = crate::delivery::outcome::Contact::to(&target);
    let closed = Err(crate::delivery::step::Broken::Closed);
    let finding = crate::delivery::outcome::Finding::at(crate::delivery::step::Step::Connect, closed);
    pool.peers.judge("a.example", &contact, &finding, crate::delivery::peers::Circumstances::default());
    pool.turn_away("a.example");
    assert_eq!(ready(&mut ask(&pool, "a.example", 5)).await.len(), 1);
    check(&pool);
}
