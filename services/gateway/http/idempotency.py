"""Idempotency-Key on requests that are answered whole: who repeats one gets the same answer, and pays once.

The body is digested as a route reads it, so that all of the route's bounds hold; once all of it is there, the key is
claimed. An answer that was begun is finished though its client hangs up: that is when clients ask again. Streams are
not kept; their key holds while they run, so that two of one key never run at once.
"""

import asyncio
import logging
import secrets
from typing import Final

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from antiphon.errors import AntiphonError, InvalidInput
from antiphon.tenancy.replies import Header, Replies, Reply
from services.gateway.http.body_digest import BodyDigest
from services.gateway.http.error_envelope import StillAnsweredError, UnprocessableError, response_of
from services.gateway.tenants import caller_of

_LOG = logging.getLogger(__name__)

_HEADER: Final = "idempotency-key"
_KEY_CHARACTERS: Final = 255
_REPLAYED: Final = (b"idempotent-replayed", b"true")


class Idempotency:
    """ASGI middleware, inside of `Identified`."""

    def __init__(self, app: ASGIApp, replies: Replies, answer_bytes: int) -> None:
        """answer_bytes: of an answer that is kept; a longer one is made again."""
        self._app, self._replies, self._answer_bytes = app, replies, answer_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        key = _key_of(scope)
        if key is None:
            return await self._app(scope, receive, send)
        if not 0 < len(key) <= _KEY_CHARACTERS:
            wrong = InvalidInput(f"An Idempotency-Key has 1 to {_KEY_CHARACTERS} characters; got {len(key)}.")
            return await response_of(wrong)(scope, receive, send)
        once = _Once(self._replies, caller_of(scope).tenant, key, BodyDigest(scope), self._answer_bytes)
        try:
            await self._app(scope, once.receiving(receive), once.sending(send))
            if once.replay is not None:
                await _send_again(once.replay, send)
        finally:
            await asyncio.shield(once.close())


class _Once:
    """One request of a key."""

    def __init__(self, replies: Replies, tenant: str, key: str, digest: BodyDigest, answer_bytes: int) -> None:
        self._replies, self._tenant, self._key, self._answer_bytes = replies, tenant, key, answer_bytes
        self._digest, self._body_digest, self._token = digest, "", secrets.token_hex(16)
        # The answer of an earlier one, sent in place of whatever the route says.
        self.replay: Reply | None = None
        self._is_asked = self._is_mine = False
        # Also where nobody told whether the claim came to be.
        self._may_hold = False
        self._is_stream = asyncio.Event()
        # None where it is not kept.
        self._head: tuple[int, tuple[Header, ...]] | None = None
        self._body = bytearray()

    def receiving(self, receive: Receive) -> Receive:
        async def receive_and_claim() -> Message:
            message = await receive()
            if message["type"] == "http.request" and not self._is_asked:
                self._digest.update(message.get("body", b""))
                if not message.get("more_body", False):
                    await self._claim()
            elif message["type"] == "http.disconnect" and self._is_mine:
                await self._is_stream.wait()
            return message

        return receive_and_claim

    def sending(self, send: Send) -> Send:
        async def record_and_send(message: Message) -> None:
            if self.replay is not None:
                return
            if self._is_mine:
                await self._record(message)
            await send(message)

        return record_and_send

    async def close(self) -> None:
        """Where nothing was kept the next one answers."""
        self._is_mine = False
        if self._may_hold:
            self._may_hold = False
            try:
                await self._replies.drop(self._tenant, self._key, self._token)
            except AntiphonError as error:
                _LOG.warning("a claim could not be dropped: %s", type(error).__name__)

    async def _claim(self) -> None:
        """Raises what the route then answers with."""
        self._is_asked = self._may_hold = True
        self._body_digest = self._digest.hexdigest()
        claim = await self._replies.claim(self._tenant, self._key, self._body_digest, self._token)
        self._is_mine = self._may_hold = claim == "mine"
        match claim:
            case "running":
                raise StillAnsweredError("A request with this Idempotency-Key is still being answered. Ask again.")
            case "other":
                raise UnprocessableError("This Idempotency-Key came with another request before. Take a new one.")
            case Reply():
                self.replay = claim
                raise StillAnsweredError("It was answered before.")  # nobody reads it: the replay takes its place

    async def _record(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = tuple((bytes(name).lower(), bytes(value)) for name, value in message["headers"])
            if dict(headers).get(b"content-type", b"").startswith(b"text/event-stream"):
                self._is_stream.set()
            elif 200 <= message["status"] < 300:
                self._head = (message["status"], headers)
            else:
                await self.close()
            return
        if self._is_stream.is_set() and not message.get("more_body", False):
            await self.close()
        if self._head is None or message["type"] != "http.response.body":
            return
        self._body += message.get("body", b"")
        if len(self._body) > self._answer_bytes:
            self._head = None
        elif not message.get("more_body", False):
            await self._keep(*self._head)

    async def _keep(self, status: int, headers: tuple[Header, ...]) -> None:
        """Before the client has the end of it, so that his next request finds it."""
        reply = Reply(status, headers, bytes(self._body))
        try:
            await self._replies.keep(self._tenant, self._key, self._body_digest, self._token, reply)
            self._may_hold = False
        except AntiphonError as error:
            _LOG.warning("an answer could not be kept: %s", type(error).__name__)


def _key_of(scope: Scope) -> str | None:
    """Administration shows new keys, which are not kept anywhere."""
    if scope["type"] != "http" or scope["method"] != "POST":
        return None
    if not scope["path"].startswith("/v1/") or scope["path"].startswith("/v1/admin/"):
        return None
    return Headers(scope=scope).get(_HEADER)


async def _send_again(reply: Reply, send: Send) -> None:
    await send({"type": "http.response.start", "status": reply.status, "headers": [*reply.headers, _REPLAYED]})
    await send({"type": "http.response.body", "body": reply.body, "more_body": False})
