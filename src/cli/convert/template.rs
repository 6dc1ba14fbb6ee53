//! Files that are not yet what James reads: templates, and values that something fills in
//! before James sees them or while it reads them.

/// What begins a directive of FreeMarker, Jinja (Ansible, Helm), Mustache or ERB; no container
/// has it.
const DIRECTIVES: [&str; 10] =
    ["<#list", "<#if", "<#assign", "<#macro", "<#include", "[#list", "[#if", "{%", "{{#", "<%"];

/// How a placeholder begins and ends.
const PLACEHOLDERS: [(&str, &str); 3] = [("${", "}"), ("{{", "}}"), ("<%", "%>")];

/// The line of the first directive of a template, and the directive's first word.
pub(super) fn directive(text: &str) -> Option<(usize, String)> {
    (1..).zip(text.lines()).find_map(|(number, line)| {
        let start = DIRECTIVES.iter().filter_map(|mark| line.find(mark)).min()?;
        let end = line[start..].find(|c: char| c.is_whitespace() || c == '>');
        Some((number, line[start..end.map_or(line.len(), |end| start + end)].to_owned()))
    })
}

/// The first placeholder in a value: `${env:NAME}`, `{{ name }}`, or all of the value as
/// `@NAME@` or `%NAME%`.
pub(super) fn placeholder(value: &str) -> Option<&str> {
    let within = PLACEHOLDERS.iter().filter_map(|(open, close)| {
        let start = value.find(open)?;
        let length = value[start..].find(close)? + close.len();
        Some(&value[start..start + length])
    });
    within.chain(whole(value)).next()
}

/// A value that is nothing but a name between marks.
fn whole(value: &str) -> Option<&str> {
    let names = ['@', '%'].into_iter().filter_map(|mark| value.strip_prefix(mark)?.strip_suffix(mark));
    let is_name =
        |name: &&str| !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c));
    names.into_iter().find(is_name).map(|_| value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_of_every_kind_are_found_and_nothing_else() {
        for (value, found) in [
            ("${env:SMTP_RELAY}", Some("${env:SMTP_RELAY}")),
            ("(.*)@${relay.domain}", Some("${relay.domain}")),
            ("{{ relay_host }}:25", Some("{{ relay_host }}")),
            ("@relay.host@", Some("@relay.host@")),
            ("%RELAY%", Some("%RELAY%")),
            ("pa$$word", None),
            ("a@b", None),
            ("100%", None),
            ("${", None),
            ("@a b@", None),
            ("", None),
        ] {
            assert_eq!(placeholder(value), found, "{value}");
        }
    }

    #[test]
    fn directives_have_their_line() {
        let told = |text| directive(text);
        assert_eq!(told("<a>\n  <#list relays as relay>\n"), Some((2, "<#list".to_owned())));
        assert_eq!(told("<a>{% for x in y %}</a>"), Some((1, "{%".to_owned())));
        assert_eq!(told("<a>&#65;<!-- # --></a>"), None);
    }
}
