//! The wire language for both sides: reply, command, dot-stuffing. No I/O.
