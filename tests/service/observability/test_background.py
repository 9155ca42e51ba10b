"""Background tasks and threads: an error is logged and counted, and the work goes on."""

from __future__ import annotations

import ast
import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from time import perf_counter
from types import SimpleNamespace
from typing import Any

import pytest
import structlog
from prometheus_client import generate_latest

import service
from service.engine.engine import Engine
from service.errors import NotReady
from service.items.store_client import StoreReader
from service.lifecycle import fleet, readiness
from service.lifecycle.fleet import Fleet
from service.lifecycle.item_refresh import ItemRefresher
from service.lifecycle.rollback_monitor import RollbackWindow
from service.lifecycle.watcher import RepositoryWatcher
from service.observability import background
from service.observability import event_loop as pauses
from service.observability import multiprocess as shared_metrics
from service.observability.background import KeptThread, begin, failures, guard_process, keep
from service.observability.metrics import Metrics
from service.observability.multiprocess import MultiprocessExporter
from service.processes.supervisor import Supervisor
from service.settings import Settings
from tests.service.engine_gate import FAR
from tests.service.in_process import ask, client_of, metric, opened
from tests.service.live import until
from tests.service.world import World

GUARD = "observability/background.py"
# A request is a task of its own: its cycle logs what escapes the application, and answers 500.
REQUEST = "server/protocol.py"
NAKED = {"create_task", "ensure_future", "Thread", "Timer", "start_new_thread"}


@pytest.fixture
def counted() -> Iterator[Callable[[background.TaskName], int]]:
    """How often a task has failed since the test began."""
    before = failures()
    with structlog.testing.capture_logs() as lines:
        yield lambda name: failures()[name] - before[name]
    for name, count in failures().items():  # each is logged, with its traceback
        told = [line for line in lines if line.get("task") == name and line.get("exc_info")]
        assert len(told) == count - before[name]


Counted = Callable[[background.TaskName], int]


class Flaky:
    """Raises the first few times it is called, then does as told."""

    def __init__(self, times: int, then: Callable[..., Any] = lambda *_, **__: None) -> None:
        self.left, self.calls, self._then = times, 0, then

    def __call__(self, *args: Any, **named: Any) -> Any:
        self.calls += 1
        if self.left:
            self.left -= 1
            raise RuntimeError("injected")
        return self._then(*args, **named)


def test_no_module_but_the_guard_creates_a_task_or_a_thread() -> None:
    root = Path(service.__file__).parent
    found = []
    for path in sorted(root.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            called = node.func.attr if isinstance(node.func, ast.Attribute) else None
            called = node.func.id if isinstance(node.func, ast.Name) else called
            if called in NAKED:
                found.append(f"{path.relative_to(root)}:{node.lineno} {called}")
    assert [place for place in found if not place.startswith((GUARD, REQUEST))] == []
    assert found, "the guard itself creates them: the search finds something"


async def test_a_loop_that_fails_is_started_again(counted: Counted) -> None:
    going = asyncio.Event()
    step = Flaky(2, going.set)

    async def loop() -> None:
        step()
        await asyncio.Event().wait()

    task = keep("fleet", loop)
    await asyncio.wait_for(going.wait(), FAR)
    assert counted("fleet") == 2
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert counted("fleet") == 2


async def test_a_loop_survives_the_cancellation_of_what_it_waits_for(counted: Counted) -> None:
    """A CancelledError from elsewhere would end the task without a word."""
    waited = list[asyncio.Future[None]]()

    async def loop() -> None:
        waited.append(asyncio.get_running_loop().create_future())
        await waited[-1]

    task = keep("fleet", loop)
    await until(lambda: waited)
    waited[0].cancel()
    await until(lambda: len(waited) == 2)
    assert counted("fleet") == 1
    assert not task.done()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_an_expected_error_of_a_loop_is_for_its_awaiter(counted: Counted) -> None:
    step = Flaky(1, Flaky(1))

    async def loop() -> None:
        try:
            step()
        except RuntimeError:
            if step.calls > 1:
                raise NotReady("that was all") from None
            raise

    with pytest.raises(NotReady):
        await keep("fleet", loop, expected=(NotReady,))
    assert counted("fleet") == 1


async def test_a_supervisor_replaces_a_worker_that_it_failed_to_keep(
    tmp_path: Path, world: World, counted: Counted, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed, there = list[int](), asyncio.Event()

    async def start(number: int, example: bool) -> SimpleNamespace:
        return SimpleNamespace(number=number, kill=lambda: killed.append(number))

    async def end_of(worker: SimpleNamespace) -> int:
        if not killed:
            raise RuntimeError("injected")
        there.set()
        return int(await asyncio.get_running_loop().create_future())

    settings = Settings(bundle=world.models, store=world.store, port=0, admin_port=0, workers=2)
    supervisor = Supervisor(settings, {}, tmp_path, example=False)
    monkeypatch.setattr(supervisor, "_start", start)
    monkeypatch.setattr(supervisor, "_end_of", end_of)
    keeping = begin("supervisor", supervisor._keep_all())
    await asyncio.wait_for(there.wait(), FAR)
    assert killed == [0]
    assert counted("supervisor") == 1
    keeping.cancel()
    await asyncio.gather(keeping, return_exceptions=True)
    for listener in supervisor._listeners:
        listener._listener.close()


async def test_a_failure_that_nothing_waits_for_is_counted(counted: Counted) -> None:
    async def fail() -> None:
        raise RuntimeError("injected")

    async def refuse() -> None:
        raise NotReady("not yet")

    async def cut_short() -> None:
        future = asyncio.get_running_loop().create_future()
        future.cancel()
        await future

    begin("item_fetch", fail())
    begin("item_fetch", refuse(), expected=(NotReady,))
    cancelled = begin("item_fetch", asyncio.sleep(FAR))
    begin("model_load", cut_short())
    await asyncio.sleep(0)
    cancelled.cancel()
    await until(lambda: counted("item_fetch") == counted("model_load") == 1)


async def test_a_thread_that_fails_is_started_again(counted: Counted) -> None:
    ended = threading.Event()
    work = Flaky(2, lambda: ended.wait(FAR))
    thread = KeptThread("engine", work)
    await until(lambda: work.calls == 3)
    assert thread.serves
    assert counted("engine") == 2
    ended.set()
    await asyncio.to_thread(thread.join)
    assert not thread.serves


async def test_what_escapes_every_guard_is_counted(counted: Counted) -> None:
    loop, hook = asyncio.get_running_loop(), threading.excepthook
    try:
        guard_process(loop)
        loop.call_soon(Flaky(1))
        stray = threading.Thread(target=Flaky(1))
        stray.start()
        await until(lambda: counted("other") == 2)
        await asyncio.to_thread(stray.join)
    finally:
        threading.excepthook = hook


@pytest.fixture
async def engine() -> AsyncIterator[Engine]:
    engine = Engine(1, chunk=10, min_chunk=5)
    yield engine
    await asyncio.to_thread(engine.close)


@pytest.mark.parametrize("error", [SystemExit(3), StopIteration(), KeyboardInterrupt()])
async def test_an_engine_thread_survives_whatever_the_graphs_raise(
    engine: Engine, counted: Counted, error: BaseException
) -> None:
    def fail(start: int, end: int) -> None:
        raise error

    with pytest.raises(RuntimeError) as raised:
        await engine.run(fail, 1, perf_counter() + FAR)
    assert raised.value.__cause__ is error
    await engine.run(lambda *_: None, 1, perf_counter() + FAR)
    assert counted("engine") == 0  # the request was told of it
    assert engine.waiting_for == ""


async def test_a_service_is_not_ready_while_an_engine_thread_is_away(
    world: World, counted: Counted, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(world, threads=2) as state, client_of(state) as client:
        monkeypatch.setattr(background, "FIRST_WAIT_S", 2.0)
        take = Flaky(1, state.engine._queue.take)
        monkeypatch.setattr(state.engine._queue, "take", take)
        assert (await ask(state, user_id=1, candidates=[1])).status_code == 200
        await until(lambda: counted("engine") == 1)
        away = await client.get("/readyz")
        assert away.status_code == 503
        assert away.json()["waiting_for"] == "engine threads: 1 of 2 have ended"
        assert (await ask(state, user_id=1, candidates=[1])).status_code == 200
        await until(lambda: not state.engine.waiting_for)
        assert (await client.get("/readyz")).status_code == 200
        assert metric(state, "qin_background_failures_total", task="engine") == failures()["engine"]


async def test_a_service_is_not_ready_once_an_engine_thread_has_ended_for_good(
    world: World,
) -> None:
    async with opened(world) as state, client_of(state) as client:
        state.engine._queue.end()
        await until(lambda: state.engine.waiting_for)
        away = await client.get("/readyz")
        assert (away.status_code, away.json()["waiting_for"]) == (
            503,
            "engine threads: 1 of 1 have ended",
        )
        assert (await client.get("/livez")).status_code == 200


async def test_a_service_whose_engine_gives_no_score_does_not_start(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readiness, "FIRST_SCORE_WITHIN_S", 0.2)
    monkeypatch.setattr(Engine, "_serve", lambda self: None)
    with pytest.raises(TimeoutError, match=r"no first score within 0.2 s: engine threads: 1 of 1"):
        async with opened(world):
            pass


async def test_the_loops_of_a_service_survive_an_error(
    world: World, counted: Counted, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is broken once where it begins its next round; then it goes on."""
    looks: dict[background.TaskName, tuple[object, str]] = {
        "freshness": (ItemRefresher, "_look_at_all"),
        "fleet": (Fleet, "_report"),
        "model_guard": (RollbackWindow, "violation"),
        "loop_watch": (pauses, "perf_counter"),
    }
    broken = dict[background.TaskName, Flaky]()
    async with opened(world, fleet="test") as state:
        for name, (where, attribute) in looks.items():
            true = getattr(where, attribute)
            broken[name] = step = Flaky(1, true)
            replaced = (lambda s: lambda *args: s(*args))(step)  # bound as a method
            monkeypatch.setattr(where, attribute, replaced)
        monkeypatch.setattr(fleet, "REPORT_EVERY_S", 0.0)
        assert state.registry.active is not None
        state.manager.monitor.begin(state.registry.active, state.registry.active)
        for name, step in broken.items():
            await until(lambda name=name, step=step: counted(name) and step.calls > 1)  # type: ignore[misc]


async def test_the_comparing_tasks_survive_an_error(
    world: World, counted: Counted, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Shadow and recheck: broken while taking from their queues, then once more within."""
    async with opened(world) as state:
        version = state.registry.active
        assert version is not None
        for owner, name in ((state.manager.shadow, "shadow"), (state.audit, "recheck")):
            assert owner is not None
            worker = owner._worker  # type: ignore[attr-defined]
            monkeypatch.setattr(worker._queue, "get", Flaky(1, worker._queue.get))
            compared = asyncio.Event()

            async def compare(*_: object, told: asyncio.Event = compared) -> str:
                told.set()
                return "equal"

            monkeypatch.setattr(owner, "_compare", compare)
            given = SimpleNamespace(version=version)
            for _ in range(2):
                worker.offer((given, 0, 0) if name == "shadow" else given)
                state.registry.taken(version)
            await asyncio.wait_for(compared.wait(), FAR)
            assert counted(name) == 1  # type: ignore[arg-type]


async def test_the_following_of_the_models_folder_survives_an_error(
    world: World, counted: Counted, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(world, follow_every_s=0.01) as state:
        look = Flaky(2, lambda *_: [])
        monkeypatch.setattr(RepositoryWatcher, "_look", lambda self: look(self))
        leads = Flaky(1, lambda *_: True)
        monkeypatch.setattr(state.fleet, "leads", leads)
        following = asyncio.ensure_future(state.follow())
        await until(lambda: look.calls > 2)
        assert counted("model_follow") == 3
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)


async def test_a_workers_metrics_go_on_being_written_after_an_error(
    tmp_path: Path, counted: Counted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_metrics, "WRITE_EVERY_S", 0.01)
    async with MultiprocessExporter(Metrics(), tmp_path, 0) as shared:
        write = Flaky(1, shared.write)
        monkeypatch.setattr(shared, "write", write)
        await until(lambda: write.calls > 1)
        assert counted("metrics") == 1


async def test_an_item_fetch_that_fails_fails_its_requests_alone(
    world: World, counted: Counted, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(world, max_table_items=10) as state:
        items = Flaky(1, state.reader.items)
        monkeypatch.setattr(StoreReader, "items", lambda self, ids: items(ids))
        asked = world.ids[20:25].tolist()
        assert (await ask(state, user_id=1, candidates=asked, history=[])).status_code == 500
        assert (await ask(state, user_id=1, candidates=asked, history=[])).status_code == 200
        assert counted("item_fetch") == 1


def test_failures_have_a_series_each_from_the_start() -> None:
    found = samples(Metrics())
    for name in failures():
        assert f'qin_background_failures_total{{task="{name}"}}' in found


def samples(metrics: Metrics) -> list[str]:
    text = generate_latest(metrics.registry).decode()
    return [line.rpartition(" ")[0] for line in text.splitlines()]
