"""What pytest does not run can be run: measurements, benchmarks and programs held in strings."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from itertools import pairwise
from pathlib import Path
from textwrap import dedent

import pytest

from tests.rooms import ROOT, TOP

OURS = (*TOP, "tests")
RUN = re.compile(rf"-m ((?:{'|'.join(OURS)})(?:\.\w+)*)")
SCRIPTS = ("Makefile", "Dockerfile", "docker-compose.yml")
FOREIGN = {"tests.loadtest.loadgen_client": "mlperf_loadgen"}  # needs what is not installed here
EXAMPLES = ("tests/test_measures_import.py", "tests/test_rooms.py")  # of imports, in strings

# Reads [[module, name or null], …] and prints [[module, name, error], …] of those it cannot import.
IMPORT = """
import importlib, json, sys

failed = []
for module, name in json.load(sys.stdin):
    try:
        found = importlib.import_module(module)
        if name is not None and not hasattr(found, name):
            importlib.import_module(f"{module}.{name}")
    except BaseException as error:
        failed.append([module, name, f"{type(error).__name__}: {error}"])
json.dump(failed, sys.stdout)
"""


def cannot_import(wanted: list[tuple[str, str | None]]) -> dict[tuple[str, str | None], str]:
    """Modules, or names of modules, and why they cannot be imported by one fresh interpreter."""
    done = subprocess.run(
        [sys.executable, "-c", IMPORT],
        input=json.dumps(wanted),
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'docs'}"},
    )
    assert done.returncode == 0, done.stderr
    return {(module, name): why for module, name, why in json.loads(done.stdout)}


@cache
def sources() -> dict[Path, str]:
    """Python files of the product, the tests and the docs."""
    paths = (p for folder in (*OURS, "docs") for p in sorted((ROOT / folder).rglob("*.py")))
    return {path: path.read_text() for path in paths}


def modules_of_tests_and_docs() -> list[str]:
    names = []
    for path in sources():
        top, *rest = path.relative_to(ROOT).with_suffix("").parts
        if top == "docs":
            names.append(".".join(rest))  # scripts, which import each other from their folder
        elif top == "tests":
            names.append(".".join([top, *rest]).removesuffix(".__init__"))
    return names


@cache
def faults() -> dict[tuple[str, str | None], str]:
    """Of all modules and programs, by one interpreter: most of its time are the libraries'."""
    modules: list[tuple[str, str | None]] = [(name, None) for name in modules_of_tests_and_docs()]
    return cannot_import(modules + list(imported_by_programs()))


def test_every_module_of_tests_and_docs_imports() -> None:
    names = modules_of_tests_and_docs()
    assert len(names) > 200
    failed = {
        module: why
        for (module, name), why in faults().items()
        if name is None and module in names and FOREIGN.get(module, "nothing") not in why
    }
    assert not failed, json.dumps(failed, indent=1)


def texts_of(source: str) -> Iterator[tuple[int, str]]:
    """String literals and their lines; ``_`` stands for what an f-string fills in."""
    tree = ast.parse(source)
    parts = {
        id(part)
        for node in ast.walk(tree)
        if isinstance(node, ast.JoinedStr)
        for part in node.values
    }
    for node in ast.walk(tree):
        match node:
            case ast.JoinedStr(values):
                yield (
                    node.lineno,
                    "".join(str(v.value) if isinstance(v, ast.Constant) else "_" for v in values),
                )
            case ast.Constant(str(text)) if id(node) not in parts:
                yield node.lineno, text


def imports_of(text: str) -> Iterator[tuple[str, str | None]]:
    """Imports of our modules by a program, or by the lines of a text that are import statements."""
    try:
        trees = [ast.parse(dedent(text))]
    except (SyntaxError, ValueError):
        trees = []
        for statement in re.split(r"[\n;]", text):
            with suppress(SyntaxError, ValueError):
                trees.append(ast.parse(statement.strip()))
    for node in (node for tree in trees for node in ast.walk(tree)):
        match node:
            case ast.Import(names):
                found: list[tuple[str, str | None]] = [(name.name, None) for name in names]
            case ast.ImportFrom(str(module), names, 0):
                found = [(module, name.name) for name in names]
            case _:
                continue
        yield from (each for each in found if each[0].partition(".")[0] in OURS)


@cache
def imported_by_programs() -> dict[tuple[str, str | None], str]:
    """Of programs in strings, and of the tests' functions; and where."""
    wanted: dict[tuple[str, str | None], str] = {}
    for path, source in sources().items():
        file = str(path.relative_to(ROOT))
        if file.startswith("tests/"):
            wanted |= dict.fromkeys(imports_of(source), file)
        for line, text in texts_of(source) if file not in EXAMPLES else ():
            if "import " in text:
                wanted |= dict.fromkeys(imports_of(text), f"{file}:{line}")
    return wanted


def test_programs_in_strings_and_functions_import_what_there_is() -> None:
    wanted = imported_by_programs()
    assert len(wanted) > 10
    failed = {wanted[each]: why for each, why in faults().items() if each in wanted}
    assert not failed, json.dumps(failed, indent=1)


def runs_of(source: str) -> Iterator[tuple[int, str]]:
    """Modules of ours after ``-m`` in lists and tuples of constants: commands for a process."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.List | ast.Tuple):
            words = [e.value if isinstance(e, ast.Constant) else None for e in node.elts]
            for option, module in pairwise(words):
                if option == "-m" and str(module).partition(".")[0] in OURS:
                    yield node.lineno, str(module)


def test_modules_that_commands_run_are_there() -> None:
    wanted: dict[str, str] = {}
    for path, source in sources().items():
        for line, module in runs_of(source):
            wanted[module] = f"{path.relative_to(ROOT)}:{line}"
    for script in SCRIPTS:
        for module in RUN.findall((ROOT / script).read_text()):
            wanted[module] = script
    assert len(wanted) > 10
    missing = {
        place: module
        for module, place in wanted.items()
        for file in [ROOT / module.replace(".", "/")]
        if not (file.with_suffix(".py").exists() or (file / "__main__.py").exists())
    }
    assert not missing, json.dumps(missing, indent=1)


@pytest.mark.parametrize(
    "text",
    [
        "import service.house",
        "import sys; from service.house import House",
        "\n    import sys\n    from service.house import (\n        House,\n    )\n",
        "not a program\nfrom service.house import House\n",
    ],
)
def test_an_import_of_a_module_that_is_gone_is_found(text: str) -> None:
    (found,) = set(imports_of(text))
    assert cannot_import([found]) == {found: "ModuleNotFoundError: No module named 'service.house'"}


def test_an_import_of_a_name_that_is_gone_is_found() -> None:
    (found,) = set(imports_of("from service.settings import Settings, Prefix")) - {
        ("service.settings", "Settings")
    }
    assert list(cannot_import([found])) == [("service.settings", "Prefix")]
