"""What all objects of a request have in common: unknown names, nulls, and how much of a mistake is looked at.

A body may hold a million mistakes. They are found in the process that answers everybody else, so a list stops at its
first one, and an object shows only some of its unknown names.

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
"""Unknown names of an object that are told to its client."""
MAX_NAMES = 100
"""Names in an object that takes any."""
MAX_DEPTH = 64
"""Lists and objects inside each other; a chat template that goes through more of them fails."""
MAX_ITEMS = 1000
"""In a list, where nothing else limits it."""


def valid_unicode(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"holds half of a surrogate pair at character {error.start}, expected valid Unicode") from None
    return text


def check_depth(given: Any) -> Any:
    """The JSON value, if it is not nested deeply."""
    level = [given]
    for _ in range(MAX_DEPTH + 1):
        level = [one for one in level if isinstance(one, (dict, list))]
        if not level:
            return given
        level = list(chain.from_iterable(one.values() if isinstance(one, dict) else one for one in level))
    raise ValueError(f"has lists and objects inside each other more than {MAX_DEPTH} times, expected fewer")


Text = Annotated[str, AfterValidator(valid_unicode)]
Name = Annotated[str, StringConstraints(max_length=4096), AfterValidator(valid_unicode)]
Off = Literal[False] | None
NoList = Annotated[list[Any], Field(max_length=0)] | None
NoObject = Annotated[dict[Any, Any], Field(max_length=0)] | None
"""With names of any kind: pydantic would look at each before it counts them."""
IGNORED = Field(None, description="Taken and not used.")


class Strict(BaseModel):
    """JSON types are taken as they are: "1" is no number, and 1 is no truth value. An unknown name is refused, unless
    it is null: clients that send all that they know ask for nothing with it."""

    model_config = ConfigDict(strict=True, extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _keep_known(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        known = {name: value for name, value in given.items() if name in cls.model_fields}
        unknown = [name for name, value in given.items() if value is not None and name not in known]
        return known | {name: given[name] for name in unknown[:MAX_UNKNOWN]}


class Open(BaseModel):
    """Takes any further name, for a chat template that may know it. It may write an object as JSON, so the order of
    the names is kept."""

    model_config = ConfigDict(extra="allow")
    _order: list[str] = PrivateAttr(default_factory=list)

    @model_validator(mode="wrap")
    @classmethod
    def _limit_size(cls, given: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        if isinstance(given, dict) and len(given) > MAX_NAMES:
            raise ValueError(f"has {len(given)} fields, expected at most {MAX_NAMES}")
        made = handler(check_depth(given))
        made._order = list(given) if isinstance(given, dict) else []
        return made

    def without_nulls(self, **known: Any) -> dict[str, Any]:
        """All fields but those that are null; `known` are ours, as a template takes them."""
        values = {**(self.model_extra or {}), **known}
        return {name: values[name] for name in [*self._order, *values] if values.get(name) is not None}
