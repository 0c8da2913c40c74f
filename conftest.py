"""Settings of every pytest run from this folder; the suites' hooks are in compat/run/plugin.py."""

from hypothesis import settings

settings.register_profile("compat", deadline=None, derandomize=True, print_blob=False)
settings.load_profile("compat")
