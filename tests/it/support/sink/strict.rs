//! The rules a client has to keep, as far as one line of it shows (RFC 5321, 1870, 2920,
//! 4954, 6152, 6531).

/// What is wrong with a line as it stands on the wire, its end included.
pub(super) fn line_faults(line: &[u8], limit: usize) -> Vec<String> {
    let mut faults = Vec::new();
    let content = line.strip_suffix(b"\r\n").unwrap_or_else(|| line.strip_suffix(b"\n").unwrap_or(line));
    if !line.ends_with(b"\r\n") {
        faults.push("a bare LF".to_owned());
    }
    if content.contains(&b'\r') {
        faults.push("a bare CR".to_owned());
    }
    if line.len() > limit {
        faults.push(format!("a line of {} octets", line.len()));
    }
    faults
}

/// Octets a command may have with its CRLF (RFC 5321 section 4.5.3.1.4 and the extensions' additions).
pub(super) fn command_limit(verb: &str) -> usize {
    match verb {
        "MAIL" => 512 + 26 + 17 + 10,
        "AUTH" => 12_288,
        _ => 512,
    }
}

/// What is wrong with MAIL or RCPT where `offered` are the EHLO keywords of this session.
pub(super) fn path_faults(line: &str, offered: &[String]) -> Vec<String> {
    let mut faults = Vec::new();
    let (verb, _) = line.split_at(4);
    let introducer = if verb.eq_ignore_ascii_case("MAIL") { "MAIL FROM:<" } else { "RCPT TO:<" };
    if !line.get(..introducer.len()).is_some_and(|start| start.eq_ignore_ascii_case(introducer)) || path(line).is_none()
    {
        faults.push("not of the form VERB KEYWORD:<path>".to_owned());
    }
    for parameter in parameters(line) {
        let keyword = parameter.split('=').next().unwrap_or_default().to_ascii_uppercase();
        let extension = match keyword.as_str() {
            "SIZE" => "SIZE",
            "BODY" => "8BITMIME",
            "SMTPUTF8" => "SMTPUTF8",
            "AUTH" => "AUTH",
            "RET" | "ENVID" | "NOTIFY" | "ORCPT" => "DSN",
            other => other,
        };
        if !offered.iter().any(|offer| offer == extension) {
            faults.push(format!("parameter {parameter}, but {extension} was not offered"));
        }
    }
    faults
}

/// What stands between the brackets; a `>` within a quoted string does not end it.
pub(super) fn path(line: &str) -> Option<&str> {
    let start = line.find('<')? + 1;
    let (mut quoted, mut escaped) = (false, false);
    for (at, c) in line[start..].char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => quoted = !quoted,
            '>' if !quoted => return Some(&line[start..start + at]),
            _ => {}
        }
    }
    None
}

/// What stands behind the path.
pub(super) fn parameters(line: &str) -> Vec<String> {
    let behind = path(line).and_then(|path| line.split_once(&format!("<{path}>"))).map_or("", |(_, behind)| behind);
    behind.split(' ').filter(|parameter| !parameter.is_empty()).map(str::to_owned).collect()
}

/// The keywords of an EHLO reply, in upper case: the first word of each line but the first.
pub(super) fn keywords(ehlo_reply: &str) -> Vec<String> {
    let keyword = |line: &str| Some(line.get(4..)?.split_whitespace().next()?.to_ascii_uppercase());
    ehlo_reply.lines().skip(1).filter_map(keyword).collect()
}
