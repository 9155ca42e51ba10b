"""Checkpoints as others save them: unwrapped and converted, or refused in our own words."""

from __future__ import annotations

import argparse
import pickle
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from model_export.bundle.errors import BundleError
from model_export.fuxictr.checkpoint import import_network
from model_export.fuxictr.state_file import read_state
from tests.model_export.fuxictr.test_checkpoint import HISTORY, SLOTS, run, table, their_state
from training import checkpoint

__all__ = ["table"]  # a fixture
PYTORCHS = re.compile(
    r"weights_only|add_safe_globals|torch\.org|Traceback|PytorchStream|unpickl?er"
)

State = dict[str, Tensor]
WRAPPED: dict[str, tuple[Callable[[State], Any], str]] = {
    "data parallel": (lambda s: {f"module.{k}": t for k, t in s.items()}, r"module\. removed"),
    "compiled": (lambda s: {f"_orig_mod.{k}": t for k, t in s.items()}, r"_orig_mod\. removed"),
    "compiled in data parallel": (
        lambda s: {f"module._orig_mod.{k}": t for k, t in s.items()},
        r"module\., _orig_mod\. removed",
    ),
    "data parallel, compiled, data parallel": (
        lambda s: {f"module._orig_mod.module.{k}": t for k, t in s.items()},
        r"module\., _orig_mod\. removed",
    ),
    "a part compiled": (
        lambda s: {k.replace("qnn.", "qnn._orig_mod."): t for k, t in s.items()},
        r"_orig_mod\. removed",
    ),
    "with optimiser": (
        lambda s: {"epoch": 3, "model_state_dict": s, "optimizer_state_dict": {"state": {}}},
        r"weights taken from 'model_state_dict' \(epoch, optimizer_state_dict not used\)",
    ),
    "under model": (lambda s: {"model": s}, r"weights taken from 'model'$"),
    "Lightning": (
        lambda s: {
            "state_dict": {f"model._orig_mod.{k}": t for k, t in s.items()},
            "optimizer_states": [{"state": {0: {"exp_avg": torch.zeros(2)}}, "param_groups": []}],
            "pytorch-lightning_version": "2.5.0",
        },
        r"weights taken from 'state_dict' .*; _orig_mod\., model\. removed",
    ),
    "twice": (lambda s: {"model": {"state_dict": s}}, r"from 'model'; weights taken from 'state_d"),
}


@pytest.mark.parametrize("kind", WRAPPED)
def test_wrapped_weights_are_the_weights(kind: str, tmp_path: Path) -> None:
    wrap, said = WRAPPED[kind]
    state = their_state()
    torch.save(wrap(state), tmp_path / "QIN.model")
    tensors, changes = read_state(tmp_path / "QIN.model")
    assert tensors.keys() == state.keys()
    for name, tensor in state.items():
        torch.testing.assert_close(tensors[name], tensor, rtol=0, atol=0)
    assert re.search(said, "; ".join(changes))
    import_network(tensors, SLOTS, HISTORY, "x")


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")  # of torch.compile itself
def test_real_wrappers_of_pytorch_are_taken_off(tmp_path: Path) -> None:
    network = nn.Module()
    network.qnn = nn.Module()
    network.qnn.fc = nn.Linear(3, 1)
    compiled = torch.compile(nn.DataParallel(network))
    assert isinstance(compiled, nn.Module)
    wrapped = nn.DataParallel(compiled)
    assert "module._orig_mod.module.qnn.fc.bias" in wrapped.state_dict()
    torch.save(wrapped.state_dict(), tmp_path / "x")
    assert read_state(tmp_path / "x").tensors.keys() == {"qnn.fc.weight", "qnn.fc.bias"}


def test_weights_as_we_expect_them_are_read_without_a_word(tmp_path: Path) -> None:
    torch.save(their_state(), tmp_path / "QIN.model")
    assert read_state(tmp_path / "QIN.model").changes == []


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_are_converted_with_a_line(
    dtype: torch.dtype, table: Path, tmp_path: Path
) -> None:
    state = {k: t.to(dtype) if t.is_floating_point() else t for k, t in their_state().items()}
    torch.save({"state_dict": state}, tmp_path / "QIN.model")
    code, _, told = run(
        tmp_path / "QIN.model", "--items", table, "--out", tmp_path / "c", "--history", "6"
    )
    assert code == 0, told
    kind = str(dtype).removeprefix("torch.")
    assert told == (
        f"{tmp_path / 'QIN.model'}: weights taken from 'state_dict'; "
        f"39 tensors converted from {kind} to float32\n"
    )
    weight = checkpoint.load(tmp_path / "c").fc.weight
    torch.testing.assert_close(weight.data, state["qnn.fc.weight"].float(), rtol=0, atol=0)


def test_a_checkpoint_of_another_model_is_a_few_names_and_counts() -> None:
    foreign = {f"encoder.{n}.weight\n\x1b[2J": torch.zeros(2) for n in range(86)}
    with pytest.raises(BundleError) as refused:
        import_network(foreign, SLOTS, HISTORY, "QIN.model")
    told = str(refused.value)
    assert "129 keys do not fit QIN_variety_v9: 43 missing, 86 unknown" in told
    assert "… and 40 more missing" in told
    assert "… and 83 more unknown" in told
    assert len(told.splitlines()) == 10
    assert "\x1b" not in told


class Config:
    pass


def write(kind: str, file: Path) -> None:
    state = their_state()
    match kind:
        case "empty":
            file.write_bytes(b"")
        case "text":
            file.write_text("not a checkpoint")
        case "pointer":
            file.write_text(
                f"version https://git-lfs.github.com/spec/v1\noid sha256:{'a' * 64}\nsize 123456\n"
            )
        case "truncated":
            torch.save(state, file)
            file.write_bytes(file.read_bytes()[:-3000])
        case "truncated, old format":
            torch.save(state, file, _use_new_zipfile_serialization=False)
            file.write_bytes(file.read_bytes()[:-3000])
        case "objects":
            torch.save({"state_dict": state, "args": argparse.Namespace(lr=1)}, file)
        case "objects, old format":
            torch.save({"x": Config()}, file, _use_new_zipfile_serialization=False)
        case "plain pickle":
            file.write_bytes(pickle.dumps(Config()))
        case "TorchScript":
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)
                torch.jit.script(nn.Linear(2, 1)).save(file)
        case "npz":
            with file.open("wb") as out:
                np.savez(out, x=np.zeros(3))
        case "two states":
            torch.save({"model": state, "state_dict": state}, file)
        case "one network twice":
            both = {f"module.{k}": t for k, t in state.items()} | state
            torch.save(both, file)
        case "numbers for names":
            torch.save({1: torch.zeros(1)}, file)
        case "a list":
            torch.save([torch.zeros(1)], file)
        case "folder":
            file.mkdir()


REFUSED = {
    "absent": "not a checkpoint file: No such file or directory",
    "folder": "not a checkpoint file: Is a directory",
    "empty": "the file is empty; copy it again",
    "text": "the file is none of torch.save",
    "pointer": "a Git LFS pointer to 123,456 bytes.*run `git lfs pull`",
    "truncated": "truncated or damaged; copy it again",
    "truncated, old format": "damaged, or holds Python objects",
    "objects": r"holds Python objects \(argparse\.Namespace\).*save the weights alone",
    "objects, old format": "damaged, or holds Python objects",
    "plain pickle": "damaged, or holds Python objects",
    "TorchScript": "TorchScript archive",
    "npz": "a zip archive, but none of torch.save",
    "two states": "has 'state_dict' and 'model', and either could be the weights",
    "one network twice": r"two tensors are .* without module\.",
    "numbers for names": "has no weights under",
    "a list": "no mapping of names to tensors",
}


@pytest.mark.parametrize("kind", REFUSED)
def test_a_refused_file_is_one_line_of_our_own(kind: str, tmp_path: Path) -> None:
    write(kind, tmp_path / "QIN.model")
    code, _, told = run(tmp_path / "QIN.model", "--items", "x", "--out", tmp_path / "c")
    assert code == 1
    assert re.fullmatch(rf"error: .*QIN\.model: .*{REFUSED[kind]}.*\n", told)
    assert not PYTORCHS.search(told)


def test_no_damage_to_a_file_ends_in_a_traceback(tmp_path: Path) -> None:
    generator, file = torch.Generator().manual_seed(0), tmp_path / "QIN.model"
    for zipped in (True, False):
        small = {"qnn.fc.weight": torch.zeros(1, 4), "qnn.fc.bias": torch.zeros(1)}
        torch.save(small, tmp_path / "whole", _use_new_zipfile_serialization=zipped)
        whole = (tmp_path / "whole").read_bytes()
        for _ in range(150):
            place, value = torch.randint(0, 2**31, (2,), generator=generator).tolist()
            damaged = bytearray(whole)
            damaged[place % len(whole)] = value % 256
            file.write_bytes(damaged)
            with pytest.raises(BundleError) as refused:  # of two tensors, if they are read at all
                import_network(read_state(file).tensors, SLOTS, HISTORY, "QIN.model")
            assert not PYTORCHS.search(str(refused.value))


def test_a_safetensors_file_is_read_as_the_state_dict(tmp_path: Path) -> None:
    state = their_state()
    save_file(state, tmp_path / "QIN.safetensors")
    found, changes = read_state(tmp_path / "QIN.safetensors")
    assert not changes
    assert found.keys() == state.keys()
    assert all(torch.equal(found[key], state[key]) for key in state)
