"""Trains the Talker and its code predictor on coded speech, and writes them."""

import torch
from transformers import AutoTokenizer, PreTrainedTokenizerBase, Qwen3OmniMoeForConditionalGeneration

from recipes.nano.configuration import Recipe
from recipes.nano.domain.sentences import kind_of_answer
from recipes.nano.domain.splits import held_out_of_speech
from recipes.nano.errors import RecipeError
from recipes.nano.folders import WorkFolder
from recipes.nano.model.architecture import ACCEPT_HIDDEN_LAYER, build_model, config_for
from recipes.nano.model.parts import ThinkerParts, load_part, save_part
from recipes.nano.shipped import NANO
from recipes.nano.speech.store import shards
from recipes.nano.thinker.reading import Reader
from recipes.nano.thinker.stage import prepared
from recipes.nano.tokenizer.special_tokens import SpecialTokens

from .codes import read_codes
from .corpus import Corpus, Legend
from .listening import Listener, evenly
from .rows import OpeningIds
from .settings import TalkerSettings
from .training import Speech, train
from .user_prompts import UserPrompt

# nano's voice of each of the synthesiser's.
SPEAKERS = {"slt": "chelsie", "rms": "ethan", "awb": "aiden"}
MOST_USER_TOKENS = 96


def run(recipe: Recipe, folder: WorkFolder) -> None:
    """Does nothing where the Talker is there already. Raises RecipeError where Thinker or coded speech is missing."""
    if folder.talker.exists():
        return
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = first_model(recipe.talker, folder)
    load_part(folder.thinker, model, "thinker.")
    model.to(device)
    prompts = user_prompts(recipe, folder, model, device)
    tokenizer = AutoTokenizer.from_pretrained(folder.tokenizer)
    speech = speech_to_learn(recipe.talker, folder, tokenizer, device)
    opening = opening_ids(model, tokenizer, SpecialTokens.from_folder(folder.tokenizer))
    train(model, opening, prompts, speech, recipe.talker, folder)
    save_part(folder.talker, model, "talker.")


def first_model(settings: TalkerSettings, folder: WorkFolder) -> Qwen3OmniMoeForConditionalGeneration:
    """float32 on the CPU, drawn from the seed, or with the Talker that is shipped."""
    model = build_model(config_for(folder.tokenizer), settings.training.seed)
    if settings.from_shipped:
        shipped = Qwen3OmniMoeForConditionalGeneration.from_pretrained(NANO, dtype=torch.float32)
        model.talker.load_state_dict(shipped.talker.state_dict())
    return model


def user_prompts(
    recipe: Recipe, folder: WorkFolder, model: Qwen3OmniMoeForConditionalGeneration, device: torch.device
) -> list[UserPrompt]:
    """What precedes answers: of the conversations that the Thinker learns from, evenly some."""
    examples = prepared(recipe, folder, model, device).training
    reader = Reader(ThinkerParts.of(model.thinker), examples.banks, examples.longest_sound_seconds)
    tokens = SpecialTokens.from_folder(folder.tokenizer)
    listener = Listener(reader, tokens, ACCEPT_HIDDEN_LAYER, MOST_USER_TOKENS)
    prompts = list(listener.prompts(examples, evenly(examples, recipe.talker.user_prompts)))
    if not prompts:
        raise RecipeError(f"No conversation's user turns fit into {MOST_USER_TOKENS} tokens: draw more of them.")
    return prompts


def speech_to_learn(
    settings: TalkerSettings, folder: WorkFolder, tokenizer: PreTrainedTokenizerBase, device: torch.device
) -> Speech:
    """Raises RecipeError where there is no coded speech, or none of it fits."""
    coded = [one for shard in shards(folder.codes) for one in read_codes(shard)]
    if not coded:
        raise RecipeError(f"{folder.codes} has no coded speech to learn from: run the stage `codes` first.")
    legend = Legend(tokenizer.encode, kind_of_answer, tuple(SPEAKERS))
    learnt = [one for one in coded if not held_out_of_speech(one.text)]
    held_out = [one for one in coded if held_out_of_speech(one.text)] or learnt
    return Speech(
        training=Corpus(learnt, legend, settings, device),
        # A run that is too small to hold anything out is measured by what it has learnt.
        held_out=Corpus(held_out[: settings.held_out_utterances], legend, settings, device),
    )


def opening_ids(
    model: Qwen3OmniMoeForConditionalGeneration, tokenizer: PreTrainedTokenizerBase, tokens: SpecialTokens
) -> OpeningIds:
    of_talker = model.config.talker_config
    (newline,) = tokenizer.encode("\n")
    return OpeningIds(
        assistant=(tokens.im_start, tokens.assistant, newline),
        tts_bos=tokens.tts_bos,
        tts_eos=tokens.tts_eos,
        tts_pad=tokens.tts_pad,
        codec_nothink=of_talker.codec_nothink_id,
        codec_think_bos=of_talker.codec_think_bos_id,
        codec_think_eos=of_talker.codec_think_eos_id,
        codec_pad=of_talker.codec_pad_id,
        codec_bos=of_talker.codec_bos_id,
        codec_eos=of_talker.codec_eos_token_id,
        speakers=tuple(of_talker.speaker_id[name] for name in SPEAKERS.values()),
    )
