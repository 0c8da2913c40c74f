"""A package that takes its time to be imported, as vendor libraries do."""

import time

time.sleep(1.0)
