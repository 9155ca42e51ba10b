"""Which room may import which: one way, downwards. See ``docs/architecture.md`` for the map.

An import counts wherever it stands: at module level, within a function, under ``TYPE_CHECKING``.
It is of the module named, not of the packages that Python loads on the way to it.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest

from tests.rooms import ROOT, TOP, Import, imports, imports_of, lines_of, modules, room_of

# Top-level room → rooms it may import besides itself.
ROOMS = {
    "feature_store": {},
    "training": {"feature_store"},
    "model_export": {"feature_store", "training"},
    "service": {"feature_store", "model_export", "text"},
    "loadtest": {"feature_store", "model_export"},  # knows the service by HTTP alone
    "text": {"feature_store", "training", "model_export"},
    "batch": {"feature_store", "model_export", "service"},
}
BUNDLE = "model_export.bundle"  # what runs without torch: all that these may import of the export
ENCODER = "text.runtime"  # likewise of the text
RUNTIME = ("service", "loadtest", "batch")

# The rooms within the others.
TRAINING: dict[str, set[str]] = {"training": set(), "training.data": {"training"}}
TRAINING["training.evaluation"] = {"training", "training.data"}
TRAINING["training.synthetic"] = {"training", "training.evaluation"}
TRAINING["training.loop"] = {"training", "training.data", "training.evaluation"}
TRAINING["training.tuning"] = {*TRAINING["training.loop"], "training.loop"}
TRAINING["training.bench"] = {*TRAINING["training.loop"], "training.loop", "training.synthetic"}
TRAINING["training.cli"] = set(TRAINING)
TRAINING["training.__main__"] = set(TRAINING)
STORE: dict[str, set[str]] = {f"feature_store.{r}": set() for r in ("redis", "lmdb", "parquet")}
STORE["feature_store.cli"] = set(STORE)
# The bundle runs without torch, so without ``training``.
EXPORT: dict[str, set[str]] = {"training": set(), BUNDLE: set()}
EXPORT["model_export.graphs"] = EXPORT["model_export.fuxictr"] = {"training", BUNDLE}
EXPORT["model_export.quality"] = {"training", BUNDLE, "model_export.graphs"}
EXPORT["model_export.cli"] = set(EXPORT)
EXPORT["model_export.bench"] = set(EXPORT)
LOADTEST: dict[str, set[str]] = {}
for _room in ("generator", "oracle", "analysis", "experiments", "report", "cli"):
    LOADTEST[f"loadtest.{_room}"] = set(LOADTEST)  # each may import those before it
# Of ``training``, the corpus may use the progress callback alone: it is built without torch.
TEXT: dict[str, set[str]] = {
    "training": set(),
    "text.corpus": {"training"},
    "text.tokenizer": set(),
    BUNDLE: set(),
    "model_export.graphs": {"training", BUNDLE},
    "model_export.bench": {"training", BUNDLE, "model_export.graphs"},
}
TEXT["text.encoder"] = {"training", "text.corpus", "text.tokenizer"}
TEXT["text.evaluate"] = {"training", "text.corpus"}
TEXT["text.ablate"] = {*TEXT["text.encoder"], "text.encoder", "text.evaluate"}
TEXT["text.runtime"] = {BUNDLE, "text.tokenizer"}
TEXT["text.content"] = {BUNDLE, "text.tokenizer", "text.runtime"}
TEXT["text.export"] = {
    *TEXT["text.encoder"],
    *TEXT["model_export.bench"],
    "model_export.bench",
    "text.encoder",
    "text.evaluate",
    "text.runtime",
}
TEXT["text.cold"] = {
    *TEXT["text.content"],
    "training",
    "text.ablate",  # its kept results
    "text.content",
    "text.corpus",
    "text.evaluate",
}
TEXT["text.cli"] = set(TEXT)

# Room or file of ``service`` → those it may import besides itself, from the lowest up.
BASE = {"service", "service.context", "service.errors", "service.settings"}
LOW = {*BASE, "service.observability"}
MODELS = {*LOW, "service.admission", "service.engine", "service.items", "service.models"}
CORE = {
    *MODELS,
    "service.artifacts",
    "service.encoding",
    "service.lifecycle",
    "service.scoring",
}
API = {*CORE, "service.access", "service.server", "service.state"}
SERVICE = {
    "service": {},
    "service.errors": {},
    "service.private_directory": {},
    "service.settings": {"service.errors"},
    "service.context": {"service.errors"},
    "service.observability": BASE,
    "service.access": LOW,
    "service.server": LOW,
    "service.engine": LOW,
    "service.admission": {*LOW, "service.engine"},
    "service.artifacts": {*LOW, "service.private_directory"},
    "service.encoding": {*LOW, "service.artifacts", "service.engine"},
    "service.items": {*LOW, "service.private_directory", "service.admission", "service.engine"},
    "service.models": {*LOW, "service.items"},
    "service.scoring": MODELS,
    "service.lifecycle": {
        *MODELS,
        "service.artifacts",
        "service.encoding",
        "service.scoring",
    },
    "service.state": CORE,
    "service.api": API,
    "service.api.oip": {*API, "service.api"},
    "service.console": {*API, "service.api", "service.private_directory"},
    # The two applications put the routes of all together.
    "service.api.admin": {*API, "service.api", "service.api.oip", "service.console"},
    "service.api.app": {*API, "service.api", "service.api.oip"},
    "service.application": {
        *API,
        "service.private_directory",
        "service.api",
        "service.api.admin",
        "service.api.app",
        "service.console",
    },
    "service.processes": {
        *LOW,
        "service.api.admin",  # both applications are given to the server
        "service.api.app",
        "service.application",
        "service.items",
        "service.server",
        "service.state",
    },
    "service.client": {},
    "service.cli": {*BASE, "service.client", "service.observability"},
    "service.__main__": {*LOW, "service.application", "service.cli", "service.processes"},
}

# Of the service, ``batch`` may import the rooms that score; of its own, each those before it.
SCORES = {*CORE, "service.private_directory"} - {"service.encoding"}
BATCH: dict[str, Iterable[str]] = {**SERVICE, "batch": set()}
_above = set(SCORES)
for _room in (
    *("errors", "remote", "job", "units", "processor", "wording"),
    *("output.folder", "output.stdout", "progress", "output.sealed"),
    *("table_place", "sizes", "inputs", "options", "grouping", "survey"),
    *("scoring", "output", "node", "agreement", "work_folder", "worker", "engines", "run"),
    *("dry_run", "compare", "functions"),
    *("cli", "__main__"),
):
    BATCH[f"batch.{_room}"] = {*_above}
    _above.add(f"batch.{_room}")

TABLES = (ROOMS, TRAINING, SERVICE, STORE, EXPORT, LOADTEST, TEXT, BATCH)

MOST_LINES = 370
LONG_BY_NATURE = "service/settings.py"

SAYS = ("import", "Start")


def against(table: Mapping[str, Iterable[str]], found: Iterable[Import]) -> list[Import]:
    """Imports from one room of the table into another that it does not name."""
    rooms = frozenset(table)
    forbidden = []
    for each in found:
        importer = room_of(name_of(each.file), rooms)
        imported = room_of(each.module, rooms)
        if importer and imported and imported not in (importer, *table[importer]):
            forbidden.append(each)
    return forbidden


def name_of(file: str) -> str:
    return file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def beyond_the_runtime(found: Iterable[Import]) -> list[Import]:
    rooms = frozenset({"model_export", BUNDLE, "text", ENCODER})
    return [
        each
        for each in found
        if each.file.startswith(tuple(f"{room}/" for room in RUNTIME))
        and room_of(each.module, rooms) in ("model_export", "text")
    ]


def circles(found: Iterable[Import]) -> list[list[str]]:
    """Groups of files each of which imports, by way of the others, itself (Tarjan's)."""
    arrows = defaultdict(set)
    for each in found:
        arrows[name_of(each.file)].add(each.module)
    order: dict[str, int] = {}
    lowest: dict[str, int] = {}
    stack: list[str] = []
    groups = []

    def visit(module: str) -> None:
        order[module] = lowest[module] = len(order)
        stack.append(module)
        for imported in sorted(arrows[module]):
            if imported not in order:
                visit(imported)
                lowest[module] = min(lowest[module], lowest[imported])
            elif imported in stack:
                lowest[module] = min(lowest[module], order[imported])
        if lowest[module] == order[module]:
            group = stack[stack.index(module) :]
            del stack[stack.index(module) :]
            if len(group) > 1:
                groups.append(sorted(group))

    for module in sorted(arrows):
        if module not in order:
            visit(module)
    return groups


def lines(found: Iterable[Import]) -> str:
    return "\n".join(f"{i.file}:{i.line} imports {i.module}" for i in sorted(found, key=str))


def test_rooms_import_as_the_tables_say() -> None:
    forbidden = [each for t in TABLES for each in against(t, imports())]
    forbidden += beyond_the_runtime(imports())
    assert not forbidden, "imports that the tables do not allow:\n" + lines(forbidden)


def test_no_circle_between_files() -> None:
    assert not circles(imports()), "files that import each other"


def test_every_file_of_the_service_lies_in_a_room() -> None:
    flat = [f for m, f in modules().items() if room_of(m, frozenset(SERVICE)) == "service"]
    assert flat == ["service/__init__.py"], "no room of the table SERVICE has these"


def test_two_rooms_never_import_each_other() -> None:
    """Nor three in a circle: the tables can be climbed down, one room after the other."""
    for table in TABLES:
        left = {room: set(below) for room, below in table.items()}
        while left:
            lowest = {room for room, below in left.items() if not below & set(left)}
            assert lowest, f"allowed both ways: {sorted(left)}"
            left = {room: below for room, below in left.items() if room not in lowest}


def test_no_file_is_longer_than_it_may_be() -> None:
    long = {f for f in modules().values() if lines_of(f) > MOST_LINES}
    assert long == {LONG_BY_NATURE}, f"over {MOST_LINES} lines"


def test_every_room_says_what_it_may_import_and_where_to_start() -> None:
    unsaid = set()
    for file in modules().values():
        if file.endswith("/__init__.py"):
            said = ast.get_docstring(ast.parse((ROOT / file).read_text())) or ""
            if not all(word in said for word in SAYS) or said.startswith(("May", "Start")):
                unsaid.add(file)
    assert not unsaid, f"their docstrings lack a purpose, or one of {SAYS}"


@pytest.mark.parametrize(
    "source",
    [
        "import service.state",
        "from service import state",
        "from service.state import ServiceState",
        "from ..state import ServiceState",
        "def build():\n    from service.state import ServiceState",
        "if TYPE_CHECKING:\n    from service.state import ServiceState",
    ],
)
def test_an_import_is_found_wherever_it_stands(source: str) -> None:
    known = {"service": "service/__init__.py", "service.state": "service/state.py"}
    file = "service/items/table.py"
    found = list(imports_of("service.items.table", file, source, known))
    assert [each.module for each in found] == ["service.state"]
    assert against(SERVICE, found) == found


def test_a_circle_of_three_files_is_found() -> None:
    pairs = [("a", "b"), ("b", "c"), ("c", "a"), ("d", "a")]
    assert circles([Import(f"{a}.py", 1, b) for a, b in pairs]) == [["a", "b", "c"]]
    assert circles([Import(f"{a}.py", 1, b) for a, b in pairs if b != "c"]) == []


def test_every_top_level_room_has_a_row() -> None:
    assert set(ROOMS) == set(TOP)
    packages = {p.parent.name for p in Path(ROOT).glob("*/__init__.py")} - {"tests"}
    assert packages <= set(ROOMS)
