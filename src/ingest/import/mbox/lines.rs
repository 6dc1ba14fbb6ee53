//! The lines of a file, in pieces of bounded size, with a look at those that come.

use std::collections::VecDeque;
use std::io::{self, BufRead};

use super::PIECE;
use super::separator::{Follows, likeness, of_line};

/// Lines looked at to tell what follows.
const AHEAD: usize = 64;

/// Octets looked at.
const AHEAD_OCTETS: usize = 4 * PIECE;

/// A line with its line end, or a piece of one.
pub(super) struct Piece {
    pub(super) octets: Vec<u8>,
    /// It begins a line.
    pub(super) starts: bool,
}

pub(super) struct Lines<R> {
    input: R,
    /// Pieces that were looked at and not yet taken.
    ahead: VecDeque<Piece>,
    /// The last piece that was read ended a line.
    at_line_start: bool,
    /// Of the piece that was taken last, from 1.
    pub(super) number: u64,
    /// Octets taken.
    pub(super) offset: u64,
}

impl<R: BufRead> Lines<R> {
    pub(super) fn new(input: R) -> Self {
        Self { input, ahead: VecDeque::new(), at_line_start: true, number: 0, offset: 0 }
    }

    /// The next piece of at most `room` octets; `None` at the end of the file.
    pub(super) fn next(&mut self, room: usize) -> io::Result<Option<Piece>> {
        let piece = match self.ahead.pop_front() {
            Some(mut piece) => {
                if piece.octets.len() > room {
                    let rest = piece.octets.split_off(room);
                    self.ahead.push_front(Piece { octets: rest, starts: false });
                }
                piece
            }
            None => match self.read(room)? {
                Some(piece) => piece,
                None => return Ok(None),
            },
        };
        self.number += u64::from(piece.starts);
        self.offset += piece.octets.len() as u64;
        Ok(Some(piece))
    }

    fn read(&mut self, room: usize) -> io::Result<Option<Piece>> {
        let starts = self.at_line_start;
        let mut octets = Vec::new();
        while octets.len() < room && octets.last() != Some(&b'\n') {
            let buffered = self.input.fill_buf()?;
            if buffered.is_empty() {
                break;
            }
            let buffered = &buffered[..buffered.len().min(room - octets.len())];
            let taken = buffered.iter().position(|&octet| octet == b'\n').map_or(buffered.len(), |at| at + 1);
            octets.extend_from_slice(&buffered[..taken]);
            self.input.consume(taken);
        }
        self.at_line_start = octets.last() == Some(&b'\n');
        Ok(if octets.is_empty() { None } else { Some(Piece { octets, starts }) })
    }

    /// What the lines behind the one that was taken last are; none of them is taken.
    pub(super) fn follows(&mut self) -> io::Result<Follows> {
        let (mut found, mut octets) = (Follows::Nothing, 0);
        for at in 0..AHEAD {
            if self.ahead.len() == at {
                let Some(piece) = self.read(PIECE)? else { break };
                self.ahead.push_back(piece);
            }
            let Piece { octets: line, starts } = &self.ahead[at];
            octets += line.len();
            if octets > AHEAD_OCTETS || found == Follows::Trace {
                break;
            }
            let continues = found > Follows::Nothing && line.starts_with(b" ") || line.starts_with(b"\t");
            let again = found == Follows::Nothing && likeness(unquoted(line)).is_some();
            if !starts || continues || again {
                continue;
            }
            match of_line(line) {
                Some(field) => found = found.max(field),
                None => break,
            }
        }
        Ok(found)
    }
}

/// A line without what quotes it.
pub(super) fn unquoted(line: &[u8]) -> &[u8] {
    let depth = line.iter().take_while(|&&octet| octet == b'>').count();
    &line[depth..]
}
