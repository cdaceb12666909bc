"""Rotary embeddings of a GGUF file, as llama.cpp turns them.

transformers takes the base alone, and of some architectures not even that: scaling by ``rope.*``
keys and by the tensors ``rope_freqs``, ``rope_factors_long`` and ``rope_factors_short`` is left
out without a word. Here they become the configuration's own rope parameters, so that they are
exported too, and once the model is built its frequencies are held against llama.cpp's formula
(``ggml_rope_ext``, ``llama-model.cpp``).
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import nn

from phaseprune.decoder.gguf_header import GgufHeader
from phaseprune.errors import UserError

FACTORS = "rope_freqs.weight"
LONG, SHORT = "rope_factors_long.weight", "rope_factors_short.weight"
#: llama.cpp's, where the key lacks.
BASE = 10_000.0
BETA_FAST, BETA_SLOW = 32.0, 1.0
#: Keys that change nothing, and values of others that do not.
_INFORMATION = ("rope.scaling.finetuned",)
_NEUTRAL = {
    "rope.scaling.alpha": (0.0, 1.0),
    "rope.scaling.yarn_log_multiplier": (0.0,),
    "rope.scaling.yarn_ext_factor": (-1.0, 1.0),
}
_READ = (
    "rope.freq_base",
    "rope.freq_base_swa",
    "rope.dimension_count",
    "rope.scale_linear",
    "rope.scaling.type",
    "rope.scaling.factor",
    "rope.scaling.attn_factor",
    "rope.scaling.original_context_length",
    "rope.scaling.yarn_attn_factor",
    "rope.scaling.yarn_beta_fast",
    "rope.scaling.yarn_beta_slow",
)
#: Llama 3's own smoothing, (low, high) and the context it was trained on.
_LLAMA3 = (1.0, 4.0, 8192)


@dataclass(frozen=True)
class Rotation:
    """What a kind of block turns its heads by.

    Attributes:
        frequencies: radians a position, of each pair of values.
        scale: of the turned values.
    """

    frequencies: np.ndarray
    scale: float


@dataclass(frozen=True)
class _Scaling:
    """The keys of ``rope.scaling`` and the tensors, with llama.cpp's defaults."""

    kind: str
    factor: float
    attention: float
    original: int
    beta_fast: float
    beta_slow: float
    short: np.ndarray | None
    long: np.ndarray | None


def settle_rope(config: Any, header: GgufHeader, read_by_theirs: Collection[str]) -> None:  # noqa: C901
    """Have a configuration's rope parameters say what the file says.

    Args:
        config: of transformers; changed.
        header: of the file.
        read_by_theirs: keys that transformers has read by code for this architecture.

    Raises:
        UserError: a key or tensor that there is no place for, by its name.
    """
    fields = header.own_fields
    for key, value in fields.items():
        if not key.startswith("rope.") or key in _READ or key in read_by_theirs:
            continue
        if key not in _INFORMATION and value not in _NEUTRAL.get(key, ()):
            raise header.unread(f"{header.architecture}.{key}", value)
    parameters = getattr(config, "rope_parameters", None)
    if not parameters:
        _refuse_rope_without_place(header, read_by_theirs)
        return
    if "rope.freq_base" in read_by_theirs:
        _refuse_scaling(header, _scaling(header))
        return
    dims = _turned(config, header)
    scaling = _scaling(header)
    for kind, own in _by_kind(config, parameters).items():
        if kind == "sliding_attention":
            own["rope_theta"] = float(fields.get("rope.freq_base_swa", BASE))
            continue
        own["rope_theta"] = float(fields.get("rope.freq_base", BASE))
        if own.get("rope_type", "default") not in ("default", "linear", "longrope"):
            _refuse_scaling(header, scaling)  # a kind of its own, which has no factor
        else:
            _write(config, own, scaling, own["rope_theta"], dims)
    try:
        config.validate_rope()
    except AttributeError:  # another release
        pass
    except (ValueError, KeyError) as error:
        key = f"{header.architecture}.rope.scaling.type"
        raise UserError(
            f"{header.path.name}: {key} is {scaling.kind!r}, which transformers' "
            f"{config.model_type} does not turn by ({error}); give the model's own checkpoint"
        ) from None


def rotations(config: Any, header: GgufHeader) -> dict[str | None, Rotation]:
    """What llama.cpp turns heads by: of each kind of block, None where there is one kind."""
    fields, scaling = header.own_fields, _scaling(header)
    dims = _turned(config, header)
    found = {}
    for kind in _by_kind(config, config.rope_parameters):
        if kind == "sliding_attention":
            base = fields.get("rope.freq_base_swa", BASE)
            found[kind] = _rotation(base, dims, _Scaling("none", 1, 1, 1, 1, 1, None, None))
        else:
            found[kind] = _rotation(fields.get("rope.freq_base", BASE), dims, scaling)
    return found


def check_rotations(model: nn.Module, config: Any, header: GgufHeader) -> None:
    """Hold the frequencies that the model turns by against llama.cpp's.

    Raises:
        UserError: they differ.
    """
    parameters = getattr(config, "rope_parameters", None)
    own_kind = any(
        one.get("rope_type") not in ("default", "linear", "yarn", "longrope", "llama3")
        or "mrope_section" in one
        for one in _by_kind(config, parameters or {}).values()
    )
    if not parameters or own_kind:
        return
    expected = rotations(config, header)
    for path, module in model.named_modules():
        for kind, rotation in expected.items():
            lead = f"{kind}_" if kind else ""
            held = getattr(module, f"{lead}inv_freq", None)
            if held is None or held.is_meta:
                continue
            values = held.double().cpu().numpy().reshape(-1)
            scale = float(getattr(module, f"{lead}attention_scaling", 1.0))
            fits = values.shape == rotation.frequencies.shape and np.allclose(
                values, rotation.frequencies, rtol=1e-4, atol=0
            )
            if not (fits and math.isclose(scale, rotation.scale, rel_tol=1e-4)):
                raise UserError(
                    f"{header.path.name}: {path} turns heads by other frequencies than llama.cpp "
                    f"does by this file's {header.architecture}.rope keys; give the model's own "
                    "checkpoint"
                )


def _by_kind(config: Any, parameters: dict[str, Any]) -> dict[str | None, dict[str, Any]]:
    """The parameters of each kind of block, where kinds differ."""
    kinds = getattr(config, "layer_types", None) or ()
    nested = {kind: one for kind, one in parameters.items() if kind in kinds and one}
    return nested or {None: parameters}


def _turned(config: Any, header: GgufHeader) -> int:
    """How many values of a head are turned; set in the configuration where that has a place."""
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    dims = header.own_fields.get("rope.dimension_count", head)
    if not isinstance(dims, int) or not 0 < dims <= head:
        raise header.unread(f"{header.architecture}.rope.dimension_count", dims)
    for own in _by_kind(config, config.rope_parameters).values():
        if dims != head or "partial_rotary_factor" in own:
            own["partial_rotary_factor"] = dims / head
    return dims


def _scaling(header: GgufHeader) -> _Scaling:
    fields = header.own_fields
    key = f"{header.architecture}.rope.scaling.type"
    kind = fields.get("rope.scaling.type", "linear")
    if kind not in ("none", "linear", "yarn", "longrope"):
        raise header.unread(key, kind)
    factor = float(fields.get("rope.scaling.factor", fields.get("rope.scale_linear", 0))) or 1.0
    if kind == "none":
        factor = 1.0
    attention = float(fields.get("rope.scaling.attn_factor", 1.0))
    if kind == "yarn":
        attention *= float(fields.get("rope.scaling.yarn_attn_factor", 1.0))
        attention *= 0.1 * math.log(factor) + 1.0 if factor > 1 else 1.0
    context = fields.get("context_length", 0)
    factors = {
        name: header.read(name).reshape(-1).astype(float)
        for name in (FACTORS, SHORT, LONG)
        if name in header.tensors
    }
    if (SHORT in factors) != (LONG in factors):
        raise UserError(
            f"{header.path.name}: of {SHORT} and {LONG} it has one alone; convert the model anew"
        )
    return _Scaling(
        kind,
        factor,
        attention,
        int(fields.get("rope.scaling.original_context_length", context)),
        float(fields.get("rope.scaling.yarn_beta_fast", BETA_FAST)),
        float(fields.get("rope.scaling.yarn_beta_slow", BETA_SLOW)),
        factors.get(SHORT, factors.get(FACTORS)),
        factors.get(LONG, factors.get(FACTORS)),
    )


def _rotation(base: float, dims: int, scaling: _Scaling, long: bool = False) -> Rotation:
    """llama.cpp's frequencies: of short contexts where there are factors for long ones too."""
    turned = float(base) ** (-np.arange(0, dims, 2) / dims)
    factors = scaling.long if long else scaling.short
    if factors is not None:
        turned = turned / factors
    if scaling.kind != "yarn":
        return Rotation(turned / scaling.factor, scaling.attention)

    def border(turns: float) -> float:
        return dims * math.log(scaling.original / (turns * 2 * math.pi)) / (2 * math.log(base))

    low = max(0.0, math.floor(border(scaling.beta_fast)))
    high = min(dims - 1.0, math.ceil(border(scaling.beta_slow)))
    ramp = np.clip((np.arange(dims // 2) - low) / max(0.001, high - low), 0, 1)
    return Rotation(turned * ((1 - ramp) + ramp / scaling.factor), scaling.attention)


def _write(config: Any, own: dict[str, Any], scaling: _Scaling, base: float, dims: int) -> None:
    """Write a scaling as the rope parameters that transformers computes the same of."""
    keep = {k: v for k, v in own.items() if k in ("rope_theta", "partial_rotary_factor")}
    own.clear()
    own |= keep
    original = {"original_max_position_embeddings": scaling.original}
    if scaling.short is None and scaling.kind == "yarn":
        own |= original | {
            "rope_type": "yarn",
            "factor": scaling.factor,
            "beta_fast": scaling.beta_fast,
            "beta_slow": scaling.beta_slow,
            "attention_factor": scaling.attention,
        }
    elif scaling.short is None and scaling.attention == 1:
        kind = "default" if scaling.factor == 1 else "linear"
        own |= {"rope_type": kind} | ({"factor": scaling.factor} if kind == "linear" else {})
    elif _is_llama3(scaling, base, dims):
        low, high, context = _LLAMA3
        own |= {
            "rope_type": "llama3",
            "factor": float(round(scaling.short.max(), 4)),
            "low_freq_factor": low,
            "high_freq_factor": high,
            "original_max_position_embeddings": context,
        }
    else:  # any frequencies at all can be said as factors of the unscaled ones
        plain = float(base) ** (-np.arange(0, dims, 2) / dims)
        short, long = (
            (plain / _rotation(base, dims, scaling, long).frequencies).tolist()
            for long in (False, True)
        )
        own |= original | {
            "rope_type": "longrope",
            "short_factor": short,
            "long_factor": long,
            "attention_factor": scaling.attention,
        }
    if "original_max_position_embeddings" in own and hasattr(
        config, "original_max_position_embeddings"
    ):
        config.original_max_position_embeddings = own["original_max_position_embeddings"]


def _is_llama3(scaling: _Scaling, base: float, dims: int) -> bool:
    """Whether the factors are those of Llama 3's smoothing."""
    plain = scaling.factor == 1 and scaling.attention == 1 and scaling.kind != "yarn"
    if not plain or scaling.short is not scaling.long:
        return False
    low, high, context = _LLAMA3
    factor = scaling.short.max()
    turns = context * float(base) ** (-np.arange(0, dims, 2) / dims) / (2 * math.pi)
    smooth = np.clip((turns - low) / (high - low), 0, 1)
    return np.allclose(scaling.short, 1 / ((1 - smooth) / factor + smooth), rtol=1e-4)


def _refuse_rope_without_place(header: GgufHeader, read_by_theirs: Collection[str]) -> None:
    """Refuse scaled rotary embeddings of a configuration that has none."""
    _refuse_scaling(header, _scaling(header))
    for key in ("rope.freq_base", "rope.freq_base_swa"):
        value = header.own_fields.get(key)
        if value is not None and key not in read_by_theirs:
            raise header.unread(f"{header.architecture}.{key}", value)


def _refuse_scaling(header: GgufHeader, scaling: _Scaling) -> None:
    """Refuse any scaling."""
    if scaling.short is not None:
        name = SHORT if SHORT in header.tensors else FACTORS
        raise UserError(
            f"{header.path.name}: the tensor {name} scales rotary embeddings, which transformers "
            f"does not do for {header.architecture}; give the model's own checkpoint"
        )
    if scaling.factor != 1 or scaling.attention != 1:
        key = "factor" if scaling.factor != 1 else "attn_factor"
        value = scaling.factor if scaling.factor != 1 else scaling.attention
        raise header.unread(f"{header.architecture}.rope.scaling.{key}", value)
