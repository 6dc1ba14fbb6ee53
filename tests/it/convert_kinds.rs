//! `redeliver convert`, kind by kind: what James did is done here, or kept and said.

use std::fs;

use crate::convert::convert;
use crate::support::relay::Relay;
use crate::support::sink::{Script, SmtpSink, script};

/// A container that relays: `root` with these mailets, and behind them a RemoteDelivery through `gateway`.
fn relaying(gateway: impl std::fmt::Display, mailets: &str) -> String {
    format!(
        r#"<mailetcontainer><processors>
<processor state="root">
{mailets}
<mailet match="All" class="RemoteDelivery"><outgoing>outgoing</outgoing><maxRetries>0</maxRetries><gateway>{gateway}</gateway><bounceProcessor>failed</bounceProcessor></mailet>
</processor>
<processor state="failed">
<mailet match="All" class="ToRepository"><repositoryPath>file://var/mail/failed/</repositoryPath></mailet>
</processor>
</processors></mailetcontainer>"#
    )
}

/// A gateway with these parameters beside it.
fn with_parameters(parameters: &str) -> String {
    format!(
        r#"<processors><processor state="root"><mailet class="RemoteDelivery"><gateway>gw.example.net</gateway><maxRetries>0</maxRetries>
{parameters}
<bounceProcessor>error</bounceProcessor></mailet></processor></processors>"#
    )
}

/// The values of a key in the YAML, as they are written.
fn values<'a>(yaml: &'a str, key: &str) -> Vec<&'a str> {
    let lead = format!("      {key}: ");
    yaml.lines().filter_map(|line| line.strip_prefix(&lead)).collect()
}

/// Sends one mail through the converted configuration; where it is then.
fn submitted(relay: &Relay) -> Vec<String> {
    relay.submit("s@x.example", &["r@y.example"], "Subject: x\n\nx\n");
    relay.run_spool();
    let listed = relay.command(&["repository", "list", "--format", "json"]).expect(0).json();
    let filled = listed.iter().filter(|line| line["size"].as_u64() > Some(0));
    filled.map(|line| line["repository"].as_str().expect("a path").to_owned()).collect()
}

#[test]
fn values_that_yaml_reads_otherwise_are_quoted() {
    for value in
        ["true", "FALSE", "yes", "null", "~", "4711", "1e5", "0x1F", "2001-01-01", "#x", "a: b", "*x", "- x", "it's"]
    {
        let header = format!(r#"<mailet class="SetMimeHeader"><name>X-Value</name><value>{value}</value></mailet>"#);
        let (relay, ended) = convert(&relaying("127.0.0.2:25", &header), 0);
        assert_eq!(values(&ended.stdout, "value"), [serde_json::Value::from(value).to_string()], "{ended:?}");
        relay.command(&["check"]).expect(0);
    }
    for secret in ["123456", "0123456", "true", "1e5", "pa#ss", "%x"] {
        let credentials =
            format!("<gatewayusername>{secret}</gatewayusername><gatewayPassword>{secret}</gatewayPassword>");
        let (relay, ended) = convert(&with_parameters(&credentials), 0);
        let expected = [serde_json::Value::from(secret).to_string()];
        assert_eq!(values(&ended.stdout, "gatewayUsername"), expected, "{ended:?}");
        assert_eq!(values(&ended.stdout, "gatewayPassword"), expected, "{ended:?}");
        relay.command(&["check"]).expect(0);
    }
}

#[test]
fn repeated_elements_are_joined_and_delays_become_the_spacing() {
    let delay = |text: &str| format!("<delayTime>{text}</delayTime>");
    for (delays, most, spacing, attempts) in [
        (vec!["5 minutes", "10 minutes", "2 hours"], 25, "[5m, 10m, 2h]", 26),
        (vec!["5 minutes, 10 minutes", "45 minutes"], 3, "[5m, 10m, 45m]", 4),
        (vec!["3*10 minutes", "2 * 1 hour"], 5, "[10m, 10m, 10m, 1h]", 6),
        (vec!["3*10 minutes"], 1, "[10m]", 4),
        (vec!["500", "5000"], 2, "[1s, 5s]", 3),
    ] {
        let delays: String = delays.into_iter().map(delay).collect();
        let container = with_parameters(&delays).replace("<maxRetries>0", &format!("<maxRetries>{most}"));
        let (relay, ended) = convert(&container, 0);
        assert!(ended.stdout.contains(&format!("#   spacing: {spacing}\n")), "{delays}: {}", ended.stdout);
        let told = relay.command(&["check"]).expect(0).stdout;
        assert!(told.contains(&format!("a deferred mail is tried {attempts} times")), "{delays}: {told}");
    }
    let (relay, ended) = convert(&with_parameters("<gateway>gw2.example.net:2525</gateway>"), 0);
    assert_eq!(values(&ended.stdout, "gateway"), ["\"gw.example.net, gw2.example.net:2525\""]);
    relay.command(&["check"]).expect(0);
    let broken = with_parameters("<delayTime>5 minutes, soon</delayTime>").replace("<maxRetries>0", "<maxRetries>2");
    let (_, ended) = convert(&broken, 65);
    assert!(ended.stderr.contains("delayTime \"soon\" cannot be read: 2 retries instead"), "{ended:?}");
}

/// What stands before a RemoteDelivery that all mail may reach, or not.
#[test]
fn a_mail_that_james_may_have_stopped_does_not_come_to_the_gateway() {
    for (mailets, at, said) in [
        // Somebody else's matchers guard what ends a mail, or the only way on.
        (r#"<mailet match="org.example.IsSpam" class="Null"/>"#, "var/mail/error", "matcher org.example.IsSpam"),
        (
            r#"<mailet match="InSpammerBlacklist=x.example" class="ToProcessor"><processor>failed</processor></mailet>"#,
            "var/mail/error",
            "InSpammerBlacklist",
        ),
        (
            r#"<mailet notmatch="org.example.IsGood" class="ToProcessor"><processor>failed</processor></mailet>"#,
            "var/mail/error",
            "org.example.IsGood",
        ),
        (
            r#"<matcher name="both" match="org.apache.james.mailetcontainer.impl.matchers.And"><matcher match="SenderIs=s@x.example"/><matcher match="org.example.IsSpam"/></matcher><mailet match="both" class="Null"/>"#,
            "var/mail/error",
            "org.example.IsSpam",
        ),
        (r#"<mailet match="SenderIs=${spammer}" class="Null"/>"#, "var/mail/error", "placeholder ${spammer}"),
        (r#"<mailet match="RelayLimit=many" class="Null"/>"#, "var/mail/error", "RelayLimit takes"),
        // Somebody else's mailets may have ended it themselves.
        (r#"<mailet match="All" class="org.example.Gate"/>"#, "var/mail/error", "mailet org.example.Gate"),
        (
            r#"<mailet match="SenderIs=s@x.example" class="PerSenderRateLimit"><duration>1d</duration></mailet>"#,
            "var/mail/error",
            "PerSenderRateLimit",
        ),
        (
            r#"<mailet match="All" class="RspamdScanner"><virusProcessor>failed</virusProcessor></mailet>"#,
            "var/mail/error",
            "RspamdScanner",
        ),
        // Attributes that nobody sets here.
        (
            r#"<mailet match="org.example.IsSpam" class="SetMailAttribute"><spam>yes</spam></mailet><mailet match="HasMailAttribute=spam" class="Null"/>"#,
            "var/mail/error",
            "attribute spam",
        ),
        (
            r#"<mailet match="All" class="ClamAVScan"/><mailet match="HasMailAttributeWithValue=infected, true" class="Null"/>"#,
            "var/mail/error",
            "attribute infected",
        ),
        // James's own, that end a mail in ways that have no counterpart.
        (
            r#"<mailet match="SenderDomainIs=x.example" class="Redirect"><recipients>a@z.example</recipients></mailet>"#,
            "var/mail/error",
            "Redirect",
        ),
        (r#"<mailet match="SMTPAuthSuccessful" class="Null"/>"#, "var/mail/error", "Null for all who may relay"),
        (
            r#"<mailet match="SentByMailet" class="MetricsMailet"><metricName>x</metricName></mailet><mailet notmatch="SentByMailet" class="ToRepository"><repositoryPath>file://var/mail/denied</repositoryPath></mailet>"#,
            "var/mail/denied",
            "",
        ),
    ] {
        let sink = SmtpSink::start(Script::new());
        let (relay, ended) = convert(&relaying(sink.address(), mailets), 65);
        assert!(ended.stderr.contains(said), "{mailets}: {}", ended.stderr);
        relay.command(&["check"]).expect(0);
        assert_eq!(submitted(&relay), [at], "{mailets}: {}", ended.stdout);
        assert!(sink.transactions().is_empty(), "{mailets}");
    }
}

/// What stands before it and lets the mail go on.
#[test]
fn a_mail_that_james_let_go_on_comes_to_the_gateway_and_what_is_missing_is_said() {
    for (mailets, code, said) in [
        (r#"<mailet match="SenderIs=other@x.example" class="Null"/>"#, 0, ""),
        (r#"<mailet match="All" class="PostmasterAlias"/>"#, 0, "PostmasterAlias has no counterpart"),
        (r#"<mailet match="SenderIs=other@x.example" class="org.example.Gate"/>"#, 65, "mailet org.example.Gate"),
        (
            r#"<matcher name="either" match="Or"><matcher match="SMTPAuthSuccessful"/><matcher match="org.example.Own"/></matcher><mailet notmatch="either" class="Null"/>"#,
            65,
            "org.example.Own",
        ),
        (r#"<mailet match="All" class="RemoveMimeHeader"><name>bcc</name></mailet>"#, 65, "RemoveMimeHeader"),
        (
            r#"<mailet match="All" class="org.apache.james.jdkim.mailets.ConvertTo7Bit"/>"#,
            65,
            "8-bit mail leaves as it is",
        ),
        (
            r#"<mailet match="All" class="org.apache.james.jdkim.mailets.DKIMSign"><signatureTemplate>v=1;</signatureTemplate></mailet>"#,
            65,
            "mail leaves unsigned",
        ),
        (
            r#"<mailet match="org.example.Own" class="MetricsMailet"><metricName>x</metricName></mailet>"#,
            65,
            "org.example.Own",
        ),
        (
            r#"<mailet match="RecipientIsLocal" class="LocalDelivery"/>"#,
            65,
            "mail for domains that James hosted now goes to 'root'",
        ),
        (
            r#"<mailet match="RemoteAddrNotInNetwork=127.0.0.1" class="Null"/>"#,
            65,
            "write 127.0.0.1 into smtp.networks",
        ),
    ] {
        let sink = SmtpSink::start(Script::new());
        let (relay, ended) = convert(&relaying(sink.address(), mailets), code);
        assert!(ended.stderr.contains(said), "{mailets}: {}", ended.stderr);
        relay.command(&["check"]).expect(0);
        assert_eq!(submitted(&relay), Vec::<String>::new(), "{mailets}: {}", ended.stdout);
        assert_eq!(sink.transactions().len(), 1, "{mailets}");
    }
}

#[test]
fn what_fails_is_kept_where_james_told_or_kept_before_it_deleted() {
    for (mailets, at) in [
        (r#"<mailet match="All" class="org.example.OwnBounce"/><mailet match="All" class="Null"/>"#, "var/mail/error"),
        (
            r#"<mailet match="org.example.Own" class="Bounce"/><mailet match="All" class="Null"/>"#,
            "var/mail/error/remote-delivery/permanent",
        ),
        (
            r#"<mailet match="All" class="NotifyPostmaster"/><mailet match="All" class="ToProcessor"><processor>last</processor></mailet>"#,
            "var/mail/error/remote-delivery/permanent",
        ),
        (
            r#"<mailet match="RecipientIsLocal" class="LocalDelivery"/><mailet match="All" class="Null"/>"#,
            "var/mail/error",
        ),
        (
            r#"<mailet match="All" class="ToSenderFolder"><folder>Sent</folder></mailet><mailet match="All" class="LogMessage"><passThrough>false</passThrough></mailet>"#,
            "var/mail/error",
        ),
        (r#"<mailet match="All" class="MetricsMailet"><metricName>x</metricName></mailet>"#, "var/mail/error"),
        (
            r#"<mailet match="All" class="ToRepository"><repositoryPath>file:///var/failed</repositoryPath></mailet>"#,
            "var/failed",
        ),
        (
            r#"<mailet match="All" class="ToRepository"><repositoryPath>file://C:/failed</repositoryPath></mailet>"#,
            "var/mail/error",
        ),
    ] {
        let sink = SmtpSink::start(script!["MAIL" => "550 5.7.1 no"]);
        let container = relaying(sink.address(), "").replace(
            r#"<mailet match="All" class="ToRepository"><repositoryPath>file://var/mail/failed/</repositoryPath></mailet>"#,
            &format!(r#"{mailets}</processor><processor state="last"><mailet match="All" class="Null"/>"#),
        );
        let (relay, _) = convert(&container, if at == "var/failed" || mailets.contains("Metrics") { 0 } else { 65 });
        relay.command(&["check"]).expect(0);
        assert_eq!(submitted(&relay), [at], "{mailets}");
    }
}

#[test]
fn a_remote_delivery_that_is_left_out_leaves_no_other_way_and_that_is_said() {
    let remote = |matcher: &str, to: &str| {
        format!(
            r#"<mailet match="{matcher}" class="RemoteDelivery"><maxRetries>0</maxRetries><gateway>{to}</gateway><bounceProcessor>error</bounceProcessor></mailet>"#
        )
    };
    let guarded = r#"<mailet match="org.example.Trusted" class="ToProcessor"><processor>relay</processor></mailet>"#;
    let denied =
        r#"<mailet match="All" class="ToRepository"><repositoryPath>file://var/mail/denied</repositoryPath></mailet>"#;
    for (rules, relay, said) in [
        (
            remote("org.example.Trusted", "gw.example.net"),
            String::new(),
            "no RemoteDelivery is left: all mail would end in var/mail/error",
        ),
        (
            remote("org.example.Trusted", "gw.example.net") + &remote("All", "gw2.example.net"),
            String::new(),
            "no mail can reach a RemoteDelivery: all mail would end in var/mail/error",
        ),
        (
            guarded.to_owned() + denied,
            remote("All", "gw.example.net"),
            "no mail can reach a RemoteDelivery: all mail would end in var/mail/error",
        ),
        (
            denied.to_owned(),
            remote("All", "gw.example.net"),
            "no mail can reach a RemoteDelivery: all mail would end in var/mail/denied",
        ),
        (denied.to_owned(), denied.to_owned(), "there is no RemoteDelivery: all mail would end in var/mail/denied"),
        (
            r#"<mailet class="Null"/>"#.to_owned(),
            remote("All", "gw.example.net"),
            "no mail can reach a RemoteDelivery: all mail would end in Null",
        ),
    ] {
        let relay = if relay.is_empty() { denied.to_owned() } else { relay };
        let container = format!(
            "<processors>\n<processor state=\"root\">{rules}</processor>\n<processor state=\"relay\">{relay}</processor></processors>"
        );
        let (relay, ended) = convert(&container, 65);
        let line = format!("mailetcontainer.xml:2: {said}");
        assert!(ended.stderr.lines().any(|one| one == line), "{line}\n{}", ended.stderr);
        relay.command(&["check"]).expect(0);
    }
}

#[test]
fn placeholders_and_templates_are_named_and_a_password_is_to_be_in_a_file() {
    let (relay, ended) = convert(
        &with_parameters(
            "<gatewayUsername>${env:SMTP_USER}</gatewayUsername>\n<gatewayPassword>{{ smtp_password }}</gatewayPassword>",
        ),
        65,
    );
    for line in [
        "mailetcontainer.xml:2: gatewayUsername has the placeholder ${env:SMTP_USER}: write what it stands for",
        "mailetcontainer.xml:3: gatewayPassword is the placeholder {{ smtp_password }}: put the password into a file that gatewayPasswordFile names (gateway.password)",
    ] {
        assert!(ended.stderr.lines().any(|one| one == line), "{line}\n{}", ended.stderr);
    }
    relay.command(&["check"]).expect(78);
    fs::write(relay.path().join("gateway.password"), "secret\n").expect("written");
    relay.command(&["check"]).expect(0);
    for (template, line) in [
        (
            "<processors>\n<#list relays as relay></#list></processors>",
            "mailetcontainer.xml:2: <#list belongs to a template",
        ),
        ("<processors>{% for relay in relays %}\n</processors>", "mailetcontainer.xml:1: {% belongs to a template"),
    ] {
        let (_, ended) = convert(template, 65);
        assert!(ended.stderr.contains(line) && ended.stdout.is_empty(), "{ended:?}");
    }
}

#[test]
fn the_layout_of_james_2_is_read_wherever_its_processors_stand() {
    let inner = relaying("127.0.0.2:25", "").replace("state=", "name=");
    let inner = inner.replace("<mailetcontainer><processors>", "").replace("</processors></mailetcontainer>", "");
    for (layout, code) in [
        (
            format!(
                "<config><James><postmaster>p</postmaster></James><spoolmanager><threads>1</threads>{inner}</spoolmanager></config>"
            ),
            0,
        ),
        (format!("<spoolmanager>{inner}</spoolmanager>"), 0),
        (inner.clone(), 0),
        (format!("<!DOCTYPE config [\n<!ENTITY fetch SYSTEM \"f.xml\">]>\n<config>&fetch;{inner}</config>"), 65),
        (format!("<config>\n&fetch;{inner}</config>"), 65),
    ] {
        let (relay, ended) = convert(&layout, code);
        if code == 0 {
            assert_eq!(values(&ended.stdout, "gateway"), ["\"127.0.0.2:25\""], "{layout}");
            relay.command(&["check"]).expect(0);
        } else {
            assert!(ended.stderr.contains("&fetch;") && ended.stderr.contains("remove"), "{ended:?}");
        }
    }
}

#[test]
fn parameters_of_a_delivery_are_taken_over_or_said() {
    for (parameter, code, written, said) in [
        ("<startTLS>TRUE</startTLS>", 0, "startTLS: true", ""),
        ("<mail.smtp.starttls.required>true</mail.smtp.starttls.required>", 0, "startTLS: required", ""),
        (
            "<mail.smtp.ssl.protocols>TLSv1.2</mail.smtp.ssl.protocols>",
            65,
            "",
            "mail.smtp.ssl.protocols has no counterpart",
        ),
        ("<onSuccess>archive</onSuccess>", 65, "", "what is delivered does not come to processor 'archive'"),
        ("<usePriority>true</usePriority>", 0, "", "parameter usePriority has no counterpart"),
        ("<sendpartial>yes</sendpartial>", 0, "sendpartial: false", "sendpartial is neither true nor false"),
        ("<outgoing>file://var/mail/outgoing/</outgoing>", 0, "outgoing: outgoing", ""),
        ("<outgoing>a</outgoing><outgoingQueue>b</outgoingQueue>", 0, "outgoing: a", ""),
        ("<gatewayPort>2525</gatewayPort>", 0, "gatewayPort: 2525", ""),
        // Where both stand, James takes the name of today.
        (
            "<gatewayusername>old</gatewayusername><gatewayUsername>new</gatewayUsername><gatewayPassword>p</gatewayPassword>",
            0,
            "gatewayUsername: new",
            "",
        ),
        ("<mail.smtp.starttls.required>True</mail.smtp.starttls.required>", 0, "startTLS: required", ""),
        ("<mail.smtp.starttls.required>false</mail.smtp.starttls.required>", 0, "", ""),
        // James does not read them either, which whoever wrote them does not know.
        ("<sslenable>true</sslenable>", 65, "", "parameter sslenable is left out, as James does: it reads sslEnable"),
        ("<connectionTimeout>60000</connectionTimeout>", 0, "", "it reads connectiontimeout"),
        ("<onMailetException> Ignore </onMailetException>", 0, "onMailetException: ignore", ""),
        ("<onMailetException/>", 0, "", ""),
    ] {
        let (relay, ended) = convert(&with_parameters(parameter), code);
        assert!(ended.stdout.contains(&format!("      {written}")), "{parameter}: {}", ended.stdout);
        assert!(ended.stderr.contains(said), "{parameter}: {}", ended.stderr);
        relay.command(&["check"]).expect(0);
    }
}

#[test]
fn a_pass_leads_to_the_delivery_that_deferred_and_to_no_other() {
    let sinks: Vec<_> = (0..2).map(|_| SmtpSink::start(script!["MAIL" => "451 4.7.1 later"])).collect();
    let rule = |matcher: &str, sink: &SmtpSink| {
        format!(
            r#"<mailet match="{matcher}" class="RemoteDelivery"><delayTime>0</delayTime><maxRetries>1</maxRetries><gateway>{}</gateway><bounceProcessor>failed</bounceProcessor></mailet>"#,
            sink.address()
        )
    };
    let container = format!(
        r#"<processors><processor state="root">{}{}</processor><processor state="failed"><mailet class="ToRepository"><repositoryPath>file://var/mail/failed</repositoryPath></mailet></processor></processors>"#,
        rule("RecipientDomainIs=y.example", &sinks[0]),
        rule("All", &sinks[1])
    );
    let (relay, _) = convert(&container, 0);
    assert_eq!(submitted(&relay), ["var/mail/error/remote-delivery/temporary"]);
    relay.command(&["run", "retry-temporary", "--now"]).expect(69);
    assert_eq!(relay.size("var/mail/failed"), 1);
    // What is used up ends where it ended in James, and goes to nobody else, also when it is taken round again.
    relay.command(&["repository", "reprocess", "var/mail/failed", "--all", "--processor", "root"]).expect(0);
    relay.run_spool();
    assert_eq!(relay.size("var/mail/failed"), 1);
    assert_eq!(sinks.iter().map(SmtpSink::connections).collect::<Vec<_>>(), [2, 0]);
}

#[test]
fn the_lines_of_the_readme_work_as_pasted() {
    let readme = include_str!("../../README.md");
    let chapter = readme.split_once("## Coming from James").expect("the chapter").1;
    let lines = chapter.split("```sh").nth(1).and_then(|rest| rest.split("```").next()).expect("lines for a shell");
    let folder = tempfile::tempdir().expect("a folder");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_redeliver"), folder.path().join("redeliver")).expect("a link");
    let container = with_parameters("<delayTime>10 minutes</delayTime>").replace("<maxRetries>0", "<maxRetries>4");
    fs::write(folder.path().join("mailetcontainer.xml"), container).expect("written");
    let shell = std::process::Command::new("sh").args(["-ec", lines]).current_dir(folder.path()).output().expect("sh");
    let told = String::from_utf8_lossy(&shell.stdout);
    assert!(shell.status.success() && !told.contains("exit code"), "{shell:?}");
    assert!(told.contains("job retry-temporary: a deferred mail is tried 5 times"), "{told}");
    assert!(folder.path().join("schedules/retry-temporary.yaml").exists());
}

#[test]
fn matchers_of_matchers_are_found_and_read_as_james_does() {
    let of =
        |name: &str, class: &str, inner: &str| format!(r#"<matcher name="{name}" match="{class}">{inner}</matcher>"#);
    let own = r#"<matcher match="SenderIs=s@x.example"/>"#;
    let other = r#"<matcher notmatch="SenderIs=other@x.example"/>"#;
    let to_failed = |key: &str| format!(r#"<mailet {key} class="ToProcessor"><processor>failed</processor></mailet>"#);
    for (mailets, stopped, code) in [
        // Of no matchers And, Or and Xor match nobody, and Not all.
        (of("c", "And", "") + &to_failed(r#"match="c""#), false, 0),
        (of("c", "And", "") + &to_failed(r#"notmatch="c""#), true, 65),
        (of("c", "Or", "") + &to_failed(r#"match="c""#), false, 0),
        (of("c", "Xor", "") + &to_failed(r#"match="c""#), false, 0),
        (of("c", "Not", "") + &to_failed(r#"match="c""#), true, 65),
        // One that is inverted within another, or as a whole.
        (of("c", "And", &format!("{own}{other}")) + &to_failed(r#"match="c""#), true, 0),
        (of("c", "Not", other) + &to_failed(r#"match="c""#), false, 0),
        (of("c", "Or", own).replace("match=\"Or\"", "notmatch=\"Or\"") + &to_failed(r#"match="c""#), false, 0),
        // Behind the mailet that asks for it, and by a name within another.
        (to_failed(r#"match="c""#) + &of("c", "Or", own), true, 0),
        (of("c", "Not", &of("d", "Or", own)) + &to_failed(r#"match="d""#), true, 0),
        (of("c", "Or", own) + &of("d", "Not", r#"<matcher match="c"/>"#) + &to_failed(r#"match="d""#), false, 0),
    ] {
        let sink = SmtpSink::start(Script::new());
        let (relay, ended) = convert(&relaying(sink.address(), &mailets), code);
        relay.command(&["check"]).expect(0);
        let at: &[&str] = if stopped { &["var/mail/failed"] } else { &[] };
        assert_eq!(submitted(&relay), at, "{mailets}: {}", ended.stdout);
        assert_eq!(sink.transactions().len(), usize::from(!stopped), "{mailets}");
    }
}

#[test]
fn what_was_meant_and_is_not_read_is_said() {
    let attribute =
        |name: &str| format!(r#"<mailet match="{name}" class="ToProcessor"><processor>failed</processor></mailet>"#);
    for (mailets, said) in [
        (r#"<xi:include href="more.xml"/>"#.to_owned(), "element xi:include in a processor is left out"),
        (r#"<Mailet match="All" class="Null"/>"#.to_owned(), "element Mailet in a processor is left out"),
        (r#"<mailets><mailet class="Null"/></mailets>"#.to_owned(), "element mailets in a processor is left out"),
        (
            r#"<mailet match="SenderIs=o@x.example" notmatch="SenderIsNull" class="Null"/>"#.to_owned(),
            "match and notmatch exclude each other",
        ),
        (
            r#"<matcher name="c" match="Or"/><matcher name="c" match="And"/>"#.to_owned(),
            "matcher 'c' stands in this processor a second time",
        ),
        // The listener of James sets these, or a hook of it.
        (
            attribute("HasMailAttributeWithValue=org.apache.james.SMTPAuthUser, bob"),
            "asks for attribute org.apache.james.SMTPAuthUser",
        ),
        (
            (1..24).fold(r#"<matcher name="m0" match="SenderIsNull"/>"#.to_owned(), |text, n| {
                let last = format!(r#"<matcher match="m{}"/>"#, n - 1);
                format!(r#"{text}<matcher name="m{n}" match="Or">{last}{last}</matcher>"#)
            }),
            "a matcher of more than 1000 others has no counterpart",
        ),
        (attribute("HasMailAttribute=org.apache.james.spf.header"), "asks for attribute org.apache.james.spf.header"),
    ] {
        let (relay, ended) = convert(&relaying("127.0.0.2:25", &mailets), 65);
        assert!(ended.stderr.contains(said), "{said}: {}", ended.stderr);
        relay.command(&["check"]).expect(0);
    }
    for (within, said) in [
        (r#"<xi:include href="more.xml"/>"#, "xi:include is not followed: put what it includes in its place"),
        ("<Processor/>", "element Processor is left out, as James does: did you mean processor?"),
    ] {
        let container = relaying("127.0.0.2:25", "").replace("</processors>", &format!("{within}</processors>"));
        let (_, ended) = convert(&container, 65);
        assert!(ended.stderr.contains(said), "{said}: {}", ended.stderr);
    }
    // Set by the container itself, it is what it is there.
    let set = r#"<mailet class="SetMailAttribute"><org.apache.james.x>1</org.apache.james.x></mailet>"#;
    let (relay, _) =
        convert(&relaying("127.0.0.2:25", &(set.to_owned() + &attribute("HasMailAttribute=org.apache.james.x"))), 0);
    assert_eq!(submitted(&relay), ["var/mail/failed"]);
}

#[test]
fn a_mail_that_goes_to_ghost_is_deleted_as_james_does_unless_somebody_was_to_be_told() {
    let ghost = r#"<mailet match="SenderIs=s@x.example" class="ToProcessor"><processor>ghost</processor></mailet>"#;
    for (mailets, code, at) in [
        (ghost.to_owned(), 0, &[][..]),
        (
            r#"<mailet class="NotifyPostmaster"/>"#.to_owned() + ghost,
            65,
            &["var/mail/error/remote-delivery/permanent"][..],
        ),
    ] {
        let sink = SmtpSink::start(Script::new());
        let (relay, ended) = convert(&relaying(sink.address(), &mailets), code);
        relay.command(&["check"]).expect(0);
        assert_eq!(submitted(&relay), at, "{mailets}: {}", ended.stdout);
        assert!(sink.transactions().is_empty(), "{mailets}");
    }
}

#[test]
fn a_report_of_what_was_delivered_does_not_become_one_of_a_failure() {
    for (action, code, written) in
        [("relayed", 65, 0), ("Delivered", 65, 0), ("expanded", 65, 0), ("Delayed", 0, 1), ("FAILED", 0, 1)]
    {
        let mailets = format!(r#"<mailet match="All" class="DSNBounce"><action>{action}</action></mailet>"#);
        let (relay, ended) = convert(&relaying("127.0.0.2:25", &mailets), code);
        assert_eq!(ended.stdout.matches("mailet: DSNBounce").count(), written, "{action}: {}", ended.stdout);
        assert_eq!(ended.stdout.contains(&format!("action: {}", action.to_lowercase())), written == 1, "{action}");
        relay.command(&["check"]).expect(0);
    }
}

#[test]
fn a_file_in_utf_16_is_said_to_be_one() {
    let container = relaying("127.0.0.2:25", "");
    let with_mark = format!("\u{feff}{container}");
    for text in [&container, &with_mark] {
        let (relay, _) = convert(&container, 0);
        let octets: Vec<_> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
        fs::write(relay.path().join("mailetcontainer.xml"), octets).expect("written");
        let ended = relay.command(&["convert", "mailetcontainer.xml"]).expect(65);
        assert!(ended.stderr.contains("may be UTF-16: convert it to UTF-8 first"), "{}", ended.stderr);
    }
}

#[test]
fn what_james_told_the_sender_he_is_told() {
    for (class, parameters, in_permanent) in [
        ("DSNBounce", "<passThrough>false</passThrough>", 1),
        (
            "DSNBounce",
            "<attachment>message</attachment><sender>postmaster</sender><defaultStatus>unknown</defaultStatus>",
            1,
        ),
        ("Bounce", "<message>Sorry.</message>", 1),
        ("NotifySender", "", 1),
    ] {
        let sink = SmtpSink::start(script!["RCPT TO:<r@" => "550 5.1.1 nobody"]);
        let mailets = format!(r#"<mailet match="All" class="{class}">{parameters}</mailet>"#);
        let xml = relaying(sink.address(), "")
            .replace("<processor state=\"failed\">", &format!("<processor state=\"failed\">{mailets}"));
        let (relay, ended) = convert(&xml, 0);
        assert!(ended.stderr.contains(&format!("mailet {class} becomes DSNBounce")), "{class}: {}", ended.stderr);
        relay.command(&["check"]).expect(0);
        assert_eq!(submitted(&relay).len(), in_permanent, "{class} {parameters}: {}", ended.stdout);
        let told: Vec<_> = sink.transactions().into_iter().map(|one| (one.reverse_path, one.recipients)).collect();
        assert_eq!(told, [(String::new(), vec!["s@x.example".to_owned()])], "{class} {parameters}");
    }
}
