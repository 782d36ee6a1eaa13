"""What is refused, and by which class: each message is one line, what, why, what next."""

import errno

# Exit codes of a run: the configuration or the workdir cannot work, the loss is not finite, one of
# several processes failed or was lost, asked to stop and saved.
EXIT_CONFIG, EXIT_NOT_FINITE, EXIT_LOST, EXIT_PREEMPTED = 2, 70, 71, 75
# What a user can do something about: no space, no rights.
STORAGE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM)
ROOM = "make room or give rights there"


def one_line(error: BaseException) -> str:
    """What an error says, without its class and in one line."""
    if isinstance(error, OSError) and error.strerror:
        text = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
        return f"{text}; {ROOM}" if error.errno in STORAGE else text
    if isinstance(error, KeyError):
        return f"{error} is not there"
    return " ".join(str(error).split())


def reason(error: BaseException) -> str:
    """Why a file cannot be read or written, as the system or a bucket's client says it."""
    return getattr(error, "strerror", None) or " ".join(str(error).split())[:200]


class ConfigError(ValueError):
    """What the user asked for cannot be: says what, why, and what there is instead."""


class UsageError(ValueError):
    """What was asked for cannot be: what, why, what to do."""


class WeightsError(ValueError):
    """There are no such weights, or they cannot score: what, why, what to do."""


class TableError(ValueError):
    """A table that cannot be read.

    Attributes:
      headline: one line: which, why, what to do.
      lines: one on each bad row.
    """

    def __init__(self, headline: str, lines: list[str] = ()):
        self.headline, self.lines = headline, list(lines)
        more = f" and {len(self.lines) - 5} more" if len(self.lines) > 5 else ""
        named = "; ".join(self.lines[:5])
        super().__init__(f"{headline}: {named}{more}" if named else headline)


class ImageError(ValueError):
    """A picture that cannot be scored.

    Attributes:
      code: E_NOT_FOUND, E_NOT_A_FILE, E_UNREADABLE, E_DECODE, E_TRUNCATED, E_UNSUPPORTED,
        E_MULTIFRAME or E_TOO_LARGE.
      reason: one line: what, why, what to do.
    """

    def __init__(self, code: str, reason: str):
        self.code, self.reason = code, " ".join(reason.split())
        super().__init__(f"[{code}] {self.reason}")
