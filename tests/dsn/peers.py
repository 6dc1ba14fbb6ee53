"""Real next hops: see `run` beside this file."""

import os
import pwd
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from email import message_from_bytes
from pathlib import Path

PLACE, REDELIVER = Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve()
ENVID, ORCPT = "QQ+2B314159", "rfc822;Original+2BName@shop.example"
# Postfix decodes xtext, as RFC 3464 wants it; Exim writes what it was given.
TOLD = {
    "postfix": {"original-envelope-id": "QQ+314159", "original-recipient": "rfc822;Original+Name@shop.example"},
    "exim": {"original-envelope-id": ENVID, "original-recipient": ORCPT},
}
PATIENCE = 60


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def wait_for(what, condition):
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        found = condition()
        if found:
            return found
        time.sleep(0.1)
    raise SystemExit(f"waited in vain for {what}")


def is_open(port):
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


class Sink(threading.Thread):
    """Takes every mail; where notifications come."""

    def __init__(self):
        super().__init__(daemon=True)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port, self.mails = self.listener.getsockname()[1], []
        self.start()

    def run(self):
        while True:
            connection, _ = self.listener.accept()
            threading.Thread(target=self.serve, args=(connection,), daemon=True).start()

    def serve(self, connection):
        stream = connection.makefile("rwb")

        def say(line):
            stream.write(line.encode() + b"\r\n")
            stream.flush()

        say("220 sink.example ESMTP")
        content = None
        for line in stream:
            verb = line[:4].upper()
            if content is not None:
                if line == b".\r\n":
                    self.mails.append(b"".join(content))
                    content = None
                    say("250 taken")
                else:
                    content.append(line.removeprefix(b"."))
            elif verb == b"DATA":
                content = []
                say("354 go on")
            elif verb == b"QUIT":
                say("221 bye")
                return
            else:
                say("250 ok")


def postfix(folder, port, sink):
    """The system's Postfix with files of its own: x.example is its own, all else goes to the sink."""
    config, queue, data, mail = (folder / name for name in ("etc", "queue", "data", "mail"))
    for made in (config, queue, data, mail):
        made.mkdir()
    user = pwd.getpwnam("postfix")
    os.chown(data, user.pw_uid, user.pw_gid)
    os.chown(mail, user.pw_uid, user.pw_gid)
    # Its own processes become another user.
    for above in (folder, queue, mail):
        above.chmod(0o755)
    os.chown(mail, user.pw_uid, user.pw_gid)
    (config / "main.cf").write_text(
        f"""compatibility_level = 3.6
queue_directory = {queue}
data_directory = {data}
command_directory = /usr/sbin
daemon_directory = /usr/lib/postfix/sbin
mail_owner = postfix
setgid_group = postdrop
myhostname = postfix.example
mydestination =
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
mynetworks = 127.0.0.0/8
relayhost = [127.0.0.1]:{sink}
smtp_dns_support_level = disabled
smtp_host_lookup = native
virtual_mailbox_domains = x.example
virtual_mailbox_base = {mail}
virtual_mailbox_maps = static:b
virtual_uid_maps = static:{user.pw_uid}
virtual_gid_maps = static:{user.pw_gid}
virtual_minimum_uid = 1
maillog_file = /dev/stdout
maillog_file_prefixes = /dev
smtpd_tls_security_level = none
smtpd_relay_restrictions = permit_mynetworks, reject
"""
    )
    services = [
        f"127.0.0.1:{port} inet n - n - - smtpd",
        "pickup unix n - n 60 1 pickup",
        "cleanup unix n - n - 0 cleanup",
        "qmgr unix n - n 300 1 qmgr",
        "rewrite unix - - n - - trivial-rewrite",
        "bounce unix - - n - 0 bounce",
        "defer unix - - n - 0 bounce",
        "trace unix - - n - 0 bounce",
        "verify unix - - n - 1 verify",
        "flush unix n - n 1000? 0 flush",
        "proxymap unix - - n - - proxymap",
        "smtp unix - - n - - smtp",
        "relay unix - - n - - smtp",
        "error unix - - n - - error",
        "retry unix - - n - - error",
        "virtual unix - n n - - virtual",
        "anvil unix - - n - 1 anvil",
        "scache unix - - n - 1 scache",
        "postlog unix-dgram n - n - 1 postlogd",
    ]
    (config / "master.cf").write_text("\n".join(services) + "\n")
    subprocess.run(["postfix", "-c", config, "check"], check=True)
    # By itself, so that it ends when it is told to.
    return subprocess.Popen(["/usr/lib/postfix/sbin/master", "-c", config, "-d", "-s"], stdout=(folder / "log").open("wb"))


def exim(folder, port, sink):
    """Exim as it was unpacked: x.example is its own, all else goes to the sink."""
    folder.chmod(0o755)
    for name in ("spool", "mail"):
        (folder / name).mkdir()
        (folder / name).chmod(0o777)
    config, binary = folder / "exim.conf", PLACE / "root/usr/sbin/exim4"
    config.write_text(
        f"""exim_path = {binary}
exim_user = mail
exim_group = mail
never_users =
primary_hostname = exim.example
spool_directory = {folder}/spool
log_file_path = {folder}/spool/log/%s
pid_file_path =
local_interfaces = 127.0.0.1
daemon_smtp_ports = {port}
tls_advertise_hosts =
dsn_advertise_hosts = *
acl_smtp_rcpt = accept
begin routers
own:
  driver = accept
  domains = x.example
  transport = file
others:
  driver = manualroute
  route_list = * 127.0.0.1
  self = send
  transport = sink
begin transports
file:
  driver = appendfile
  file = {folder}/mail/box
  user = mail
  group = mail
sink:
  driver = smtp
  port = {sink}
  hosts_try_dane =
  allow_localhost
begin retry
* * F,1h,1m
"""
    )
    return subprocess.Popen([binary, "-C", config, "-bdf", "-q1s"], stderr=(folder / "log").open("wb"))


def relay(folder, next_hop):
    """Ours: it tells what is asked for, so that DSN is offered."""
    state = folder / "relay"
    (state / "jobs").mkdir(parents=True)
    (state / "schedules").mkdir()
    port, admin = free_port(), free_port()
    configuration = state / "redeliver.yaml"
    configuration.write_text(
        f"""hostname: relay.example
smtp: {{ listen: ["127.0.0.1:{port}"] }}
admin: {{ listen: "127.0.0.1:{admin}" }}
processors:
  relay:
    - match: All
      mailet: RemoteDelivery
      gateway: "127.0.0.1:{next_hop}"
      startTLS: false
      bounceProcessor: failed
      onSuccess: delivered
  delivered:
    - mailet: DSNBounce
      action: relayed
    - mailet: 'Null'
  failed:
    - match: IsRemoteDeliveryTemporaryError
      mailet: ToRepository
      repositoryPath: sqlite://temporary/
    - mailet: DSNBounce
    - mailet: ToRepository
      repositoryPath: sqlite://permanent/
"""
    )
    process = subprocess.Popen([REDELIVER, "--config", configuration, "serve"], stdout=subprocess.DEVNULL)
    wait_for("our listener", lambda: is_open(port))
    return process, port


def submit(port):
    lines = [
        "EHLO client.example",
        f"MAIL FROM:<sender@y.example> RET=HDRS ENVID={ENVID}",
        f"RCPT TO:<b@x.example> NOTIFY=SUCCESS,FAILURE ORCPT={ORCPT}",
        "DATA",
        "Subject: all of it\r\nMessage-ID: <real@y.example>\r\n\r\nhello\r\n.",
        "QUIT",
    ]
    with socket.create_connection(("127.0.0.1", port)) as client:
        stream = client.makefile("rwb")

        def reply():
            while (line := stream.readline())[3:4] == b"-":
                if line.strip().upper() == b"250-DSN":
                    offered.append(True)
            return line.decode().strip()

        offered, replies = [], [reply()]
        for line in lines:
            stream.write(line.encode() + b"\r\n")
            stream.flush()
            replies.append(reply())
    # EHLO's last line may be the one that offers it.
    assert offered or any(line.upper() == "250 DSN" for line in replies), f"DSN is not offered: {replies}"
    assert all(line[0] in "23" for line in replies), replies


def fields_of(notification):
    message = message_from_bytes(notification)
    assert message.get_content_type() == "multipart/report", message.get_content_type()
    status = next(part for part in message.walk() if part.get_content_type() == "message/delivery-status")
    groups = status.get_payload()
    return {name.lower(): value for group in groups for name, value in group.items()}


def try_peer(name, start):
    folder = Path(tempfile.mkdtemp(prefix=f"{name}-", dir="/tmp"))
    sink, port = Sink(), free_port()
    processes = [start(folder, port, sink.port)]
    try:
        wait_for(f"{name} to listen", lambda: is_open(port))
        ours, smtp = relay(folder, port)
        processes.append(ours)
        submit(smtp)
        wait_for(f"the notification of {name}", lambda: sink.mails)
        time.sleep(1)
        assert len(sink.mails) == 1, f"{len(sink.mails)} notifications: it was told, and told again"
        fields = fields_of(sink.mails[0])
        told = {key: fields.get(key, "").replace("; ", ";") for key in TOLD[name]}
        print(f"{name}: {fields.get('reporting-mta')} says {fields.get('action')}: {told}")
        assert told == TOLD[name], f"{name}: {fields}"
        assert fields["action"] == "delivered", fields
        assert name in fields["reporting-mta"], fields
    except BaseException:
        for log in [folder / "log", *folder.glob("spool/log/*")]:
            print(f"--- {log}", log.read_text(errors="replace")[-4000:], sep="\n")
        raise
    finally:
        for process in reversed(processes):
            process.terminate()
            process.wait()
        shutil.rmtree(folder)


for peer in (postfix, exim):
    try_peer(peer.__name__, peer)
print("2 passed, 0 failed")
