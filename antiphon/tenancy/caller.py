"""On whose behalf a request runs, and what that one may do."""

from dataclasses import dataclass, field
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from antiphon.errors import PermissionDenied

Priority = Literal["interactive", "batch"]

ANONYMOUS_TENANT: Final = "anonymous"

# Levels of budgets are amounts times 60,000, and times 1000 again for seconds: they stay whole numbers below 2^53, even
# where a budget is owed as much as it holds a hundred times over.
_Count = Annotated[int, Field(ge=0, le=10**9)]
_Seconds = Annotated[float, Field(ge=0, le=10**6, allow_inf_nan=False)]


class TenantLimits(BaseModel):
    """None is without limit; 0 allows none."""

    # What a newer gateway has written besides is none of ours.
    model_config = ConfigDict(frozen=True, extra="ignore")

    requests_per_minute: _Count | None = None
    # Prompt and answer, speech included.
    tokens_per_minute: _Count | None = None
    audio_in_seconds_per_minute: _Seconds | None = None
    audio_out_seconds_per_minute: _Seconds | None = None
    # Answers that are being written or spoken.
    concurrent_turns: _Count | None = None
    # Live connections.
    concurrent_sessions: _Count | None = None
    # Prompt and answer of one turn.
    context_tokens: _Count | None = None


UNLIMITED: Final = TenantLimits()


@dataclass(frozen=True, slots=True)
class Caller:
    tenant: str
    # Names the key for people; never the key itself.
    key_id: str
    # What the stages computed is shared between requests of one salt.
    cache_salt: bytes = field(repr=False)
    # Its share of steps beside other tenants.
    weight: float = 1.0
    priority: Priority = "interactive"
    limits: TenantLimits = UNLIMITED
    # None allows all.
    models: frozenset[str] | None = None
    voices: frozenset[str] | None = None
    is_admin: bool = False
    # Under which the registry finds the key again; empty without one.
    key_digest: str = field(default="", repr=False)

    def may_use_model(self, *names: str) -> bool:
        """names: of one model; one of them has to be allowed."""
        return self.models is None or not self.models.isdisjoint(names)

    def check_model(self, *names: str) -> None:
        """Raises PermissionDenied."""
        if not self.may_use_model(*names):
            raise PermissionDenied(
                f"This key does not allow the model '{names[0][:64]}'. {_allowed(self.models)}",
                param="model",
                code="model_not_allowed",
            )

    def check_voice(self, name: str, param: str = "audio.voice") -> None:
        if self.voices is not None and name not in self.voices:
            raise PermissionDenied(
                f"This key does not allow the voice '{name[:64]}'. {_allowed(self.voices)}",
                param=param,
                code="voice_not_allowed",
            )

    def check_admin(self) -> None:
        if not self.is_admin:
            raise PermissionDenied(
                "This needs a key with the scope 'admin'. Ask an administrator of this server.", code="admin_required"
            )


def _allowed(names: frozenset[str] | None) -> str:
    return f"It allows {', '.join(sorted(names))}." if names else "It allows none."
