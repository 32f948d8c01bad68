"""The dashboard's queries, asked of a real Prometheus that holds what these tests wrote: each shows the
selected installation and nothing of another one, and none shows a number where there is none.

Whether each panel has data under a real load is `make dashboard-test`'s business. Run by
`make rules-test`; skipped where there is no Prometheus.
"""

import json
import pathlib
import shutil
import socket
import subprocess
import tempfile
import time
import unittest
import urllib.error
import urllib.parse
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
DASHBOARD = json.loads((ROOT / "helm" / "rename-worker" / "dashboards" / "rename-worker.json").read_text())

# Each world is looked at from its end. They are two days apart, since some queries look back for one.
STEP, SPAN = 15, 45 * 60
NOW = int(time.time()) // 3600 * 3600
WORLDS = ["alone", "together", "idle", "begun", "restarted", "empty"]
END = {world: NOW - 2 * 86400 * (place + 1) for place, world in enumerate(WORLDS)}

REQUESTS, LETTERS = "rename.requests", "rename.dead-letters"


def queries():
    """(title, query, its place in the panel) of every panel."""
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", []):
            yield panel["title"], target["expr"]


def filled_in(query: str, namespace: str) -> str:
    """As Grafana asks when the installation of this namespace is selected."""
    chosen = {"broker_namespace": namespace, "broker": "rabbitmq", "namespace": namespace, "job": "rename-worker"}
    chosen |= {"instance": ".*", "vhost": "/", "prefix": "rename", "__rate_interval": "1m"}
    for name, value in chosen.items():
        query = query.replace(f"${name}", value)
    assert "$" not in query, query
    return query


class Samples:
    """OpenMetrics text of an installation in one world."""

    def __init__(self, world: str, namespace: str, pace: int, begin: int | None = None):
        self.end = END[world]
        self.begin = self.end - SPAN if begin is None else self.end - begin
        self.namespace, self.pace, self.lines = namespace, pace, []

    def series(self, name: str, labels: dict, value, job: str = "rename-worker", instance: str = "w1:9090"):
        own = {"namespace": self.namespace, "job": job, "instance": f"{self.namespace}-{instance}", **labels}
        text = ",".join(f'{key}="{content}"' for key, content in own.items())
        for at in range(self.begin, self.end + 1, STEP):
            self.lines.append(f"{name}{{{text}}} {value(at - self.begin)} {at}")

    def gauge(self, name: str, value, **labels):
        self.series(f"rename_worker_{name}", labels, lambda _: value)

    def counter(self, name: str, pace: float, **labels):
        """So many a step, which is a share of the installation's pace."""
        self.series(f"rename_worker_{name}", labels, lambda since: self.pace * pace * (since // STEP))

    def histogram(self, name: str, **labels):
        # The faster installation is the slower one to answer.
        for le, share in (("0.1", 1), ("1", 1 + self.pace), ("+Inf", 1 + self.pace)):
            self.counter(f"{name}_bucket", share, **labels, le=le)

    def queue(self, what: str, queue: str, value: int, node: str = "n1"):
        labels = {"vhost": "/", "queue": queue}
        self.series(f"rabbitmq_detailed_queue_{what}", labels, lambda _: value, job="rabbitmq", instance=node)

    def worker(self, busy: bool = True):
        """Everything a worker reports; all at rest unless it is busy."""
        pace = self.pace
        flow = 1 if busy else 0
        self.gauge("build_info", 1, version=f"1.0.{pace}", revision="abc")
        self.gauge("broker_connected", 1 if pace == 1 else 0)
        for cause in ("api", "credentials"):
            self.gauge("hold", 0 if pace == 1 else 1, cause=cause)
            self.gauge("accounts_held", pace - 1, cause=cause)
        self.gauge("concurrency", 64)
        for name in ("in_flight", "waiting", "blocked_by_order"):
            self.gauge(name, 6 * pace * flow)
        head = self.begin - 100 * pace
        self.series("rename_worker_queue_head_timestamp_seconds", {}, lambda since: head + since * flow)
        for outcome, reason, share in (("renamed", "none", 10), ("failed", "rejected", pace)):
            self.counter("outcomes_total", share * flow, outcome=outcome, reason=reason)
            self.histogram("request_duration_seconds", outcome=outcome)
        for redelivered in ("false", "true"):
            self.counter("requests_consumed_total", flow, redelivered=redelivered)
        for kind in ("rename", "token"):
            self.histogram("api_call_duration_seconds", kind=kind)
            self.counter("api_calls_total", 10 * flow, kind=kind, status="200")
            self.counter("api_calls_total", pace * flow, kind=kind, status="503")
        self.histogram("request_age_seconds")
        for name, labels in {
            "deliveries_near_limit_total": {},
            "confirmations_total": {"result": "found"},
            "deferrals_total": {"delay": "5s"},
            "events_published_total": {"type": "user.renamed"},
            "event_publish_failures_total": {"type": "user.renamed"},
            "events_unrouted_total": {"type": "user.renamed"},
            "dead_letters_total": {"reason": "rejected"},
            "undeliverable_total": {"cause": "unreadable"},
            "log_lines_dropped_total": {},
            "broker_reconnects_total": {},
        }.items():
            self.counter(name, flow, **labels)
        for name in ("process_cpu_seconds_total", "process_resident_memory_bytes"):
            self.series(name, {}, lambda since: 1 + pace * since)

    def broker(self):
        """The queues, as two nodes report them: the same number each."""
        for node in ("n1", "n2"):
            for queue in (REQUESTS, "rename.due", LETTERS, "rename.undeliverable", "rename.wait.5s"):
                for what in ("messages_ready", "messages_unacked", "consumers"):
                    self.queue(what, queue, 5 * self.pace, node)


def written() -> str:
    lines = []

    def installation(world: str, namespace: str, pace: int, *, busy: bool = True, begin: int | None = None):
        samples = Samples(world, namespace, pace, begin)
        samples.worker(busy)
        samples.broker()
        lines.extend(samples.lines)

    installation("alone", "staging", 1)
    installation("together", "staging", 1)
    installation("together", "production", 3)
    installation("idle", "staging", 1, busy=False)
    # One scrape.
    installation("begun", "staging", 1, begin=0)
    # Five letters, then the pod is replaced by another one, two minutes ago.
    before, after = Samples("restarted", "staging", 1), Samples("restarted", "staging", 1, begin=120)
    before.end -= 135
    letters = "rename_worker_dead_letters_total"
    before.series(letters, {"reason": "rejected"}, lambda since: 0 if since < SPAN - 400 else 5)
    after.series(letters, {"reason": "rejected"}, lambda _: 0, instance="w2:9090")
    lines += before.lines + after.lines
    return "\n".join([*lines, "# EOF\n"])


@unittest.skipUnless(shutil.which("prometheus") and shutil.which("promtool"), "no Prometheus")
class Dashboard(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        scratch = cls.enterClassContext(tempfile.TemporaryDirectory())
        folder = pathlib.Path(scratch)
        (folder / "samples").write_text(written())
        (folder / "prometheus.yaml").write_text("{}")
        backfill = ["promtool", "tsdb", "create-blocks-from", "openmetrics", folder / "samples", folder / "data"]
        subprocess.run(backfill, check=True, capture_output=True)
        with socket.create_server(("127.0.0.1", 0)) as free:
            cls.address = f"127.0.0.1:{free.getsockname()[1]}"
        cls.prometheus = subprocess.Popen(
            [
                "prometheus",
                f"--config.file={folder / 'prometheus.yaml'}",
                f"--storage.tsdb.path={folder / 'data'}",
                "--storage.tsdb.retention.time=1y",
                f"--web.listen-address={cls.address}",
                "--log.level=error",
            ]
        )
        cls.addClassCleanup(cls.prometheus.wait)
        cls.addClassCleanup(cls.prometheus.terminate)
        deadline = time.monotonic() + 60
        while not cls.ready():
            assert time.monotonic() < deadline and cls.prometheus.poll() is None, "Prometheus did not start"
            time.sleep(0.1)

    @classmethod
    def ready(cls) -> bool:
        try:
            with urllib.request.urlopen(f"http://{cls.address}/-/ready", timeout=5) as answer:
                return answer.status == 200
        except (urllib.error.URLError, ConnectionError):
            return False

    def ask(self, query: str, world: str) -> dict[str, str]:
        """Label sets and values, without those that are no number, which Grafana shows as a gap."""
        asked = urllib.parse.urlencode({"query": query, "time": END[world]})
        with urllib.request.urlopen(f"http://{self.address}/api/v1/query?{asked}", timeout=30) as answer:
            found = json.load(answer)["data"]["result"]
        return {
            json.dumps(one["metric"], sort_keys=True): one["value"][1] for one in found if one["value"][1] != "NaN"
        }

    def shown(self, title: str, world: str, namespace: str = "staging") -> list[dict[str, str]]:
        return [self.ask(filled_in(query, namespace), world) for panel, query in queries() if panel == title]

    def test_every_query_shows_the_selected_installation_and_nothing_of_another(self):
        for title, query in queries():
            if title == "Installations":
                continue
            with self.subTest(panel=title, query=query):
                alone = self.ask(filled_in(query, "staging"), "alone")
                self.assertTrue(alone, "no data")
                self.assertEqual(self.ask(filled_in(query, "staging"), "together"), alone)
                other = self.ask(filled_in(query, "production"), "together")
                self.assertTrue(other, "no data of the other one")
                # One worker each, of another version.
                self.assertNotEqual(*((other, alone) if title == "Workers" else (list(other.values()), list(alone.values()))))

    def test_a_gone_installation_is_named_beside_those_that_run(self):
        (found,) = self.shown("Installations", "together")
        both = {json.dumps({"job": "rename-worker", "namespace": name}): "1" for name in ("production", "staging")}
        self.assertEqual(found, both)
        query = dict(queries())["Installations"]
        asked = urllib.parse.urlencode({"query": query, "time": END["together"] + 3600})
        with urllib.request.urlopen(f"http://{self.address}/api/v1/query?{asked}", timeout=30) as answer:
            later = json.load(answer)["data"]["result"]
        self.assertEqual([one["value"][1] for one in later], ["0", "0"])

    def test_where_nothing_is_scraped_no_query_shows_a_number(self):
        for title, query in queries():
            with self.subTest(panel=title, query=query):
                self.assertEqual(self.ask(filled_in(query, "staging"), "empty"), {})

    def test_while_nothing_happens_there_is_no_share_and_no_age(self):
        for title in ("Failed share", "Transient failures, share of calls", "Oldest request"):
            with self.subTest(panel=title):
                for found in self.shown(title, "idle"):
                    self.assertEqual(found, {})
        self.assertEqual(self.shown("Requests finished", "idle"), [{"{}": "0"}])
        texts = {panel["title"]: panel["fieldConfig"]["defaults"].get("noValue") for panel in DASHBOARD["panels"] if panel["type"] == "stat"}
        self.assertEqual(texts["Failed share"], "no outcomes")

    def test_one_scrape_is_no_rate_no_share_and_no_age(self):
        for title, query in queries():
            if any(function in query for function in ("rate(", "increase(", "changes(")):
                with self.subTest(panel=title, query=query):
                    self.assertEqual(self.ask(filled_in(query, "staging"), "begun"), {})

    def test_what_a_replaced_worker_counted_is_still_shown(self):
        (found,) = self.shown("Dead letters by reason", "restarted")
        self.assertGreater(float(found['{"reason": "rejected"}']), 4)

    def test_a_queue_that_two_nodes_report_is_counted_once(self):
        self.assertEqual(self.shown("Backlog", "alone"), [{"{}": "10"}])
        self.assertEqual(self.shown("Dead letters waiting", "alone"), [{"{}": "10"}])


if __name__ == "__main__":
    unittest.main()
