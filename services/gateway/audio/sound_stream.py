"""Sound that leaves over HTTP while it is made; what fails after the first byte breaks the response off."""

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, aclosing

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from antiphon.errors import AntiphonError
from services.gateway.http.error_envelope import log_defect, status_of
from services.gateway.http.event_stream import ClientDisconnectedError, until_disconnected


class SoundStream(Response):
    """`resources` are closed when the stream ends, in whatever way."""

    def __init__(self, pieces: AsyncGenerator[bytes, None], media_type: str, resources: AsyncExitStack) -> None:
        super().__init__(media_type=media_type)
        del self.headers["content-length"]
        self._pieces, self._resources = pieces, resources

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        del scope
        async with self._resources:
            try:
                await until_disconnected(receive, self._send_all(send))
            except OSError as error:  # how servers of ASGI 2.4 tell a sender
                raise ClientDisconnectedError from error
            except AntiphonError as error:
                if status_of(error) >= 500:
                    log_defect(error)

    async def _send_all(self, send: Send) -> None:
        """Without its end, which a failure leaves out, the response is not whole, and every client notices."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        async with aclosing(self._pieces) as pieces:
            async for piece in pieces:
                await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})
