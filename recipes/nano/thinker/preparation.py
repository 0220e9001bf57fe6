"""From conversations and recordings to examples: media gathered, conversations laid out, what does not fit left out."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import TypeVar

import torch

from antiphon.model.audio_features import token_count
from antiphon.prompt.positions import PositionRules
from antiphon.prompt.tokenizer import PromptTokenizer
from recipes.nano.domain.conversations import Conversation, Film, Picture, Sound
from recipes.nano.domain.voices import Integers
from recipes.nano.errors import RecipeError
from recipes.nano.model.log_mel import RATE_HZ, SAMPLES_PER_FRAME
from recipes.nano.thinker.examples import Examples
from recipes.nano.thinker.layout import FRAMES_PER_SECOND, ThinkerLayout, media_of
from recipes.nano.thinker.media import Audible, Banks, Medium, Sights, Sounds
from recipes.nano.thinker.recordings import heard_sounds
from recipes.nano.thinker.settings import ThinkerSettings
from recipes.nano.thinker.stacking import Page, stacked

Kind = TypeVar("Kind", bound=Medium)
PADDING = "<|endoftext|>"
# The spectrogram mirrors half a window of 400 samples at either end.
SHORTEST_SOUND_SAMPLES = 2 * SAMPLES_PER_FRAME
# Stands where a class has room for a sound and a conversation brings none.
SILENCE = Sound("silence", 0)


@dataclass(frozen=True)
class Preparation:
    """What the conversations of every split are prepared with."""

    tokenizer: PromptTokenizer
    rules: PositionRules
    settings: ThinkerSettings
    device: torch.device

    def examples(self, conversations: Sequence[Conversation], questions: Path, *, varied_pace: bool) -> Examples:
        """questions: shards of recordings; varied_pace: tell some films as if they were slower.

        Raises RecipeError where the shards lack a recording, or no conversation fits.
        """
        heard = heard_sounds({SILENCE, *_audible(conversations)}, questions)
        pages = self._pages(conversations, heard, self.settings.slow_film_share if varied_pace else 0.0)
        if not pages:
            raise RecipeError(
                f"None of {len(conversations)} conversations fits; raise most_tokens or longest_sound_seconds."
            )
        return stacked(
            pages,
            self._banks([page.conversation for page in pages], heard),
            self.settings.most_tokens,
            self.tokenizer.control_id(PADDING),
            self.settings.longest_sound_seconds,
            self.device,
        )

    def _pages(
        self, conversations: Sequence[Conversation], heard: Mapping[Audible, Integers], slow_share: float
    ) -> list[Page]:
        frames = {sound: len(samples) // SAMPLES_PER_FRAME for sound, samples in heard.items()}
        layout = ThinkerLayout(self.tokenizer, self.rules, lambda sound: token_count(frames[sound]))
        roll = Random(self.settings.training.seed)  # noqa: S311 - nothing here is secret
        pages = []
        for conversation in conversations:
            pace = FRAMES_PER_SECOND / 2 if roll.random() < slow_share else FRAMES_PER_SECOND
            if self._sounds_fit(conversation, heard):
                pages.append(Page(conversation, layout.lay_out(conversation, pace)))
        return [page for page in pages if len(page.laid.ids) <= self.settings.most_tokens]

    def _sounds_fit(self, conversation: Conversation, heard: Mapping[Audible, Integers]) -> bool:
        longest = self.settings.longest_sound_seconds * RATE_HZ
        lengths = (len(heard[medium]) for medium in media_of(conversation) if isinstance(medium, Audible))
        return all(SHORTEST_SOUND_SAMPLES <= length <= longest for length in lengths)

    def _banks(self, conversations: Sequence[Conversation], heard: Mapping[Audible, Integers]) -> Banks:
        media = [medium for conversation in conversations for medium in media_of(conversation)]
        sounds = _different([SILENCE, *_audible(conversations)])
        pictures = _different([medium for medium in media if isinstance(medium, Picture)])
        films = _different([medium for medium in media if isinstance(medium, Film)])
        kinds: tuple[Sequence[Medium], ...] = (sounds, pictures, films)
        return Banks(
            Sounds([heard[one] for one in sounds], [self._transcript(one) for one in sounds], self.device),
            Sights(pictures, self.device),
            Sights(films, self.device),
            {medium: number for kind in kinds for number, medium in enumerate(kind)},
        )

    def _transcript(self, sound: Audible) -> Sequence[int]:
        """Of speech, in small letters; nothing where it is too long, or a sound says nothing."""
        if isinstance(sound, Sound):
            return ()
        tokens = self.tokenizer.encode_plain(f" {sound.words.lower().replace(':', '')}")
        return tokens if len(tokens) <= self.settings.most_transcript_tokens else ()


def _audible(conversations: Iterable[Conversation]) -> list[Audible]:
    media = (medium for conversation in conversations for medium in media_of(conversation))
    return [medium for medium in media if isinstance(medium, Audible)]


def _different(media: Iterable[Kind]) -> list[Kind]:
    """Each once, in the order in which they come first."""
    return list(dict.fromkeys(media))
