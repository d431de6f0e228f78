"""From what went wrong to a message on stderr and an exit code."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import sys
from collections.abc import Callable, Iterator

from toolkit.errors import RunFailed, ToolkitError, UsageError

__all__ = ["guarded", "libraries_on_stderr"]

_WRONG_PATH = frozenset(
    getattr(errno, name)
    for name in ("EACCES", "EEXIST", "EISDIR", "ENAMETOOLONG", "ENOENT", "ENOTDIR", "EPERM", "EROFS")
)
_NO_SPACE = frozenset((errno.ENOSPC, errno.EDQUOT))


def guarded(work: Callable[[], int], *, debug: bool = False) -> int:
    """Run ``work`` and return its exit code, or that of what it raised.

    A ``ToolkitError``, a path that cannot be used and a full disk are shown without a traceback unless ``debug``;
    Ctrl-C gives 130. Any other exception is a fault of the program or its libraries: it is shown with its traceback
    and gives 1.
    """
    log = logging.getLogger("vlm_rlhf")
    try:
        code = work()
        sys.stdout.flush()
        return code
    except ToolkitError as error:
        return _told(error, debug)
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        return 130
    except BrokenPipeError:
        # The reader of stdout went away (``| head``); leave nothing for the interpreter to flush into it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        problem = _path_problem(error)
        if problem is not None:
            return _told(problem, debug)
        log.exception("unexpected error")
        return 1
    except Exception:
        log.exception("unexpected error")
        return 1


@contextlib.contextmanager
def libraries_on_stderr() -> Iterator[None]:
    """What libraries print meanwhile goes to stderr: stdout holds results alone."""
    with contextlib.redirect_stdout(sys.stderr):
        yield


def _told(error: ToolkitError, debug: bool) -> int:
    if debug:
        logging.getLogger("vlm_rlhf").exception("%s", type(error).__name__)
    sys.stderr.write(f"error: {error}\n")
    return error.exit_code


def _path_problem(error: OSError) -> ToolkitError | None:
    """The error as a message for people, where it is about a file or folder they named."""
    name = error.filename2 or error.filename
    reason = error.strerror or type(error).__name__
    if error.errno in _NO_SPACE:
        where = f"{name}: " if name else ""
        return RunFailed(f"{where}{reason}", remedy="free some space, then start again (a run with --resume)")
    if error.errno in _WRONG_PATH and isinstance(name, str | os.PathLike):
        return UsageError(
            f"{os.fspath(name)}: cannot be used: {reason}",
            remedy="choose a path that exists and may be written; --debug shows where it was needed",
        )
    return None
