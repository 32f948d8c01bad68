"""The upgrade from 0.1.0, as docs/upgrading.md has it: a worker of 0.1.0 is killed with requests in every
state, the page's own commands are run while upstream publishes, and the new worker ends everything.

`make upgrade-test` runs it. It wants Docker, and 0.1.0's commit in the history, or its binary in OLD_WORKER.
"""

import collections
import json
import os
import pathlib
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import unittest
import urllib.request
import uuid

import pika

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
SCRIPT = ROOT / "scripts/upgrade-from-0.1.0.py"
OLD_COMMIT = "9f7cdfb"
NEW_WORKER = os.environ.get("NEW_WORKER", str(ROOT / "target/debug/rename-worker"))
IMAGE = os.environ.get("UPGRADE_IMAGE", f"rabbitmq:{os.environ.get('RABBITMQ', '4.0')}")
ACCOUNT = "T12345678"
PATIENCE = 180


def old_worker():
    """The binary of 0.1.0, built once."""
    if "OLD_WORKER" in os.environ:
        return os.environ["OLD_WORKER"]
    source = ROOT / "target/upgrade/0.1.0"
    binary = source / "target/debug/rename-worker"
    if not binary.exists():
        source.mkdir(parents=True, exist_ok=True)
        archive = subprocess.run(["git", "archive", OLD_COMMIT], cwd=ROOT, capture_output=True, check=True)
        subprocess.run(["tar", "-x"], cwd=source, input=archive.stdout, check=True)
        subprocess.run(["cargo", "build", "--locked"], cwd=source, check=True)
    return str(binary)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def until(what, condition, patience=PATIENCE):
    deadline = time.monotonic() + patience
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {patience} s in vain: {what}")
        time.sleep(0.1)
    return found


def request(old, new, user_id=None):
    body = {"request_id": str(uuid.uuid4()), "account_id": ACCOUNT, "username": old, "new_username": new}
    return body | ({"user_id": user_id} if user_id else {})


class Upstream(threading.Thread):
    """Publishes ten requests a second, each confirmed and routed, until it is stopped."""

    def __init__(self, url, stock):
        super().__init__(daemon=True)
        self.url, self.stock = url, stock
        self.published, self.trouble, self.stopping = [], None, threading.Event()

    def run(self):
        try:
            connection = pika.BlockingConnection(pika.URLParameters(self.url))
            channel = connection.channel()
            channel.confirm_delivery()
            while not self.stopping.wait(0.1):
                body = next(self.stock)
                publish(channel, body)
                self.published.append(body)
            connection.close()
        except Exception as error:  # noqa: BLE001, the test looks at it
            self.trouble = error

    def stop(self):
        self.stopping.set()
        self.join()


def publish(channel, body, **properties):
    channel.basic_publish(
        "rename.requests",
        f"rename.{ACCOUNT}",
        json.dumps(body).encode(),
        pika.BasicProperties(content_type="application/json", delivery_mode=2, **properties),
        mandatory=True,
    )


class UpgradeTest(unittest.TestCase):
    def setUp(self):
        self.old, self.must_fail = old_worker(), set()
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="rename-worker-upgrade-"))
        self.addCleanup(shutil.rmtree, self.dir)
        self.start_broker()
        self.start_sandbox()
        self.env = os.environ | {
            "AMQP_URL": self.url,
            "RENAME_WORKER_AMQP__URL": self.url,
            "RENAME_WORKER_API__BASE_URL": f"{self.api}/v1",
            "RENAME_WORKER_API__TOKEN": "test-token",
            "RENAME_WORKER_API__TIMEOUT": "5s",
            # The second try goes to the ladder, so that it fills within a test's time.
            "RENAME_WORKER_RETRY__INITIAL_DELAY": "10s",
            "RENAME_WORKER_HOLD__FAILURES": "1000",
            "RENAME_WORKER_ADMIN__LISTEN": f"127.0.0.1:{free_port()}",
            "PATH": f"{self.dir}/bin:{os.environ['PATH']}",
        }
        (self.dir / "bin").mkdir()
        for name, program in [("rename-worker", NEW_WORKER), ("python3", sys.executable)]:
            path = self.dir / "bin" / name
            path.write_text(f'#!/bin/sh\nexec "{program}" "$@"\n')
            path.chmod(0o755)
        self.channel = self.connection.channel()

    def start_broker(self):
        port = free_port()
        run = ["docker", "run", "-d", "--rm", "-p", f"127.0.0.1:{port}:5672", IMAGE]
        container = subprocess.run(run, capture_output=True, text=True, check=True).stdout.strip()
        self.container = container
        self.addCleanup(subprocess.run, ["docker", "rm", "-f", container], capture_output=True)
        self.url = f"amqp://guest:guest@127.0.0.1:{port}/%2f"

        def connect():
            try:
                return pika.BlockingConnection(pika.URLParameters(self.url + "?heartbeat=0"))
            except (pika.exceptions.AMQPError, OSError):
                return None

        self.connection = until("RabbitMQ is up", connect)
        self.version = self.connection._impl.server_properties["version"]

    def start_sandbox(self):
        port = free_port()
        self.api = f"http://127.0.0.1:{port}"
        command = [NEW_WORKER, "sandbox", "--listen", f"127.0.0.1:{port}", "--token", "test-token"]
        self.start([*command, "--user", f"{ACCOUNT}:nobody-else", "--json"], os.environ)

        def answers():
            try:
                return self.sandbox("faults") is not None
            except OSError:
                return False

        until("the sandbox serves", answers)

    def start(self, command, env):
        with open(self.dir / f"{len(list(self.dir.iterdir()))}.log", "wb") as log:
            process = subprocess.Popen(command, env=env, stdout=log, stderr=log)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        return process

    def sandbox(self, path, body=None, method="GET"):
        ask = urllib.request.Request(f"{self.api}/_sandbox/{path}", data=body, method=method)
        if body is not None:
            ask.add_header("content-type", "application/json")
        with urllib.request.urlopen(ask, timeout=10) as answer:
            return answer.read()

    def faults(self, *faults):
        self.sandbox("faults", json.dumps(faults).encode(), "PUT")

    def users(self, users):
        lines = [json.dumps({"account_id": ACCOUNT, "username": n} | ({"id": i} if i else {})) for n, i in users]
        self.sandbox("users", "\n".join(lines).encode(), "POST")

    def queues(self):
        out = subprocess.run(
            ["docker", "exec", self.container, "rabbitmqctl", "-q", "list_queues", "name", "messages", "--formatter", "json"],
            capture_output=True, text=True, check=True,
        ).stdout
        return {queue["name"]: queue["messages"] for queue in json.loads(out)}

    def ready(self, queue):
        return self.channel.queue_declare(queue, passive=True).method.message_count

    def everyday_requests(self):
        """In turn: alone, alone with its user's id, two that share a name, and one of nobody."""
        n = 0
        while True:
            n += 1
            user_id = str(uuid.uuid4())
            self.users([(f"plain-{n}", None), (f"sure-{n}", user_id), (f"chain-{n}.a", None)])
            yield request(f"plain-{n}", f"plain-{n}.new")
            yield request(f"sure-{n}", f"sure-{n}.new", user_id)
            yield request(f"chain-{n}.a", f"chain-{n}.b")
            yield request(f"chain-{n}.b", f"chain-{n}.c")
            if n % 4 == 0:
                self.must_fail.add(f"gone-{n}")
                yield request(f"gone-{n}", f"gone-{n}.new")

    def troubled_requests(self):
        """Whose answers get lost, whose API is down for a while, and chains that wait behind such."""
        ids = [str(uuid.uuid4()) for _ in range(20)]
        names = [f"lost-{n}" for n in range(40)] + [f"flaky-{n}.a" for n in range(20)]
        self.users([(name, ids[n] if n < 20 else None) for n, name in enumerate(names)])
        for n in range(40):
            yield request(f"lost-{n}", f"found-{n}", ids[n] if n < 20 else None)
            if n % 2 == 0:
                yield request(f"flaky-{n // 2}.a", f"flaky-{n // 2}.b")
                yield request(f"flaky-{n // 2}.b", f"flaky-{n // 2}.c")

    def run_page(self):
        """The page's own commands, in order; those that are marked so are to fail."""
        page = (ROOT / "docs/upgrading.md").read_text()
        blocks = re.findall(r"^```sh(?: exit=(\d+))?\n(.*?)^```", page, re.M | re.S)
        self.assertGreaterEqual(len(blocks), 7)
        shutil.copytree(ROOT / "scripts", self.dir / "scripts")
        for expected, block in blocks:
            done = subprocess.run(["bash", "-e", "-c", block], cwd=self.dir, env=self.env, capture_output=True, text=True)
            print(f"$ {block.strip()}\n{done.stdout}{done.stderr}", flush=True)
            self.assertEqual(done.returncode, int(expected or 0), done.stdout + done.stderr)
            yield block

    def kill_0_1_0_with_requests_in_every_state(self):
        """Upstream goes on; what was published besides is returned."""
        old = self.start([self.old, "run"], self.env)
        until("0.1.0 has its queues", lambda: "rename.requests" in self.queues())
        self.channel.queue_declare("collected", durable=True)
        self.channel.queue_bind("collected", "rename.events", "#")
        self.publisher = pika.BlockingConnection(pika.URLParameters(self.url + "?heartbeat=0")).channel()
        self.publisher.confirm_delivery()
        published = []

        def send(body):
            publish(self.publisher, body)
            published.append(body)

        self.upstream = Upstream(self.url, self.everyday_requests())
        self.upstream.start()
        self.addCleanup(self.upstream.stopping.set)
        for n in range(30):
            self.must_fail.add(f"early-{n}")
            send(request(f"early-{n}", f"early-{n}.new"))
        until("0.1.0 has dead letters", lambda: self.ready("rename.dead-letters") >= 30)

        # The renames of lost-… take effect and nobody learns of it; flaky-… is refused for now.
        trouble = ["lost=1.0,on=rename,prefix=lost-", "503=1.0,on=confirm,prefix=found-",
                   "503=1.0,on=rename,prefix=flaky-,retry-after=90"]
        self.faults(*trouble)
        for body in self.troubled_requests():
            send(body)
            time.sleep(0.1)

        def waiting():
            return {name: count for name, count in self.queues().items() if ".retry." in name and count}

        until("requests wait in the ladder", lambda: sum(waiting().values()) >= 60, 60)

        # Renamed, but the worker is killed before it knows.
        self.users([(f"killed-{n}", None) for n in range(10)])
        self.faults("timeout=1.0,applied,for=60s,on=rename,prefix=killed-", *trouble)
        for n in range(10):
            send(request(f"killed-{n}", f"killed-{n}.new"))
        until("they took effect", lambda: self.sandbox("ledger").count(b'"from":"killed-') >= 10)
        old.kill()
        old.wait()
        self.killed_after = len(self.upstream.published)
        print(f"when 0.1.0 was killed: {waiting()}", flush=True)
        return published

    def end_everything(self, worker):
        self.assertIsNone(self.upstream.trouble)
        self.faults()
        process = self.start([worker, "run"], self.env)
        time.sleep(5)
        self.upstream.stop()
        self.assertIsNone(self.upstream.trouble)
        held = re.compile(r"rename\.(requests|due|wait|retry|undeliverable|upgrade)")
        until("everything has ended", lambda: not any(n for name, n in self.queues().items() if held.match(name)))
        self.assertIsNone(process.poll())

    def test_the_page_brings_everything_over(self):
        published = self.kill_0_1_0_with_requests_in_every_state()
        # RabbitMQ moves these to the dead letters by itself, once they get to the head of their queue.
        expired = [request(f"expired-{n}", f"expired-{n}.new") for n in range(5)]
        for body in expired:
            publish(self.publisher, body, expiration="1")
        for block in self.run_page():
            if "divert" in block:
                before = self.ready("rename.upgrade")
                until("upstream goes on", lambda: self.ready("rename.upgrade") > before + 5)
        self.assertTrue(self.queues().keys().isdisjoint({f"rename.retry.{d}" for d in ("5s", "30s", "2m", "10m", "1h")}))
        self.assertNotIn("rename.upgrade", self.queues())
        self.end_everything(NEW_WORKER)
        self.judge(NEW_WORKER, published + self.upstream.published, expired)

    def test_undo_gives_everything_back_to_0_1_0(self):
        published = self.kill_0_1_0_with_requests_in_every_state()
        for step in (["rename-worker", "topology", "declare"], *(["python3", str(SCRIPT), step] for step in ("divert", "drain", "undo"))):
            done = subprocess.run(step, env=self.env, capture_output=True, text=True)
            print(f"$ {' '.join(step)}\n{done.stdout}{done.stderr}", flush=True)
            self.assertEqual(done.returncode, int("declare" in step), done.stderr)
        self.end_everything(self.old)
        self.judge(self.old, published + self.upstream.published, [])

    def judge(self, worker, published, expired):
        outcomes = collections.defaultdict(collections.Counter)
        while True:
            method, _, body = self.channel.basic_get("collected", auto_ack=True)
            if method is None:
                break
            event = json.loads(body)
            outcomes[event["data"]["request_id"]][event["type"]] += 1
        applied = collections.Counter()
        for line in self.sandbox("ledger").splitlines():
            entry = json.loads(line)
            applied[entry["from"], entry["to"]] += 1
        failed, renamed, repeats, wrong = set(), set(), 0, []
        for body in published:
            types = outcomes[body["request_id"]]
            self.assertEqual(len(types), 1, f"{body['username']}: {types}")
            repeats += sum(types.values()) - 1
            was_applied = applied[body["username"], body["new_username"]]
            if "user.renamed" in types:
                renamed.add(body["request_id"])
                self.assertEqual(was_applied, 1, body)
            else:
                failed.add(body["request_id"])
                self.assertEqual(was_applied, 0, f"reported as failed though it took effect: {body}")
                if body["username"] not in self.must_fail:
                    wrong.append(body["username"])
        order = [body["username"] for body in self.upstream.published]
        where = [f"{name}, {order.index(name) - self.killed_after} after the kill" if name in order else name for name in wrong]
        self.assertFalse(where, f"failed, as if out of order ({repeats} events repeated)")
        out = subprocess.run([worker, "dead-letters", "list", "--each", "--json"], env=self.env, capture_output=True, text=True, check=True)
        letters = collections.Counter(json.loads(line)["request_id"] for line in out.stdout.splitlines())
        expected = failed | {body["request_id"] for body in expired}
        self.assertEqual(letters, collections.Counter({name: 1 for name in expected}))
        check = subprocess.run([worker, "topology", "check"], env=self.env, capture_output=True, text=True)
        self.assertEqual(check.returncode, 0, check.stdout)
        print(f"RabbitMQ {self.version}: {len(published)} requests, {len(renamed)} renamed, {len(failed)} failed, "
              f"{repeats} events repeated, {len(expected)} dead letters")


if __name__ == "__main__":
    unittest.main()
