"""Vector code that numba cannot express: the inner loop of the 1-bit convolution, and packing.

Both are written as LLVM vectors of a fixed width, so that the accumulators stay in registers; LLVM
turns them into whatever the processor has (VPOPCNTQ on AVX-512, shuffles and sums on AVX2, CNT on
NEON). Only :mod:`onebit.packed.kernels` uses this module, and only where numba is installed.
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


def pointer(kind: types.Type) -> Callable:
    """Build ``at_address(address)``: an integer as the address of values of this type."""

    @intrinsic
    def at_address(typingctx, at):
        result = types.CPointer(kind)

        def codegen(context, builder, signature, arguments):
            return builder.inttoptr(arguments[0], context.get_value_type(result))

        return result(types.int64), codegen

    return at_address


floats, words, integers, halves, indices = (
    pointer(kind) for kind in (types.float32, types.uint64, types.int32, types.uint16, types.int64)
)


@intrinsic
def arrive(typingctx, counter):
    """Add 1 to the 64-bit integer at the address ``counter``, as one act before and after all others."""

    def codegen(context, builder, signature, arguments):
        place = builder.inttoptr(arguments[0], I64.as_pointer())
        builder.atomic_rmw("add", place, constant(1), "seq_cst")
        return context.get_dummy_value()

    return types.void(types.int64), codegen


@intrinsic
def arrived(typingctx, counter):
    """The 64-bit integer at the address ``counter``, as other threads left it."""

    def codegen(context, builder, signature, arguments):
        place = builder.inttoptr(arguments[0], I64.as_pointer())
        return builder.load_atomic(place, "seq_cst", 8)

    return types.int64(types.int64), codegen


@intrinsic
def step_aside(typingctx):
    """Let another thread have the processor (POSIX)."""

    def codegen(context, builder, signature, arguments):
        builder.call(vector_function(builder, "sched_yield", I32), [])
        return context.get_dummy_value()

    return types.void(), codegen


def make_sums(bits: bool, pixels: int, vectors: int) -> Callable:
    """Build ``sums(x, w, out, offsets, segments, length, x_step, w_step, o_step)``.

    For ``pixels`` positions and ``vectors`` vectors of output channels at once, ``out[p * o_step + k]`` is the sum
    over s < segments and i < length of what ``x[p * x_step + offsets[s] + i]`` and ``w[(s * length + i) * w_step +
    k]`` make:

    - with ``bits``, of 64-bit words: in how many bits they differ, 32-bit integers. A vector has 8 channels.
    - else, of floats: their product, floats. A vector has 16 channels.

    Args:
        pixels, vectors: so many accumulators of 512 bits must fit the processor's registers.
    """
    lanes, kind = (8, I64) if bits else (16, ir.FloatType())
    pointer = _WORD_POINTER if bits else FLOAT_POINTER
    result = types.CPointer(types.int32) if bits else FLOAT_POINTER

    @intrinsic
    def sums(typingctx, x, w, out, offsets, segments, length, x_step, w_step, o_step):
        signature = types.void(pointer, pointer, result, types.CPointer(types.int64), *[types.int64] * 5)

        def codegen(context, builder, signature, arguments):
            x, w, out, offsets, segments, length, x_step, w_step, o_step = arguments
            several = ir.VectorType(kind, lanes)
            name, count = ("llvm.ctpop.v8i64", 1) if bits else ("llvm.fma.v16f32", 3)
            function = vector_function(builder, name, several, *[several] * count)
            shape = [(p, v) for p in range(pixels) for v in range(vectors)]

            def added(total, x, w):
                if bits:
                    return builder.add(total, builder.call(function, [builder.xor(x, w)]))
                return builder.call(function, [x, w, total])

            entry = builder.block
            outer = builder.append_basic_block("segment")
            inner = builder.append_basic_block("element")
            next_segment = builder.append_basic_block("next_segment")
            done = builder.append_basic_block("done")
            builder.branch(outer)

            builder.position_at_end(outer)
            segment = builder.phi(I64)
            weight_row_outer = builder.phi(I64)
            outer_sums = {key: builder.phi(several) for key in shape}
            offset = builder.load(builder.gep(offsets, [segment]))
            builder.branch(inner)

            builder.position_at_end(inner)
            element = builder.phi(I64)
            weight_row = builder.phi(I64)
            sums = {key: builder.phi(several) for key in shape}
            at = builder.add(offset, element)
            filters = []
            for v in range(vectors):
                place = builder.gep(w, [builder.add(weight_row, constant(v * lanes))])
                load = builder.load(builder.bitcast(place, several.as_pointer()))
                load.align = kind.width // 8 if bits else 4
                filters.append(load)
            new_sums = {}
            for p in range(pixels):
                place = builder.gep(x, [builder.add(builder.mul(x_step, constant(p)), at)])
                everywhere = spread(builder, builder.load(place), lanes)
                for v in range(vectors):
                    new_sums[p, v] = added(sums[p, v], everywhere, filters[v])
            next_element = builder.add(element, constant(1))
            next_row = builder.add(weight_row, w_step)
            builder.cbranch(builder.icmp_signed("<", next_element, length), inner, next_segment)

            builder.position_at_end(next_segment)
            following = builder.add(segment, constant(1))
            builder.cbranch(builder.icmp_signed("<", following, segments), outer, done)

            segment.add_incoming(constant(0), entry)
            segment.add_incoming(following, next_segment)
            weight_row_outer.add_incoming(constant(0), entry)
            weight_row_outer.add_incoming(next_row, next_segment)
            element.add_incoming(constant(0), outer)
            element.add_incoming(next_element, inner)
            weight_row.add_incoming(weight_row_outer, outer)
            weight_row.add_incoming(next_row, inner)
            zeros = ir.Constant(several, [0 if bits else 0.0] * lanes)
            for key in shape:
                outer_sums[key].add_incoming(zeros, entry)
                outer_sums[key].add_incoming(new_sums[key], next_segment)
                sums[key].add_incoming(outer_sums[key], outer)
                sums[key].add_incoming(new_sums[key], inner)

            builder.position_at_end(done)
            for p, v in shape:
                place = builder.gep(out, [builder.add(builder.mul(o_step, constant(p)), constant(v * lanes))])
                value = builder.trunc(new_sums[p, v], ir.VectorType(I32, lanes)) if bits else new_sums[p, v]
                store = builder.store(value, builder.bitcast(place, value.type.as_pointer()))
                store.align = 4
            return context.get_dummy_value()

        return signature, codegen

    return sums


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


def make_finish(bits: bool, sign: bool, whole: bool) -> Callable:
    """Build ``finish(sums, border, scale, shift, around, slope, after, post, out, signs, in_scale, threshold, total, n)``.

    For up to 16 channels: ``y = PReLU(s * scale + shift + around; slope) + after + post`` into ``out``, where s is
    ``total - 2 sums - border`` of integers with ``bits``, else ``sums``, floats.

    Args:
        sign: bit i of the 16 at ``signs`` is set where ``y[i] * in_scale[i] > threshold[i]``.
        whole: 16 channels, and ``n`` is not looked at; otherwise the first ``n`` of them.
    """

    @intrinsic
    def finish(
        typingctx, sums, border, scale, shift, around, slope, after, post, out, signs, in_scale, threshold, total, n
    ):
        integers = types.CPointer(types.int32)
        signature = types.void(
            *(integers if bits else FLOAT_POINTER, integers),
            *[FLOAT_POINTER] * 7,
            types.CPointer(types.uint16),
            *[FLOAT_POINTER] * 2,
            *[types.int64] * 2,
        )

        def codegen(context, builder, signature, arguments):
            sums, border, scale, shift, around, slope, after, post, out, signs, in_scale, threshold, total, n = (
                arguments
            )
            some = _Sixteen(builder, whole, n)
            zero = constant(0)
            if bits:
                most = spread(builder, builder.trunc(total, I32), 16)
                twice = builder.shl(some.read(sums, zero, _INTEGERS), ir.Constant(_INTEGERS, [1] * 16))
                whole_number = builder.sub(builder.sub(most, twice), some.read(border, zero, _INTEGERS))
                value = builder.sitofp(whole_number, FLOATS)
            else:
                value = some.read(sums, zero)
            value = some.multiply_add(value, some.read(scale, zero), some.read(shift, zero))
            value = builder.fadd(value, some.read(around, zero))
            value = builder.fadd(some.prelu(value, some.read(slope, zero)), some.read(after, zero))
            value = builder.fadd(value, some.read(post, zero))
            some.write(value, out, zero)
            if sign:
                scaled = builder.fmul(value, some.read(in_scale, zero))
                above = builder.fcmp_ordered(">", scaled, some.read(threshold, zero))
                if not whole:
                    above = builder.and_(above, some.mask)
                builder.store(builder.bitcast(above, ir.IntType(16)), signs)
            return context.get_dummy_value()

        return signature, codegen

    return finish


def make_pool(pixels: int, largest: bool) -> Callable:
    """Build ``pool(x, scale, shift, post, out, offsets, taps, n, share, x_step, p_step, o_step)``.

    For ``pixels`` positions and the first ``n``, at most 16, channels: ``out = scale * (largest of, or share * sum of
    x[offsets[t]] over t < taps) + shift + post``; the steps lie between positions.
    """

    @intrinsic
    def pool(typingctx, x, scale, shift, post, out, offsets, taps, n, share, x_step, p_step, o_step):
        signature = types.void(
            *[FLOAT_POINTER] * 5,
            *(types.CPointer(types.int64), types.int64, types.int64, types.float32),
            *[types.int64] * 3,
        )

        def codegen(context, builder, signature, arguments):
            x, scale, shift, post, out, offsets, taps, n, share, x_step, p_step, o_step = arguments
            some = _Sixteen(builder, False, n)
            zero = constant(0)

            def values(tap):
                at = builder.load(builder.gep(offsets, [tap]))
                return [some.read(x, builder.add(at, builder.mul(x_step, constant(p)))) for p in range(pixels)]

            def joined(total, value):
                if not largest:
                    return builder.fadd(total, value)
                # As torch: what is not a number stays.
                keep = builder.fcmp_unordered(">=", total, value)
                number = builder.fcmp_ordered("ord", value, value)
                return builder.select(builder.and_(keep, number), total, value)

            entry = builder.block
            loop = builder.append_basic_block("tap")
            done = builder.append_basic_block("done")
            first = values(zero)
            builder.cbranch(builder.icmp_signed("<", constant(1), taps), loop, done)

            builder.position_at_end(loop)
            tap = builder.phi(I64)
            totals = [builder.phi(FLOATS) for _ in range(pixels)]
            new = [joined(total, value) for total, value in zip(totals, values(tap), strict=True)]
            following = builder.add(tap, constant(1))
            tap.add_incoming(constant(1), entry)
            tap.add_incoming(following, loop)
            for total, begin, sum_ in zip(totals, first, new, strict=True):
                total.add_incoming(begin, entry)
                total.add_incoming(sum_, loop)
            builder.cbranch(builder.icmp_signed("<", following, taps), loop, done)

            builder.position_at_end(done)
            results = [builder.phi(FLOATS) for _ in range(pixels)]
            for result, begin, sum_ in zip(results, first, new, strict=True):
                result.add_incoming(begin, entry)
                result.add_incoming(sum_, loop)
            scales, shifts = some.read(scale, zero), some.read(shift, zero)
            for p, result in enumerate(results):
                result = result if largest else builder.fmul(result, spread(builder, share, 16))
                around = some.read(post, builder.mul(p_step, constant(p)))
                result = builder.fadd(some.multiply_add(result, scales, shifts), around)
                some.write(result, out, builder.mul(o_step, constant(p)))
            return context.get_dummy_value()

        return signature, codegen

    return pool


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
