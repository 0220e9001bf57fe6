"""What was said is found by its audio id, by its own tenant, for some time and as many as are kept."""

import asyncio
import time

import pytest

from tests.sessions.conftest import Opened


async def test_a_transcript_is_found_by_its_audio_id(opened: Opened) -> None:
    transcripts = opened(transcript_seconds=100).transcripts
    expires_at = await transcripts.keep("acme", "audio_1", "Grüße \N{SNOWMAN} \ud800")
    assert expires_at == pytest.approx(time.time() + 100, abs=2)
    assert await transcripts.find("acme", "audio_1") == "Grüße \N{SNOWMAN} \ud800"
    await transcripts.keep("acme", "audio_2", "")
    assert await transcripts.find("acme", "audio_2") == ""
    assert await transcripts.find("acme", "audio_3") is None


async def test_another_tenants_audio_id_is_unknown(opened: Opened) -> None:
    transcripts = opened().transcripts
    await transcripts.keep("acme", "audio_1", "secret")
    assert await transcripts.find("evil", "audio_1") is None
    assert await transcripts.find("acme", "audio_1") == "secret"


async def test_transcripts_are_forgotten_by_age(opened: Opened) -> None:
    transcripts = opened(transcript_seconds=0.8).transcripts
    await transcripts.keep("acme", "old", "one")
    await asyncio.sleep(0.5)
    await transcripts.keep("acme", "young", "two")
    assert await transcripts.find("acme", "old") == "one"
    await asyncio.sleep(0.5)
    assert await transcripts.find("acme", "old") is None
    assert await transcripts.find("acme", "young") == "two"


async def test_a_tenants_oldest_transcripts_go_first(opened: Opened) -> None:
    transcripts = opened(transcript_count=2).transcripts
    await transcripts.keep("other", "a", "of another")
    for audio_id in "abc":
        await transcripts.keep("acme", audio_id, audio_id)
        await asyncio.sleep(0.002)
    assert [await transcripts.find("acme", audio_id) for audio_id in "abc"] == [None, "b", "c"]
    assert await transcripts.find("other", "a") == "of another"
