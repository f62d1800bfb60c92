"""Errors a person can act on: what was wrong, where, what was expected, how to mend it."""


class AuraError(Exception):
    """Something failed at run time (a lost link, a full disk); the command exits with 1."""

    exit_code = 1


class InputError(AuraError):
    """What the user gave cannot be used (a file, a label, an option); the command exits with 2."""

    exit_code = 2
