"""`python -m fine_tuning_warehouse` is `ftw`."""

from .cli.main import main

main()
