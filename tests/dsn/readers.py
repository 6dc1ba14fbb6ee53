"""Reads each notification with five programs, and compares what they find."""

import email
import email.policy
import json
import pathlib
import subprocess
import sys

from flufl.bounce import all_failures

GOLDEN = pathlib.Path(__file__).parent / "golden"
PLACE = pathlib.Path(sys.argv[1])

PERL = r"""
use strict; use warnings; use JSON::PP; use Sisimai; use Mail::DeliveryStatus::BounceParser;
my $file = $ARGV[0];
local $/; open my $in, '<:raw', $file or die; my $text = <$in>;
my $found = Sisimai->make($file, delivered => 1) // [];
$text =~ s/\r\n/\n/g;
my @sisimai = map { [ $_->recipient->address, $_->action, $_->deliverystatus, $_->reason ] } @$found;
my $parsed = eval { Mail::DeliveryStatus::BounceParser->new($text) };
my @reports = $parsed ? map { [ $_->get('email') // '', $_->get('std_reason') // '' ] } $parsed->reports : ();
print encode_json({ sisimai => \@sisimai, bounceparser => \@reports, is_bounce => $parsed ? $parsed->is_bounce : 0 });
"""

NODE = """
const { simpleParser } = require('mailparser');
const fs = require('fs');
simpleParser(fs.readFileSync(process.argv[1])).then(mail => {
    const report = mail.attachments.find(a => /delivery-status$/.test(a.contentType));
    // It puts a report that it can take apart into the text.
    const text = mail.text || '';
    console.log(JSON.stringify({ text, report: report ? report.content.toString() : text }));
});
"""


def run(*command):
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=PLACE)
    if done.returncode != 0:
        raise SystemExit(f"{command[0]}: {done.stderr}")
    return json.loads(done.stdout)


def groups_of(message):
    """The groups of fields of the second part, as Python's email reads it."""
    part = message.get_payload()[1]
    kind = part.get_content_type()
    if kind == "message/delivery-status":
        return part.get_payload()[1:]
    # RFC 6533's type is none that Python takes apart.
    assert kind == "message/global-delivery-status", kind
    payload = part.get_payload()
    text = part.get_payload(0).as_string() if isinstance(payload, list) else payload
    return [email.message_from_string(group) for group in text.split("\n\n")[1:] if "Final-Recipient" in group]


def recipient(group):
    return group["Final-Recipient"].split(";")[1].strip()


def check(path):
    octets = path.read_bytes()
    message = email.message_from_bytes(octets)
    assert message.get_content_type() == "multipart/report", message.get_content_type()
    groups = groups_of(message)
    wanted = [(recipient(group), group["Action"], group["Status"]) for group in groups]
    assert wanted and all(all(found) for found in wanted), wanted
    # Some go by the recipient that the sender wrote.
    named = [(group["Original-Recipient"] or group["Final-Recipient"]).split(";")[1].strip().lower() for group in groups]
    failed = {name for name, (_, action, _) in zip(named, wanted) if action == "failed"}
    wrong = []
    if message.get_param("report-type") == "global-delivery-status":
        return wanted, ["no reader but Python's email knows RFC 6533"], wrong

    flufl = {name.decode().lower() for name in all_failures(email.message_from_bytes(octets))[1]}
    if flufl != failed:
        wrong.append(f"flufl.bounce has {sorted(flufl)}, not {sorted(failed)}")

    perl = run("perl", "-e", PERL, str(path))
    # It believes the status in the reply more than the report's own.
    sisimai = [(name, action) for name, action, _, _ in perl["sisimai"]]
    if sorted(sisimai) != sorted((name, action) for name, action, _ in wanted):
        wrong.append(f"Sisimai has {sisimai}, not {wanted}")
    if not all(status for _, _, status, _ in perl["sisimai"]):
        wrong.append("Sisimai has a recipient without a status")
    reports = {name.lower() for name, _ in perl["bounceparser"]}
    if failed and reports != failed:
        wrong.append(f"BounceParser has {sorted(reports)}, not {sorted(failed)}")

    node = run("node", "-e", NODE, str(path))
    for name, action, status in wanted:
        for field in (f"; {name}", f"Action: {action}", f"Status: {status}"):
            if field not in node["report"]:
                wrong.append(f"mailparser's report lacks {field!r}")
    if not all(name in node["text"] for name, _, _ in wanted):
        wrong.append("mailparser's text names not all recipients")
    return wanted, [reason for *_, reason in perl["sisimai"]], wrong


def main():
    wrong = 0
    for path in sorted(GOLDEN.glob("*.eml")):
        wanted, reasons, found = check(path)
        print(f"{path.stem}: {wanted} {reasons}")
        for line in found:
            print(f"    {line}")
        wrong += len(found)
    raise SystemExit(1 if wrong else 0)


main()
