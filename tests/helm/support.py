"""What the chart's tests share: the real helm, the cases, and manifests read strictly."""

import functools
import json
import os
import pathlib
import subprocess
import sys
import tomllib

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
CHART = ROOT / "helm" / "rename-worker"
TOOLS = ROOT / "target" / "tools"
sys.path.insert(0, str(TOOLS / "python"))

import yaml  # noqa: E402
from kubernetes_validate.utils import all_versions  # noqa: E402

CASES = {case.stem: case for case in sorted((HERE / "cases").glob("*.yaml"))}
# The oldest and the newest that there are schemas for.
VERSIONS = [".".join(version.split(".")[:2]) for version in (all_versions()[0], all_versions()[-1])]


class Refused(Exception):
    """Helm refused the values; its message is what the user reads."""


def helm(*arguments: str, given: str | None = None) -> str:
    """What helm prints. Its caches and settings stay out of the user's home."""
    home = TOOLS / "helm-home"
    env = {**os.environ, "HELM_CACHE_HOME": str(home), "HELM_CONFIG_HOME": str(home), "HELM_DATA_HOME": str(home)}
    done = subprocess.run(
        [TOOLS / "helm", *arguments], input=given, capture_output=True, text=True, env=env
    )
    if done.returncode:
        raise Refused(done.stderr + done.stdout)
    return done.stdout


def template(values: dict, version: str = VERSIONS[-1], release: str = "renames") -> list[dict]:
    """The manifests of these values."""
    text = helm(
        "template", release, str(CHART), "--namespace", "crm", "--kube-version", version, "--values", "-",
        given=json.dumps(values),
    )  # fmt: skip
    return [document for document in yaml.load_all(text, Loader=Strict) if document]


@functools.cache
def rendered(case: str, version: str = VERSIONS[-1]) -> tuple[dict, ...]:
    return tuple(template(values(case), version))


def values(case: str) -> dict:
    return yaml.load(CASES[case].read_text(), Loader=Strict)


def overlaid(under: dict, over: dict) -> dict:
    """As helm lays values over each other."""
    both = dict(under)
    for key, value in over.items():
        deeper = isinstance(value, dict) and isinstance(both.get(key), dict)
        both[key] = overlaid(both[key], value) if deeper else value
    return both


def only(manifests, kind: str, name: str | None = None) -> dict:
    found = [m for m in manifests if m["kind"] == kind and name in (None, m["metadata"]["name"])]
    assert len(found) == 1, f"{len(found)} of kind {kind} named {name}"
    return found[0]


def kinds(manifests) -> list[str]:
    return [manifest["kind"] for manifest in manifests]


def pods(manifests) -> list[tuple[str, dict]]:
    """The pods to come: (name, {metadata, spec})."""
    found = []
    for manifest in manifests:
        if manifest["kind"] == "Pod":
            found.append((manifest["metadata"]["name"], manifest))
        elif "template" in manifest.get("spec", {}):
            found.append((manifest["metadata"]["name"], manifest["spec"]["template"]))
    return found


def worker(manifests) -> dict:
    return only(manifests, "Deployment")["spec"]["template"]


def settings(manifests) -> dict:
    """The settings file, parsed."""
    return tomllib.loads(settings_text(manifests))


def settings_text(manifests) -> str:
    (config,) = [m for m in manifests if m["kind"] == "ConfigMap" and "rename-worker.toml" in m["data"]]
    return config["data"]["rename-worker.toml"]


def files(pod: dict) -> dict[str, tuple[str, str, str]]:
    """What is mounted: path → (kind, object, key)."""
    volumes = {volume["name"]: volume for volume in pod["spec"]["volumes"]}
    found = {}
    for mount in pod["spec"]["containers"][0]["volumeMounts"]:
        for source in volumes[mount["name"]].get("projected", {}).get("sources", []):
            ((kind, content),) = source.items()
            for item in content["items"]:
                found[f"{mount['mountPath']}/{item['path']}"] = (kind, content["name"], item["key"])
    return found


class Strict(yaml.SafeLoader):
    """Refuses a key that comes twice, of which YAML and helm would silently drop one."""


def _mapping(loader, node):
    seen = set()
    for key, _ in node.value:
        if key.value in seen:
            raise yaml.constructor.ConstructorError(None, None, f"{key.value} comes twice", key.start_mark)
        seen.add(key.value)
    return loader.construct_mapping(node, deep=True)


Strict.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)
# Kubernetes reads YAML 1.2 by way of JSON: "=" and dates are plain strings there.
Strict.yaml_implicit_resolvers = {
    first: [(tag, regexp) for tag, regexp in resolvers if tag not in ("tag:yaml.org,2002:timestamp", "tag:yaml.org,2002:value")]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}  # fmt: skip
