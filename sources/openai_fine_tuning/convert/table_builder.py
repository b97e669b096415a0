"""From the API's records to Arrow tables: every value into its column, every record that does not fit kept as it is."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import dlt
import pyarrow as pa
from dlt.common.normalizers.naming import NamingConvention

from openai_fine_tuning import settings
from openai_fine_tuning.schema import (
    CONVERT,
    REJECTED_RECORDS,
    TABLES,
    Table,
    Type,
    arrow_types,
)

from . import values
from .columnar import (
    Block,
    Place,
    Places,
    Shape,
    Slot,
    block_of,
    shape_of,
)
from .values import UnfitError

_STORED_TYPES: dict[str, Type] = {
    "text": "text",
    "double": "double",
    "bigint": "bigint",
    "bool": "bool",
    "timestamp": "timestamp",
}


class TableBuilder:
    """Collects the typed rows of one table and hands them over as an Arrow table.

    A field that no one has seen before becomes a column, with the type of its first value; from then on that is the
    column's type, in this sync and in later ones.

    Args:
        table: The declared table.
        naming: The naming convention of the destination's schema, which makes column names of field names.
        stored: Columns that the destination's table has already, name to dlt data type.
    """

    def __init__(self, table: Table, naming: NamingConvention, stored: Mapping[str, str]) -> None:
        self._table = table
        self._naming = naming
        self._types: dict[str, Type] = {
            **{name: _STORED_TYPES.get(data_type, "text") for name, data_type in stored.items()},
            **table.types,
        }
        self._declared = frozenset(table.types)
        self._extras: dict[str, None] = {}
        self._keys = table.keys
        self.places = Places.of(table.flattened)
        self._identity = tuple(name for name in table.keys if name != "account")
        self._seen: set[Any] = set()
        self._rows: list[dict[str, Any]] = []
        self._blocks: list[Block] = []
        self._size = 0
        self._taken = 0

    @property
    def rows(self) -> int:
        """Rows kept so far, taken ones included."""
        return self._taken + self._size

    def __len__(self) -> int:
        return self._size

    def add(self, record: Any, own: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
        """Type a record and keep it as a row, once: a double of a row that was kept before is let go.

        A load is declared free of doubles, which spares the destination from sorting all of it to find them.

        Args:
            record: What the host sent.
            own: Columns that the source sets itself, typed; a field of the same name gets another column.
            defaults: Columns that the source fills, typed, where the record leaves them empty.

        Raises:
            UnfitError: It cannot be typed; the message says why. Nothing is kept.
        """
        if not isinstance(record, dict):
            raise UnfitError(f"{values.to_json(record, ascii_only=True)[:60]} is no object")
        row: dict[str, Any] = dict(own)
        new: dict[str, Type] = {}
        for key, value in record.items():
            if value is None:
                continue
            if key in self.places.inner:
                self._put_flattened(row, new, self.places.inner[key], value)
            else:
                self._put(row, new, self.places.top, key, value)
        for name, value in defaults.items():
            if row.get(name) is None:
                row[name] = value
        for name in self._keys:
            if row.get(name) in (None, ""):
                raise UnfitError(f"it has no {name}")
        first, *others = (row[name] for name in self._identity)
        identity = (first, *others) if others else first
        if identity in self._seen:
            return
        self._seen.add(identity)
        self._types.update(new)
        self._note_extras(row)
        self._rows.append(row)
        self._size += 1

    def add_alike(self, records: Sequence[Any], own: Mapping[str, Any], defaults: Mapping[str, Any]) -> bool:
        """As `add` for each of many records of one `Shape`, a column at a time, which takes a third of the time.

        Returns:
            Whether they were kept: False where one of them must be looked at by itself, and none was.
        """
        block = block_of(records, self.places)
        if block is None:
            return False
        for name, value in own.items():
            if name in block:
                return False
            block[name] = pa.array([value] * len(records), arrow_types()[self._types[name]])
        for name, value in defaults.items():
            if name not in block:
                block[name] = pa.array([value] * len(records), arrow_types()[self._types[name]])
            elif block[name].null_count:
                return False
        if not all(name in block and not block[name].null_count for name in self._keys):
            return False
        keys = [block[name].to_pylist() for name in self._identity]
        identities = set(keys[0] if len(keys) == 1 else zip(*keys, strict=True))
        if len(identities) < len(records) or not self._seen.isdisjoint(identities):
            return False
        self._seen |= identities
        self._note_extras(block)
        self._blocks.append(block)
        self._size += len(records)
        return True

    def take(self) -> pa.Table:
        """The rows since the last call, as an Arrow table that has every declared column even where it has no row."""
        names = [*(column.name for column in self._table.columns), *self._extras]
        schema = pa.schema(
            [pa.field(name, arrow_types()[self._types[name]], nullable=name not in self._keys) for name in names]
        )
        rows, blocks = self._rows, self._blocks
        self._taken += self._size
        self._rows, self._blocks, self._size = [], [], 0
        if rows or not blocks:
            blocks.append({field.name: pa.array([row.get(field.name) for row in rows], field.type) for field in schema})
        sizes = [len(block[self._keys[0]]) for block in blocks]
        columns = []
        for column in schema:
            parts = [
                block[column.name].cast(column.type) if column.name in block else pa.nulls(size, column.type)
                for block, size in zip(blocks, sizes, strict=True)
            ]
            columns.append(parts[0] if len(parts) == 1 else pa.concat_arrays(parts))
        return pa.Table.from_arrays(columns, schema=schema)

    def _note_extras(self, names: Mapping[str, Any]) -> None:
        if not names.keys() <= self._declared:
            self._extras.update(dict.fromkeys(name for name in names if name not in self._declared))

    def _put_flattened(self, row: dict[str, Any], new: dict[str, Type], place: Place, value: Any) -> None:
        how = place.how
        if how.keeps_json:
            row[place.prefix] = values.to_json(value)
        if isinstance(value, dict):
            for key, inner in value.items():
                if inner is None or (how.keys is not None and key not in how.keys):
                    continue
                if how.numbers_only and (isinstance(inner, bool) or not isinstance(inner, (int, float))):
                    continue
                self._put(row, new, place, key, inner)
        elif not how.keeps_json:
            if how.type is None:
                raise UnfitError(f"its {place.prefix} are no object")
            self._put(row, new, self.places.top, place.prefix, value)

    def _put(self, row: dict[str, Any], new: dict[str, Type], place: Place, key: str, value: Any) -> None:
        slot = place.slots.get(key)
        if slot is None or slot.name in row:
            slot = self._slot(row, new, place, key, value)
        try:
            row[slot.name] = slot.convert(value)
        except UnfitError as error:
            if not place.how.numbers_only:
                raise UnfitError(f"{slot.name} ({slot.type}): {error}") from None

    def _slot(self, row: dict[str, Any], new: dict[str, Type], place: Place, key: str, value: Any) -> Slot:
        name = self._column_name(place.prefix, key)
        # Two fields of one record that normalise to one name would fail the whole load: the later one is told apart.
        is_told_apart = name in row
        if is_told_apart:
            name = self._column_name(place.prefix, key, told_apart=True)
        type_ = self._types.get(name) or new.get(name)
        if type_ is None:
            if len(self._types) + len(new) >= settings.MAX_COLUMNS:
                raise UnfitError(f"the table has {settings.MAX_COLUMNS:,} columns, so there is no room for {name}")
            type_ = new[name] = place.how.type or _type_of(value)
        is_id = name in self._keys and type_ == "text"
        slot = Slot(name, type_, values.to_id if is_id else CONVERT[type_], is_id)
        if name in self._types and not is_told_apart:
            place.slots[key] = slot  # a column that has a type keeps it
        return slot

    def _column_name(self, prefix: str, key: str, *, told_apart: bool = False) -> str:
        start = f"{prefix}__" if prefix else ""
        if not told_apart and start + key in self._declared:
            return start + key
        name = self._naming.normalize_identifier(key) if key.strip() else "unnamed"
        if name.startswith("_dlt"):
            name = "x" + name
        if told_apart or not key.isascii():
            digest = hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()[:8]
            name = f"{name}_{digest}"
        return self._naming.normalize_path(start + name)


class Batches:
    """The rows of all tables on their way, for one account.

    Args:
        account: The label that every row carries.
        schema: The source's schema, with the columns that the destination has.
    """

    def __init__(self, account: str, schema: dlt.Schema) -> None:
        self._account = account
        self._builders = {
            name: TableBuilder(
                table,
                schema.naming,
                {
                    column: str(hints["data_type"])
                    for column, hints in schema.tables.get(name, {}).get("columns", {}).items()
                    if hints.get("data_type") and not column.startswith("_dlt")
                },
            )
            for name, table in TABLES.items()
        }
        self.rejected = 0

    @property
    def rows(self) -> int:
        """Rows of all tables so far, taken ones included."""
        return sum(builder.rows for builder in self._builders.values())

    def add(
        self,
        table: str,
        record: Any,
        *,
        job_id: str | None,
        own: Mapping[str, Any] | None = None,
        defaults: Mapping[str, Any] | None = None,
        shown: Any = None,
    ) -> bool:
        """Type a record as a row of a table, or keep it with the reason why not. Returns whether it became a row.

        Args:
            table: Its table.
            record: What the host sent.
            job_id: The job in whose listing it stood; None for a job itself.
            own: Typed columns that the source sets; None values count as set.
            defaults: Typed columns that the source fills where the record leaves them empty.
            shown: What to keep of a record that is rejected; the record itself where left out.
        """
        try:
            self._builders[table].add(record, {"account": self._account, **(own or {})}, defaults or {})
        except UnfitError as error:
            self.reject(table, record if shown is None else shown, job_id=job_id, reason=str(error))
            return False
        return True

    def add_all(
        self, table: str, records: Iterable[Any], *, job_id: str, own: Mapping[str, Any], defaults: Mapping[str, Any]
    ) -> None:
        """As `add` for each of many records."""
        builder = self._builders[table]
        alike: dict[Shape | None, list[int]] = {}
        listed = list(records)
        for index, record in enumerate(listed):
            alike.setdefault(shape_of(record, builder.places), []).append(index)
        by_itself: list[int] = []
        for shape, indexes in alike.items():
            some = [listed[index] for index in indexes]
            if shape is None or not builder.add_alike(some, {"account": self._account, **own}, defaults):
                by_itself += indexes
        for index in sorted(by_itself):  # in their order: the first value of a new field makes its column's type
            self.add(table, listed[index], job_id=job_id, own=own, defaults=defaults)

    def reject(self, table: str, record: Any, *, job_id: str | None, reason: str) -> None:
        """Keep a record that cannot be a row of its table."""
        self.rejected += 1
        text = values.to_json(record, ascii_only=True)
        row = {
            "resource": table,
            "record_hash": hashlib.sha256(f"{values.escaped(job_id or '')}\n{text}".encode()).hexdigest(),
            "fine_tuning_job_id": job_id,
            "reason": reason,
            "record": text,
            "rejected_at": time.time(),
        }
        self._builders[REJECTED_RECORDS.name].add(row, {"account": self._account}, {})

    def empty(self, tables: Iterable[str]) -> dict[str, pa.Table]:
        """Tables without rows, with every declared column: what makes them in a destination."""
        return {name: self._builders[name].take() for name in tables}

    def take(self, *, at_least: int = 1) -> dict[str, pa.Table]:
        """The tables that hold at least so many rows, as Arrow tables; `at_least=0` gives empty ones too."""
        return {name: builder.take() for name, builder in self._builders.items() if len(builder) >= at_least}


def _type_of(value: Any) -> Type:
    if isinstance(value, bool):
        return "bool"
    return "double" if isinstance(value, (int, float)) else "text"
