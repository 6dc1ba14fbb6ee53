//! A program that speaks SMTP on standard input and output, line by line.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// The client's side. Dropping it kills the program.
pub(crate) struct Dialogue {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Dialogue {
    /// Starts the program; its banner is there.
    pub(crate) fn start(command: Command) -> Self {
        let mut dialogue = Self::spawn(command);
        dialogue.banner();
        dialogue
    }

    /// Starts the program, which may not be ready yet.
    pub(crate) fn spawn(mut command: Command) -> Self {
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("it starts");
        let input = child.stdin.take();
        let output = BufReader::new(child.stdout.take().expect("piped"));
        Self { child, input, output }
    }

    /// Waits for the banner.
    pub(crate) fn banner(&mut self) {
        let banner = self.reply();
        assert!(banner.starts_with("220 "), "{banner}");
    }

    /// Says this, and returns the last line of the reply.
    pub(crate) fn say(&mut self, text: &str) -> String {
        self.input.as_mut().expect("open").write_all(text.as_bytes()).expect("it listens");
        self.reply()
    }

    fn reply(&mut self) -> String {
        loop {
            let mut line = String::new();
            assert_ne!(self.output.read_line(&mut line).expect("readable"), 0, "it ended");
            if line.as_bytes().get(3) != Some(&b'-') {
                return line;
            }
        }
    }

    /// One mail from `a@y.example` to `b@x.example`, accepted.
    pub(crate) fn sends_a_mail(&mut self) {
        for (line, code) in [
            ("EHLO me.example\r\n", "250 "),
            ("MAIL FROM:<a@y.example>\r\n", "250 "),
            ("RCPT TO:<b@x.example>\r\n", "250 "),
            ("DATA\r\n", "354 "),
            ("Subject: hello\r\n\r\n..a\r\n.\r\n", "250 2.6.0"),
        ] {
            let reply = self.say(line);
            assert!(reply.starts_with(code), "{line}: {reply}");
        }
    }

    /// Says QUIT and keeps its end open; the exit code, and what came behind the last reply.
    pub(crate) fn end(mut self) -> (Option<i32>, String) {
        let reply = self.say("QUIT\r\n");
        assert!(reply.starts_with("221 "), "{reply}");
        self.rest()
    }

    /// Ends its input; the exit code, and what was said after that.
    pub(crate) fn close(mut self) -> (Option<i32>, String) {
        self.input = None;
        self.rest()
    }

    fn rest(&mut self) -> (Option<i32>, String) {
        let mut rest = String::new();
        std::io::Read::read_to_string(&mut self.output, &mut rest).expect("UTF-8");
        (self.child.wait().expect("our own child").code(), rest)
    }
}

impl Drop for Dialogue {
    fn drop(&mut self) {
        // After a wait there is nothing left to kill.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
