"""Writes folders in the published layouts, with random weights, apart from the product.

``de``: base; ``es``: layer norms of queries and keys; ``code``: the code variant; all three with
RoBERTa's byte-level BPE. ``en``: base with WordPiece and a word table of more rows than tokens.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import save_file
from tokenizers import pre_tokenizers

LAYOUTS = ("de", "es", "en", "code")
Tensors = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Size:
    hidden: int = 24
    heads: int = 3
    layers: int = 2
    intermediate: int = 20
    rows: int = 0  # of the word table; 0: as many as the tokenizer needs, for en rounded up to 64


SMALL, BASE = Size(), Size(768, 12, 12, 3072, 61_056)


def random_tensors(layout: str, size: Size, rows: int, seed: int) -> Tensors:
    """Every tensor random, norms and biases too, so that none is left out unseen."""
    d, i, code = size.hidden, size.intermediate, layout == "code"
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (rows, d),
        "embeddings.token_type_embeddings.weight": (2, d),
    }
    norms = ["embeddings.LayerNorm"]
    for n in range(size.layers):
        at = f"encoder.layer.{n}"
        for name in ("attention.self.query", "attention.self.key", "attention.self.value"):
            shapes |= {f"{at}.{name}.weight": (d, d), f"{at}.{name}.bias": (d,)}
        shapes |= {f"{at}.attention.output.dense.weight": (d, d)}
        shapes |= {f"{at}.attention.output.dense.bias": (d,)}
        norms += [f"{at}.attention.output.LayerNorm"]
        if layout in ("es", "code"):
            norms += [f"{at}.attention.self.layer_norm_q", f"{at}.attention.self.layer_norm_k"]
        up, down = ("up_gated_layer", "down_layer") if code else ("gated_layers", "wo")
        shapes |= {f"{at}.mlp.{up}.weight": (2 * i, d), f"{at}.mlp.{down}.weight": (d, i)}
        shapes |= {f"{at}.mlp.{down}.bias": (d,)}
        norms += [f"{at}.layer_norm_1", f"{at}.layer_norm_2"] if code else [f"{at}.mlp.layernorm"]
    shapes |= {f"{norm}.{part}": (d,) for norm in norms for part in ("weight", "bias")}
    generator = np.random.default_rng(seed)
    scale = min(0.3, 1.5 / d**0.5)
    return {
        name: (
            generator.standard_normal(shape, np.float32) * np.float32(scale)
            + np.float32(name.removesuffix(".weight") in norms)
        ).astype(np.float32)
        for name, shape in shapes.items()
    }


def config_of(size: Size, rows: int) -> dict[str, Any]:
    return {
        "_name_or_path": "somewhere/else",
        "architectures": ["JinaBertForMaskedLM"],
        "attention_probs_dropout_prob": 0.1,
        "emb_pooler": "mean",
        "feed_forward_type": "geglu",
        "hidden_act": "gelu",
        "hidden_size": size.hidden,
        "initializer_range": 0.02,
        "intermediate_size": size.intermediate,
        "layer_norm_eps": 1e-12,
        "max_position_embeddings": 8192,
        "model_type": "bert",
        "num_attention_heads": size.heads,
        "num_hidden_layers": size.layers,
        "pad_token_id": 0,
        "position_embedding_type": "alibi",
        "torch_dtype": "float16",
        "type_vocab_size": 2,
        "vocab_size": rows,
    }


def write_byte_level(folder: Path, most: int = 0) -> int:
    """Write RoBERTa's files: ``tokenizer.json``, that cuts and pads; return the tokens.

    Tokens that no text has fill the vocabulary up to ``most``.
    """
    tokens = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    tokens += sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = ["e r", "Ġ d", "Ġd er", "i n", "e n", "Ġ t", "u n"]
    tokens += [merge.replace(" ", "") for merge in merges]
    tokens += [f"filler{n}" for n in range(len(tokens), most)]
    flags = {"single_word": False, "rstrip": False, "normalized": False, "special": True}
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    content = {
        "version": "1.0",
        "truncation": {
            "direction": "Right", "max_length": 16, "strategy": "LongestFirst", "stride": 0,
        },
        "padding": {
            "strategy": "BatchLongest", "direction": "Right", "pad_to_multiple_of": None,
            "pad_id": 1, "pad_type_id": 0, "pad_token": "<pad>",
        },
        "added_tokens": [
            {"id": n, "content": name, "lstrip": name == "<mask>", **flags}
            for n, name in enumerate(tokens[:5])
        ],
        "normalizer": None,
        "pre_tokenizer": level | {"use_regex": True},
        "post_processor": {
            "type": "RobertaProcessing", "sep": ["</s>", 2], "cls": ["<s>", 0],
            "trim_offsets": True, "add_prefix_space": False,
        },
        "decoder": level | {"use_regex": True},
        "model": {
            "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": "",
            "end_of_word_suffix": "", "fuse_unk": False, "byte_fallback": False,
            "vocab": {token: n for n, token in enumerate(tokens)}, "merges": merges,
        },
    }  # fmt: skip
    roles = {"bos": 0, "cls": 0, "pad": 1, "eos": 2, "sep": 2, "unk": 3, "mask": 4}
    options = {f"{role}_token": tokens[n] for role, n in roles.items()}
    options["mask_token"] = {"__type": "AddedToken", "content": "<mask>", "lstrip": True}
    write_json(folder / "tokenizer.json", content)
    write_json(
        folder / "tokenizer_config.json",
        options | {"add_prefix_space": False, "tokenizer_class": "RobertaTokenizer"},
    )
    return len(tokens)


def write_word_pieces(folder: Path, most: int = 0) -> int:
    """Write BERT's files: ``vocab.txt`` with a line separator among its tokens.

    Tokens that no text has fill the vocabulary up to ``most``.
    """
    letters = [chr(n) for n in range(ord("a"), ord("z") + 1)] + list("0123456789ßü.,?:;()=*\u2028")
    tokens = ["[PAD]", *(f"[unused{n}]" for n in range(90)), "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokens += letters + [f"##{letter}" for letter in letters] + ["the", "invoice", "##er", "der"]
    tokens += [f"filler{n}" for n in range(len(tokens), most)]
    (folder / "vocab.txt").write_text("\n".join(tokens) + "\n", "utf-8")
    roles = {"unk": "[UNK]", "sep": "[SEP]", "pad": "[PAD]", "cls": "[CLS]", "mask": "[MASK]"}
    options = {f"{role}_token": token for role, token in roles.items()}
    write_json(folder / "special_tokens_map.json", options)
    write_json(
        folder / "tokenizer_config.json",
        {"do_lower_case": True, "strip_accents": None, "tokenizer_class": "BertTokenizer"},
    )
    return len(tokens)


def write_folder(
    folder: Path,
    layout: str,
    size: Size = SMALL,
    seed: int = 1,
    precision: torch.dtype = torch.float16,
    kind: str = "safetensors",
    prefix: str = "",
) -> Tensors:
    """Write a folder; return its tensors in float32, as they are after rounding."""
    folder.mkdir(parents=True, exist_ok=True)
    write_tokens = write_word_pieces if layout == "en" else write_byte_level
    tokens = write_tokens(folder, size.rows)
    rows = size.rows or (-(-tokens // 64) * 64 if layout == "en" else tokens)
    write_json(folder / "config.json", config_of(size, rows))
    tensors = random_tensors(layout, size, rows, seed)
    given = {name: torch.from_numpy(x).to(precision) for name, x in tensors.items()}
    write_weights(folder, {f"{prefix}{name}": x for name, x in given.items()}, kind)
    return {name: x.float().numpy() for name, x in given.items()}


def write_weights(folder: Path, tensors: Mapping[str, torch.Tensor], kind: str) -> None:
    """Write weights as ``safetensors``, ``bin``, or as two shards of either."""
    for old in (*folder.glob("*.safetensors*"), *folder.glob("*.bin*")):
        old.unlink()
    form = kind.removeprefix("sharded ")
    name = {"safetensors": "model.safetensors", "bin": "pytorch_model.bin"}[form]
    if form == kind:
        _write_file(folder / name, tensors)
        return
    stem, _, suffix = name.partition(".")
    where = {tensor: f"{stem}-{n % 2 + 1:05}-of-00002.{suffix}" for n, tensor in enumerate(tensors)}
    for shard in set(where.values()):
        own = {tensor: x for tensor, x in tensors.items() if where[tensor] == shard}
        _write_file(folder / shard, own)
    write_json(folder / f"{name}.index.json", {"metadata": {}, "weight_map": where})


def _write_file(path: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    if path.suffix == ".bin":
        torch.save(dict(tensors), path)
    elif any(x.dtype == torch.bfloat16 for x in tensors.values()):  # numpy has none
        from safetensors.torch import save_file as save_torch

        save_torch(dict(tensors), path)
    else:
        save_file({name: x.numpy() for name, x in tensors.items()}, path)


def write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, ensure_ascii=False), "utf-8")
