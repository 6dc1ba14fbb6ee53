"""Starts a service with mail in its repositories, and runs schemathesis against it; see `run`."""

import json
import os
import pathlib
import re
import socketserver
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

from openapi_spec_validator import validate

HERE = pathlib.Path(__file__).resolve().parent

PASSWORD = "of this test alone"

CONFIGURATION = """
hostname: relay.test
stateDirectory: ./var
smtp: { listen: ["127.0.0.1:0"] }
admin: { listen: "127.0.0.1:0"%s }
processors:
  relay:
    - match: AtMost=100
      mailet: RemoteDelivery
      gateway: "127.0.0.1:%d"
      bounceProcessor: remote-delivery-error
    - mailet: ToRepository
      repositoryPath: sqlite://var/mail/error/remote-delivery/permanent/
  remote-delivery-error:
    - match: IsRemoteDeliveryTemporaryError
      mailet: ToRepository
      repositoryPath: sqlite://var/mail/error/remote-delivery/temporary/
    - mailet: ToRepository
      repositoryPath: sqlite://var/mail/error/remote-delivery/permanent/
"""

JOB = "kind: reprocess\nrepository: temporary\nprocessor: relay\nspacing: [1h]\n"
SCHEDULE = "job: retry-temporary\ncron: '*/5 * * * *'\n"


class Peer(socketserver.StreamRequestHandler):
    """Defers mail for `later@`, refuses that for `never@`, takes all other."""

    def handle(self):
        self.say("220 peer.test")
        while line := self.rfile.readline():
            word = line[:4].upper()
            if word == b"DATA":
                self.say("354 go on")
                while self.rfile.readline() not in (b".\r\n", b""):
                    pass
                self.say("250 2.0.0 taken")
            elif word == b"QUIT":
                return self.say("221 bye")
            elif b"<later" in line:
                self.say("451 4.2.0 mailbox busy")
            elif b"<never" in line:
                self.say("550 5.1.1 no such user")
            else:
                self.say("250 ok")

    def say(self, text):
        self.wfile.write(text.encode() + b"\r\n")


class Peers(socketserver.ThreadingTCPServer):
    allow_reuse_address = daemon_threads = True


class Service:
    """A service in a directory of its own; what it removes is brought anew all the time."""

    def __init__(self, directory, peer, password):
        self.directory, self.password = pathlib.Path(directory), password
        secret = f', password: ["{password}"]' if password else ""
        self.write("redeliver.yaml", CONFIGURATION % (secret, peer))
        self.write("jobs/retry-temporary.yaml", JOB)
        self.write("schedules/retry-temporary.yaml", SCHEDULE)
        self.program = str(pathlib.Path("target/debug/redeliver").resolve())
        self.log = self.directory / "log"
        with self.log.open("w") as log:
            self.child = subprocess.Popen([self.program, "serve"], cwd=directory, stderr=log)
        self.url = "http://" + self.waited_for(r"HTTP[^\n]*?(127\.0\.0\.1:\d+)")
        self.submit()
        self.over = threading.Event()
        self.bringing = threading.Thread(target=self.go_on, daemon=True)
        self.bringing.start()

    def write(self, name, text):
        path = self.directory / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)

    def waited_for(self, pattern):
        for _ in range(200):
            if found := re.search(pattern, self.log.read_text()):
                return found[1]
            time.sleep(0.1)
        sys.exit(f"waited in vain for {pattern}:\n{self.log.read_text()}")

    def submit(self):
        for number in range(3):
            for name in ("later", "never"):
                recipient = f"{name}{number}@x.example"
                command = [self.program, "sendmail", "-f", "a@sender.example", recipient]
                subprocess.run(command, cwd=self.directory, input=b"Subject: s\n\ntext\n", check=True)

    def go_on(self):
        while not self.over.wait(2):
            self.submit()

    def get(self, path):
        request = urllib.request.Request(self.url + path)
        if self.password:
            request.add_header("Password", self.password)
        with urllib.request.urlopen(request) as answer:
            return json.load(answer)

    def wait_until_filled(self):
        while any(len(self.get(f"/mailRepositories/{name}/mails")) < 3 for name in ("temporary", "permanent")):
            time.sleep(0.2)

    def end(self):
        self.over.set()
        self.bringing.join()
        self.child.terminate()
        return self.child.wait(60)


def run(place, service, arguments):
    command = [
        f"{place}/venv/bin/schemathesis", "--config-file", str(HERE / "schemathesis.toml"), "run", service.url + "/openapi.json",
        # A task that is cancelled stays on record, and so does a queue that is emptied.
        "--checks", "all", "--exclude-checks", "use_after_free", "--continue-on-failure", "--warnings", "off", *arguments,
    ]
    if service.password:
        command += ["-H", f"Password: {service.password}"]
    environment = {
        **os.environ,
        "SCHEMATHESIS_HOOKS": str(HERE / "hooks.py"),
        "REDELIVER_URL": service.url,
        "REDELIVER_PASSWORD": service.password or "",
    }
    return subprocess.run(command, cwd=place, env=environment).returncode


def main(place, *arguments):
    peers = Peers(("127.0.0.1", 0), Peer)
    threading.Thread(target=peers.serve_forever, daemon=True).start()
    codes = []
    for password in (None, PASSWORD):
        with tempfile.TemporaryDirectory() as directory:
            service = Service(directory, peers.server_address[1], password)
            try:
                service.wait_until_filled()
                validate(service.get("/openapi.json"))
                print(f"the document is valid; with{'' if password else 'out'} a password:", flush=True)
                codes.append(run(place, service, arguments))
                errors = [line for line in service.log.read_text().splitlines() if " ERROR " in line or "panic" in line]
                print("\n".join(errors[:20]))
            finally:
                codes.append(service.end())
    sys.exit(max(codes))


main(*sys.argv[1:])
