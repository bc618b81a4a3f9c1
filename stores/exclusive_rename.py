"""Renaming that never overwrites, for file systems without hard links."""

import ctypes
import errno
import os

_AT_FDCWD = -100  # linux/fcntl.h: paths are relative to the current folder
_RENAME_NOREPLACE = 1  # linux/fs.h


def rename_if_absent(source: str, target: str) -> None:
    """Renames, or raises FileExistsError when `target` exists; both as one atomic step.

    Raises OSError(EOPNOTSUPP) where neither the system nor the file system can do it: a plain
    rename would overwrite, and looking first would not be atomic.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    renameat2 = getattr(libc, "renameat2", None)
    number = errno.ENOSYS
    if renameat2 is not None:
        result = renameat2(
            _AT_FDCWD, os.fsencode(source), _AT_FDCWD, os.fsencode(target), _RENAME_NOREPLACE
        )
        if result == 0:
            return
        number = ctypes.get_errno()
    if number in (errno.EINVAL, errno.ENOSYS):
        raise OSError(
            errno.EOPNOTSUPP,
            "this file system has neither hard links nor an exclusive rename, and the store "
            "needs one of them",
            target,
        )
    raise OSError(number, os.strerror(number), target)
