"""Hours of mixed traffic in minutes: does anything grow that should not?

Mail of several sizes comes in steadily; the peer defers one recipient in five, and what it
deferred is swept every minute. Each second memory, descriptors, the log beside the database, what
is kept, and the time from the final dot to its reply are written down; at the end they are drawn
as curves.
"""

import argparse
import json
import os
import pathlib
import random
import socket
import statistics
import sys
import tempfile
import threading
import time

import compare


class Load(threading.Thread):
    """One session that sends mails for as long as it goes, `per_second` of them."""

    def __init__(self, port, per_second):
        super().__init__(daemon=True)
        self.port, self.pause, self.times, self.sent, self.going = port, 1 / per_second, [], 0, True
        self.start()

    def run(self):
        chance = random.Random(self.port)
        with socket.create_connection(("127.0.0.1", self.port)) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            replies = connection.makefile("rb")

            def say(line):
                if line:
                    connection.sendall(line + b"\r\n")
                while (reply := replies.readline())[3:4] == b"-":
                    pass
                return reply
            say(None)
            say(b"EHLO client.example")
            while self.going:
                lines = chance.choice([20, 100, 100, 100, 2000])
                say(b"MAIL FROM:<a@sender.example>")
                say(b"RCPT TO:<r%d@there.example>" % chance.randrange(10_000))
                say(b"DATA")
                connection.sendall(b"Subject: x\r\n\r\n" + b"some text of a usual length, and so on\r\n" * lines)
                begun = time.monotonic()
                if say(b".").startswith(b"250"):
                    self.sent += 1
                    self.times.append(time.monotonic() - begun)
                time.sleep(self.pause)


def sample(relay, loads, peer):
    times = sorted(one for load in loads for one in load.times)
    for load in loads:
        load.times = []
    wal = relay.place / "var/redeliver.db-wal"
    return {
        "memory, MB": compare.memory(relay.pid) / 1e6,
        "descriptors": len(os.listdir(f"/proc/{relay.pid}/fd")),
        "log beside the database, MB": wal.stat().st_size / 1e6 if wal.exists() else 0,
        "250 to the final dot, median, ms": 1000 * statistics.median(times) if times else 0,
        "250 to the final dot, p99, ms": 1000 * times[len(times) * 99 // 100] if times else 0,
        "mails in": sum(load.sent for load in loads),
        "mails at the peer": peer.seen,
    }


def curve(name, seconds, values, top, height=120, width=900):
    most = max(values) or 1
    points = " ".join(
        f"{60 + second / seconds[-1] * width:.1f},{top + height - value / most * (height - 20):.1f}"
        for second, value in zip(seconds, values))
    return (f'<text x="60" y="{top + 12}" font-size="13">{name}: last {values[-1]:.4g}, most {most:.4g}</text>'
            f'<line x1="60" y1="{top + height}" x2="{60 + width}" y2="{top + height}" stroke="#999"/>'
            f'<polyline points="{points}" fill="none" stroke="#06c" stroke-width="1"/>')


def draw(samples):
    seconds = [at for at, _ in samples]
    curves = [curve(name, seconds, [sample[name] for _, sample in samples], 20 + 150 * number)
              for number, name in enumerate(samples[0][1])]
    height = 40 + 150 * len(curves)
    return (f'<svg xmlns="http://www.w3.org/2000/svg" width="1000" height="{height}" font-family="sans-serif">'
            f'<rect width="100%" height="100%" fill="white"/>{"".join(curves)}</svg>')


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--program", required=True)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--per-second", type=float, default=200)
    parser.add_argument("--to", type=pathlib.Path, default=pathlib.Path("target/soak"), help=".json and .svg")
    soak = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="redeliver-soak-", dir="/var/tmp") as place:
        peer = compare.Slow(defers_each=5)
        relay = compare.Redeliver(pathlib.Path(place) / "relay", str(pathlib.Path(soak.program).resolve()),
                                  f"127.0.0.1:{peer.port}")
        schedules = relay.place / "schedules"
        schedules.mkdir()
        (schedules / "sweep.yaml").write_text('job: sweep\ncron: "* * * * *"\ntimezone: UTC\n')
        relay.start()
        loads = [Load(relay.port, soak.per_second / 10) for _ in range(10)]
        begun, samples = time.monotonic(), []
        try:
            while (now := time.monotonic() - begun) < soak.minutes * 60:
                time.sleep(1)
                samples.append((now + 1, sample(relay, loads, peer)))
                if len(samples) % 60 == 0:
                    print(samples[-1], file=sys.stderr, flush=True)
        except KeyboardInterrupt:
            print(f"interrupted after {now:.0f} s: what there is is drawn", file=sys.stderr)
        finally:
            for load in loads:
                load.going = False
            relay.stop()
    soak.to.with_suffix(".json").write_text(json.dumps(samples))
    soak.to.with_suffix(".svg").write_text(draw(samples))
    print(f"{soak.to}.svg; last: {samples[-1][1]}")


main()
