"""Encodes texts for requests: admitted by tokens, in turns on the encoder's own threads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import perf_counter

import numpy as np

from service.context import Priority
from service.encoding.graph_threads import GraphThreads
from service.encoding.loading import EncoderLoader
from service.encoding.token_admission import TokenAdmission, TokenPermit
from service.engine.engine import Engine
from service.errors import NotReady
from service.observability.metrics import Metrics
from text.runtime.chunks import Chunks, Span, SpanError
from text.runtime.encoder import Encoded, TextEncoder
from text.runtime.errors import TextError
from text.runtime.steps import EncodingSteps, TokenIds

Texts = Sequence[str] | Sequence[TokenIds]


class TextEncoding:
    """Encodes with the encoders of the loaded versions, on threads of its own. On the event loop.

    A request takes one encoder when it begins, and keeps it: versions may be switched meanwhile.
    """

    def __init__(
        self,
        loader: EncoderLoader,
        metrics: Metrics,
        threads: int,
        graphs: GraphThreads,
        encoders: Callable[[], Sequence[TextEncoder]],
    ) -> None:
        """``graphs``: what runs the graphs for as many threads, and yields to those that score.
        ``encoders``: of the loaded versions, the active one's first."""
        self.engine = Engine(threads, chunk=1, min_chunk=1, name="encoder")
        self._graphs = graphs
        self.admission = TokenAdmission(self.engine, metrics)
        self.loader, self._metrics, self._encoders = loader, metrics, encoders

    def close(self) -> None:
        """Stop after the running steps. Blocks."""
        self.loader.stop()
        self.engine.close()
        self._graphs.close()

    def loaded(self) -> Sequence[TextEncoder]:
        """List the encoders of the loaded versions, the active one's first."""
        return self._encoders()

    @property
    def encoder(self) -> TextEncoder:
        """The active version's encoder. NotReady."""
        for encoder in self._encoders():
            return encoder
        raise NotReady("waiting for: the encoder", headers={"Retry-After": "1"})

    def named(self, version: str) -> TextEncoder | None:
        """Return the encoder of this version, if it is loaded."""
        return next((e for e in self._encoders() if e.bundle.version == version), None)

    def enter(
        self,
        texts: Texts,
        priority: Priority,
        deadline: float,
        *,
        encoder: TextEncoder,
        chunking: bool = False,
    ) -> TokenPermit:
        """Admit a request for texts to be encoded with ``encoder``. OverCapacity.

        ``chunking``: for ``chunks``, else for ``encode``.
        """
        admission, longest = self.admission, encoder.manifest.lengths.longest
        sizes = np.array([len(text) for text in texts], np.int64)
        if isinstance(texts[0], str):
            lengths = admission.guess(sizes, longest)
        else:
            lengths = np.clip(sizes, 1, longest)
        cost = admission.chunking if chunking else admission.cost
        return admission.enter(encoder, lengths, cost, priority, deadline)

    async def encode(
        self,
        texts: Texts,
        truncate: bool,
        permit: TokenPermit,
        deadline: float,
        *,
        alone: bool = False,
    ) -> Encoded:
        """Encode texts. TextError names the text; DeadlinePassed. ``alone``: to the same bits in
        any list."""
        work = EncodingSteps(permit.encoder, texts, truncate, alone=alone)
        took: list[tuple[int, int, float]] = []

        def read(number: int) -> None:
            work.read(number)
            if len(work.parts) == 1 and len(work.runs) == 1:
                run(0)  # a step of its own would cost the event loop more than the thread

        def run(number: int) -> None:
            each, began = work.runs[number], perf_counter()
            work.run(number)
            took.append((each.size, each.longest, perf_counter() - began))

        try:
            await self._run(read, len(work.parts), permit, deadline)
            if not took and work.runs:
                lengths = [run.tokens.lengths[run.texts] for run in work.runs]
                permit.expect(np.concatenate(lengths))
                await self._run(run, len(work.runs), permit, deadline)
        finally:
            for measured in took:
                permit.learn(*measured)
        if isinstance(texts[0], str):
            characters = sum(map(len, texts))
            self.admission.learn_tokens(characters, int(work.answer.tokens.sum()))
        self._count(len(texts), work.cached, sum(size for size, _, _ in took))
        return work.answer

    async def chunks(
        self,
        texts: Sequence[str],
        spans: Sequence[Sequence[Span]],
        truncate: bool,
        permit: TokenPermit,
        deadline: float,
    ) -> list[Chunks]:
        """Encode each text once, and its spans. TextError, SpanError, DeadlinePassed."""
        encoder = permit.encoder
        found: dict[int, Chunks] = {}
        took: list[tuple[int, int, float]] = []

        def run(number: int) -> None:
            began = perf_counter()
            try:
                chunks = encoder.chunks(texts[number], spans[number], truncate=truncate)
            except TextError as error:
                error.index = number
                raise
            except SpanError as error:
                error.text = number
                raise
            found[number] = chunks
            took.append((chunks.read, chunks.read, perf_counter() - began))

        try:
            await self._run(run, len(texts), permit, deadline)
        finally:
            for measured in took:
                permit.learn(*measured)
        self._count(len(texts), 0, sum(size for size, _, _ in took))
        return [found[number] for number in range(len(texts))]

    async def _run(
        self, step: Callable[[int], None], count: int, permit: TokenPermit, deadline: float
    ) -> None:
        """Call ``step(0)``, … on the threads, in turn with other requests."""

        def run(start: int, end: int) -> None:
            for number in range(start, end):
                step(number)

        await self.engine.run(run, count, deadline, priority=permit)

    def _count(self, texts: int, cached: int, tokens: int) -> None:
        metrics = self._metrics.encoder
        metrics.encoded.inc(texts - cached)
        metrics.cached.inc(cached)
        metrics.tokens.inc(tokens)
