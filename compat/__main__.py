"""``python -m compat`` is the ``compat`` command."""

import sys

from compat.commands.main import main

sys.exit(main())
