"""How a limited caller learns what is left, in the headers that OpenAI's clients know."""

from typing import Final

from starlette.datastructures import MutableHeaders

from antiphon.tenancy.limiter import Budget, Standing

# What has no header of OpenAI's gets one of the same form.
_NAMES: Final[dict[Budget, str]] = {
    "requests": "requests",
    "tokens": "tokens",
    "audio_in_ms": "audio-in-ms",
    "audio_out_ms": "audio-out-ms",
}


def add_standing(headers: MutableHeaders, standing: Standing) -> None:
    for budget, found in standing.items():
        name = _NAMES[budget]
        headers[f"x-ratelimit-limit-{name}"] = str(found.limit)
        headers[f"x-ratelimit-remaining-{name}"] = str(found.remaining)
        headers[f"x-ratelimit-reset-{name}"] = go_duration(found.reset_ms)


def go_duration(milliseconds: int) -> str:
    """As Go writes it: 12ms, 1.5s, 6m0s, 1h0m0s."""
    if milliseconds == 0:
        return "0s"
    if milliseconds < 1000:
        return f"{milliseconds}ms"
    minutes, rest_ms = divmod(milliseconds, 60_000)
    hours, minutes = divmod(minutes, 60)
    seconds = f"{rest_ms / 1e3:.3f}".rstrip("0").rstrip(".") + "s"
    if hours:
        return f"{hours}h{minutes}m{seconds}"
    return f"{minutes}m{seconds}" if minutes else seconds
