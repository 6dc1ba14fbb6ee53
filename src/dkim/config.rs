//! In whose name is signed, as it is configured.

use super::key::Key;
use super::signing::Signatory;
use crate::mail::Domain;
use crate::yaml::{Fields, Node, Place, Value, boolean, text};

/// Fields that a signature must not cover: itself, and what the final delivery writes.
const NEVER: [&str; 2] = ["DKIM-Signature", "Return-Path"];

/// What James writes in one text: tags of a signature that is still to be made.
#[derive(Default)]
struct Template {
    place: Option<Place>,
    domain: Option<String>,
    selector: Option<String>,
    headers: Option<Vec<String>>,
}

impl Signatory {
    /// Reads the keys of `dkim:`, for what we write ourselves.
    pub fn read(fields: &mut Fields<'_>) -> Option<Self> {
        Self::read_with(fields, &Template::default())
    }

    /// Reads the parameters of the mailet `DKIMSign`.
    pub fn read_mailet(fields: &mut Fields<'_>) -> Option<Self> {
        let place = fields.node("signatureTemplate").map(|node| node.place);
        let template = fields.optional("signatureTemplate", |node| template(&text(node)?));
        let is_wrong = place.is_some() && template.is_none();
        let template = Template { place, ..template.unwrap_or_default() };
        let headers = fields.optional("headers", headers);
        let any_from = fields.optional("anyFrom", boolean);
        let found = Self::read_with(fields, &template).filter(|_| !is_wrong)?;
        Some(Self { headers: headers.or(template.headers), any_from: any_from.unwrap_or(false), ..found })
    }

    fn read_with(fields: &mut Fields<'_>, template: &Template) -> Option<Self> {
        let domain = from_template(fields, "domain", template.place.zip(template.domain.as_deref()), domain);
        let selector = from_template(fields, "selector", template.place.zip(template.selector.as_deref()), selector);
        let key = match fields.private_file("privateKeyFile") {
            Some((place, path, octets)) => Key::from_pem(&octets)
                .map_err(|error| fields.reading().problem(place, format!("{}: {error}", path.display())))
                .ok(),
            None => None,
        };
        if !fields.has("privateKeyFile") {
            fields.reading().problem(fields.place(), "key 'privateKeyFile' is missing");
        }
        Some(Self { domain: domain?, selector: selector?, headers: None, any_from: false, key: key? })
    }
}

/// A key of its own, or the tag of the template.
fn from_template<T>(
    fields: &mut Fields<'_>,
    name: &'static str,
    tag: Option<(Place, &str)>,
    read: fn(&str) -> Result<T, String>,
) -> Option<T> {
    match tag.filter(|_| !fields.has(name)) {
        Some((place, tag)) => read(tag).map_err(|message| fields.reading().problem(place, message)).ok(),
        None => fields.required(name, |node| read(&text(node)?)),
    }
}

fn domain(written: &str) -> Result<Domain, String> {
    let found = Domain::parse(written).map_err(|error| error.to_string())?;
    let is_usual = found.ascii().is_ok() && !written.ends_with('.') && written.contains('.');
    if is_usual { Ok(found) } else { Err(format!("a domain such as example.org is expected here, not '{written}'")) }
}

/// RFC 6376 section 3.1: labels, with dots between them.
fn selector(written: &str) -> Result<String, String> {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len()) && label.bytes().all(|c| c.is_ascii_alphanumeric() || b"-_".contains(&c))
    };
    if written.split('.').all(is_label) && written.len() < 200 {
        return Ok(written.to_owned());
    }
    Err(format!("a selector is letters, digits and '-', such as mail2026, not '{written}'"))
}

/// A list of names, or names with colons between them.
fn headers(node: &Node) -> Result<Vec<String>, String> {
    match &node.value {
        Value::Sequence(items) => {
            let names = items.iter().map(text).collect::<Result<Vec<_>, _>>()?;
            names.into_iter().map(|name| header(&name)).collect()
        }
        _ => text(node)?.split([':', ',']).map(|name| header(name.trim())).collect(),
    }
}

fn header(name: &str) -> Result<String, String> {
    if name.is_empty() || !name.bytes().all(|c| c.is_ascii_graphic() && c != b':' && c != b';') {
        return Err(format!("'{name}' is no name of a header field"));
    }
    if NEVER.iter().any(|never| never.eq_ignore_ascii_case(name)) {
        return Err(format!("a signature does not cover '{name}': leave it out"));
    }
    Ok(name.to_owned())
}

/// Reads `v=1; s=selector; d=example.org; h=from:to:subject; a=rsa-sha256; bh=; b=;`.
fn template(written: &str) -> Result<Template, String> {
    let mut found = Template::default();
    for tag in written.split(';').map(str::trim).filter(|tag| !tag.is_empty()) {
        let (name, value) = tag.split_once('=').ok_or_else(|| format!("'{tag}' is no tag of a signature"))?;
        let value: String = value.split_whitespace().collect();
        match (name.trim(), value.as_str()) {
            ("d", _) => found.domain = Some(value),
            ("s", _) => found.selector = Some(value),
            ("h", _) => found.headers = Some(value.split(':').map(header).collect::<Result<_, _>>()?),
            // Which algorithm follows from the key.
            ("v", "1")
            | ("b" | "bh" | "t", _)
            | ("q", "dns/txt")
            | ("c", "relaxed/relaxed")
            | ("a", "rsa-sha256" | "ed25519-sha256") => {}
            ("c", _) => return Err(format!("'{tag}' is not made: leave it out, the signature is relaxed/relaxed")),
            ("a", _) => return Err(format!("'{tag}' is not made: rsa-sha256 and ed25519-sha256 are, by the key")),
            _ => return Err(format!("'{tag}' is not made: leave it out")),
        }
    }
    Ok(found)
}
