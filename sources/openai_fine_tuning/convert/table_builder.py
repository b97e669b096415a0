"""Build Arrow tables from the API's records: every value in its column, and what does not fit kept with the reason."""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, NamedTuple

import dlt
import pyarrow as pa
from dlt.common.normalizers.naming import NamingConvention

from openai_fine_tuning import settings
from openai_fine_tuning.schema import JOBS, REJECTED_RECORDS, TABLES, Flattened, Table, Type, arrow_types

from . import values
from .columnar import convert_column
from .values import UnfitError

Record = dict[str, Any]

_PLAIN_NAME = re.compile(r"[a-z][a-z0-9_]*")
_SYSTEM_COLUMNS = frozenset(
    {"ctid", "tableoid", "xmin", "xmax", "cmin", "cmax", "oid", "insertxid", "deletexid", "rowid"}
)
"""Columns that PostgreSQL, Redshift or SQLite have in every table: they refuse, or hide, another of the name."""
_TYPES: dict[str, Type] = {"double": "double", "bigint": "bigint", "bool": "bool", "timestamp": "timestamp"}
_NUMBERS = frozenset({int, float})
_NUMBERS_OR_NULL = frozenset({int, float, type(None)})
_MOST_REASONS = 10


class Unfit(NamedTuple):
    """A record that does not fit its table, or that has a value that does not fit.

    Attributes:
        position: Its place among the records that were added.
        reason: Which fields do not fit, and why.
        is_row: Whether it became a row, with null for what does not fit.
    """

    position: int
    reason: str
    is_row: bool


@dataclass
class _Level:
    """A level of a record that holds fields: its top, or one of its flattened objects.

    Attributes:
        prefix: The name of the object; empty for the record itself.
        how: How the object is flattened.
        columns: Field name to its column, None for the JSON column. Decided when a field has its first value.
    """

    prefix: str = ""
    how: Flattened = field(default_factory=Flattened)
    columns: dict[str, str | None] = field(default_factory=dict)

    def full_name(self, name: str) -> str:
        """Return the name of a field's own column."""
        return f"{self.prefix}__{name}" if self.prefix else name


class _Objects(NamedTuple):
    """The objects of one level.

    Attributes:
        level: The level.
        of_records: The object of each record.
        names: The names of their fields, in the order in which the host sent them.
    """

    level: _Level
    of_records: Sequence[Record]
    names: Mapping[str, None]

    @classmethod
    def of(cls, level: _Level, of_records: Sequence[Record]) -> _Objects:
        """Collect the names of the fields."""
        return cls(level, of_records, dict.fromkeys(chain.from_iterable(of_records)))


class _Rows:
    """Records on their way to rows, with the columns that are converted so far.

    Attributes:
        records: The records.
        columns: Column name to converted values.
        own: The columns that the source sets itself.
        others: By position, the fields that go into the JSON column.
        unfit: By position, which values do not fit, and why.
    """

    def __init__(self, records: Sequence[Record], own: Mapping[str, Any]) -> None:
        self.records = records
        self.columns: dict[str, list[Any]] = {name: [value] * len(records) for name, value in own.items()}
        self.own = own.keys()
        self.others: dict[int, Record] = {}
        self.unfit: dict[int, list[str]] = {}

    def note_unfit(self, position: int, reason: str) -> None:
        """Note that a value does not fit."""
        self.unfit.setdefault(position, []).append(reason)


class TableBuilder:
    """Collect the rows of one table and hand them out as Arrow tables.

    A field goes to the column of its name: a declared one, one that the destination has already, or a new one, which
    takes the type of its first value. A field with an unusual name, and one that comes when the table has
    `settings.MAX_COLUMNS` columns, goes into the table's JSON column.

    Args:
        table: The declared table.
        naming: The naming convention of the destination's schema.
        stored: Columns that the destination's table has already, name to dlt data type.
    """

    def __init__(self, table: Table, naming: NamingConvention, stored: Mapping[str, str]) -> None:
        self._table = table
        self._naming = naming
        self._types: dict[str, Type] = {
            **{name: _TYPES.get(data_type, "text") for name, data_type in stored.items()},
            **table.types,
        }
        self._stored = frozenset(stored) - frozenset(table.types)
        self._top = _Level()
        self._inner = {name: _Level(name, how) for name, how in table.flattened.items()}
        self._identity = tuple(name for name in table.keys if name != "account")
        self._seen: set[Any] = set()
        self._columns: dict[str, list[Any]] = {column.name: [] for column in table.columns}
        self._size = 0
        self._taken = 0

    @property
    def rows(self) -> int:
        """Rows kept so far, those included that `take` has handed out."""
        return self._taken + self._size

    def __len__(self) -> int:
        """Return the number of rows that `take` would hand out."""
        return self._size

    def add(self, records: Sequence[Any], own: Mapping[str, Any], defaults: Mapping[str, Any]) -> list[Unfit]:
        """Keep records as rows. A row that was kept before is dropped: a load is declared free of duplicates.

        Args:
            records: What the host sent.
            own: Columns that the source sets itself, typed; a field of the same name goes into the JSON column.
            defaults: Columns that the source fills, typed, if a record leaves them empty.

        Returns:
            The records that do not fit, as a whole or in part.
        """
        indexes, keys, unfit = self._identified(records, own, defaults)
        rows = _Rows([records[index] for index in indexes], own)
        rows.columns.update(keys)
        levels = [*self._inner_objects(rows), _Objects.of(self._top, rows.records)]
        self._name_new_columns(levels)
        for objects in levels:
            self._put_fields(rows, objects)
        count = len(indexes)
        for name, default in defaults.items():
            given = rows.columns.get(name, [None] * count)
            rows.columns[name] = [default if value is None else value for value in given]
        if rows.others:
            others = [rows.others.get(position) for position in range(count)]
            rows.columns[str(self._table.catch_all)] = convert_column(others, "json")[0]
        for name, column in rows.columns.items():
            kept = self._columns.setdefault(name, [])
            kept += [None] * (self._size - len(kept))
            kept += column
        self._size += count
        return unfit + [Unfit(indexes[place], _joined(sorted(why)), is_row=True) for place, why in rows.unfit.items()]

    def take(self) -> pa.Table:
        """Return the rows since the last call, as a table that has every declared column even without a row."""
        names, keys = list(self._columns), self._table.keys
        fields = [pa.field(name, arrow_types()[self._types[name]], nullable=name not in keys) for name in names]
        for column in self._columns.values():
            column.extend([None] * (self._size - len(column)))
        arrays = [pa.array(column, one.type) for one, column in zip(fields, self._columns.values(), strict=True)]
        self._taken += self._size
        self._size = 0
        self._columns = {name: [] for name in names}
        return pa.Table.from_arrays(arrays, schema=pa.schema(fields))

    def _identified(
        self, records: Sequence[Any], own: Mapping[str, Any], defaults: Mapping[str, Any]
    ) -> tuple[list[int], dict[str, list[Any]], list[Unfit]]:
        """Return the indexes of the records with a new key, their key columns, and the records without a usable key."""
        objects = _only_objects(records)
        reasons: dict[int, str] = {}
        if objects is not records:
            for index, record in enumerate(records):
                if not isinstance(record, dict):
                    reasons[index] = f"{values.shown(record)} is not an object"
        keys: dict[str, list[Any]] = {}
        for name in self._identity:
            if name in own:
                keys[name] = [own[name]] * len(records)
                continue
            given = [record.get(name) for record in objects]
            keys[name], unfit = _convert_key(given, self._types[name], defaults.get(name))
            for index, reason in unfit.items():
                reasons.setdefault(index, f"{name} ({self._types[name]}): {reason}")
        columns = list(keys.values())
        identities = columns[0] if len(columns) == 1 else list(zip(*columns, strict=True))
        kept = []
        for index, identity in enumerate(identities):
            if index not in reasons and identity not in self._seen:
                self._seen.add(identity)
                kept.append(index)
        if len(kept) < len(records):
            keys = {name: [column[index] for index in kept] for name, column in keys.items()}
        return kept, keys, [Unfit(index, reason, is_row=False) for index, reason in reasons.items()]

    def _inner_objects(self, rows: _Rows) -> Iterator[_Objects]:
        """Yield the objects of each flattened level. Note values that are not objects."""
        for name, level in self._inner.items():
            given = [record.get(name) for record in rows.records]
            objects = _only_objects(given)
            if objects is not given and level.how.type is None:
                for position, value in enumerate(given):
                    if value is not None and not isinstance(value, dict):
                        rows.note_unfit(position, f"{name}: {values.shown(value)} is not an object")
            yield _Objects.of(level, objects)

    def _put_fields(self, rows: _Rows, objects: _Objects) -> None:
        """Convert the fields of a level: all values of a field at once, or one by one if it has no own column."""
        level = objects.level
        apart: dict[str, str | None] = {}
        for name in objects.names:
            if name not in level.columns:  # it has no value yet, or is a key
                continue
            target = level.columns[name]
            if target is None or target in rows.columns or target != level.full_name(name):
                apart[name] = target
                continue
            column = [one.get(name) for one in objects.of_records]
            is_mixed = level.how.numbers_only and not _NUMBERS_OR_NULL.issuperset(map(type, column))
            if is_mixed or (level is self._top and name in self._inner):
                column = [self._field_value(level, name, value) for value in column]
            self._put(rows, level, target, column)
        for position, one in enumerate(objects.of_records if apart else ()):
            for name, value in one.items():
                if name in apart and value is not None:
                    self._put_apart(rows, level, (name, apart[name]), position, value)

    def _put(self, rows: _Rows, level: _Level, target: str, column: list[Any]) -> None:
        rows.columns[target], unfit = convert_column(column, self._types[target])
        if not level.how.keeps_json:  # else the object's JSON text has the value
            for position, reason in unfit.items():
                rows.note_unfit(position, f"{target} ({self._types[target]}): {reason}")

    def _put_apart(
        self, rows: _Rows, level: _Level, field_to_column: tuple[str, str | None], position: int, value: Any
    ) -> None:
        """Put one value into its column if that is empty, else into the JSON column under the field's own name."""
        name, target = field_to_column
        if target is not None and target not in rows.own:
            column = rows.columns.setdefault(target, [None] * len(rows.records))
            if column[position] is None:
                (column[position],), unfit = convert_column([value], self._types[target])
                if unfit and not level.how.keeps_json:
                    rows.note_unfit(position, f"{target} ({self._types[target]}): {unfit[0]}")
                return
        if not level.how.keeps_json:
            others = rows.others.setdefault(position, {})
            (others.setdefault(level.prefix, {}) if level.prefix else others)[name] = value

    def _field_value(self, level: _Level, name: str, value: Any) -> Any:
        """Return the value for the field's own column; None for an object that other columns or its JSON text hold."""
        if level.how.numbers_only:
            return value if type(value) in _NUMBERS else None
        if level is self._top and name in self._inner:
            how = self._inner[name].how
            return value if how.keeps_json or not (how.type is None or isinstance(value, dict)) else None
        return value

    # names of columns -----------------------------------------------------------------------------------------------

    def _name_new_columns(self, levels: Sequence[_Objects]) -> None:
        """Choose columns for fields that have their first value, in the order in which the host sent them."""
        found: list[tuple[int, _Level, str, Any]] = []
        for level, objects, names in levels:
            unnamed = names.keys() - level.columns.keys()
            if level is self._top:
                unnamed -= set(self._identity)
            if level.how.keys is not None:
                unnamed &= level.how.keys
            for position, record in enumerate(objects if unnamed else ()):
                for name in [name for name in record if name in unnamed]:
                    value = self._field_value(level, name, record[name])
                    if value is not None:
                        unnamed.discard(name)
                        found.append((position, level, name, value))
        for _, level, name, value in sorted(found, key=lambda one: one[0]):
            level.columns[name] = self._column_of(level, name, value)

    def _column_of(self, level: _Level, field_name: str, value: Any) -> str | None:
        name = level.full_name(field_name)
        if name == self._table.catch_all:
            return None
        if name in self._types:
            return name
        if (stored := self._stored_name(level, field_name)) is not None:
            return stored
        is_plain = _PLAIN_NAME.fullmatch(field_name) and self._naming.normalize_path(name) == name
        is_plain = is_plain and name not in _SYSTEM_COLUMNS
        if not is_plain or len(name) > settings.MAX_COLUMN_NAME or len(self._types) >= settings.MAX_COLUMNS:
            return None
        self._types[name] = level.how.type or _type_of(value)
        return name

    def _stored_name(self, level: _Level, field_name: str) -> str | None:
        """Return the column that an earlier release made of a field with an unusual name, if the destination has it."""
        if not self._stored:
            return None
        name = self._naming.normalize_identifier(field_name) if field_name.strip() else "unnamed"
        if name.startswith("_dlt"):
            name = "x" + name
        if not field_name.isascii():
            name += "_" + hashlib.sha256(field_name.encode("utf-8", "surrogatepass")).hexdigest()[:8]
        name = self._naming.normalize_path(level.full_name(name))
        return name if name in self._stored else None


class Batches:
    """The rows of all tables on their way, for one account.

    Args:
        account: The label that every row carries.
        schema: The source's schema, with the columns that the destination has.
        tables: The tables, `rejected_records` among them.
    """

    def __init__(self, account: str, schema: dlt.Schema, tables: Iterable[Table] = TABLES.values()) -> None:
        self._account = account
        self._builders = {
            table.name: TableBuilder(
                table,
                schema.naming,
                {
                    column: str(hints["data_type"])
                    for column, hints in schema.tables.get(table.name, {}).get("columns", {}).items()
                    if hints.get("data_type") and not column.startswith("_dlt")
                },
            )
            for table in tables
        }
        self.rejected = 0

    @property
    def rows(self) -> int:
        """Rows of all tables so far, those included that `take` has handed out."""
        return sum(builder.rows for builder in self._builders.values())

    def add(
        self,
        table: str,
        record: Any,
        *,
        job_id: str | None,
        own: Mapping[str, Any] | None = None,
        defaults: Mapping[str, Any] | None = None,
    ) -> bool:
        """Keep one record as a row, as `add_all` does. Returns whether it has its key, and so is a row."""
        shown, own = record, own or {}
        if table == JOBS.name and isinstance(record, dict):
            record, own = _with_hyperparameters(record), {**own, **_file_columns(record)}
        return self.add_all(table, [record], job_id=job_id, own=own, defaults=defaults or {}, shown=[shown])

    def add_all(
        self,
        table: str,
        records: Sequence[Any],
        *,
        job_id: str | None,
        own: Mapping[str, Any],
        defaults: Mapping[str, Any],
        shown: Sequence[Any] = (),
    ) -> bool:
        """Keep records as rows of a table. If a value does not fit, the row has null, and the record is rejected.

        Args:
            table: Their table.
            records: What the host sent.
            job_id: The job that the records belong to; None for jobs themselves.
            own: Typed columns that the source sets; None values count as set.
            defaults: Typed columns that the source fills if a record leaves them empty.
            shown: What to keep of each record if it is rejected; by default the record itself.

        Returns:
            Whether all of them have their keys, and so are rows.
        """
        unfit = self._builders[table].add(records, {**self._own(), **own}, defaults)
        for one in unfit:
            self.reject(table, (shown or records)[one.position], job_id=job_id, reason=one.reason)
        return all(one.is_row for one in unfit)

    def reject(self, table: str, record: Any, *, job_id: str | None, reason: str) -> None:
        """Keep a record that does not fit its table, with the reason."""
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
        self._builders[REJECTED_RECORDS.name].add([row], self._own(), {})

    def _own(self) -> dict[str, Any]:
        """Return the columns that every row has, whatever the host sent."""
        return {"account": self._account, "synced_at": time.time_ns() // 1000}

    def empty(self, tables: Iterable[str]) -> dict[str, pa.Table]:
        """Return tables without rows, with every declared column: what makes them in a destination."""
        return {name: self._builders[name].take() for name in tables}

    def take(self, *, at_least: int = 1) -> dict[str, pa.Table]:
        """Return the tables that hold at least `at_least` rows, as Arrow tables; 0 gives empty tables too."""
        return {name: builder.take() for name, builder in self._builders.items() if len(builder) >= at_least}


def _convert_key(given: list[Any], type_: Type, default: Any) -> tuple[list[Any], dict[int, str]]:
    """Convert the values of a key column, which may be neither null nor empty. Also return what is unfit, and why."""
    if type_ == "text" and {str} == set(map(type, given)) and "" not in given:
        return convert_column(given, type_)
    convert = values.to_id if type_ == "text" else values.to_bigint
    converted, unfit = [], {}
    for position, value in enumerate(given):
        try:
            converted.append(default if value is None and default is not None else convert(value))
        except UnfitError as error:
            converted.append(None)
            unfit[position] = "it is missing" if value is None else str(error)
    return converted, unfit


def _only_objects(given: Sequence[Any]) -> Sequence[Record]:
    """Return the same values if all of them are objects; else others with an empty object for each that is none."""
    return given if {dict}.issuperset(map(type, given)) else [_object(value) for value in given]


def _object(value: Any) -> Record:
    return value if isinstance(value, dict) else {}


def _type_of(value: Any) -> Type:
    if isinstance(value, bool):
        return "bool"
    return "double" if isinstance(value, (int, float)) else "text"


def _joined(reasons: Sequence[str]) -> str:
    more = len(reasons) - _MOST_REASONS
    return "; ".join([*reasons[:_MOST_REASONS], *([f"and {more} more fields"] if more > 0 else [])])


def _with_hyperparameters(job: Record) -> Record:
    """Return a job with the hyperparameters of `method.<type>.hyperparameters` at the top, if missing there."""
    method, at_top = _object(job.get("method")), job.get("hyperparameters")
    kinds = sorted(method, key=lambda name: name != method.get("type"))  # the method's own object before others
    nested = next((found for name in kinds if (found := _object(_object(method[name]).get("hyperparameters")))), {})
    if not nested or not isinstance(at_top or {}, dict):
        return job
    given = {name: value for name, value in (at_top or {}).items() if value is not None}
    return {**job, "hyperparameters": {**nested, **given}}


def _file_columns(job: Record) -> Record:
    """Return the ids of files that a job names by objects or lists, by column. The objects go into the JSON column."""
    found: Record = {}
    for name in ("training_file", "validation_file"):
        if isinstance(job.get(name), (dict, list)):
            ids = values.file_ids(job[name])
            if len(ids) == 1 and isinstance(ids[0], str):
                found[name] = values.escaped(ids[0])
            elif not ids:
                found[name] = None
    return found
