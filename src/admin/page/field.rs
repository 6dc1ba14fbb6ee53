//! Fields of a form that filters: their values as they were given, and what is wrong with one.

use axum::http::StatusCode;
use axum::response::Response;

use super::super::error::Refusal;
use super::super::query::Query;

/// A field for one value.
pub(super) struct Field {
    /// Of the parameter, and of the element.
    pub(super) name: &'static str,
    pub(super) label: &'static str,
    pub(super) value: String,
    /// Why the value cannot be read; empty where it can.
    pub(super) wrong: String,
    /// Which keys a telephone offers.
    pub(super) keys: &'static str,
}

impl Field {
    /// The field of a parameter, as it stands in the query; `wrong` is what is known of others, too.
    pub(super) fn of(name: &'static str, label: &'static str, query: &Query, wrong: &Wrongs) -> Self {
        let keys = if ["code", "passes"].contains(&name) { "numeric" } else { "text" };
        Self { name, label, value: query.get(name).unwrap_or_default().to_owned(), wrong: wrong.of(name), keys }
    }

    /// Whether its value cannot be read.
    pub(super) fn is_wrong(&self) -> bool {
        !self.wrong.is_empty()
    }

    /// Whether something stands in it.
    pub(super) fn is_filled(&self) -> bool {
        !self.value.is_empty()
    }
}

/// What is wrong with values of a form, by the names of their parameters.
#[derive(Default)]
pub(super) struct Wrongs(Vec<(&'static str, String)>);

impl Wrongs {
    /// One more.
    pub(super) fn add(&mut self, name: &'static str, why: &impl ToString) {
        self.0.push((name, why.to_string()));
    }

    /// A value was refused, in words that have the name of its parameter in front.
    pub(super) fn refused(&mut self, name: &'static str, refusal: &Refusal) {
        let (named, why) = (format!("'{name}': "), refusal.message());
        self.add(name, &why.split_once(&named).map_or(why, |(_, why)| why));
    }

    /// Whether there is nothing.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A page with the form: whoever looks at its status hears that something cannot be read.
    pub(super) fn told(&self, mut page: Response) -> Response {
        if !self.is_empty() {
            *page.status_mut() = StatusCode::BAD_REQUEST;
        }
        page
    }

    /// What is wrong with this one; empty where nothing is.
    pub(super) fn of(&self, name: &str) -> String {
        self.0.iter().find(|(wrong, _)| *wrong == name).map_or_else(String::new, |(_, why)| super::html::short(why))
    }
}
