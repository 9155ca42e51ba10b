"""Times what a request's ids cost in Python. ``python -m tests.service.bench_ids --json``.

200 candidates: parsed as integers, as decimal strings, as UUIDs; UUIDs numbered, digested. 512 ids
more in a negative cache that is full, with an OrderedDict and with a dict.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable
from itertools import count
from time import perf_counter
from typing import Annotated, Any

import numpy as np
import orjson
import typer

from feature_store.contract import MISSING
from feature_store.text_ids import TextIds, new_key
from service.api.score_models import (
    mapped_score_request,
    score_request,
    score_request_with_text,
)
from service.items.negative_cache import CAPACITY, NegativeCache

CANDIDATES, MORE, MOST = 200, 512, 5000


class OldestOfDict(dict[int, Any]):
    """What OrderedDict does here, by a dict."""

    def popitem(self, last: bool = True) -> tuple[int, Any]:
        assert not last
        key = next(iter(self))
        return key, self.pop(key)


def measured() -> dict[str, float]:
    """Median microseconds of each."""
    numbers = [2**62 + n for n in range(CANDIDATES)]
    uuids = [str(uuid.uuid4()) for _ in range(CANDIDATES)]
    key = new_key()
    kept, unheard = TextIds(key), TextIds(key)
    kept.numbers(uuids)
    fresh = (map(str, (uuid.uuid4() for _ in range(CANDIDATES))) for _ in count())
    return {
        "parse_integers_us": _parsing(score_request(MOST), numbers),
        "parse_decimal_strings_us": _parsing(
            score_request_with_text(MOST), list(map(str, numbers))
        ),
        "parse_uuids_us": _parsing(mapped_score_request(MOST), uuids),
        "number_uuids_us": _median(unheard.numbers, lambda: list(next(fresh))),
        "number_uuids_cached_us": _median(kept.numbers, lambda: uuids),
        "digest_uuids_us": _median(lambda texts: [_digest(t, key) for t in texts], lambda: uuids),
        "digest_uuids_unkeyed_us": _median(lambda ts: [_digest(t, b"") for t in ts], lambda: uuids),
        "unknown_items_us": _full_cache(NegativeCache()),
        "unknown_items_in_a_dict_us": _full_cache(_of_dict()),
    }


def _parsing(model: Any, ids: list[Any]) -> float:
    body = orjson.dumps({"user_id": ids[0], "candidates": ids})
    return _median(model.model_validate_json, lambda: body)


def _digest(text: str, key: bytes) -> int:
    digest = hashlib.blake2b(text.encode(), digest_size=8, key=key).digest()
    return int.from_bytes(digest, "big") >> 1


def _of_dict() -> NegativeCache:
    cache = NegativeCache()
    cache._status = OldestOfDict()  # type: ignore[assignment]
    return cache


def _full_cache(cache: NegativeCache) -> float:
    """512 ids more, one batch after another, once all that it held at first are gone."""
    first = count(0, MORE)
    status, counts = np.full(MORE, MISSING, np.uint8), np.zeros(MORE, np.int64)

    def batch() -> Any:
        start = next(first)
        return np.arange(start, start + MORE)

    for _ in range(2 * CAPACITY // MORE):
        cache.keep(batch(), status, counts)
    return _median(lambda ids: cache.keep(ids, status, counts), batch, repeats=100)


def _median(run: Callable[[Any], Any], make: Callable[[], Any], repeats: int = 300) -> float:
    times = []
    for _ in range(repeats):
        given = make()
        began = perf_counter()
        run(given)
        times.append(1e6 * (perf_counter() - began))
    return round(float(np.median(times)), 1)


def main(as_json: Annotated[bool, typer.Option("--json")] = False) -> None:
    found = measured()
    if as_json:
        print(orjson.dumps(found).decode())
        return
    for name, microseconds in found.items():
        print(f"{name:28} {microseconds:8.1f}")


if __name__ == "__main__":
    typer.run(main)
