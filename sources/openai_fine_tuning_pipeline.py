"""The smallest pipeline: the fine-tuning history of one account, in a DuckDB file."""

import dlt

from openai_fine_tuning import openai_fine_tuning


def load_fine_tuning() -> None:
    """Load what is new. The key comes from OPENAI_API_KEY or .dlt/secrets.toml."""
    pipeline = dlt.pipeline("openai_fine_tuning", destination="duckdb", dataset_name="fine_tuning")
    print(pipeline.run(openai_fine_tuning()))  # noqa: T201 - a script: what was loaded


if __name__ == "__main__":
    load_fine_tuning()
