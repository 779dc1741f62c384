# Copyright 2026 The diffusers-vilearn Authors
# SPDX-License-Identifier: Apache-2.0
"""An accelerator that the CPU plays: its tensors refuse to meet those of the CPU, as CUDA's do.

Importing this makes the device type `simulated`, for this process and for good. Its tensors wrap CPU tensors, which do
the work. An operation is refused if it mixes both kinds, numbers and a few that CUDA allows aside, or if it draws with
a generator of the CPU. Autocast does nothing, and storages, streams and speed are not simulated.
"""

import torch
from torch.library import Library, fallthrough_kernel
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

NAME = "simulated"
aten = torch.ops.aten
# These lead from one device to the other. Of indexing, only what is indexed must be of the accelerator.
COPIES, CONVERSIONS = {aten.copy_.default, aten._copy_from.default}, {aten._to_copy.default}
INDEXING = {aten.index.Tensor, aten.index_put.default, aten.index_put_.default, aten._index_put_impl_.default}


class _Backend:
    """What torch asks the module of a device type."""

    is_available = is_initialized = staticmethod(lambda: True)
    _is_in_bad_fork = staticmethod(lambda: False)
    device_count = staticmethod(lambda: 1)
    current_device = staticmethod(lambda: 0)
    get_rng_state = staticmethod(lambda device=None: torch.get_rng_state())
    set_rng_state = manual_seed_all = synchronize = staticmethod(lambda *_, **__: None)
    empty_cache = staticmethod(lambda: None)
    get_amp_supported_dtype = staticmethod(lambda: [torch.bfloat16, torch.float16])


class SimulatedTensor(torch.Tensor):
    """A tensor of the accelerator around the `inner` one of the CPU."""

    @staticmethod
    def __new__(cls, inner: torch.Tensor):
        tensor = torch.Tensor._make_wrapper_subclass(
            cls,
            inner.size(),
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            layout=inner.layout,
            device=torch.device(NAME, 0),
        )
        tensor.inner = inner
        return tensor

    def __init__(self, inner: torch.Tensor):
        pass

    def __reduce_ex__(self, protocol):
        return self.inner.__reduce_ex__(protocol)

    def tolist(self):
        return self.inner.tolist()

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        return _run(function, args, kwargs or {})


class Simulated(TorchDispatchMode):
    """Makes tensors where `device` asks for the accelerator."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        return _run(function, args, kwargs or {})


def _run(function, args, kwargs):
    device = kwargs.get("device") and torch.device(kwargs["device"]).type
    values = pytree.tree_leaves((args, kwargs))
    if device != NAME and not any(isinstance(value, SimulatedTensor) for value in values):
        return function(*args, **kwargs)
    _check(function, args, values)
    inner_args, inner_kwargs = pytree.tree_map_only(SimulatedTensor, lambda tensor: tensor.inner, (args, kwargs))
    if device == NAME:
        inner_kwargs["device"] = torch.device("cpu")
    result = function(*inner_args, **inner_kwargs)
    if device == "cpu":
        return result
    if function in COPIES:
        return args[0]
    result = pytree.tree_map_only(torch.Tensor, SimulatedTensor, result)
    return return_and_correct_aliasing(function, args, kwargs, result)


def _check(function, args, values) -> None:
    """Raise the error that CUDA would."""
    if any(isinstance(value, torch.Generator) for value in values):
        raise RuntimeError(f"{function}: expected a generator of the accelerator, but got one of the CPU.")
    if function in COPIES | CONVERSIONS:
        return
    tensors = [value for value in (args[:1] if function in INDEXING else values) if isinstance(value, torch.Tensor)]
    strangers = [tuple(tensor.shape) for tensor in tensors if not isinstance(tensor, SimulatedTensor) and tensor.ndim]
    if strangers:
        raise RuntimeError(f"{function}: expected all tensors on one device, but those of {strangers} are on the CPU.")


def _copy_from(source, destination, non_blocking=False):
    inner = [value.inner if isinstance(value, SimulatedTensor) else value for value in (source, destination)]
    inner[1].copy_(inner[0])
    return destination


def _empty(size, *, dtype=None, layout=None, device=None, pin_memory=None, memory_format=torch.contiguous_format):
    return SimulatedTensor(torch.empty(size, dtype=dtype, memory_format=memory_format or torch.contiguous_format))


def _empty_strided(size, stride, *, dtype=None, layout=None, device=None, pin_memory=None):
    return SimulatedTensor(torch.empty_strided(size, stride, dtype=dtype))


def _state_dict(self, *args, **kwargs):
    """On the CPU: files are written from storages, which simulated tensors do not have."""
    state = _state_dict_of_module(self, *args, **kwargs)
    for name, value in state.items():
        state[name] = value.cpu() if isinstance(value, SimulatedTensor) else value
    return state


_setup_privateuseone_for_python_backend(NAME, _Backend())
torch.__future__.set_swap_module_params_on_conversion(True)
_state_dict_of_module, torch.nn.Module.state_dict = torch.nn.Module.state_dict, _state_dict
# What autograd calls in threads of its own, where no mode is.
_KERNELS, _AUTOCAST = Library("aten", "IMPL"), Library("_", "IMPL", "AutocastPrivateUse1")
for _name, _kernel in (("empty.memory_format", _empty), ("empty_strided", _empty_strided), ("_copy_from", _copy_from)):
    _KERNELS.impl(_name, _kernel, "PrivateUse1")
_AUTOCAST.fallback(fallthrough_kernel)
