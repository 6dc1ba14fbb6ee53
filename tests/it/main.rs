//! What an operator and a remote host would see: the real program against scripted peers.

mod architecture;
mod auth;
mod bad_input;
mod bad_store;
mod convert;
mod dns;
mod down;
mod groups;
mod import;
mod james;
mod job_kinds;
mod killed;
mod listener;
mod mail_programs;
mod outcomes;
mod pipelining;
mod run;
mod serve;
mod sessions;
mod sink;
mod submit;
mod support;
mod tls;
mod uncounted;
mod zones;
