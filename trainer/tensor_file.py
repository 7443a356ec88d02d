"""Tensors in one file that anything can read: the safetensors format, by its specification.

Eight bytes with the header's length N (little-endian), N bytes of JSON (name → dtype, shape, place
of the bytes), then the bytes of all tensors without a gap. That is short enough to need no
dependency, and unlike a pickle it cannot run code when it is read.
"""

import json
import struct

import torch
from torch import Tensor

_DTYPES = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16"}
_ALIGNMENT = 8
"""The header is padded with spaces, so that the first tensor begins on a multiple of this."""


def encode_tensors(tensors: dict[str, Tensor], metadata: dict[str, str]) -> bytes:
    """Return the file's bytes, the same for the same tensors and metadata; names in their order.

    Raises:
        KeyError: a tensor's dtype is none of fp32, bf16 and fp16.
    """
    header: dict[str, object] = {"__metadata__": dict(sorted(metadata.items()))}
    parts = []
    end = 0
    for name, tensor in sorted(tensors.items()):
        # Through uint8, since numpy has no bf16.
        data = tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()
        header[name] = {
            "dtype": _DTYPES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [end, end + len(data)],
        }
        end += len(data)
        parts.append(data)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    return b"".join([struct.pack("<Q", len(text)), text, *parts])
