#!/usr/bin/env python3
"""The rest of the world for packaging/test-booted-inside: a name server and a mail server with STARTTLS.

test-peer.py ADDRESS CERTIFICATE KEY FILE: names below example.test have their MX at ADDRESS, where each
mail on port 25 is taken, with a line in FILE: "tls" or "clear", and its recipients.
"""
import socket
import socketserver
import ssl
import struct
import sys
import threading

address, certificate, key, record = sys.argv[1:]
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(certificate, key)


def encoded(name):
    return b"".join(bytes([len(part)]) + part.encode() for part in name.split(".")) + b"\0"


def answer(query):
    labels, at = [], 12
    while query[at]:
        labels.append(query[at + 1:at + 1 + query[at]].decode().lower())
        at += 1 + query[at]
    kind = struct.unpack(">H", query[at + 1:at + 3])[0]
    name, question = ".".join(labels), query[12:at + 5]
    data = None
    if kind == 15 and name == "example.test":
        data = struct.pack(">H", 10) + encoded("mx.example.test")
    elif kind == 1 and name == "mx.example.test":
        data = socket.inet_aton(address)
    code = 0 if name in ("example.test", "mx.example.test") else 3
    head = query[:2] + struct.pack(">HHHHH", 0x8580 | code, 1, 1 if data else 0, 0, 0)
    return head + question + (b"\xc0\x0c" + struct.pack(">HHIH", kind, 1, 60, len(data)) + data if data else b"")


def serve_names():
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind((address, 53))
    while True:
        query, client = server.recvfrom(4096)
        server.sendto(answer(query), client)


class Session(socketserver.StreamRequestHandler):
    def say(self, *lines):
        self.wfile.write("".join(line + "\r\n" for line in lines).encode())

    def handle(self):
        how, recipients = "clear", []
        self.say("220 mx.example.test")
        while line := self.rfile.readline():
            verb = line.split()[0].upper() if line.split() else b""
            if verb == b"EHLO":
                self.say("250-mx.example.test", *(["250-STARTTLS"] if how == "clear" else []), "250 8BITMIME")
            elif verb == b"STARTTLS":
                self.say("220 go on")
                self.request = context.wrap_socket(self.request, server_side=True)
                self.rfile, self.wfile = self.request.makefile("rb"), self.request.makefile("wb", 0)
                how = "tls"
            elif verb == b"RCPT":
                recipients.append(line.decode().strip())
                self.say("250 good")
            elif verb == b"DATA":
                self.say("354 go on")
                while (text := self.rfile.readline()) not in (b".\r\n", b""):
                    pass
                if text:
                    with open(record, "a") as file:
                        file.write(how + " " + " ".join(recipients) + "\n")
                    self.say("250 taken")
                recipients = []
            elif verb == b"QUIT":
                self.say("221 bye")
                return
            else:
                self.say("250 good")


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = daemon_threads = True


threading.Thread(target=serve_names, daemon=True).start()
Server((address, 25), Session).serve_forever()
