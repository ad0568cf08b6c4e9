"""Where a signal comes from, as people read it."""

from tidegate.protocol.engines import LoraLabels, SeriesLabel, SeriesValue, Source, UsedFraction, WaitingRequests


def render_source(source: Source | LoraLabels) -> str:
    """Return a source in one line: a selector, with the label or the operation where it is not the value itself."""
    match source:
        case SeriesValue(selector=selector):
            return str(selector)
        case SeriesLabel(selector=selector, label=label):
            return f"label {label} of {selector}"
        case WaitingRequests(active=active, scheduled=scheduled):
            return f"{active} - {scheduled}"
        case UsedFraction(used=used, maximum=maximum):
            return f"{used} / {maximum}"
        case LoraLabels(selector=selector):
            return f"labels of {selector}"
