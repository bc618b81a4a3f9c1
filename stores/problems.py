"""What pydantic found wrong with values that a user gave, in one line."""

from pydantic import ValidationError

_SELF_EXPLAINING = {"missing", "extra_forbidden", "value_error"}
"""Kinds of errors after which the value found tells nothing more."""

_LONGEST_VALUE = 60


def problems_of(error: ValidationError) -> str:
    """`fps: Input should be greater than 0 (found -1)`, with semicolons between several.

    A problem of the whole has no name before it.
    """
    parts = []
    for problem in error.errors(include_url=False):
        where = ".".join(map(str, problem["loc"]))
        what = problem["msg"].removeprefix("Value error, ")
        if problem["type"] not in _SELF_EXPLAINING:
            found = repr(problem["input"])
            found = found if len(found) <= _LONGEST_VALUE else found[:_LONGEST_VALUE] + "..."
            what += f" (found {found})"
        parts.append(f"{where}: {what}" if where else what)
    return "; ".join(parts)
