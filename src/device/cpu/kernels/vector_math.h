/*
 * Elementary functions on vectors of f32, right to a few units in the last place, and the exponential in f64.
 *
 * Polynomials are minimax on the reduced argument (Remez, relative error below 2^-25 for f32 and 2^-52 for f64). NaN stays NaN; exp of
 * -infinity is 0.
 */
#pragma once

#include "vector.h"

namespace nt {

/* x * 2^n for whole n in -252 .. 254 (f32). */
inline NT_INLINE vec scale_by_power(vec x, vec n) {
#if defined(NT_AVX512)
  return _mm512_scalef_ps(x, n);
#else
  /* In two steps, so that neither factor leaves the range of normal numbers. */
  const ivec whole = __builtin_convertvector(n, ivec), low = whole >> 1, high = whole - low;
  return x * (vec)((low + 127) << 23) * (vec)((high + 127) << 23);
#endif
}

/* The nearest whole number, for |x| < 2^22. */
inline NT_INLINE vec nearest(vec x) {
  constexpr float shift = 12582912.0f; /* 1.5 * 2^23 */
  return (x + shift) - shift;
}

/* e^r for |r| <= ln(2) / 2. */
inline NT_INLINE vec exp_reduced(vec r) {
  vec q = 0.0013813145f * r + 0.0083694188f;
  q = q * r + 0.041668457f;
  q = q * r + 0.166665148f;
  q = q * r + 0.49999993f;
  q = q * r + 1.0f;
  return q * r + 1.0f;
}

/* x where it is above `low` or NaN, else `low`. */
inline NT_INLINE vec at_least(vec x, float low) {
#if defined(NT_AVX512)
  return _mm512_max_ps(broadcast(low), x);
#elif defined(NT_AVX2)
  return _mm256_max_ps(broadcast(low), x);
#else
  return x < low ? broadcast(low) : x;
#endif
}

/* e^x for x below 88: no exponential here needs more, and the check would be paid everywhere. */
inline NT_INLINE vec exp(vec x) {
  const vec y = at_least(x, -105.0f), n = nearest(y * 1.44269504f);
  return scale_by_power(exp_reduced((y - n * 0.693359375f) + n * 2.12194440e-4f), n);
}

/* 2^x for x below 128. */
inline NT_INLINE vec exp2(vec x) {
  const vec y = at_least(x, -151.0f), n = nearest(y);
  return scale_by_power(exp_reduced((y - n) * 0.693147181f), n);
}

/* Natural logarithm of normal positive numbers. */
inline NT_INLINE vec log(vec x) {
  const ivec shifted = (ivec)x - 0x3f3504f3; /* so that the mantissa lies in sqrt(1/2) .. sqrt(2) */
  const vec n = __builtin_convertvector(shifted >> 23, vec);
  const vec f = (vec)((shifted & 0x7fffff) + 0x3f3504f3) - 1.0f;
  vec q = 0.0873483920f * f - 0.143075144f;
  q = q * f + 0.149179718f;
  q = q * f - 0.165705092f;
  q = q * f + 0.199620724f;
  q = q * f - 0.250017552f;
  q = q * f + 0.333339502f;
  q = q * f - 0.499999916f;
  return n * 0.693359375f + (f + ((f * f) * q - n * 2.12194440e-4f));
}

inline NT_INLINE vec square_root(vec x) {
#if defined(NT_AVX512)
  return _mm512_sqrt_ps(x);
#elif defined(NT_AVX2)
  return _mm256_sqrt_ps(x);
#else
  for (int i = 0; i < width; i++) x[i] = std::sqrt(x[i]);
  return x;
#endif
}

/* Sine and cosine of 2 pi * turns, for turns in 0 .. 1. */
inline NT_INLINE void sine_cosine(vec turns, vec& sine, vec& cosine) {
  const vec quarters = 4.0f * turns, quadrant = nearest(quarters), r = quarters - quadrant, r2 = r * r;
  vec s = -0.00460162590f * r2 + 0.0796800227f;
  s = s * r2 - 0.645963459f;
  s = (s * r2 + 1.57079632f) * r;
  vec c = 9.04015617e-4f * r2 - 0.0208602860f;
  c = c * r2 + 0.253669244f;
  c = c * r2 - 1.23370054f;
  c = c * r2 + 1.0f;
  const ivec whole = __builtin_convertvector(quadrant, ivec);
  const ivec is_odd = (whole & 1) != 0;
  const uvec sine_sign = (uvec)((whole & 2) << 30), cosine_sign = (uvec)(((whole + 1) & 2) << 30);
  sine = (vec)((uvec)(is_odd ? c : s) ^ sine_sign);
  cosine = (vec)((uvec)(is_odd ? s : c) ^ cosine_sign);
}

inline NT_INLINE vec magnitude(vec x) { return (vec)((uvec)x & 0x7fffffffu); }

/* 1 / x for x in 1 .. 2^20. */
inline NT_INLINE vec reciprocal(vec x) {
#if defined(NT_AVX512)
  /* A step of Newton's method from 14 bits is faster than a division. */
  const vec guess = _mm512_rcp14_ps(x);
  return guess * (2.0f - x * guess);
#else
  return 1.0f / x;
#endif
}

/* 1 / (1 + e^-x), and `other` = 1 / (1 + e^x), which loses nothing where the first is near 1. */
inline NT_INLINE vec sigmoid(vec x, vec& other) {
  const vec e = exp(-magnitude(x)), large = reciprocal(1.0f + e), small = e * large;
  other = x < 0.0f ? large : small;
  return x < 0.0f ? small : large;
}
inline NT_INLINE vec sigmoid(vec x) {
  vec other;
  return sigmoid(x, other);
}

/* Phi(x), the distribution function of the normal distribution, with small relative error in its lower tail too. `density` is
 * e^(-x^2 / 2). */
inline NT_INLINE vec normal_distribution(vec x, vec& density) {
  /* erfc(z) / 2 = e^(-z^2) t P(t), t = 1 / (1 + 0.35 z): P by minimax on 0 <= z <= 9.5, where e^(-z^2) vanishes in f32 long before 20. */
  const vec z = -at_least(magnitude(x) * -0.707106781f, -20.0f);
  const vec t = reciprocal(1.0f + 0.35f * z);
  vec p = 0.0188037323f * t - 0.0772338492f;
  p = p * t + 0.0852834219f;
  p = p * t - 0.00627772124f;
  p = p * t + 0.0369103780f;
  p = p * t + 0.0767493173f;
  p = p * t + 0.0742292986f;
  p = p * t + 0.0942622082f;
  p = p * t + 0.0985291077f;
  p = p * t + 0.0987441093f;
  /* The rounding of x^2 matters where the exponent is large: it is made good to first order. */
  const vec square = x * x, rest = fused(x, x, -square);
  density = exp(-0.5f * square) * (1.0f - 0.5f * rest);
  const vec tail = density * t * p;
  return x < 0.0f ? tail : 1.0f - tail;
}

/* e^x in f64 for x <= 0; below the normal numbers the result is 0. */
inline NT_INLINE dvec exp(dvec x) {
  const dvec low = broadcast(-708.0);
  const dvec y = x < low ? low : x;
  constexpr double shift = 6755399441055744.0; /* 1.5 * 2^52 */
  const dvec shifted = y * 1.4426950408889634 + shift, n = shifted - shift;
  const dvec r = (y - n * 6.93147180369123816490e-01) - n * 1.90821492927058770002e-10;
  /* Taylor's series: its rest at ln(2) / 2 is 2e-17. */
  dvec p = r * (1.0 / 6227020800) + 1.0 / 479001600;
  p = p * r + 1.0 / 39916800;
  p = p * r + 1.0 / 3628800;
  p = p * r + 1.0 / 362880;
  p = p * r + 1.0 / 40320;
  p = p * r + 1.0 / 5040;
  p = p * r + 1.0 / 720;
  p = p * r + 1.0 / 120;
  p = p * r + 1.0 / 24;
  p = p * r + 1.0 / 6;
  p = p * r + 0.5;
  p = (p * r) * r + (r + 1.0);
  const lvec power = ((lvec)shifted - (lvec)broadcast(shift) + 1023) << 52;
  return x < low ? dvec{} : p * (dvec)power;
}

}  // namespace nt
