"""The errors that end a command in one line on stderr.

A function that reads data or is called from Python knows no command line. It raises InputError, a ValueError, and names
its own arguments, not a script's flags; where a file is missing it raises FileNotFoundError, where a package is missing
ModuleNotFoundError. Scripts, and what serves only them, raise CommandError. `common.command.run_command` prints each of
these as one line; any other exception is a bug, whose line says where it happened.
"""


class CommandError(Exception):
    """The command cannot go on; the message says in one line why, and what to do.

    Exit codes: 1 if the training diverged (or for a bug), 2 if the user's input or the machine is the reason, 128 +
    signal number (130 for Ctrl-C) if the command was stopped from outside.
    """

    def __init__(self, message: str, exit_code: int = 2):
        super().__init__(message)
        self.exit_code = exit_code


class InputError(CommandError, ValueError):
    """What a function was given cannot be used; the message says in one line why."""


def reason_of(error: Exception) -> str:
    """Return type and message of an exception on one line, for those that come in nearly any type."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
