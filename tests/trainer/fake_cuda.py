"""`python -m tests.trainer.fake_cuda`: training steps on a GPU that is not there (no test itself).

torch's `FakeTensorMode` computes shapes, types and devices and no values, so it can follow a step
on `cuda:0` without a card: a tensor that was left on the CPU, a product in the wrong type and every
number that the host reads from the device show. A torch built without CUDA lacks two things for it.
There is no device guard for CUDA: here it gets that of the meta device, whose operations do
nothing. And autograd's engine asks for a stream: compiled autograd, run as plain Python, does not.
Both change the whole process, which is why this is one of its own.

Not seen: FlexAttention's backward pass, `nats_of` (its shapes depend on values), whatever needs a
stream (the loader's ring, copies for checkpoints), NCCL, and kernels themselves. Attention runs in
its textbook form, which multiplies in fp32.

Prints a JSON object: case → what was found, or `error`.
"""

import ctypes
import json
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import torch
import torch.cuda.amp.common
from torch import Tensor
from torch._dynamo import compiled_autograd
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.nn.attention.flex_attention import flex_attention
from torch.utils._python_dispatch import TorchDispatchMode

from tests.trainer.conftest import TINY, VOCABULARY
from trainer import documents
from trainer.config import ModelConfig, TrainConfig
from trainer.device import autocast
from trainer.model import Transformer
from trainer.optim import build_optimizers
from trainer.run import Run
from trainer.speed import Peak

GPU = torch.device("cuda", 0)
CUDA, META = 1, 14
"""Places of the two in `c10::DeviceType`."""

EOS = 2
WIDE = ModelConfig(dim=64, layers=2, heads=4)
CASES: dict[str, dict[str, Any]] = {
    "adamw": {"optimizer": "adamw"},
    "fp32": {"optimizer": "adamw", "precision": "fp32"},
    "muon": {"microbatches": 2, "recompute": True},
    "llama": {
        "model": msgspec.structs.replace(WIDE, kv_heads=2, activation="swiglu", tied=True),
    },
}


class Watched(TorchDispatchMode):
    """Counts products by the type of what is multiplied."""

    PRODUCTS = ("mm", "addmm", "addmm_", "bmm", "baddbmm", "linear")

    def __init__(self) -> None:
        super().__init__()
        self.products: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.overloadpacket.__name__ in self.PRODUCTS:
            self.products[str(args[0].dtype)] += 1
        return func(*args, **(kwargs or {}))


class Batches:
    """The same batch for ever, as a loader gives it on a GPU: two views of one tensor."""

    def __init__(self, config: TrainConfig) -> None:
        shape = config.batch_size, config.sequence_length + 1
        self.tokens = torch.zeros(shape, dtype=torch.int64, device=GPU)

    def __next__(self) -> tuple[Tensor, Tensor]:
        return self.tokens[:, :-1], self.tokens[:, 1:]


def pretend() -> list[int]:
    """Make this process believe in a GPU; returns the sizes of what the host reads from then on."""
    library = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libc10.so"))
    name = "_ZN3c104impl26device_guard_impl_registryE"
    registry = (ctypes.c_void_p * (META + 1)).in_dll(library, name)
    registry[CUDA] = registry[CUDA] or registry[META]
    torch.cuda.amp.common.amp_definitely_not_available = lambda: False
    torch.cuda.is_bf16_supported = lambda *_, **__: True
    reads: list[int] = []

    def read(tensor: Tensor) -> list[float]:
        reads.append(tensor.numel())
        return [1.0] * tensor.numel()

    FakeTensor.tolist = read
    return reads


def take_step(config: TrainConfig, reads: list[int], *, misplaced: bool = False) -> dict[str, Any]:
    """Take a step of a run on the GPU; return what was seen."""
    with GPU:
        model = Transformer(config.model, VOCABULARY, config.sequence_length)
    model.recompute = config.recompute
    model.initialise(1)
    if misplaced:
        model.cos_TK = torch.empty(model.cos_TK.shape)
    unused: Any = None
    run = Run(
        config=config,
        folder=Path("none"),
        key="none",
        device=GPU,
        model=model,
        optimizers=build_optimizers(model, config),
        loader=Batches(config),  # type: ignore[arg-type]
        saver=unused,
        identity={},
        peak=Peak(1e12, "none"),
    )
    reads.clear()
    with Watched() as watched, compiled_autograd._enable(lambda module: module):
        run.train_step()
    with torch.no_grad(), autocast(config, GPU):
        hidden = model.hidden(next(Batches(config))[0])
    states = [value for o in run.optimizers for s in o.state.values() for value in s.values()]
    weights = list(model.parameters())
    return {
        "reads": list(reads),
        "products": dict(watched.products),
        "hidden": str(hidden.device),
        "devices": sorted({str(t.device) for t in [*weights, *states]}),
        "dtypes": sorted({str(t.dtype) for t in [*weights, *states]}),
        "moments": len(states),
    }


def see_masks(config: TrainConfig) -> dict[str, Any]:
    """Make the mask of a batch, and a forward pass with it.

    FlexAttention is not compiled, for which there would have to be a card.
    """
    documents._flex = lambda **_: flex_attention  # type: ignore[assignment]
    with GPU:
        model = Transformer(config.model, VOCABULARY, config.sequence_length, eos=EOS)
    tokens, _ = next(Batches(config))
    mask = documents.document_mask(tokens, EOS, config.model.head_dim)
    with torch.no_grad():
        return {"mask": type(mask).__name__, "hidden": str(model.hidden(tokens).device)}


def main() -> None:
    """Print what is seen in every case."""
    reads = pretend()
    base = msgspec.structs.replace(TINY, model=WIDE)
    found: dict[str, Any] = {}
    work: dict[str, Any] = {
        name: lambda changes=changes: take_step(msgspec.structs.replace(base, **changes), reads)
        for name, changes in CASES.items()
    }
    work["misplaced"] = lambda: take_step(base, reads, misplaced=True)
    work["masks"] = lambda: see_masks(base)
    narrow = msgspec.structs.replace(base, model=msgspec.structs.replace(WIDE, heads=8))
    work["narrow masks"] = lambda: see_masks(narrow)
    for name, case in work.items():
        try:
            with FakeTensorMode():
                found[name] = case()
        except Exception as error:
            found[name] = {"error": f"{type(error).__name__}: {error}"[:2000]}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
