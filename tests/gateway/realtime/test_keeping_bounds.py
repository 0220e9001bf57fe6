"""What waits to be kept of a live session is bounded."""

import weakref

from antiphon.sessions.opening import sessions_in_memory
from antiphon.sessions.settings import SessionSettings
from services.gateway.realtime.dialect.frames import Numbering
from services.gateway.realtime.keeping import Keeping
from services.gateway.realtime.kept_session import KeptSession
from services.gateway.realtime.session_keeper import SessionKeeper

SESSION_ID = "sess_" + "0" * 24


def test_events_of_a_session_that_nothing_is_kept_of_yet_are_bounded_in_bytes() -> None:
    settings = SessionSettings(event_bytes=10_000)
    keeper = SessionKeeper.of(sessions_in_memory(settings), settings, patience_seconds=0.05)
    session = KeptSession({}, (), has_spoken=False, connection_id="c")
    keeping = Keeping(keeper, "acme", SESSION_ID, lambda: session, lambda _: None, None, goes_on=False)
    numbering, told = Numbering(SESSION_ID), []
    for _ in range(1000):
        frame = numbering.frame({"type": "input_audio_buffer.cleared"})
        keeping.told(None, frame)
        told.append((weakref.ref(frame), frame.size_bytes, frame.number))
    del frame
    held = [(size, number) for known, size, number in told if known() is not None]
    assert 0 < sum(size for size, _ in held) <= 10_000
    assert held[-1][1] == 1000, "the newest"
