"""One long text: the blockwise graph against the plain export, ``python -m`` this ``[--json]``.

Two processes with one thread each, in turn; random weights. The plain export is the padded graph of
torch, with a bias of (H, L, L). At 8,192 tokens and base size the plain export needs 11 GB.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import orjson
import torch
import typer

from loadtest.environment import machine
from text.encoder.jinabert import JinaBert
from text.encoder.sizes import EncoderSizes
from text.export.folded import FoldedEncoder
from text.export.long import NAME, long
from text.export.plain import save_plain
from text.runtime.windows import ALL, SPARE

MOST_TIME, MOST_MEMORY, MOST_DIFFERENCE = 0.5, 0.1, 1e-6


class Subject:
    """A graph in its own process."""

    def __init__(self, graph: Path) -> None:
        self.folder = graph.parent
        command = [sys.executable, "-m", "tests.text.export.subject", str(graph)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.loaded = self._answer()

    def run(self, ids: Path, spare: float) -> dict[str, Any]:
        """Encode; return times, the peak of memory and the answers."""
        to = self.folder / "answers.npz"
        assert self._process.stdin is not None
        self._process.stdin.write(
            orjson.dumps({"ids": str(ids), "to": str(to), "spare": spare}).decode() + "\n"
        )
        self._process.stdin.flush()
        return self._answer() | {"answers": dict(np.load(to))}

    def close(self) -> None:
        self._process.communicate()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        answer: dict[str, Any] = orjson.loads(self._process.stdout.readline())
        return answer


def measured(sizes: EncoderSizes, tokens: int, repeats: int, off: bool) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        torch.manual_seed(0)
        network = JinaBert(sizes).eval()
        long(FoldedEncoder.of(network)).save(folder)
        (folder / "plain").mkdir()
        save_plain(network, folder / "plain" / "plain.onnx")
        del network
        ids = folder / "ids.npy"
        np.save(ids, np.random.default_rng(0).integers(0, sizes.vocabulary, tokens))
        ours, plains = Subject(folder / f"{NAME}.onnx"), Subject(folder / "plain" / "plain.onnx")
        runs = [(ours.run(ids, SPARE), plains.run(ids, SPARE)) for _ in range(repeats)]
        unlimited = ours.run(ids, ALL) if off else None
        loaded = [subject.loaded["loaded_mb"] for subject in (ours, plains)]
        ours.close()
        plains.close()
    return _compared(sizes, tokens, runs, unlimited) | {"loaded_mb": loaded}


def _compared(
    sizes: EncoderSizes,
    tokens: int,
    runs: list[tuple[dict[str, Any], dict[str, Any]]],
    unlimited: dict[str, Any] | None,
) -> dict[str, Any]:
    ours, peer = (
        {key: min(run[i][key] for run in runs) for key in ("s", "cpu_s")}
        | {"peak_mb": max(run[i]["peak_mb"] for run in runs)}
        for i in (0, 1)
    )
    answers, of_peer = runs[0][0]["answers"], runs[0][1]["answers"]
    vector = answers["embedding"]
    result = {
        "machine": machine(),
        "sizes": sizes.model_dump(exclude={"initial_deviation", "norm_epsilon"}),
        "tokens": tokens,
        "repeats": len(runs),
        "blockwise": ours,
        "plain": peer,
        "time_ratio": ours["s"] / peer["s"],
        "cpu_time_ratio": ours["cpu_s"] / peer["cpu_s"],
        "peak_memory_ratio": ours["peak_mb"] / peer["peak_mb"],
        "difference_from_plain": _difference(vector, of_peer["embedding"][0]),
        "bound": answers["bound"].max(0).tolist(),  # per head, the largest of the layers
        "window": answers["window"].max(0).tolist(),
        "share_of_keys": (answers["pairs"].mean(0) / tokens**2).tolist(),
        "share_of_all_keys": float(answers["pairs"].mean() / tokens**2),
    }
    if unlimited is not None:
        result["windows_off"] = {key: unlimited[key] for key in ("s", "cpu_s", "peak_mb")}
        off = unlimited["answers"]["embedding"]
        result["difference_of_windows_on_and_off"] = _difference(vector, off)
    return result


def _difference(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a.astype(np.float64) - b).max())


def main(
    tokens: Annotated[int, typer.Option(help="Length of the text.")] = 8192,
    layers: Annotated[int, typer.Option(help="Layers of the network.")] = 12,
    hidden: Annotated[int, typer.Option(help="D; heads of 64, I = 4 D.")] = 768,
    repeats: Annotated[int, typer.Option(help="Rounds; the best time of each counts.")] = 1,
    off: Annotated[bool, typer.Option("--off", help="Run without windows, too.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print figures as JSON.")] = False,
) -> None:
    """Exit with 1 where a bar is missed."""
    sizes = EncoderSizes(
        vocabulary=1000,
        hidden=hidden,
        layers=layers,
        heads=hidden // 64,
        intermediate=4 * hidden,
    )
    result = measured(sizes, tokens, repeats, off)
    typer.echo(orjson.dumps(result, option=orjson.OPT_INDENT_2) if as_json else str(result))
    missed = result["time_ratio"] > MOST_TIME or result["peak_memory_ratio"] > MOST_MEMORY
    if missed or result.get("difference_of_windows_on_and_off", 0) > MOST_DIFFERENCE:
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
