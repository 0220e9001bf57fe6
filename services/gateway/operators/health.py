"""Whether the gateway lives and its stages can answer, and its metrics; needs no key, tells no tenant's data."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, Literal

from fastapi import APIRouter
from pydantic import BaseModel
from starlette.responses import JSONResponse, Response

from antiphon.storage.connection import Storage
from antiphon.telemetry.metrics import CONTENT_TYPE, Metrics
from antiphon.telemetry.names import StageName
from services.gateway.turns.gate import TurnGate

# Asks every stage whether it serves, for instance by grpc.health.v1.
StageProbe = Callable[[], Awaitable[Mapping[StageName, bool]]]

_PROBE_SECONDS: Final = 2.0


class Health(BaseModel):
    status: Literal["ok"] = "ok"


class Readiness(BaseModel):
    status: Literal["ready", "not_ready", "draining"]
    stages: dict[StageName, bool]
    # Whether Redis answers; none where the settings name none. A gateway without it is ready all the same: it is every
    # gateway's, turns go on, and what cannot be done without it says so itself.
    storage: bool | None = None


class ReadinessCheck:
    """Ready while every stage serves and turns are let in."""

    def __init__(self, probe: StageProbe, gate: TurnGate, storage: Storage | None = None) -> None:
        self._probe, self._gate, self._storage = probe, gate, storage

    async def read(self) -> Readiness:
        if self._gate.is_closed:
            return Readiness(status="draining", stages={})
        try:
            async with asyncio.timeout(_PROBE_SECONDS):
                stages = dict(await self._probe())
        except Exception:  # whatever keeps a probe from answering: the stages cannot be reached
            return Readiness(status="not_ready", stages={})
        storage = None if self._storage is None else await self._storage.probe()
        return Readiness(status="ready" if all(stages.values()) else "not_ready", stages=stages, storage=storage)


async def always_ready() -> Mapping[StageName, bool]:
    """The probe of stages that cannot be away, as fakes cannot."""
    return {}


def health_router(readiness: ReadinessCheck, metrics: Metrics) -> APIRouter:
    router = APIRouter()

    @router.get("/health", summary="Lives")
    @router.get("/healthz", summary="Lives")
    async def live() -> Health:
        return Health()

    @router.get(
        "/readyz", summary="Ready for requests", response_model=Readiness, responses={503: {"model": Readiness}}
    )
    async def ready() -> Response:
        found = await readiness.read()
        return JSONResponse(found.model_dump(exclude_none=True), 200 if found.status == "ready" else 503)

    @router.get(
        "/metrics",
        summary="Prometheus metrics",
        response_class=Response,
        responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
    )
    async def prometheus() -> Response:
        return Response(metrics.exposition(), headers={"content-type": CONTENT_TYPE})

    return router
