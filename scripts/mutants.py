#!/usr/bin/env python3
"""Proves that the simulation can fail: `make mutants`.

Copies src/core and tests/it/simulation into a small crate of their own under target/mutants (the core
compiles alone, so this takes seconds a mutant), lets the simulation pass there once as it is, then
breaks the core in one way after the other. A mutant that the simulation does not notice fails the
script; so does one whose text is no longer in the source. Needs nothing but Python's own library.
"""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PLACE = ROOT / "target" / "mutants"

# As many lives as find every mutant many times over, and finish in seconds.
LIVES = "3000"

# What the core uses, and what the simulation uses besides.
DEPENDENCIES = ["backoff", "governor", "icu_normalizer", "jiff", "lru", "thiserror", "uuid"]
DEV_DEPENDENCIES = ["rand"]

# Name, file under src/core, what stands there, what stands there instead.
MUTANTS = [
    (
        "acknowledges before the broker has confirmed",
        "scheduler/publishing.rs",
        """        self.set_phase(id, Phase::Publishing(Box::new(publishing)));
        self.publish_what_is_due(id, cx);
""",
        """        self.set_phase(id, Phase::Publishing(Box::new(publishing)));
        self.publish_what_is_due(id, cx);
        for part in [PublishPart::Letter, PublishPart::Event, PublishPart::Copy] {
            self.published(id, part, true, cx);
        }
""",
    ),
    (
        "tells an unclear 404 as a failure",
        "policy/verdict.rs",
        "CallStep::Verify | CallStep::Rename if maybe_applied => {",
        "CallStep::Verify | CallStep::Rename if maybe_applied && false => {",
    ),
    (
        "forgets in a copy that an earlier try may have been applied",
        "scheduler/publishing.rs",
        "                    carried: job.carried.clone(),\n",
        """                    carried: super::AttemptHistory {
                        maybe_applied: false,
                        ..job.carried.clone()
                    },
""",
    ),
    (
        "overtakes a request that is away",
        "scheduler/name_order.rs",
        "            if self.is_lost(way) {\n",
        "            if self.is_lost(way) || way.by == ReturnRoute::Ladder {\n",
    ),
    (
        "never resumes after a hold",
        "policy/hold.rs",
        "            (Held { .. } | Probing { .. }, Alive | Throttled(_)) => {\n                (flowing(), HoldChange::Resumed)\n",
        "            (held @ (Held { .. } | Probing { .. }), Alive | Throttled(_)) => {\n                (held, HoldChange::None)\n",
    ),
    (
        "never holds one account alone",
        "policy/hold/account.rs",
        "                            begin(counts, settings.failures, Api)\n",
        "                            begin(counts, u32::MAX, Api)\n",
    ),
    (
        "never resumes an account after its hold",
        "policy/hold/account.rs",
        "        if let (AccountChange::Resumed(_), Some(trouble)) = (change, self.trouble()) {\n",
        "        if let AccountChange::Resumed(_) = change {\n            return AccountChange::None;\n        }\n        if let (AccountChange::Resumed(_), Some(trouble)) = (change, self.trouble()) {\n",
    ),
    (
        "takes every request that a session ended with for poison",
        "scheduler/admission.rs",
        "        } else if unexplained.saturating_add(POISON_MARGIN) >= self.rules.delivery_limit {\n",
        "        } else if delivery_count > 0 {\n",
    ),
    (
        "takes many requests at a time whatever sessions die of",
        "policy/consume_plan.rs",
        "            ConsumeStage::FirstLook(_) | ConsumeStage::Returned(_) => 1,\n",
        "            ConsumeStage::FirstLook(_) | ConsumeStage::Returned(_) => self.prefetch,\n",
    ),
    (
        "gives a message up when the connection is lost",
        "scheduler/lifecycle.rs",
        "            self.line.delivery_lost(ticket, job.source, cut, cx.now);\n",
        "            self.line.release(ticket);\n",
    ),
]


def main() -> int:
    lay_out()
    if not passes():
        print("the simulation fails on the code as it is: look there first", file=sys.stderr)
        return 1
    print(f"as it is: {LIVES} lives keep every promise")
    missed = [name for name, *rest in MUTANTS if not is_noticed(name, *rest)]
    for name in missed:
        print(f"not noticed: a core that {name}", file=sys.stderr)
    return 1 if missed else 0


def is_noticed(name: str, file: str, old: str, new: str) -> bool:
    path = PLACE / "src" / "core" / file
    source = path.read_text()
    if source.count(old) != 1:
        print(f"{file}: this is there {source.count(old)} times, not once:\n{old}", file=sys.stderr)
        sys.exit(1)
    path.write_text(source.replace(old, new))
    try:
        noticed = not passes()
    finally:
        path.write_text(source)
    if noticed:
        print(f"noticed: a core that {name}")
    return noticed


def passes() -> bool:
    """Whether the simulation passes; a mutant that does not compile ends the script."""
    environment = dict(
        os.environ,
        CARGO_TARGET_DIR=str(PLACE / "target"),
        RUSTFLAGS="-Awarnings",
        SIMULATION_LIVES=LIVES,
    )
    environment.pop("SIMULATION_SEED", None)
    build = ["cargo", "test", "--quiet", "--test", "simulation"]
    compiled = subprocess.run([*build, "--no-run"], cwd=PLACE, env=environment, check=False)
    if compiled.returncode != 0:
        sys.exit("it does not compile")
    # An endless loop is a failure too.
    try:
        run = subprocess.run(build, cwd=PLACE, env=environment, capture_output=True, timeout=600)
    except subprocess.TimeoutExpired:
        return False
    return run.returncode == 0


def lay_out() -> None:
    for name in ["src", "tests"]:
        shutil.rmtree(PLACE / name, ignore_errors=True)
    shutil.copytree(ROOT / "src" / "core", PLACE / "src" / "core")
    shutil.copytree(ROOT / "tests" / "it" / "simulation", PLACE / "tests" / "simulation")
    (PLACE / "tests" / "simulation.rs").write_text('#[path = "simulation/mod.rs"]\nmod simulation;\n')
    (PLACE / "src" / "lib.rs").write_text("pub mod core;\n")
    (PLACE / "Cargo.toml").write_text(manifest())
    shutil.copy(ROOT / "Cargo.lock", PLACE / "Cargo.lock")


def manifest() -> str:
    whole = tomllib.loads((ROOT / "Cargo.toml").read_text())
    lines = ["[workspace]", "[package]", 'name = "rename-worker"', 'version = "0.0.0"']
    lines.append(f'edition = "{whole["package"]["edition"]}"')
    for table, names in [("dependencies", DEPENDENCIES), ("dev-dependencies", DEV_DEPENDENCIES)]:
        lines.append(f"[{table}]")
        lines += [f"{name} = {inline(whole['dependencies'][name])}" for name in names]
    # Nobody debugs a mutant.
    lines += ["[profile.dev]", "debug = false"]
    return "\n".join(lines) + "\n"


def inline(value: object) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {inline(item)}" for key, item in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(inline(item) for item in value) + "]"
    if isinstance(value, bool):
        return "true" if value else "false"
    return '"' + re.sub(r'(["\\])', r"\\\1", str(value)) + '"'


if __name__ == "__main__":
    sys.exit(main())
