"""How commands end: SIGINT and SIGTERM cancel the main task, and everything is taken down on the way out."""

import asyncio
import signal


def cancel_on_signals() -> None:
    """Make SIGINT and SIGTERM cancel the current task."""
    task = asyncio.current_task()
    if task is not None:
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)
