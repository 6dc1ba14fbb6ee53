//! The connections of the HTTP listener: bounded in number, and in what each may cost.
//!
//! What is not HTTP, has too long a header or says two things about where its body ends,
//! hyper refuses (400, 414, 431) and closes.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderValue, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::serve::Listener;
use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use nix::sys::socket::{setsockopt, sockopt};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::error::Refusal;

/// Octets of a request line with its header; of fields there may be a hundred.
const MAX_HEADER_OCTETS: usize = 64 * 1024;

/// After this long another connection is asked to give its place up.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// A client that is still sending when it has been answered is read from for so long.
const LINGER: Duration = Duration::from_secs(2);

/// Bounds on what clients cost.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Connections open at once; one more takes the place of one that asks nothing, or waits.
    pub(super) connections: usize,
    /// From the first moment, or the last answer, to the end of the next header.
    pub(super) header: Duration,
    /// From the end of the header to the answer, with the body between them.
    pub(super) answer: Duration,
    /// How long a client may take nothing of an answer.
    pub(super) taking: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        let minute = Duration::from_mins(1);
        Self { connections: 64, header: Duration::from_secs(10), answer: minute, taking: minute }
    }
}

/// Answers until `stop`, and returns when requests under way have been answered.
///
/// `tls` gives what new connections begin with; where it gives none they are in clear.
pub(super) async fn serve(
    mut socket: TcpListener,
    tls: impl Fn() -> Option<TlsAcceptor>,
    router: Router,
    limits: Limits,
    stop: CancellationToken,
) {
    let router = router.layer(middleware::from_fn_with_state(limits, in_time));
    let (slots, connections) = (Arc::new(Semaphore::new(limits.connections)), TaskTracker::new());
    let mut open = Open::default();
    loop {
        let next = async {
            // Waits a second where there is none to be had, out of descriptors for instance.
            let accepted = Listener::accept(&mut socket).await;
            (open.make_room(&slots).await, accepted)
        };
        let (slot, (stream, peer)) = tokio::select! {
            () = stop.cancelled() => break,
            next = next => next,
        };
        let connection = open.enter();
        let router = router.clone().layer(Extension(ConnectInfo(peer)));
        let router = router.layer(middleware::from_fn_with_state(connection.clone(), note_asked));
        let (stop, tls) = (stop.clone(), tls());
        connections.spawn(async move {
            greet(stream, tls, router, limits, stop, connection).await;
            drop(slot);
        });
    }
    drop(socket);
    connections.close();
    connections.wait().await;
}

/// The open connections, the oldest first.
#[derive(Default)]
struct Open(VecDeque<Connection>);

/// What is known of one while it is open.
#[derive(Clone, Default)]
struct Connection {
    /// A whole header has come over it: there may be octets of an answer on their way.
    asked: Arc<AtomicBool>,
    /// Another is to have its place.
    displaced: CancellationToken,
}

impl Connection {
    fn has_asked(&self) -> bool {
        self.asked.load(Ordering::Relaxed)
    }

    /// The connection's own task holds on to it.
    fn is_open(&self) -> bool {
        Arc::strong_count(&self.asked) > 1
    }
}

impl Open {
    /// A slot for one more connection. Where none is free another gives up its own, so that
    /// half-sent headers and idle connections keep nobody out; what is being answered is
    /// answered first.
    async fn make_room(&mut self, slots: &Arc<Semaphore>) -> OwnedSemaphorePermit {
        loop {
            if slots.available_permits() == 0 {
                self.displace_one();
            }
            if let Ok(slot) = tokio::time::timeout(LOOK_AGAIN, Arc::clone(slots).acquire_owned()).await {
                return slot.expect("it is never closed");
            }
        }
    }

    /// The oldest that has said nothing whole; else the oldest.
    fn displace_one(&mut self) {
        let silent = self.0.iter().position(|connection| !connection.has_asked());
        if let Some(connection) = self.0.remove(silent.unwrap_or(0)) {
            connection.displaced.cancel();
        }
    }

    fn enter(&mut self) -> Connection {
        self.0.retain(Connection::is_open);
        let connection = Connection::default();
        self.0.push_back(connection.clone());
        connection
    }
}

async fn note_asked(State(connection): State<Connection>, request: Request, next: Next) -> Response {
    connection.asked.store(true, Ordering::Relaxed);
    next.run(request).await
}

/// TLS first, where it is configured.
async fn greet(
    stream: TcpStream,
    tls: Option<TlsAcceptor>,
    router: Router,
    limits: Limits,
    stop: CancellationToken,
    one: Connection,
) {
    let taking = u32::try_from(limits.taking.as_millis()).unwrap_or(u32::MAX);
    if setsockopt(&stream, sockopt::TcpUserTimeout, &taking).is_err() {
        return;
    }
    let Some(tls) = tls else { return converse(stream, router, limits, stop, one).await };
    let handshake = tokio::select! {
        handshake = tokio::time::timeout(limits.header, tls.accept(stream)) => handshake,
        () = stop.cancelled() => return,
        () = one.displaced.cancelled() => return,
    };
    match handshake {
        Ok(Ok(stream)) => converse(stream, router, limits, stop, one).await,
        Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake with an HTTP client failed"),
        Err(_) => {}
    }
}

async fn converse<S>(stream: S, router: Router, limits: Limits, stop: CancellationToken, one: Connection)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(limits.header).max_buf_size(MAX_HEADER_OCTETS);
    let mut connection = http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let ended = tokio::select! {
        ended = &mut connection => ended,
        () = stop.cancelled() => {
            std::pin::Pin::new(&mut connection).graceful_shutdown();
            (&mut connection).await
        }
        () = one.displaced.cancelled() => {
            if !one.has_asked() {
                return;
            }
            std::pin::Pin::new(&mut connection).graceful_shutdown();
            (&mut connection).await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "an HTTP connection ended before its time");
    }
    tokio::select! {
        () = hear_out(connection.into_parts().io.into_inner()) => {}
        () = stop.cancelled() => {}
        () = one.displaced.cancelled() => {}
    }
}

/// Reads for a while what a client still sends: who closes with octets unread resets the
/// connection, and the answer may be lost with that (RFC 9112 section 9.6).
async fn hear_out(mut stream: impl AsyncRead + AsyncWrite + Unpin) {
    let linger = async {
        stream.shutdown().await?;
        tokio::io::copy(&mut stream, &mut tokio::io::sink()).await
    };
    // Whatever comes of it, the answer was given.
    let _ = tokio::time::timeout(LINGER, linger).await;
}

async fn in_time(State(limits): State<Limits>, request: Request, next: Next) -> Response {
    let is_chunked = request.headers().contains_key(header::TRANSFER_ENCODING);
    let mut response = if waits_for_long(request.uri().path()) {
        next.run(request).await
    } else {
        let answer = tokio::time::timeout(limits.answer, next.run(request)).await;
        answer.unwrap_or_else(|_| Refusal::too_slow().into_response())
    };
    if is_chunked {
        // A Content-Length that stood beside it was passed over; who believed that one must
        // not find another request behind it (RFC 9112 section 6.1).
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// Whether a request is for waiting: its client says for how long.
fn waits_for_long(path: &str) -> bool {
    path.starts_with("/tasks/") && path.ends_with("/await")
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use axum::body::Bytes;
    use axum::routing::{get, post};
    use tokio::io::AsyncReadExt;
    use tokio::task::JoinHandle;
    use tokio::time::timeout;

    use super::super::error::no_such_route;
    use super::*;

    const LONG: Duration = Duration::from_secs(20);
    const SHORT: Duration = Duration::from_millis(200);

    struct Server {
        address: SocketAddr,
        stop: CancellationToken,
        running: JoinHandle<()>,
    }

    impl Server {
        async fn start(limits: Limits) -> Self {
            let socket = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
            let router = Router::new()
                .route("/length", post(|body: Bytes| async move { body.len().to_string() }))
                .route("/large", get(|| async { vec![b'x'; 32 << 20] }))
                .fallback(no_such_route)
                .method_not_allowed_fallback(no_such_route);
            let (address, stop) = (socket.local_addr().expect("bound"), CancellationToken::new());
            let running = tokio::spawn(serve(socket, || None, router, limits, stop.clone()));
            Self { address, stop, running }
        }

        async fn connect(&self) -> TcpStream {
            TcpStream::connect(self.address).await.expect("it listens")
        }

        /// Everything that is answered to these octets, up to the end of the connection.
        async fn answer(&self, sent: &[u8]) -> String {
            let (mut stream, mut said) = (self.connect().await, Vec::new());
            // It may have said all that it has to say before everything is sent.
            let _ = stream.write_all(sent).await;
            let _ = timeout(LONG, stream.read_to_end(&mut said)).await.expect("it ends");
            String::from_utf8(said).expect("text")
        }

        async fn is_well(&self) {
            let said = self.answer(b"POST /length HTTP/1.1\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok").await;
            assert!(said.starts_with("HTTP/1.1 200 ") && said.ends_with("\r\n\r\n2"), "{said:?}");
        }
    }

    fn status(answer: &str) -> &str {
        answer.split(' ').nth(1).unwrap_or(answer)
    }

    #[tokio::test]
    async fn what_is_too_much_or_ambiguous_is_refused_and_the_connection_ends() {
        let server = Server::start(Limits { header: SHORT, ..Limits::default() }).await;
        let fields = "X: y\r\n".repeat(10_000);
        let path = "a".repeat(1 << 20);
        for (what, sent, expected) in [
            ("10 000 fields", format!("GET / HTTP/1.1\r\n{fields}\r\n"), "431"),
            ("101 fields", format!("GET / HTTP/1.1\r\n{}\r\n", &fields[..6 * 101]), "431"),
            ("a field of 1 MiB", format!("GET / HTTP/1.1\r\nX: {path}\r\n\r\n"), "431"),
            ("a path of 1 MiB", format!("GET /{path} HTTP/1.1\r\n\r\n"), "431"),
            ("two lengths", "POST /length HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx".into(), "400"),
            ("no length", "POST /length HTTP/1.1\r\nContent-Length: x\r\n\r\n".into(), "400"),
            ("a space before the colon", "GET / HTTP/1.1\r\nHost : x\r\n\r\n".into(), "400"),
            ("no HTTP at all", "EHLO client.example\r\n\r\n".into(), "400"),
            ("TRACE", "TRACE / HTTP/1.1\r\nX-Secret: 1\r\nConnection: close\r\n\r\n".into(), "404"),
            (
                "1 GB",
                format!("POST /length HTTP/1.1\r\nContent-Length: 1000000000\r\n\r\n{}", "x".repeat(3 << 20)),
                "413",
            ),
        ] {
            let answer = server.answer(sent.as_bytes()).await;
            assert_eq!(status(&answer), expected, "{what}");
            assert!(!answer.contains("Secret"), "{what}");
            server.is_well().await;
        }
    }

    #[tokio::test]
    async fn who_sends_more_than_is_read_hears_the_answer() {
        let server = Server::start(Limits::default()).await;
        let mut stream = server.connect().await;
        let header = format!("POST /length HTTP/1.1\r\nContent-Length: {}\r\n\r\n", 8 << 20);
        stream.write_all(header.as_bytes()).await.expect("sent");
        for _ in 0..8 {
            // It has been refused by then.
            tokio::time::sleep(SHORT / 10).await;
            stream.write_all(&vec![b'x'; 1 << 20]).await.expect("it is taken all the same");
        }
        let mut said = String::new();
        timeout(LONG, stream.read_to_string(&mut said)).await.expect("it ends").expect("no reset");
        assert_eq!(status(&said), "413");
    }

    #[tokio::test]
    async fn a_body_with_two_ends_has_the_chunked_one_and_nothing_is_read_behind_it() {
        let server = Server::start(Limits::default()).await;
        let hidden = "5\r\nhello\r\n0\r\n\r\nGET /hidden HTTP/1.1\r\n\r\n";
        for fields in
            ["Content-Length: 4\r\nTransfer-Encoding: chunked", "Transfer-Encoding: chunked\r\nContent-Length: 4"]
        {
            let answer = server.answer(format!("POST /length HTTP/1.1\r\n{fields}\r\n\r\n{hidden}").as_bytes()).await;
            assert_eq!(status(&answer), "200");
            assert!(answer.ends_with("\r\n\r\n5") && answer.matches("HTTP/1.1").count() == 1, "{answer:?}");
        }
        let old = format!("POST /length HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n{hidden}");
        assert_eq!(status(&server.answer(old.as_bytes()).await), "400");
    }

    #[tokio::test]
    async fn who_is_slow_with_header_or_body_or_says_nothing_is_left() {
        let limits = Limits { header: SHORT, answer: SHORT, ..Limits::default() };
        let server = Server::start(limits).await;
        assert_eq!(server.answer(b"").await, "");
        assert_eq!(server.answer(b"GET / HTTP/1.1\r\nX: ").await, "");
        let answered = server.answer(b"GET / HTTP/1.1\r\n\r\n").await;
        assert_eq!((status(&answered), answered.matches("HTTP/1.1").count()), ("404", 1), "then nothing came");
        for body in ["Content-Length: 5\r\n\r\nhell", "Transfer-Encoding: chunked\r\n\r\n5\r\nhell"] {
            let answer = server.answer(format!("POST /length HTTP/1.1\r\n{body}").as_bytes()).await;
            assert_eq!(status(&answer), "408", "{body}");
        }
    }

    #[tokio::test]
    async fn a_header_that_drips_in_has_no_more_time_than_another() {
        let server = Server::start(Limits { header: SHORT, ..Limits::default() }).await;
        let mut stream = server.connect().await;
        let dripping = async {
            while stream.write_all(b"X").await.is_ok() {
                tokio::time::sleep(SHORT / 20).await;
            }
        };
        timeout(LONG, dripping).await.expect("it is cut off");
    }

    #[tokio::test]
    async fn connections_beyond_the_limit_wait_while_the_others_are_answered() {
        let server = Server::start(Limits { connections: 2, ..Limits::default() }).await;
        let mut first = [server.connect().await, server.connect().await];
        for stream in &mut first {
            // Its body is not yet there, or its answer not yet taken.
            stream.write_all(b"GET /large HTTP/1.1\r\n\r\n").await.expect("sent");
            stream.read_exact(&mut [0; 1]).await.expect("it is being answered");
        }
        let mut third = server.connect().await;
        third.write_all(b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n").await.expect("it waits in the socket");
        let mut octet = [0];
        assert!(timeout(5 * SHORT, third.read_exact(&mut octet)).await.is_err(), "there is no room for it");
        let mut rest = vec![0; 32 << 20];
        timeout(LONG, first[0].read_exact(&mut rest)).await.expect("in time").expect("all of it");
        drop(first);
        timeout(LONG, third.read_exact(&mut octet)).await.expect("now there is").expect("an answer");
    }

    #[tokio::test]
    async fn half_sent_headers_and_idle_connections_keep_nobody_out() {
        let server = Server::start(Limits { connections: 4, ..Limits::default() }).await;
        let mut open = Vec::new();
        for sent in [&b""[..], b"GET / HT", b"GET / HTTP/1.1\r\nX: ", b"GET / HTTP/1.1\r\n\r\n"] {
            let mut stream = server.connect().await;
            stream.write_all(sent).await.expect("sent");
            open.push(stream);
        }
        for _ in 0..4 {
            timeout(LONG / 4, server.is_well()).await.expect("it takes a place");
        }
        // Each of them began within the time for a header, which has not passed.
        timeout(LONG / 4, open[0].read_to_end(&mut Vec::new())).await.expect("displaced").expect("closed");
    }

    #[tokio::test]
    async fn who_takes_nothing_of_an_answer_gives_its_place_up() {
        let server = Server::start(Limits { connections: 1, taking: SHORT, ..Limits::default() }).await;
        let mut deaf = server.connect().await;
        deaf.write_all(b"GET /large HTTP/1.1\r\n\r\n").await.expect("sent");
        server.is_well().await;
    }

    #[tokio::test]
    async fn at_the_end_a_request_under_way_is_answered_and_idle_connections_are_closed() {
        let server = Server::start(Limits::default()).await;
        let (mut idle, mut asking) = (server.connect().await, server.connect().await);
        // One answer each, so that both are known to have been accepted.
        for stream in [&mut idle, &mut asking] {
            stream.write_all(b"POST /length HTTP/1.1\r\nContent-Length: 2\r\n\r\nok").await.expect("sent");
            let mut said = Vec::new();
            while !said.ends_with(b"\r\n\r\n2") {
                timeout(LONG, stream.read_buf(&mut said)).await.expect("in time").expect("an answer");
            }
        }
        asking
            .write_all(b"POST /length HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
            .await
            .expect("sent");
        let mut said = [0; 12];
        timeout(LONG, asking.read_exact(&mut said)).await.expect("in time").expect("it is under way");
        assert_eq!(&said, b"HTTP/1.1 100");
        server.stop.cancel();
        assert_eq!(
            timeout(LONG, idle.read_u8()).await.expect("closed").expect_err("closed").kind(),
            std::io::ErrorKind::UnexpectedEof
        );
        asking.write_all(b"hello").await.expect("sent");
        let mut rest = String::new();
        timeout(LONG, asking.read_to_string(&mut rest)).await.expect("in time").expect("text");
        assert!(rest.contains("HTTP/1.1 200 ") && rest.ends_with('5'), "{rest:?}");
        timeout(LONG, server.running).await.expect("ends").expect("no panic");
    }
}
