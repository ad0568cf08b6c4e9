"""How commands end: signals cancel the main task, and everything is taken down on the way out."""

import asyncio
import signal


def cancel_on_signals() -> None:
    """Make SIGINT, SIGTERM and SIGHUP cancel the current task; SIGHUP not where it is ignored, as under nohup."""
    task = asyncio.current_task()
    if task is None:
        return
    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    for number in numbers:
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
