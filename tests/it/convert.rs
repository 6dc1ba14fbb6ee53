//! `redeliver convert`: containers of James that `check` accepts afterwards.

use std::fs;

use crate::support::relay::{Finished, Relay, Setup};

/// Of the documentation of James: error handling of remote delivery, a part of a container.
const STRATEGY: &str = r#"
        <processor state="relay" enableJmx="true">
            <!-- Perform at most 5 RemoteDelivery attemps -->
            <mailet match="AtMost=5" class="RemoteDelivery">
                <outgoingQueue>outgoing</outgoingQueue>
                <maxRetries>0</maxRetries>
                <maxDnsProblemRetries>0</maxDnsProblemRetries>
                <deliveryThreads>10</deliveryThreads>
                <sendpartial>true</sendpartial>
                <!-- Use a custom processor for error handling -->
                <bounceProcessor>remote-delivery-error</bounceProcessor>
            </mailet>
            <!-- When retries are exceeded, consider the mail as a permanent failure -->
            <mailet match="All" class="ToRepository">
                <repositoryPath>cassandra://var/mail/error/remote-delivery/permanent/</repositoryPath>
            </mailet>
        </processor>

        <processor state="remote-delivery-error" enableJmx="true">
            <!-- Store temporary failures separately for later retries -->
            <mailet match="IsRemoteDeliveryTemporaryError" class="ToRepository">
                <repositoryPath>cassandra://var/mail/error/remote-delivery/temporary/</repositoryPath>
            </mailet>
            <!-- Store permanent failures for audit -->
            <mailet match="IsRemoteDeliveryPermanentError" class="ToRepository">
                <repositoryPath>cassandra://var/mail/error/remote-delivery/permanent/</repositoryPath>
            </mailet>
            <!-- Mail getting that far were not processed by remote delivery.
             Likely a configuration error. -->
            <mailet match="All" class="ToRepository">
                <repositoryPath>cassandra://var/mail/error/</repositoryPath>
            </mailet>
        </processor>
"#;

/// What James ships for its distributed server, as far as mailets go.
const SHIPPED: &str = r#"<?xml version="1.0"?>
<mailetcontainer enableJmx="true">
    <context>
        <postmaster>postmaster@james.example</postmaster>
    </context>
    <spooler>
        <threads>20</threads>
        <errorRepository>cassandra://var/mail/error/</errorRepository>
    </spooler>
    <processors>
        <processor state="root" enableJmx="true">
            <mailet match="All" class="PostmasterAlias"/>
            <mailet match="RelayLimit=30" class="ToRepository">
                <repositoryPath>cassandra://var/mail/relay-limit-exceeded/</repositoryPath>
            </mailet>
            <mailet match="All" class="ToProcessor">
                <processor>transport</processor>
            </mailet>
        </processor>
        <processor state="error" enableJmx="true">
            <mailet match="All" class="MetricsMailet">
                <metricName>mailetContainerErrors</metricName>
            </mailet>
            <mailet match="All" class="Bounce">
                <onMailetException>ignore</onMailetException>
            </mailet>
            <mailet match="All" class="ToRepository">
                <onMailetException>propagate</onMailetException>
                <repositoryPath>cassandra://var/mail/error/</repositoryPath>
            </mailet>
        </processor>
        <processor state="transport" enableJmx="true">
            <matcher name="relay-allowed" match="org.apache.james.mailetcontainer.impl.matchers.Or">
                <matcher match="SMTPAuthSuccessful"/>
                <matcher match="SMTPIsAuthNetwork"/>
                <matcher match="SentByMailet"/>
                <matcher match="org.apache.james.jmap.mailet.SentByJmap"/>
            </matcher>
            <mailet match="All" class="RemoveMimeHeader">
                <name>bcc</name>
                <onMailetException>ignore</onMailetException>
            </mailet>
            <mailet match="All" class="RecipientRewriteTable">
                <errorProcessor>rrt-error</errorProcessor>
            </mailet>
            <mailet match="RecipientIsLocal" class="LocalDelivery"/>
            <mailet match="HostIsLocal" class="ToProcessor">
                <processor>local-address-error</processor>
                <notice>550 - Requested action not taken: no such user here</notice>
            </mailet>
            <mailet match="relay-allowed" class="ToProcessor">
                <processor>relay</processor>
            </mailet>
            <mailet match="All" class="ToProcessor">
                <processor>relay-denied</processor>
            </mailet>
        </processor>
        <processor state="relay" enableJmx="true">
            <mailet match="All" class="RemoteDelivery">
                <outgoingQueue>outgoing</outgoingQueue>
                <delayTime>5000, 100000, 500000</delayTime>
                <maxRetries>3</maxRetries>
                <maxDnsProblemRetries>0</maxDnsProblemRetries>
                <deliveryThreads>10</deliveryThreads>
                <sendpartial>true</sendpartial>
                <bounceProcessor>bounces</bounceProcessor>
            </mailet>
        </processor>
        <processor state="local-address-error" enableJmx="true">
            <mailet match="All" class="MetricsMailet">
                <metricName>mailetContainerLocalAddressError</metricName>
            </mailet>
            <mailet match="All" class="Bounce">
                <attachment>none</attachment>
            </mailet>
            <mailet match="All" class="ToRepository">
                <repositoryPath>cassandra://var/mail/address-error/</repositoryPath>
            </mailet>
        </processor>
        <processor state="relay-denied" enableJmx="true">
            <mailet match="All" class="MetricsMailet">
                <metricName>relayDenied</metricName>
            </mailet>
            <mailet match="All" class="Bounce">
                <attachment>none</attachment>
            </mailet>
            <mailet match="All" class="ToRepository">
                <repositoryPath>cassandra://var/mail/relay-denied/</repositoryPath>
                <notice>Warning: You are sending an e-mail to a remote server.</notice>
            </mailet>
        </processor>
        <processor state="bounces" enableJmx="true">
            <mailet match="All" class="MetricsMailet">
                <metricName>bounces</metricName>
            </mailet>
            <mailet match="All" class="DSNBounce">
                <passThrough>false</passThrough>
            </mailet>
        </processor>
        <processor state="rrt-error" enableJmx="false">
            <mailet match="All" class="ToRepository">
                <repositoryPath>cassandra://var/mail/rrt-error/</repositoryPath>
                <passThrough>true</passThrough>
            </mailet>
            <mailet match="IsSenderInRRTLoop" class="Null"/>
            <mailet match="All" class="Bounce"/>
        </processor>
    </processors>
</mailetcontainer>
"#;

/// Converts a container, and where YAML came of it puts that in force.
pub(crate) fn convert(xml: &str, code: i32) -> (Relay, Finished) {
    let relay = Setup::gateway("127.0.0.2:25").build();
    fs::write(relay.path().join("mailetcontainer.xml"), xml).expect("written");
    let ended = relay.command(&["convert", "mailetcontainer.xml"]).expect(code);
    if !ended.stdout.is_empty() {
        fs::write(relay.configuration(), &ended.stdout).expect("written");
        fs::remove_file(relay.path().join("jobs/retry-temporary.yaml")).expect("removed");
        for (name, text) in files_of(&ended.stdout) {
            fs::write(relay.path().join(name), text).expect("written");
        }
    }
    (relay, ended)
}

/// The jobs and schedules that stand in the comments.
fn files_of(yaml: &str) -> Vec<(String, String)> {
    let mut files: Vec<(String, String)> = Vec::new();
    for line in yaml.lines().filter_map(|line| line.strip_prefix("# ")) {
        match (line.strip_suffix(".yaml:"), files.last_mut()) {
            (Some(name), _) => files.push((format!("{name}.yaml"), String::new())),
            (None, Some((_, text))) => text.push_str(&format!("{}\n", line.trim_start())),
            (None, None) => {}
        }
    }
    files
}

#[test]
fn the_strategy_of_the_documentation_is_taken_as_it_is() {
    let (relay, ended) = convert(STRATEGY, 0);
    assert_eq!(ended.stderr, "");
    for line in ["    - match: AtMost=5", "      bounceProcessor: remote-delivery-error", "  cassandra: sqlite"] {
        assert!(ended.stdout.lines().any(|one| one == line), "{line}\n{}", ended.stdout);
    }
    let told = relay.command(&["check"]).expect(0).stdout;
    assert!(told.contains("job retry-temporary: a deferred mail is tried 5 times"), "{told}");
}

#[test]
fn what_james_ships_is_taken_as_far_as_it_goes_and_the_rest_is_said() {
    let (relay, ended) = convert(SHIPPED, 65);
    for line in [
        "mailetcontainer.xml:3: element context has no counterpart: left out",
        "mailetcontainer.xml:12: mailet PostmasterAlias has no counterpart: left out",
        "mailetcontainer.xml:24: mailet Bounce becomes DSNBounce, a report (RFC 3464) with the header of the message, once for each failure",
        "mailetcontainer.xml:34: matcher SMTPAuthSuccessful becomes All: smtp.networks and smtp.users say who may relay",
        "mailetcontainer.xml:47: matcher HostIsLocal has no counterpart",
        "mailetcontainer.xml:47: mailet ToProcessor is left out with its matcher",
        "mailetcontainer.xml:96: mailet DSNBounce becomes DSNBounce, a report (RFC 3464) with the header of the message, once for each failure",
    ] {
        assert!(ended.stderr.lines().any(|one| one == line), "{line}\n{}", ended.stderr);
    }
    assert!(!ended.stderr.contains("not right yet"), "{}", ended.stderr);
    for line in ["    - match: AtMost=4", "smtp: { processor: root }", "#   spacing: [5s, 100s, 500s]"] {
        assert!(ended.stdout.lines().any(|one| one == line), "{line}\n{}", ended.stdout);
    }
    let told = relay.command(&["check"]).expect(0).stdout;
    assert!(told.contains("job retry-temporary: a deferred mail is tried 4 times"), "{told}");
}

#[test]
fn what_is_no_container_is_refused_with_its_line() {
    for (xml, why) in [
        ("<mailetcontainer>\n<processors>", "mailetcontainer.xml:2: the file ends within an element"),
        ("<!DOCTYPE x [<!ENTITY e SYSTEM 'file:///etc/passwd'>]>\n<x>&e;</x>", ":1: a document type is not read"),
        ("not XML at all", ":1: there is no element"),
        ("<project><modules/></project>", ":1: there is no processor"),
    ] {
        let (_, ended) = convert(xml, 65);
        assert!(ended.stderr.contains(why) && ended.stdout.is_empty(), "{why}: {ended:?}");
    }
    let relay = Setup::gateway("127.0.0.2:25").build();
    relay.command(&["convert", "absent.xml"]).expect(66);
    let latin1 = relay.path().join("latin1.xml");
    std::fs::write(&latin1, b"<x>\n<!-- caf\xe9 --></x>").expect("written");
    let ended = relay.command(&["convert", &latin1.display().to_string()]).expect(65);
    assert!(ended.stderr.contains("latin1.xml:2: the file is not UTF-8"), "{ended:?}");
}

#[test]
fn what_james_would_do_by_itself_is_said() {
    let xml = r#"<mailetcontainer><processors><processor state="root">
        <mailet match="All" notmatch="SenderIsNull" class="RemoteDelivery"><outgoing>o</outgoing></mailet>
    </processor></processors></mailetcontainer>"#;
    let (_, ended) = convert(xml, 65);
    for line in [
        "mailetcontainer.xml:2: match and notmatch exclude each other: notmatch is left out",
        "mailetcontainer.xml:2: RemoteDelivery without bounceProcessor tells the sender of failures",
    ] {
        assert!(ended.stderr.contains(line), "{line}: {ended:?}");
    }
}

#[test]
fn a_remote_delivery_without_a_bounce_processor_tells_the_sender_as_james_does() {
    let xml = |retries: &str| {
        format!(
            "<mailetcontainer><processors><processor state=\"root\">\n<mailet match=\"All\" class=\"RemoteDelivery\">\
             <outgoing>o</outgoing>{retries}</mailet></processor></processors></mailetcontainer>"
        )
    };
    for retries in ["<maxRetries>0</maxRetries>", "<maxRetries>2</maxRetries><delayTime>1 hour</delayTime>"] {
        let (_, ended) = convert(&xml(retries), 0);
        assert!(ended.stderr.contains("here DSNBounce does") && !ended.stderr.contains("no counterpart"), "{ended:?}");
        let yaml = &ended.stdout;
        let told = yaml.find("mailet: DSNBounce").expect("told");
        assert!(yaml[told..].contains("sqlite://var/mail/error/remote-delivery/permanent/"), "{yaml}");
    }
}

#[test]
fn a_large_container_is_converted_in_time_that_grows_with_it() {
    let processor = |n: usize| {
        let name = if n == 0 { "root".to_owned() } else { format!("p{n}") };
        format!(
            "<processor state=\"{name}\"><mailet match=\"RecipientIs=a{n}@x.example\" class=\"RemoteDelivery\">\
             <outgoing>o{n}</outgoing><maxRetries>2</maxRetries><bounceProcessor>end</bounceProcessor></mailet>\
             <mailet match=\"All\" class=\"ToProcessor\"><processor>p{}</processor></mailet></processor>\n",
            n + 1
        )
    };
    let end =
        "<mailet match=\"All\" class=\"ToRepository\"><repositoryPath>file://var/mail/end/</repositoryPath></mailet>";
    let all: String = (0..1000).map(processor).collect();
    let last = ["p1000", "end"].map(|name| format!("<processor state=\"{name}\">{end}</processor>"));
    let relay = Setup::gateway("127.0.0.2:25").build();
    let file = relay.path().join("large.xml");
    std::fs::write(&file, format!("<processors>{all}{}</processors>", last.concat())).expect("written");
    let ended = relay.command(&["convert", &file.display().to_string()]);
    assert!(ended.stdout.contains("remote-delivery-retry-1000"), "{}", ended.stderr);
    assert!(ended.elapsed.as_secs() < 30, "{:?}", ended.elapsed);
}

#[test]
fn a_null_behind_a_bounce_that_is_dropped_keeps_the_mail_and_long_texts_are_one_line() {
    let xml = r#"<mailetcontainer><processors>
        <processor state="root">
            <mailet match="SenderIs=a@x.example" class="ToProcessor">
                <processor>bounces</processor>
                <notice>a notice
                    over two lines</notice>
            </mailet>
            <mailet match="All" class="Null"/>
        </processor>
        <processor state="error">
            <mailet match="org.apache.james.SMTPAuthSuccessful" class="Null"/>
            <mailet match="All" class="Null"/>
        </processor>
        <processor state="bounces">
            <mailet match="All" class="DSNBounce"><passThrough>true</passThrough></mailet>
            <mailet match="All" class="Null"/>
        </processor>
    </processors></mailetcontainer>"#;
    let (relay, ended) = convert(xml, 65);
    assert!(ended.stderr.contains("Null behind a dropped bounce would lose the mail"), "{ended:?}");
    assert!(
        ended.stderr.contains(":11: mailet Null for all who may relay would delete every mail: left out"),
        "{ended:?}"
    );
    assert!(ended.stdout.contains("a notice over two lines"), "{ended:?}");
    relay.command(&["check"]).expect(0);
    let bounces = ended.stdout.split_once("bounces:\n").expect("the processor").1;
    assert!(bounces.contains("remote-delivery/permanent/") && !bounces.contains("Null"), "{ended:?}");
    assert_eq!(ended.stdout.matches("mailet: \"Null\"").count(), 2, "elsewhere Null is Null: {ended:?}");
}
