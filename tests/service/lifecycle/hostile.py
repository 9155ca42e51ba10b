"""Bundles that must not come in: each is a good one with one thing wrong."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import orjson
from onnx import TensorProto, helper

from model_export.bundle.bundle import digest
from model_export.bundle.manifest import FORMAT, GOLDEN, MANIFEST, SIGNATURE

HUGE = 9_000_000_000  # floats: 34 GB
Damage = Callable[[Path], None]


def copied(good: Path, version: str, to: Path | None = None) -> Path:
    """The same bundle under another name, consistent in itself.

    It appears whole, beside ``good`` or in the folder ``to``.
    """
    making = good.parent.parent / f"{version}.making"  # a service may watch ``good``'s folder
    shutil.copytree(good, making, ignore=shutil.ignore_patterns(SIGNATURE))
    change_manifest(making, version=version)
    return making.rename((to or good.parent) / version)


def change_manifest(folder: Path, **fields: object) -> None:
    file = folder / MANIFEST
    file.write_bytes(orjson.dumps(orjson.loads(file.read_bytes()) | fields))


def redigest(folder: Path) -> None:
    """Make the manifest agree with whatever the files hold now."""
    names = orjson.loads((folder / MANIFEST).read_bytes())["files"]
    change_manifest(folder, files={n: digest(folder / n).model_dump() for n in names})


def truncate(folder: Path) -> None:
    file = folder / "ranker.weights"
    os.truncate(file, file.stat().st_size - 7)


def flip_a_bit(folder: Path) -> None:
    content = bytearray((folder / "ranker.weights").read_bytes())
    content[len(content) // 2] ^= 4
    (folder / "ranker.weights").write_bytes(content)


def lose_the_golden_file(folder: Path) -> None:
    (folder / GOLDEN).unlink()


def lose_the_golden_file_from_the_manifest(folder: Path) -> None:
    lose_the_golden_file(folder)
    files = orjson.loads((folder / MANIFEST).read_bytes())["files"]
    del files[GOLDEN]
    change_manifest(folder, files=files)


def change_a_golden_answer(folder: Path) -> None:
    with np.load(folder / GOLDEN) as stored:
        arrays = dict(stored)
    arrays["probability"][3] += 1e-4
    np.savez(folder / GOLDEN, **arrays)
    redigest(folder)


def ask_no_golden_question(folder: Path) -> None:
    with np.load(folder / GOLDEN) as stored:
        arrays = {name: array[:0] for name, array in stored.items()}
    np.savez(folder / GOLDEN, **arrays)
    redigest(folder)


def put_nan_into_the_weights(folder: Path) -> None:
    weights = np.fromfile(folder / "ranker.weights", np.float32)
    weights[::97] = np.nan
    weights.tofile(folder / "ranker.weights")
    redigest(folder)


def rename_a_feature(folder: Path) -> None:
    schema = orjson.loads((folder / MANIFEST).read_bytes())["feature_schema"]
    schema["context"][0]["name"] = "loves_level"
    change_manifest(folder, feature_schema=schema)


def use_another_graphs_inputs(folder: Path) -> None:
    for kind in ("onnx", "weights"):
        shutil.copy(folder / f"history_tower.{kind}", folder / f"ranker.{kind}")
    model = onnx.load(folder / "ranker.onnx", load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = "ranker.weights"
    onnx.save(model, folder / "ranker.onnx")
    redigest(folder)


def be_of_the_next_format(folder: Path) -> None:
    change_manifest(folder, format=FORMAT + 1)


def point_outside(location: str) -> Damage:
    """External data that is not in the folder."""

    def damage(folder: Path) -> None:
        (folder.parent / "elsewhere.weights").write_bytes((folder / "ranker.weights").read_bytes())
        model = onnx.load(folder / "ranker.onnx", load_external_data=False)
        chosen = location.replace("HERE", str(folder.parent))
        for tensor in model.graph.initializer:
            for entry in tensor.external_data:
                if entry.key == "location":
                    entry.value = chosen
        onnx.save(model, folder / "ranker.onnx")
        redigest(folder)

    return damage


def be_a_symbolic_link(folder: Path) -> None:
    target = folder.parent / "moved.weights"
    shutil.move(folder / "ranker.weights", target)
    (folder / "ranker.weights").symlink_to(target)


def be_a_hard_link(folder: Path) -> None:
    os.link(folder / "ranker.weights", folder.parent / "linked.weights")


def hold_a_named_pipe(folder: Path) -> None:
    (folder / "ranker.weights").unlink()
    os.mkfifo(folder / "ranker.weights")


def hold_something_more(folder: Path) -> None:
    (folder / "notes.txt").write_text("hello")


def use_an_unknown_operator(folder: Path) -> None:
    _add_to_probability(
        folder, [helper.make_node("Steal", [], ["surplus"], domain="evil")], domain="evil"
    )


def fail_at(rows: int) -> Damage:
    """Lists of another length are scored."""

    def damage(folder: Path) -> None:
        _add_to_probability(
            folder,
            [
                helper.make_node("Shape", ["vector"], ["shape"]),
                helper.make_node("Gather", ["shape", "first"], ["count"]),
                helper.make_node("Equal", ["count", "rows"], ["fails"]),
                helper.make_node("Where", ["fails", "two", "one"], ["size"]),
                helper.make_node("Reshape", ["nothing", "size"], ["zeros"]),
                helper.make_node("ReduceSum", ["zeros"], ["surplus"], keepdims=0),
            ],
            constants={
                "first": np.array(0, np.int64),
                "rows": np.array(rows, np.int64),
                "one": np.array([1], np.int64),
                "two": np.array([2], np.int64),
                "nothing": np.zeros(1, np.float32),
            },
        )

    return damage


def ask_for_34_gb(folder: Path) -> None:
    _add_to_probability(
        folder,
        [
            # Its size follows from an input, so that nothing can be known before it runs.
            helper.make_node("Shape", ["vector"], ["shape"]),
            helper.make_node("ReduceProd", ["shape"], ["one"], keepdims=0),
            helper.make_node("Min", ["one", "unit"], ["unity"]),
            helper.make_node("Mul", ["unity", "huge"], ["size"]),
            helper.make_node("Reshape", ["size", "unit"], ["sizes"]),
            helper.make_node("ConstantOfShape", ["sizes"], ["zeros"]),
            helper.make_node("ReduceSum", ["zeros"], ["surplus"], keepdims=0),
        ],
        constants={"huge": np.array(HUGE, np.int64), "unit": np.array([1], np.int64)},
    )


def loop_for_ever(folder: Path) -> None:
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["going"], ["going_on"]),
            helper.make_node("Identity", ["sum_in"], ["sum_out"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("turn", TensorProto.INT64, []),
            helper.make_tensor_value_info("going", TensorProto.BOOL, []),
            helper.make_tensor_value_info("sum_in", TensorProto.FLOAT, []),
        ],
        [
            helper.make_tensor_value_info("going_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("sum_out", TensorProto.FLOAT, []),
        ],
    )
    _add_to_probability(
        folder,
        [
            helper.make_node("ReduceSum", ["vector"], ["start"], keepdims=0),
            helper.make_node("Loop", ["turns", "true", "start"], ["ended"], body=body),
            helper.make_node("Mul", ["ended", "nothing"], ["surplus"]),
        ],
        constants={
            "turns": np.array(2**62, np.int64),
            "true": np.array(True),
            "nothing": np.array(0, np.float32),
        },
    )


def _add_to_probability(
    folder: Path,
    nodes: list[onnx.NodeProto],
    constants: dict[str, np.ndarray] | None = None,
    domain: str | None = None,
) -> None:
    """The ranker, whose answer now has ``surplus`` added to it."""
    file = folder / "ranker.onnx"
    model = onnx.load(file, load_external_data=False)
    graph = model.graph
    for node in graph.node:
        for place, name in enumerate(node.output):
            if name == "probability":
                node.output[place] = "honest"
    for name, value in (constants or {}).items():
        graph.initializer.append(onnx.numpy_helper.from_array(value, name))
    graph.node.extend(nodes)
    graph.node.append(helper.make_node("Add", ["honest", "surplus"], ["probability"]))
    if domain is not None:
        model.opset_import.append(helper.make_opsetid(domain, 1))
    onnx.save(model, file)
    redigest(folder)
