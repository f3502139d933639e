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


_FLOATS = ir.VectorType(ir.FloatType(), 16)


def make_depthwise(pixels: int, whole: bool) -> Callable:
    """Build ``depthwise(x, w, start, slope, out, offsets, first, last, x_step, w_step, o_step, n)``.

    Depthwise sums of ``pixels`` positions and up to 16 channels at once, then PReLU:
    ``out[p * o_step + c] = PReLU(start[c] + sum over taps t from first to last of
    x[p * x_step + offsets[t] + c] * w[t * w_step + c]; slope[c])``.

    Args:
        whole: 16 channels, and ``n`` is not looked at; otherwise the first ``n`` of them.
    """

    @intrinsic
    def depthwise(
        typingctx, x, w, start, slope, out, offsets, first, last, x_step, w_step, o_step, n
    ):
        signature = types.void(
            *[_FLOAT_POINTER] * 5, types.CPointer(types.int64), *[types.int64] * 6
        )

        def codegen(context, builder, signature, arguments):
            x, w, start, slope, out, offsets, first, last, x_step, w_step, o_step, n = arguments
            flags = ir.VectorType(_I1, 16)
            lane_type = ir.VectorType(_I64, 16)
            zeros = ir.Constant(_FLOATS, [0.0] * 16)
            one = builder.insert_element(
                ir.Constant(lane_type, ir.Undefined), n, ir.Constant(_I32, 0)
            )
            splat = ir.Constant(ir.VectorType(_I32, 16), [0] * 16)
            mask = builder.icmp_signed(
                "<",
                ir.Constant(lane_type, list(range(16))),
                builder.shuffle_vector(one, one, splat),
            )
            masked_load = _vector_function(
                builder,
                "llvm.masked.load.v16f32.p0",
                _FLOATS,
                ir.PointerType(),
                _I32,
                flags,
                _FLOATS,
            )
            masked_store = _vector_function(
                builder,
                "llvm.masked.store.v16f32.p0",
                ir.VoidType(),
                _FLOATS,
                ir.PointerType(),
                _I32,
                flags,
            )
            fma = _vector_function(
                builder, "llvm.fmuladd.v16f32", _FLOATS, _FLOATS, _FLOATS, _FLOATS
            )

            def read(pointer, index):
                place = builder.gep(pointer, [index])
                if not whole:
                    return builder.call(masked_load, [place, ir.Constant(_I32, 4), mask, zeros])
                load = builder.load(builder.bitcast(place, _FLOATS.as_pointer()))
                load.align = 4
                return load

            def write(value, pointer, index):
                place = builder.gep(pointer, [index])
                if not whole:
                    builder.call(masked_store, [value, place, ir.Constant(_I32, 4), mask])
                    return
                store = builder.store(value, builder.bitcast(place, _FLOATS.as_pointer()))
                store.align = 4

            entry = builder.block
            loop = builder.append_basic_block("tap")
            done = builder.append_basic_block("done")
            begin = read(start, _constant(0))
            builder.branch(loop)

            builder.position_at_end(loop)
            tap = builder.phi(_I64)
            sums = [builder.phi(_FLOATS) for _ in range(pixels)]
            weight = read(w, builder.mul(tap, w_step))
            at = builder.load(builder.gep(offsets, [tap]))
            new = [
                builder.call(
                    fma,
                    [read(x, builder.add(at, builder.mul(x_step, _constant(p)))), weight, sums[p]],
                )
                for p in range(pixels)
            ]
            following = builder.add(tap, _constant(1))
            tap.add_incoming(first, entry)
            tap.add_incoming(following, loop)
            for p in range(pixels):
                sums[p].add_incoming(begin, entry)
                sums[p].add_incoming(new[p], loop)
            builder.cbranch(builder.icmp_signed("<", following, last), loop, done)

            builder.position_at_end(done)
            slopes = read(slope, _constant(0))
            for p in range(pixels):
                positive = builder.fcmp_ordered(">", new[p], zeros)
                value = builder.select(positive, new[p], builder.fmul(new[p], slopes))
                write(value, out, builder.mul(o_step, _constant(p)))
            return context.get_dummy_value()

        return signature, codegen

    return depthwise


@intrinsic
def sums_of_four(typingctx, x, scales, table):
    """The 16 sums ±a ±b ±c ±d of four scaled values: ``table[j]`` takes + where j has the bit.

    ``(a, b, c, d) = x[i] * scales[i]`` for i = 0 to 3; bit i of j belongs to value i.
    """
    signature = types.void(_FLOAT_POINTER, _FLOAT_POINTER, _FLOAT_POINTER)

    def codegen(context, builder, signature, arguments):
        x, scales, table = arguments
        fma = _vector_function(builder, "llvm.fmuladd.v16f32", _FLOATS, _FLOATS, _FLOATS, _FLOATS)
        four = ir.VectorType(ir.FloatType(), 4)
        loaded = []
        for pointer in (x, scales):
            load = builder.load(builder.bitcast(pointer, four.as_pointer()))
            load.align = 4
            loaded.append(load)
        values = builder.fmul(*loaded)
        total = None
        for i in range(4):
            place = ir.Constant(ir.VectorType(_I32, 16), [i] * 16)
            spread = builder.shuffle_vector(values, values, place)
            signs = ir.Constant(_FLOATS, [1.0 if j >> i & 1 else -1.0 for j in range(16)])
            if total is None:
                total = builder.fmul(spread, signs)
            else:
                total = builder.call(fma, [spread, signs, total])
        store = builder.store(total, builder.bitcast(table, _FLOATS.as_pointer()))
        store.align = 4
        return context.get_dummy_value()

    return signature, codegen


def make_lookups(pixels: int, vectors: int) -> Callable:
    """Build ``lookups(tables, codes, sums, groups, t_step, k_step, s_step)``, for AVX-512.

    ``sums[p * s_step + k] += sum over g of tables[p * t_step + 16 g + codes[g * k_step + k]]`` for
    ``pixels`` positions and ``16 * vectors`` output channels at once.
    """

    @intrinsic
    def lookups(typingctx, tables, codes, sums, groups, t_step, k_step, s_step):
        signature = types.void(
            _FLOAT_POINTER, types.CPointer(types.uint8), _FLOAT_POINTER, *[types.int64] * 4
        )

        def codegen(context, builder, signature, arguments):
            tables, codes, sums, groups, t_step, k_step, s_step = arguments
            places = ir.VectorType(_I32, 16)
            short = ir.VectorType(ir.IntType(8), 16)
            permute = _vector_function(
                builder, "llvm.x86.avx512.permvar.sf.512", _FLOATS, _FLOATS, places
            )
            shape = [(p, v) for p in range(pixels) for v in range(vectors)]

            def at(p, v):
                index = builder.add(builder.mul(s_step, _constant(p)), _constant(16 * v))
                return builder.bitcast(builder.gep(sums, [index]), _FLOATS.as_pointer())

            entry = builder.block
            loop = builder.append_basic_block("group")
            done = builder.append_basic_block("done")
            begin = {}
            for key in shape:
                begin[key] = builder.load(at(*key))
                begin[key].align = 4
            builder.branch(loop)

            builder.position_at_end(loop)
            group = builder.phi(_I64)
            totals = {key: builder.phi(_FLOATS) for key in shape}
            row = builder.mul(group, k_step)
            chosen = []
            for v in range(vectors):
                place = builder.gep(codes, [builder.add(row, _constant(16 * v))])
                load = builder.load(builder.bitcast(place, short.as_pointer()))
                load.align = 1
                chosen.append(builder.zext(load, places))
            new = {}
            for p in range(pixels):
                index = builder.add(
                    builder.mul(t_step, _constant(p)), builder.mul(group, _constant(16))
                )
                table = builder.load(
                    builder.bitcast(builder.gep(tables, [index]), _FLOATS.as_pointer())
                )
                table.align = 4
                for v in range(vectors):
                    found = builder.call(permute, [table, chosen[v]])
                    new[p, v] = builder.fadd(totals[p, v], found)
            following = builder.add(group, _constant(1))
            group.add_incoming(_constant(0), entry)
            group.add_incoming(following, loop)
            for key in shape:
                totals[key].add_incoming(begin[key], entry)
                totals[key].add_incoming(new[key], loop)
            builder.cbranch(builder.icmp_signed("<", following, groups), loop, done)

            builder.position_at_end(done)
            for key in shape:
                store = builder.store(new[key], at(*key))
                store.align = 4
            return context.get_dummy_value()

        return signature, codegen

    return lookups
