"""What a net raises that cannot be built of its settings, or for pictures of that size."""

from flax.errors import FlaxError

# Settings reach reshapes, divisions and look-ups in our code, in Flax's and in JAX's.
UNFIT = (ValueError, TypeError, ArithmeticError, LookupError, AttributeError, FlaxError)


def why(error: Exception) -> str:
    """What such an error says, in one line."""
    text = str(error).partition(" (https:")[0].strip() or "it cannot be built"  # Flax's manual
    return text.splitlines()[0]
