"""What every section of the settings is made of; neither torch nor pydantic is needed, as the model's own settings must not."""

import dataclasses
import types
from typing import Any


def as_yaml(config: Any) -> str:
    """The resolved settings as YAML; `config.load_config` of it gives the same again."""
    import yaml  # a machine that only times steps has none

    return yaml.safe_dump(_plain(dataclasses.asdict(config)), sort_keys=False)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | types.GeneratorType):
        return [_plain(item) for item in value]
    return value
