"""redeliver and Postfix on the same work, in turns, on this machine.

Each scenario is done by each of them `--rounds` times, one after the other, and the table has
the medians; the ratio of the two is what can be compared between machines. Everything runs below
127.0.0.0/8 on free ports, in a directory of its own that goes with the run.
"""

import argparse
import asyncio
import contextlib
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time

TICK = os.sysconf("SC_CLK_TCK")


def free_port(host="127.0.0.1"):
    with socket.socket() as found:
        found.bind((host, 0))
        return found.getsockname()[1]


def wait_for(what, condition, seconds=300):
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            raise TimeoutError(what)
        time.sleep(0.005)


def answers(port):
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
        return True
    except OSError:
        return False


# --- what a process takes -----------------------------------------------------------------------


def stat(pid):
    text = pathlib.Path(f"/proc/{pid}/stat").read_text()
    return text.rsplit(")", 1)[1].split()


def family(pid):
    """The process and all below it."""
    found, children = [pid], {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError):
                children.setdefault(int(stat(entry)[1]), []).append(int(entry))
    for one in found:
        found.extend(children.get(one, []))
    return found


def cpu(pid):
    """Seconds of all processes of a family, those that have ended included."""
    ticks = 0
    for one in family(pid):
        with contextlib.suppress(OSError):
            ticks += sum(int(value) for value in stat(one)[11:15])
    return ticks / TICK


def written(pid):
    """Octets that a family sent to the disk, those that have ended included."""
    octets = 0
    for one in family(pid):
        with contextlib.suppress(OSError):
            octets += int(re.search(r"^write_bytes: (\d+)", pathlib.Path(f"/proc/{one}/io").read_text(), re.M)[1])
    return octets


def memory(pid):
    """Resident octets of a family, shared pages by their share."""
    octets = 0
    for one in family(pid):
        with contextlib.suppress(OSError, TypeError):
            text = pathlib.Path(f"/proc/{one}/smaps_rollup").read_text()
            octets += int(re.search(r"^Pss: +(\d+)", text, re.M)[1]) * 1024
    return octets


class Peak(threading.Thread):
    """The most memory that a family has, looked at ten times a second."""

    def __init__(self, pid):
        super().__init__(daemon=True)
        self.pid, self.octets, self.going = pid, 0, True
        self.start()

    def run(self):
        while self.going:
            self.octets = max(self.octets, memory(self.pid))
            time.sleep(0.1)

    def end(self):
        self.going = False
        self.join()
        return self.octets


# --- peers --------------------------------------------------------------------------------------


class Sink:
    """smtp-sink, and how many messages it took."""

    def __init__(self, *options):
        self.port, self.seen, self.last = free_port(), 0, b""
        self.child = subprocess.Popen(
            ["smtp-sink", "-u", "nobody", "-c", "-m", "1000", *options, f"127.0.0.1:{self.port}", "1000"],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        wait_for("smtp-sink", lambda: answers(self.port), 10)
        threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        while piece := os.read(self.child.stdout.fileno(), 65536):
            self.last = (self.last + piece)[-200:]
            counts = re.findall(rb"mesg=(\d+)", self.last)
            if counts:
                self.seen = int(counts[-1])

    def end(self):
        self.child.terminate()
        self.child.wait()


class Slow:
    """A peer whose every answer takes `delay` seconds; `told` is called with each last reply. One
    recipient of `defers_each` is deferred."""

    def __init__(self, delay=0.0, told=None, defers_each=None):
        self.delay, self.told, self.seen = delay, told or (lambda: None), 0
        self.defers_each, self.asked, self.deferred = defers_each, 0, 0
        self.port = free_port()
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self.run, daemon=True).start()
        wait_for("the slow peer", lambda: answers(self.port))

    def run(self):
        asyncio.set_event_loop(self.loop)
        self.loop.run_until_complete(asyncio.start_server(self.serve, "127.0.0.1", self.port, backlog=500, limit=2**20))
        self.loop.run_forever()

    async def serve(self, reader, writer):
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await self.say(writer, b"220 peer ESMTP\r\n")
            while line := await reader.readline():
                verb = line[:4].upper()
                if verb == b"EHLO":
                    await self.say(writer, b"250-peer\r\n250-PIPELINING\r\n250 8BITMIME\r\n")
                elif verb == b"RCPT":
                    self.asked += 1
                    takes = not self.defers_each or self.asked % self.defers_each
                    self.deferred += not takes
                    writer.write(b"250 2.1.5 ok\r\n" if takes else b"451 4.2.0 later\r\n")
                elif verb == b"DATA" and not takes:
                    await self.say(writer, b"503 5.5.1 nobody\r\n")
                elif verb == b"DATA":
                    await self.say(writer, b"354 go\r\n")
                    await reader.readuntil(b"\r\n.\r\n")
                    await self.say(writer, b"250 2.0.0 ok\r\n")
                    self.seen += 1
                    self.told()
                elif verb == b"QUIT":
                    writer.write(b"221 bye\r\n")
                    break
                else:
                    # Answers to what came together go out together: one round trip.
                    writer.write(b"250 2.0.0 ok\r\n")
        writer.close()

    async def say(self, writer, reply):
        if self.delay:
            await asyncio.sleep(self.delay)
        writer.write(reply)
        await writer.drain()

    def end(self):
        self.loop.call_soon_threadsafe(self.loop.stop)


# --- the two relays -----------------------------------------------------------------------------


class Redeliver:
    name = "redeliver"

    def __init__(self, place, program, gateway, connections=10, only_accepts=False):
        self.place, self.program, self.connections = place, program, connections
        # A rule before all others keeps what is only to be accepted.
        keeps = "    - mailet: ToRepository\n      repositoryPath: sqlite://var/mail/kept/\n"
        self.first = "  relay:\n" + (keeps if only_accepts else "")
        self.port, self.child = free_port(), None
        place.mkdir()
        self.configure(gateway)
        (place / "jobs").mkdir()
        sweep = "kind: reprocess\nrepository: temporary\nprocessor: relay\nlimit: 1000000\n"
        (place / "jobs" / "sweep.yaml").write_text(sweep)

    def configure(self, gateway):
        (self.place / "redeliver.yaml").write_text(f"""hostname: relay.test
stateDirectory: ./var
log: {{ directory: log }}
stores: {{ sqlite: {{ path: redeliver.db }} }}
smtp: {{ listen: ["127.0.0.1:{self.port}"] }}
admin: {{ listen: "127.0.0.1:{free_port()}" }}
processors:
{self.first}    - match: AtMost=100
      mailet: RemoteDelivery
      gateway: "{gateway}"
      deliveryThreads: {self.connections}
      bounceProcessor: remote-delivery-error
    - mailet: ToRepository
      repositoryPath: sqlite://var/mail/error/remote-delivery/permanent/
  remote-delivery-error:
    - match: IsRemoteDeliveryTemporaryError
      mailet: ToRepository
      repositoryPath: sqlite://var/mail/error/remote-delivery/temporary/
    - mailet: ToRepository
      repositoryPath: sqlite://var/mail/error/remote-delivery/permanent/
""")

    def start(self):
        log = open(self.place / "err", "ab")
        self.child = subprocess.Popen([self.program, "serve"], cwd=self.place, stderr=log)
        self.pid = self.child.pid
        wait_for("redeliver", lambda: self.child.poll() is not None or answers(self.port), 20)
        if self.child.poll() is not None:
            sys.exit((self.place / "err").read_text())

    def stop(self):
        if self.child.poll() is None:
            self.child.send_signal(signal.SIGTERM)
            self.child.wait()

    def kept(self):
        """Mails that are kept for later."""
        listed = subprocess.run([self.program, "repository", "list", "--format", "json"], cwd=self.place,
                                capture_output=True, text=True, check=True).stdout
        lines = [json.loads(line) for line in listed.splitlines()]
        return sum(one["size"] for one in lines if one["repository"].endswith("temporary"))

    def sweep(self, mails, _is_over):
        """Tries what is kept again, by a command; starting it is part of what it takes."""
        self.stop()
        begun = time.monotonic()
        command = subprocess.Popen([self.program, "run", "sweep"], cwd=self.place,
                                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        _, _, used = os.wait4(command.pid, 0)
        took = time.monotonic() - begun
        return {"per_second": mails / took, "cpu_ms": (used.ru_utime + used.ru_stime) * 1000 / mails,
                "memory_mb": used.ru_maxrss * 1024 / 1e6, "kb": used.ru_oublock / 2 / mails}

    def settle(self):
        """Has what was written beside the database moved into it; how many octets that writes."""
        before = written(os.getpid())
        with contextlib.closing(sqlite3.connect(self.place / "var/redeliver.db", timeout=60)) as database:
            database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return written(os.getpid()) - before


class Postfix:
    name = "Postfix"

    def __init__(self, place, _program, gateway, connections=None, only_accepts=False):
        self.place, self.port = place, free_port()
        place.mkdir()
        for directory, owner in [("queue", "root"), ("data", "postfix"), ("conf", "root")]:
            (place / directory).mkdir()
            shutil.chown(place / directory, owner)
        self.options = f"default_destination_concurrency_limit = {connections}\n" if connections else ""
        if only_accepts:
            self.options += "smtpd_recipient_restrictions = check_client_access static:HOLD, permit_mynetworks, reject\n"
        self.configure(gateway)
        master = pathlib.Path("/usr/share/postfix/master.cf.dist").read_text()
        lines = [re.sub(r"^(\S+\s+\S+\s+\S\s+\S\s+)y", r"\1n", line) for line in master.splitlines()]
        lines = [re.sub(r"^smtp(\s+inet)", rf"127.0.0.1:{self.port}\1", line) for line in lines]
        lines.append("postlog unix-dgram n - n - 1 postlogd")
        (place / "conf" / "master.cf").write_text("\n".join(line for line in lines if line) + "\n")

    def configure(self, gateway):
        host, port = gateway.rsplit(":", 1)
        (self.place / "conf" / "main.cf").write_text(f"""compatibility_level = 3.6
queue_directory = {self.place}/queue
data_directory = {self.place}/data
maillog_file = {self.place}/maillog
maillog_file_prefixes = {self.place}
myhostname = relay.test
mydestination =
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
mynetworks = 127.0.0.0/8
alias_maps =
alias_database =
relayhost = [{host}]:{port}
smtpd_client_connection_count_limit = 0
message_size_limit = 0
{self.options}""")

    def start(self):
        subprocess.run(["postfix", "-c", self.place / "conf", "start"], check=True, capture_output=True)
        wait_for("Postfix", lambda: answers(self.port))
        self.pid = int((self.place / "queue/pid/master.pid").read_text())

    def stop(self):
        subprocess.run(["postfix", "-c", self.place / "conf", "stop"], check=True, capture_output=True)

    def log_has(self, text):
        return (self.place / "maillog").read_bytes().count(text)

    def kept(self):
        return sum(len(files) for _, _, files in os.walk(self.place / "queue/deferred"))

    def sweep(self, mails, is_over):
        measured = Measured(self)
        subprocess.run(["postqueue", "-c", self.place / "conf", "-f"], check=True)
        wait_for("the sweep", is_over)
        return measured.end(mails)

    def settle(self):
        return 0


# --- scenarios ----------------------------------------------------------------------------------


def source(relay_port, mails, sessions=10, reuse=True, octets=4096):
    return subprocess.Popen(["smtp-source", *(["-d"] if reuse else []), "-s", str(sessions), "-m", str(mails),
                             "-l", str(octets), "-f", "a@sender.example", "-t", "b@there.example",
                             f"127.0.0.1:{relay_port}"])


class Measured:
    """From its making until `end`: what `relay` took for `mails`."""

    def __init__(self, relay):
        self.relay, self.peak = relay, Peak(relay.pid)
        self.cpu, self.octets, self.begun = cpu(relay.pid), written(relay.pid), time.monotonic()

    def end(self, mails):
        took = time.monotonic() - self.begun
        # What goes on behind the last mail is its price too.
        time.sleep(1)
        used = cpu(self.relay.pid) - self.cpu
        octets = written(self.relay.pid) - self.octets + self.relay.settle()
        return {"per_second": mails / took, "cpu_ms": used * 1000 / mails, "memory_mb": self.peak.end() / 1e6,
                "kb": octets / 1024 / mails}


@contextlib.contextmanager
def started(kind, bench, peer, **options):
    place = pathlib.Path(tempfile.mkdtemp(prefix=f"{kind.name}-", dir=bench.place))
    place.chmod(0o755)
    relay = kind(place / "relay", bench.program, f"127.0.0.1:{peer.port}", **options)
    relay.start()
    try:
        yield relay
    finally:
        relay.stop()
        peer.end()
        shutil.rmtree(place)


def s1(kind, bench, reuse=True):
    """Relayed: in by ten sessions, until the peer has all."""
    sink = Sink()
    with started(kind, bench, sink) as relay:
        measured = Measured(relay)
        sender = source(relay.port, bench.mails, reuse=reuse)
        wait_for("all at the peer", lambda: sink.seen >= bench.mails)
        sender.wait()
        return measured.end(bench.mails)


def s1_connections(kind, bench):
    """The same, one mail a connection in."""
    return s1(kind, bench, reuse=False)


def deferred(relay, bench):
    """Fills what is kept with mails that a busy peer deferred."""
    source(relay.port, bench.mails).wait()
    wait_for("all deferred", lambda: time.sleep(0.3) or relay.kept() >= bench.mails)


def s2a(kind, bench):
    """A sweep: all deferred again."""
    busy = Sink("-r", "RCPT")
    with started(kind, bench, busy) as relay:
        deferred(relay, bench)
        return relay.sweep(bench.mails, lambda: relay.log_has(b"status=deferred") >= 2 * bench.mails)


def s2b(kind, bench):
    """A sweep: all delivered."""
    busy, friendly = Sink("-r", "RCPT"), Sink()
    with started(kind, bench, busy) as relay:
        deferred(relay, bench)
        relay.stop()
        relay.configure(f"127.0.0.1:{friendly.port}")
        relay.start()
        try:
            return relay.sweep(bench.mails, lambda: friendly.seen >= bench.mails)
        finally:
            friendly.end()


def straight(_kind, bench):
    """The bound of S2b: smtp-source straight into the same sink, nothing between them."""
    sink = Sink()
    begun = time.monotonic()
    sender = source(sink.port, bench.mails)
    _, _, used = os.wait4(sender.pid, 0)
    took = time.monotonic() - begun
    sink.end()
    return {"per_second": bench.mails / took, "cpu_ms": (used.ru_utime + used.ru_stime) * 1000 / bench.mails}


class Straight:
    name = "smtp-source"


def s4(sessions):
    def accepted(kind, bench):
        # Nobody listens at the next hop, so that what is accepted is all there is to do.
        with started(kind, bench, Closed(), only_accepts=True) as relay:
            measured = Measured(relay)
            source(relay.port, bench.mails, sessions=sessions).wait()
            return measured.end(bench.mails)
    accepted.__doc__ = f"Accepted only, durably, {sessions} session{'s' if sessions > 1 else ''}."
    return accepted


class Closed:
    """A port that nobody listens on."""

    def __init__(self):
        self.port = free_port()

    def end(self):
        pass


def s5(kind, bench):
    """A peer 50 ms away, 50 connections."""
    mails = min(bench.mails, 2000)
    far = Slow(0.05)
    with started(kind, bench, far, connections=50) as relay:
        measured = Measured(relay)
        sender = source(relay.port, mails)
        wait_for("all at the peer", lambda: far.seen >= mails)
        sender.wait()
        return measured.end(mails)


def s6_large(kind, bench):
    """20 x 50 MiB in and out (memory)."""
    sink = Sink()
    with started(kind, bench, sink) as relay:
        measured = Measured(relay)
        sender = source(relay.port, 20, octets=50 * 1000 * 1000)
        wait_for("all at the peer", lambda: sink.seen >= 20)
        sender.wait()
        return measured.end(20)


def s6_silent(kind, bench):
    """As many waiting for a peer that says nothing (memory)."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(1000)
        peer = Closed()
        peer.port = silent.getsockname()[1]
        with started(kind, bench, peer) as relay:
            measured = Measured(relay)
            source(relay.port, bench.mails).wait()
            time.sleep(5)
            return measured.end(bench.mails)


def s7(kind, bench):
    """One mail at a time: from the final dot in to the next hop's reply to it."""
    got = threading.Event()
    at = [0.0]

    def told():
        at[0] = time.monotonic()
        got.set()

    with started(kind, bench, Slow(told=told)) as relay:
        measured = Measured(relay)
        times = sorted(one_by_one(relay.port, min(bench.mails, 500), got, at))
        taken = measured.end(len(times))
        return {**taken, "p50_ms": times[len(times) // 2] * 1000, "p99_ms": times[len(times) * 99 // 100] * 1000}


def one_by_one(port, mails, got, at):
    message = b"Subject: x\r\n\r\n" + b"some text of a usual length, and so on\r\n" * 100
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        replies = connection.makefile("rb")

        def say(line, goes_on=b"-"):
            if line:
                connection.sendall(line + b"\r\n")
            while replies.readline()[3:4] == goes_on:
                pass
        say(None)
        say(b"EHLO client.example")
        for _ in range(mails):
            say(b"MAIL FROM:<a@sender.example>")
            say(b"RCPT TO:<b@there.example>")
            say(b"DATA")
            got.clear()
            connection.sendall(message)
            begun = time.monotonic()
            say(b".")
            got.wait(60)
            yield at[0] - begun
            time.sleep(0.005)


SCENARIOS = {
    "S1": s1, "S1c": s1_connections, "S2a": s2a, "S2b": s2b, "straight": straight, "S4-1": s4(1), "S4-10": s4(10), "S4-50": s4(50),
    "S5": s5, "S6-large": s6_large, "S6-silent": s6_silent, "S7": s7,
}

# How a measure is shown, and whether more of it is better.
MEASURES = {"per_second": ("mails/s", True), "cpu_ms": ("CPU ms/mail", False), "memory_mb": ("peak MB", False),
            "kb": ("KB written/mail", False), "fsyncs": ("fsync/mail", False), "p50_ms": ("p50 ms", False),
            "p99_ms": ("p99 ms", False)}


def syncs(kind, scenario, bench):
    """fsync and fdatasync a mail, in a short run of its own: being traced costs time."""
    class Traced(kind):
        def start(self):
            super().start()
            self.trace = bench.place / f"trace-{time.monotonic_ns()}"
            self.tracer = subprocess.Popen(
                ["strace", "-f", "-c", "-e", "trace=fsync,fdatasync", "-o", self.trace, "-p", str(self.pid)],
                stderr=subprocess.DEVNULL)
            time.sleep(1)

        def stop(self):
            if self.tracer.poll() is None:
                self.tracer.send_signal(signal.SIGINT)
                self.tracer.wait()
                calls = re.findall(r"^ *[\d.]+ +[\d.]+ +\d+ +(\d+)(?: +\d+)? +f(?:data)?sync$", self.trace.read_text(), re.M)
                Traced.calls = sum(int(number) for number in calls)
            super().stop()

    short = argparse.Namespace(**{**vars(bench), "mails": 1000})
    scenario(Traced, short)
    return Traced.calls / short.mails


def noise(values):
    """How far the rounds lie apart, in percent of their median."""
    middle = statistics.median(values)
    return 100 * (max(values) - min(values)) / middle if middle else 0


def measure(name, bench):
    kinds = [Straight] if name == "straight" else bench.relays
    scenario, rounds = SCENARIOS[name], {kind: [] for kind in kinds}
    for number in range(bench.rounds):
        for kind in kinds:
            taken = scenario(kind, bench)
            rounds[kind].append(taken)
            shown = ", ".join(f"{MEASURES[what][0]} {value:.3g}" for what, value in taken.items())
            print(f"  {name} {kind.name} {number + 1}: {shown}", file=sys.stderr, flush=True)
    result = {}
    for kind in kinds:
        of = {what: [taken[what] for taken in rounds[kind]] for what in rounds[kind][0]}
        result[kind.name] = {what: (statistics.median(values), noise(values)) for what, values in of.items()}
        if bench.fsync and name in ("S1", "S4-1", "S4-10"):
            result[kind.name]["fsyncs"] = (syncs(kind, scenario, bench), 0)
    return result


def table(name, result):
    """A line for each measure: the two, the noise of each, and how many times better redeliver is."""
    lines = [f"\n{name}: {SCENARIOS[name].__doc__.strip()} ({', '.join(result)})"]
    for what, (title, more) in MEASURES.items():
        cells = []
        for relay in result.values():
            value, spread = relay.get(what, (None, None))
            cells.append("-" if value is None else f"{value:.3g} (±{spread / 2:.0f} %)")
        if all(cell == "-" for cell in cells):
            continue
        ratio = ""
        values = [relay[what][0] for relay in result.values() if what in relay]
        if len(values) == 2 and all(values):
            ratio = f"{values[1] / values[0] if more else values[0] / values[1]:.1f} x"
        lines.append(f"  {title:<16}" + "".join(f"{cell:>22}" for cell in cells) + f"{ratio:>10}")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--program", required=True, help="the redeliver that is measured")
    parser.add_argument("--mails", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--alone", action="store_true", help="without Postfix")
    parser.add_argument("--no-fsync", dest="fsync", action="store_false", help="do not count them with strace")
    parser.add_argument("--json", type=pathlib.Path, help="a file for the result")
    parser.add_argument("scenarios", nargs="*", metavar="scenario", help=f"of {', '.join(SCENARIOS)}; default: all")
    bench = parser.parse_args()
    bench.program = str(pathlib.Path(bench.program).resolve())
    bench.relays = [Redeliver] if bench.alone else [Postfix, Redeliver]
    bench.fsync = bench.fsync and shutil.which("strace") is not None
    results = {}
    # Not /tmp, which may be memory: the point is to be durable.
    with tempfile.TemporaryDirectory(prefix="redeliver-bench-", dir="/var/tmp") as place:
        bench.place = pathlib.Path(place)
        bench.place.chmod(0o755)
        for name in bench.scenarios or SCENARIOS:
            results[name] = measure(name, bench)
            print(table(name, results[name]), flush=True)
        if "straight" in results and "S2b" in results:
            share = results["S2b"]["redeliver"]["per_second"][0] / results["straight"]["smtp-source"]["per_second"][0]
            print(f"\nS2b is at {100 * share:.0f} % of smtp-source straight into the sink")
    if bench.json:
        bench.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
