#!/usr/bin/env python3
"""Writes fuzz/seeds: the inputs that each target begins with. Run it again when a target reads its
input differently; the seeds are committed."""

import base64
import json
import pathlib

ROOT = pathlib.Path(__file__).resolve().parent
EXAMPLES = ROOT.parent / "examples"
USER = '{"id":"3c90c3cc-0d44-4b50-8888-8dd25736052a","username":"kari","mfa":{"oob_channels":["sms"]}}'
REFUSED = '{"error":{"code":"USER_NOT_FOUND","message":"no such user","errors":[]}}'


def frame(kind, payload):
    return bytes([kind, 0, 1]) + len(payload).to_bytes(4, "big") + payload + b"\xce"


def seeds():
    plain = (EXAMPLES / "rename-request.full.json").read_bytes()
    minimal = (EXAMPLES / "rename-request.minimal.json").read_bytes()
    event = (EXAMPLES / "rename-request.cloudevent.json").read_bytes()
    encoded = json.dumps(
        {"specversion": "1.0", "id": "1", "type": "t", "source": "/s", "data_base64": base64.b64encode(plain).decode()}
    ).encode()
    yield "requests", [b"\0" + plain, b"\0" + minimal, b"\x02" + event, b"\x02" + encoded, b"\0{}"]
    yield "edits", [
        b"\3\x07\x05kari2" + plain,
        b"\3\x04\x00" + minimal,
        b"\2\x85\x03ola" + event,
        b'\xff\0\0{"request_id":"3c90c3cc-0d44-4b50-8888-8dd25736052a","new_username":"b"}\n',
    ]
    yield "answers", [
        b"\0\1\1\0" + USER.encode(),
        b"\6\1\1\1" + REFUSED.encode(),
        b"\x09\1\1\1" + REFUSED.encode(),
        b"\0\1\0\3<html>",
        b"\x0c\1\1\7",
    ]
    now = (1_795_600_000).to_bytes(8, "big")
    dates = [b"120", b"-1", b"Tue, 24 Nov 2026 10:00:30 GMT", b"Tuesday, 24-Nov-26 10:00:30 GMT", b"Tue Nov 24 10:00:30 2026"]
    yield "retry_after", [now + date for date in dates]
    bases = [b"https://api.dintero.com/v1", b"http://[::1]:8080/a/b/", b"http://127.0.0.1"]
    names = ["ola@example.com", "../../token", "a/b?c#d%2e", "Åse ☃"]
    yield "urls", [bytes([len(base)]) + base + name.encode() for base in bases for name in names]
    headers = b"\x01kS\0\0\0\1v\x06x-name\x46\0\0\0\x04\x02nat\x01"
    table = len(headers).to_bytes(4, "big") + headers
    properties = b"\0\x3c\0\0" + bytes(8) + b"\xa0\0" + b"\x10application/json" + table
    deliver = b"\0\x3c\0\x3c\x01c" + bytes(8) + b"\0\x0frename.requests\x03k\xffy"
    raw = frame(1, deliver) + frame(2, properties) + frame(3, b"{}") + frame(8, b"")
    # The rest is drawn by the targets' own generator; any bytes do.
    drawn = bytes((7 * nth + nth // 5) % 256 for nth in range(512))
    yield "frames", [b"\0\7" + raw, b"\1\x40" + drawn, b"\2\3" + drawn[::-1]]
    yield "headers", [drawn, drawn[::-1], bytes(range(256)) * 2]
    secret = bytes(range(32, 256, 9))
    yield "secrets", [
        bytes([key, frame, 0]) + trip + secret for key, frame, trip in [(0, 1, b"\0"), (0, 2, b"\1"), (0, 4, b"\3"), (1, 7, b""), (5, 5, b"\0"), (9, 8, b"")]
    ]


def main():
    for target, inputs in seeds():
        folder = ROOT / "seeds" / target
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.iterdir():
            old.unlink()
        for nth, content in enumerate(inputs):
            (folder / f"{nth:02}").write_bytes(content)


main()
