//! What must hold of the parsers whatever octets they are given.
//!
//! Each function takes the octets of one case and panics where something does not hold. The
//! fuzz targets call them with octets that libFuzzer makes up, `tests/it/corpus.rs` with
//! those in `corpus/`.

mod command;
mod configuration;
mod content;
mod reply;

pub use command::command;
pub use configuration::configuration;
pub use content::content;
pub use reply::reply;

/// Cuts `octets` into pieces of lengths that they themselves decide, so that a fuzzer can
/// move the cuts.
fn pieces(mut octets: &[u8]) -> Vec<&[u8]> {
    let mut pieces = Vec::new();
    let mut seed = octets.len();
    while !octets.is_empty() {
        seed = seed.wrapping_mul(31).wrapping_add(usize::from(octets[0]));
        let (piece, rest) = octets.split_at((seed % 7 + 1).min(octets.len()));
        pieces.push(piece);
        octets = rest;
    }
    pieces
}
