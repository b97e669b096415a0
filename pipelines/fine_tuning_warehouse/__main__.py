"""`python -m fine_tuning_warehouse` is `ftw`."""

from .cli import main

main()
