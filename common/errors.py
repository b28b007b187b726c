"""The exception that ends a command."""


class CommandError(Exception):
    """The command cannot go on; the message says in one line why, and what to do.

    Exit codes: 1 if the training diverged, 2 if the user's input or the machine is the reason, 128 + signal number (130
    for Ctrl-C) if the command was stopped from outside.
    """

    def __init__(self, message: str, exit_code: int = 2):
        super().__init__(message)
        self.exit_code = exit_code
