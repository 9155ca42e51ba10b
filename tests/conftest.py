"""What every test process wants, whichever room it tests."""

import gc
import os
import re
import signal
import sys
from functools import cache
from pathlib import Path

import httpx._transports.default as httpx_transports
import pytest
import typer.testing
from hypothesis import settings

# Before numpy and torch are loaded: several threads of small products wait for each other on a busy
# machine, ten times as long as one takes.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Images set this, and every child process would compile this repository's modules again.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

import training  # noqa: F401 — decides how OpenMP waits, before anything loads torch
from tests.redis_fixtures import (  # noqa: F401 — for every room
    cluster,
    redis,
    redis_cluster_url,
    redis_sentinel_url,
    redis_tls_url,
    redis_url,
    sentinels,
    store_url,
    tls,
)

sys.dont_write_bytecode = False

# A third of a command's time in tests: the same application is built for each call.
get_command = getattr(typer.testing, "_get_command", None)  # not part of typer's interface
if get_command is not None:
    typer.testing._get_command = cache(get_command)  # type: ignore[attr-defined]

# 19 ms a client, for certificates that plain HTTP on the loopback does not look at; not part of
# httpx's interface, either.
make_context = getattr(httpx_transports, "create_ssl_context", None)
if make_context is not None:
    httpx_transports.create_ssl_context = cache(make_context)  # type: ignore[attr-defined]

# A busy machine makes a slow example, not a wrong one.
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")

# A shell starts what it puts in the background with SIGINT ignored, and children inherit that; the
# tests of Ctrl-C need it delivered.
signal.signal(signal.SIGINT, signal.default_int_handler)


# By what they take, the longest first; of the rest none takes a fiftieth of the whole.
FIRST = (
    "tests/test_makefile.py",
    "tests/service/console/test_in_a_browser.py",
    "tests/batch/test_ray.py",
    "tests/service/processes/test_workers.py",
    "tests/service/processes/test_drain.py",
    "tests/batch/test_resume.py",
    "tests/service/lifecycle/test_fleet.py",
    "tests/loadtest/test_against_mapped_service.py",
    "tests/service/lifecycle/test_restart.py",
    "tests/training/test_tune.py",
    "tests/service/processes/test_process.py",
    "tests/loadtest/cli/test_cli.py",
    "tests/service/lifecycle/test_automatic_rollback.py",
    "tests/model_export/quality/test_parity.py",
    "tests/service/encoding/test_arriving.py",
    "tests/feature_store/parquet/test_load.py",
    "tests/feature_store/parquet/test_users.py",
    "tests/feature_store/test_contract.py",
    "tests/service/items/test_backends.py",
    "tests/service/api/test_fuzz.py",
    "tests/service/items/test_shared_table.py",
    "tests/training/test_fit.py",
    "tests/test_terminals.py",
    "tests/batch/test_memory.py",
    "tests/batch/test_score.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files first, so that no worker is left alone with one at the end."""
    folder = Path(__file__).parents[1]
    places = {folder / name: place for place, name in enumerate(FIRST)}
    assert all(path.is_file() for path in places), f"FIRST: no such file among {FIRST}"
    items.sort(key=lambda item: places.get(item.path, len(FIRST)))


# Half a million objects are imported and collected, none of them garbage: the collector need not
# look for any, then or whenever a service in this process calls it.
gc.disable()


def pytest_collection_finish(session: pytest.Session) -> None:
    gc.freeze()
    gc.enable()


REASON = re.compile(r"E |[ |]*\|\s+\S*(Error|Exception|Timeout)\b")  # | in a group's traceback


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Why a test was run again, which its passing would hide."""
    for report in terminalreporter.stats.get("rerun", []):
        said = [line for line in report.longreprtext.splitlines() if REASON.match(line)]
        terminalreporter.write_line(f"run again: {report.nodeid} ({report.when})")
        for line in said[:5]:
            terminalreporter.write_line(line)
