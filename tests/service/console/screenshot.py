"""Takes the picture of the console in the README: ``python -m tests.service.console.screenshot``.

A real service under a real, small load, with a version that is switched meanwhile, in Chromium.
"""

from __future__ import annotations

import random
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import typer

from tests.service.console.browser import driver, launched, log_in, opened_page
from tests.service.console.conftest import ANN, QUIET, Served
from tests.service.lifecycle.conftest import two_versions
from tests.service.process import serving
from tests.service.world import World

PICTURE = Path(__file__).parents[3] / "docs" / "console.png"
SIZE = (1180, 612)
RATE = 40.0  # requests a second, on average
CANDIDATES = 40


def main(
    picture: Path = typer.Argument(PICTURE, help="File to write."),
    seconds: float = typer.Option(65, help="Length of the load before the picture."),
) -> None:
    """Take the picture."""
    with tempfile.TemporaryDirectory(prefix="picture-") as folder:
        world, _ = two_versions(Path(folder))
        with driver() as playwright, launched(playwright) as browser:
            take(browser, world, picture, seconds)
    print(f"{picture}: {picture.stat().st_size:,} bytes")


def take(browser: Any, world: World, picture: Path, seconds: float) -> None:
    """Serve, load, switch, and take the picture of the page Now."""
    settings = {"QIN_ADMIN_TOKEN": f"ann:{ANN}", "QIN_TARGET_MS": "50", **QUIET}
    with (
        serving(world.models, world.store, **settings) as service,
        opened_page(browser, SIZE) as page,
    ):
        served = Served(service, world)
        with asked(served):
            time.sleep(0.6 * seconds)
            with service.admin(ANN) as api:
                assert api.post("/admin/models/small-1/activate").status_code == 200
            time.sleep(0.4 * seconds)
            log_in(page, served)
            page.get_by_label("1 min", exact=True).check()
            page.locator(".state.live").wait_for()
            page.wait_for_timeout(1500)
            page.screenshot(path=str(picture))


@contextmanager
def asked(served: Served) -> Iterator[None]:
    """Within the block, users come at random."""
    ended = threading.Event()

    def ask() -> None:
        ids, users = served.world.ids.tolist(), list(served.world.users)
        with served.service.client() as client:
            while not ended.is_set():
                few = random.sample(ids, CANDIDATES)
                client.post("/v1/score", json={"user_id": random.choice(users), "candidates": few})
                time.sleep(random.expovariate(RATE))

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


if __name__ == "__main__":
    typer.run(main)
