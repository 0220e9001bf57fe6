"""Both layouts of a tokenizer on disk give the same ids; what does not fit together is refused with a sentence."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from antiphon.errors import CheckpointError
from antiphon.prompt.prompt import PromptBuilder
from antiphon.prompt.tokenizer import PromptTokenizer


@pytest.fixture(scope="module")
def in_parts(nano: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """nano's tokenizer as older checkpoints store theirs."""
    directory = tmp_path_factory.mktemp("parts")
    written = json.loads((nano / "tokenizer.json").read_text())
    (directory / "vocab.json").write_text(json.dumps(written["model"]["vocab"]))
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in written["model"]["merges"]]
    (directory / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
    flags = ("content", "lstrip", "normalized", "rstrip", "single_word", "special")
    added = {str(token["id"]): {name: token[name] for name in flags} for token in written["added_tokens"]}
    (directory / "tokenizer_config.json").write_text(json.dumps({"added_tokens_decoder": added}))
    for name in ("config.json", "chat_template.jinja"):
        shutil.copy(nano / name, directory)
    return directory


@settings(max_examples=300, deadline=None)
@given(text=st.text(max_size=60))
def test_vocabulary_and_merges_give_the_same_ids(nano: Path, in_parts: Path, text: str) -> None:
    whole, parts = tokenizers(nano, in_parts)
    assert parts.encode_plain(text) == whole.encode_plain(text)


def test_control_tokens_are_the_same(nano: Path, in_parts: Path) -> None:
    whole, parts = tokenizers(nano, in_parts)
    assert parts.control == whole.control
    assert PromptBuilder(in_parts).special_tokens == PromptBuilder(nano).special_tokens


def test_ids_come_from_the_checkpoint(nano: Path, tiny_checkpoint: Path) -> None:
    for checkpoint in (nano, tiny_checkpoint):
        config = json.loads((checkpoint / "config.json").read_text())
        special = PromptBuilder(checkpoint).special_tokens
        assert special.im_end == config["im_end_token_id"]
        assert special.user == config["user_token_id"]
        assert special.audio_pad == config["thinker_config"]["audio_token_id"]


def test_long_texts_take_the_same_ids(nano: Path) -> None:
    tokenizer = PromptTokenizer.from_checkpoint(nano)
    assert tokenizer.encode_plain("a word\n" * 3000) == tokenizer.encode_plain("a word\n") * 3000


@pytest.mark.parametrize("name", ["vocab.json", "merges.txt", "tokenizer_config.json"])
def test_a_missing_file_is_named(in_parts: Path, tmp_path: Path, name: str) -> None:
    shutil.copytree(in_parts, tmp_path, dirs_exist_ok=True)
    (tmp_path / name).unlink()
    with pytest.raises(CheckpointError, match=name):
        PromptTokenizer.from_checkpoint(tmp_path)


def test_a_broken_tokenizer_is_refused(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(CheckpointError, match="tokenizer that can be read"):
        PromptTokenizer.from_checkpoint(tmp_path)


def test_a_gap_in_the_ids_is_refused(in_parts: Path, tmp_path: Path) -> None:
    shutil.copytree(in_parts, tmp_path, dirs_exist_ok=True)
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    del config["added_tokens_decoder"]["1452"]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="different models"):
        PromptTokenizer.from_checkpoint(tmp_path)


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (("im_end_token_id",), 151645, "different models"),
        (("user_token_id",), 497, "role user"),
        (("im_start_token_id",), None, "im_start_token_id"),
        (("thinker_config", "audio_token_id"), "x", "thinker_config.audio_token_id"),
        (("thinker_config",), [], "thinker_config"),
    ],
)
def test_a_configuration_of_another_model_is_refused(
    in_parts: Path, tmp_path: Path, path: tuple[str, ...], value: Any, said: str
) -> None:
    shutil.copytree(in_parts, tmp_path, dirs_exist_ok=True)
    config = json.loads((tmp_path / "config.json").read_text())
    section = config
    for key in path[:-1]:
        section = section[key]
    section[path[-1]] = value
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=said):
        PromptBuilder(tmp_path)


_LOADED: dict[Path, PromptTokenizer] = {}


def tokenizers(*checkpoints: Path) -> list[PromptTokenizer]:
    for checkpoint in checkpoints:
        _LOADED.setdefault(checkpoint, PromptTokenizer.from_checkpoint(checkpoint))
    return [_LOADED[checkpoint] for checkpoint in checkpoints]
