//! Sockets that systemd hands over.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::support::relay::Setup;

/// Binds a Unix socket and a TCP socket, and becomes the service that is handed them.
const SYSTEMD: &str = r#"
    use Socket; $^F = 20;
    my ($path, $port) = splice @ARGV, 0, 2;
    my ($unix, $tcp);
    socket($unix, PF_UNIX, SOCK_STREAM, 0) && bind($unix, pack_sockaddr_un($path)) && listen($unix, 16) or die $!;
    socket($tcp, PF_INET, SOCK_STREAM, 0) && setsockopt($tcp, SOL_SOCKET, SO_REUSEADDR, 1)
        && bind($tcp, pack_sockaddr_in($port, inet_aton("127.0.0.1"))) && listen($tcp, 16) or die $!;
    die "descriptors" unless fileno($unix) == 3 && fileno($tcp) == 4;
    @ENV{"LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"} = (2, $$, "submit:smtp");
    exec @ARGV or die $!;
"#;

#[test]
fn sockets_of_systemd_are_taken_by_their_names_and_left_where_they_are() {
    let relay = Setup::gateway("127.0.0.2:25").top("smtp: { listen: [] }\nadmin: { listen: \"127.0.0.1:0\" }").build();
    let path = relay.path().join("submit.sock");
    let port = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("bound").port();
    let mut child = Command::new("/usr/bin/perl")
        .args(["-e", SYSTEMD])
        .arg(&path)
        .arg(port.to_string())
        .arg(env!("CARGO_BIN_EXE_redeliver"))
        .arg("--config")
        .arg(relay.configuration())
        .arg("serve")
        .current_dir(relay.path())
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("perl is on every Debian");
    let connect = || UnixStream::connect(&path);
    let mut tries = 0;
    let mut stream = loop {
        match connect() {
            Ok(stream) => break stream,
            Err(error) if tries > 200 => panic!("{error}"),
            Err(_) => tries += 1,
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    let request = r#"{"version":1,"want":"submit","recipients":["b@x.example"]}"#.as_bytes();
    let frame = |octets: &[u8]| [&u32::try_from(octets.len()).expect("short").to_be_bytes()[..], octets].concat();
    stream.write_all(&[frame(request), frame(b"X: y\n"), frame(b"")].concat()).expect("written");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("an answer");
    let answer = String::from_utf8_lossy(&answer).into_owned();
    assert!(answer.matches("\"Ok\"").count() == 2, "{answer}");
    let mut smtp = TcpStream::connect(("127.0.0.1", port)).expect("it listens");
    let mut banner = [0; 4];
    smtp.read_exact(&mut banner).expect("a banner");
    assert_eq!(&banner, b"220 ");
    drop(smtp);
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(i32::try_from(child.id()).expect("small")),
        nix::sys::signal::Signal::SIGTERM,
    )
    .expect("our own child");
    assert!(child.wait().expect("our own child").success());
    assert!(path.exists(), "it is systemd's");
    assert!(!relay.path().join("var/submit.sock").exists(), "and no other was bound");
}
