# pyright: basic
# pyright: reportAttributeAccessIssue=false, reportGeneralTypeIssues=false, reportArgumentType=false
# pyright: reportOperatorIssue=false
"""Device functions that turn the words of a record into codes, scales and shifts.

Where a group has a bias, the offset that codes are made with (`assembly.py`) is left on them and
taken off the bias. Inline assembly cannot be interpreted: EMULATE takes the same codes by plain
arithmetic, for tests.
"""

import triton
import triton.language as tl

from aphrodite_kernels.backends.triton.ggml.assembly import code_assembly


@triton.constexpr_function
def made_in(dtype, emulate):
    """The dtype of codes: as asked, but the interpreter knows no arithmetic in bfloat16."""
    return tl.float32 if emulate and dtype == tl.bfloat16 else dtype


@triton.constexpr_function
def offset_of(dtype, encoding):
    """What is left on the codes: 0 if they have a zero or a sign."""
    if encoding.zero is not None or encoding.signed:
        return 0
    return 1024 if dtype == tl.float16 else 128


@triton.constexpr_function
def _table_value(encoding, code):
    return encoding.table[code]


@triton.jit
def codes_of(
    words,
    RUN: tl.constexpr,
    ENCODING: tl.constexpr,
    DTYPE: tl.constexpr,
    EMULATE: tl.constexpr,
):
    """Codes of run RUN in the words of both planes (int16, any shape), minus the zero.

    Without a zero they are larger than the codes by `offset_of`.
    """
    low = words[0]
    high = words[1] if ENCODING.high else low
    if EMULATE:
        return _emulated(low, high, RUN, ENCODING, DTYPE).to(DTYPE)
    assembly: tl.constexpr = code_assembly(RUN, ENCODING, half=DTYPE == tl.float16)
    pair = tl.inline_asm_elementwise(
        assembly, "=r,r,r", [low, high], tl.int16, is_pure=True, pack=2
    )
    if DTYPE == tl.float16:
        return pair.to(tl.float16, bitcast=True)
    else:
        return pair.to(tl.bfloat16, bitcast=True).to(DTYPE)


@triton.jit
def _emulated(low, high, RUN: tl.constexpr, ENCODING: tl.constexpr, DTYPE: tl.constexpr):
    """`codes_of` in int32."""
    code = _bits(low, RUN, ENCODING.low)
    if ENCODING.high:
        code |= _bits(high, RUN, ENCODING.high) << ENCODING.low
    if ENCODING.table:
        value = tl.zeros_like(code).to(tl.float32)
        for i in tl.static_range(16):
            value = tl.where(code == i, _table_value(ENCODING, i), value)
        return value
    elif ENCODING.signed:
        return (code ^ 128) - 128
    elif ENCODING.floats:
        return _float_of(code, ENCODING.floats[0], ENCODING.floats[1])
    elif ENCODING.zero is None:
        return code + offset_of(DTYPE, ENCODING)
    else:
        return code - ENCODING.zero


@triton.jit
def _float_of(code, EXPONENT: tl.constexpr, MANTISSA: tl.constexpr):
    """The small floats that codes are, float32."""
    OWN: tl.constexpr = EXPONENT + MANTISSA
    SHIFT: tl.constexpr = 2.0 ** (128 - 2 ** (EXPONENT - 1))
    pattern = (code & ((1 << OWN) - 1)) << (23 - MANTISSA)
    return (pattern | code >> OWN << 31).to(tl.float32, bitcast=True) * SHIFT


@triton.jit
def _bits(words, RUN: tl.constexpr, WIDTH: tl.constexpr):
    """The field of run RUN in words of a plane, int32."""
    return (words.to(tl.int32) >> (WIDTH * (RUN % (16 // WIDTH)))) & ((1 << WIDTH) - 1)


@triton.jit
def elements_of(
    words,
    RUN: tl.constexpr,
    ENCODING: tl.constexpr,
    DTYPE: tl.constexpr,
    EMULATE: tl.constexpr,
):
    """Codes, scales and shifts of run RUN, float32: an element is code times scale plus shift.

    The offset of codes is taken off first: it would cost a shift as many bits as it has. Products
    are exact, so an element has one rounding.
    """
    scale, shift = factors_of(words, RUN // ENCODING.runs, ENCODING, 0)
    code = codes_of(words, RUN, ENCODING, DTYPE, EMULATE)
    return code.to(tl.float32) - offset_of(DTYPE, ENCODING), scale, shift


@triton.jit
def header_of(record, row, ENCODING: tl.constexpr):
    """Pointers to the first words of the headers of rows of records."""
    header = record + 256 * (ENCODING.low + ENCODING.high) + row * (2 * ENCODING.words)
    return header.to(tl.pointer_type(tl.int32), bitcast=True)


@triton.jit
def record_of(codes, header, ENCODING: tl.constexpr):
    """All words of records: the blocks of the planes, then the header.

    `codes` and `header` point, in any shapes, at words of the first block and at headers.
    """
    BLOCKS: tl.constexpr = ENCODING.low + ENCODING.high
    WORDS: tl.constexpr = ENCODING.words
    record = ()
    for block in tl.static_range(BLOCKS):
        record += (tl.load(codes + block * 256),)
    for word in tl.static_range(WORDS):
        record += (tl.load(header + word),)
    return record


@triton.jit
def planes_of(record, RUN: tl.constexpr, ENCODING: tl.constexpr):
    """The words of the low and high plane in which the codes of run RUN are."""
    HIGH: tl.constexpr = ENCODING.low
    return record[RUN // (16 // ENCODING.low)], record[HIGH + RUN * ENCODING.high // 16]


@triton.jit
def words_of(record, RUN: tl.constexpr, ENCODING: tl.constexpr):
    """What run RUN needs of a record: words of the low and high plane, scales, minima, units."""
    HEADER: tl.constexpr = ENCODING.low + ENCODING.high
    WORD: tl.constexpr = HEADER + _scale_word(ENCODING, RUN // ENCODING.runs)
    low, high = planes_of(record, RUN, ENCODING)
    BIAS: tl.constexpr = _bias_distance(ENCODING)
    minima = record[WORD + BIAS] if BIAS else 0
    return low, high, record[WORD], minima, record[HEADER + ENCODING.words - 1]


@triton.constexpr_function
def _scale_word(encoding, group):
    """Of the header, that in which the scale of a group is."""
    group //= encoding.span
    bits = {"half": 16, "halves": 32, "float": 32, "floats": 64}.get(encoding.header, 8)
    return group * bits // 32


@triton.constexpr_function
def _bias_distance(encoding):
    """Words from the scale of a group to its bias; 0: they are in one word, or there is none."""
    return {"bytes": 2, "floats": 1}.get(encoding.header, 0)


@triton.jit
def factors_of(
    words,
    GROUP: tl.constexpr,
    ENCODING: tl.constexpr,
    OFFSET: tl.constexpr,
):
    """Scale and shift of group GROUP, float32: an element is its code times scale plus shift.

    The shift is 0 with a zero.
    """
    scale = _scale_of(words[2], words[4], GROUP, ENCODING)
    if ENCODING.zero is not None:
        return scale, 0.0
    elif OFFSET == 0:
        return scale, _bias_of(words, GROUP, ENCODING)
    else:
        return scale, _bias_of(words, GROUP, ENCODING) - scale * OFFSET


@triton.jit
def _bias_of(words, GROUP: tl.constexpr, ENCODING: tl.constexpr):
    if ENCODING.header == "bytes":
        return _byte(words[3], GROUP).to(tl.float32) * -_half_of(words[4], 1)
    elif ENCODING.header == "halves":
        return _half_of(words[2], 1)
    elif ENCODING.header == "floats":
        return words[3].to(tl.float32, bitcast=True)
    else:
        return (_byte(words[2], GROUP) >> 4).to(tl.float32) * -_half_of(words[4], 1)


@triton.jit
def _scale_of(word, units, GROUP: tl.constexpr, ENCODING: tl.constexpr):
    if ENCODING.header == "half":
        return _half_of(word, GROUP % 2)
    elif ENCODING.header == "halves":
        return _half_of(word, 0)
    elif ENCODING.header == "float" or ENCODING.header == "floats":
        return word.to(tl.float32, bitcast=True)
    elif ENCODING.header == "bytes":
        return _byte(word, GROUP).to(tl.float32) * _half_of(units, 0)
    elif ENCODING.header == "nibbles":
        return (_byte(word, GROUP) & 15).to(tl.float32) * _half_of(units, 0)
    else:
        unit = _half_of(units, 0) * ENCODING.part
        return (word << (24 - 8 * (GROUP % 4)) >> 24).to(tl.float32) * unit


@triton.jit
def _half_of(word, UPPER: tl.constexpr):
    """The float16 in the lower or upper half of a word, as float32."""
    if UPPER:
        word = word >> 16
    return word.to(tl.int16).to(tl.float16, bitcast=True).to(tl.float32)


@triton.jit
def _byte(word, INDEX: tl.constexpr):
    """Byte INDEX % 4 of a word."""
    return (word >> (8 * (INDEX % 4))) & 255


@triton.constexpr_function
def are_floats(encoding):
    """Whether scales and biases are floats, without a unit."""
    return encoding.header in ("half", "halves", "float", "floats")


@triton.jit
def written(header, group, ENCODING: tl.constexpr):
    """The scale of a group as the header has it, and its bias or the scale again."""
    if ENCODING.header == "half":
        scale = tl.load(header.to(tl.pointer_type(tl.float16), bitcast=True) + group)
        return scale, scale
    elif ENCODING.header == "halves":
        halves = header.to(tl.pointer_type(tl.float16), bitcast=True) + group * 2
        return tl.load(halves), tl.load(halves + 1)
    elif ENCODING.header == "float":
        scale = tl.load(
            header.to(tl.pointer_type(tl.float32), bitcast=True) + group // ENCODING.span
        )
        return scale, scale
    elif ENCODING.header == "floats":
        floats = header.to(tl.pointer_type(tl.float32), bitcast=True) + group // ENCODING.span * 2
        return tl.load(floats), tl.load(floats + 1)
    else:
        octets = header.to(tl.pointer_type(tl.int8), bitcast=True) + group
        scale = tl.load(octets)
        if ENCODING.header == "bytes":
            return scale, tl.load(octets + 8)
        else:
            return scale, scale


@triton.jit
def factors_written(
    scale, bias, units, ENCODING: tl.constexpr, OFFSET: tl.constexpr
):  # fmt: skip
    """Scale and shift, float32, of groups of which `written` has told.

    units: the header's last word.
    """
    unit = units.to(tl.int16).to(tl.float16, bitcast=True).to(tl.float32)
    other = (units >> 16).to(tl.int16).to(tl.float16, bitcast=True).to(tl.float32)
    if are_floats(ENCODING):
        scale, bias = scale.to(tl.float32), bias.to(tl.float32)
    elif ENCODING.header == "bytes":
        scale = (scale.to(tl.int32) & 255).to(tl.float32) * unit
        bias = (bias.to(tl.int32) & 255).to(tl.float32) * -other
    elif ENCODING.header == "nibbles":
        scale = (scale.to(tl.int32) & 15).to(tl.float32) * unit
        bias = (bias.to(tl.int32) >> 4 & 15).to(tl.float32) * -other
    else:
        scale = scale.to(tl.float32) * (unit * ENCODING.part)
    return scale, bias - scale * OFFSET
