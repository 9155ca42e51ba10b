"""Tracebacks of commands show no local variables: keys, tokens and headers are among them."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.rooms import ROOT, TOP, modules

SECRET = "key-of-a-header"
FAULT = """
import importlib, sys
app = importlib.import_module(sys.argv[1] + ".__main__").app

@app.command("fault")
def fault() -> None:
    headers = {"Authorization": "Bearer " + "-".join(["key", "of", "a", "header"])}
    raise RuntimeError("broken")

sys.argv[1:] = ["fault"]
app()
"""


def apps() -> list[tuple[str, set[str]]]:
    """Where the product makes a typer app, and what is turned off there."""
    found = []
    for file in modules().values():
        for node in ast.walk(ast.parse((ROOT / file).read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("typer.Typer", "Typer"):
                off = {k.arg for k in node.keywords if ast.unparse(k.value) == "False" and k.arg}
                found.append((f"{file}:{node.lineno}", off))
    return found


def test_no_app_shows_local_variables() -> None:
    assert len(apps()) >= len(TOP)
    open_ = [place for place, off in apps() if "pretty_exceptions_show_locals" not in off]
    assert open_ == [], "typer.Typer(…, pretty_exceptions_show_locals=False)"


@pytest.mark.parametrize("room", TOP)
def test_a_commands_traceback_has_no_key(room: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FAULT, room], capture_output=True, text=True, cwd=Path(ROOT)
    )
    assert done.returncode == 1
    assert "RuntimeError" in done.stderr
    assert SECRET not in done.stdout + done.stderr
