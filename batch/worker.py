"""Does the units of a run, in one process: reads, scores, writes. Every engine runs this."""

from __future__ import annotations

from collections.abc import Collection
from functools import cached_property
from pathlib import Path
from socket import gethostname
from time import perf_counter

from batch.grouping.clicks import Clicks
from batch.grouping.groups import grouped, limited
from batch.grouping.spill import Bucket, record_of
from batch.inputs.columns import RequestReader
from batch.inputs.long_lists import too_long, without_long
from batch.inputs.requests import Requests, joined
from batch.inputs.source import ForwardReader, open_input, rows_at_once
from batch.inputs.stamps import refuse_changes, stamps_now
from batch.job import Job, Stamps
from batch.output.bucket_scores import BucketScores, BucketWriter
from batch.output.folder import Folder
from batch.output.folders import folder_of
from batch.output.list_part import list_part
from batch.output.row_part import row_part
from batch.processor import processor_kind
from batch.scoring.scorer import Histories, Scorer
from batch.sizes import of_candidate
from batch.units import Done, Unit
from feature_store.parquet.parts import ParquetParts

SPILL, CLICKS = "spill", "clicks"


class Worker:
    """A model, its table and an open input; ``run`` does one unit. For one thread to use."""

    def __init__(self, job: Job) -> None:
        self._job, self._recipe = job, job.recipe
        self._output, self._work = folder_of(job.output), Path(job.work)
        columns = job.recipe.columns
        self._processor = processor_kind()
        self._names = tuple(dict.fromkeys((*columns.read, *columns.passed)))

    @cached_property
    def _scorer(self) -> Scorer:
        job = self._job
        return Scorer(job.bundle, job.store, job.recipe.cut, job.table_folder, job.patience_s)

    @cached_property
    def _input(self) -> tuple[ParquetParts, Stamps]:
        """The files that were surveyed, and what they are now. DataFileError if they changed."""
        job = self._job
        parts = open_input(job.input, job.files)
        now = stamps_now(job.input, list(job.files))
        refuse_changes(job.files, now, times=gethostname() == job.host)
        return parts, now

    @cached_property
    def _reader(self) -> ForwardReader:
        columns, (parts, _) = self._recipe.columns, self._input
        names = self._names if columns.layout == "lists" else columns.passed
        return ForwardReader(parts, names, rows_at_once(parts, columns))

    @cached_property
    def _clicks(self) -> Clicks | None:
        if self._recipe.clicks is None:
            return None
        return Clicks(self._work / CLICKS, self._scorer.schema.history_length)

    @cached_property
    def _buckets(self) -> BucketScores:
        return BucketScores(self._work, self._recipe.buckets)

    def run(self, unit: Unit) -> Done:
        """Do the unit, and write its file whole. BatchError, DataFileError, StoreError, OSError."""
        began = perf_counter()
        match unit.kind:
            case "lists":
                candidates, counts = self._score_lists(unit)
            case "bucket":
                candidates, counts = self._score_bucket(unit)
            case "rows":
                candidates, counts = self._put_together(unit)
        return Done(unit, candidates, perf_counter() - began, counts, self._processor)

    def close(self) -> None:
        """Stop what was started."""
        if "_scorer" in self.__dict__:
            self._scorer.close()

    def _score_lists(self, unit: Unit) -> tuple[int, dict[str, int]]:
        scorer, recipe = self._scorer, self._recipe
        reader = RequestReader(recipe.columns, scorer.schema, scorer.store.text_ids)
        passed, read, files = [], [], set()
        for _, file, whole in self._reader.read(unit.start, unit.end):
            files.add(file)
            arrays, left_out = without_long(whole, recipe.columns, recipe.max_candidates)
            passed.append(arrays)
            read.append(reader.read(file, arrays, left_out))
        requests = joined(read)
        del read
        scores = scorer.score(requests, self._histories(requests))
        data, counts = list_part(recipe, (unit.start, unit.end), passed, requests, scores)
        self._put(unit, data, files)
        return len(requests.items), counts

    def _score_bucket(self, unit: Unit) -> tuple[int, dict[str, int]]:
        scorer, recipe = self._scorer, self._recipe
        columns, longest = recipe.columns, recipe.max_candidates
        most = recipe.memory // of_candidate(columns)
        record = record_of(columns, scorer.schema)
        bucket = Bucket(self._work / SPILL, unit.number, record, columns, most, longest)
        out = BucketWriter(Folder(self._work), unit.number)
        for records in bucket.rounds():
            requests, rows = grouped(records, columns)
            del records
            requests = limited(requests, columns.item, longest)
            scores = scorer.score(requests, self._histories(requests))
            scores.faults.update({g: reason for g, (_, reason) in requests.faults.items()})
            out.add(requests, rows, scores, recipe.top_k)
            del requests, rows, scores
        out.reject(
            (rows, [too_long(count, longest) for count in counts.tolist()])
            for rows, counts in bucket.too_long()
        )
        out.finish()
        return bucket.rows, {}

    def _put_together(self, unit: Unit) -> tuple[int, dict[str, int]]:
        start, end = unit.start, unit.end
        batches = list(self._reader.read(start, end))
        arrays = [arrays for *_, arrays in batches]
        found, faults = self._buckets.rows(start, end)
        data, counts = row_part(self._recipe, (start, end), arrays, found, faults)
        self._put(unit, data, {file for _, file, _ in batches})
        return 0, counts

    def _put(self, unit: Unit, data: bytes, files: Collection[Path]) -> None:
        """Write a part of rows that were read from ``files``. DataFileError if these changed."""
        _, before = self._input
        refuse_changes(before, stamps_now(self._job.input, list(files)))
        self._output.put(self._recipe.part_name(unit.start, unit.end), data)

    def _histories(self, requests: Requests) -> Histories | None:
        """Histories of a back-test, or of the requests; None: the stored ones."""
        clicks, times, given = self._clicks, requests.times, requests.histories
        if given is not None:
            return lambda g: given[g]
        if clicks is None or times is None:
            return None
        return lambda g: clicks.history(int(requests.users[g]), int(times[g]))
