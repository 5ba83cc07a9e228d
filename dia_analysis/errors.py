"""The one error a user's input can cause."""


class AnalysisInputError(ValueError):
    """A value the user gave cannot be used.

    `argument` names which value (`"points"`, `"images"`, ...), so that a command line can name its option.
    """

    def __init__(self, argument: str, message: str):
        super().__init__(message)
        self.argument = argument

    def __reduce__(self) -> tuple[type["AnalysisInputError"], tuple[str, str]]:
        return type(self), (self.argument, str(self))  # so that it can pass between processes
