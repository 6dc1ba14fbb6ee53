//! The log's files, and what becomes of the service when somebody takes them away.

use super::{Service, served};
use crate::support::relay::Setup;
use crate::support::sink::{Script, SmtpSink};

#[test]
fn a_log_directory_that_is_taken_away_stops_nothing() {
    for renamed in [false, true] {
        let peer = SmtpSink::start(Script::new());
        let relay = served(Setup::gateway(peer.address()).top("log: { directory: log }"));
        let service = Service::start(&relay);
        let (directory, elsewhere) = (relay.path().join("var/log"), relay.path().join("elsewhere"));
        let taken_away =
            if renamed { std::fs::rename(&directory, &elsewhere) } else { std::fs::remove_dir_all(&directory) };
        taken_away.expect("it is there");
        service.submit(&["you@example.net"], "m");
        service.wait_until_settled();
        assert_eq!(service.get("/healthcheck").1["status"], "healthy");
        assert!(service.log.text().contains("mail accepted"), "standard error has it");
        service.stop();
        assert_eq!(peer.copies_of("you@example.net", "<m@"), 1);
        if renamed {
            let files = std::fs::read_dir(&elsewhere).expect("a folder").map(|entry| entry.expect("an entry").path());
            let text: String = files.map(|file| std::fs::read_to_string(file).expect("text")).collect();
            assert!(text.contains("mail accepted") && text.contains("stopped"), "it goes on in the same file: {text}");
        }
    }
}
