// What an interaction says about a preference in implicit ALS, written once for host and device.
#pragma once

#include "recfuse/canonical.hpp"

namespace recfuse {

/// By how much a stored entry counts more than an absent one: confidence - 1. A dislike counts like a like.
template <class T>
RECFUSE_HD static inline T extra_confidence(T value, T alpha) {
  return alpha * (value < 0 ? -value : value);
}

/// c = 1 + alpha |r| (Hu, Koren, Volinsky 2008).
template <class T>
RECFUSE_HD static inline T confidence(T value, T alpha) {
  return 1 + extra_confidence(value, alpha);
}

/// The same where the confidence of a stored zero is not 1 but `base`: below 0 for entries that count less than absent
/// ones, whose confidence is below 1.
template <class T>
RECFUSE_HD static inline T extra_confidence(T value, T alpha, T base) {
  return extra_confidence(value, alpha) + (base - 1);
}

/// c = base + alpha |r|. With base 0 that is alpha |r|, as other libraries have it.
template <class T>
RECFUSE_HD static inline T confidence(T value, T alpha, T base) {
  return base + extra_confidence(value, alpha);
}

/// p = 1 for what was liked, 0 for a dislike and for a stored zero.
template <class T>
RECFUSE_HD static inline T preference(T value) {
  return value > 0 ? T{1} : T{0};
}

/// What a stored entry adds to the loss, less what the sum of (x . y)^2 over all pairs has counted for it.
RECFUSE_HD static inline double implicit_entry_loss(double value, double predicted, double alpha, double base = 1) {
  const double error = preference(value) - predicted;
  return confidence(value, alpha, base) * error * error - predicted * predicted;
}

}  // namespace recfuse
