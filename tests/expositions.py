"""Generated expositions, in the text format and in OpenMetrics, as hypothesis draws them."""

from hypothesis import strategies as st

names = st.sampled_from(["waiting", "waiting_by_reason", "a:b", "running", "x_total"])
label_names = st.from_regex(r"[a-zA-Z][a-zA-Z0-9_]{0,5}", fullmatch=True)
label_values = st.text(st.characters(codec="utf-8") | st.sampled_from('\\",={}#\n '), max_size=12)
values = st.floats().map(repr) | st.integers(-(2**60), 2**60).map(str) | st.sampled_from(["+Inf", "Nan", "1E3", "-0"])
blanks = st.sampled_from(["", " ", "  "])


@st.composite
def sample_lines(draw: st.DrawFn) -> str:
    labels = draw(st.none() | st.dictionaries(label_names, label_values, max_size=4))
    blank = draw(blanks)
    line = blank + draw(names) + blank
    if labels is not None:
        line += "{" + ",".join(f"{blank}{name}{blank}={blank}{escape(value)}" for name, value in labels.items()) + "}"
    return f"{line} {draw(values)}{draw(st.sampled_from(['', ' 1700000000000', ' ']))}"


def escape(value: str) -> str:
    return '"' + value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"') + '"'


other_lines = st.sampled_from(["", "# HELP waiting waiting 1", "# TYPE waiting gauge", "# waiting 2", "# EOF"])


om_values = st.integers(0, 2**53).map(float)
om_labels = st.dictionaries(st.sampled_from(["engine", "model_name", "z"]), label_values, max_size=3)
om_times = st.sampled_from(["", " 1.5", " 1700000000.25"])
# Not with braces in their labels: prometheus_client does not read those.
exemplars = st.sampled_from(["", ' # {trace_id="a # b"} 0.5', " # {} 1.5 1520879607.789"])


def rendered_labels(labels: dict[str, str]) -> str:
    return "{" + ",".join(f"{name}={escape(value)}" for name, value in labels.items()) + "}" if labels else ""


@st.composite
def openmetrics_families(draw: st.DrawFn, name: str) -> str:
    """One family with its metadata; its samples carry the suffixes of its type."""
    kind = draw(st.sampled_from(["gauge", "counter", "info", "unknown"]))
    series = draw(st.lists(om_labels, max_size=3, unique_by=lambda labels: tuple(sorted(labels.items()))))
    lines = [f"# TYPE {name} {kind}", f"# HELP {name} {name}_total 1"]
    for labels in map(rendered_labels, series):
        value = draw(om_values)
        match kind:
            case "counter":
                lines.append(f"{name}_total{labels} {value}{draw(exemplars)}")
                lines.extend([f"{name}_created{labels} {draw(om_values)}"] if draw(st.booleans()) else [])
            case "info":
                lines.append(f"{name}_info{labels} 1.0")
            case _:
                lines.append(f"{name}{labels} {value}{draw(om_times) if len(series) == 1 else ''}")
    return "\n".join(lines) + "\n"
