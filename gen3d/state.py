"""State: the named tensors that are everything an optimisation knows between two steps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping

from torch import Tensor

from diffusion.finite import NonFiniteError, is_finite


class State(MutableMapping[str, Tensor]):
    """Named tensors, grouped by prefixes: `volume/grid`, `views/images`, `adam/volume/grid/exp_avg`.

    Stages keep everything that a later step reads in here and nothing in themselves, so that a state written to disk
    and read back continues bit for bit. Two names never share memory.
    """

    def __init__(self, tensors: Mapping[str, Tensor] | None = None) -> None:
        self._tensors: dict[str, Tensor] = {}
        self._checked: dict[str, tuple[int, int]] = {}
        for name, tensor in (tensors or {}).items():
            self[name] = tensor

    def __getitem__(self, name: str) -> Tensor:
        try:
            return self._tensors[name]
        except KeyError:
            known = ", ".join(sorted(self._tensors)) or "nothing yet"
            raise KeyError(f"the state holds no tensor {name!r}; it holds {known}") from None

    def __setitem__(self, name: str, tensor: Tensor) -> None:
        if not isinstance(tensor, Tensor):
            raise TypeError(f"a state holds tensors; {name!r} is a {type(tensor).__name__}")
        # A restored tensor is contiguous; the order of sums must not depend on having been restored.
        self._tensors[name] = tensor.contiguous()
        self._checked.pop(name, None)

    def __delitem__(self, name: str) -> None:
        del self._tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    def group(self, prefix: str) -> dict[str, Tensor]:
        """Tensors named `prefix/...`, without the prefix."""
        return {k[len(prefix) + 1 :]: t for k, t in self._tensors.items() if k.startswith(prefix + "/")}

    def set_group(self, prefix: str, tensors: Mapping[str, Tensor]) -> None:
        """Replace all of `prefix/...` by `tensors`."""
        self.drop(prefix)
        for name, tensor in tensors.items():
            self[f"{prefix}/{name}"] = tensor

    def drop(self, prefix: str) -> None:
        """Forget all of `prefix/...`."""
        for name in [k for k in self._tensors if k.startswith(prefix + "/")]:
            del self._tensors[name]

    def scope(self, prefix: str) -> Scope:
        """A live view of `prefix/...`, without the prefix."""
        return Scope(self, prefix)

    def tensors(self) -> dict[str, Tensor]:
        """Independent copies of all tensors, ready to be written."""
        return {name: tensor.detach().clone() for name, tensor in self._tensors.items()}

    @staticmethod
    def from_tensors(tensors: Mapping[str, Tensor]) -> State:
        return State({name: tensor.detach().clone() for name, tensor in tensors.items()})

    def check_finite(self) -> None:
        """Raise `NonFiniteError` naming the first tensor with NaN or infinity; unchanged tensors are not reread."""
        for name, tensor in self._tensors.items():
            if not tensor.is_floating_point():
                continue
            version = (tensor.data_ptr(), tensor._version)
            if self._checked.get(name) == version:
                continue
            if not is_finite(tensor):
                raise NonFiniteError(f"tensor {name!r} holds NaN or infinity")
            self._checked[name] = version


class Scope(MutableMapping[str, Tensor]):
    """The part of a state under a prefix, for those who own it and need not know what else there is."""

    def __init__(self, state: State, prefix: str) -> None:
        self._state, self._prefix = state, prefix

    def __getitem__(self, name: str) -> Tensor:
        return self._state[f"{self._prefix}/{name}"]

    def __setitem__(self, name: str, tensor: Tensor) -> None:
        self._state[f"{self._prefix}/{name}"] = tensor

    def __delitem__(self, name: str) -> None:
        del self._state[f"{self._prefix}/{name}"]

    def __iter__(self) -> Iterator[str]:
        return iter(self._state.group(self._prefix))

    def __len__(self) -> int:
        return len(self._state.group(self._prefix))
