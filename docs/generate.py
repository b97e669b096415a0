"""Writes the generated parts of these pages: tables of columns, the results of queries, and the reference.

    uv run python docs/generate.py

The columns are those of the schema and of the views' comments, with the types that DuckDB shows. The results are those
of a demo warehouse after two syncs (`ftw sync --demo`, twice), as `ftw query` prints them. What the reference says of
the command and the source is what they say of themselves (`reference`).
"""

from __future__ import annotations

import re
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import duckdb

from fine_tuning_warehouse.cli.terminal.output import as_table
from fine_tuning_warehouse.query import CONFIG
from fine_tuning_warehouse.schema import TABLES
from fine_tuning_warehouse.sync.demo import DEMO_LABEL, demo_account
from fine_tuning_warehouse.sync.run import SyncOptions, run_sync
from fine_tuning_warehouse.views import VIEWS
from fine_tuning_warehouse.warehouses.duckdb import DuckDb
from fine_tuning_warehouse.warehouses.warehouse import DEFAULT_DATASET
from reference import command_sections, source_arguments

DOCS = Path(__file__).parent
COMMAND = "uv run python docs/generate.py"

_COLUMNS = re.compile(r"(?<=<!-- columns -->\n).*?(?=<!-- /columns -->)", re.DOTALL)
_REFERENCE = {"commands": command_sections, "arguments": source_arguments}
_PART = re.compile(r"(<!-- (commands|arguments) -->\n).*?(?=<!-- /\2 -->)", re.DOTALL)
_QUERY = re.compile(r"^```sql\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_ANSWERED = re.compile(r"(^```sql\n(.*?)^```\n\n```text\n)(.*?)(?=^```$)", re.DOTALL | re.MULTILINE)
_HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)
_LOAD_ID = "Load that wrote the row last: `load_id` of `_dlt_loads`."


@dataclass(frozen=True)
class Example:
    """A query of a page, under the question that it answers; `shown` is None where no result is shown below it."""

    question: str
    sql: str
    shown: str | None


def pages() -> list[Path]:
    """The pages that have generated parts."""
    return [*pages_of_the_demo(), *sorted(DOCS.glob("reference/*.md"))]


def pages_of_the_demo() -> list[Path]:
    """Those whose queries are answered by the demo."""
    return [DOCS / "questions.md", *sorted(DOCS.glob("tables/*.md")), *sorted(DOCS.glob("views/*.md"))]


def examples(text: str) -> Iterator[Example]:
    """The queries of a page."""
    for match in _QUERY.finditer(text):
        answered = _ANSWERED.match(text, match.start())
        yield Example(_HEADING.findall(text, 0, match.start())[-1], match[1], None if answered is None else answered[3])


def demo_database(path: Path) -> None:
    """Sync the demo into a new DuckDB file twice."""
    warehouse = DuckDb(path)
    for _ in range(2):
        with demo_account(DEMO_LABEL, warehouse) as account:
            run_sync(account, warehouse, SyncOptions())


def connect(database: Path) -> duckdb.DuckDBPyConnection:
    """A connection that sees what `ftw query` sees."""
    connection = duckdb.connect(str(database), read_only=True, config=CONFIG)
    connection.execute(f"SET search_path = '{DEFAULT_DATASET}'")
    connection.execute("SET TimeZone = 'UTC'")
    return connection


def answer(connection: duckdb.DuckDBPyConnection, sql: str) -> str:
    """The result of a query as `ftw query` prints it."""
    cursor = connection.execute(sql)
    return as_table([column[0] for column in cursor.description or ()], cursor.fetchall()) + "\n"


def column_table(connection: duckdb.DuckDBPyConnection, name: str) -> str:
    """The columns of a table or view."""
    types = {row[0]: row[1] for row in connection.execute(f'DESCRIBE "{name}"').fetchall()}
    if name in TABLES:
        columns = {
            column.name: column.description + (" Part of the key." if column.key else "")
            for column in TABLES[name].columns
        }
        columns["_dlt_load_id"] = _LOAD_ID
    else:
        columns = next(view.columns for view in VIEWS if view.name == name)
    rows = [
        f"| `{column}` | {types[column]} | {description.replace('|', chr(92) + '|')} |"
        for column, description in columns.items()
    ]
    more = [f"`{column}` {type_}" for column, type_ in types.items() if column not in columns]
    note = ["", f"What else a host sends becomes a column of its own; in the demo: {', '.join(more)}."] if more else []
    return "\n".join(["| column | type | what it holds |", "|---|---|---|", *rows, *note, ""])


def render(page: Path, connection: duckdb.DuckDBPyConnection) -> str:
    """A page as it should stand."""
    text = page.read_text(encoding="utf-8")
    text = with_reference(_COLUMNS.sub(lambda _: column_table(connection, page.stem), text))
    return _ANSWERED.sub(lambda match: match[1] + answer(connection, match[2]), text)


def with_reference(text: str) -> str:
    """A page with what the reference takes from the code."""
    return _PART.sub(lambda match: match[1] + _REFERENCE[match[2]](), text)


def main() -> None:
    """Write all pages; say which have changed."""
    with tempfile.TemporaryDirectory() as directory:
        database = Path(directory) / "demo.duckdb"
        demo_database(database)
        with connect(database) as connection:
            for page in pages():
                text = render(page, connection)
                if text != page.read_text(encoding="utf-8"):
                    page.write_text(text, encoding="utf-8")
                    sys.stdout.write(f"{page.relative_to(DOCS.parent)} written\n")


if __name__ == "__main__":
    main()
