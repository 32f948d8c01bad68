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
        self.assertIn(f"FROM rust:{asked}-alpine AS build\n", (ROOT / "Dockerfile").read_text())


if __name__ == "__main__":
    unittest.main()
