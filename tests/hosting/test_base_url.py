"""What is printed for whoever wants to ask a server."""

import pytest

from antiphon.hosting.base_url import base_url


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", "http://127.0.0.1:80"),
        ("0.0.0.0", "http://127.0.0.1:80"),  # noqa: S104 - compared, not bound
        ("::", "http://127.0.0.1:80"),
        ("::1", "http://[::1]:80"),
        ("gpu-7", "http://gpu-7:80"),
    ],
)
def test_a_server_is_reached_from_this_machine(host: str, expected: str) -> None:
    assert base_url(host, 80) == expected
