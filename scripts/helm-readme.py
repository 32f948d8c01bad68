#!/usr/bin/env python3
"""Writes the table of values in the chart's README from the comments in values.yaml.

    scripts/helm-readme.py            rewrites the table
    scripts/helm-readme.py --check    fails when the table is stale, or a value has no description

A description is the comment that begins with "# -- " right above its key, over one or more lines.
Only the standard library is used, so this reads just the YAML that values.yaml is written in:
nested maps by two spaces, everything else on the key's own line.
"""

import pathlib
import re
import sys

CHART = pathlib.Path(__file__).resolve().parent.parent / "helm" / "rename-worker"
BEGIN, END = "<!-- values:begin -->", "<!-- values:end -->"


def main() -> int:
    rows, undescribed = values((CHART / "values.yaml").read_text())
    if undescribed:
        print("values.yaml: no description above " + ", ".join(undescribed), file=sys.stderr)
        return 1
    readme = CHART / "README.md"
    before = readme.read_text()
    head, rest = before.split(BEGIN)
    tail = rest.split(END)[1]
    after = head + BEGIN + "\n" + table(rows) + END + tail
    if "--check" in sys.argv[1:]:
        if after != before:
            print(f"{readme.name} is stale: run `make helm-readme`", file=sys.stderr)
            return 1
        return 0
    readme.write_text(after)
    return 0


def values(text: str) -> tuple[list[tuple[str, str, str]], list[str]]:
    """(path, default, description) of every value, and the paths that lack a description."""
    rows, undescribed = [], []
    path: list[str] = []
    description: list[str] = []
    for number, line in enumerate(text.splitlines(), 1):
        comment = re.match(r" *# ?(.*)", line)
        if comment:
            words = comment[1]
            if words.startswith("-- "):
                description = [words[3:].strip()]
            elif description:
                description.append(words.strip())
            continue
        if not line.strip():
            description = []
            continue
        key = re.match(r"((?:  )*)([A-Za-z_]+):(?: +(.*))?$", line)
        if not key:
            raise SystemExit(f"values.yaml:{number}: not a line this script can read: {line!r}")
        indent, name, default = len(key[1]) // 2, key[2], key[3]
        path = path[:indent] + [name]
        if default is not None:
            if description:
                rows.append((".".join(path), default, " ".join(description)))
            else:
                undescribed.append(".".join(path))
        description = []
    return rows, undescribed


def table(rows: list[tuple[str, str, str]]) -> str:
    lines = ["| value | default | what it is |", "| --- | --- | --- |"]
    for path, default, description in rows:
        cells = [f"`{path}`", f"`{default}`", description]
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
