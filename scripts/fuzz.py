#!/usr/bin/env python3
"""Builds the fuzz targets and runs each for a while: make fuzz, make fuzz-short.

    scripts/fuzz.py SECONDS [TARGET…]

It needs nothing but cargo and a C++ compiler: the engine is libFuzzer, which comes as a crate, and
the coverage comes from options that a stable rustc has (scripts/fuzz-rustc.sh). What was found
useful stays in target/fuzz/corpus and begins the next run; what is found wrong is written to
target/fuzz/found, and the run fails. To see one again: scripts/fuzz.py --again FILE."""

import filecmp
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tomllib
from concurrent.futures import ThreadPoolExecutor

ROOT = pathlib.Path(__file__).resolve().parent.parent
FUZZ = ROOT / "fuzz"
TARGET = ROOT / "target" / "fuzz"
FOUND = TARGET / "found"

# The longest input, in bytes, where libFuzzer's own 4,096 are too few or too many.
MAX_LEN = {"frames": 16384, "headers": 16384, "retry_after": 64, "secrets": 256}
# One input may take this long, in seconds; all of them together this much memory, in MiB.
ONE_INPUT = 10
MEMORY = 1024
# As many at once as a runner has cores; each target uses one.
AT_ONCE = 2


def targets():
    manifest = tomllib.loads((FUZZ / "Cargo.toml").read_text())
    return [target["name"] for target in manifest["bin"]]


def take_lock():
    """The root's lock file is the targets' too; cargo adds to it what only they use."""
    ours, taken, made = ROOT / "Cargo.lock", TARGET / "Cargo.lock.taken", FUZZ / "Cargo.lock"
    if made.exists() and taken.exists() and filecmp.cmp(ours, taken, shallow=False):
        return
    TARGET.mkdir(parents=True, exist_ok=True)
    shutil.copy(ours, made)
    shutil.copy(ours, taken)


def build():
    if not any(shutil.which(compiler) for compiler in (os.environ.get("CXX", "c++"), "g++", "clang++")):
        if os.environ.get("STRICT") == "1":
            sys.exit("fuzz: there is no C++ compiler (Debian: g++), which libFuzzer needs")
        print("SKIPPED: nothing is fuzzed, since there is no C++ compiler (Debian: g++)")
        sys.exit(0)
    take_lock()
    environment = dict(os.environ, RUSTC_WRAPPER=str(ROOT / "scripts" / "fuzz-rustc.sh"))
    cargo = ["cargo", "build", "--quiet", "--bins", "--target-dir", str(TARGET)]
    built = subprocess.run(cargo, cwd=FUZZ, env=environment, check=False)
    if built.returncode:
        sys.exit("fuzz: the targets cannot be built")


def command(target):
    return [str(TARGET / "debug" / target), f"-timeout={ONE_INPUT}", f"-rss_limit_mb={MEMORY}"]


def run(target, seconds):
    corpus = TARGET / "corpus" / target
    corpus.mkdir(parents=True, exist_ok=True)
    options = [f"-max_total_time={seconds}", f"-artifact_prefix={FOUND}/{target}-", "-print_final_stats=1"]
    options.append(f"-max_len={MAX_LEN.get(target, 4096)}")
    dictionary = FUZZ / "dictionaries" / f"{target}.dict"
    if dictionary.exists():
        options.append(f"-dict={dictionary}")
    folders = [str(corpus), str(FUZZ / "seeds" / target)]
    # The message says what is wrong; the steps to it are for `--again`.
    ran = subprocess.run(
        command(target) + options + folders,
        env=dict(os.environ, RUST_BACKTRACE="0"),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    said = ran.stdout.decode(errors="replace")
    runs = re.search(r"number_of_executed_units: (\d+)", said)
    covered = re.findall(r" cov: (\d+) ft: (\d+)", said)
    told = f"{int(runs[1]):,} inputs" if runs else "ended early"
    if covered:
        told += f", {int(covered[-1][0]):,} branches"
    fine = ran.returncode == 0
    # In one piece, since the other thread prints too.
    sys.stdout.write(f"fuzz: {target:<12} {told}{'' if fine else ': FOUND SOMETHING'}\n")
    sys.stdout.flush()
    if not fine:
        begin = re.search(r"^thread .* panicked|^==\d+== *ERROR", said, re.MULTILINE)
        found = re.search(r"Test unit written to (\S+)", said)
        print("\n".join(said[begin.start() if begin else 0 :].splitlines()[:8]))
        if found:
            print(f"fuzz: again: scripts/fuzz.py --again {found[1]}", flush=True)
    return fine


def main():
    arguments = sys.argv[1:]
    if not arguments:
        sys.exit(__doc__)
    build()
    if arguments[0] == "--again":
        found = pathlib.Path(arguments[1]).resolve()
        target = found.name.rsplit("-", 2)[0]
        sys.exit(subprocess.run([*command(target), str(found)], check=False).returncode)
    seconds, chosen = int(arguments[0]), arguments[1:] or targets()
    FOUND.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        results = list(pool.map(lambda target: run(target, seconds), chosen))
    sys.exit(0 if all(results) else 1)


main()
