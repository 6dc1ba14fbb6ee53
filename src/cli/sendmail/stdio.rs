//! Standard input and output.

use std::io::{self, Read, Write};
use std::os::fd::AsFd;

use async_trait::async_trait;
use nix::poll::PollFlags;
use tokio::net::UnixStream;

use super::super::output::wait_for;
use crate::ingest::Input;

/// Octets read at once.
const PIECE: usize = 64 * 1024;

/// Copies standard input into `stream`, and what comes back to standard output, until
/// there is no more of that; whether anything came back.
pub(super) fn join_standard_streams(stream: UnixStream, out: &mut impl Write) -> io::Result<bool> {
    let mut from = stream.into_std()?;
    from.set_nonblocking(false)?;
    let mut to = from.try_clone()?;
    // Left alone in the end: it may wait for input that never comes.
    std::thread::spawn(move || {
        // However the input ends, the client has said all.
        let _ = pass_on(&mut io::stdin(), &mut to);
        let _ = to.shutdown(std::net::Shutdown::Write);
    });
    tokio::task::block_in_place(|| {
        let copied = pass_on(&mut from, out);
        // The session does not wait for more.
        let _ = from.shutdown(std::net::Shutdown::Both);
        copied
    })
}

/// As `io::copy`, without its splice(2): that holds a pipe's lock while it waits for the
/// socket, and whoever reads the pipe waits with it. Whether there was anything.
fn pass_on(from: &mut (impl Read + AsFd), to: &mut impl Write) -> io::Result<bool> {
    let mut any = false;
    loop {
        // Who ends a connection without reading all that was said resets it.
        let piece = match read_piece(from) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Vec::new(),
            read => read?,
        };
        if piece.is_empty() {
            return Ok(any);
        }
        any = true;
        to.write_all(&piece)?;
        to.flush()?;
    }
}

/// Standard input, from which nothing else of this program reads.
pub(super) struct StandardInput;

#[async_trait]
impl Input for StandardInput {
    async fn next(&mut self) -> io::Result<Vec<u8>> {
        read_piece(&mut io::stdin())
    }
}

/// The next octets, as soon as there are any; empty at the end.
fn read_piece(from: &mut (impl Read + AsFd)) -> io::Result<Vec<u8>> {
    let mut piece = vec![0; PIECE];
    loop {
        match from.read(&mut piece) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => wait_for(from.as_fd(), PollFlags::POLLIN)?,
            read => {
                piece.truncate(read?);
                return Ok(piece);
            }
        }
    }
}
