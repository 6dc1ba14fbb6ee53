"""Signs messages with dkim-sign and has three other programs verify them; see run."""

import base64
import json
import socket
import subprocess
import sys
import threading

import dkim
import dns.flags
import dns.message
import dns.rrset

PLACE = sys.argv[1]
SIGN = "target/debug/examples/dkim-sign"
DOMAIN = "football.example.com"
HEAD = (
    b"Received: from a by b; Fri, 11 Jul 2003 21:00:37 -0700\r\n"
    b"From: Joe SixPack <joe@football.example.com>\r\n"
    b"To: Suzie Q <suzie@shopping.example.net>\r\n"
    b"Subject: Is dinner ready?\r\n"
    b"Date: Fri, 11 Jul 2003 21:00:37 -0700 (PDT)\r\n"
    b"Message-ID: <20030712040037.46341.5F8J@football.example.com>\r\n"
)
MESSAGES = {
    "plain": HEAD + b"\r\nHi.\r\n\r\nWe lost the game.  Are you hungry yet?\r\n\r\nJoe.\r\n",
    "empty body": HEAD + b"\r\n",
    "one empty line": HEAD + b"\r\n\r\n",
    "only CRLFs": HEAD + b"\r\n" + b"\r\n" * 20,
    "only blanks": HEAD + b"\r\n \t \r\n  \r\n",
    "trailing blanks": HEAD + b"\r\na \t\r\nb  \t b\t\r\n \r\nc \r\n\r\n\r\n",
    "leading blanks": HEAD + b"\r\n  a\r\n\tb\r\n",
    "dots": HEAD + b"\r\n.\r\n..\r\n.a\r\n...\r\n",
    "8-bit body": HEAD + b"Content-Type: text/plain; charset=iso-8859-1\r\n\r\nGr\xfc\xdfe\r\n",
    "UTF-8 header": HEAD.replace(b"Is dinner", "Grüße, dinner".encode()) + b"\r\nx\r\n",
    "8-bit header": HEAD.replace(b"Is dinner", b"Gr\xfc\xdfe") + b"\r\nx\r\n",
    "folded": HEAD.replace(b"Is dinner", b"Is\r\n\tthe   \r\n  dinner") + b"\r\nx\r\n",
    "folded at once": HEAD.replace(b"Subject: ", b"Subject:\r\n ") + b"\r\nx\r\n",
    "no blank behind the colon": HEAD.replace(b": ", b":") + b"\r\nx\r\n",
    "blanks around the colon": HEAD.replace(b"Subject: ", b"Subject  : \t") + b"\r\nx\r\n",
    "duplicate fields": HEAD + b"To: b@x.example\r\nCc: c@x.example\r\nTO: d@x.example\r\nCc: e@x.example\r\n\r\nx\r\n",
    "two subjects": HEAD + b"Subject: another\r\n\r\nx\r\n",
    "no subject": HEAD.replace(b"Subject: Is dinner ready?\r\n", b"") + b"\r\nx\r\n",
    "empty subject": HEAD.replace(b"Is dinner ready?", b"") + b"\r\nx\r\n",
    "many fields": HEAD + b"".join(b"X-%d: %s\r\n" % (n, b"y" * 200) for n in range(2000)) + b"\r\nx\r\n",
    "MIME and a list": HEAD + b"MIME-Version: 1.0\r\nContent-Type: multipart/mixed;\r\n boundary=b\r\nList-Unsubscribe: <https://x.example/>\r\n"
    b"List-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n\r\n--b\r\n\r\na\r\n--b--\r\n",
    "a line of 5000 octets": HEAD + b"\r\n" + b"a " * 2500 + b"\r\n",
    "50 MiB": HEAD + b"\r\n" + b"0123456789 abcdefghij  xyz\t\r\n" * (50 * 1024 * 1024 // 28),
}
KEYS = {"rsa1": "rsa-pkcs1.pem", "rsa8": "rsa-pkcs8.pem", "ed25519": "ed25519.pem"}


def record(selector):
    """The TXT record with the public half of a key."""
    file = "tests/dkim/keys/" + KEYS[selector]
    der = subprocess.run(["openssl", "pkey", "-in", file, "-pubout", "-outform", "DER"], capture_output=True, check=True).stdout
    if selector == "ed25519":
        return b"v=DKIM1; k=ed25519; p=" + base64.b64encode(der[-32:])
    return b"v=DKIM1; k=rsa; p=" + base64.b64encode(der)


RECORDS = {f"{selector}._domainkey.{DOMAIN}.": record(selector) for selector in KEYS}


def answer_queries(server):
    while True:
        octets, client = server.recvfrom(4096)
        query = dns.message.from_wire(octets)
        reply = dns.message.make_response(query)
        reply.flags |= dns.flags.RA
        text = RECORDS.get(query.question[0].name.to_text().lower())
        if text:
            parts = " ".join('"%s"' % text[at : at + 200].decode() for at in range(0, len(text), 200))
            reply.answer.append(dns.rrset.from_text(query.question[0].name, 60, "IN", "TXT", parts))
        server.sendto(reply.to_wire(), client)


def by_dkimpy(message, _):
    try:
        return dkim.verify(message, dnsfunc=lambda name, timeout=5: RECORDS.get(name.decode()))
    except dkim.MessageFormatError:
        return None  # It knows no blanks in front of a colon (RFC 5322 section 4.5).


def by_opendkim(message, selector):
    if selector == "ed25519":
        return None  # This version knows RSA alone.
    told = subprocess.run(["opendkim-testmsg"], input=message, capture_output=True)
    if b"dkim_chunk(): Syntax error" in told.stderr:
        return None  # It takes no message with two fields of a kind that may be there once.
    return told.returncode == 0 and not told.stdout and not told.stderr


def by_mailauth(message, _):
    records = json.dumps({name.rstrip("."): text.decode() for name, text in RECORDS.items()})
    told = subprocess.run(["node", "tests/dkim/verify.mjs", PLACE, records], input=message, capture_output=True)
    return told.stdout.strip() == b"pass"


VERIFIERS = {"dkimpy": by_dkimpy, "opendkim-testmsg": by_opendkim, "mailauth": by_mailauth}


def main():
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind(("127.0.0.1", 53))
    threading.Thread(target=answer_queries, args=(server,), daemon=True).start()
    wrong = checked = 0
    for selector, key in KEYS.items():
        for name, message in MESSAGES.items():
            sign = [SIGN, "tests/dkim/keys/" + key, DOMAIN, selector]
            signed = subprocess.run(sign, input=message, capture_output=True, check=True).stdout
            assert signed.endswith(message)
            forged = signed.replace(b"Joe SixPack", b"Jim SixPack")
            for verifier, verify in VERIFIERS.items():
                right, refused = verify(signed, selector), verify(forged, selector)
                if right is None:
                    continue
                checked += 1
                if not right or refused:
                    wrong += 1
                    print(f"{verifier}: {selector}: {name}: signed {right}, forged {refused}")
    print(f"{checked} verified, {wrong} wrong")
    sys.exit(1 if wrong else 0)


main()
