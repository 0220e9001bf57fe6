"""A real gateway before stages that compute nothing: what is left is what live sessions cost the gateway itself.

python benchmarks/scripted_gateway.py --port 8000
"""

import asyncio
import json
from contextlib import AsyncExitStack
from typing import Annotated, Any

import typer

from antiphon.hosting.default_checkpoint import default_checkpoint
from antiphon.hosting.http_server import serving_http
from antiphon.prompt.tokenizer import PromptTokenizer
from antiphon.wire.fakes import Behaviour, FakeCodec, FakeEncoders, FakeTalker, FakeThinker
from antiphon.wire.stages import Stages
from services.gateway.app import create_app
from services.gateway.config import GatewaySettings

_ANSWER = "The opposite of strong is weak."


class _Forgotten(list[Any]):
    """Fakes keep what they were sent, for tests; here that would be the memory of every session."""

    def append(self, _: Any) -> None:
        return


def scripted_stages(answer_seconds: float) -> Stages:
    """Each turn is answered at once, with this text and so much sound."""
    checkpoint = default_checkpoint()
    end_id = json.loads((checkpoint / "config.json").read_text())["im_end_token_id"]
    text_ids = PromptTokenizer.from_checkpoint(checkpoint).encode_plain(_ANSWER)
    frames = round(answer_seconds * 12.5) - len(text_ids)
    encoders, thinker, talker, codec = (Behaviour(received=_Forgotten()) for _ in range(4))
    return Stages(
        FakeEncoders(behaviour=encoders),
        FakeThinker((*text_ids, end_id), behaviour=thinker),
        FakeTalker(max(frames, 0), behaviour=talker),
        FakeCodec(behaviour=codec),
    )


async def serve(port: int, answer_seconds: float) -> None:
    settings = GatewaySettings(checkpoint=default_checkpoint(), concurrent_turns=1024, sheds_load=False)
    app = create_app(settings, scripted_stages(answer_seconds))
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(serving_http(app, "127.0.0.1", port))
        await asyncio.Event().wait()


def main(
    port: Annotated[int, typer.Option(help="To listen at.")],
    answer_seconds: Annotated[float, typer.Option(help="Of each answer.")] = 2.0,
) -> None:
    asyncio.run(serve(port, answer_seconds))


if __name__ == "__main__":
    typer.run(main)
