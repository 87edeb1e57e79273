"""The exceptions that speak to the user."""


class UserError(ValueError):
    """A mistake that the user can mend.

    Its text is one line: what is wrong, where, and what to do. The command line prints it as it is and exits
    with status 2; in Python it is an ordinary ``ValueError``.
    """


class TrainingStopped(UserError):
    """The loss stopped being a number."""
