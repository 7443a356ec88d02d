"""The readers' numba kernels: unescaping JSON strings and finding texts without content."""

import numpy as np
import numpy.typing as npt

from shards.jit import inline, kernel

_ESCAPED = np.zeros(256, np.uint8)
for _letter, _byte in zip(b'"\\/bfnrt', b'"\\/\b\f\n\r\t', strict=True):
    _ESCAPED[_letter] = _byte


@inline
def _hex4(data: npt.NDArray[np.uint8], at: int) -> int:
    value = 0
    for k in range(4):
        digit = int(data[at + k])
        if digit <= 0x39:
            digit -= 0x30
        else:
            digit = (digit | 0x20) - 0x61 + 10
        value = value * 16 + digit
    return value


@kernel("void(uint8[::1], int64[::1])")
def unescape(data: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64]) -> None:
    r"""Replace JSON strings by what they stand for, in place (RFC 8259, section 7).

    Args:
        data: uint8, string i with its quotes at `data[offsets[i]:offsets[i + 1]]`, or nothing.
            Escapes are valid, and surrogates come in pairs: the parser has checked that.
        offsets: int64 (n + 1), overwritten with the offsets of the result, which is never longer.
    """
    write = 0
    read_end = offsets[0]
    for i in range(offsets.shape[0] - 1):
        read = read_end + 1
        read_end = offsets[i + 1]
        stop = read_end - 1
        while read < stop:
            byte = data[read]
            read += 1
            if byte != 0x5C:  # a backslash
                data[write] = byte
                write += 1
                continue
            letter = data[read]
            read += 1
            if letter != 0x75:  # u
                data[write] = _ESCAPED[letter]
                write += 1
                continue
            point = _hex4(data, read)
            read += 4
            if 0xD800 <= point < 0xDC00:
                point = 0x10000 + ((point - 0xD800) << 10) + (_hex4(data, read + 2) - 0xDC00)
                read += 6
            if point < 0x80:
                data[write] = point
                write += 1
                continue
            if point < 0x800:
                data[write] = 0xC0 | (point >> 6)
                write += 1
            else:
                if point < 0x10000:
                    data[write] = 0xE0 | (point >> 12)
                    write += 1
                else:
                    data[write] = 0xF0 | (point >> 18)
                    data[write + 1] = 0x80 | ((point >> 12) & 0x3F)
                    write += 2
                data[write] = 0x80 | ((point >> 6) & 0x3F)
                write += 1
            data[write] = 0x80 | (point & 0x3F)
            write += 1
        offsets[i + 1] = write


@kernel("void(uint8[::1], int64[::1], boolean[::1])")
def find_blank(
    data: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64], blank: npt.NDArray[np.bool_]
) -> None:
    """Set `blank[i]` where document i has no byte but ASCII white space (9 to 13 and 32)."""
    for i in range(offsets.shape[0] - 1):
        blank[i] = True
        for at in range(offsets[i], offsets[i + 1]):
            byte = data[at]
            if byte != 0x20 and not 0x09 <= byte <= 0x0D:
                blank[i] = False
                break
