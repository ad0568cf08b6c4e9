"""Which endpoints a gateway allows, in every form in which gateways say it."""

import pytest
from envoy.service.ext_proc.v3 import external_processor_pb2 as ext_proc
from hypothesis import given
from hypothesis import strategies as st

from pickers import SUBSET, allowing
from tidegate.gateway.ext_proc_messages import read_subset


def hinted(hint: object) -> ext_proc.ProcessingRequest:
    """Return a message with this in the place of the subset."""
    message = ext_proc.ProcessingRequest()
    message.metadata_context.filter_metadata["envoy.lb.subset_hint"].update({SUBSET: hint})
    return message


def test_a_message_without_a_subset_says_nothing_and_is_not_changed() -> None:
    for message in (ext_proc.ProcessingRequest(), hinted([])):
        message.metadata_context.filter_metadata["envoy.lb.subset_hint"].fields.clear()
        before = message.SerializeToString(deterministic=True)

        assert read_subset(message) is None
        assert message.SerializeToString(deterministic=True) == before


@pytest.mark.parametrize(
    ("hint", "subset"),
    [
        ([], ()),
        ("", ()),
        (["10.0.0.1:8000", "10.0.0.2"], ("10.0.0.1:8000", "10.0.0.2")),
        ("10.0.0.1:8000, 10.0.0.2 ,", ("10.0.0.1:8000", "10.0.0.2")),
        (["", " 10.0.0.1:8000 "], ("10.0.0.1:8000",)),
        (["[fd00::1]:8000", "[FD00:0:0::1]:8000"], ("[fd00::1]:8000", "[fd00::1]:8000")),
        (["fd00::1", "[fd00::1]", "fd00:0::01"], ("[fd00::1]", "[fd00::1]", "[fd00::1]")),
        (["a:b:c", "[x]:1", "]:[:"], ("a:b:c", "[x]:1", "]:[:")),
        (7, ()),
        ({"a": 1}, ()),
        ([7, None, ["10.0.0.1"]], ()),
    ],
)
def test_lists_and_joined_text_are_read_and_addresses_are_written_as_the_pool_does(
    hint: object, subset: tuple[str, ...]
) -> None:
    assert read_subset(hinted(hint)) == subset


@given(st.lists(st.text("0123456789abcdef:.[]% ", max_size=30)))
def test_any_entries_are_read(entries: list[str]) -> None:
    assert len(read_subset(allowing(ext_proc.ProcessingRequest(), entries)) or ()) <= len(entries)
