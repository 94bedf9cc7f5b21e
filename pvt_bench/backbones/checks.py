"""Is what the user asked of a PVT a network at all? Answered before anything is allocated."""

from collections.abc import Sequence

from pvt_bench.errors import InputError, nearest

ATTENTIONS = ("fused", "plain")
STAGES = 4


def is_positive(value: object) -> bool:
    """Whether a value is a whole number above zero."""
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def four(name: str, values: object, example: str) -> list[int]:
    """Read one positive whole number a stage."""
    if isinstance(values, Sequence) and not isinstance(values, str):
        numbers = list(values)
        if len(numbers) == STAGES and all(map(is_positive, numbers)):
            return numbers
    raise InputError(
        f"model.{name}={values} cannot be used: expected {STAGES} whole numbers above 0, one a "
        f"stage, for example model.{name}={example}."
    )


def check_heads(channels: list[int], heads: list[int]) -> None:
    """Refuse heads that do not divide the channels of their stage."""
    for stage, (width, count) in enumerate(zip(channels, heads, strict=True), start=1):
        if width % count:
            raise InputError(
                f"model.heads={heads} cannot be used: {count} heads do not divide the {width} "
                f"channels of stage {stage} (model.channels={channels}). Choose divisors, for "
                "example model.heads=[1,2,5,8] for model.channels=[64,128,320,512]."
            )


def check_scalars(
    drop_path: float, attention: str, num_classes: int, in_chans: int, img_size: int, stride: int
) -> None:
    """Refuse single values that define no network; `stride` is the last stage's."""
    if isinstance(drop_path, bool) or not isinstance(drop_path, int | float):
        raise InputError(f"model.drop_path={drop_path!r} is no number: type model.drop_path=0.1.")
    if not 0 <= drop_path < 1:
        raise InputError(
            f"model.drop_path={drop_path} cannot be used: expected a probability from 0 up to, "
            "but not, 1, for example model.drop_path=0.1."
        )
    if attention not in ATTENTIONS:
        raise InputError(
            f"model.attention={attention} is unknown. {nearest(str(attention), ATTENTIONS)} "
            "Type model.attention=fused."
        )
    counts = {"num_classes": (num_classes, 1000), "in_chans": (in_chans, 3)}
    for name, (value, example) in counts.items():
        if not is_positive(value):
            raise InputError(
                f"model.{name}={value!r} cannot be used: expected a whole number above 0, for "
                f"example model.{name}={example}."
            )
    if not is_positive(img_size) or img_size < stride:
        raise InputError(
            f"model.img_size={img_size!r} cannot be used: expected a whole number of pixels, at "
            f"least the product of model.patch_sizes, {stride}; for example model.img_size=224."
        )
