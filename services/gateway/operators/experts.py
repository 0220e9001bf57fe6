"""/v1/admin/experts: the shards that hold the Thinker's experts, for keys with the scope "admin"."""

from collections.abc import Awaitable, Callable

from fastapi import APIRouter

from antiphon.experts.overview import ExpertsOverview, overview
from services.gateway.operators.admin import Admin

# Raises NotFound on a platform without shards.
ReadExperts = Callable[[], Awaitable[ExpertsOverview]]


async def no_experts() -> ExpertsOverview:
    """Of a platform without shards: raises NotFound, which says how to have some."""
    return overview(())


def experts_router(read: ReadExperts) -> APIRouter:
    router = APIRouter(prefix="/v1/admin")

    @router.get("/experts", summary="Where the Thinker's experts are, and what is asked of them")
    async def experts(_: Admin) -> ExpertsOverview:
        return await read()

    return router
