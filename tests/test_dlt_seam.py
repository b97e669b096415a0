"""What dlt does not promise and `warehouses/dlt_seam.py` relies on: each test fails on a dlt that changed it.

These run against the newest dlt too (`.ci/run`), where a failure is a warning.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import dlt
import duckdb
import pyarrow as pa
import pytest

from fine_tuning_warehouse.warehouses import dlt_seam
from fine_tuning_warehouse.warehouses.duckdb import DuckDb
from fine_tuning_warehouse.warehouses.tables import add_load_ids, make_lacking
from openai_fine_tuning.schema import SCHEMA


def source(rows: int = 1) -> Any:
    """A source under the name of the real one, with one Arrow table and some state."""

    @dlt.source(name=SCHEMA, section=SCHEMA)
    def built() -> Any:
        @dlt.resource(name="jobs", primary_key="id", write_disposition="merge")
        def jobs() -> Any:
            dlt.current.source_state()["read"] = rows
            yield pa.table({"id": pa.array([str(number) for number in range(rows)])})

        return jobs

    return built()


def load(pipeline: dlt.Pipeline, rows: int = 1) -> list[str]:
    """Load the source as a sync does."""
    built = source(rows)
    add_load_ids(built.selected_resources.values())
    pipeline.extract(built)
    pipeline.normalize()
    make_lacking(pipeline)
    return list(pipeline.load().loads_ids)


@pytest.fixture
def pipeline(tmp_path: Path) -> dlt.Pipeline:
    """A pipeline into a DuckDB file that does not exist yet."""
    return DuckDb(tmp_path / "warehouse.duckdb").pipeline(tmp_path / "work")


def test_rows_of_arrow_tables_get_the_id_of_their_load(pipeline: dlt.Pipeline) -> None:
    (load_id,) = load(pipeline)
    with pipeline.sql_client() as client:
        assert client.execute_sql("SELECT _dlt_load_id FROM jobs") == [(load_id,)]


def test_the_state_of_the_source_is_found_in_another_pipeline(pipeline: dlt.Pipeline, tmp_path: Path) -> None:
    assert dlt_seam.source_state(pipeline) is None
    load(pipeline, 3)
    another = DuckDb(tmp_path / "warehouse.duckdb").pipeline(tmp_path / "another")
    another.sync_destination()
    assert dlt_seam.source_state(another) == {"read": 3}


def test_tables_that_were_dropped_are_made_again(pipeline: dlt.Pipeline, tmp_path: Path) -> None:
    load(pipeline)
    with duckdb.connect(str(tmp_path / "warehouse.duckdb")) as connection:
        connection.execute("DROP TABLE fine_tuning.jobs")
    load(pipeline, 2)
    with pipeline.sql_client() as client:
        assert client.execute_sql("SELECT count(*) FROM jobs") == [(2,)]


def test_a_file_is_configured_once_and_opened_once(pipeline: dlt.Pipeline) -> None:
    destination = pipeline.destination
    assert isinstance(destination, dlt_seam.DuckDbFile)
    with pipeline.sql_client() as outer:
        outer.execute_sql("SET memory_limit = '77MB'")
        with pipeline.sql_client() as inner:
            assert inner.execute_sql("SELECT current_setting('memory_limit')") == [("73.4 MiB",)]
        load(pipeline)
    assert destination.destination_type == dlt.destinations.duckdb().destination_type


def test_a_staging_schema_has_the_name_that_was_set(tmp_path: Path) -> None:
    destination = dlt.destinations.duckdb(str(tmp_path / "another.duckdb"))
    dlt_seam.set_staging_layout(destination, "%s_beside")
    another = dlt.pipeline("another", pipelines_dir=str(tmp_path), destination=destination, dataset_name="fine")
    load(another)
    with another.sql_client() as client:
        assert client.staging_dataset_name == "fine_beside"
        assert client.execute_sql("SELECT count(*) FROM fine_beside.jobs") == [(1,)]
    with another.destination_client() as client:
        assert dlt_seam.is_sql(client)


def test_the_schema_beside_tables_that_are_files_says_their_columns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DESTINATION__FILESYSTEM__BUCKET_URL", str(tmp_path / "files"))
    another = dlt.pipeline("another", pipelines_dir=str(tmp_path), destination="filesystem", dataset_name="fine")
    with another.destination_client() as client:
        assert not dlt_seam.is_sql(client)
    load(another)
    with another.destination_client() as client:
        tables = dlt_seam.stored_tables(client)
    assert tables["jobs"] == {"id": "text", "_dlt_load_id": "text"}
    assert "_dlt_loads" in tables


def test_two_syncs_that_write_state_into_one_folder_at_once_write_what_each_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DESTINATION__FILESYSTEM__BUCKET_URL", str(tmp_path / "files"))
    another = dlt.pipeline("another", pipelines_dir=str(tmp_path), destination=dlt_seam.Files(), dataset_name="fine")
    with another.destination_client() as client, ThreadPoolExecutor(4) as pool:
        folder = tmp_path / "files" / "fine"
        written = pool.map(lambda n: client._write_to_json_file(str(folder / f"{n}.jsonl"), {"n": n}), range(200))  # type: ignore[attr-defined]
        assert len(list(written)) == 200
    assert {file.name: file.read_text() for file in folder.iterdir()} == {
        f"{n}.jsonl": f'{{"n":{n}}}' for n in range(200)
    }


def test_settings_that_all_connections_to_a_file_share_are_set_back_at_the_end_and_not_before(
    pipeline: dlt.Pipeline, tmp_path: Path
) -> None:
    shown = "SELECT current_setting('TimeZone'), current_setting('checkpoint_threshold')"
    with duckdb.connect(str(tmp_path / "warehouse.duckdb")) as notebook:
        notebook.execute("SET GLOBAL TimeZone = 'Asia/Tokyo'")
        with pipeline.sql_client() as outer, pipeline.sql_client():
            load(pipeline)
            assert outer.execute_sql(shown) == [("UTC", "953.6 MiB")]
        assert notebook.execute(shown).fetchall() == [("Asia/Tokyo", "16.0 MiB")]
