"""Services on Ray Serve: it places, restarts and scales replicas; each replica answers gRPC on a port of its own."""

import asyncio
import dataclasses
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final

import ray
from pydantic import BaseModel, ConfigDict, Field
from ray import serve
from ray.serve.config import AutoscalingConfig, AutoscalingPolicy
from ray.serve.handle import DeploymentBroadcastResponse, DeploymentHandle

from antiphon.hosting import autoscaling
from antiphon.hosting.grpc_server import ServerLimits, serving
from antiphon.hosting.metrics_endpoint import serving_metrics
from antiphon.hosting.replica_directory import ReplicaDirectory, ReplicaReport
from antiphon.hosting.service import HostedService
from antiphon.scaling.pacing import Bounds, Pacing
from antiphon.scaling.policies import CallsPolicy, Policy
from antiphon.scaling.scaler import Plan
from antiphon.telemetry import logging as antiphon_logging
from antiphon.telemetry import tracing
from antiphon.telemetry.names import StageName

_LOG = logging.getLogger(__name__)

DEPLOYMENT_NAME: Final = "replica"  # in the application that bears the stage's name
_ANY_PORT: Final = "0.0.0.0:0"
_CONTROL_CALLS: Final = 100  # Serve's own calls to a replica; turns do not pass through Serve
_WAIT_FOR_CONTROL_CALLS_SECONDS: Final = 0.2
_CHECK_HEALTH_EVERY_SECONDS: Final = 2.0  # and so soon another replica starts for one that is gone
_KILL_AFTER_DRAIN_SECONDS: Final = 5.0
_REPORT_SECONDS: Final = 2.0
_COLLECT_SECONDS: Final = 0.5
_BY_CALLS: Final = CallsPolicy()


class Tunables(BaseModel):
    """What Serve changes in place (`user_config`); anything else restarts an application."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    max_active_calls: int = Field(default=256, gt=0)
    drain_seconds: float = Field(default=20.0, ge=0)
    log_level: str = "INFO"


class Scale(BaseModel):
    """Where a stage runs, and how much of it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    min_replicas: int = Field(default=1, ge=1)
    max_replicas: int = Field(default=1, ge=1)
    # Unset, what suits the stage.
    policy: Policy | None = None
    pacing: Pacing = Pacing()
    # What is decided, and from what, as `antiphon scaling` reads it; two files of so much at most.
    windows_file: Path | None = None
    windows_megabytes: float = Field(default=64.0, gt=0)
    cpus: float = Field(default=1.0, ge=0)
    gpus: float = Field(default=0.0, ge=0)
    # Threads of the model's arithmetic; Ray would give a replica with less than one CPU a single one.
    threads: int = Field(default=1, ge=1)


class StageArguments(BaseModel):
    """The `args` of a stage's application in a Serve config file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    checkpoint: Path
    scale: Scale = Scale()
    tunables: Tunables = Tunables()
    # ANTIPHON_ variables of its replicas, before those of the cluster.
    environment: Mapping[str, str] = {}


class StageReplica:
    """One replica of one stage. Its gRPC server lives on the loop on which Serve awaits these methods."""

    async def __init__(  # type: ignore[misc]  # Serve awaits it
        self, make_service: Callable[[], HostedService], tunables: Tunables
    ) -> None:
        self._tunables = tunables
        self._is_draining = False
        self._opened = AsyncExitStack()
        antiphon_logging.configure(tunables.log_level)
        self._service = await asyncio.to_thread(make_service)
        traced = tracing.configure(f"antiphon-{self._service.stage}")
        self._opened.push_async_callback(asyncio.to_thread, traced.close)
        self._opened.enter_context(serving_metrics(_metrics_port()))
        limits = ServerLimits(max_active_calls=tunables.max_active_calls, drain_seconds=tunables.drain_seconds)
        self._server = await self._opened.enter_async_context(serving([self._service], _ANY_PORT, limits))
        self.address = f"{ray.util.get_node_ip_address()}:{self._server.port}"
        _LOG.info("The %s answers at %s.", self._service.stage, self.address)

    def reconfigure(self, user_config: Mapping[str, object]) -> None:
        self._tunables = Tunables.model_validate(user_config)
        self._server.active.limit = self._tunables.max_active_calls
        logging.getLogger().setLevel(self._tunables.log_level)

    def record_replica_metadata(self) -> dict[str, str]:
        return {"address": self.address}

    def record_autoscaling_stats(self) -> dict[str, float]:
        calls = float(self._server.active.total + self._service.load().waiting)
        signals = self._service.signals
        return {autoscaling.CALLS: calls, **({} if signals is None else dataclasses.asdict(signals()))}

    async def check_health(self) -> None:
        """Serve replaces a replica for which this raises again and again."""
        self._server.check()

    async def report(self) -> ReplicaReport:
        waiting = self._service.load().waiting
        return ReplicaReport(self.address, self._server.active.total, waiting, self._is_draining)

    async def __del__(self) -> None:
        """Serve awaits this when no router names the replica any more, before it kills the process."""
        if not hasattr(self, "_server"):  # it could not start
            return
        self._is_draining = True
        await self._server.drain(self._tunables.drain_seconds)
        await self._opened.aclose()


def _metrics_port() -> int | None:
    """Only where each replica has a host of its own, as a pod has, can all use one port."""
    port = os.environ.get("ANTIPHON_METRICS_PORT")
    return int(port) if port else None


def stage_application(
    make_service: Callable[[], HostedService], arguments: StageArguments, policy: Policy = _BY_CALLS
) -> serve.Application:
    """One application with one deployment, so that changing one stage restarts no other. policy: unless its scale names
    another."""
    scale, tunables = arguments.scale, arguments.tunables
    deployment = serve.deployment(
        StageReplica,
        name=DEPLOYMENT_NAME,
        user_config=tunables.model_dump(),
        graceful_shutdown_wait_loop_s=_WAIT_FOR_CONTROL_CALLS_SECONDS,
        graceful_shutdown_timeout_s=tunables.drain_seconds + _KILL_AFTER_DRAIN_SECONDS,
        **placement(scale, policy, environment=arguments.environment),
    )
    return deployment.bind(make_service, tunables)


def placement(
    scale: Scale,
    policy: Policy = _BY_CALLS,
    *,
    records_calls: bool = True,
    environment: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """The part of a deployment's options that follows from its scale.

    `records_calls`: its replicas record their calls; otherwise Serve counts the requests that it passes to them.
    """
    options: dict[str, Any] = {
        "max_ongoing_requests": _CONTROL_CALLS,
        "max_surge_percent": 100,  # an update starts the new replica before it stops the old one
        "max_constructor_retry_count": 2,
        "health_check_period_s": _CHECK_HEALTH_EVERY_SECONDS,
        "ray_actor_options": {
            "num_cpus": scale.cpus,
            "num_gpus": scale.gpus,
            "runtime_env": {"env_vars": {"OMP_NUM_THREADS": str(scale.threads), **(environment or {})}},
        },
    }
    if scale.max_replicas > scale.min_replicas:
        return options | {"autoscaling_config": _autoscaling(scale, policy, records_calls)}
    return options | {"num_replicas": scale.min_replicas}


def _autoscaling(scale: Scale, policy: Policy, records_calls: bool) -> AutoscalingConfig:
    """Without delays of Serve's own: the policy has its pace."""
    bounds = Bounds(min_replicas=scale.min_replicas, max_replicas=scale.max_replicas)
    plan = Plan(policy=scale.policy or policy, pacing=scale.pacing, bounds=bounds)
    file = {"path": str(scale.windows_file), "megabytes": scale.windows_megabytes} if scale.windows_file else {}
    kwargs = {"plan": plan.model_dump(mode="json"), "counts_requests": not records_calls, "windows": file}
    path = f"{autoscaling.StagePolicy.__module__}:{autoscaling.StagePolicy.__qualname__}"
    return AutoscalingConfig(
        min_replicas=scale.min_replicas,
        max_replicas=scale.max_replicas,
        metrics_interval_s=1.0,
        look_back_period_s=3.0,
        upscale_delay_s=0.0,
        downscale_delay_s=0.0,
        policy=AutoscalingPolicy(policy_function=path, policy_kwargs=kwargs),
    )


def ray_directory() -> ReplicaDirectory:
    """For callers that run inside Ray: asks the replicas of the application that bears a stage's name."""
    handles: dict[StageName, DeploymentHandle] = {}

    async def ask(stage: StageName) -> Sequence[ReplicaReport]:
        handle = handles.get(stage)
        if handle is None:
            handle = handles[stage] = serve.get_deployment_handle(DEPLOYMENT_NAME, app_name=stage)
        answers = await _answers(handle.broadcast("report"))
        return [answer for answer in answers if isinstance(answer, ReplicaReport)]

    return ReplicaDirectory(ask)


async def _answers(asked: DeploymentBroadcastResponse) -> Sequence[object]:
    """Of all replicas; after a while of those that have answered by then, for which Serve has a blocking way only.
    Raises TimeoutError when the replicas are not known by then."""
    try:
        answers: Sequence[object] = await asked.results_async(timeout_s=_REPORT_SECONDS, return_exceptions=True)
    except TimeoutError:
        answers = await asyncio.to_thread(asked.results, timeout_s=_COLLECT_SECONDS, return_exceptions=True)
    return answers
