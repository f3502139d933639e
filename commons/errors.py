"""The two ways a command can end badly. The command line turns them into exit codes.

Raise them with one sentence that says what was expected, what was found and where.
"""


class OnebitError(Exception):
    """Base of the errors whose message is meant for the user as it stands."""

    exit_code = 1


class InputError(OnebitError, ValueError):
    """Wrong usage or input: an unknown name, a missing dataset, a broken file. Exit code 2."""

    exit_code = 2


class WorkError(OnebitError, RuntimeError):
    """The input was right but the work failed: loss is NaN, disk is full. Exit code 1."""

    exit_code = 1
