"""``python -m compat`` is the ``compat`` command."""

import sys

from compat.commands.cli import main

sys.exit(main())
