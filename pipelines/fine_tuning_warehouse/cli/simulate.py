"""The command `ftw simulate`."""

from __future__ import annotations

from datetime import datetime, timezone

import click

from fine_tuning_warehouse.errors import CommandError
from fine_tuning_warehouse.text import counted


@click.command()
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8080, show_default=True, help="The port; 0 takes a free one."
)
@click.option("--seed", type=int, default=0, show_default=True, help="Another number makes another history.")
@click.option("--jobs", type=click.IntRange(0), default=24, show_default=True, help="Jobs in its history.")
@click.option(
    "--profile",
    type=click.Choice(["openai", "azure", "nebius"]),
    default="openai",
    show_default=True,
    help="The host that it behaves like.",
)
@click.option(
    "--speed", type=click.FloatRange(0), default=1.0, show_default=True, help="How fast its clock runs; 0 stops it."
)
def simulate(port: int, seed: int, jobs: int, profile: str, speed: float) -> None:
    """Run the simulated host on its own."""
    from fine_tuning_simulator import Clock, serve  # noqa: PLC0415 - `ftw --help` does without

    def ready(base_url: str) -> None:
        shown = f"{datetime.fromtimestamp(Clock().start, timezone.utc):%Y-%m-%d %H:%M}"
        history = f"{counted(jobs, 'job')} before {shown} UTC, when its clock starts" if jobs else "no jobs"
        click.echo(f"Serving {base_url} until you press Ctrl-C, with {history}. To sync from it:", err=True)
        key = f"any-{profile}-{seed}-{jobs}"  # on this machine, the key alone tells one history from another
        click.echo(
            f"  OPENAI_API_KEY={key} ftw sync --base-url {base_url} --account simulated --database simulated.duckdb",
            err=True,
        )

    try:
        serve(port=port, seed=seed, jobs=jobs, profile=profile, speed=speed, on_ready=ready)
    except OSError as error:
        raise CommandError(f"Port {port} cannot be used: {error.strerror or error}. Try --port 0.") from None
