"""The papers' claims as functions that check them: centers, contours, density, reversed softmaxes.

Each claim is a function that returns the margin by which it holds. For an inequality that is the
slack, which is never negative if the claim is true; for an identity the deviation, which is zero;
for an estimate by sampling the deviation in standard errors. All compute in NumPy, in float64, and
for one model of the features.
"""

from robustjax.theory.contours import (
    GSCE,
    Hyperplane,
    Sphere,
    contour,
    contour_deviation,
    extreme_loss,
    hyperplane,
    hyperplane_deviation,
    strongest_rival_slack,
)
from robustjax.theory.density import (
    Shell,
    density_exact,
    density_paper,
    gsce_shell,
    knn_log_density,
    mmc_shell,
    shell_deviation,
    unit_distance,
)
from robustjax.theory.discriminant import (
    Mixture,
    efron_deviation,
    efron_efficiency,
    error_rate,
    learned_errors,
    sampled_efficiency,
    two_normals,
)
from robustjax.theory.rejection import (
    auxiliary_error,
    rejection_slack,
    sufficient_confidence,
)
from robustjax.theory.reverse import (
    extreme_probabilities,
    one_hot_slack,
    reverse_error,
    reversed_probabilities,
    sampled_probabilities,
    uniformity_slack,
)
from robustjax.theory.robustness import (
    approximate_robustness,
    bound_slack,
    distance_deviation,
    expected_distance,
    robustness,
    robustness_bound,
    sampled_distance,
)
from robustjax.theory.toy import (
    Course,
    center_loss_course,
    contraction_deviation,
    mmc_course,
    path_ratio,
)

__all__ = [
    "GSCE",
    "Course",
    "Hyperplane",
    "Mixture",
    "Shell",
    "Sphere",
    "approximate_robustness",
    "auxiliary_error",
    "bound_slack",
    "center_loss_course",
    "contour",
    "contour_deviation",
    "contraction_deviation",
    "density_exact",
    "density_paper",
    "distance_deviation",
    "efron_deviation",
    "efron_efficiency",
    "error_rate",
    "expected_distance",
    "extreme_loss",
    "extreme_probabilities",
    "gsce_shell",
    "hyperplane",
    "hyperplane_deviation",
    "knn_log_density",
    "learned_errors",
    "mmc_course",
    "mmc_shell",
    "one_hot_slack",
    "path_ratio",
    "rejection_slack",
    "reverse_error",
    "reversed_probabilities",
    "robustness",
    "robustness_bound",
    "sampled_distance",
    "sampled_efficiency",
    "sampled_probabilities",
    "shell_deviation",
    "strongest_rival_slack",
    "sufficient_confidence",
    "two_normals",
    "uniformity_slack",
    "unit_distance",
]
