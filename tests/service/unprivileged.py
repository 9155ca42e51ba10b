"""The service as the image runs it: as uid 10001, without capabilities."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import replace
from functools import cache
from pathlib import Path

from tests.service.world import World

UID = 10001
ROOT = Path(__file__).parents[2]
LIBRARIES = os.pathsep.join((str(ROOT), sysconfig.get_path("purelib")))
WITHOUT = (
    *("setpriv", f"--reuid={UID}", f"--regid={UID}", "--clear-groups"),
    *("--bounding-set=-all", "--inh-caps=-all", "--no-new-privs"),
)
NEEDED = "import numpy, service.settings, uvloop"
INSTEAD = 'shift; exec "$0" "$@"'  # another interpreter than the one named next


class Cannot(Exception):
    """There is no way here to run the service without privileges."""


@cache
def under() -> tuple[str, ...]:
    """What a command is to be preceded by (see ``process.start``). Cannot, where there is no way.

    This interpreter may be in a folder of root's: then another of the same release is taken.
    """
    if os.geteuid() != 0:
        return ()
    release = f"python{sys.version_info.major}.{sys.version_info.minor}"
    others = [shutil.which(release, path="/usr/local/bin:/usr/bin"), shutil.which("setpriv")]
    if others[1] is None:
        raise Cannot("setpriv is missing: it is part of util-linux")
    for interpreter in (sys.executable, others[0]):
        prefix = (*WITHOUT, "sh", "-c", INSTEAD, str(interpreter))
        asked = [*prefix, "-", "-c", NEEDED]
        environment = {**os.environ, "PYTHONPATH": LIBRARIES}
        if subprocess.run(asked, env=environment, capture_output=True, check=False).returncode == 0:
            return prefix
    raise Cannot(f"uid {UID} may run no {release} that has the service's dependencies")


def variables(folder: Path) -> dict[str, str]:
    """For a service whose private folder is ``folder``, inside one that was lent."""
    return {"PYTHONPATH": LIBRARIES, "QIN_PRIVATE": str(folder), "HOME": str(folder)}


def lend(folder: Path) -> None:
    """Give the folder, and what it holds, to the user the service runs as."""
    if os.geteuid() == 0:
        for path in (folder, *folder.rglob("*")):
            os.chown(path, UID, UID)


def lent(world: World, folder: Path) -> World:
    """A copy of the world's models and store in ``folder``, which is lent."""
    store = Path(world.store.removeprefix("lmdb://"))
    shutil.copytree(world.models, folder / "models")
    shutil.copytree(store, folder / "store")
    lend(folder)
    return replace(world, models=folder / "models", store=f"lmdb://{folder / 'store'}")
