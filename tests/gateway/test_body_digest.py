"""A form that is built anew has the digest that it had; another request has another."""

import pytest

from services.gateway.http.body_digest import BodyDigest


def digest(body: bytes, content_type: str, piece_bytes: int = 1 << 20, path: str = "/v1/x") -> str:
    scope = {"path": path, "query_string": b"", "headers": [(b"content-type", content_type.encode())]}
    digested = BodyDigest(scope)
    for start in range(0, len(body), piece_bytes):
        digested.update(body[start : start + piece_bytes])
    return digested.hexdigest()


def form(boundary: str, *values: str) -> bytes:
    parts = [f'--{boundary}\r\nContent-Disposition: form-data; name="a"\r\n\r\n{value}\r\n' for value in values]
    return "".join((*parts, f"--{boundary}--\r\n")).encode()


def of_form(boundary: str, *values: str, piece_bytes: int = 1 << 20) -> str:
    return digest(form(boundary, *values), f'multipart/form-data; boundary="{boundary}"', piece_bytes)


@pytest.mark.parametrize("piece_bytes", [1, 2, 3, 7, 64, 1000])
def test_a_form_has_the_same_digest_whatever_divides_it_and_however_it_comes(piece_bytes: int) -> None:
    expected = of_form("one", "x", "--on", "--tw-two")
    assert of_form("-another-one", "x", "--on", "--tw-two", piece_bytes=piece_bytes) == expected


def test_other_values_have_another_digest() -> None:
    known = {of_form("one", *values) for values in (("x", "y"), ("xy",), ("y", "x"), ("x",), ("x", "y", ""))}
    assert len(known) == 5


def test_bodies_that_are_no_forms_are_digested_as_they_are() -> None:
    assert digest(b"{}", "application/json", 1) == digest(b"{}", "application/json")
    assert digest(b"{}", "application/json") != digest(b"{ }", "application/json")
    assert digest(b"{}", "application/json") != digest(b"{}", "application/json", path="/v1/y")
