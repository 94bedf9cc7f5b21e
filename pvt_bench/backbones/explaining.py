"""What the keys of `model` mean, from what builds each backbone."""

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import GenericAlias
from typing import Any

from pvt_bench.backbones import builder_of, create
from pvt_bench.config.explaining import Key, Section, call_keys, content_of, in_yaml, sentences
from pvt_bench.config.keys import BACKBONE_OBJECTS, MODEL, in_words

# A section names its models up to this number.
FEW = 6
BY_MODEL = "by model"


def model_sections(names: Sequence[str], words: Sequence[str]) -> list[Section]:
    """Name and weights of all models, then the options that one class or library reads."""
    files = {name: content_of("model", name, words) for name in names}
    built: dict[Callable[..., Any], list[str]] = {}
    for name, content in files.items():
        builder = builder_of(content["name"], content.get("base"), content.get("_target_"))
        built.setdefault(builder, []).append(name)
    others = [name for name in inspect.signature(create).parameters if name not in MODEL]
    shared = call_keys("model.", create, others, _agreed(files.values()))
    found = [Section("", shared)]
    for builder, of in built.items():
        title = f"model={', '.join(of)}" if len(of) <= FEW else "model=NAME of timm"
        found.append(Section(title, _option_keys(builder, [files[name] for name in of])))
    return [section for section in found if section.keys]


def _option_keys(builder: Callable[..., Any], files: Sequence[Mapping[str, Any]]) -> list[Key]:
    """Options by the builder's signature, or where it takes any, those that files set."""
    options = [
        {key: each[key] for key in each if key not in (*MODEL, "_target_")} for each in files
    ]
    agreed = _agreed(options)
    if not _takes_any(builder):
        return call_keys("model.", builder, BACKBONE_OBJECTS, agreed)
    example = {key: value for each in options for key, value in each.items()}
    told = {**sentences(create, example), **sentences(builder, example)}
    return [
        Key(f"model.{name}", in_words(_hint(value)), in_yaml(agreed[name]), told.get(name, ""))
        for name, value in example.items()
    ]


def _takes_any(builder: Callable[..., Any]) -> bool:
    parameters = inspect.signature(builder).parameters.values()
    return any(each.kind == each.VAR_KEYWORD for each in parameters)


def _agreed(files: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The value that all files with a key set it to, or that it differs by model."""
    found: dict[str, Any] = {}
    for content in files:
        for key, value in content.items():
            found[key] = value if found.get(key, value) == value else BY_MODEL
    return found


def _hint(value: Any) -> Any:
    return GenericAlias(list, type(value[0])) if isinstance(value, list) else type(value)
