"""Tensors in one file that anything can read: the safetensors format, by its specification.

Eight bytes with the header's length N (little-endian), N bytes of JSON (name → dtype, shape, place
of the bytes), then the bytes of all tensors without a gap. That is short enough to need no
dependency, and unlike a pickle it cannot run code when it is read.
"""

import json
import struct
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

_DTYPES = {
    torch.float32: "F32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.float64: "F64",
    torch.int64: "I64",
    torch.uint8: "U8",
}
_BY_NAME = {name: dtype for dtype, name in _DTYPES.items()}
_ALIGNMENT = 8
"""The header is padded with spaces, so that the first tensor begins on a multiple of this."""


def encode_tensors(tensors: dict[str, Tensor], metadata: dict[str, str]) -> bytes:
    """Return the file's bytes, the same for the same tensors and metadata.

    Raises:
        KeyError: a tensor's dtype is none of those in `_DTYPES`.
    """
    return b"".join(tensor_chunks(tensors, metadata))


def tensor_chunks(
    tensors: dict[str, Tensor], metadata: dict[str, str]
) -> Iterator[bytes | memoryview]:
    """Yield the file's bytes: its header, then each tensor's own memory, in the order of names.

    Nothing is copied of a tensor on the CPU that is contiguous.

    Raises:
        KeyError: as `encode_tensors`.
    """
    header: dict[str, object] = {"__metadata__": dict(sorted(metadata.items()))}
    end = 0
    for name, tensor in sorted(tensors.items()):
        size = tensor.numel() * tensor.element_size()
        header[name] = {
            "dtype": _DTYPES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [end, end + size],
        }
        end += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    yield struct.pack("<Q", len(text)) + text
    for _, tensor in sorted(tensors.items()):
        # Through uint8, since numpy has no bf16.
        flat = tensor.detach().cpu().contiguous().flatten().view(torch.uint8)
        yield flat.numpy().data


def decode_tensors(data: Any) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors of a file and its metadata; the tensors share the memory of `data`.

    Args:
        data: a writable buffer (`bytearray`, a mapped file) of bytes that are known to be good.
    """
    view = memoryview(data).cast("B")
    (length,) = struct.unpack("<Q", view[:8])
    header: dict[str, Any] = json.loads(bytes(view[8 : 8 + length]))
    metadata: dict[str, str] = header.pop("__metadata__")
    body = np.frombuffer(view, np.uint8)[8 + length :]
    tensors = {}
    for name, entry in header.items():
        start, end = entry["data_offsets"]
        flat = torch.from_numpy(body[start:end])
        tensors[name] = _typed(flat, _BY_NAME[entry["dtype"]]).view(entry["shape"])
    return tensors, metadata


def _typed(flat: Tensor, dtype: torch.dtype) -> Tensor:
    """Return bytes as values of `dtype`; a tensor that begins at an odd place is copied first."""
    aligned = flat.data_ptr() % dtype.itemsize == 0
    return (flat if aligned else flat.clone()).view(dtype)
