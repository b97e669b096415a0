"""The product around the source: the command `ftw`, the database it keeps, and what is asked of it."""

import os

# No telemetry, whatever the working directory's configuration says: dlt reads this when it is first imported.
os.environ["RUNTIME__DLTHUB_TELEMETRY"] = "false"
