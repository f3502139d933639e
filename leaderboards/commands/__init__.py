"""One file per verb: ``configure`` adds its parser, ``run`` does it and returns the exit code."""
