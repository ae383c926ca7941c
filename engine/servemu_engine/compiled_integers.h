/* Rows of floats as integers of 16 bits, for products that take half the memory and half the time.
 *
 * Up to INTEGERS consecutive numbers of a row share a scale, with which the integers have a
 * Euclidean norm of NORM; rounding adds at most sqrt(INTEGERS) / 2. So no integer needs more than
 * 15 bits beside the sign, and a sum of products of two blocks is below (NORM + 12)^2 < 2^31
 * (Cauchy-Schwarz): it cannot overflow, whatever the numbers are, and is exact. The rounding error
 * of a number is at most 0.5 sqrt(INTEGERS) / NORM = 3.7e-4 of the root mean square; bfloat16 is
 * off by up to 2^-9 = 2e-3 of each. Run so far: AVX2 and the path of no extension; whatever is
 * built is checked at load. */
#include "compiled_vectors.h"

#define INTEGERS 576
#define NORM 32755.f
#define SMALLEST 1e-18f /* norm of a block that is not zeros; squares of less vanish */

typedef struct {
    float scale; /* number = scale * integer */
    int16_t integers[INTEGERS];
} Block;

#define BLOCK_STEP (sizeof(Block) / sizeof(float))

typedef ivec pairs __attribute__((aligned(4), may_alias)); /* two numbers of 16 bits in a lane */
typedef int32_t pair __attribute__((may_alias));
typedef int16_t narrow __attribute__((vector_size(2 * LANES)));
typedef narrow integers __attribute__((aligned(2), may_alias));

/* Of a block: even, and all blocks of a row alike (compiled_packing.py). */
INLINE int64_t block_size(int64_t depth) {
    int64_t blocks = (depth + INTEGERS - 1) / INTEGERS;
    return ((depth + blocks - 1) / blocks + 1) / 2 * 2;
}
INLINE int64_t num_blocks(int64_t depth) {
    return (depth + block_size(depth) - 1) / block_size(depth);
}

/* A row as blocks. Of a NaN or infinite squares the products are no numbers either. */
static void quantise(const float *x, int64_t depth, Block *out) {
    const vec magic = all(12582912.f); /* 1.5 * 2^23: its sum with n has n in the lower bits */
    int64_t size = block_size(depth);
    for (; depth > 0; depth -= size, x += size, out++) {
        float copy[INTEGERS];
        const float *block = x;
        if (depth < size || size % LANES) { /* zeros up to whole vectors */
            memset(copy, 0, sizeof(copy));
            block = memcpy(copy, x, (depth < size ? depth : size) * sizeof(float));
        }
        vec squares = {};
        for (int i = 0; i < size; i += LANES) squares += load(block + i) * load(block + i);
        float norm = sqrtf(sum_of(squares)), factor = norm > SMALLEST ? NORM / norm : 0;
        out->scale = norm / NORM;
        for (int i = 0; i < size; i += LANES) {
            ivec n = (ivec)(load(block + i) * factor + magic);
            *(integers *)(out->integers + i) = __builtin_convertvector(n, narrow);
        }
    }
}

/* sum + the products of both pairs of each lane */
INLINE ivec dot(ivec sum, ivec a, ivec b) {
#if defined(__AVX512VNNI__)
    return (ivec)_mm512_dpwssd_epi32((__m512i)sum, (__m512i)a, (__m512i)b);
#elif defined(__AVX512BW__)
    return sum + (ivec)_mm512_madd_epi16((__m512i)a, (__m512i)b);
#elif defined(__AVXVNNI__) && LANES == 8
    return (ivec)_mm256_dpwssd_avx_epi32((__m256i)sum, (__m256i)a, (__m256i)b);
#elif defined(__AVX2__) && LANES == 8
    return sum + (ivec)_mm256_madd_epi16((__m256i)a, (__m256i)b);
#else
    return sum + (a << 16 >> 16) * (b << 16 >> 16) + (a >> 16) * (b >> 16);
#endif
}
