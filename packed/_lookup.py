"""Vector code of table lookups, for AVX-512; see :mod:`onebit.packed._vector`."""

from __future__ import annotations

from collections.abc import Callable

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from onebit.packed._vector import FLOAT_POINTER, FLOATS, I32, I64, constant, pointer, vector_function

bytes_at = pointer(types.uint8)


@intrinsic
def sums_of_four(typingctx, x, scales, table):
    """The 16 sums ±a ±b ±c ±d of four scaled values: ``table[j]`` takes + where j has the bit.

    ``(a, b, c, d) = x[i] * scales[i]`` for i = 0 to 3; bit i of j belongs to value i.
    """
    signature = types.void(FLOAT_POINTER, FLOAT_POINTER, FLOAT_POINTER)

    def codegen(context, builder, signature, arguments):
        x, scales, table = arguments
        fma = vector_function(builder, "llvm.fmuladd.v16f32", FLOATS, FLOATS, FLOATS, FLOATS)
        four = ir.VectorType(ir.FloatType(), 4)
        loaded = []
        for place in (x, scales):
            load = builder.load(builder.bitcast(place, four.as_pointer()))
            load.align = 4
            loaded.append(load)
        values = builder.fmul(*loaded)
        total = None
        for i in range(4):
            place = ir.Constant(ir.VectorType(I32, 16), [i] * 16)
            spread = builder.shuffle_vector(values, values, place)
            signs = ir.Constant(FLOATS, [1.0 if j >> i & 1 else -1.0 for j in range(16)])
            if total is None:
                total = builder.fmul(spread, signs)
            else:
                total = builder.call(fma, [spread, signs, total])
        store = builder.store(total, builder.bitcast(table, FLOATS.as_pointer()))
        store.align = 4
        return context.get_dummy_value()

    return signature, codegen


@intrinsic
def sums_of_sixteen(typingctx, x, scales, tables):
    """:func:`sums_of_four` of four groups at once: x[0:16] to 4 tables, in fewer instructions.

    The sums of the first two and of the last two values of every group are formed side by side, and
    spread over the group's table only then.
    """
    signature = types.void(FLOAT_POINTER, FLOAT_POINTER, FLOAT_POINTER)

    def codegen(context, builder, signature, arguments):
        x, scales, tables = arguments
        fma = vector_function(builder, "llvm.fmuladd.v16f32", FLOATS, FLOATS, FLOATS, FLOATS)
        loaded = []
        for place in (x, scales):
            load = builder.load(builder.bitcast(place, FLOATS.as_pointer()))
            load.align = 4
            loaded.append(load)
        values = builder.fmul(*loaded)

        def shuffle(vector, places):
            return builder.shuffle_vector(vector, vector, ir.Constant(ir.VectorType(I32, 16), places))

        def pair(first, second):
            """In lane g of four: the sums ±first ±second of group g, first changing fastest."""
            spread = [shuffle(values, [4 * (i // 4) + v for i in range(16)]) for v in (first, second)]
            signs = [ir.Constant(FLOATS, [1.0 if i % 4 >> bit & 1 else -1.0 for i in range(16)]) for bit in (0, 1)]
            return builder.call(fma, [spread[1], signs[1], builder.fmul(spread[0], signs[0])])

        low, high = pair(0, 1), pair(2, 3)
        for group in range(4):
            table = builder.fadd(
                shuffle(low, [4 * group + j % 4 for j in range(16)]),
                shuffle(high, [4 * group + j // 4 for j in range(16)]),
            )
            place = builder.gep(tables, [constant(16 * group)])
            store = builder.store(table, builder.bitcast(place, FLOATS.as_pointer()))
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
        signature = types.void(FLOAT_POINTER, types.CPointer(types.uint8), FLOAT_POINTER, *[types.int64] * 4)

        def codegen(context, builder, signature, arguments):
            tables, codes, sums, groups, t_step, k_step, s_step = arguments
            places = ir.VectorType(I32, 16)
            short = ir.VectorType(ir.IntType(8), 16)
            permute = vector_function(builder, "llvm.x86.avx512.permvar.sf.512", FLOATS, FLOATS, places)
            shape = [(p, v) for p in range(pixels) for v in range(vectors)]

            def at(p, v):
                index = builder.add(builder.mul(s_step, constant(p)), constant(16 * v))
                return builder.bitcast(builder.gep(sums, [index]), FLOATS.as_pointer())

            entry = builder.block
            loop = builder.append_basic_block("group")
            done = builder.append_basic_block("done")
            begin = {}
            for key in shape:
                begin[key] = builder.load(at(*key))
                begin[key].align = 4
            builder.branch(loop)

            builder.position_at_end(loop)
            group = builder.phi(I64)
            totals = {key: builder.phi(FLOATS) for key in shape}
            row = builder.mul(group, k_step)
            chosen = []
            for v in range(vectors):
                place = builder.gep(codes, [builder.add(row, constant(16 * v))])
                load = builder.load(builder.bitcast(place, short.as_pointer()))
                load.align = 1
                chosen.append(builder.zext(load, places))
            new = {}
            for p in range(pixels):
                index = builder.add(builder.mul(t_step, constant(p)), builder.mul(group, constant(16)))
                table = builder.load(builder.bitcast(builder.gep(tables, [index]), FLOATS.as_pointer()))
                table.align = 4
                for v in range(vectors):
                    found = builder.call(permute, [table, chosen[v]])
                    new[p, v] = builder.fadd(totals[p, v], found)
            following = builder.add(group, constant(1))
            group.add_incoming(constant(0), entry)
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
