#!/usr/bin/env python3
"""Brings the queues of rename-worker 0.1.0 over to the version after it: docs/upgrading.md says when
to call what. It needs `pip install pika==1.4.4`, and RabbitMQ's URL in AMQP_URL.

    divert    upstream's requests go to the queue rename.upgrade from now on
    drain     what waits in rename.retry.* and rename.requests goes to rename.due
    delete    deletes the empty queues of 0.1.0, and rename.dead-letters once it is exported
    restore   upstream's requests go to rename.requests again; those in rename.upgrade go to rename.due
    undo      instead of going on: everything goes back to the rename.requests of 0.1.0

Each may be called again, whatever ended it before. A message is acknowledged only after RabbitMQ has
confirmed its copy, so nothing is lost; where a command was killed, one message may be there twice.
"""

import argparse
import collections
import hashlib
import os
import pathlib
import struct
import sys
import time

import pika
import pika.data

# So long nothing may come, in s, before a queue counts as drained: what has just expired in a retry
# queue gets to rename.requests within milliseconds.
QUIET = 5
# What RabbitMQ adds at a delivery, and the addresses that would multiply a message.
DROPPED = {b"x-delivery-count", b"x-acquired-count", b"BCC"}
DEATHS = (b"x-death", b"x-first-death-", b"x-last-death-")
# Properties that would harm a copy, or that RabbitMQ refuses from anybody but the first publisher.
HAZARDS = ("expiration", "user_id")
FIXED = {b"t": 1, b"b": 1, b"B": 1, b"s": 2, b"u": 2, b"U": 2, b"I": 4, b"i": 4, b"f": 4}
FIXED |= {b"l": 8, b"L": 8, b"d": 8, b"T": 8, b"D": 5, b"V": 0}


class Raw(bytes):
    """A header's value as it is on the wire: its type and its bytes. So it stays what it was."""


def text(value):
    value = value if isinstance(value, bytes) else value.encode()
    return Raw(b"S" + struct.pack(">I", len(value)) + value)


TRUE = Raw(b"t\x01")


def decode_table(encoded, offset):
    (size,) = struct.unpack_from(">I", encoded, offset)
    offset += 4
    end = offset + size
    table = {}
    while offset < end:
        name = encoded[offset + 1 : offset + 1 + encoded[offset]]
        offset += 1 + len(name)
        kind = encoded[offset : offset + 1]
        length = FIXED.get(kind)
        if length is None:
            length = 4 + struct.unpack_from(">I", encoded, offset + 1)[0]
        table[bytes(name)] = Raw(encoded[offset : offset + 1 + length])
        offset += 1 + length
    return table, offset


def encode_value_or_raw(pieces, value, encode=pika.data.encode_value):
    if isinstance(value, Raw):
        pieces.append(bytes(value))
        return len(value)
    return encode(pieces, value)


class Message:
    """A message as it was got, and what is published instead of it."""

    def __init__(self, method, properties, body, is_believed):
        self.tag, self.redelivered = method.delivery_tag, method.redelivered
        self.exchange, self.routing_key = method.exchange, method.routing_key
        self.properties, self.body = properties, body
        self.headers = dict(properties.headers or {})
        self.is_believed = is_believed

    def fingerprint(self):
        """The same for two copies that an exchange made of one message."""
        headers = sorted((k, v) for k, v in self.headers.items() if k not in DROPPED)
        properties = sorted((k, v) for k, v in vars(self.properties).items() if k != "headers")
        whole = repr((self.exchange, self.routing_key, headers, properties)).encode() + self.body
        return hashlib.sha256(whole).digest()

    def age(self):
        """Sorts what was in the ladder by when it was tried first; what never was, by its copy."""
        copy = self.headers.get(b"x-rename-copy", b"l" + bytes(8))
        number = int.from_bytes(copy[1:], "big", signed=True) if copy[:1] in (b"l", b"I") else 0
        return bytes(self.headers.get(b"x-rename-first-attempt-at", b"")[5:]), number

    def was_tried(self):
        return b"x-rename-first-attempt-at" in self.headers

    def successor(self):
        """Properties for the copy, as docs/messages.md has them of the worker's own copies."""
        kept, properties = {}, self.properties
        for name, value in self.headers.items():
            if name == b"CC":
                kept[b"x-rename-original-cc"] = value
            elif name in DROPPED or name.startswith(DEATHS):
                continue
            elif self.is_believed or not name.lower().startswith(b"x-rename-"):
                kept[name] = value
        kept.setdefault(b"x-rename-original-exchange", text(self.exchange))
        kept.setdefault(b"x-rename-original-routing-key", text(self.routing_key))
        # What was delivered before may have been tried by a worker that was killed.
        if self.is_believed and self.redelivered:
            kept[b"x-rename-maybe-applied"] = TRUE
        changed = {name: getattr(properties, name) for name in vars(properties)}
        for name in HAZARDS:
            if changed[name] is not None:
                kept[b"x-rename-original-" + name.replace("_", "-").encode()] = text(changed[name])
                changed[name] = None
        reply_to = changed["reply_to"] or ""
        if (reply_to if isinstance(reply_to, bytes) else reply_to.encode()).startswith(b"amq."):
            kept[b"x-rename-original-reply-to"] = text(reply_to)
            changed["reply_to"] = None
        changed |= {"headers": kept, "delivery_mode": 2}
        return pika.BasicProperties(**changed)


class Upgrade:
    def __init__(self, url, prefix, delays):
        self.connection = pika.BlockingConnection(pika.URLParameters(url))
        self.version = int(self.connection._impl.server_properties["version"].split(".")[0])
        # From here on the only tables that come are headers.
        pika.data.decode_table, pika.data.encode_value = decode_table, encode_value_or_raw
        self.channel = self.connection.channel()
        self.channel.confirm_delivery()
        self.requests, self.due, self.side = (f"{prefix}.{name}" for name in ("requests", "due", "upgrade"))
        self.letters, self.internal = f"{prefix}.dead-letters", f"{prefix}.internal"
        self.ladder = [f"{prefix}.retry.{delay}" for delay in delays]

    def look(self, queue):
        """How many messages and consumers it has, or None where there is no such queue."""
        channel = self.connection.channel()
        try:
            found = channel.queue_declare(queue, passive=True).method
        except pika.exceptions.ChannelClosedByBroker as error:
            if error.reply_code != 404:
                raise
            return None
        channel.close()
        return found.message_count, found.consumer_count

    def refuse_consumers(self):
        deadline = time.monotonic() + QUIET
        for queue in [self.requests, self.due, self.letters, *self.ladder]:
            # RabbitMQ counts a consumer that has just gone for a moment longer.
            while (found := self.look(queue)) and found[1] and time.monotonic() < deadline:
                self.connection.sleep(0.2)
            if found and found[1]:
                sys.exit(f"{queue} has {found[1]} consumers: stop every worker and every review first")

    def require(self, queue, hint):
        if self.look(queue) is None:
            sys.exit(f"there is no queue {queue}: {hint}")

    def got(self, queue, is_believed=False, most=None):
        """What is in a queue, until it is empty. Nothing is acknowledged."""
        while most is None or most > 0:
            method, properties, body = self.channel.basic_get(queue)
            if method is None:
                return
            yield Message(method, properties, body, is_believed)
            most = most and most - 1

    def publish(self, message, target):
        exchange = self.internal if target == self.due else ""
        # Raises where it is not confirmed, or where no queue takes it.
        self.channel.basic_publish(exchange, target, message.body, message.successor(), mandatory=True)

    def move(self, messages, target, leave_out=None, record=None):
        """Publishes each, then acknowledges it. Of `leave_out` each is left out once."""
        moved = 0
        for message in messages:
            mark = message.fingerprint()
            if leave_out is not None and leave_out[mark] > 0:
                leave_out[mark] -= 1
            else:
                self.publish(message, target)
                moved += 1
            if record is not None:
                record[mark] += 1
            self.channel.basic_ack(message.tag)
        return moved

    def divert(self):
        self.require(self.requests, "is the prefix right?")
        arguments = {"x-queue-type": "quorum", "x-overflow": "reject-publish"}
        # No limit of deliveries: before RabbitMQ 4.0 that is the default, and -1 means another thing.
        if self.version >= 4:
            arguments["x-delivery-limit"] = -1
        self.channel.queue_declare(self.side, durable=True, arguments=arguments)
        # Both, for a moment: a message that is there twice is known by its fingerprint.
        self.channel.queue_bind(self.side, self.requests, "#")
        self.channel.queue_unbind(self.requests, self.requests, "#")
        print(f"new requests go to {self.side}; {self.requests} gets none any more")

    def drain(self):
        self.refuse_consumers()
        self.require(self.side, "call divert first")
        self.require(self.due, "call the new version's `rename-worker topology declare` first")
        if self.look(self.requests) is None:
            sys.exit(f"there is no queue {self.requests}: it was drained and deleted before")
        moved, marks = 0, collections.Counter()
        deadline = time.monotonic() + QUIET
        while time.monotonic() < deadline:
            count = self.drain_once(marks)
            moved += count
            if count:
                deadline = time.monotonic() + QUIET
            self.connection.sleep(0.2)
        beyond = self.look(self.side)[0]
        moved += self.move(self.got(self.side, most=beyond), self.due, leave_out=marks) if marks else 0
        print(f"{moved} requests went to {self.due}; {self.requests} and {self.requests[:-8]}retry.* are empty")
        return moved

    def drain_once(self, marks):
        """First what was tried, then what a worker gave back, then what followed those, then the rest."""
        waited = [m for q in self.ladder if self.look(q) for m in self.got(q, is_believed=True)]
        waited.sort(key=Message.age)
        rest = self.got(self.requests, is_believed=True)
        head, following = [], next(rest, None)
        while following and following.redelivered:
            head.append(following)
            following = next(rest, None)
        tried = [m for m in waited if m.was_tried()]
        never = [m for m in waited if not m.was_tried()]
        moved = self.move([*tried, *head, *never], self.due, record=marks)
        if following:
            moved += self.move([following], self.due, record=marks)
            moved += self.move(rest, self.due, record=marks)
        return moved

    def delete(self, exported):
        self.refuse_consumers()
        self.require(self.side, "call divert first")
        if self.look(self.requests):
            self.drain()
        found = self.look(self.letters)
        if found and exported is None and found[0]:
            sys.exit(f"{self.letters} has {found[0]} letters: name the file that they were exported to")
        if found and exported is not None:
            lines = sum(1 for line in exported.open("rb") if line.strip())
            if lines < found[0]:
                sys.exit(f"{exported} has {lines} letters, {self.letters} {found[0]}: export them again")
        for queue in [*self.ladder, self.requests, self.letters]:
            if self.look(queue):
                self.channel.queue_delete(queue)
                print(f"deleted {queue}")

    def restore(self):
        self.refuse_consumers()
        self.require(self.side, "nothing was diverted, or it was restored before")
        for queue in (self.due, self.requests):
            self.require(queue, "call the new version's `rename-worker topology declare` first")
        self.channel.queue_bind(self.requests, self.requests, "#")
        self.channel.queue_unbind(self.side, self.requests, "#")
        # What came between the two bindings is in both queues, at the head of rename.requests.
        doubled = self.look(self.requests)[0]
        marks = collections.Counter()
        moved = self.move(self.got(self.side), self.due, record=marks)
        moved += self.move(self.got(self.requests, most=doubled), self.due, leave_out=marks)
        self.channel.queue_delete(self.side)
        print(f"{moved} requests went to {self.due}; new ones go to {self.requests}; {self.side} is deleted")

    def undo(self):
        self.refuse_consumers()
        self.require(self.side, "nothing was diverted")
        self.require(self.requests, "call `rename-worker topology declare` of 0.1.0 first")
        self.channel.queue_bind(self.side, self.requests, "#")
        self.channel.queue_unbind(self.requests, self.requests, "#")
        marks, here = collections.Counter(), self.look(self.requests)[0]
        held = list(self.got(self.requests, is_believed=True, most=here))
        moved = self.move(self.got(self.due, is_believed=True), self.requests) if self.look(self.due) else 0
        moved += self.move(self.got(self.side), self.requests, record=marks)
        moved += self.move(held, self.requests, leave_out=marks)
        self.channel.queue_bind(self.requests, self.requests, "#")
        self.channel.queue_unbind(self.side, self.requests, "#")
        moved += self.move(self.got(self.side), self.requests)
        self.channel.queue_delete(self.side)
        print(f"{moved} requests are in {self.requests} again, and new ones go there")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=["divert", "drain", "delete", "restore", "undo"])
    parser.add_argument("exported", nargs="?", type=pathlib.Path, help="of delete: the file of the exported letters")
    parser.add_argument("--prefix", default="rename", help="amqp.prefix of both versions")
    parser.add_argument("--delays", default="5s,30s,2m,10m,1h", help="retry.ladder of 0.1.0")
    args = parser.parse_args()
    if "AMQP_URL" not in os.environ:
        sys.exit("AMQP_URL is not set: it is to be RabbitMQ's URL, as in amqp.url")
    upgrade = Upgrade(os.environ["AMQP_URL"], args.prefix, args.delays.split(","))
    if args.step == "delete":
        upgrade.delete(args.exported)
    else:
        getattr(upgrade, args.step)()
    upgrade.connection.close()


if __name__ == "__main__":
    main()
