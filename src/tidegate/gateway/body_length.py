"""How long a request's body is, of which we may have seen only the beginning, or nothing."""

MAX_DIGITS = 15
"""A longer number is no length: nobody sends a petabyte."""


def body_length(declared: str, seen: int) -> int:
    """Return the length in bytes: as `declared` by the client's content-length, at least the `seen` bytes.

    What arrived counts where there is no such header (chunked uploads), or it is not a number.
    """
    is_number = declared.isascii() and declared.isdigit() and len(declared) <= MAX_DIGITS
    return max(seen, int(declared)) if is_number else seen
