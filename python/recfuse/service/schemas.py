"""What requests and responses are made of: the OpenAPI document, and its checks."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StrictInt, StrictStr

__all__ = [
    "Change",
    "Error",
    "ExplainRequest",
    "Explained",
    "Feedback",
    "FeedbackTaken",
    "FuseRequest",
    "Item",
    "ListRequest",
    "Lists",
    "ModelFacts",
    "RecommendRequest",
    "Reloaded",
    "SimilarRequest",
    "State",
    "Titled",
]

Id = (
    Annotated[StrictInt, Field(ge=-(2**63), le=2**64 - 1)]
    | Annotated[StrictStr, Field(max_length=1024)]
)
# Sums of products of what is within these are finite in float32.
Number = Annotated[float, Field(ge=-1e6, le=1e6, allow_inf_nan=False)]
Name = Annotated[str, Field(max_length=1024)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class ListRequest(_Strict):
    k: Annotated[int, Field(ge=1, le=2**31 - 1, strict=True)] = Field(
        10, description="Items of the list; the service has a limit."
    )
    exclude: list[Id] | None = Field(None, description="Items to leave out.")
    allow: list[Id] | None = Field(None, description="Nothing but these items.")


class RecommendRequest(ListRequest):
    user: Id
    exclude_seen: bool = Field(True, description="Leave out what the user has.")
    contributions: bool = Field(False, description="What every modality adds to every score.")


class SimilarRequest(ListRequest):
    item: Id
    weights: dict[Name, Number] | None = None


class FuseRequest(ListRequest):
    user: Id | None = Field(None, description="A user of the model or of a session.")
    items: list[Id] | None = Field(None, description="A history instead of a user: items.")
    vectors: dict[Name, list[Number]] | None = Field(
        None, description="By modality; instead of what is known of the user."
    )
    weights: dict[Name, Number] | None = Field(
        None, description="Of the modalities; those that are not named get 0."
    )
    exclude_seen: bool = True
    contributions: bool = True


class ExplainRequest(_Strict):
    user: Id | None = None
    items: list[Id] | None = None
    item: Id
    weights: dict[Name, Number] | None = None


class Change(_Strict):
    item: Id
    value: Number = Field(1.0, description="Strength; 0 takes the item back.")


class Feedback(_Strict):
    user: Id
    events: list[Change] = Field(
        min_length=1,
        description="Each replaces what was there of its item, so a request may be repeated.",
    )


class Item(BaseModel):
    item: int | str
    score: float | None
    title: str | None = None
    contributions: dict[str, float] | None = None


class Lists(BaseModel):
    items: list[Item]


class Share(BaseModel):
    item: int | str
    adds: float


class Explained(BaseModel):
    item: int | str
    score: float | None = Field(
        description="null: no weighted modality knows the item, or lists of neighbours leave it "
        "out, because the history has it."
    )
    contributions: dict[str, float]
    history: dict[str, list[Share]] = Field(
        description="What items of the history add to each modality, the largest first."
    )


class FeedbackTaken(BaseModel):
    kept: int = Field(description="Items of the user's session. All are on disk.")


class ModelFacts(BaseModel):
    modalities: list[str]
    weights: dict[str, float]
    dims: dict[str, int] = Field(description="Of the vectors that /fuse takes.")
    users: int
    items: int
    histories: str = Field(
        description="What becomes of feedback: fold-in; mean, of item vectors; left out, only."
    )
    similar: bool
    feedback: bool


class Titled(BaseModel):
    item: int | str
    title: str


class State(BaseModel):
    status: str


class Reloaded(BaseModel):
    users: int
    items: int


class Error(BaseModel):
    error: str
