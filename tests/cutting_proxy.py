"""A connection that breaks when a test says so: the request arrived and was carried out, its answer is lost."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class CuttingProxy:
    """Between clients and a server on a port of this machine."""

    def __init__(self, server_port: int) -> None:
        self._server_port = server_port
        self.port = 0
        # So many answers from now on are lost, each with its connection.
        self.answers_to_cut = 0

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answers, requests = await asyncio.open_connection("127.0.0.1", self._server_port)
        forward = asyncio.create_task(_pump(reader, requests))
        try:
            while data := await answers.read(1 << 16):
                if self.answers_to_cut:
                    self.answers_to_cut -= 1
                    return
                writer.write(data)
        except ConnectionError:
            return
        finally:
            forward.cancel()
            requests.close()
            writer.close()


@asynccontextmanager
async def cutting_proxy(server_port: int) -> AsyncIterator[CuttingProxy]:
    proxy = CuttingProxy(server_port)
    listener = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    proxy.port = listener.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        listener.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(1 << 16):
        writer.write(data)
    writer.close()
