"""Section: what every section of the config is."""

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A section of the config: frozen, and with no other keys than its own."""

    # strict: YAML has its own types, so `epochs: "5"` is an error to report, not to convert
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)
