"""From a view's file to its SELECT for one destination: its dialect, its names, and the tables that it has."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from enum import Enum
from functools import cache, cached_property, lru_cache
from importlib.resources import files
from typing import Any

from sqlglot import ErrorLevel, exp, parse_one

from fine_tuning_warehouse.schema import TABLES

from .files import PARTS, VIEWS, View

Tables = Mapping[str, Mapping[str, str]]
"""What a destination holds: table to column to dlt's type, all in lower case."""

DIALECTS = ("duckdb", "postgres", "redshift", "snowflake", "bigquery", "clickhouse", "databricks", "spark")
"""The dialects of sqlglot that the views are known to transpile to."""

SOURCES = ((files(__package__) / "build.py").read_text(encoding="utf-8"), *(view.text for view in (*PARTS, *VIEWS)))
"""All that a view's SELECT comes from but for the destination."""

_LOSSES = ("full_valid_loss", "valid_loss", "train_loss")
_REWARDS = ("full_valid_mean_reward", "valid_mean_reward", "train_mean_reward")
_ACCURACIES = ("full_valid_mean_token_accuracy", "valid_mean_token_accuracy", "train_mean_token_accuracy")
_EACH = {
    "each_loss": _LOSSES,
    "each_reward": _REWARDS,
    "each_valid_loss": _LOSSES[:2],
    "each_valid_reward": _REWARDS[:2],
    "each_value": (*_LOSSES, *_REWARDS),
    "each_accuracy": _ACCURACIES,
    "each_measure": (*_LOSSES, *_REWARDS, *_ACCURACIES),
}
"""Names in a view's SQL that stand for several metrics, the one that says most first."""

_MACROS = {
    # A loss or an accuracy below 0 stands for "not measured"; NaN and infinity say that a run diverged. Rewards may be
    # below 0: `lowest` is 0 for the others, and -1e30 for them.
    "MEASURED": "CASE WHEN x < 0 AND x > -1e30 THEN NULL ELSE x END",
    "USABLE": "CASE WHEN x BETWEEN lowest AND 1e30 THEN x END",
    # The guard stands inside the cast: engines may evaluate a cast before the condition of a CASE around it.
    "AS_NUMBER": "CAST(CASE WHEN REGEXP_MATCHES(x, '^[0-9]+([.][0-9]+)?([eE][-+]?[0-9]+)?$') THEN x END AS DOUBLE)",
    # A number for a load: rows from the same loads have the same sum.
    "LOAD_NUMBER": "CASE WHEN x IS NOT NULL THEN HASH(x) % 1048576 END",
    # 4 decimals, 8 for small numbers.
    "IN_WORDS": """
        CASE
          WHEN ABS(x) >= 1e9 THEN CAST(x AS VARCHAR)
          WHEN ABS(x) >= 0.001 OR x = 0 THEN CAST(CAST(x AS DECIMAL(18, 4)) AS VARCHAR)
          ELSE CAST(CAST(x AS DECIMAL(18, 8)) AS VARCHAR)
        END
    """,
}
"""Functions that only the SQL of the views has, and what stands for them."""

# Columns that a view reads beside those that the source declares: they may be missing.
_MORE_COLUMNS: dict[str, dict[str, str]] = {
    "result_metrics": dict.fromkeys((*_LOSSES, *_REWARDS, *_ACCURACIES), "double"),
    "events": {"data__valid_reasoning_tokens_mean": "double"},
    "jobs": {"hyperparameters__beta": "text"},
    "files": {**dict.fromkeys(("account", "id", "filename"), "text"), "created_at": "timestamp"},
    "prices": {"base_model": "text", "per_million_tokens": "double", "per_training_hour": "double", "currency": "text"},
    "retirements": {"model": "text", "retires_at": "date", "replacement": "text", "note": "text"},
    "_dlt_loads": {"load_id": "text", "status": "bigint"},
}

READ_TABLES = tuple(dict.fromkeys((*(table for view in VIEWS for table in view.over), *_MORE_COLUMNS)))
"""Every table that a view reads."""

_WITH = "with_" if "with_" in exp.Select.arg_types else "with"  # sqlglot 28 renamed it

_NUMBERS = ("double", "bigint", "decimal")
_FITTING = {"double": _NUMBERS, "bigint": _NUMBERS, "date": ("date", "timestamp")}
"""The types, as stored, that a column may have which a view reads as a number or a date."""
_SQL_TYPES = {"double": "DOUBLE", "bigint": "BIGINT", "timestamp": "TIMESTAMPTZ", "bool": "BOOLEAN", "date": "DATE"}

# Elsewhere a row without a partner in a join has nulls, and not zeros and empty texts; and a name means a column before
# it means an alias of the same SELECT.
_CLICKHOUSE_SETTINGS = "SETTINGS join_use_nulls = 1, prefer_column_name_to_alias = 1"

EACH_METRIC = "each_metric"
_METRIC_PREFIXES = {"events": "data__", "checkpoints": "metrics__", "result_metrics": ""}
_NO_METRICS = ("step", "total_steps")

_SAME_METRIC = {"train_accuracy": "train_mean_token_accuracy"}
"""OpenAI's result files have another name for what its API, and Azure's result files, call so."""


JOBS_TO_MATERIALIZE = "jobs_to_materialize"
"""A temporary table of jobs: account and fine_tuning_job_id."""

_JOB_COLUMNS = {**dict.fromkeys(("events", "result_metrics", "checkpoints"), "fine_tuning_job_id"), "jobs": "id"}
"""The tables that materialized rows are made from, each with the column that names the job."""


class _Of(Enum):
    """The jobs that a query reads; the value ends the names of its parts."""

    ALL = ""
    NOT_MATERIALIZED = "_of_others"
    TO_MATERIALIZE = "_of_jobs"


class Builder:
    """Builds the SELECTs of views for one destination.

    Args:
        dialect: sqlglot's name of its dialect.
        tables: The tables that it has.
        path: The qualified name of a table or view, unquoted, part by part.
        fold: How the destination writes names: in upper case, for example.
        materialized: The qualified name of a table of `materialize`, in DuckDB; None if the views compute all rows.
    """

    def __init__(
        self,
        dialect: str,
        tables: Tables,
        path: Callable[[str], list[str]],
        fold: Callable[[str], str] = str,
        materialized: Callable[[str], list[str]] | None = None,
    ) -> None:
        self._dialect = dialect
        self._tables = tables
        self._path = path
        self._fold = fold
        self._materialized = materialized
        self.views = tuple(view for view in VIEWS if any(self._tables.get(table) for table in view.over))
        """The views that can be made."""

    @cached_property
    def _inputs(self) -> tuple[Any, ...]:
        """All that a SELECT depends on."""
        columns = ((table, *column) for table, columns in self._tables.items() for column in columns.items())
        paths = tuple(tuple(self._path(name)) for name in (*READ_TABLES, *(view.name for view in VIEWS)))
        kept = tuple(self._materialized("accounts")) if self._materialized else None
        return self._dialect, frozenset(columns), paths, self._fold, kept

    def __eq__(self, other: object) -> bool:
        """Return whether the other one builds the same SELECTs."""
        return isinstance(other, Builder) and self._inputs == other._inputs

    def __hash__(self) -> int:
        """Return the same for all that build the same SELECTs."""
        return hash(self._inputs)

    def select(self, view: View) -> str:
        """Return the SELECT of a view."""
        return _select(self, view, _Of.ALL)

    def select_to_materialize(self, view: View) -> str:
        """Return the SELECT of the rows of a view, or of a part, for the jobs in `JOBS_TO_MATERIALIZE`."""
        return _select(self, view, _Of.TO_MATERIALIZE)

    def build(self, view: View, of: _Of) -> str:
        """Build the SELECT of a view, or of a part."""
        query = self._with_parts(self._rows(view, of))
        for identifier in query.find_all(exp.Identifier):
            identifier.set("this", self._fold(identifier.name))
            identifier.set("quoted", True)
        if self._dialect == "duckdb":
            _inline(query)
        else:
            # PostgreSQL applies no filter inside an expression that it materializes: one job would cost as much as all.
            for cte in query.find_all(exp.CTE):
                cte.set("materialized", False if self._dialect == "postgres" else None)
        if self._dialect in _IN_DIALECT:
            query = query.transform(_IN_DIALECT[self._dialect], copy=False)
        sql = query.sql(self._dialect, copy=False, comments=False, pretty=True, unsupported_level=ErrorLevel.RAISE)
        return f"{sql}\n{_CLICKHOUSE_SETTINGS}" if self._dialect == "clickhouse" else sql

    def _with_parts(self, query: exp.Query) -> exp.Query:
        """Put the parts that a query reads, and those that these read, before its own common table expressions."""
        ctes = query.ctes
        read = {table.name for table in query.find_all(exp.Table)}
        query.set(_WITH, None)
        for part in reversed(PARTS):
            for of in _Of:
                if (name := part.name + of.value) in read:
                    rows = self._rows(part, of)
                    read |= {table.name for table in rows.find_all(exp.Table)}
                    ctes.insert(0, exp.CTE(this=rows, alias=exp.TableAlias(this=exp.to_identifier(name))))
        query.set(_WITH, exp.With(expressions=ctes) if ctes else None)
        return query

    def _rows(self, view: View, of: _Of) -> exp.Query:
        """Return the query of a view's rows: those that are materialized, and the others computed."""
        if self._materialized is None or of is not _Of.ALL or not view.is_large:
            return self._query(view, of)
        others = self._query(view, _Of.NOT_MATERIALIZED)
        columns = [exp.column(name) for name in others.named_selects]
        is_materialized = parse_one("account IN (SELECT account FROM _accounts WHERE is_materialized = 1)")
        rows = exp.select(*columns).from_(_named(self._materialized(view.name))).where(is_materialized)
        return exp.union(
            rows, exp.select(*columns).from_(others.subquery("others", copy=False)), distinct=False, copy=False
        )

    def _query(self, view: View, of: _Of) -> exp.Query:
        query = _parsed(view).copy()
        if EACH_METRIC in view.text:
            query = self._for_each_metric(query)
        own = {cte.alias for cte in query.find_all(exp.CTE)}
        used = {column.name for column in query.find_all(exp.Column)}
        for table in list(query.find_all(exp.Table)):
            if table.name not in own:
                table.replace(self._table(table, used, of))
        return query

    def _table(self, table: exp.Table, used: set[str], of: _Of) -> Any:  # noqa: PLR0911
        """Return a table or view in a SELECT: its name, or a subquery that adds the columns it lacks."""
        name, alias = table.name, table.alias_or_name
        if table.db and self._materialized is not None:
            return exp.alias_(_named(self._materialized(name)), alias, table=True)
        part = next((part for part in PARTS if part.name == name), None)
        if part is not None:
            return exp.alias_(exp.to_table(part.name + of.value), alias, table=True)
        view = next((view for view in VIEWS if view.name == name), None)
        if view is not None and (view not in self.views or (view.is_large and of is _Of.NOT_MATERIALIZED)):
            return self._query(view, of).subquery(alias, copy=False)
        if view is not None and of is _Of.TO_MATERIALIZE and self._materialized is not None:
            every = exp.column(exp.Star(), table="t")
            return _only(_named(self._materialized(name)), [every], "fine_tuning_job_id", of).subquery(alias)
        itself = _named(self._path(name))
        if view is not None:
            return exp.alias_(itself, alias, table=True)
        present = self._tables.get(name, {})
        known, nulls = [], []
        for column, type_ in _columns(name, used):
            stored = present.get(column)
            # A column that holds texts where numbers or dates are meant is of no use.
            if stored is None or stored not in _FITTING.get(type_, (stored,)):
                nulls.append(exp.alias_(exp.cast(exp.null(), _SQL_TYPES.get(type_, "VARCHAR")), column))
            else:
                known.append(exp.column(column))
        if known and of is not _Of.ALL and name in _JOB_COLUMNS:
            columns: list[Any] = [exp.column(column.name, table="t") for column in known]
            return _only(itself, [*columns, *nulls], _JOB_COLUMNS[name], of).subquery(alias)
        if not nulls:
            return exp.alias_(itself, alias, table=True)
        if known:
            return exp.select(*known, *nulls).from_(itself).subquery(alias)
        one = exp.select(exp.alias_(exp.Literal.number(1), "one")).subquery("nothing")
        return exp.select(*nulls).from_(one).where("1 = 0").subquery(alias)

    def _for_each_metric(self, query: exp.Query) -> exp.Query:
        """Repeat each part that stands for every metric; parts of tables that are missing are left out."""
        parts = [repeated for part in _united(query) for repeated in self._repeated(part)]
        return exp.union(*parts, distinct=False, copy=False) if len(parts) > 1 else parts[0]

    def _repeated(self, part: exp.Query) -> Iterator[exp.Query]:
        if not any(column.name == EACH_METRIC for column in part.find_all(exp.Column)):
            yield part
            return
        table = next(part.find_all(exp.Table)).name
        prefix = _METRIC_PREFIXES[table]
        columns: dict[str, list[str]] = {}
        for name, type_ in self._tables.get(table, {}).items():
            metric = name.removeprefix(prefix)
            if name.startswith(prefix) and type_ in _NUMBERS and metric and metric not in _NO_METRICS:
                columns.setdefault(_SAME_METRIC.get(metric, metric), []).append(name)
        for metric, names in columns.items():
            yield part.transform(_with_metric, names, metric)


# A process may sync into many databases with the same tables: a large view takes 50 ms.
@lru_cache(maxsize=100)
def _select(builder: Builder, view: View, of: _Of) -> str:
    return builder.build(view, of)


def _named(path: list[str]) -> exp.Table:
    parts = [exp.to_identifier(part) for part in path]
    return exp.Table(this=parts[-1], db=parts[-2] if parts[1:] else None, catalog=parts[-3] if parts[2:] else None)


def _only(table: exp.Table, columns: list[Any], job_column: str, of: _Of) -> exp.Select:
    """Return some columns of `t`, a table of jobs or of what belongs to jobs, for some jobs alone."""
    rows = exp.select(*columns).from_(exp.alias_(table, "t", table=True))
    if of is _Of.TO_MATERIALIZE:
        same = f"j.account = t.account AND j.fine_tuning_job_id = t.{job_column}"
        return rows.join(JOBS_TO_MATERIALIZE, on=same, join_alias="j")
    # Where no account is to be joined, DuckDB ends the scan of a table with the first row that reaches the join. A
    # filter on the job, which DuckDB applies before the join, may let none reach it. No filter moves below RANDOM().
    for column in rows.find_all(exp.Column):
        if column.name == job_column:
            always = exp.LT(this=exp.Rand(), expression=exp.convert(2))
            column.replace(exp.alias_(exp.Case(ifs=[exp.If(this=always, true=column.copy())]), job_column))
    return rows.join("_accounts", on="a.account = t.account AND a.is_materialized = 0", join_alias="a")


def _inline(query: exp.Query) -> None:
    """Put what is NOT MATERIALIZED in place of its name: DuckDB forgets these words in a view that it stores."""
    with_: Any
    for with_ in list(query.find_all(exp.With)):
        read = defaultdict(list)
        for table in with_.parent.find_all(exp.Table):
            if not table.db:
                read[table.name].append(table)
        for cte in [cte for cte in with_.expressions if cte.args.get("materialized") is False]:
            for table in read[cte.alias]:
                table.replace(cte.this.copy().subquery(exp.to_identifier(table.alias_or_name, quoted=True)))
            cte.pop()
        if not with_.expressions:
            with_.pop()


@cache
def _parse(text: str) -> Any:
    """Return what an SQL text means, without the positions in the text, which each copy would copy."""
    parsed = parse_one(text, read="duckdb")
    for node in parsed.find_all(exp.Identifier, exp.Literal):
        node.meta.clear()
    return parsed


@cache
def _parsed(view: View) -> exp.Query:
    query = _parse(view.text).copy()
    if not isinstance(query, exp.Query):
        raise TypeError(f"{view.name}.sql is not a SELECT")
    for select in list(query.find_all(exp.Select)):
        select.set("expressions", [each for item in select.expressions for each in _for_each(item, item.alias_or_name)])
    for case in list(query.find_all(exp.Case)):
        case.set("ifs", [each for when in case.args["ifs"] for each in _for_each(when, when.sql())])
    written: exp.Query = query.transform(_macro, copy=False)
    return written


def _for_each(item: exp.Expression, text: str) -> Iterator[exp.Expression]:
    """Repeat an item of a SELECT, or a WHEN of a CASE, for each metric that a name in its text stands for."""
    each = next((each for each in _EACH if each in text), None)
    for metric in (None,) if each is None else _EACH[each]:
        yield item if metric is None else item.transform(_renamed, each, metric)


def _renamed(node: Any, each: str, metric: str) -> Any:
    if isinstance(node, (exp.Identifier, exp.Literal)) and isinstance(node.this, str) and each in node.this:
        node.set("this", node.this.replace(each, metric))
    return node


def _macro(node: Any, metric: str | None = None) -> Any:
    """Write a function of `_MACROS` out; one about every metric waits until the metric is known."""
    if not (isinstance(node, exp.Anonymous) and node.name.upper() in _MACROS):
        return node
    (argument,) = (one.transform(_macro) for one in node.expressions)
    names = [metric] if metric else [column.name for column in argument.find_all(exp.Column)]
    if EACH_METRIC in names:
        return node
    is_never_negative = all(name.endswith(("loss", "accuracy")) for name in names)
    if node.name.upper() == "MEASURED" and not is_never_negative:
        return argument
    values = {"x": argument, "lowest": exp.convert(0 if is_never_negative else -1e30)}

    def filled(inner: Any) -> Any:
        return values[inner.name].copy() if isinstance(inner, exp.Column) and inner.name in values else inner

    return _parse(_MACROS[node.name.upper()]).transform(filled)


def _columns(table: str, used: set[str]) -> Iterator[tuple[str, str]]:
    """Return the columns of a table that views use, with their types."""
    declared = {**TABLES[table].types, "_dlt_load_id": "text"} if table in TABLES else {}
    for name, type_ in {**declared, **_MORE_COLUMNS.get(table, {})}.items():
        if name in used:
            yield name, type_


def _united(query: Any) -> Iterator[exp.Query]:
    if isinstance(query, exp.Union):
        yield from _united(query.left)
        yield from _united(query.right)
    else:
        yield query


def _with_metric(node: Any, columns: list[str], metric: str) -> Any:
    if isinstance(node, exp.Anonymous) and node.name.upper() in _MACROS:
        named = exp.Anonymous(
            this=node.this, expressions=[one.transform(_with_metric, columns, metric) for one in node.expressions]
        )
        return _macro(named, metric)
    if isinstance(node, exp.Column) and node.name == EACH_METRIC:
        first, *others = (exp.column(column, quoted=True) for column in columns)
        return exp.func("COALESCE", first, *others) if others else first
    if isinstance(node, exp.Literal) and node.name == EACH_METRIC:
        return exp.Literal.string(metric)
    return node


# what sqlglot leaves as it is, though the dialect has no such function, or another meaning of it ---------------------


def _in_bigquery(node: Any) -> Any:
    if isinstance(node, exp.TimeToUnix):
        return exp.Div(this=exp.Anonymous(this="UNIX_MICROS", expressions=[node.this]), expression=exp.convert(1e6))
    if isinstance(node, exp.SplitPart):
        offset = exp.Anonymous(this="SAFE_ORDINAL", expressions=[node.args["part_index"]])
        return exp.Bracket(this=exp.Split(this=node.this, expression=node.args["delimiter"]), expressions=[offset])
    return node


def _in_clickhouse(node: Any) -> Any:
    if isinstance(node, exp.Select):
        # Of a column that two joined tables have, ClickHouse makes `table.column` the name of the result.
        for one in node.expressions:
            if isinstance(one, exp.Column) and one.table and not one.is_star:
                one.replace(exp.alias_(one.copy(), one.name, quoted=True))
    if isinstance(node, exp.TimeToUnix):
        time = exp.cast(node.this, exp.DataType.build("Nullable(DateTime64(6))", dialect="clickhouse"))
        micros = exp.Anonymous(this="toUnixTimestamp64Micro", expressions=[time])
        return exp.Div(this=micros, expression=exp.convert(1e6))
    if isinstance(node, exp.Cast) and isinstance(node.this, exp.Cast):
        # A number with so many decimals, in words: a cast would leave the zeros at its end out.
        number, decimals = node.this.this, node.this.to.expressions[1:]
        if node.to.this in exp.DataType.TEXT_TYPES and decimals:
            return exp.Anonymous(this="toDecimalString", expressions=[number, decimals[0].this])
    if isinstance(node, exp.SplitPart):
        split = exp.Anonymous(this="splitByString", expressions=[node.args["delimiter"], node.this])
        return exp.Anonymous(this="arrayElement", expressions=[split, node.args["part_index"]])
    return node


def _in_spark(node: Any) -> Any:
    if isinstance(node, exp.AtTimeZone):
        # FROM_UTC_TIMESTAMP, which sqlglot makes of it, gives a time that the session's zone is applied to once more.
        return exp.FromTimeZone(this=exp.cast(node.this, "TIMESTAMPTZ"), zone=exp.CurrentTimezone())
    if isinstance(node, exp.Union):
        # Sail fails on a union of columns with different field ids in their Iceberg tables; an expression has none.
        for one in (node.left, node.right):
            for column in one.expressions if isinstance(one, exp.Select) else ():
                if isinstance(column, exp.Column) and column.name == "fine_tuning_job_id":
                    text = exp.Concat(expressions=[column.copy(), exp.Literal.string("")])
                    column.replace(exp.alias_(text, column.name, quoted=True))
    return node


_IN_DIALECT: dict[str, Callable[[Any], Any]] = {
    "bigquery": _in_bigquery,
    "clickhouse": _in_clickhouse,
    "databricks": _in_spark,
    "spark": _in_spark,
}
