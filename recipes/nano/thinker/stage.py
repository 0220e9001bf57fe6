"""Trains the Thinker on conversations and recordings, and writes it."""

import torch
from rich.console import Console
from transformers import Qwen3OmniMoeForConditionalGeneration

from antiphon.prompt.positions import PositionRules
from antiphon.prompt.tokenizer import PromptTokenizer
from recipes.nano.configuration import Recipe
from recipes.nano.domain.conversations import corpus
from recipes.nano.errors import RecipeError
from recipes.nano.folders import WorkFolder
from recipes.nano.model.architecture import WIDTH, build_model, config_for
from recipes.nano.model.parts import save_part
from recipes.nano.shipped import NANO
from recipes.nano.thinker.losses import Transcriber
from recipes.nano.thinker.preparation import Preparation
from recipes.nano.thinker.settings import ThinkerSettings
from recipes.nano.thinker.training import Splits, train

CONSOLE = Console(stderr=True, highlight=False)


def run(recipe: Recipe, folder: WorkFolder) -> None:
    """Does nothing where the Thinker is there already. Raises RecipeError where tokenizer or recordings are missing."""
    if folder.thinker.exists():
        return
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = first_model(recipe.thinker, folder)
    splits = prepared(recipe, folder, model, device)
    thinker = model.thinker.to(device)
    torch.manual_seed(recipe.thinker.training.seed)
    transcriber = Transcriber(WIDTH, model.config.thinker_config.text_config.vocab_size).to(device)
    train(thinker, transcriber, splits, recipe.thinker, folder)
    head = {f"ctc.{name}": tensor for name, tensor in transcriber.head.state_dict().items()}
    save_part(folder.thinker, model, "thinker.", head)


def first_model(settings: ThinkerSettings, folder: WorkFolder) -> Qwen3OmniMoeForConditionalGeneration:
    """float32 on the CPU, drawn from the seed or as shipped."""
    if not settings.from_shipped:
        return build_model(config_for(folder.tokenizer), settings.training.seed)
    shipped, own = ((place / "tokenizer.json").read_bytes() for place in (NANO, folder.tokenizer))
    if shipped != own:
        raise RecipeError(
            f"{folder.tokenizer}: expected the shipped checkpoint's tokenizer, because thinker.from_shipped goes on "
            "with its Thinker; another one is there. Copy the shipped tokenizer there instead of training one."
        )
    return Qwen3OmniMoeForConditionalGeneration.from_pretrained(NANO, dtype=torch.float32)


def prepared(
    recipe: Recipe, folder: WorkFolder, model: Qwen3OmniMoeForConditionalGeneration, device: torch.device
) -> Splits:
    tokenizer = PromptTokenizer.from_checkpoint(folder.tokenizer)
    of_thinker = model.config.thinker_config
    rules = PositionRules(of_thinker.position_id_per_seconds, of_thinker.vision_config.spatial_merge_size)
    preparation = Preparation(tokenizer, rules, recipe.thinker, device)
    drawn = corpus(recipe.corpus)
    splits = Splits(
        preparation.examples(drawn.training, folder.questions, varied_pace=True),
        preparation.examples(drawn.held_out, folder.questions, varied_pace=False),
    )
    CONSOLE.print(
        f"[bold]thinker[/bold]  {len(splits.training.ids)} of {len(drawn.training)} conversations fit to learn"
    )
    return splits
