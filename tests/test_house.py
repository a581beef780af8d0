"""The house: arrows between folders, public names, imports without side effects, chapters."""

import ast
import collections
import json
import os
import re
import subprocess
import sys

import nbformat
import pytest
from conftest import ROOT

HELPERS = sorted((ROOT / "helpers").rglob("*.py"))
NOTEBOOKS = sorted((ROOT / "notebooks").glob("[0-9][0-9]*_*.ipynb"))


def test_folders_import_only_what_stands_below_them():
    command = "from importlinter.cli import lint_imports_command as lint; lint(['--no-cache'])"
    done = subprocess.run([sys.executable, "-c", command], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_no_public_name_stands_for_two_things():
    places = collections.defaultdict(list)
    for path in HELPERS:
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
                places[node.name].append(path.stem)
    assert {name: where for name, where in places.items() if len(where) > 1} == {}


def test_importing_the_package_changes_nothing():
    code = """
import logging, os, sys, warnings
def state():
    limits = [sys.getrecursionlimit(), list(sys.path), logging.root.level]
    return [dict(os.environ), [str(rule) for rule in warnings.filters], *limits]
before = state()
import helpers
assert state() == before
assert not [name for name in sys.modules if name.split('.')[0] in ('torch', 'transformers')]
print("same")
"""
    # a bare environment: this process has imported the package, and a child would inherit its marks
    bare = {name: os.environ[name] for name in ("PATH", "HOME", "SYSTEMROOT") if name in os.environ}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, env=bare, capture_output=True, text=True)
    assert done.stdout.strip() == "same", done.stderr


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem.split("_")[0])
def test_a_chapter_opens_core_and_at_most_three_more_folders(path):
    code = [c.source for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code"]
    opened = set()
    for line in "\n".join(code).splitlines():
        match = re.match(r"\s*from (helpers\.\w+|benchmarks|tests)\b", line)
        if match:
            opened.add(match[1].removeprefix("helpers."))
    assert "tests" not in opened
    assert len(opened - {"core", "colab", "benchmarks"}) <= 3, opened


def test_links_between_chapters_lead_somewhere():
    for path in NOTEBOOKS:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        prose = "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")
        targets = re.findall(r"\]\((?!https?:|#|attachment:)([^)#]+)", prose)
        assert any(target.endswith(".ipynb") for target in targets), f"{path.name} links no chapter"
        for target in targets:
            assert (path.parent / target).exists(), f"{path.name} links {target}"
