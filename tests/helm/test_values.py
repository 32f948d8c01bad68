"""The values: what is refused and how that reads, and that the program agrees."""

import json
import os
import pathlib
import re
import shutil
import subprocess
import tempfile
import tomllib
import unittest

from support import CASES, CHART, HERE, ROOT, TOOLS, Refused, Strict, files, overlaid, rendered
from support import settings, settings_text, template, values, worker

import yaml

REFUSED = yaml.load((HERE / "refused.yaml").read_text(), Loader=Strict)
# What the chart sets other than the program's default, and why.
NOT_THE_DEFAULT = {
    "admin.listen",  # the kubelet and Prometheus come from outside the pod
    "log.format",  # never a terminal
}


def program() -> pathlib.Path | None:
    """rename-worker, if it is built."""
    if named := os.environ.get("RENAME_WORKER_BIN"):
        return pathlib.Path(named).resolve(strict=True)
    built = [ROOT / "target" / profile / "rename-worker" for profile in ("debug", "release")]
    return next((path for path in built if path.exists()), None)


class Refusals(unittest.TestCase):
    def test_a_mistake_is_refused_with_its_place_and_the_way_out(self):
        for row in REFUSED:
            with self.subTest(values=row["values"]):
                with self.assertRaises(Refused) as refusal:
                    template(overlaid(values("minimal"), row["values"]))
                for words in row["says"]:
                    self.assertIn(words, str(refusal.exception))
                for words in row.get("never", []):
                    self.assertNotIn(words, str(refusal.exception))

    def test_nothing_of_a_value_is_unknown_to_the_schema_nor_the_other_way_round(self):
        schema = json.loads((CHART / "values.schema.json").read_text())
        known = yaml.load((CHART / "values.yaml").read_text(), Loader=Strict)
        self.assertEqual(paths_of_values(known, schema), paths_of_schema(schema, schema))


@unittest.skipUnless(program(), "rename-worker is not built")
class Program(unittest.TestCase):
    def check(self, text: str, mounted=()) -> subprocess.CompletedProcess:
        """`config check` of a settings file whose secrets lie in a scratch directory."""
        with tempfile.TemporaryDirectory() as scratch:
            for path in mounted:
                (pathlib.Path(scratch) / pathlib.Path(path).name).write_text("amqps://user:password@host/%2f" if "url" in path else "content")
            file = pathlib.Path(scratch) / "rename-worker.toml"
            file.write_text(text.replace("/etc/rename-worker/secrets", scratch))
            env = {key: value for key, value in os.environ.items() if not key.startswith("RENAME_WORKER_")}
            return subprocess.run(
                [program(), "config", "check", "--skip-files"], capture_output=True, text=True, env={**env, "RENAME_WORKER_CONFIG": str(file)}
            )

    def test_the_program_accepts_the_settings_of_every_case(self):
        for case in CASES:
            with self.subTest(case=case):
                manifests = rendered(case)
                done = self.check(settings_text(manifests), files(worker(manifests)))
                self.assertEqual(done.returncode, 0, done.stderr + done.stdout)

    def test_the_program_refuses_what_the_chart_refuses(self):
        under = settings(rendered("minimal"))
        for row in REFUSED:
            if not row.get("config"):
                continue
            with self.subTest(values=row["values"]):
                done = self.check(toml(overlaid(under, row["values"]["config"])), files(worker(rendered("minimal"))))
                self.assertEqual(done.returncode, 2, done.stderr + done.stdout)


class SettingsTable(unittest.TestCase):
    """The chart against docs/settings.md, which is generated from the program's own table."""

    def test_every_setting_but_secrets_is_a_value_with_the_program_s_default(self):
        ours = yaml.load((CHART / "values.yaml").read_text(), Loader=Strict)["config"]
        theirs = {key: row["default"] for key, row in table().items() if not WIRED.match(f"config.{key}")}
        self.assertEqual({f"{s}.{k}" for s, keys in ours.items() for k in keys}, set(theirs))
        for key, default in theirs.items():
            if key in NOT_THE_DEFAULT:
                continue
            with self.subTest(key=key):
                section, name = key.split(".")
                value = ours[section][name]
                self.assertEqual(",".join(value) if isinstance(value, list) else shown(value), default)

    def test_bounds_are_the_program_s(self):
        bounded = {key: row["bounds"] for key, row in table().items() if row["bounds"]}
        self.assertGreater(len(bounded), 10)
        for end in (0, 1):
            self.accepted({key: bounds[end] for key, bounds in bounded.items()})
        # One millisecond, or one, beyond either end. The schema speaks before the templates do.
        durations = {key: bounds for key, bounds in bounded.items() if isinstance(bounds[0], str)}
        numbers = {key: bounds for key, bounds in bounded.items() if key not in durations}
        for beyond in (
            {key: f"{milliseconds(least) - 1}ms" for key, (least, _) in durations.items() if milliseconds(least)},
            {key: f"{milliseconds(most) + 1}ms" for key, (_, most) in durations.items()},
            {key: least - 1 for key, (least, _) in numbers.items()},
            {key: most + 1 for key, (_, most) in numbers.items()},
        ):
            with self.assertRaises(Refused) as refusal:
                template(overlaid(values("minimal"), {"config": nested(beyond)}))
            for key in beyond:
                self.assertRegex(str(refusal.exception), f"config.{key}: .* does not fit|/config/{key.replace('.', '/')}'")

    def accepted(self, given: dict):
        rendered_ = settings(template(overlaid(values("minimal"), {"config": nested(given)})))
        for key, value in given.items():
            section, name = key.split(".")
            self.assertEqual(rendered_[section][name], value)


class BesideTheChart(unittest.TestCase):
    def test_versions_are_the_crate_s(self):
        crate = tomllib.loads((ROOT / "Cargo.toml").read_text())["package"]
        chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
        self.assertEqual({chart["version"], chart["appVersion"]}, {crate["version"]})

    def test_the_readme_tells_every_value(self):
        subprocess.run([ROOT / "scripts" / "helm-readme.py", "--check"], check=True)

    def promtool(self, verb: str, rules: list, test: dict | None = None) -> subprocess.CompletedProcess:
        promtool = shutil.which("promtool") or shutil.which(TOOLS / "promtool")
        if not promtool:
            self.skipTest("no promtool")
        with tempfile.TemporaryDirectory() as scratch:
            given = {}
            for number, manifest in enumerate(rules):
                given[f"rules{number}.yaml"] = manifest["spec"]
            if test:
                given = {**given, "test.yaml": {**test, "rule_files": list(given)}}
            for name, content in given.items():
                (pathlib.Path(scratch) / name).write_text(yaml.safe_dump(content))
            files_ = ["test.yaml"] if test else list(given)
            return subprocess.run([promtool, verb, "rules", *files_], cwd=scratch, capture_output=True, text=True)

    def test_promtool_accepts_the_rules(self):
        for case in ("everything", "sandbox"):
            done = self.promtool("check", [m for m in rendered(case) if m["kind"] == "PrometheusRule"])
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_a_release_that_was_never_seen_is_missed_while_others_run(self):
        """By its own alerts: those in rules/ can only miss what they have seen."""
        rules = [m for m in rendered("everything") if m["kind"] == "PrometheusRule"]
        other = '{namespace="staging",job="renames-rename-worker",instance="s1:9090"}'
        queue = 'rabbitmq_queue_messages_ready{namespace="staging",job="rabbitmq",vhost="/",queue="crm.rename.requests"}'
        annotations = {rule["alert"]: rule["annotations"] for rule in rules[-1]["spec"]["groups"][0]["rules"]}

        def fires(alert, **labels):
            return {"eval_time": "30m", "alertname": alert, "exp_alerts": [{"exp_labels": labels, "exp_annotations": annotations[alert]}]}

        self.assertTrue(rules[-1]["metadata"]["name"].endswith("-own"))
        test = {
            "evaluation_interval": "30s",
            "tests": [
                {
                    "interval": "1m",
                    "input_series": [
                        {"series": f"rename_worker_build_info{other}", "values": "1x60"},
                        {"series": queue, "values": "0x60"},
                    ],
                    "alert_rule_test": [
                        fires("RenameWorkerAbsent", namespace="crm", job="renames-rename-worker", severity="critical"),
                        fires("RenameWorkerQueuesUnseen", namespace="brokers", job="rabbitmq", vhost="renames", queue="crm.rename.requests", severity="info"),
                    ],
                }
            ],
        }
        done = self.promtool("test", rules, test)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)


def table() -> dict[str, dict]:
    """docs/settings.md: key → its default, and its bounds if it has any."""
    found, section = {}, ""
    for line in (ROOT / "docs" / "settings.md").read_text().splitlines():
        if heading := re.match(r"## `(.+)`", line):
            section = heading[1]
        elif row := re.match(r"\| `(\w+)` \| (.+?) \| (?:`(.*?)`|none) \| ", line):
            bounds = re.search(r"(duration|number) .*?from (\w+) to (\w+)$", row[2])
            found[f"{section}.{row[1]}"] = {"default": row[3], "bounds": bounds and tuple(bound(b) for b in bounds.groups()[1:])}
    return found


def bound(text: str):
    """An int, or a duration in the units the chart takes."""
    return int(text) if text.isdigit() else re.sub("days?", "d", text)


def milliseconds(duration: str) -> int:
    units = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
    return sum(int(number) * units[unit] for number, unit in re.findall(r"(\d+)(ms|s|m|h|d)", duration))


def shown(value) -> str | None:
    """As the table shows it."""
    return value if value is None else json.dumps(value).strip('"')


def nested(keys: dict) -> dict:
    """{"a.b": c} as {"a": {"b": c}}."""
    sections: dict = {}
    for key, value in keys.items():
        section, name = key.split(".")
        sections.setdefault(section, {})[name] = value
    return sections


def toml(sections: dict) -> str:
    """TOML of sections of plain values; JSON's values are TOML's."""
    lines = []
    for name, keys in sections.items():
        lines.append(f"[{name}]")
        lines += [f"{key} = {json.dumps(value)}" for key, value in keys.items()]
    return "\n".join(lines)


# Filled by the user, so that values.yaml can't show what is in them.
OPEN = {"credentials.api.accounts", "global"}
# The chart's to wire; in the schema only so that a template can refuse them in words.
WIRED = re.compile(r"^config\.(amqp|api|otlp|log)\.(url|token|proxy|hash_key|accounts|accounts\..*|client_id|client_secret|.*_file)$")


def paths_of_values(value, schema, at="") -> set[str]:
    if at in OPEN or not isinstance(value, dict) or "properties" not in schema_at(schema, at):
        return {at}
    return {path for key, inner in value.items() for path in paths_of_values(inner, schema, f"{at}.{key}".lstrip("."))}


def paths_of_schema(node, schema, at="") -> set[str]:
    node = resolve(node, schema)
    if at in OPEN or "properties" not in node:
        return {at} - {"global"} if not WIRED.match(at) else set()
    assert node.get("additionalProperties") is False, f"{at or 'the root'} lets unknown keys pass"
    return {path for key, inner in node["properties"].items() for path in paths_of_schema(inner, schema, f"{at}.{key}".lstrip("."))}


def schema_at(schema, at):
    node = schema
    for key in filter(None, at.split(".")):
        node = resolve(node, schema).get("properties", {}).get(key, {})
    return resolve(node, schema)


def resolve(node, schema):
    return schema["definitions"][node["$ref"].split("/")[-1]] if "$ref" in node else node


if __name__ == "__main__":
    unittest.main()
