"""compose.yaml: Compose accepts it, and what it names is there.

Skipped where there is no Compose.
"""

import json
import pathlib
import shutil
import subprocess
import sys
import unittest

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "target" / "tools" / "python"))

import yaml  # noqa: E402


def compose() -> list[str] | None:
    """The command, of either generation."""
    for command in (["docker", "compose"], ["docker-compose"]):
        if shutil.which(command[0]) and subprocess.run([*command, "version"], capture_output=True).returncode == 0:
            return command
    return None


@unittest.skipUnless(compose(), "no Compose")
class Compose(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        done = subprocess.run([*compose(), "config"], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        cls.services = yaml.safe_load(done.stdout)["services"]

    def test_everything_to_look_at_is_there(self):
        self.assertEqual(set(self.services), {"rabbitmq", "sandbox", "worker", "requests", "prometheus", "grafana"})

    def test_what_is_mounted_exists(self):
        for name, service in self.services.items():
            for volume in service.get("volumes", []):
                source = volume["source"] if isinstance(volume, dict) else volume.split(":")[0]
                with self.subTest(service=name, source=source):
                    self.assertTrue(pathlib.Path(source).exists())

    def test_ports_are_this_machine_s_only(self):
        for name, service in self.services.items():
            for port in service.get("ports", []):
                with self.subTest(service=name):
                    host = port["host_ip"] if isinstance(port, dict) else port.split(":")[0]
                    self.assertEqual(host, "127.0.0.1")

    def test_our_own_containers_run_as_in_the_cluster(self):
        for name in ("sandbox", "worker", "requests"):
            service = self.services[name]
            with self.subTest(service=name):
                self.assertIs(service["read_only"], True)
                self.assertEqual(service["cap_drop"], ["ALL"])
                self.assertEqual(service["security_opt"], ["no-new-privileges:true"])
                self.assertNotIn("user", service)

    def test_requests_name_users_that_the_sandbox_has(self):
        def lines(file):
            return [json.loads(line) for line in (ROOT / "compose" / file).read_text().splitlines()]

        users = {user["username"]: user["id"] for user in lines("users.jsonl")}
        requests = lines("requests.jsonl")
        # `publish` draws an id for each, so that every round asks anew.
        self.assertFalse(any("request_id" in request for request in requests))
        # To and fro, so that the next round finds everybody where this one did.
        renames = {(request["username"], request["new_username"]) for request in requests}
        back = {(old, new) for old, new in renames if (new, old) in renames}
        self.assertGreater(len(back), 20)
        fails = {old for old, _ in renames - back}
        self.assertEqual(len(fails & users.keys()), 2, "one finds its name taken, one is another user")

    def test_publish_accepts_the_requests(self):
        program = ROOT / "target" / "debug" / "rename-worker"
        if not program.exists():
            self.skipTest("rename-worker is not built")
        done = subprocess.run([program, "publish", "--dry-run", "compose/requests.jsonl"], cwd=ROOT, capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stderr)

    def test_promtool_accepts_prometheus_settings(self):
        promtool = shutil.which("promtool") or shutil.which(ROOT / "target" / "tools" / "promtool")
        if not promtool:
            self.skipTest("no promtool")
        done = subprocess.run([promtool, "check", "config", ROOT / "compose" / "prometheus.yaml"], capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)


if __name__ == "__main__":
    unittest.main()
