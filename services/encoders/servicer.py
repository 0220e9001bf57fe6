"""The encoders over gRPC: collect the media, within their bounds; then layouts, rows and the end."""

import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing

from antiphon.errors import InvalidInput
from antiphon.hosting.service import HostedService, ServiceLoad
from antiphon.prompt.layout import MediaLayout
from antiphon.v1.encoder_service_pb2 import EncodeEnd, EncodeRequest, EncodeResponse
from antiphon.v1.media_pb2 import EmbeddingRows
from antiphon.wire import methods, tensors
from antiphon.wire.generation import read_share, timings_message
from antiphon.wire.incoming import first_request
from antiphon.wire.media import MODALITY_NUMBERS, layout_message
from services.encoders.config import EncodersSettings
from services.encoders.engine import EncodersEngine
from services.encoders.media import MediaRows
from services.encoders.media_inbox import MediaInbox


def host(settings: EncodersSettings) -> HostedService:
    return hosted(EncodersEngine(settings))


def hosted(engine: EncodersEngine) -> HostedService:
    servicer = EncodersServicer(engine)
    return HostedService(
        stage="encoders",
        grpc_service=methods.ENCODE.service,
        add_to_server=lambda server: methods.ENCODE.add_to_server(server, servicer.encode),
        start=engine.start,
        close=engine.close,
        check=engine.check,
        load=lambda: ServiceLoad(waiting=engine.waiting()),
        signals=engine.signals,
    )


class EncodersServicer:
    def __init__(self, engine: EncodersEngine) -> None:
        self._engine = engine

    async def encode(
        self, requests: AsyncIterator[EncodeRequest], _context: object
    ) -> AsyncGenerator[EncodeResponse, None]:
        arrived = time.monotonic()
        start = (await first_request(requests)).start
        inbox, share = MediaInbox(start, self._engine.settings), read_share(start.scheduling)
        with self._engine.admit(inbox.byte_count, share) as place:
            await _collect(requests, inbox)
            encoding = self._engine.encode(inbox.items(), place, arrived, start.cache_salt, share)
            async with aclosing(encoding.outputs()) as outputs:
                async for output in outputs:
                    for response in self._responses(output):
                        yield response
            timings = timings_message(encoding.timings())
            yield EncodeResponse(end=EncodeEnd(timings=timings, cached_items=encoding.cached_items))

    def _responses(self, output: MediaLayout | MediaRows) -> Iterator[EncodeResponse]:
        if isinstance(output, MediaLayout):
            yield EncodeResponse(layout=layout_message(output))
            return
        for part in output.parts(self._engine.settings.message_bytes):
            yield EncodeResponse(rows=_rows_message(part))


async def _collect(requests: AsyncIterator[EncodeRequest], inbox: MediaInbox) -> None:
    async for request in requests:
        kind = request.WhichOneof("message")
        if kind == "end":
            return
        if kind != "chunk":
            raise InvalidInput(f"Expected chunk or end after start; came {kind or 'an empty message'}.")
        inbox.add(request.chunk)
    raise InvalidInput("The input broke off before its end message.")


def _rows_message(part: MediaRows) -> EmbeddingRows:
    return EmbeddingRows(
        modality=MODALITY_NUMBERS[part.modality],
        first_row=part.first_row,
        rows=tensors.pack(part.rows),
        deepstack=[tensors.pack(level) for level in part.deepstack],
    )
