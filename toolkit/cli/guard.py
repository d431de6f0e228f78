"""From what went wrong to a message on stderr and an exit code."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable

from toolkit.errors import ToolkitError

__all__ = ["guarded"]


def guarded(work: Callable[[], int], *, debug: bool = False) -> int:
    """Run ``work`` and return its exit code, or that of what it raised.

    A ``ToolkitError`` is shown without a traceback unless ``debug``; Ctrl-C gives 130. Any other exception is a
    fault of the program or its libraries: it is shown with its traceback and gives 1.
    """
    log = logging.getLogger("vlm_rlhf")
    try:
        code = work()
        sys.stdout.flush()
        return code
    except ToolkitError as error:
        if debug:
            log.exception("%s", type(error).__name__)
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        return 130
    except BrokenPipeError:
        # The reader of stdout went away (``| head``); leave nothing for the interpreter to flush into it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception:
        log.exception("unexpected error")
        return 1
