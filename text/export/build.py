"""Builds an encoder bundle from a checkpoint: fold, write graphs, golden answers, publish."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from model_export.bundle.bundle import check_version, digest, free_version
from model_export.bundle.errors import BundleError
from model_export.bundle.publishing import publish, staging_folder
from text.encoder.checkpoint import WEIGHTS as CHECKPOINT_WEIGHTS
from text.encoder.checkpoint import load
from text.encoder.recipe import PARTS
from text.encoder.sizes import EncoderSizes
from text.export.folded import FoldedEncoder
from text.export.golden import golden_texts
from text.export.int8 import Int8, Quantised
from text.export.long import long
from text.export.packed import packed
from text.export.shared_weights import save
from text.runtime.bundle import EncoderBundle
from text.runtime.content import ContentMap, content_digest, network_digest
from text.runtime.encoder import TextEncoder
from text.runtime.golden import Difference
from text.runtime.manifest import (
    CONTENT,
    FORMAT,
    GOLDEN,
    TOKENIZER,
    TOLERANCE,
    WEIGHTS,
    Content,
    EncoderManifest,
    EncoderShape,
    Lengths,
    Origin,
    Parity,
)
from text.runtime.verify import check_golden
from training.checkpoint import CheckpointError

LONGEST = 8192
ROW, CALL = 32, 512  # the fastest of those in docs/measurements.md
FOLD = "fold the weights and write the graphs"
GOLDEN_ANSWERS = "compute golden answers"
COMPARE = "compare the graphs with them"
GATE = "compare int8 with float32"
PUBLISH = "compute digests and publish"
STEPS = (FOLD, GOLDEN_ANSWERS, COMPARE, GATE, PUBLISH)  # GATE with int8 alone
Announce = Callable[[str], None]


def build(
    checkpoint: Path,
    out: Path,
    *,
    version: str | None = None,
    longest: int = LONGEST,
    int8: Int8 | None = None,
    content: Path | None = None,
    announce: Announce = lambda step: None,
) -> EncoderBundle:
    """Build and publish ``out/VERSION``.

    Raises ParityError where an answer differs from PyTorch's, GateError where int8 differs too
    much, or BundleError; then nothing is published. ``content``: file of a map, whose numbers the
    float32 graphs give, too. ``announce`` is called with each of ``STEPS``.
    """
    created = datetime.now(UTC)
    version = check_version(version) if version else free_version(out, created)
    try:
        loaded = load(checkpoint)
    except CheckpointError as error:
        raise BundleError(str(error)) from error
    weights = digest(checkpoint / CHECKPOINT_WEIGHTS).sha256
    network = network_digest(weights, digest(checkpoint / TOKENIZER).sha256)
    content_map = ContentMap.load(content) if content else None
    if content_map is not None:
        content_map.check(network, loaded.network.sizes.hidden, content)
    with staging_folder(out, version) as folder:
        announce(FOLD)
        encoder = FoldedEncoder.of(loaded.network)
        graphs = [packed(encoder, content=content_map), long(encoder, content=content_map)]
        quantised = None
        if int8 is not None:
            quantised = Quantised.of(encoder, loaded.tokenizer, int8, ROW, CALL)
            graphs.append(quantised.graph())
        save(graphs, folder, WEIGHTS)
        shutil.copyfile(checkpoint / TOKENIZER, folder / TOKENIZER)
        if content is not None:
            shutil.copyfile(content, folder / CONTENT)

        announce(GOLDEN_ANSWERS)
        golden = golden_texts(loaded.network, loaded.tokenizer, longest)
        if content_map is not None:
            golden = replace(golden, content=content_map.of_text(golden.vectors))
        golden.save(folder / GOLDEN)

        manifest = EncoderManifest(
            format=FORMAT,
            version=version,
            created=created,
            languages=loaded.training.get("corpus", {}).get("languages", []),
            shape=_shape(loaded.network.sizes),
            lengths=Lengths(longest=longest, trained=_trained(loaded.training), row=ROW, call=CALL),
            parity=Parity(tolerance=TOLERANCE, max_abs_error=0, worst_case="", cases=0),
            training=Origin(
                checkpoint=checkpoint.resolve().name,
                weights_sha256=weights,
                corpus=loaded.training.get("corpus", {}).get("digest"),
            ),
            content=_content(content_map, network),
            widths=_widths(loaded.training, loaded.network.sizes.hidden),
            files={file.name: digest(file) for file in sorted(folder.iterdir())},
        )
        bundle = EncoderBundle(folder, manifest)
        announce(COMPARE)
        difference = check_golden(TextEncoder(bundle), golden)
        found: dict[str, Any] = {"parity": _parity(difference)}
        if manifest.content is not None:
            update = {"max_abs_error": difference.content_error}
            found["content"] = manifest.content.model_copy(update=update)
        if quantised is not None:
            announce(GATE)
            found["gates"] = {"int8": quantised.through_the_gate(bundle)}

        announce(PUBLISH)
        manifest = manifest.model_copy(update=found)
        return EncoderBundle(publish(folder, version, manifest), manifest)


def _content(content: ContentMap | None, network: str) -> Content | None:
    if content is None:
        return None
    return Content(
        digest=content_digest(network, content.digest),
        feature=content.about.feature,
        size=content.about.size,
        max_abs_error=0,
    )


def _parity(difference: Difference) -> Parity:
    return Parity(
        tolerance=TOLERANCE,
        max_abs_error=difference.max_abs_error,
        worst_case=difference.worst_case,
        cases=difference.cases,
    )


def _shape(sizes: EncoderSizes) -> EncoderShape:
    return EncoderShape(**sizes.model_dump(exclude={"initial_deviation"}))


def _widths(training: Mapping[str, Any], width: int) -> tuple[int, ...]:
    """Widths of beginnings that a recipe trains; none for a checkpoint without one."""
    stage = training.get("recipe", {}).get("multi_task", {})
    if not (stage.get("matryoshka") and stage.get("steps")):
        return ()
    return tuple(width // part for part in PARTS[1:])


def _trained(training: Mapping[str, Any]) -> int | None:
    """Longest text of training, in tokens; None for a checkpoint without a recipe."""
    stages = training.get("recipe", {})
    lengths = [
        stage["longest"]
        for name, stage in stages.items()
        if name in ("masked", "pairs", "multi_task") and stage.get("steps")
    ]
    return max(lengths, default=None)
