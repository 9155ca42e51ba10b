"""Reads the tokenizer of a published folder, and holds its files against each other.

``tokenizer.json``, else ``vocab.txt`` (BertTokenizer), else ``vocab.json`` and ``merges.txt``
(RobertaTokenizer). Where two files disagree loaders differ by the file that they go by, so that
no guess is made.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
)

from feature_store.wording import worded
from text.encoder.weights import AGAIN, is_there, opened, read_mapping
from text.tokenizer import FILE, TextTokenizer, TokenizerError
from training.checkpoint import CheckpointError

OPTIONS, TOKENS = "tokenizer_config.json", "special_tokens_map.json"
WORDS, PIECES, MERGES, ADDED = "vocab.txt", "vocab.json", "merges.txt", "added_tokens.json"
TWO = f"files of two tokenizers; {AGAIN}"
BERT = {"unk": "[UNK]", "sep": "[SEP]", "pad": "[PAD]", "cls": "[CLS]", "mask": "[MASK]"}
ROBERTA = {"cls": "<s>", "pad": "<pad>", "sep": "</s>", "unk": "<unk>", "mask": "<mask>"}
NORMALISER = {  # key of tokenizer_config.json → key of the BERT normaliser in tokenizer.json
    "do_lower_case": "lowercase",
    "strip_accents": "strip_accents",
    "tokenize_chinese_chars": "handle_chinese_chars",
}


def read_tokenizer(folder: Path) -> TextTokenizer:
    """Read a folder's tokenizer. Raises CheckpointError."""
    options = read_mapping(folder / OPTIONS) if is_there(folder / OPTIONS) else {}
    if is_there(folder / TOKENS):
        options = read_mapping(folder / TOKENS) | options
    path, build = next(
        (
            (folder / name, build)
            for name, build in ((FILE, _whole), (WORDS, _word_pieces), (PIECES, _byte_level))
            if is_there(folder / name)
        ),
        (folder, _none),
    )
    try:
        tokenizer = build(path, options)
        text_tokenizer = TextTokenizer(tokenizer)
    except (CheckpointError, TokenizerError) as error:
        at = "" if isinstance(error, CheckpointError) else f"{path}: "
        raise CheckpointError(f"{at}{error}") from error
    except Exception as error:  # the library raises Exception itself
        reason = " ".join(worded(error).split())
        raise CheckpointError(f"{path}: not a tokenizer: {reason}; {AGAIN}") from error
    _check(folder, path, tokenizer, text_tokenizer, options)
    return text_tokenizer


def _none(folder: Path, options: Mapping[str, Any]) -> Tokenizer:
    raise CheckpointError(f"{folder}: no tokenizer: none of {FILE}, {WORDS}, {PIECES}")


def _whole(path: Path, options: Mapping[str, Any]) -> Tokenizer:
    opened(path)
    return Tokenizer.from_str(path.read_text("utf-8"))


def _word_pieces(path: Path, options: Mapping[str, Any]) -> Tokenizer:
    vocabulary = _lines(path)
    names = {role: _named(options, role) or name for role, name in BERT.items()}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token=names["unk"]))
    tokenizer.normalizer = normalizers.BertNormalizer(
        lowercase=options.get("do_lower_case", True),
        strip_accents=options.get("strip_accents"),
        handle_chinese_chars=options.get("tokenize_chinese_chars", True),
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.post_processor = processors.BertProcessing(*_ends(names, vocabulary))
    tokenizer.add_special_tokens([name for name in names.values() if name in vocabulary])
    return tokenizer


def _byte_level(path: Path, options: Mapping[str, Any]) -> Tokenizer:
    opened(path)
    opened(path.with_name(MERGES))
    tokenizer = Tokenizer(models.BPE.from_file(str(path), str(path.with_name(MERGES))))
    space = options.get("add_prefix_space", False)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=space)
    tokenizer.decoder = decoders.ByteLevel()
    vocabulary = tokenizer.get_vocab()
    names = {role: _named(options, role) or name for role, name in ROBERTA.items()}
    sep, cls = _ends(names, vocabulary)
    tokenizer.post_processor = processors.RobertaProcessing(sep, cls, add_prefix_space=space)
    tokenizer.add_special_tokens(
        [
            AddedToken(name, lstrip=role == "mask", normalized=False)
            for role, name in names.items()
            if name in vocabulary
        ]
    )
    return tokenizer


def _lines(path: Path) -> dict[str, int]:
    """Number the lines of ``vocab.txt``; not by splitlines: a token may be U+2028."""
    opened(path)
    try:
        lines = path.read_text("utf-8").removesuffix("\n").split("\n")
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: {worded(error)}; {AGAIN}") from error
    return {token: number for number, token in enumerate(lines)}


def _ends(
    names: Mapping[str, str], vocabulary: Mapping[str, int]
) -> tuple[tuple[str, int], tuple[str, int]]:
    """Return the tokens after and before a text."""
    sep, cls = names["sep"], names["cls"]
    for name in (sep, cls):
        if name not in vocabulary:
            raise TokenizerError(f"{name} is not among the tokens")
    return (sep, vocabulary[sep]), (cls, vocabulary[cls])


def _named(options: Mapping[str, Any], role: str) -> str | None:
    """Return the token of a role, which is a text or an object with one."""
    token = options.get(f"{role}_token")
    found = token.get("content") if isinstance(token, Mapping) else token
    return found if isinstance(found, str) else None


def _check(
    folder: Path,
    path: Path,
    tokenizer: Tokenizer,
    text_tokenizer: TextTokenizer,
    options: Mapping[str, Any],
) -> None:
    """Hold ``tokenizer_config.json`` and the vocabulary files against the tokenizer."""
    vocabulary = tokenizer.get_vocab()
    faults = []
    for role in ("pad", "unk", "mask", "cls", "sep"):
        name = _named(options, role)
        if name is not None and name not in vocabulary:
            faults.append(f"{role}_token {name} is not in {path.name}")
        elif role in ("cls", "sep") and name not in (None, text_tokenizer.special[role]):
            own = text_tokenizer.special[role]
            faults.append(f"{role}_token is {name}, and {path.name} puts {own} there")
    for number, added in _objects(options.get("added_tokens_decoder")):
        token = added.get("content")
        if str(vocabulary.get(str(token))) != number:
            faults.append(f"{token} is {number}, in {path.name} {vocabulary.get(str(token))}")
    state = json.loads(tokenizer.to_str())
    normaliser, splits = state["normalizer"] or {}, state["pre_tokenizer"] or {}
    settings = {"add_prefix_space": splits.get("add_prefix_space")}
    if normaliser.get("type") == "BertNormalizer":
        settings = {key: normaliser.get(name) for key, name in NORMALISER.items()}
    for key, value in settings.items():
        if value is not None and options.get(key, value) not in (None, value):
            faults.append(
                f"{key} is {json.dumps(options[key])}, in {path.name} {json.dumps(value)}"
            )
    if faults:
        raise CheckpointError(f"{folder / OPTIONS}: {'; '.join(faults)}: {TWO}")
    words = folder / WORDS
    if (
        path.name == FILE
        and is_there(words)
        and _lines(words) != tokenizer.get_vocab(with_added_tokens=False)
    ):
        raise CheckpointError(f"{words}: other tokens than {FILE}: {TWO}")
    for other in (folder / PIECES, folder / ADDED):
        for token, number in read_mapping(other).items() if is_there(other) else ():
            if vocabulary.get(token) != number:
                ours = vocabulary.get(token, "absent")
                raise CheckpointError(f"{other}: {token} is {number}, in {path.name} {ours}: {TWO}")


def _objects(content: object) -> list[tuple[str, Mapping[str, Any]]]:
    found = content if isinstance(content, Mapping) else {}
    return [(key, value) for key, value in found.items() if isinstance(value, Mapping)]
