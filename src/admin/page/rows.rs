//! Mails as rows of a table: the columns of the command line.

use super::html::{self, Html, link, outcome, when};
use super::url;
use crate::audit::{Waiting, waiting_row};
use crate::store::{Listed, Time};

/// Columns of an address in a row.
const ADDRESS: usize = 80;

/// And of a reply: the whole is a click away.
const REPLY: usize = 140;

/// A mail in a listing.
pub(super) struct Row {
    pub(super) key: Html,
    pub(super) accepted: Html,
    pub(super) passes: u32,
    pub(super) code: String,
    pub(super) outcome: Option<Html>,
    pub(super) next_hop: String,
    pub(super) sender: String,
    pub(super) recipient: String,
    pub(super) reply: String,
    /// What else there is to know: an attempt is under way, somebody has taken note.
    pub(super) remark: &'static str,
}

impl Row {
    /// A mail with what there is to say of it on one line.
    pub(super) fn new(waiting: &Waiting, is_acknowledged: bool, now: Time) -> Self {
        let [_, _, _, code, next_hop, sender, recipient, reply] =
            <[String; 8]>::try_from(waiting_row(waiting, now)).unwrap_or_default();
        Self {
            key: link(&url::mail(&waiting.key), &waiting.key),
            accepted: when(waiting.accepted, now),
            passes: waiting.passes,
            code,
            outcome: waiting.last.as_ref().map(|last| outcome(last.outcome)),
            next_hop: html::cut(&next_hop, ADDRESS),
            sender: html::cut(&sender, ADDRESS),
            recipient: html::cut(&recipient, ADDRESS),
            reply: html::cut(&reply, REPLY),
            remark: match (waiting.in_hand, is_acknowledged) {
                (true, _) => "in hand",
                (false, true) => "acknowledged",
                (false, false) => "",
            },
        }
    }
}

/// The mails of a page of a listing.
pub(super) fn rows(waiting: &[Waiting], listed: &[Listed], now: Time) -> Vec<Row> {
    let both = waiting.iter().zip(listed);
    both.map(|(waiting, listed)| Row::new(waiting, listed.acknowledged.is_some(), now)).collect()
}
