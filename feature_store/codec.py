"""Encodes and decodes stored records: items, users and packed histories, with format and checksum.

An item record, little-endian:

    magic b"QI" | format u8 | 0 u8 | layout u32 | item id i64 | schema.item_dtype bytes | crc32 u32

``layout`` is the crc32 of ``schema.layout``. The id reveals a record stored under another item's
key; the crc covers everything before it. An item with contents (``feature_store.contents``) has
format 2, which feature it is in place of the 0, and before the crc the origin of the row's vector,
u64, then up to two pairs of an origin and a vector as the row has it. A user record is as an item's
of format 1 with ``b"QU"``, the user id and
``schema.user_layout``. A packed history (LMDB; Redis keeps a native list) has ``b"QH"``, its length
in place of ``layout``, the user id, and int64 item ids, newest first.

Later codecs must read these records, too: ``tests/feature_store/golden``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from zlib import crc32

import numpy as np
from numpy.lib.recfunctions import require_fields
from numpy.typing import NDArray

from feature_store.contents import GIVEN, OTHERS, Contents, Origin, check_feature
from feature_store.contract import (
    CORRUPT,
    FOUND,
    MISSING,
    STALE,
    Ids,
    ItemBatch,
    Rows,
    UserBatch,
)
from feature_store.errors import StoreCorrupt, StoreStale
from feature_store.schema import FeatureSchema

FORMAT, CONTENT_FORMAT = 1, 2
_ITEM, _USER, _HISTORY = b"QI", b"QU", b"QH"
_HEADER = 16  # bytes before the body
_CRC = 4  # bytes after it
_ORIGIN = 8  # bytes of an origin
_INTACT = 0x2144DF1C  # the crc32 of any bytes followed by their own crc32


class RecordCodec:
    """Encodes and decodes batches of records of one kind and layout."""

    _newest = FORMAT

    def __init__(self, magic: bytes, dtype: np.dtype[np.void], layout: str) -> None:
        self.dtype = dtype
        self.record_bytes = _HEADER + dtype.itemsize + _CRC
        self._magic, self._layout = magic, crc32(layout.encode()).to_bytes(4, "little")
        self._head = magic + bytes([FORMAT, 0]) + self._layout
        self._prefix = np.frombuffer(self._head, "<u8")[0]
        self._blank = bytes(self.record_bytes)

    def encode(self, ids: Ids, rows: Rows) -> list[bytes]:
        """Encode rows, one record each."""
        size, count = self.record_bytes, len(ids)
        records = np.empty((count, size), np.uint8)
        records[:, :8] = np.frombuffer(self._prefix.tobytes(), np.uint8)
        records[:, 8:_HEADER] = _bytes_of(ids.astype("<i8", copy=False))
        records[:, _HEADER:-_CRC] = _bytes_of(by_name(rows, self.dtype))
        unchecked = records.reshape(-1).data
        crcs = [crc32(unchecked[at : at + size - _CRC]) for at in range(0, count * size, size)]
        records[:, -_CRC:] = _bytes_of(np.array(crcs, "<u4"))
        packed = records.tobytes()
        return [packed[at : at + size] for at in range(0, count * size, size)]

    def decode_rows(
        self, ids: Ids, records: Sequence[bytes | None]
    ) -> tuple[Rows, NDArray[np.uint8]]:
        """Decode records, in the order of ``ids``, to rows and their status.

        A damaged one is CORRUPT, not raised.
        """
        size, count = self.record_bytes, len(ids)
        whole = [r if r is not None and len(r) == size else self._blank for r in records]
        table = np.frombuffer(b"".join(whole), np.uint8).reshape(count, size)
        head = np.ascontiguousarray(table[:, :_HEADER])
        good = np.fromiter(map(crc32, whole), np.uint32, count) == _INTACT
        good &= head[:, :8].copy().view("<u8")[:, 0] == self._prefix
        good &= head[:, 8:].copy().view("<i8")[:, 0] == ids
        rows = table[:, _HEADER:-_CRC].copy().view(self.dtype).reshape(count)
        status = np.where(good, FOUND, CORRUPT).astype(np.uint8)
        if not good.all():
            rows[~good] = 0
            status[[record is None for record in records]] = MISSING
        return rows, status

    def fault(self, number: int, record: bytes) -> str | None:
        """Describe why a record is CORRUPT; None if it is sound."""
        what = "item" if self._magic == _ITEM else "user"
        if len(record) < _HEADER or record[:2] != self._magic:
            return f"not {'an' if what == 'item' else 'a'} {what} record"
        if record[2] > self._newest:
            return f"format {record[2]} is newer than this program's {self._newest}"
        if record[4:8] != self._layout:
            return "written with another schema"
        if len(record) != self.record_bytes:
            return f"{len(record)} bytes instead of {self.record_bytes}"
        return self._sealed_fault(number, record)

    def _sealed_fault(self, number: int, record: bytes) -> str | None:
        if crc32(record) != _INTACT:
            return "damaged: its checksum does not match"
        if (stored := int.from_bytes(record[8:16], "little", signed=True)) != number:
            return f"holds {'item' if self._magic == _ITEM else 'user'} {stored}"
        return None


class ItemCodec(RecordCodec):
    """Encodes and decodes batches of item records of one schema."""

    _newest = CONTENT_FORMAT

    def __init__(self, schema: FeatureSchema) -> None:
        super().__init__(_ITEM, schema.item_dtype, schema.layout)
        self._names = [feature.name for feature in schema.stored_item]
        dense = {f.name for f in schema.stored_item if f.kind == "dense"}
        # (which feature, vectors beside the row's) -> (prefix, length) of a record, and back.
        self._forms = {
            (at, count): (
                np.frombuffer(_ITEM + bytes([CONTENT_FORMAT, at]) + self._layout, "<u8")[0],
                self.record_bytes + _ORIGIN + count * (_ORIGIN + self.dtype[name].itemsize),
            )
            for at, name in enumerate(self._names)
            for count in range(OTHERS + 1)
            if name in dense
        }
        self._form_of = {(form[0], size): form for form, (_, size) in self._forms.items()}

    def encode(self, ids: Ids, rows: Rows, contents: Contents | None = None) -> list[bytes]:
        """Encode rows, one record each; ``contents``: the origins of their vectors."""
        if contents is None:
            return super().encode(ids, rows)
        known = np.flatnonzero((contents.row != GIVEN) | (contents.count > 0))
        records = super().encode(ids, rows)
        at = self._names.index(contents.feature)
        for place in known.tolist():
            count = int(contents.count[place])
            prefix, _ = self._forms[at, count]
            parts = [prefix.tobytes(), records[place][8:-_CRC]]
            parts.append(int(contents.row[place]).to_bytes(_ORIGIN, "little"))
            for origin, vector in contents.each(place):
                parts += (origin.to_bytes(_ORIGIN, "little"), vector.tobytes())
            unchecked = b"".join(parts)
            records[place] = unchecked + crc32(unchecked).to_bytes(_CRC, "little")
        return records

    def decode(self, item_ids: Ids, records: Sequence[bytes | None]) -> ItemBatch:
        rows, status = self.decode_rows(item_ids, records)
        contents: Contents | None = None
        for form, places in self._with_contents(records, status).items():
            name = self._names[form[0]]
            if contents is None:
                contents = Contents.of(name, np.zeros(len(item_ids), np.uint64), self.dtype)
            if name == contents.feature:
                self._decode_form(form, places, item_ids, records, rows, status, contents)
        return ItemBatch(item_ids, rows, status, contents)

    def _with_contents(
        self, records: Sequence[bytes | None], status: NDArray[np.uint8]
    ) -> dict[tuple[int, int], list[int]]:
        """Group the places of records with contents by their form."""
        found: dict[tuple[int, int], list[int]] = {}
        for place in np.flatnonzero(status == CORRUPT).tolist():
            form = self._form(records[place] or b"")
            if form is not None:
                found.setdefault(form, []).append(place)
        return found

    def _form(self, record: bytes) -> tuple[int, int] | None:
        """Return which feature a record has contents of and how many; None for another format."""
        if len(record) < _HEADER or record[2] != CONTENT_FORMAT:
            return None
        return self._form_of.get((record[3], len(record)))

    def _decode_form(
        self,
        form: tuple[int, int],
        places: list[int],
        ids: Ids,
        records: Sequence[bytes | None],
        rows: Rows,
        status: NDArray[np.uint8],
        contents: Contents,
    ) -> None:
        """Decode records of one form into rows, status and contents."""
        prefix, size = self._forms[form]
        whole = [record for place in places if (record := records[place]) is not None]
        table = np.frombuffer(b"".join(whole), np.uint8).reshape(len(whole), size)
        good = np.fromiter(map(crc32, whole), np.uint32, len(whole)) == _INTACT
        good &= table[:, :8].copy().view("<u8")[:, 0] == prefix
        good &= table[:, 8:_HEADER].copy().view("<i8")[:, 0] == ids[places]
        sound, table = np.array(places)[good], table[good]
        end = _HEADER + self.dtype.itemsize
        rows[sound] = table[:, _HEADER:end].copy().view(self.dtype).reshape(-1)
        contents.row[sound] = table[:, end : end + _ORIGIN].copy().view("<u8")[:, 0]
        contents.count[sound] = form[1]
        field = self.dtype[contents.feature]
        for at in range(form[1]):
            start = end + _ORIGIN + at * (_ORIGIN + field.itemsize)
            vector = start + _ORIGIN
            contents.others[sound, at] = table[:, start:vector].copy().view("<u8")[:, 0]
            values = table[:, vector : vector + field.itemsize].copy().view(field.base)
            contents.vectors[sound, at] = values
        status[sound] = FOUND

    def patched(
        self, ids: Ids, record: bytes, change: Callable[[Rows], None], origin: Origin | None
    ) -> bytes:
        """Return one item's record after ``FeatureStore.patch_item``. StoreCorrupt."""
        [item] = ids.tolist()
        batch = self.decode(ids, [record])
        if batch.status[0] != FOUND:
            raise StoreCorrupt(f"item {item}: {self.fault(item, record)}; replace the whole item")
        row, contents = batch.rows.copy(), batch.contents
        change(row)
        if origin is not None:
            if contents is None:
                contents = Contents.of(origin.feature, np.zeros(1, np.uint64), self.dtype)
            check_feature(contents, origin)
            contents = contents.renewed(batch.rows, row, origin.number)
        elif contents is not None:
            vectors = (batch.rows[contents.feature], row[contents.feature])
            if vectors[0].tobytes() != vectors[1].tobytes():
                contents = contents.renewed(batch.rows, row, GIVEN)
        return self.encode(ids, row, contents)[0]

    def fault(self, number: int, record: bytes) -> str | None:
        if len(record) < _HEADER or record[:2] != _ITEM or record[2] != CONTENT_FORMAT:
            return super().fault(number, record)
        batch = self.decode(np.array([number], np.int64), [record])
        if batch.status[0] == FOUND:
            return None
        if record[4:8] != self._layout:
            return "written with another schema"
        if self._form(record) is None:
            return f"{len(record)} bytes, which no record with contents has"
        return self._sealed_fault(number, record)


class UserCodec(RecordCodec):
    """Encodes and decodes batches of user records of one schema.

    A record written before further features were added to the store has a layout that the schema's
    begins with; what it lacks is 0, the value of a missing index. One with features that this
    schema does not have is STALE: the schema is to be read again.
    """

    def __init__(self, schema: FeatureSchema) -> None:
        dtype, lines = schema.user_dtype, schema.user_layout.split("\n")
        super().__init__(_USER, dtype, schema.user_layout)
        fields = [(name, dtype[name]) for name in dtype.names or ()]
        self._earlier = [
            RecordCodec(_USER, np.dtype(fields[:count]), "\n".join(lines[:count]))
            for count in range(len(fields) - 1, 0, -1)
        ]

    def decode(self, user_ids: Ids, records: Sequence[bytes | None]) -> UserBatch:
        rows, status = self.decode_rows(user_ids, records)
        for at in np.flatnonzero(status == CORRUPT).tolist():
            record = records[at]
            assert record is not None
            one = user_ids[at : at + 1]
            for codec in self._earlier:
                row, found = codec.decode_rows(one, [record])
                if found[0] == FOUND:
                    rows[at], status[at] = by_name(row, self.dtype)[0], FOUND
                    break
            else:
                owner = int.from_bytes(record[8:16], "little", signed=True)
                if record[:2] == _USER and crc32(record) == _INTACT and owner == one[0]:
                    status[at] = STALE
        return UserBatch(user_ids, rows, status)

    def decode_one(self, user_id: int, record: bytes | None) -> tuple[Rows, int]:
        """Decode one record to a (1,) row and its status; for once per request."""
        if record is None:
            return np.zeros(1, self.dtype), MISSING
        head = self._head + user_id.to_bytes(8, "little")
        if (
            len(record) == self.record_bytes
            and record[:_HEADER] == head
            and crc32(record) == _INTACT
        ):
            return np.frombuffer(record, self.dtype, 1, _HEADER).copy(), FOUND
        batch = self.decode(np.array([user_id]), [record])
        return batch.rows, int(batch.status[0])

    def unpatchable(self, user_id: int, record: bytes, status: int) -> StoreCorrupt:
        """Return the error for a record that is CORRUPT or STALE."""
        kind = StoreStale if status == STALE else StoreCorrupt
        return kind(f"user {user_id}: {self.fault(user_id, record)}; replace the whole record")

    def fault(self, number: int, record: bytes) -> str | None:
        faults = [codec.fault(number, record) for codec in self._earlier]
        return None if None in faults else super().fault(number, record)


def encode_history(user_id: int, newest_first: Ids) -> bytes:
    body = _HISTORY + bytes([FORMAT, 0]) + len(newest_first).to_bytes(4, "little")
    body += user_id.to_bytes(8, "little") + newest_first.astype("<i8", copy=False).tobytes()
    return body + crc32(body).to_bytes(4, "little")


def decode_history(user_id: int, record: bytes) -> Ids:
    """Decode item ids, newest first. Raises StoreCorrupt for a damaged record."""
    if len(record) < _HEADER + _CRC or record[:2] != _HISTORY:
        raise StoreCorrupt(f"history of user {user_id}: not a history record; load it again")
    if record[2] > FORMAT:
        raise StoreCorrupt(
            f"history of user {user_id}: format {record[2]} is newer than this program's {FORMAT};"
            " use the release that wrote it"
        )
    count = int.from_bytes(record[4:8], "little")
    owner = int.from_bytes(record[8:16], "little")
    if len(record) != _HEADER + 8 * count + _CRC or crc32(record) != _INTACT or owner != user_id:
        raise StoreCorrupt(f"history of user {user_id}: damaged record; load it again")
    return np.frombuffer(record, "<i8", count, _HEADER)


def by_name(rows: Rows, dtype: np.dtype[np.void]) -> Rows:
    """Return rows as ``dtype``, field by field: another schema may have them in another order.

    A field that ``rows`` lack is 0.
    """
    if rows.dtype == dtype:
        return rows
    converted: Rows = require_fields(rows, dtype)
    return converted


def _bytes_of(values: NDArray[np.generic]) -> NDArray[np.uint8]:
    """(N,) of k bytes each, as (N, k) uint8."""
    flat = np.ascontiguousarray(values)
    return flat.view(np.uint8).reshape(len(flat), flat.dtype.itemsize)
