"""The image `make image` built: it answers, as a container in a cluster is run, and is what it says.

    IMAGE=name:tag python3 -m unittest discover -s tests/image

Skipped where there is no Docker.
"""

import json
import os
import pathlib
import shutil
import subprocess
import tomllib
import unittest
import uuid

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
VERSION = tomllib.loads((ROOT / "Cargo.toml").read_text())["package"]["version"]
IMAGE = os.environ.get("IMAGE") or f"rename-worker:{VERSION}"
# Bytes; what the image must stay under.
SIZE_MAX = 20_000_000
# As the chart runs it.
HARDENED = ["--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges"]


def docker(*arguments: str, check: bool = True) -> subprocess.CompletedProcess:
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True)
    if check and done.returncode:
        raise AssertionError(f"docker {' '.join(arguments)}: {done.stderr}{done.stdout}")
    return done


def docker_runs() -> bool:
    return bool(shutil.which("docker")) and docker("version", check=False).returncode == 0


@unittest.skipUnless(docker_runs(), "no Docker")
class Image(unittest.TestCase):
    def run_image(self, *arguments: str, options=(), check=True) -> subprocess.CompletedProcess:
        return docker("run", "--rm", *HARDENED, *options, IMAGE, *arguments, check=check)

    def inspected(self) -> dict:
        return json.loads(docker("image", "inspect", IMAGE).stdout)[0]

    def test_it_answers_with_its_version(self):
        self.assertEqual(self.run_image("--version").stdout, f"rename-worker {VERSION}\n")

    def test_it_is_small(self):
        self.assertLess(self.inspected()["Size"], SIZE_MAX)

    def test_it_runs_the_worker_as_nobody_unless_told_otherwise(self):
        config = self.inspected()["Config"]
        self.assertEqual(config["User"], "65532:65532")
        self.assertEqual((config["Entrypoint"], config["Cmd"]), (["/rename-worker"], ["run"]))

    def test_it_says_what_it_is(self):
        labels = self.inspected()["Config"]["Labels"]
        names = {name.removeprefix("org.opencontainers.image.") for name in labels}
        self.assertLessEqual({"title", "description", "licenses", "source", "version", "revision", "created"}, names)
        self.assertEqual(labels["org.opencontainers.image.version"], VERSION)
        # Outside a checkout there is no revision to tell.
        if subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, check=False).returncode == 0:
            self.assertNotEqual(labels["org.opencontainers.image.revision"], "unknown")

    def test_it_holds_the_binary_and_the_public_cas_and_nothing_else(self):
        container = docker("create", IMAGE).stdout.strip()
        self.addCleanup(docker, "rm", container)
        export = subprocess.Popen(["docker", "export", container], stdout=subprocess.PIPE)
        listed = subprocess.run(["tar", "-t"], stdin=export.stdout, capture_output=True, text=True, check=True)
        export.stdout.close()
        self.assertEqual(export.wait(), 0)
        files = {name for name in listed.stdout.split() if not name.endswith("/")}
        # What Docker puts into every container.
        dockers = {".dockerenv", "dev/console", "etc/hostname", "etc/hosts", "etc/mtab", "etc/resolv.conf"}
        self.assertEqual(files - dockers, {"rename-worker", "etc/ssl/certs/ca-certificates.crt"})
        self.assertIn("SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt", self.inspected()["Config"]["Env"])

    def test_wrong_settings_are_told_with_exit_code_2(self):
        done = self.run_image("config", "check", options=["--env=RENAME_WORKER_API__TIMEOUT=soon"], check=False)
        self.assertEqual(done.returncode, 2, done.stderr)
        self.assertIn("api.timeout", done.stderr + done.stdout)

    def test_it_finds_another_container_by_its_name(self):
        """A static binary brings its own resolver: it must understand Docker's, as it must a cluster's."""
        network = f"rename-worker-{uuid.uuid4().hex[:8]}"
        docker("network", "create", network)
        self.addCleanup(docker, "network", "rm", network)
        peer = docker(
            "run", "--detach", "--rm", *HARDENED, f"--network={network}", "--network-alias=peer",
            "--env=RENAME_WORKER_ADMIN__LISTEN=0.0.0.0:9090", "--env=RENAME_WORKER_API__TOKEN=none", IMAGE, "run",
        ).stdout.strip()  # fmt: skip
        self.addCleanup(docker, "rm", "--force", peer, check=False)
        # It has no broker, so it is alive and not ready; `status` tells that either way.
        for _ in range(50):
            done = self.run_image("status", "--admin=peer:9090", options=[f"--network={network}"], check=False)
            if done.returncode == 0:
                break
        self.assertEqual(done.returncode, 0, done.stderr + docker("logs", peer).stderr)
        lost = self.run_image("status", "--admin=nobody:9090", options=[f"--network={network}"], check=False)
        self.assertEqual(lost.returncode, 3, lost.stderr)


if __name__ == "__main__":
    unittest.main()
