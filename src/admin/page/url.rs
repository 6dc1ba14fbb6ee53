//! Where what is: the addresses of pages, with everything in them encoded.

use form_urlencoded::Serializer;

use crate::mail::{CauseId, MailKey, RepositoryPath};
use crate::store::{OperationId, Place};

/// Parameters of a query, by name.
pub(super) type Parameters<'a> = &'a [(&'a str, &'a str)];

/// A path with a query; without parameters there is none.
pub(super) fn with(path: &str, parameters: Parameters<'_>) -> String {
    if parameters.is_empty() {
        return path.to_owned();
    }
    let mut query = Serializer::new(String::new());
    query.extend_pairs(parameters);
    format!("{path}?{}", query.finish())
}

/// The mails of a place that match these conditions.
pub(super) fn mails(place: &Place, conditions: Parameters<'_>) -> String {
    match place {
        Place::Spool => with("/ui/spool", conditions),
        Place::Repository(path) => repository(path, conditions),
    }
}

/// The mails of a repository that match these conditions.
pub(super) fn repository(path: &RepositoryPath, conditions: Parameters<'_>) -> String {
    let segments: Vec<_> = path.as_str().split('/').map(segment).collect();
    with(&format!("/ui/repositories/{}", segments.join("/")), conditions)
}

/// One mail, there or gone.
pub(super) fn mail(key: &MailKey) -> String {
    format!("/ui/mails/{}", segment(key.as_str()))
}

/// One attempt of a mail.
pub(super) fn attempt(key: &MailKey, number: u32) -> String {
    format!("{}/attempts/{number}", mail(key))
}

/// The failures of one cause.
pub(super) fn group(id: &CauseId) -> String {
    format!("/ui/groups/{id}")
}

/// One job, with its schedules and runs.
pub(super) fn job(name: &str) -> String {
    format!("/ui/jobs/{}", segment(name))
}

/// One operation, with its mails.
pub(super) fn operation(id: OperationId) -> String {
    format!("/ui/operations/{id}")
}

/// One schedule: what can be done to it lies below.
pub(super) fn schedule(name: &str) -> String {
    format!("/ui/schedules/{}", segment(name))
}

/// One task and how far it is.
pub(super) fn task(id: &str) -> String {
    format!("/ui/tasks/{}", segment(id))
}

/// A segment of a path: what is not unreserved (RFC 3986 section 2.3) is encoded.
fn segment(text: &str) -> String {
    text.bytes().fold(String::new(), |mut segment, octet| {
        if octet.is_ascii_alphanumeric() || b"-._~".contains(&octet) {
            segment.push(char::from(octet));
        } else {
            segment.push_str(&format!("%{octet:02X}"));
        }
        segment
    })
}

/// Whether a text is the path of a page of ours, perhaps with a query: nothing that a browser
/// would take for another host, or for a way out of the pages.
pub(super) fn is_ours(text: &str) -> bool {
    let path = text.split(['?', '#']).next().unwrap_or_default().to_ascii_lowercase();
    let climbs = path.split('/').any(|segment| {
        let segment = segment.replace("%2e", ".");
        segment == ".." || segment == "."
    });
    text.starts_with("/ui/")
        && text.bytes().all(|octet| octet.is_ascii_graphic() && octet != b'\\')
        && !climbs
        && !text.contains("//")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_in_an_address_is_encoded() {
        let path = RepositoryPath::parse("var/mail/a b?c#d").expect("a path");
        assert_eq!(repository(&path, &[]), "/ui/repositories/var/mail/a%20b%3Fc%23d");
        let found = repository(&path, &[("text", "a&b=\"<c>"), ("code", "550")]);
        assert!(found.ends_with("?text=a%26b%3D%22%3Cc%3E&code=550"), "{found}");
        let key = MailKey::parse("a/b?c%").expect("a key");
        assert_eq!(attempt(&key, 2), "/ui/mails/a%2Fb%3Fc%25/attempts/2");
    }

    #[test]
    fn only_a_path_of_ours_is_gone_to() {
        for ours in ["/ui/", "/ui/mails/K1", "/ui/repositories/var/mail?code=550&text=a%2F%2Fb"] {
            assert!(is_ours(ours), "{ours}");
        }
        for foreign in [
            "",
            "/",
            "/metrics",
            "//evil.example/ui/",
            "/ui",
            "/ui//evil.example",
            "/ui/../metrics",
            "/ui/%2E%2e/metrics",
            "/ui/./x",
            "https://evil.example/ui/",
            "/ui/\\evil.example",
            "/ui/\r\nSet-Cookie: a=b",
            "javascript:alert(1)",
        ] {
            assert!(!is_ours(foreign), "{foreign}");
        }
    }
}
