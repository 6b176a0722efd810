"""CUDA graphs for models so small that starting the kernels takes longer than running them.

The kernels of a batch's forward and backward pass are recorded once for each size of batch and then
started together. They are the same kernels on the same memory, so the numbers are those of the model as
it is; only the time of the host goes.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.func import functional_call

from fairtune_hf.training.fast_forward import find_vit

# What an H200 computes in the 0.7 ms in which a host starts the forward pass of a block.
_FORWARD_OF_A_BLOCK = 3.0e11
# Batches of a size that run as they are before it is recorded: recording costs about one more, and
# libraries that set themselves up at a first call must have done so.
SEEN_BEFORE = 3


class Output(NamedTuple):
    """What a replayed model returns."""

    logits: Tensor


class GraphedModel:
    """Stands in for a model during a training, and replays batches of the sizes it has seen.

    What was recorded is forgotten when a parameter moves or starts or stops to be trained.

    Args:
        model: A ViT classifier on a GPU, as wrapped by the Trainer, that is called with `pixel_values`;
            not compiled. Every forward pass that needs gradients must be followed by its backward pass
            before the next, and gradients must not be added up over several.
        forward_operations: Floating-point operations of one picture's forward pass.
    """

    def __init__(self, model: nn.Module, forward_operations: float) -> None:
        self.model = model
        vit = find_vit(model)
        blocks = 1 if vit is None else len(vit.vit.layers)
        self._most_rows = _FORWARD_OF_A_BLOCK * blocks / forward_operations
        self._parameters = list(model.parameters())
        self._state: list[tuple[int, bool]] = []
        self._seen: dict[tuple[object, ...], int] = {}
        self.graphs: dict[tuple[object, ...], _Graphs] = {}
        self._pool: Any = None
        self._failed = False

    @property
    def training(self) -> bool:
        """Whether the model is in training mode."""
        return self.model.training

    def __call__(self, pixel_values: Tensor) -> Any:
        """Run the model, or replay it; the output has `logits`, `(n, 2)`, either way."""
        state = [(p.data_ptr(), p.requires_grad) for p in self._parameters]
        if state != self._state:
            self._state = state
            self._forget()
        key = (tuple(pixel_values.shape), self.model.training, torch.is_grad_enabled())
        if key not in self.graphs:
            self._seen[key] = self._seen.get(key, 0) + 1
            wanted = len(pixel_values) <= self._most_rows and self._seen[key] > SEEN_BEFORE
            if self._failed or not (wanted and self._record(key, pixel_values)):
                return self.model(pixel_values=pixel_values)
        return Output(self.graphs[key].run(pixel_values))

    def _forget(self) -> None:
        self.graphs.clear()
        self._seen.clear()
        self._pool = None

    def _record(self, key: tuple[object, ...], pixel_values: Tensor) -> bool:
        """Record a size of batch; a model that cannot be recorded runs as it is from then on."""
        try:
            with _random_state_kept(pixel_values.device):
                self._pool = self._pool or torch.cuda.graph_pool_handle()
                self.graphs[key] = _Graphs(self.model, pixel_values, self._pool)
        except RuntimeError as error:  # out of memory is one
            self._failed = True
            self._forget()
            warnings.warn(
                f"The training steps could not be recorded as CUDA graphs ({str(error).splitlines()[0]}); "
                "they run as they are, which is slower for a small model and gives the same numbers.",
                stacklevel=2,
            )
        return not self._failed


class _Graphs:
    """The recorded forward pass of one size of batch, and the backward pass if gradients are wanted.

    All sizes share one pool of memory: a batch is done with before the next one begins, and what
    outlives it (logits, gradients) is held.
    """

    def __init__(self, model: nn.Module, pixel_values: Tensor, pool: Any) -> None:
        self._pixels = pixel_values.clone()
        self._forward = torch.cuda.CUDAGraph()
        self._backward: torch.cuda.CUDAGraph | None = None
        trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self._parameters = list(trained.values())
        # The same memory under new tensors: what autograd keeps of the parameters may be of a step before,
        # and tied to the stream that ran it.
        leaves = {name: p.detach().requires_grad_() for name, p in trained.items()}
        # Other threads may use the device meanwhile.
        settings: dict[str, Any] = {"pool": pool, "capture_error_mode": "thread_local"}
        with torch.cuda.graph(self._forward, **settings):
            logits = functional_call(model, leaves, kwargs={"pixel_values": self._pixels}).logits
        self._logits = logits.detach()
        if not logits.requires_grad:
            return
        self._gradient = torch.empty_like(self._logits)
        self._backward = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._backward, **settings):
            self._gradients = torch.autograd.grad(
                logits, list(leaves.values()), self._gradient, allow_unused=True
            )

    def run(self, pixel_values: Tensor) -> Tensor:
        """Return the logits of a batch of the recorded size."""
        self._pixels.copy_(pixel_values)
        if self._backward is None:
            return self.replay_forward()
        replayed: Tensor = _Replay.apply(self, *self._parameters)  # type: ignore[no-untyped-call]
        return replayed

    def replay_forward(self) -> Tensor:
        """Return the logits in memory of their own, as the next replay overwrites the graph's."""
        self._forward.replay()
        return self._logits.clone()

    def replay_backward(self, gradient: Tensor) -> list[Tensor | None]:
        """Return the parameters' gradients, which the next replay overwrites."""
        assert self._backward is not None
        self._gradient.copy_(gradient)
        self._backward.replay()
        return [None if found is None else found.detach() for found in self._gradients]


@contextmanager
def _random_state_kept(device: torch.device) -> Iterator[None]:
    """Give the device its random numbers back after a recording that failed, which leaves them locked."""
    generator = torch.cuda.default_generators[device.index]
    before = generator.clone_state()
    try:
        yield
    except BaseException:
        generator.graphsafe_set_state(before)
        raise


class _Replay(torch.autograd.Function):
    """The recorded passes as one step of the autograd graph."""

    @staticmethod
    def forward(ctx: Any, graphs: _Graphs, *parameters: Tensor) -> Tensor:
        """Replay the forward pass."""
        ctx.graphs = graphs
        return graphs.replay_forward()

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Replay the backward pass."""
        return (None, *ctx.graphs.replay_backward(gradient))
