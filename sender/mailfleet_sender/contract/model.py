"""The base of every value that crosses from a manifest into Python."""

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel


class Model(BaseModel):
    """A frozen value whose fields are camelCase in manifests and snake_case in Python.

    Unknown fields are ignored: the API server prunes what the CRD does not know, and a sender
    of the previous minor version must be able to read a snapshot written by the next one.
    """

    model_config = ConfigDict(frozen=True, alias_generator=to_camel, populate_by_name=True, extra="ignore")
