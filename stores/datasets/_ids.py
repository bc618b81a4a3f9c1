"""Which texts can be the id of a video, and how those that cannot are shown.

Ids are data: they are looked up in an index of what is on disk and never joined to a path. The
rules here keep out what could not be stored, printed or told apart later.
"""

import unicodedata

MAX_ID_BYTES = 1024  # the limit of the feature store
_SHOWN_CHARS = 120
_UNPRINTABLE = {"Cc", "Cs", "Zl", "Zp"}  # controls, lone surrogates, line and paragraph separators


def id_problem(text: str, *, may_have_folders: bool = False) -> str | None:
    """Why a text cannot be an id, or None if it can. Folders are parted by "/" where allowed."""
    if not text:
        return "the id is empty"
    if len(text.encode("utf-8", "surrogatepass")) > MAX_ID_BYTES:
        return f"the id '{shown_id(text)}' is longer than {MAX_ID_BYTES:,} bytes"
    # Most texts are printable to Python, whose notion of it is narrower.
    if not text.isprintable() and any(unicodedata.category(c) in _UNPRINTABLE for c in text):
        return f"the id '{shown_id(text)}' has a control character or is not valid Unicode"
    if not may_have_folders and ("/" in text or "\\" in text):
        return f"the id {text!r} has a path separator; expected a plain name"
    if any(part in ("", ".", "..") for part in text.split("/")):
        return f"the id {text!r} is not a plain name inside the dataset"
    return None


def printable(text: str) -> str:
    """The text with what a terminal or a UTF-8 file cannot take written as escapes."""
    return "".join(
        char.encode("unicode_escape").decode("ascii")
        if unicodedata.category(char) in _UNPRINTABLE
        else char
        for char in text
    )


def shown_id(text: str) -> str:
    """An id that is safe to print and to store: escaped, shortened, never empty."""
    short = text if len(text) <= _SHOWN_CHARS else text[:_SHOWN_CHARS] + "..."
    return printable(short) or "(empty)"
