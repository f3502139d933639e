"""Vector code that numba cannot express: the inner loop of the 1-bit convolution, and packing.

Both are written as LLVM vectors of a fixed width, so that the accumulators stay in registers; LLVM
turns them into whatever the processor has (VPOPCNTQ on AVX-512, shuffles and sums on AVX2, CNT on
NEON). Only :mod:`backbones.packed.kernels` uses this module, and only where numba is installed.
"""

from __future__ import annotations

from collections.abc import Callable

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

_I1, _I32, _I64 = ir.IntType(1), ir.IntType(32), ir.IntType(64)
_WORD_POINTER = types.CPointer(types.uint64)
_FLOAT_POINTER = types.CPointer(types.float32)


def _vector_function(builder: ir.IRBuilder, name: str, result: ir.Type, *arguments: ir.Type):
    return cgutils.get_or_insert_function(
        builder.module, ir.FunctionType(result, list(arguments)), name
    )


def _constant(value: int) -> ir.Constant:
    return ir.Constant(_I64, value)


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
            _WORD_POINTER,
            _WORD_POINTER,
            types.CPointer(types.int32),
            types.CPointer(types.int64),
            *[types.int64] * 5,
        )

        def codegen(context, builder, signature, arguments):
            x, w, counts, offsets, segments, length, x_step, w_step, c_step = arguments
            words = ir.VectorType(_I64, lanes)
            popcount = _vector_function(builder, f"llvm.ctpop.v{lanes}i64", words, words)
            splat = ir.Constant(ir.VectorType(_I32, lanes), [0] * lanes)
            undefined = ir.Constant(words, ir.Undefined)
            shape = [(p, v) for p in range(pixels) for v in range(vectors)]

            entry = builder.block
            outer = builder.append_basic_block("segment")
            inner = builder.append_basic_block("word")
            next_segment = builder.append_basic_block("next_segment")
            done = builder.append_basic_block("done")
            builder.branch(outer)

            builder.position_at_end(outer)
            segment = builder.phi(_I64)
            weight_row_outer = builder.phi(_I64)
            outer_sums = {key: builder.phi(words) for key in shape}
            offset = builder.load(builder.gep(offsets, [segment]))
            builder.branch(inner)

            builder.position_at_end(inner)
            word = builder.phi(_I64)
            weight_row = builder.phi(_I64)
            sums = {key: builder.phi(words) for key in shape}
            at = builder.add(offset, word)
            filters = []
            for v in range(vectors):
                place = builder.gep(w, [builder.add(weight_row, _constant(v * lanes))])
                load = builder.load(builder.bitcast(place, words.as_pointer()))
                load.align = 8
                filters.append(load)
            new_sums = {}
            for p in range(pixels):
                place = builder.gep(x, [builder.add(builder.mul(x_step, _constant(p)), at)])
                one = builder.insert_element(undefined, builder.load(place), ir.Constant(_I32, 0))
                spread = builder.shuffle_vector(one, undefined, splat)
                for v in range(vectors):
                    differing = builder.call(popcount, [builder.xor(spread, filters[v])])
                    new_sums[p, v] = builder.add(sums[p, v], differing)
            next_word = builder.add(word, _constant(1))
            next_row = builder.add(weight_row, w_step)
            builder.cbranch(builder.icmp_signed("<", next_word, length), inner, next_segment)

            builder.position_at_end(next_segment)
            following = builder.add(segment, _constant(1))
            builder.cbranch(builder.icmp_signed("<", following, segments), outer, done)

            segment.add_incoming(_constant(0), entry)
            segment.add_incoming(following, next_segment)
            weight_row_outer.add_incoming(_constant(0), entry)
            weight_row_outer.add_incoming(next_row, next_segment)
            word.add_incoming(_constant(0), outer)
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
            narrow = ir.VectorType(_I32, lanes)
            for p, v in shape:
                place = builder.gep(
                    counts,
                    [builder.add(builder.mul(c_step, _constant(p)), _constant(v * lanes))],
                )
                store = builder.store(
                    builder.trunc(new_sums[p, v], narrow),
                    builder.bitcast(place, narrow.as_pointer()),
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
    signature = types.uint64(_FLOAT_POINTER, _FLOAT_POINTER, _FLOAT_POINTER, types.int64)

    def codegen(context, builder, signature, arguments):
        *pointers, count = arguments
        floats = ir.VectorType(ir.FloatType(), 64)
        flags = ir.VectorType(_I1, 64)
        lane_type = ir.VectorType(_I64, 64)
        undefined = ir.Constant(lane_type, ir.Undefined)
        one = builder.insert_element(undefined, count, ir.Constant(_I32, 0))
        splat = ir.Constant(ir.VectorType(_I32, 64), [0] * 64)
        spread = builder.shuffle_vector(one, undefined, splat)
        mask = builder.icmp_signed("<", ir.Constant(lane_type, list(range(64))), spread)
        zeros = ir.Constant(floats, [0.0] * 64)
        load = _vector_function(
            builder, "llvm.masked.load.v64f32.p0", floats, ir.PointerType(), _I32, flags, floats
        )
        values, scales, thresholds = (
            builder.call(load, [pointer, ir.Constant(_I32, 4), mask, zeros]) for pointer in pointers
        )
        above = builder.fcmp_ordered(">", builder.fmul(values, scales), thresholds)
        return builder.bitcast(builder.and_(above, mask), _I64)

    return signature, codegen
