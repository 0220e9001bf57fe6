"""A tokenizer learnt from a small corpus: what it cuts, what it names, and the files that others read."""

import json
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some
from jinja2.sandbox import ImmutableSandboxedEnvironment
from transformers import AutoFeatureExtractor, AutoTokenizer

from antiphon.prompt.tokenizer import PromptTokenizer
from recipes.nano.domain.conversations import Corpus, corpus
from recipes.nano.domain.sentences import lines_to_learn
from recipes.nano.domain.settings import CorpusSettings, Counts
from recipes.nano.errors import RecipeError
from recipes.nano.tokenizer.processor import write_processor
from recipes.nano.tokenizer.special_tokens import CONTROL_TOKENS, THINKING_TAGS, SpecialTokens, embedding_rows
from recipes.nano.tokenizer.texts import texts_of
from recipes.nano.tokenizer.training import train_tokenizer

MERGED_TOKENS = 700
# By transformers, when what it saves was loaded from somewhere; none of it says anything.
WRITTEN_AFTER_LOADING = {"is_local", "local_files_only", "extra_special_tokens"}


@pytest.fixture(scope="module")
def conversations() -> Corpus:
    counts = Counts(**dict.fromkeys(Counts.model_fields, 40))
    return corpus(CorpusSettings(training=counts, held_out=counts))


@pytest.fixture(scope="module")
def folder(conversations: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    said = [text for text, _ in islice(lines_to_learn(0.5, 8), 400)]
    folder = tmp_path_factory.mktemp("tokenizer")
    train_tokenizer(texts_of(conversations.training, said), MERGED_TOKENS).save_pretrained(folder)
    write_processor(folder)
    return folder


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> Any:
    return AutoTokenizer.from_pretrained(folder)


def test_special_tokens_follow_the_merges_in_the_shipped_order(tokenizer: Any, nano: Path) -> None:
    shipped = json.loads((nano / "tokenizer.json").read_text())["added_tokens"]
    assert [token["content"] for token in shipped] == [*CONTROL_TOKENS, *THINKING_TAGS]
    ids = tokenizer.convert_tokens_to_ids([token["content"] for token in shipped])
    assert ids == list(range(MERGED_TOKENS, MERGED_TOKENS + len(shipped)))


def test_the_model_learns_its_ids_from_the_folder(folder: Path, tokenizer: Any) -> None:
    tokens = SpecialTokens.from_folder(folder)
    assert tokens.im_end == tokenizer.eos_token_id
    assert tokens.padding == tokenizer.pad_token_id
    assert tokens.audio_pad == tokenizer.audio_token_id
    assert [tokens.system, tokens.user] == tokenizer.encode("systemuser")
    assert embedding_rows(folder) == 768


def test_shipped_ids_are_read_as_they_are_configured(nano: Path) -> None:
    assert SpecialTokens.from_folder(nano).assistant == 493
    assert embedding_rows(nano) == 1472


def test_an_answers_opening_is_three_tokens(tokenizer: Any) -> None:
    assert len(tokenizer.encode("<|im_start|>assistant\n")) == 3


def test_sentences_of_the_domain_come_back_in_few_tokens(tokenizer: Any, conversations: Corpus) -> None:
    held_out = list(texts_of(conversations.held_out, []))
    assert [tokenizer.decode(tokenizer.encode(text)) for text in held_out] == held_out
    characters, tokens = sum(map(len, held_out)), sum(len(tokenizer.encode(text)) for text in held_out)
    assert tokens < characters / 2.5


@settings(max_examples=200, deadline=None)
@given(text=some.text(some.characters(codec="utf-8", exclude_categories=["Mn", "Mc", "Me"]), max_size=40))
def test_any_text_comes_back(folder: Path, tokenizer: Any, text: str) -> None:
    """Normalised as Qwen2's tokenizer does. Antiphon reads the same ids, and no control token where text spells one."""
    normalised = tokenizer.backend_tokenizer.normalizer.normalize_str(text)
    plain = PromptTokenizer.from_checkpoint(folder).encode_plain(text)
    assert tokenizer.decode(plain) == normalised
    if not any(token in text for token in (*CONTROL_TOKENS, *THINKING_TAGS)):
        assert plain == tokenizer.encode(text)


def test_a_vocabulary_without_room_for_the_roles_is_refused(conversations: Corpus) -> None:
    with pytest.raises(RecipeError, match=r"to become one token.*merged_tokens"):
        train_tokenizer(texts_of(conversations.training, []), 258)


def test_files_tell_transformers_what_the_shipped_ones_tell(folder: Path, nano: Path) -> None:
    for name in ("processor_config.json", "tokenizer_config.json"):
        made, shipped = (json.loads((place / name).read_text()) for place in (folder, nano))
        assert made == {key: value for key, value in shipped.items() if key not in WRITTEN_AFTER_LOADING}
    assert AutoFeatureExtractor.from_pretrained(folder).n_samples == 4_800_000


TURNS: list[dict[str, object]] = [
    {"role": "system", "content": "You are nano."},
    {"role": "user", "content": "hello"},
    {"role": "assistant", "content": "Hello."},
    {
        "role": "user",
        "content": [{"type": "image"}, {"type": "audio"}, {"type": "video"}, {"type": "text", "text": " why"}],
    },
    {"role": "user", "content": [{"audio_url": "a"}, {"image_url": "b"}, {"video": "c"}, {"type": "unknown"}]},
]


@pytest.mark.parametrize("options", [{}, {"enable_thinking": True}, {"enable_thinking": False}])
@pytest.mark.parametrize("add_generation_prompt", [True, False])
@pytest.mark.parametrize("trims", [True, False])
def test_template_writes_as_the_shipped_one(
    folder: Path, nano: Path, options: dict[str, bool], add_generation_prompt: bool, trims: bool
) -> None:
    environment = ImmutableSandboxedEnvironment(trim_blocks=trims, lstrip_blocks=trims)
    written = [
        environment.from_string((place / "chat_template.jinja").read_text()).render(
            messages=TURNS, add_generation_prompt=add_generation_prompt, **options
        )
        for place in (folder, nano)
    ]
    assert written[0] == written[1]
