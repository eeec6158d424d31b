"""Base classes and types of request fields: unknown names, nulls, and limits on validation.

A body may hold a million mistakes, and the process that validates it also answers all other clients. So validation of
a list stops at the first mistake, and that of an object reports only some of its unknown names.

It knows JSON. It does not know which fields there are.
"""

from itertools import chain
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    PrivateAttr,
    StringConstraints,
    model_validator,
)

MAX_UNKNOWN = 20
"""Unknown names of an object that the response lists."""
MAX_NAMES = 100
"""Names in an object that accepts any name."""
MAX_DEPTH = 64
"""Levels of nested lists and objects; a chat template that walks through more of them fails."""
MAX_ITEMS = 1000
"""Items of a list that has no other limit."""


def valid_unicode(text: str) -> str:
    """Return `text`.

    Raises:
        ValueError: it holds half of a surrogate pair, which cannot be encoded.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"contains half of a surrogate pair at character {error.start}, expected valid Unicode"
        ) from None
    return text


def check_depth(value: Any) -> Any:
    """Return the JSON value `value`.

    Raises:
        ValueError: it is nested more than `MAX_DEPTH` levels deep.
    """
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        level = [one for one in level if isinstance(one, (dict, list))]
        if not level:
            return value
        level = list(chain.from_iterable(one.values() if isinstance(one, dict) else one for one in level))
    raise ValueError(f"nests lists and objects more than {MAX_DEPTH} levels deep, expected fewer")


Text = Annotated[str, AfterValidator(valid_unicode)]
Name = Annotated[str, StringConstraints(max_length=4096), AfterValidator(valid_unicode)]
Off = Literal[False] | None
NoList = Annotated[list[Any], Field(max_length=0)] | None
NoObject = Annotated[dict[Any, Any], Field(max_length=0)] | None
"""Keys of type Any: pydantic would validate each key before it counts them."""
IGNORED = Field(None, description="Accepted and ignored.")


class Strict(BaseModel):
    """An object whose fields are checked strictly.

    JSON types are not converted: "1" is no number, and 1 is no boolean. An unknown name is refused unless its value is
    null, which some clients send for every field that they know.
    """

    model_config = ConfigDict(strict=True, extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _keep_known(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        known = {name: inner for name, inner in value.items() if name in cls.model_fields}
        unknown = [name for name, inner in value.items() if inner is not None and name not in known]
        return known | {name: value[name] for name in unknown[:MAX_UNKNOWN]}


class Open(BaseModel):
    """An object that accepts further names, which a chat template may use.

    The order of the names is kept, since a template may write the object as JSON.
    """

    model_config = ConfigDict(extra="allow")
    _order: list[str] = PrivateAttr(default_factory=list)

    @model_validator(mode="wrap")
    @classmethod
    def _limit_size(cls, value: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        if isinstance(value, dict) and len(value) > MAX_NAMES:
            raise ValueError(f"has {len(value)} fields, expected at most {MAX_NAMES}")
        made = handler(check_depth(value))
        made._order = list(value) if isinstance(value, dict) else []
        return made

    def without_nulls(self, **known: Any) -> dict[str, Any]:
        """Return all fields that are not null, in their order; `known` replaces the declared ones."""
        values = {**(self.model_extra or {}), **known}
        return {name: values[name] for name in [*self._order, *values] if values.get(name) is not None}
