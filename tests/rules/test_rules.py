"""What promtool can't check of the rules: that each installation is judged by itself, and that each
alert is tested so. Run by `make rules-test`, with the PyYAML that scripts/chart-tools.py fetches.
"""

import pathlib
import re
import sys
import unittest

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path.insert(0, str(ROOT / "target" / "tools" / "python"))

import yaml  # noqa: E402

# What identifies an installation, or the broker of one. `cluster` is there in a global Prometheus only.
IDENTITY = {"cluster", "namespace", "job"}

RULES = [
    rule
    for path in sorted((ROOT / "helm" / "rename-worker" / "rules").glob("*.yaml"))
    for group in yaml.safe_load(path.read_text())["groups"]
    for rule in group["rules"]
]
ALERTS = {rule["alert"]: rule for rule in RULES if "alert" in rule}
TESTS = [
    test
    for path in sorted(HERE.glob("two-installations*.yaml"))
    for test in yaml.safe_load(path.read_text())["tests"]
]


def identity(labels: dict) -> dict:
    return {name: value for name, value in labels.items() if name in IDENTITY | {"vhost"}}


def installations(test: dict) -> set[tuple]:
    """The distinct identities of a test's series."""
    found = set()
    for each in test["input_series"]:
        labels = dict(re.findall(r'(\w+)="([^"]*)"', each["series"]))
        found.add(tuple(sorted(identity(labels).items())))
    return found


class TwoInstallations(unittest.TestCase):
    def test_every_alert_is_tested_with_a_sick_installation_beside_a_healthy_one(self):
        tested = {}
        for test in TESTS:
            self.assertGreaterEqual(len(installations(test)), 2, test["name"])
            for expected in test["alert_rule_test"]:
                with self.subTest(test=test["name"]):
                    # promtool refuses an alert of the healthy one, which is not expected.
                    (alert,) = expected["exp_alerts"]
                    sick = tuple(sorted(identity(alert["exp_labels"]).items()))
                    self.assertIn(sick, installations(test), "the labels are those of the sick installation")
                tested.setdefault(expected["alertname"], []).append(test["name"])
        self.assertEqual(set(tested), set(ALERTS))

    def test_no_rule_joins_series_of_different_installations(self):
        for rule in RULES:
            with self.subTest(rule=rule.get("alert") or rule["record"]):
                self.assertNotRegex(rule["expr"], r"\b(on|ignoring|group_left|group_right)\b")

    def test_every_aggregation_keeps_the_installation_s_labels(self):
        aggregation = re.compile(r"\b(sum|max|min|avg|count|group|quantile|topk|stddev)\b(?!_over_time)\s*(by \(([^)]*)\))?")
        for rule in RULES:
            with self.subTest(rule=rule.get("alert") or rule["record"]):
                for found in aggregation.finditer(rule["expr"].replace(":max", "").replace(":min5m", "")):
                    kept = {name.strip() for name in (found[3] or "").split(",")}
                    self.assertLessEqual(IDENTITY, kept, found[0])

    def test_every_description_names_the_installation(self):
        for name, alert in ALERTS.items():
            with self.subTest(alert=name):
                description = alert["annotations"]["description"]
                self.assertIn("$labels.job", description)
                self.assertIn("$labels.namespace", description)
                # Queues are named by amqp.prefix, so their names come from labels.
                self.assertNotRegex(description, r"\brename\.\w")


if __name__ == "__main__":
    unittest.main()
