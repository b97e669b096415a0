"""The SQL of the views, parsed before a command is forked: it would take each of them a third of a second."""

from fine_tuning_warehouse.views import build
from fine_tuning_warehouse.views.files import PARTS, VIEWS

for view in (*PARTS, *VIEWS):
    build._parsed(view)
