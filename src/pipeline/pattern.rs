//! The regular expressions of matchers, read as Java reads them or not at all.
//!
//! The whole address must match and case counts, as `Matcher.matches()` of Java has it. An
//! expression that Java understands and this engine does not, or that both understand but
//! not alike, is refused with its place: a gate that lets through what it was to stop is
//! worse than none.

use regex::{Regex, RegexBuilder};
use regex_syntax::ast::{self, Ast, ClassSetBinaryOp, ClassSetBinaryOpKind, ClassUnicode, ClassUnicodeKind, Span};
use regex_syntax::hir::translate::Translator;
use regex_syntax::hir::{Hir, Look};

use crate::mail::Address;

/// Octets of an expression as it is compiled: enough for any list of names, and nothing
/// that a slip such as `(.{9}){999}` could fill the memory with.
const MAX_COMPILED: usize = 1 << 20;

/// An expression that whole addresses are held against.
#[derive(Debug, Clone)]
pub(super) struct Pattern {
    written: String,
    compiled: Regex,
}

impl Pattern {
    /// Reads an expression in Java's syntax; blanks around it do not belong to it.
    pub(super) fn parse(condition: &str) -> Result<Self, String> {
        let written = condition.trim();
        if written.is_empty() {
            return Err("a condition is required: a regular expression for the whole address".to_owned());
        }
        let tree =
            ast::parse::Parser::new().parse(written).map_err(|error| at(error.span(), &unsupported(error.kind())))?;
        ast::visit(&tree, ReadOtherwise)?;
        let whole = Translator::new()
            .translate(written, &tree)
            .map_err(|error| at(error.span(), &error.kind().to_string()))
            .map(|inner| Hir::concat(vec![Hir::look(Look::Start), inner, Hir::look(Look::End)]))?;
        let compiled = RegexBuilder::new(&whole.to_string()).size_limit(MAX_COMPILED).build();
        let compiled = compiled.map_err(|_| {
            format!("the regular expression comes to more than {} KiB: write it simpler", MAX_COMPILED >> 10)
        })?;
        Ok(Self { written: written.to_owned(), compiled })
    }

    /// Whether it matches the whole address. Its domain is in lower case, as in James.
    pub(super) fn matches(&self, address: &Address) -> bool {
        self.compiled.is_match(&address.mailbox())
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.written == other.written
    }
}

impl Eq for Pattern {}

fn at(span: &Span, why: &str) -> String {
    format!("at character {} of the regular expression: {why}", span.start.column)
}

/// What the engine says, where an operator who knows Java needs to hear more.
fn unsupported(kind: &ast::ErrorKind) -> String {
    match kind {
        ast::ErrorKind::UnsupportedLookAround => {
            "look-around such as (?=...) or (?!...) is not supported: match the opposite with 'notmatch' or 'Not'"
                .to_owned()
        }
        other => other.to_string(),
    }
}

/// Finds what means another thing in Java.
struct ReadOtherwise;

impl ast::Visitor for ReadOtherwise {
    type Output = ();
    type Err = String;

    fn finish(self) -> Result<(), String> {
        Ok(())
    }

    fn visit_pre(&mut self, tree: &Ast) -> Result<(), String> {
        match tree {
            Ast::Repetition(outer) if matches!(*outer.ast, Ast::Repetition(_)) => {
                Err(at(&outer.op.span, "a possessive or repeated quantifier such as *+ or ++ is not supported"))
            }
            Ast::ClassUnicode(class) => java_s_property(class),
            _ => Ok(()),
        }
    }

    fn visit_class_set_item_pre(&mut self, item: &ast::ClassSetItem) -> Result<(), String> {
        match item {
            ast::ClassSetItem::Unicode(class) => java_s_property(class),
            _ => Ok(()),
        }
    }

    fn visit_class_set_binary_op_pre(&mut self, operation: &ClassSetBinaryOp) -> Result<(), String> {
        match operation.kind {
            ClassSetBinaryOpKind::Intersection => Ok(()),
            _ => Err(at(&operation.span, "-- and ~~ are no plain characters here: write \\- or \\~")),
        }
    }
}

/// `\p{Punct}` and its like are ASCII in Java, and something else here.
fn java_s_property(class: &ClassUnicode) -> Result<(), String> {
    match &class.kind {
        ClassUnicodeKind::OneLetter(_) => Ok(()),
        ClassUnicodeKind::Named(name) if name.len() <= 2 => Ok(()),
        _ => Err(at(&class.span, "this property is not supported: write the characters, such as [A-Za-z]")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_whole_address_must_match_and_case_counts() {
        for (expression, address, matches) in [
            ("(.*)@log\\.(.*)", "user@log.example", true),
            ("(.*)@log\\.(.*)", "user@blog.example", false),
            ("(.*)(mp3|emmepitre)(.*)@", "my-mp3-list@x.example", false),
            ("(.*)(mp3|emmepitre)(.*)@.*", "my-mp3-list@x.example", true),
            ("a|a@x\\.example", "a@x.example", true),
            (" a@x\\.example ", "a@x.example", true),
            ("x\\.example", "a@x.example", false),
            ("A@x\\.example", "a@x.example", false),
            ("(?i)A@X\\.EXAMPLE", "a@x.example", true),
            ("A@x\\.example", "A@X.Example", true),
            ("(?x) a @ x\\.example # the rest", "a@x.example", true),
            ("(?x) a @ x\\.example # the rest", "a@x.example.org", false),
            ("^a@.*$", "a@x.example", true),
            ("[a-z&&[^b]]+@x\\.example", "aca@x.example", true),
            ("[a-z&&[^b]]+@x\\.example", "aba@x.example", false),
            ("(?<name>\\p{L}+)@.*", "jürgen@x.example", true),
            ("[\\w.+-]+@x\\.example", "a.b+c@x.example", true),
        ] {
            let pattern = Pattern::parse(expression).expect(expression);
            let address = Address::parse(address).expect(address);
            assert_eq!(pattern.matches(&address), matches, "{expression} {address}");
        }
    }

    #[test]
    fn what_java_reads_otherwise_is_refused_with_its_place() {
        for (expression, said) in [
            ("", "a condition is required"),
            ("   ", "a condition is required"),
            ("(?!hisp\\.example).*", "at character 1 of the regular expression: look-around"),
            (".*@(?=x).*", "at character 4 of the regular expression: look-around"),
            (".*(?<!x)", "at character 3 of the regular expression: look-around"),
            ("(?>a)b", "at character 3"),
            ("(a)\\1", "at character 4 of the regular expression: backreferences"),
            ("\\Qa.b\\E@.*", "at character 1"),
            (".*\\Z", "at character 3"),
            ("a*+b", "at character 3 of the regular expression: a possessive"),
            ("[ab]++@x", "at character 6 of the regular expression: a possessive"),
            ("a{2}+@x", "at character 5 of the regular expression: a possessive"),
            ("\\p{Punct}@x", "at character 1 of the regular expression: this property"),
            ("[a\\p{Alpha}]@x", "at character 3 of the regular expression: this property"),
            ("[a--b]@x", "at character 2 of the regular expression: -- and ~~"),
            ("(a@x", "at character 1"),
            ("*@x.example", "at character 1"),
            ("[a@x", "at character 1"),
            ("((.{99}){99}){99}", "more than 1024 KiB"),
        ] {
            let refused = Pattern::parse(expression).expect_err(expression);
            assert!(refused.contains(said), "{expression}: {refused}");
        }
    }
}
