"""The examples that hypothesis draws: the same at every run, so that no run fails over a case drawn that day.

``HYPOTHESIS_PROFILE=anew`` draws others.
"""

import os

from hypothesis import settings

settings.register_profile("fixed", derandomize=True, print_blob=True)
settings.register_profile("anew", derandomize=False, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fixed"))
