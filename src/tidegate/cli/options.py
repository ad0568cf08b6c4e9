"""What numbers of the command line may be. A range of typer's own would be told in its words: <int range> [x>=1]."""

from collections.abc import Callable

import typer


def whole(least: int, most: int | None = None) -> Callable[[object], int]:
    """Return a parser of whole numbers from `least` to `most`."""

    def parse(value: object) -> int:
        text = str(value)
        try:
            number = int(text)
        except ValueError:
            number = least - 1
        if number < least or (most is not None and number > most):
            wanted = f"from {least} to {most}" if most is not None else f"of at least {least}"
            raise typer.BadParameter(f"{text!r} is not a whole number {wanted}.")
        return number

    return parse


def parse_amount(value: object) -> float:
    """Parse a number that is not below 0."""
    text = str(value)
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number < float("inf"):
        raise typer.BadParameter(f"{text!r} is not a number of at least 0.")
    return number


parse_port = whole(0, 65535)
