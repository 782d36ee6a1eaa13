"""What is refused, and by which class: each message is one line, what, why, what next."""

# Exit codes of a run: the configuration or the workdir cannot work, the loss is not finite, one of
# several processes failed or was lost, asked to stop and saved.
EXIT_CONFIG, EXIT_NOT_FINITE, EXIT_LOST, EXIT_PREEMPTED = 2, 70, 71, 75


class ConfigError(ValueError):
    """What the user asked for cannot be: says what, why, and what there is instead."""


class UsageError(ValueError):
    """What was asked for cannot be: what, why, what to do."""


class WeightsError(ValueError):
    """There are no such weights, or they cannot score: what, why, what to do."""


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
