/* Crops of stacked frames as the convolutions read them. native.py compiles this file; augment.py says what it computes. */
#include <immintrin.h>
#include <stdint.h>
#include <string.h>

#ifndef __AVX2__
#error "AVX2 is needed"
#endif

enum { BLOCK = 16 }; /* pixels of a row that are read at once */

typedef uint8_t bytes __attribute__((vector_size(BLOCK)));

static inline bytes low(bytes a, bytes b)
{
    return __builtin_shuffle(a, b, (bytes){0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23});
}

static inline bytes high(bytes a, bytes b)
{
    return __builtin_shuffle(a, b, (bytes){8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31});
}

/* 8 channels of 16 pixels -> 16 pixels of 8 channels. */
static inline void interleave(bytes channels[8], bytes pixels[8])
{
    bytes a[8], b[8];
    for (int i = 0; i < 4; i++) a[2 * i] = low(channels[i], channels[i + 4]), a[2 * i + 1] = high(channels[i], channels[i + 4]);
    for (int i = 0; i < 4; i++) b[2 * i] = low(a[i], a[i + 4]), b[2 * i + 1] = high(a[i], a[i + 4]);
    for (int i = 0; i < 4; i++) pixels[2 * i] = low(b[i], b[i + 4]), pixels[2 * i + 1] = high(b[i], b[i + 4]);
}

static inline uint16_t bf16(float value) /* half to even */
{
    uint32_t bits;
    memcpy(&bits, &value, 4);
    return (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}

static inline __m128i bf16_of_8(__m256 values)
{
    __m256i bits = _mm256_castps_si256(values), odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    bits = _mm256_srli_epi32(_mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff))), 16);
    return _mm_packus_epi32(_mm256_castsi256_si128(bits), _mm256_extracti128_si256(bits, 1));
}

/* Up to 16 pixels of a row. run: their columns are consecutive. */
static inline bytes read(const uint8_t *row, const int64_t *column, int count, int run)
{
    bytes found = {0};
    if (!run)
        for (int i = 0; i < count; i++) found[i] = row[column[i]];
    else if (count == BLOCK)
        memcpy(&found, row + column[0], BLOCK);
    else
        memcpy(&found, row + column[0], count);
    return found;
}

/* out[n][y][x][c] = factor[n] * p, with p the pixel (rows[n][y], columns[n][x]) of plane planes[n][c], or fill[c] where hidden[n] has a 1.
   out is bf16 if `narrow`, else fp32. hidden and factor may be 0. */
void gather(const uint8_t *store, const int64_t *planes, const int64_t *rows, const int64_t *columns, int run, const uint8_t *hidden,
            const uint8_t *fill, const float *factor, void *out, int narrow, const int64_t shape[6], int threads)
{
    const int64_t images = shape[0], channels = shape[1], height = shape[2], width = shape[3], h = shape[4], w = shape[5];
    (void)threads;
#pragma omp parallel for num_threads(threads)
    for (int64_t line = 0; line < images * h; line++) {
        const int64_t n = line / h, row = rows[line] * width;
        const float scale = factor ? factor[n] : 1.0f;
        for (int64_t x = 0; x < w; x += BLOCK) {
            const int64_t *column = columns + n * w + x;
            const int count = w - x < BLOCK ? (int)(w - x) : BLOCK;
            bytes covered = {0};
            if (hidden) covered = (bytes)(read(hidden + n * height * width + row, column, count, run) != 0);
            for (int64_t c = 0; c < channels; c += 8) {
                const int some = channels - c < 8 ? (int)(channels - c) : 8;
                const int64_t at = (line * w + x) * channels + c;
                bytes a[8] = {{0}}, b[8];
                for (int i = 0; i < some; i++) {
                    a[i] = read(store + planes[n * channels + c + i] * height * width + row, column, count, run);
                    if (hidden) a[i] = (a[i] & ~covered) | (((bytes){0} + fill[c + i]) & covered);
                }
                if (some < 8) {
                    for (int i = 0; i < some; i++)
                        for (int j = 0; j < count; j++) {
                            const float value = (float)a[i][j] * scale;
                            if (narrow) ((uint16_t *)out)[at + j * channels + i] = bf16(value);
                            else ((float *)out)[at + j * channels + i] = value;
                        }
                    continue;
                }
                interleave(a, b);
                for (int j = 0; j < count; j++) {
                    const __m128i pixel = _mm_loadl_epi64((const __m128i *)((uint8_t *)b + 8 * j));
                    const __m256 values = _mm256_mul_ps(_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(pixel)), _mm256_set1_ps(scale));
                    if (narrow) _mm_storeu_si128((__m128i *)((uint16_t *)out + at + j * channels), bf16_of_8(values));
                    else _mm256_storeu_ps((float *)out + at + j * channels, values);
                }
            }
        }
    }
}
