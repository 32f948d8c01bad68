"""The runbook's script that reads an undeliverable message over AMQP 1.0, as it stands there.

    RENAME_WORKER_TEST_AMQP_URL=amqp://guest:guest@127.0.0.1:5672/%2f python3 tests/rules/test_runbook.py

Needs a RabbitMQ 4 and the packages python-qpid-proton and pika; skipped without them.
"""

import importlib.util
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import unittest
import urllib.parse
import uuid

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
URL = os.environ.get("RENAME_WORKER_TEST_AMQP_URL")
PACKAGES = all(importlib.util.find_spec(name) for name in ("proton", "pika"))
REQUEST = b'{"request_id":"018f0000-0000-7000-8000-000000000001","account_id":"T12345678","username":"a","new_username":"b"}'
TRACE = "018f0000-0000-7000-8000-0000000000aa"


def script() -> str:
    runbook = (ROOT / "docs" / "runbook.md").read_text()
    return re.search(r"<!-- undeliverable.py -->\n```python\n(.*?)```\n", runbook, re.DOTALL)[1]


class Script(unittest.TestCase):
    def test_it_is_python_and_reads_the_queue_the_alert_is_about(self):
        compile(script(), "undeliverable.py", "exec")
        self.assertIn('QUEUE, FILE = "rename.undeliverable", ', script())


@unittest.skipUnless(URL and PACKAGES, "no RENAME_WORKER_TEST_AMQP_URL, python-qpid-proton or pika")
class Undeliverable(unittest.TestCase):
    def setUp(self):
        import pika

        self.folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
        self.queue = f"runbook-{uuid.uuid4()}"
        (self.folder / "undeliverable.py").write_text(script().replace("rename.undeliverable", self.queue).replace("timeout=60", "timeout=10"))
        self.connection = pika.BlockingConnection(pika.URLParameters(URL))
        self.addCleanup(self.connection.close)
        self.channel = self.connection.channel()
        arguments = {"x-queue-type": "quorum", "x-overflow": "reject-publish", "x-delivery-limit": -1}
        self.channel.queue_declare(self.queue, durable=True, arguments=arguments)
        self.addCleanup(self.channel.queue_delete, self.queue)

    def publish(self, body: bytes):
        from proton import Message
        from proton.utils import BlockingConnection

        connection = BlockingConnection(self.url, virtual_host=f"vhost:{self.vhost}", timeout=20)
        sender = connection.create_sender(f"/queues/{self.queue}")
        sender.send(Message(body=body, inferred=True, properties={"trace": uuid.UUID(TRACE)}, id="m1"))
        connection.close()

    @property
    def url(self) -> str:
        return URL.rpartition("/")[0]

    @property
    def vhost(self) -> str:
        return urllib.parse.unquote(URL.rpartition("/")[2])

    def run_script(self, *more: str) -> subprocess.CompletedProcess:
        command = [sys.executable, "undeliverable.py", self.url, self.vhost, *more]
        return subprocess.run(command, cwd=self.folder, capture_output=True, text=True, timeout=120)

    def test_a_message_that_amqp_091_cannot_carry_is_read_kept_and_then_removed(self):
        import pika

        self.publish(REQUEST)
        with self.assertRaises(pika.exceptions.ConnectionClosedByBroker) as closed:
            with pika.BlockingConnection(pika.URLParameters(URL)) as connection:
                next(connection.channel().consume(self.queue, inactivity_timeout=30))
        self.assertEqual(closed.exception.reply_code, 541)

        for _ in range(2):
            read = self.run_script()
            self.assertEqual(read.returncode, 0, read.stderr)
            self.assertIn(TRACE, read.stdout)
            self.assertIn("message id: m1", read.stdout)
            self.assertEqual((self.folder / "undeliverable.body").read_bytes(), REQUEST)

        self.assertEqual(self.run_script("remove").stdout, "removed\n")
        empty = self.run_script()
        self.assertEqual(empty.returncode, 1)
        self.assertIn("is empty", empty.stderr)

    def test_another_message_than_the_one_that_was_read_is_not_removed(self):
        self.publish(b"another")
        self.assertIn("kept", self.run_script("remove").stdout)
        self.assertEqual(self.run_script().returncode, 0)
        (self.folder / "undeliverable.body").write_bytes(REQUEST)
        self.assertIn("kept", self.run_script("remove").stdout)


if __name__ == "__main__":
    unittest.main()
