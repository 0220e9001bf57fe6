"""Keys of one tenant meet in one slot; no name reaches into another's keys."""

import re
from binascii import crc_hqx

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.errors import InvalidInput
from antiphon.storage.keys import key_of

NAMES = st.text(min_size=1, max_size=20)


def slot_of(key: str) -> int:
    """As Redis's cluster specification says: CRC-16/XMODEM of what stands in the first braces."""
    tag = re.search(r"\{(.+?)\}", key)
    return crc_hqx((tag.group(1) if tag else key).encode(), 0) % 16384


@given(NAMES, NAMES, NAMES)
def test_keys_of_one_tenant_are_in_one_slot(tenant: str, one: str, other: str) -> None:
    assert (
        slot_of(key_of(tenant, "turn", one))
        == slot_of(key_of(tenant, "media", other))
        == slot_of(f"{{{_tag(tenant)}}}")
    )


@given(NAMES, NAMES, NAMES, NAMES)
def test_different_names_have_different_keys(tenant: str, one: str, other_tenant: str, other: str) -> None:
    same = (tenant, one) == (other_tenant, other)
    assert (key_of(tenant, "turn", one) == key_of(other_tenant, "turn", other)) is same


def test_a_key_reads_as_it_is_written_down() -> None:
    assert key_of("acme", "conversation", "conv_1") == "antiphon:{acme}:conversation:conv_1"


@pytest.mark.parametrize(("tenant", "identifier"), [("", "x"), ("a" * 257, "x"), ("a", "x" * 257)])
def test_a_name_that_is_none_or_too_long_is_refused(tenant: str, identifier: str) -> None:
    with pytest.raises(InvalidInput):
        key_of(tenant, "turn", identifier)


def _tag(tenant: str) -> str:
    return key_of(tenant, "x").split("{")[1].split("}")[0]
