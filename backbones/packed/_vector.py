"""Vector code that numba cannot express: the inner loop of the 1-bit convolution, and packing.

Both are written as LLVM vectors of a fixed width, so that the accumulators stay in registers; LLVM
turns them into whatever the processor has (VPOPCNTQ on AVX-512, shuffles and sums on AVX2, CNT on
NEON). Only :mod:`onebit.backbones.packed.kernels` uses this module, and only where numba is installed.
"""

from __future__ import annotations

from collections.abc import Callable

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

_I1, I32, I64 = ir.IntType(1), ir.IntType(32), ir.IntType(64)
_WORD_POINTER = types.CPointer(types.uint64)
FLOAT_POINTER = types.CPointer(types.float32)


def vector_function(builder: ir.IRBuilder, name: str, result: ir.Type, *arguments: ir.Type):
    return cgutils.get_or_insert_function(builder.module, ir.FunctionType(result, list(arguments)), name)


def constant(value: int) -> ir.Constant:
    return ir.Constant(I64, value)


def spread(builder: ir.IRBuilder, value: ir.Value, lanes: int) -> ir.Value:
    """``value`` in all of so many lanes."""
    one = builder.insert_element(
        ir.Constant(ir.VectorType(value.type, lanes), ir.Undefined), value, ir.Constant(I32, 0)
    )
    return builder.shuffle_vector(one, one, ir.Constant(ir.VectorType(I32, lanes), [0] * lanes))


@intrinsic
def address(typingctx, array, offset):
    """The address of element ``offset`` of a contiguous array, counted flat."""

    def codegen(context, builder, signature, arguments):
        pointer = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        return builder.gep(pointer, [arguments[1]])

    return types.CPointer(array.dtype)(array, types.int64), codegen


def make_differences(pixels: int, vectors: int, lanes: int) -> Callable:
    """Build ``differences(x, w, counts, offsets, segments, length, x_step, w_step, c_step)``.

    It counts, for ``pixels`` positions and ``vectors * lanes`` output channels at once, in how many
    bits the words of a position differ from the words of each filter:

    ``counts[p * c_step + k] = sum over s, i of popcount(x[p * x_step + offsets[s] + i] ^ w[(s *
    length + i) * w_step + k])``, 32-bit integers.

    Args:
        pixels, vectors, lanes: ``pixels * vectors`` accumulators of ``lanes`` 64-bit integers must
            fit the processor's registers.
    """

    @intrinsic
    def differences(typingctx, x, w, counts, offsets, segments, length, x_step, w_step, c_step):
        signature = types.void(
            _WORD_POINTER, _WORD_POINTER, types.CPointer(types.int32), types.CPointer(types.int64), *[types.int64] * 5
        )

        def codegen(context, builder, signature, arguments):
            x, w, counts, offsets, segments, length, x_step, w_step, c_step = arguments
            words = ir.VectorType(I64, lanes)
            popcount = vector_function(builder, f"llvm.ctpop.v{lanes}i64", words, words)
            shape = [(p, v) for p in range(pixels) for v in range(vectors)]

            entry = builder.block
            outer = builder.append_basic_block("segment")
            inner = builder.append_basic_block("word")
            next_segment = builder.append_basic_block("next_segment")
            done = builder.append_basic_block("done")
            builder.branch(outer)

            builder.position_at_end(outer)
            segment = builder.phi(I64)
            weight_row_outer = builder.phi(I64)
            outer_sums = {key: builder.phi(words) for key in shape}
            offset = builder.load(builder.gep(offsets, [segment]))
            builder.branch(inner)

            builder.position_at_end(inner)
            word = builder.phi(I64)
            weight_row = builder.phi(I64)
            sums = {key: builder.phi(words) for key in shape}
            at = builder.add(offset, word)
            filters = []
            for v in range(vectors):
                place = builder.gep(w, [builder.add(weight_row, constant(v * lanes))])
                load = builder.load(builder.bitcast(place, words.as_pointer()))
                load.align = 8
                filters.append(load)
            new_sums = {}
            for p in range(pixels):
                place = builder.gep(x, [builder.add(builder.mul(x_step, constant(p)), at)])
                everywhere = spread(builder, builder.load(place), lanes)
                for v in range(vectors):
                    differing = builder.call(popcount, [builder.xor(everywhere, filters[v])])
                    new_sums[p, v] = builder.add(sums[p, v], differing)
            next_word = builder.add(word, constant(1))
            next_row = builder.add(weight_row, w_step)
            builder.cbranch(builder.icmp_signed("<", next_word, length), inner, next_segment)

            builder.position_at_end(next_segment)
            following = builder.add(segment, constant(1))
            builder.cbranch(builder.icmp_signed("<", following, segments), outer, done)

            segment.add_incoming(constant(0), entry)
            segment.add_incoming(following, next_segment)
            weight_row_outer.add_incoming(constant(0), entry)
            weight_row_outer.add_incoming(next_row, next_segment)
            word.add_incoming(constant(0), outer)
            word.add_incoming(next_word, inner)
            weight_row.add_incoming(weight_row_outer, outer)
            weight_row.add_incoming(next_row, inner)
            zeros = ir.Constant(words, [0] * lanes)
            for key in shape:
                outer_sums[key].add_incoming(zeros, entry)
                outer_sums[key].add_incoming(new_sums[key], next_segment)
                sums[key].add_incoming(outer_sums[key], outer)
                sums[key].add_incoming(new_sums[key], inner)

            builder.position_at_end(done)
            narrow = ir.VectorType(I32, lanes)
            for p, v in shape:
                place = builder.gep(counts, [builder.add(builder.mul(c_step, constant(p)), constant(v * lanes))])
                store = builder.store(
                    builder.trunc(new_sums[p, v], narrow), builder.bitcast(place, narrow.as_pointer())
                )
                store.align = 4
            return context.get_dummy_value()

        return signature, codegen

    return differences


@intrinsic
def signs_of_64(typingctx, values, scales, thresholds, count):
    """64 comparisons as one word: bit i is set where ``values[i] * scales[i] > thresholds[i]``.

    Only the first ``count`` (1 to 64) elements are read; the other bits are 0.
    """
    signature = types.uint64(FLOAT_POINTER, FLOAT_POINTER, FLOAT_POINTER, types.int64)

    def codegen(context, builder, signature, arguments):
        *pointers, count = arguments
        floats = ir.VectorType(ir.FloatType(), 64)
        flags = ir.VectorType(_I1, 64)
        lane_type = ir.VectorType(I64, 64)
        mask = builder.icmp_signed("<", ir.Constant(lane_type, list(range(64))), spread(builder, count, 64))
        zeros = ir.Constant(floats, [0.0] * 64)
        load = vector_function(builder, "llvm.masked.load.v64f32.p0", floats, ir.PointerType(), I32, flags, floats)
        values, scales, thresholds = (
            builder.call(load, [pointer, ir.Constant(I32, 4), mask, zeros]) for pointer in pointers
        )
        above = builder.fcmp_ordered(">", builder.fmul(values, scales), thresholds)
        return builder.bitcast(builder.and_(above, mask), I64)

    return signature, codegen


FLOATS = ir.VectorType(ir.FloatType(), 16)
_INTEGERS = ir.VectorType(I32, 16)


class _Sixteen:
    """Reads and writes of 16 neighbours, or of the first ``count`` of them."""

    def __init__(self, builder: ir.IRBuilder, whole: bool, count: ir.Value) -> None:
        self.builder, self.whole = builder, whole
        if not whole:
            lanes = ir.VectorType(I64, 16)
            self.mask = builder.icmp_signed("<", ir.Constant(lanes, list(range(16))), spread(builder, count, 16))

    def read(self, pointer: ir.Value, index: ir.Value, kind: ir.Type = FLOATS) -> ir.Value:
        builder = self.builder
        place = builder.gep(pointer, [index])
        if self.whole:
            load = builder.load(builder.bitcast(place, kind.as_pointer()))
            load.align = 4
            return load
        function = vector_function(
            builder, f"llvm.masked.load.v16{_suffix(kind)}.p0", kind, ir.PointerType(), I32, self.mask.type, kind
        )
        zeros = ir.Constant(kind, [0] * 16)
        return builder.call(function, [place, ir.Constant(I32, 4), self.mask, zeros])

    def write(self, value: ir.Value, pointer: ir.Value, index: ir.Value) -> None:
        builder = self.builder
        place = builder.gep(pointer, [index])
        if self.whole:
            store = builder.store(value, builder.bitcast(place, value.type.as_pointer()))
            store.align = 4
            return
        function = vector_function(
            builder,
            f"llvm.masked.store.v16{_suffix(value.type)}.p0",
            ir.VoidType(),
            value.type,
            ir.PointerType(),
            I32,
            self.mask.type,
        )
        builder.call(function, [value, place, ir.Constant(I32, 4), self.mask])

    def prelu(self, value: ir.Value, slope: ir.Value) -> ir.Value:
        builder = self.builder
        positive = builder.fcmp_ordered(">", value, ir.Constant(FLOATS, [0.0] * 16))
        return builder.select(positive, value, builder.fmul(value, slope))

    def multiply_add(self, a: ir.Value, b: ir.Value, c: ir.Value) -> ir.Value:
        function = vector_function(self.builder, "llvm.fmuladd.v16f32", *[FLOATS] * 4)
        return self.builder.call(function, [a, b, c])


def _suffix(kind: ir.Type) -> str:
    return "f32" if kind == FLOATS else "i32"


def make_finish(shortcut: bool, add: bool, whole: bool) -> Callable:
    """Build ``finish(counts, border, scale, shift, around, slope, after, out, total, n)``.

    For up to 16 channels: ``PReLU((total - 2 counts - border) * scale + shift + around; slope) +
    after`` into ``out``.

    Args:
        shortcut: there is an ``around``.
        add: add to ``out``.
        whole: 16 channels, and ``n`` is not looked at; otherwise the first ``n`` of them.
    """

    @intrinsic
    def finish(typingctx, counts, border, scale, shift, around, slope, after, out, total, n):
        integers = types.CPointer(types.int32)
        signature = types.void(integers, integers, *[FLOAT_POINTER] * 6, types.int64, types.int64)

        def codegen(context, builder, signature, arguments):
            counts, border, scale, shift, around, slope, after, out, total, n = arguments
            some = _Sixteen(builder, whole, n)
            zero = constant(0)
            most = spread(builder, builder.trunc(total, I32), 16)
            twice = builder.shl(some.read(counts, zero, _INTEGERS), ir.Constant(_INTEGERS, [1] * 16))
            whole_number = builder.sub(builder.sub(most, twice), some.read(border, zero, _INTEGERS))
            value = some.multiply_add(
                builder.sitofp(whole_number, FLOATS), some.read(scale, zero), some.read(shift, zero)
            )
            if shortcut:
                value = builder.fadd(value, some.read(around, zero))
            value = builder.fadd(some.prelu(value, some.read(slope, zero)), some.read(after, zero))
            if add:
                value = builder.fadd(value, some.read(out, zero))
            some.write(value, out, zero)
            return context.get_dummy_value()

        return signature, codegen

    return finish


def make_depthwise(pixels: int, whole: bool) -> Callable:
    """Build ``depthwise(x, w, start, slope, out, offsets, rows, taps, x_step, w_step, o_step, n)``.

    Depthwise sums of ``pixels`` positions and up to 16 channels at once, then PReLU:
    ``out[p * o_step + c] = PReLU(start[c] + sum over t < taps of
    x[p * x_step + offsets[t] + c] * w[rows[t] * w_step + c]; slope[c])``.

    Args:
        whole: 16 channels, and ``n`` is not looked at; otherwise the first ``n`` of them.
    """

    @intrinsic
    def depthwise(typingctx, x, w, start, slope, out, offsets, rows, taps, x_step, w_step, o_step, n):
        signature = types.void(*[FLOAT_POINTER] * 5, *[types.CPointer(types.int64)] * 2, *[types.int64] * 5)

        def codegen(context, builder, signature, arguments):
            x, w, start, slope, out, offsets, rows, taps, x_step, w_step, o_step, n = arguments
            some = _Sixteen(builder, whole, n)
            read, write = some.read, some.write

            entry = builder.block
            loop = builder.append_basic_block("tap")
            done = builder.append_basic_block("done")
            begin = read(start, constant(0))
            builder.branch(loop)

            builder.position_at_end(loop)
            tap = builder.phi(I64)
            sums = [builder.phi(FLOATS) for _ in range(pixels)]
            weight = read(w, builder.mul(builder.load(builder.gep(rows, [tap])), w_step))
            at = builder.load(builder.gep(offsets, [tap]))
            new = [
                some.multiply_add(read(x, builder.add(at, builder.mul(x_step, constant(p)))), weight, sums[p])
                for p in range(pixels)
            ]
            following = builder.add(tap, constant(1))
            tap.add_incoming(constant(0), entry)
            tap.add_incoming(following, loop)
            for p in range(pixels):
                sums[p].add_incoming(begin, entry)
                sums[p].add_incoming(new[p], loop)
            builder.cbranch(builder.icmp_signed("<", following, taps), loop, done)

            builder.position_at_end(done)
            slopes = read(slope, constant(0))
            for p in range(pixels):
                write(some.prelu(new[p], slopes), out, builder.mul(o_step, constant(p)))
            return context.get_dummy_value()

        return signature, codegen

    return depthwise
