"""What the Dockerfile compiles from: everything the sources take in is let into the context."""

import pathlib
import re
import unittest

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent


class Context(unittest.TestCase):
    def test_every_file_the_sources_take_in_is_let_in(self):
        allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
        for source in (ROOT / "src").rglob("*.rs"):
            for path in re.findall(r'include_(?:str|bytes)!\(\s*"([^"]+)"', source.read_text()):
                taken = (source.parent / path).resolve().relative_to(ROOT)
                with self.subTest(source=str(source.relative_to(ROOT)), taken=str(taken)):
                    self.assertIn(taken.parts[0], allowed)

    def test_every_folder_the_manifest_names_is_let_in(self):
        allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
        named = re.findall(r'^path = "([^"/]+)/', (ROOT / "Cargo.toml").read_text(), re.MULTILINE)
        self.assertLessEqual({*named, "benches"} & {path.name for path in ROOT.iterdir()}, allowed)

    def test_it_compiles_with_the_compiler_the_crate_asks_for(self):
        asked = re.search(r'^rust-version = "(.+)"', (ROOT / "Cargo.toml").read_text(), re.MULTILINE)[1]
        lines = (ROOT / "Dockerfile").read_text().splitlines()
        # Before the first stage, or the stages don't see it.
        before = lines[: next(number for number, line in enumerate(lines) if line.startswith("FROM "))]
        self.assertIn(f"ARG BUILD_IMAGE=rust:{asked}-alpine", before)
        self.assertIn("FROM ${BUILD_IMAGE} AS build", lines)

    def test_every_image_it_builds_on_can_be_pinned(self):
        stages, named = set(), set()
        for line in (ROOT / "Dockerfile").read_text().splitlines():
            if found := re.match(r"FROM (\S+)(?: AS (\S+))?$", line):
                named.add(found[1])
                stages.add(found[2])
        self.assertEqual(named - stages, {"scratch", "${BUILD_IMAGE}"})


if __name__ == "__main__":
    unittest.main()
