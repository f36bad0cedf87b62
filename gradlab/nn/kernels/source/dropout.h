/* Dropout by counted random numbers: SplitMix64 of seed, step, site and place, as gradlab/nn/dropout.py has it. */

static uint64_t mixed(uint64_t x)
{
    x = (x ^ (x >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94D049BB133111EB);
    return x ^ (x >> 31);
}

static void dropout(int64_t count, int64_t site, const int64_t *seed, const double *done, const double *share,
                    const REAL *restrict x, REAL *restrict y)
{
    uint64_t start = mixed((uint64_t)*seed + UINT64_C(0xD1B54A32D192ED03) * (uint64_t)(int64_t)*done
                           + UINT64_C(0x8CB92BA72F3D8DD7) * (uint64_t)site);
    REAL kept = (REAL)(1 / (1 - *share));
    for (int64_t i = 0; i < count; i++) {
        uint64_t bits = mixed(start + (uint64_t)(i + 1) * UINT64_C(0x9E3779B97F4A7C15)) >> 11;
        y[i] = x[i] * ((double)bits * 0x1p-53 >= *share ? kept : 0);
    }
}
