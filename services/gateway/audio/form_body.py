"""A multipart/form-data body: its fields and its one file, in memory, within the same bounds as every body."""

import asyncio
from dataclasses import dataclass, field
from typing import Final

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

from antiphon.errors import InvalidInput
from services.gateway.config import GatewaySettings
from services.gateway.http.error_envelope import UnsupportedMediaTypeError
from services.gateway.http.request_body import BodyShare, read_body

_PARTS: Final = 64
_FIELD_BYTES: Final = 1 << 16


@dataclass(slots=True)
class Form:
    # In order; a field may come several times.
    fields: dict[str, list[str]] = field(default_factory=dict)
    file: bytes | None = None


async def read_form(request: Request, settings: GatewaySettings, share: BodyShare) -> Form:
    """Raises InvalidInput, TooLarge, UnsupportedMediaTypeError and what reading a body raises."""
    media_type, options = parse_options_header(request.headers.get("content-type", ""))
    if media_type != b"multipart/form-data" or not options.get(b"boundary"):
        raise UnsupportedMediaTypeError(
            "Expected 'Content-Type: multipart/form-data' with a boundary, as curl -F and OpenAI's SDK send it; got "
            f"'{media_type.decode(errors='replace')[:64]}'.",
            param=None,
        )
    body = await read_body(request, settings, share)
    return await asyncio.to_thread(_parsed, bytes(body), options[b"boundary"])


def _parsed(body: bytes, boundary: bytes) -> Form:
    reading = _Reading()
    parser = MultipartParser(
        boundary,
        {
            "on_part_begin": reading.begin_part,
            "on_header_field": reading.header_name,
            "on_header_value": reading.header_value,
            "on_header_end": reading.end_header,
            "on_headers_finished": reading.end_headers,
            "on_part_data": reading.data,
            "on_part_end": reading.end_part,
            "on_end": reading.end,
        },
    )
    try:
        parser.write(body)
        parser.finalize()
    except FormParserError as error:
        raise InvalidInput(f"The body is not valid multipart/form-data: {error}", code="invalid_body") from None
    if not reading.is_over:
        raise InvalidInput("The multipart/form-data body breaks off before its last boundary.", code="invalid_body")
    return reading.form


class _Reading:
    """What the parser tells, piece by piece."""

    def __init__(self) -> None:
        self.form = Form()
        self.is_over = False
        self._parts = 0
        self._name = self._value = b""
        self._disposition: dict[bytes, bytes] = {}
        self._data = bytearray()

    def begin_part(self) -> None:
        self._parts += 1
        if self._parts > _PARTS:
            raise InvalidInput(f"The form has too many parts: at most {_PARTS}.")
        self._disposition = {}
        self._data = bytearray()

    def header_name(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def end_header(self) -> None:
        if self._name.lower() == b"content-disposition":
            _, self._disposition = parse_options_header(self._value)
        self._name = self._value = b""

    def end_headers(self) -> None:
        if b"name" not in self._disposition:
            raise InvalidInput("A part of the form has no name in its Content-Disposition.")

    def data(self, data: bytes, start: int, end: int) -> None:
        self._data += data[start:end]
        if not self._is_file and len(self._data) > _FIELD_BYTES:
            raise InvalidInput(f"The field '{self._field[:64]}' is too long: at most {_FIELD_BYTES} bytes.")

    def end_part(self) -> None:
        if self._is_file:
            if self._field != "file" or self.form.file is not None:
                raise InvalidInput("Expected one file, in the field 'file'.", param="file")
            self.form.file = bytes(self._data)
            return
        try:
            text = self._data.decode()
        except UnicodeDecodeError:
            raise InvalidInput(f"The field '{self._field[:64]}' is not UTF-8.", param=self._field[:64]) from None
        self.form.fields.setdefault(self._field, []).append(text)

    def end(self) -> None:
        self.is_over = True

    @property
    def _field(self) -> str:
        return self._disposition[b"name"].decode(errors="replace")

    @property
    def _is_file(self) -> bool:
        return b"filename" in self._disposition
