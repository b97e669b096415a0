"""Make the views of a destination after a sync: those that are missing, and those that have changed."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, cast

from sqlglot import exp, parse_one

from fine_tuning_warehouse.errors import CommandError, is_bug, root_cause
from fine_tuning_warehouse.text import first_line
from fine_tuning_warehouse.warehouses.sql_text import literal

from .build import DIALECTS, READ_TABLES, SOURCES, Builder
from .files import View
from .materialize import Materialization

if TYPE_CHECKING:
    import dlt

    from fine_tuning_warehouse.warehouses.warehouse import Warehouse


def write_views(pipeline: dlt.Pipeline, warehouse: Warehouse) -> list[str]:
    """Make the views over the tables that exist, in the same dataset; destinations without SQL views are left alone.

    Where comments say what a view was made from, it is made anew only when that changes; elsewhere, after every sync.

    Returns:
        Why a view stays as it was, if somebody has built on it what does not fit the new one.

    Raises:
        CommandError: A view could not be made for another reason. The tables are loaded all the same.
    """
    from fine_tuning_warehouse.warehouses.dlt_seam import is_sql  # noqa: PLC0415 - see accounts

    try:
        with pipeline.destination_client() as client:
            if is_sql(client) and client.capabilities.sqlglot_dialect in DIALECTS:
                _Views(client, warehouse).write()
    except _RefusedViewError as error:
        if not error.has_dependents:
            raise
        return [str(error)]
    except CommandError:
        raise
    except Exception as error:
        if is_bug(root_cause(error)):
            raise
        raise CommandError(f"The tables are loaded, but their views could not be made: {first_line(error)}") from error
    return []


class _RefusedViewError(CommandError):
    """A view that could not be made.

    Attributes:
        view: The view.
        has_dependents: Whether what somebody has built on it keeps it from being replaced.
    """

    def __init__(self, view: View, error: Exception) -> None:
        # PostgreSQL says in the second line what hangs on a view.
        details = [line.strip() for line in str(error).splitlines() if line.startswith("DETAIL:")]
        reason = " ".join([first_line(error), *(f"({detail.removeprefix('DETAIL:').strip()})" for detail in details)])
        if re.search(r"is of type Table|is not a view", reason):
            reason = (
                "there is a table of that name, which is not ours. Rename or drop it, or choose another --dataset, and "
                "sync again"
            )
        self.view = view
        self.has_dependents = bool(details) or "depend" in reason
        todo = ". Drop or change what depends on it: the next sync makes the view" if self.has_dependents else ""
        super().__init__(f"The tables are loaded, but the view {view.name} could not be made: {reason}{todo}")


class _Views:
    """The views of one warehouse."""

    def __init__(self, client: Any, warehouse: Warehouse) -> None:
        self._warehouse = warehouse
        self._sql = client.sql_client
        self._dialect = client.capabilities.sqlglot_dialect
        tables = warehouse.columns(client, READ_TABLES)
        materialized = warehouse.materialized_schema(self._sql)
        self._builder = Builder(
            self._dialect,
            tables,
            lambda name: self._sql.make_qualified_table_name_path(name, quote=False),
            client.capabilities.casefold_identifier,
            (lambda name: [materialized, name]) if materialized else None,
        )
        self._materialization = Materialization(self._sql, materialized, self._builder) if materialized else None
        self._options = warehouse.view_options(self._sql)
        described = json.dumps(tables, sort_keys=True)
        self._made_from = _digest(
            self._dialect, described, self._name("view") + self._options, materialized or "", *SOURCES
        )

    def write(self) -> None:
        """Make what is missing or has changed."""
        if outdated := self._outdated():
            self._make(outdated)
        if self._materialization:
            self._materialization.refresh()

    def _make(self, outdated: Collection[View]) -> None:
        in_the_way: list[View] = []
        while True:
            try:
                self._replace(outdated, in_the_way)
                return
            except _RefusedViewError as error:
                if self._warehouse.view_comments is not None and not self._outdated():
                    return  # a sync beside this one was quicker
                if not self._sql.capabilities.supports_ddl_transactions or error.view in in_the_way:
                    raise
                # PostgreSQL does not replace a view with other columns: the view is dropped and made again, with those
                # of ours that read it. No other view is touched, since views of the user may depend on it.
                readers = self._readers(error.view)
                in_the_way = [view for view in self._builder.views if view in in_the_way or view in readers]

    def _readers(self, view: View) -> list[View]:
        """Return a view and all views that read it, directly or through others."""
        readers = [view]
        for other in self._builder.views:
            read = {table.name for table in parse_one(other.text, read="duckdb").find_all(exp.Table)}
            if other not in readers and not read.isdisjoint(one.name for one in readers):
                readers.append(other)
        return readers

    def _outdated(self) -> list[View]:
        query = self._warehouse.view_comments
        if query is None:
            return list(self._builder.views)
        if self._materialization and not self._materialization.is_made_from(self._made_from):
            return list(self._builder.views)
        present = dict(self._sql.execute_sql(query, self._sql.dataset_name) or ())
        return [view for view in self._builder.views if present.get(view.name) != self._comment(view)]

    def _comment(self, view: View) -> str:
        return f"{view.description} (made from {self._made_from})"

    def _replace(self, outdated: Collection[View], in_the_way: Sequence[View]) -> None:
        with self._transaction():
            if self._materialization and not self._materialization.is_made_from(self._made_from):
                self._materialization.make(self._made_from)
            grants = self._warehouse.view_grants(self._sql) if in_the_way else []
            for view in reversed(in_the_way):
                self._execute(view, f"DROP VIEW IF EXISTS {self._name(view.name)}")
            for view in self._builder.views:
                if view not in outdated and view not in in_the_way:
                    continue
                name = f"{self._name(view.name)}{self._options}"
                self._execute(view, f"CREATE OR REPLACE VIEW {name} AS {self._builder.select(view)}")
                if self._warehouse.view_comments is not None:
                    self._execute(view, ";\n".join(self._comments(view)))
            for grant in grants:
                self._sql.execute_sql(grant)

    def _transaction(self) -> AbstractContextManager[Any]:
        if self._sql.capabilities.supports_ddl_transactions:
            return cast(AbstractContextManager[Any], self._sql.begin_transaction())
        return nullcontext()

    def _execute(self, view: View, statement: str) -> None:
        try:
            self._sql.execute_sql(statement)
        except Exception as error:
            if is_bug(root_cause(error)):
                raise
            raise _RefusedViewError(view, error) from error

    def _comments(self, view: View) -> Iterator[str]:
        name = self._name(view.name)
        yield f"COMMENT ON VIEW {name} IS {literal(self._comment(view))}"
        for column, description in view.columns.items() if self._warehouse.comments_view_columns else ():
            yield f"COMMENT ON COLUMN {name}.{self._sql.escape_column_name(column)} IS {literal(description)}"

    def _name(self, name: str) -> str:
        return str(self._sql.make_qualified_table_name(name))


def _digest(*texts: str) -> str:
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:8]
