"""Exchange the down-sampling layers of a finished network for low bands of the wavelet transform.

Why
    Pooling and strides drop samples without a low-pass filter first, so noise and other high frequencies fold into low
    ones. The low band is that filter and has no parameters: counts, names and shapes of the weights stay, and every
    feature map keeps its size.

What stands where (the published replacement of WaveCNets)
    =============================================  ==================================================================
    layer                                          becomes
    =============================================  ==================================================================
    max pool, average pool, stride 2, 4, ...       low band
    convolution, stride 2 or 4                     the same convolution at stride 1, then the low band
    convolution with a kernel of one sample        low band, then the convolution at stride 1 (the same, and cheaper)
    =============================================  ==================================================================

    Under ``position="after_act"`` (as published) the low band of a convolution stands behind the normalisation and
    activation that follow it, where the order of layers can be seen: inside ``nn.Sequential``, as in all of MONAI's
    ``Convolution`` blocks. Elsewhere it stands right behind the convolution; a block that calls its layers by name
    can be spelled out by the rules ``unstride`` and ``low_before``.

Rules
    A mapping from layers to actions. A key is a kind, ``max_pool``, ``average_pool`` or ``conv``, or a pattern of layer
    names as in ``named_modules()`` (``"layer1.*"``, shell wildcards). Where several fit, the last one counts; a layer
    without a rule has ``low``. Actions:

    ``low``         as in the table above
    ``keep``        leave the layer alone
    ``unstride``    set the stride of a convolution to 1; the low band comes with a later layer
    ``low_before``  put the low band of stride 2 before a convolution, which stays as it is

    The published residual networks keep the first convolution strided and filter before the last convolution
    of a block::

        replace_downsampling(net, "ch3.3", {
            "conv1": "keep", "layer?.0.conv1": "unstride", "layer?.0.conv2": "low_before",
        }, ll_gain="orthonormal", mode="zero_truncated")

Left alone, with the reason in the report
    Pools that are adaptive (their stride is known at run time only), that hand out positions for unpooling, that are
    dilated, whose kernel spans an axis that they do not halve, or whose result is not half the size, rounded up or
    down; strides that are no power of two; convolutions with a stride above 4 (patch embeddings, which at stride 1
    would cost hundreds of times as much); subclasses, whose forward may do anything. Pooling that a network calls as a
    function is no layer and cannot be seen.

References
    Li et al., WaveCNet (2021), doi:10.1109/TIP.2021.3101395.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import nn

from medwave.core.errors import InputError
from medwave.wavelets.downsampling import CONVS, KINDS, POOLS, describe, halves, kind, obstacle, rounding, strides
from medwave.wavelets.low_band_conv import with_low_band
from medwave.wavelets.resampling import WaveletPool

ACTIONS = ("low", "keep", "unstride", "low_before")
"""What a rule can do with a layer."""

POSITIONS = ("after_act", "after_conv")
"""Where the low band of a convolution stands: behind normalisation and activation, or right behind it."""

_FOLLOWERS = (
    nn.modules.batchnorm._BatchNorm,
    nn.modules.instancenorm._InstanceNorm,
    nn.modules.dropout._DropoutNd,
    *(nn.GroupNorm, nn.Identity, nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.ELU, nn.SELU, nn.CELU, nn.GELU),
    *(nn.SiLU, nn.Mish, nn.Hardswish, nn.Hardtanh, nn.Sigmoid, nn.Tanh, nn.Softplus),
)


class Change(NamedTuple):
    """One layer of the report.

    Attributes:
        name: dotted name of the layer in the network.
        layer: what stood there.
        note: what was done, or why nothing was.
    """

    name: str
    layer: str
    note: str


class Replacements(NamedTuple):
    """What :func:`replace_downsampling` did; ``print`` shows it as a list.

    Attributes:
        replaced: layers that were exchanged.
        left: down-sampling layers that were not, with the reason.
    """

    replaced: tuple[Change, ...]
    left: tuple[Change, ...]

    def __str__(self) -> str:
        """One line per layer."""
        lines = [f"{len(self.replaced)} replaced, {len(self.left)} left alone"]
        for title, changes in (("replaced", self.replaced), ("left", self.left)):
            lines += [f"  {title:8}  {c.name}: {c.layer}; {c.note}" for c in changes]
        return "\n".join(lines)


def replace_downsampling(
    model: nn.Module,
    wavelet: str = "haar",
    rules: Mapping[str, str] | None = None,
    *,
    position: str = "after_act",
    mode: str = "periodization",
    filter_roles: str = "reference",
    ll_gain: str = "unit",
) -> Replacements:
    """Exchange, in place, the layers of a network that drop samples for low bands; see the module for what and how.

    Args:
        model: any network of torch layers. It is changed; ``copy.deepcopy`` it to keep the old one.
        wavelet: a discrete wavelet of PyWavelets, or ``chX.Y`` for ``biorX.Y``.
        rules: layer kinds or name patterns -> actions; by default every layer that can be replaced is.
        position: ``after_act`` or ``after_conv``, see the module.
        mode: ``periodization``, or ``zero_truncated`` as published.
        filter_roles: ``reference`` (the published filters) or ``pywt``.
        ll_gain: ``unit`` (a constant keeps its value, as in pooling; trained weights and networks without
            normalisation stay in range), or ``orthonormal`` as published.

    Returns:
        What was replaced and what was left alone, in the order of the network.

    Raises:
        InputError: for an unknown name, a rule that fits no layer, a rule that asks one layer by its full name for what
            cannot be done with it, or a network that is itself a down-sampling layer.

    >>> net = nn.Sequential(nn.Conv2d(1, 8, 3, stride=2, padding=1), nn.ReLU(), nn.MaxPool2d(2))
    >>> print(replace_downsampling(net, "haar"))
    2 replaced, 0 left alone
      replaced  0: Conv2d stride 2; stride 1, low band after 1
      replaced  2: MaxPool2d stride 2; low band
    """
    if position not in POSITIONS:
        raise InputError(f"position is one of {', '.join(POSITIONS)}, got {position!r}")
    bank: dict[str, Any] = {"mode": mode, "filter_roles": filter_roles, "ll_gain": ll_gain}
    WaveletPool(wavelet, 1, **bank)  # checks the names
    plan = _plan(model, rules or {})
    rewriter = _Rewriter(model, wavelet, bank, position)
    replaced, left = [], []
    for name, layer, action, reason in plan:
        before = describe(layer)
        if reason:
            left.append(Change(name, before, reason))
        elif action == "keep":
            left.append(Change(name, before, "kept by a rule"))
        else:
            replaced.append(Change(name, before, rewriter.apply(name, layer, action)))
    return Replacements(tuple(replaced), tuple(left))


class _Task(NamedTuple):
    """A layer, the action that is due, and the reason why it cannot be done."""

    name: str
    layer: nn.Module
    action: str
    reason: str


def _plan(model: nn.Module, rules: Mapping[str, str]) -> list[_Task]:
    """All that is to do, checked before anything is changed."""
    for key, action in rules.items():
        if action not in ACTIONS:
            raise InputError(f"a rule is one of {', '.join(ACTIONS)}, got {action!r} for {key!r}")
    used: set[str] = set()
    tasks = []
    names = []
    for name, layer in model.named_modules():
        if halves(layer) or type(layer) in CONVS:
            key, action = _rule(name, layer, rules)
            if not halves(layer) and action != "low_before":
                continue
            names.append(name)
            reason = "" if action == "keep" else obstacle(layer, action)
            if name == "":
                raise InputError(f"the network is itself a layer, {describe(layer)}: put it into nn.Sequential first")
            if reason and key == name:
                raise InputError(f"rule {key!r}: {action!r} cannot be done with {describe(layer)}: {reason}")
            used.update(k for k in rules if _fits(k, name, layer))
            tasks.append(_Task(name, layer, action, reason))
    for key in rules:
        if key not in used:
            known = ", ".join(names) or "none"
            raise InputError(f"rule {key!r} fits no layer that changes the resolution; this network has: {known}")
    return tasks


def _rule(name: str, layer: nn.Module, rules: Mapping[str, str]) -> tuple[str, str]:
    """Key and action of the last rule that fits."""
    found = ("", "low")
    for key, action in rules.items():
        if _fits(key, name, layer):
            found = (key, action)
    return found


def _fits(key: str, name: str, layer: nn.Module) -> bool:
    return key == kind(layer) if key in KINDS else fnmatch.fnmatchcase(name, key)


class _Rewriter:
    """Carries out one task after the other on a network."""

    def __init__(self, model: nn.Module, wavelet: str, bank: dict[str, Any], position: str) -> None:
        self.model, self.wavelet, self.bank, self.position = model, wavelet, bank, position

    def apply(self, name: str, layer: Any, action: str) -> str:
        """Change a layer; returns what stands there now."""
        if type(layer) in POOLS:
            self._exchange(layer, self._pool(strides(layer), layer, rounding(layer)))
            return "low band"
        if action == "low_before":
            with_low_band(layer, before=self._pool((2,) * len(layer.kernel_size), layer))
            return "low band before it"
        stride = layer.stride
        layer.stride = (1,) * len(stride)
        if action == "unstride":
            return "stride 1"
        pool = self._pool(stride, layer)
        if set(layer.kernel_size) == {1} and layer.padding in ("valid", (0,) * len(stride)):
            with_low_band(layer, before=pool)
            return "low band, then stride 1"
        behind = self._behind_activation(layer, pool) if self.position == "after_act" else ""
        if behind:
            return f"stride 1, low band after {name.rpartition('.')[0] + '.' * ('.' in name)}{behind}"
        with_low_band(layer, after=pool)
        return "stride 1, low band after it"

    def _pool(self, stride: tuple[int, ...], layer: nn.Module, odd: str = "up") -> WaveletPool:
        pool = WaveletPool(self.wavelet, len(stride), stride=stride, odd=odd, **self.bank)
        pool.train(layer.training)
        return pool

    def _exchange(self, old: nn.Module, new: nn.Module) -> None:
        """Put a module wherever another one is registered."""
        for parent in self.model.modules():
            for key, child in parent._modules.items():
                if child is old:
                    parent._modules[key] = new

    def _behind_activation(self, conv: nn.Module, pool: WaveletPool) -> str:
        """Put a low band behind what follows a convolution in its ``nn.Sequential``; returns the key it stands behind.

        It is appended to the block, or shares the place of a last layer without weights, so that no weight gets
        another name. Nothing is done, and nothing returned, where that is not possible.
        """
        homes = [(p, k) for p in self.model.modules() for k, child in p._modules.items() if child is conv]
        block, place = homes[0]
        if len(homes) > 1 or type(block).forward is not nn.Sequential.forward:
            return ""
        keys = list(block._modules)
        last = ""
        for key in keys[keys.index(place) + 1 :]:
            if not _keeps_size(block.get_submodule(key)):
                break
            last = key
        if not last:
            return ""
        if last == keys[-1]:
            block.add_module("low_band", pool)
        elif not block.get_submodule(last).state_dict():
            block._modules[last] = nn.Sequential(block.get_submodule(last), pool)
        else:
            return ""
        return last


def _keeps_size(layer: nn.Module) -> bool:
    """Whether a layer acts on each sample alone, or normalises: what may stand between convolution and low band."""
    if isinstance(layer, nn.Sequential) and type(layer).forward is nn.Sequential.forward:
        return all(_keeps_size(child) for child in layer)
    return isinstance(layer, _FOLLOWERS)
