//! Signs the message on standard input: `dkim-sign KEYFILE DOMAIN SELECTOR`. For tests/dkim/run,
//! which has other programs verify what comes out.

use std::error::Error;
use std::io::{Read, Write};

use redeliver::dkim::{Key, Signatory, Signing};
use redeliver::mail::Domain;

/// As many octets as the store gives at once.
const PIECE: usize = 256 * 1024;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let [key, domain, selector] = arguments.as_slice() else { return Err("KEYFILE DOMAIN SELECTOR".into()) };
    let signatory = Signatory {
        domain: Domain::parse(domain)?,
        selector: selector.clone(),
        headers: None,
        any_from: false,
        key: Key::from_pem(&std::fs::read(key)?)?,
    };
    let mut message = Vec::new();
    std::io::stdin().read_to_end(&mut message)?;
    let mut signing = Signing::new(&signatory);
    for piece in message.chunks(PIECE) {
        signing.push(piece)?;
    }
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed()?.as_secs();
    let field = signing.finish(i64::try_from(now)?)?;
    let mut out = std::io::stdout().lock();
    out.write_all(&field)?;
    out.write_all(&message)?;
    Ok(())
}
