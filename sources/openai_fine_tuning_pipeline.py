"""The smallest pipeline: the fine-tuning history of one account, in a DuckDB file."""

import dlt

from openai_fine_tuning import openai_fine_tuning


def load_fine_tuning() -> None:
    """Load what is new. The key comes from OPENAI_API_KEY or .dlt/secrets.toml."""
    pipeline = dlt.pipeline("openai_fine_tuning", destination="duckdb", dataset_name="fine_tuning")
    pipeline.run(openai_fine_tuning())


if __name__ == "__main__":
    load_fine_tuning()
