"""Room on the disk, claimed before it is needed."""

import ctypes
import errno
import os
import sys
from functools import cache
from typing import Any, Final

# The file system cannot, or the kernel: then space is found out about while writing, as everywhere.
_CANNOT: Final = {errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.ENODEV, errno.ESPIPE, errno.EPERM}


def claim(file: int, size: int) -> bool:
    """Have the first `size` bytes of an open file allocated, without writing them. False where that is not possible.

    Not os.posix_fallocate: where the file system cannot, glibc writes into every block instead. Raises OSError, of
    ENOSPC or EDQUOT, where there is no room.
    """
    if not sys.platform.startswith("linux") or not size:
        return False
    while _fallocate()(file, 0, 0, size) != 0:
        code = ctypes.get_errno()
        if code in _CANNOT:
            return False
        if code != errno.EINTR:
            raise OSError(code, os.strerror(code))
    return True


@cache
def _fallocate() -> Any:  # noqa: ANN401 - a function of the C library
    function = ctypes.CDLL(None, use_errno=True).fallocate
    function.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
    return function
