"""GET /v1/models: the checkpoint that is served, with what it hears, sees and speaks."""

from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel
from starlette.requests import Request

from services.gateway.served_model import InputModality, OutputModality, ServedModel
from services.gateway.tenants import caller_of


class Architecture(BaseModel):
    input_modalities: list[InputModality]
    output_modalities: list[OutputModality]


class ModelCard(BaseModel):
    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "antiphon"
    architecture: Architecture
    context_length: int
    voices: list[str]


class ModelList(BaseModel):
    object: Literal["list"] = "list"
    data: list[ModelCard]


def models_router(model: ServedModel) -> APIRouter:
    router = APIRouter(prefix="/v1/models")

    @router.get("", summary="Models that this server answers as")
    async def list_models(request: Request) -> ModelList:
        caller = caller_of(request.scope)
        names = (model.model_id, *model.aliases)
        names = names if caller.may_use_model(*names) else ()
        return ModelList(data=[_card(model, name) for name in names])

    @router.get("/{model_id:path}", summary="One model")
    async def get_model(request: Request, model_id: str) -> ModelCard:
        model.check_name(model_id)
        caller_of(request.scope).check_model(model.model_id, *model.aliases)
        return _card(model, model_id)

    return router


def _card(model: ServedModel, name: str) -> ModelCard:
    return ModelCard(
        id=name,
        created=model.created,
        architecture=Architecture(
            input_modalities=list(model.input_modalities), output_modalities=list(model.output_modalities)
        ),
        context_length=model.context_tokens,
        voices=list(model.voices),
    )
